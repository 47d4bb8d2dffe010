//! The terminal: taken over, drawn on, and given back whatever happens.

use std::io::{self, Stdout, Write};

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::style::{Attribute, Color, Print, ResetColor, SetAttribute, SetForegroundColor};
use crossterm::terminal::{
    BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate, EnterAlternateScreen,
    LeaveAlternateScreen, disable_raw_mode, enable_raw_mode, size,
};
use crossterm::{execute, queue};

use super::view::{Line, Style};

/// Dropping it gives the terminal back, also while a panic unwinds.
pub(super) struct Screen {
    out: Stdout,
    colours: bool,
}

impl Screen {
    pub(super) fn open() -> io::Result<Screen> {
        enable_raw_mode()?;
        // From here on, dropping it undoes what was done.
        let mut screen = Screen {
            out: io::stdout(),
            colours: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        };
        execute!(screen.out, EnterAlternateScreen, Hide)?;
        Ok(screen)
    }

    /// Columns and lines.
    pub(super) fn size(&self) -> io::Result<(usize, usize)> {
        let (columns, lines) = size()?;
        Ok((columns.into(), lines.into()))
    }

    /// Draws a page on a terminal of so many lines.
    pub(super) fn draw(&mut self, lines: &[Line], height: usize) -> io::Result<()> {
        queue!(self.out, BeginSynchronizedUpdate)?;
        for (index, row) in (0..height).zip(0..) {
            // Before it is drawn: after a line that is as wide as the terminal this would take its last character.
            queue!(self.out, MoveTo(0, row), Clear(ClearType::UntilNewLine))?;
            let spans = lines.get(index).map_or(&[][..], Line::spans);
            for (style, text) in spans {
                self.begin(*style)?;
                queue!(self.out, Print(text), SetAttribute(Attribute::Reset))?;
                if self.colours {
                    queue!(self.out, ResetColor)?;
                }
            }
        }
        queue!(self.out, EndSynchronizedUpdate)?;
        self.out.flush()
    }

    fn begin(&mut self, style: Style) -> io::Result<()> {
        let (colour, attribute) = match style {
            Style::Plain => return Ok(()),
            Style::Heading => (None, Some(Attribute::Bold)),
            Style::Faint => (None, Some(Attribute::Dim)),
            Style::Good => (Some(Color::Green), None),
            Style::Doubtful => (Some(Color::Yellow), None),
            Style::Bad => (Some(Color::Red), Some(Attribute::Bold)),
        };
        if let Some(attribute) = attribute {
            queue!(self.out, SetAttribute(attribute))?;
        }
        match colour {
            Some(colour) if self.colours => queue!(self.out, SetForegroundColor(colour)),
            _ => Ok(()),
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = execute!(self.out, Show, LeaveAlternateScreen);
        let _ = disable_raw_mode();
    }
}

//! The terminal: taken over, drawn on, and given back whatever happens.

use std::io::{self, Stdout, Write};

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::style::{ContentStyle, PrintStyledContent, Stylize};
use crossterm::terminal::{
    BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate, EnterAlternateScreen,
    LeaveAlternateScreen, disable_raw_mode, enable_raw_mode, size,
};
use crossterm::{execute, queue};

use super::view::{Line, Style};

/// Dropping it gives the terminal back, also while a panic unwinds.
pub(super) struct Screen(Stdout);

impl Screen {
    pub(super) fn open() -> io::Result<Screen> {
        enable_raw_mode()?;
        // From here on, dropping it undoes what was done.
        let mut screen = Screen(io::stdout());
        execute!(screen.0, EnterAlternateScreen, Hide)?;
        Ok(screen)
    }

    /// Draws a page that is made for so many columns and lines.
    pub(super) fn draw(&mut self, page: impl FnOnce(usize, usize) -> Vec<Line>) -> io::Result<()> {
        let (columns, rows) = size()?;
        let lines = page(columns.into(), rows.into());
        queue!(self.0, BeginSynchronizedUpdate)?;
        for row in 0..rows {
            // Before it is drawn: after a line that is as wide as the terminal this would take its last character.
            queue!(self.0, MoveTo(0, row), Clear(ClearType::UntilNewLine))?;
            for (style, text) in lines.get(usize::from(row)).map_or(&[][..], Line::spans) {
                queue!(self.0, PrintStyledContent(look(*style).apply(text)))?;
            }
        }
        queue!(self.0, EndSynchronizedUpdate)?;
        self.0.flush()
    }
}

/// `NO_COLOR` takes the colours away again, as crossterm sees to.
fn look(style: Style) -> ContentStyle {
    let plain = ContentStyle::new();
    match style {
        Style::Plain => plain,
        Style::Heading => plain.bold(),
        Style::Faint => plain.dim(),
        Style::Good => plain.green(),
        Style::Doubtful => plain.yellow(),
        Style::Bad => plain.red().bold(),
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = execute!(self.0, Show, LeaveAlternateScreen);
        let _ = disable_raw_mode();
    }
}

//! The last warnings and errors of the log, for the status page.
//!
//! They are what the log says, no more: what may not be in a log must not be shown either, and never gets here.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::Mutex;

use jiff::Timestamp;
use rtm_source::is_invisible;
use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use crate::lock;

/// How many different ones are kept. Equal ones, details aside, are one, counted: a fault that repeats ten times a second
/// must not push out what came before it.
const KEPT: usize = 20;

/// Bytes of a line, at most; an error may hold a broker's answer.
const LINE: usize = 600;

/// The log is the process's, and so is this.
static RECENT: Mutex<VecDeque<Recent>> = Mutex::new(VecDeque::new());

/// A warning or an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Recent {
    /// `warn` or `error`.
    level: &'static str,
    /// When it came last.
    at: Timestamp,
    /// How often it came since `first`.
    count: u64,
    /// When it came first.
    first: Timestamp,
    /// What it says.
    message: String,
    /// Whose: the App ID's name and the sink.
    of: String,
    /// The last one's details.
    details: String,
}

/// What is kept, newest first.
pub(crate) fn all() -> Vec<Recent> {
    lock(&RECENT).iter().cloned().collect()
}

/// Keeps warnings and errors.
#[derive(Debug)]
pub(crate) struct Keep;

impl<S> Layer<S> for Keep
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut text = Text::default();
        attributes.record(&mut text);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(text);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warn",
            _ => return,
        };
        let mut text = Text::default();
        event.record(&mut text);
        let mut of = String::new();
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(text) = span.extensions().get::<Text>() {
                append(&mut of, &text.fields);
            }
        }
        keep(&mut lock(&RECENT), level, &text, of, Timestamp::now());
    }
}

fn keep(
    recent: &mut VecDeque<Recent>,
    level: &'static str,
    text: &Text,
    of: String,
    at: Timestamp,
) {
    let known = recent
        .iter()
        .position(|known| known.level == level && known.message == text.message && known.of == of);
    let known = known.and_then(|index| recent.remove(index));
    let (count, first) = known.map_or((0, at), |known| (known.count, known.first));
    recent.push_front(Recent {
        level,
        at,
        count: count + 1,
        first,
        message: text.message.clone(),
        of,
        details: text.fields.clone(),
    });
    recent.truncate(KEPT);
}

/// The message and the fields of an event, or of a span, control characters escaped.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    fn add(&mut self, field: &Field, value: &str) {
        let mut safe = String::with_capacity(value.len());
        for c in value.chars() {
            if safe.len() >= LINE {
                safe.push('…');
                break;
            }
            if c.is_control() || is_invisible(c) {
                safe.extend(c.escape_unicode());
            } else {
                safe.push(c);
            }
        }
        match field.name() {
            "message" => self.message = safe,
            // What the `log` crate's records bring along.
            name if name.starts_with("log.") => {}
            name => {
                if self.fields.len() < LINE {
                    append(&mut self.fields, &format!("{name}={safe}"));
                }
            }
        }
    }
}

fn append(text: &mut String, more: &str) {
    if !text.is_empty() && !more.is_empty() {
        text.push(' ');
    }
    text.push_str(more);
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let mut text = String::new();
        let _ = write!(text, "{value:?}");
        self.add(field, &text);
    }
}

#[cfg(test)]
mod tests;

//! What is wrong with a value, as its key and a sentence.

use std::error::Error;
use std::fmt::Display;
use std::io::{self, ErrorKind};
use std::iter::successors;
use std::path::Path;
use std::time::Duration;

/// Takes what is wrong with a table, and what only looks wrong: the key, and a sentence on its value.
pub(crate) struct Problems<'a> {
    /// What stands before each key: the table's own, and a dot; nothing for the whole.
    table: String,
    found: &'a mut Vec<(String, String)>,
    /// What is not there, and may come; among what was found where nobody asks for it.
    absent: Option<&'a mut Vec<(String, String)>>,
}

impl<'a> Problems<'a> {
    /// Of the whole, into `found`.
    pub(crate) fn new(found: &'a mut Vec<(String, String)>) -> Problems<'a> {
        Problems {
            table: String::new(),
            found,
            absent: None,
        }
    }

    /// As [`Problems::new`], with what is not there and may come into `absent`.
    pub(crate) fn and_absent(self, absent: &'a mut Vec<(String, String)>) -> Problems<'a> {
        Problems {
            absent: Some(absent),
            ..self
        }
    }

    /// Of the table at `key`.
    pub(crate) fn of(&mut self, key: impl Display) -> Problems<'_> {
        Problems {
            table: format!("{}{key}.", self.table),
            found: self.found,
            absent: self.absent.as_deref_mut(),
        }
    }

    pub(crate) fn add(&mut self, key: impl Display, message: impl Into<String>) {
        let key = format!("{}{key}", self.table);
        self.found.push((key, message.into()));
    }

    /// What the configuration names is not there: a file, a mount. It may come while nobody changes the configuration.
    pub(crate) fn absent(&mut self, key: impl Display, message: impl Into<String>) {
        let key = format!("{}{key}", self.table);
        let absent = self.absent.as_deref_mut().unwrap_or(self.found);
        absent.push((key, message.into()));
    }

    /// A deadline that something can meet.
    pub(crate) fn deadline(&mut self, key: &str, value: Duration) {
        if value.is_zero() {
            self.add(key, "is nothing; expected a time such as \"10s\"");
        }
        self.up_to_a_day(key, value);
    }

    /// A day is longer than anything that is to end by itself: a slip in the unit.
    pub(crate) fn up_to_a_day(&mut self, key: &str, value: Duration) {
        if value > Duration::from_hours(24) {
            self.add(key, "expected at most 24h");
        }
    }

    /// A file that can be read now, and holds something; what it is to hold may follow as `hint`.
    pub(crate) fn readable(&mut self, key: impl Display, file: &Path, hint: &str) {
        match rtm_sink::regular(file).and_then(|()| std::fs::read(file)) {
            Err(error) => {
                let message = format!("cannot read {}: {error}{hint}", file.display());
                match may_come(&error) {
                    true => self.absent(key, message),
                    false => self.add(key, message),
                }
            }
            Ok(content) if content.trim_ascii().is_empty() => {
                self.add(key, format!("{} is empty{hint}", file.display()));
            }
            Ok(_) => {}
        }
    }
}

/// Whether an error is of something that may be there later, while nobody changes the configuration: a file, a mount, a
/// permission. It is not where the system can never do what is asked for, as of a path through a file.
pub(crate) fn may_come(error: &(dyn Error + 'static)) -> bool {
    use ErrorKind::{
        InvalidData, InvalidFilename, InvalidInput, NotADirectory, UnexpectedEof, Unsupported,
    };
    let mut causes = successors(Some(error), |error: &&(dyn Error + 'static)| {
        (*error).source()
    });
    let of_the_system = causes.find_map(|cause| cause.downcast_ref::<io::Error>());
    of_the_system.is_some_and(|error| {
        !matches!(
            error.kind(),
            InvalidData
                | InvalidFilename
                | InvalidInput
                | NotADirectory
                | UnexpectedEof
                | Unsupported
        )
    })
}

/// How names look, in words.
pub(crate) const NAME: &str = "1 to 64 letters, digits, `_` or `-`";

/// As [`NAME`], as a regular expression.
pub(crate) const NAME_PATTERN: &str = "^[A-Za-z0-9_-]{1,64}$";

/// Whether `text` can be a label, a topic's part and a subject's token without escaping.
pub(crate) fn is_name(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    (1..=64).contains(&text.len()) && text.bytes().all(legal)
}

/// Names in a sentence.
pub(crate) fn list(known: &[&str]) -> String {
    let quoted: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

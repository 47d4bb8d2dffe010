//! What is wrong with a value, as its key and a sentence.

use std::path::Path;
use std::time::Duration;

/// Takes a problem: the key, below the table that is looked at, and what is wrong with its value.
pub(crate) type Add<'a> = &'a mut dyn FnMut(&str, String);

/// How names look, in words.
pub(crate) const NAME: &str = "1 to 64 letters, digits, `_` or `-`";

/// As [`NAME`], as a regular expression.
pub(crate) const NAME_PATTERN: &str = "^[A-Za-z0-9_-]{1,64}$";

/// Longer than anything that is to end by itself: a slip in the unit.
pub(crate) const A_DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Whether `text` can be a label, a topic's part and a subject's token without escaping.
#[must_use]
pub(crate) fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// Names in a sentence.
pub(crate) fn list(known: &[&str]) -> String {
    let quoted: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

pub(crate) fn up_to_a_day() -> String {
    "expected at most 24h".to_owned()
}

/// A deadline that something can meet.
pub(crate) fn deadline(key: &str, value: Duration, add: Add<'_>) {
    if value.is_zero() {
        add(
            key,
            "is nothing; expected a time such as \"10s\"".to_owned(),
        );
    } else if value > A_DAY {
        add(key, up_to_a_day());
    }
}

/// A file that can be read now, and holds something.
pub(crate) fn readable(file: &Path, key: &str, add: Add<'_>) {
    match std::fs::read(file) {
        Err(error) => add(key, format!("cannot read {}: {error}", file.display())),
        Ok(content) if content.trim_ascii().is_empty() => {
            add(key, format!("{} is empty", file.display()));
        }
        Ok(_) => {}
    }
}

//! Environment variables, as a configuration takes them.

use std::ffi::OsStr;

/// The variable's value as text, tidied; none where it is not set or no text.
pub(crate) fn variable(name: impl AsRef<OsStr>) -> Option<String> {
    std::env::var(name)
        .ok()
        .map(|value| tidied(&value).to_owned())
}

/// `text` without what editors and files of variables leave around it: a byte order mark before it, ends of lines behind it.
pub(crate) fn tidied(text: &str) -> &str {
    let text = text.trim_start_matches('\u{feff}');
    text.trim_end_matches(['\r', '\n'])
}

#[cfg(test)]
mod tests;

//! Environment variables, as a configuration takes them.

use std::ffi::OsStr;

use rtm_sink::tidied;

/// The variable's value as text, tidied; none where it is not set or no text.
pub(crate) fn variable(name: impl AsRef<OsStr>) -> Option<String> {
    std::env::var(name)
        .ok()
        .map(|value| tidied(&value).to_owned())
}

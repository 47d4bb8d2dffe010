//! Small files that an operator names: a password, a token, a key.

use std::fs::{self, File};
use std::io::{self, Error, ErrorKind, Read};
use std::path::Path;

/// No secret is longer. More is a mistake in the path.
const MAX_BYTES: u64 = 1 << 20;

/// What the file holds, [`tidied`]. Blocks; on a share that hangs, for as long as that does.
///
/// # Errors
///
/// When it cannot be read, is not [`regular`], holds no UTF-8, or more than a mebibyte.
pub fn read_text(path: &Path) -> io::Result<String> {
    regular(path)?;
    let mut text = String::new();
    let file = File::open(path)?;
    if file.take(MAX_BYTES + 1).read_to_string(&mut text)? as u64 > MAX_BYTES {
        return Err(Error::new(
            ErrorKind::InvalidData,
            "it is longer than 1 MiB",
        ));
    }
    Ok(tidied(&text).to_owned())
}

/// `text` without what editors leave around it: a byte order mark before it, ends of lines behind it. White space is kept, for
/// it may be a part of a password.
pub fn tidied(text: &str) -> &str {
    let text = text.trim_start_matches('\u{feff}');
    text.trim_end_matches(['\r', '\n'])
}

/// Refuses what is no regular file once links are followed: opening a FIFO waits for its writer, and a device may never end.
///
/// # Errors
///
/// When it is none, or cannot be looked at.
pub fn regular(path: &Path) -> io::Result<()> {
    match fs::metadata(path)?.is_file() {
        true => Ok(()),
        false => Err(Error::other("it is not a regular file")),
    }
}

#[cfg(test)]
mod tests;

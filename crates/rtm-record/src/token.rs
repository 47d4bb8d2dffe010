//! Any text as one token of a NATS subject.

use sha2::{Digest, Sha256};

/// The longest token that [`escape_token`] makes, in bytes.
///
/// The longest id that Agora allows is 64 ASCII characters, at most 192 bytes escaped, so that no legal id is cut.
pub const MAX_TOKEN_BYTES: usize = 200;

/// What an empty text becomes: an escape without its digits, which no other text produces.
const EMPTY: &str = "=";

/// What stands between the start of a long text and its hash; for the same reason no short text produces it.
const CUT: &str = "==";

/// Hash bytes kept of a long text: 128 bits.
const HASH_BYTES: usize = 16;

/// Turns any text into one token of a subject, so that an id can never add a token or a wildcard.
///
/// `A-Z a-z 0-9 _ -` stay, every other byte of the UTF-8 becomes `=HH` with upper-case digits, and the empty text
/// becomes `=`. Different texts give different tokens. A token that would be longer than [`MAX_TOKEN_BYTES`] is cut, and
/// ends in `==` and 128 bits of the text's SHA-256, in which case "different" means "as far as anybody can tell".
pub fn escape_token(text: &str) -> String {
    if text.is_empty() {
        return EMPTY.to_owned();
    }
    let mut token = String::with_capacity(text.len());
    for byte in text.bytes() {
        push_escaped(&mut token, byte);
    }
    if token.len() > MAX_TOKEN_BYTES {
        shorten(&mut token, text);
    }
    token
}

fn push_escaped(token: &mut String, byte: u8) {
    if byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-' {
        token.push(char::from(byte));
    } else {
        token.push('=');
        push_hex(token, byte);
    }
}

/// Keeps the start, which a reader recognises, and replaces the rest by the hash of the whole.
fn shorten(token: &mut String, text: &str) {
    let mut keep = MAX_TOKEN_BYTES - CUT.len() - 2 * HASH_BYTES;
    // Never half an escape: its `=` and what follows would read as something else.
    if let Some(escape) = token[keep - 2..keep].find('=') {
        keep = keep - 2 + escape;
    }
    token.truncate(keep);
    token.push_str(CUT);
    for byte in &Sha256::digest(text)[..HASH_BYTES] {
        push_hex(token, *byte);
    }
}

/// Two upper-case hexadecimal digits.
fn push_hex(text: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    text.push(char::from(DIGITS[usize::from(byte >> 4)]));
    text.push(char::from(DIGITS[usize::from(byte & 15)]));
}

#[cfg(test)]
mod tests;

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
#[must_use]
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
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// Holds: the exact form, which consumers write filters for and which must not change.
    #[test]
    fn tokens_have_the_documented_form() {
        for (text, token) in [
            ("eu-west-1", "eu-west-1"),
            ("a_B9", "a_B9"),
            ("", "="),
            ("=", "=3D"),
            ("==", "=3D=3D"),
            ("=3D", "=3D3D"),
            ("a.b", "a=2Eb"),
            ("*", "=2A"),
            (">", "=3E"),
            ("a b\r\n\0", "a=20b=0D=0A=00"),
            ("é", "=C3=A9"),
            ("\u{202e}", "=E2=80=AE"),
        ] {
            assert_eq!(escape_token(text), token, "{text:?}");
        }
    }

    /// Holds: the longest legal id is escaped whole, one byte more is not, and the cut never splits an escape.
    #[test]
    fn long_texts_are_cut_with_their_hash() {
        assert_eq!(escape_token(&"~".repeat(64)), "=7E".repeat(64));
        assert_eq!(escape_token(&"a".repeat(200)), "a".repeat(200));
        let cut = escape_token(&"a".repeat(201));
        assert_eq!(cut.len(), MAX_TOKEN_BYTES);
        assert!(cut.starts_with(&format!("{}==", "a".repeat(166))), "{cut}");
        for lead in 0..3 {
            let text = format!("{}{}", "a".repeat(lead), ".".repeat(100));
            let token = escape_token(&text);
            let (start, hash) = token.rsplit_once("==").unwrap();
            assert_eq!(hash.len(), 32);
            assert_eq!(start.trim_start_matches('a').len() % 3, 0, "{token}");
        }
    }

    fn hostile_text() -> impl Strategy<Value = String> {
        prop_oneof![
            "[=a.]{0,4}",
            "[=A-F0-9]{0,8}",
            ".{0,20}",
            proptest::collection::vec(any::<char>(), 0..120).prop_map(String::from_iter),
            "[a*>. ~]{195,205}",
            "a{160,170}[=.]{0,60}",
        ]
    }

    /// What a token stands for, where it was not cut.
    fn unescape(token: &str) -> Option<Vec<u8>> {
        if token == EMPTY {
            return Some(Vec::new());
        }
        let mut bytes = Vec::new();
        let mut rest = token.bytes();
        while let Some(byte) = rest.next() {
            bytes.push(match byte {
                b'=' => {
                    let digits = [rest.next()?, rest.next()?];
                    u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
                }
                byte => byte,
            });
        }
        Some(bytes)
    }

    proptest! {
        /// Holds: whatever the text, the token is one token, no wildcard, and short.
        #[test]
        fn any_text_becomes_one_harmless_token(text in hostile_text()) {
            let token = escape_token(&text);
            prop_assert!(!token.is_empty() && token.len() <= MAX_TOKEN_BYTES);
            prop_assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-=".contains(&b)), "{token}");
        }

        /// Holds: no two texts share a token: one that was not cut can be read back, one that was is marked.
        #[test]
        fn no_two_texts_share_a_token(texts in proptest::collection::vec(hostile_text(), 2..40)) {
            let mut tokens: HashMap<String, String> = HashMap::new();
            for text in texts {
                let token = escape_token(&text);
                if !token.contains(CUT) {
                    prop_assert_eq!(unescape(&token), Some(text.as_bytes().to_vec()));
                }
                if let Some(other) = tokens.insert(token, text.clone()) {
                    prop_assert_eq!(other, text);
                }
            }
        }
    }
}

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

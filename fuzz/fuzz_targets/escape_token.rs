//! Holds: any text becomes one harmless token of a subject, short, and another text another token.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rtm_record::token::{MAX_TOKEN_BYTES, escape_token};

fuzz_target!(|texts: (String, String)| {
    let (one, other) = (escape_token(&texts.0), escape_token(&texts.1));
    assert_eq!(one == other, texts.0 == texts.1, "{one}");
    assert!(!one.is_empty() && one.len() <= MAX_TOKEN_BYTES, "{one}");
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"_-=".contains(&byte);
    assert!(one.bytes().all(harmless), "{one}");
    match unescape(&one) {
        Some(text) => assert_eq!(text, texts.0.as_bytes(), "{one}"),
        // Only a text whose token would be too long is cut.
        None => assert!(escaped_bytes(&texts.0) > MAX_TOKEN_BYTES, "{one}"),
    }
});

/// What a token stands for; `None` if it was cut, of which `==` is the mark.
fn unescape(token: &str) -> Option<Vec<u8>> {
    if token == "=" {
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

fn escaped_bytes(text: &str) -> usize {
    let stays = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    let length = |byte: u8| if stays(byte) { 1 } else { 3 };
    text.bytes().map(length).sum()
}

//! The usual event, found and read in one pass, where a parser would first have to be told where it ends.

use crate::fields::{Fields, Value};

/// An event as Agora writes them: an object of plain strings and integers, without white space.
#[derive(Debug)]
pub(crate) struct Flat<'a> {
    pub(crate) json: &'a str,
    pub(crate) fields: Fields<'a>,
}

/// The event that `text` begins with. `None` for any other, be it JSON or not.
pub(crate) fn event(text: &str) -> Option<Flat<'_>> {
    let mut rest = text.strip_prefix('{')?;
    let mut fields = Fields::default();
    loop {
        let key = string(rest)?;
        rest = rest[key.len() + 2..].strip_prefix(':')?;
        let value = match string(rest) {
            Some(value) => {
                rest = &rest[value.len() + 2..];
                value
            }
            None => {
                let value = integer(rest)?;
                rest = &rest[value.len()..];
                value
            }
        };
        let slot = match key {
            "user_id" => Some(&mut fields.user_id),
            "group_id" => Some(&mut fields.group_id),
            "channel_id" => Some(&mut fields.channel_id),
            "type" => Some(&mut fields.kind),
            "ms" => Some(&mut fields.ms),
            "ts" => Some(&mut fields.ts),
            _ => None,
        };
        if let Some(slot) = slot {
            *slot = Some(Value::Plain(value));
        }
        if let Some(end) = rest.strip_prefix('}') {
            let json = &text[..text.len() - end.len()];
            return Some(Flat { json, fields });
        }
        rest = rest.strip_prefix(',')?;
    }
}

/// What stands in the string that `json` begins with, if it says what it means: nothing is escaped, or had to be.
fn string(json: &str) -> Option<&str> {
    let inside = json.strip_prefix('"')?;
    let length = special(inside.as_bytes())?;
    (inside.as_bytes()[length] == b'"').then(|| &inside[..length])
}

/// Where the first quote, backslash or control character is. Strings are too short for a call of a searching function to
/// pay, so eight bytes are looked at in one number ("Bit Twiddling Hacks", S. E. Anderson: a byte less than n). What a
/// borrow adds lies above a byte that is one, and the lowest counts.
fn special(text: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    let less = |word: u64, than: u8| word.wrapping_sub(ONES * u64::from(than)) & !word & HIGH;
    let (words, rest) = text.as_chunks::<8>();
    for (number, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let found = less(word, b' ')
            | less(word ^ (ONES * u64::from(b'"')), 1)
            | less(word ^ (ONES * u64::from(b'\\')), 1);
        if found != 0 {
            return Some(8 * number + found.trailing_zeros() as usize / 8);
        }
    }
    let special = |byte: &u8| matches!(*byte, b'"' | b'\\' | ..b' ');
    let found = rest.iter().position(special)?;
    Some(8 * words.len() + found)
}

/// The integer that `json` begins with.
fn integer(json: &str) -> Option<&str> {
    let digits = json.strip_prefix('-').unwrap_or(json);
    let length = digits.bytes().position(|byte| !byte.is_ascii_digit())?;
    let plain = length == 1 || (length > 1 && !digits.starts_with('0'));
    plain.then(|| &json[..json.len() - digits.len() + length])
}

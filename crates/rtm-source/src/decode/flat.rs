//! The usual event, read in one pass: serde_json would take three times as long.

use super::Fields;

/// The fields of an event that is written as Agora writes them: an object of plain strings and integers, without white
/// space. `None` for any other, be it JSON or not.
pub(super) fn fields(json: &str) -> Option<Fields<'_>> {
    let mut rest = json.strip_prefix('{')?;
    let mut fields = Fields::default();
    loop {
        let key = string(rest)?;
        rest = rest[key.len()..].strip_prefix(':')?;
        let value = string(rest).or_else(|| integer(rest))?;
        rest = &rest[value.len()..];
        let slot = match key {
            r#""user_id""# => Some(&mut fields.user_id),
            r#""group_id""# => Some(&mut fields.group_id),
            r#""channel_id""# => Some(&mut fields.channel_id),
            r#""type""# => Some(&mut fields.kind),
            r#""ms""# => Some(&mut fields.ms),
            r#""ts""# => Some(&mut fields.ts),
            _ => None,
        };
        if let Some(slot) = slot {
            *slot = Some(value);
        }
        match rest.as_bytes() {
            [b',', ..] => rest = &rest[1..],
            [b'}'] => return Some(fields),
            _ => return None,
        }
    }
}

/// A string at the beginning of `json`, with its quotes, that says what it means: nothing in it is escaped, or had to be.
fn string(json: &str) -> Option<&str> {
    let inside = json.as_bytes().strip_prefix(b"\"")?;
    let special = |byte: &u8| matches!(byte, b'"' | b'\\' | ..b' ');
    let length = inside.iter().position(special)?;
    (inside[length] == b'"').then(|| &json[..length + 2])
}

/// An integer at the beginning of `json`.
fn integer(json: &str) -> Option<&str> {
    let digits = json.strip_prefix('-').unwrap_or(json);
    let other = |byte: u8| !byte.is_ascii_digit();
    let length = digits.bytes().position(other)?;
    let plain = length == 1 || (length > 1 && !digits.starts_with('0'));
    plain.then(|| &json[..json.len() - digits.len() + length])
}

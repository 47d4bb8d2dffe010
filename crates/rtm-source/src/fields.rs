//! The fields of an event that matter here, and text as JSON writes it.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

/// The fields that matter here, each as raw text; the last of duplicates, and `None` for `null`.
///
/// Written by hand because a derived one refuses duplicates, and would parse what is only to be passed on: a number
/// such as `1e400` is nobody's business here.
#[derive(Debug, Default)]
pub(crate) struct Fields<'a> {
    pub(crate) user_id: Option<&'a str>,
    pub(crate) group_id: Option<&'a str>,
    pub(crate) channel_id: Option<&'a str>,
    pub(crate) kind: Option<&'a str>,
    pub(crate) ms: Option<&'a str>,
    pub(crate) ts: Option<&'a str>,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Field {
    UserId,
    GroupId,
    ChannelId,
    Type,
    Ms,
    Ts,
    #[serde(other)]
    Other,
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Fields<'a>, D::Error> {
        pub(crate) struct FieldsVisitor;

        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an event")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Fields::default();
                while let Some(field) = map.next_key()? {
                    let slot = match field {
                        Field::UserId => &mut fields.user_id,
                        Field::GroupId => &mut fields.group_id,
                        Field::ChannelId => &mut fields.channel_id,
                        Field::Type => &mut fields.kind,
                        Field::Ms => &mut fields.ms,
                        Field::Ts => &mut fields.ts,
                        Field::Other => {
                            map.next_value::<serde::de::IgnoredAny>()?;
                            continue;
                        }
                    };
                    let value = map.next_value::<Option<&RawValue>>()?;
                    *slot = value.map(RawValue::get);
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(FieldsVisitor)
    }
}

/// The text of a raw JSON string, or of a number as it is written; `None` for anything else.
pub(crate) fn text(raw: &[u8]) -> Option<Cow<'_, str>> {
    text_of(std::str::from_utf8(raw).ok()?)
}

/// As [`text`], of what is known to be UTF-8.
pub(crate) fn text_of(whole: &str) -> Option<Cow<'_, str>> {
    match whole.as_bytes() {
        [b'"', inside @ .., b'"'] => {
            if inside.iter().all(|byte| *byte != b'\\' && *byte >= b' ') {
                return Some(Cow::Borrowed(&whole[1..whole.len() - 1]));
            }
            serde_json::from_str(whole).ok().map(Cow::Owned)
        }
        raw @ [b'-' | b'0'..=b'9', ..]
            if raw
                .iter()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')) =>
        {
            Some(Cow::Borrowed(whole))
        }
        _ => None,
    }
}

//! Durations, sizes and text as people write them in configuration files.

use std::fmt;
use std::time::Duration;

use schemars::{Schema, SchemaGenerator, json_schema};
use serde::Serializer;
use serde::de::{Deserializer, Error, Visitor};

/// A duration such as `30s`, `1m 30s` or `250ms`. A bare number is refused: nobody knows its unit.
pub(super) mod duration {
    use super::*;

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Duration;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration with a unit, such as \"30s\" or \"250ms\"")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
                text.parse::<jiff::SignedDuration>()
                    .ok()
                    .and_then(|signed| Duration::try_from(signed).ok())
                    .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Text)
    }

    /// For the defaults in the schema.
    pub(in crate::config) fn serialize<S: Serializer>(
        duration: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let (ms, seconds) = (duration.as_millis(), duration.as_secs());
        serializer.collect_str(&match ms {
            _ if ms % 1000 != 0 => format!("{ms}ms"),
            _ if seconds > 60 && seconds % 60 == 0 => format!("{}m", seconds / 60),
            _ => format!("{seconds}s"),
        })
    }

    pub(in crate::config) fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": r"^[+\s]*[Pp0-9].*[A-Za-z]\s*$",
            "examples": ["30s", "1m 30s", "250ms"],
        })
    }
}

/// A size such as `4GiB` or `512MB`, or a number of bytes.
pub(super) mod size {
    use super::*;

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<u64, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = u64;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size, such as \"4GiB\" or \"512MiB\"")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
                text.parse::<bytesize::ByteSize>()
                    .map(|size| size.as_u64())
                    .map_err(|_| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }

            fn visit_u64<E: Error>(self, bytes: u64) -> Result<u64, E> {
                Ok(bytes)
            }

            fn visit_i64<E: Error>(self, bytes: i64) -> Result<u64, E> {
                u64::try_from(bytes)
                    .map_err(|_| E::invalid_value(serde::de::Unexpected::Signed(bytes), &self))
            }
        }
        deserializer.deserialize_any(Text)
    }

    /// For the defaults in the schema.
    pub(in crate::config) fn serialize<S: Serializer>(
        bytes: &u64,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&match bytes {
            bytes if bytes % (1 << 30) == 0 => format!("{}GiB", bytes >> 30),
            bytes if bytes % (1 << 20) == 0 => format!("{}MiB", bytes >> 20),
            bytes => bytes.to_string(),
        })
    }

    pub(in crate::config) fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "pattern": r"^[0-9]+(\.[0-9]+)?\s*([kKmMgGtTpPeE]?([iI]?[bB])?)$",
            "minimum": 0,
            "examples": ["4GiB", "512MiB"],
        })
    }
}

/// What [`text`] reads.
pub(super) fn text_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "integer"] })
}

/// Text that may look like a number: an App ID or a secret of digits only is still text.
pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    struct Any;
    impl Visitor<'_> for Any {
        type Value = String;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("text")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
            Ok(text.to_owned())
        }

        fn visit_u64<E: Error>(self, number: u64) -> Result<String, E> {
            Ok(number.to_string())
        }

        fn visit_u128<E: Error>(self, number: u128) -> Result<String, E> {
            Ok(number.to_string())
        }

        fn visit_i64<E: Error>(self, number: i64) -> Result<String, E> {
            Ok(number.to_string())
        }
    }
    deserializer.deserialize_any(Any)
}

#[cfg(test)]
#[allow(
    clippy::result_large_err,
    reason = "figment's own error type, in tests only"
)]
mod tests {
    use serde::Deserialize;

    #[derive(Deserialize, Debug)]
    struct Units {
        #[serde(deserialize_with = "super::duration::deserialize")]
        wait: std::time::Duration,
        #[serde(deserialize_with = "super::size::deserialize")]
        room: u64,
        #[serde(deserialize_with = "super::text")]
        id: String,
    }

    fn parse(toml: &str) -> Result<Units, figment::Error> {
        use figment::providers::Format;
        figment::Figment::from(figment::providers::Toml::string(toml)).extract()
    }

    #[test]
    fn units_are_read_as_people_write_them() {
        let units = parse("wait = \"1m 30s\"\nroom = \"4GiB\"\nid = 12345").unwrap();
        assert_eq!(units.wait.as_secs(), 90);
        assert_eq!(units.room, 4 << 30);
        assert_eq!(units.id, "12345");
    }

    #[test]
    fn a_duration_without_a_unit_and_a_negative_one_are_refused() {
        for wait in ["30", "\"30\"", "\"-5s\"", "\"soon\""] {
            let error = parse(&format!("wait = {wait}\nroom = 1\nid = \"a\"")).unwrap_err();
            assert!(
                error.to_string().contains("a duration with a unit"),
                "{wait}: {error}"
            );
        }
    }
}

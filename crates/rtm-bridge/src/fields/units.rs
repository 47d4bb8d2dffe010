//! Durations, sizes, numbers and text as people write them in configuration files and environment variables.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{Schema, SchemaGenerator, json_schema};
use serde::Serializer;
use serde::de::{Deserializer, Error, Unexpected, Visitor};

/// A duration such as `30s`, `1m 30s` or `250ms`. A bare number is refused: nobody knows its unit.
pub(crate) mod duration {
    use super::*;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        deserializer.deserialize_any(Written {
            expected: "a duration with a unit, such as \"30s\" or \"250ms\"",
            read: |text| {
                let signed = text.parse::<jiff::SignedDuration>().ok()?;
                Duration::try_from(signed).ok()
            },
        })
    }

    /// For the defaults in the schema.
    pub(crate) fn serialize<S: Serializer>(
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

    pub(crate) fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": r"^[+\s]*[Pp0-9].*[A-Za-z]\s*$",
            "examples": ["30s", "1m 30s", "250ms"],
        })
    }
}

/// A size such as `4GiB` or `512MB`, or a number of bytes.
pub(crate) mod size {
    use super::*;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        deserializer.deserialize_any(Written {
            expected: "a size, such as \"4GiB\" or \"512MiB\"",
            read: |text| Some(text.parse::<bytesize::ByteSize>().ok()?.as_u64()),
        })
    }

    /// For the defaults in the schema.
    pub(crate) fn serialize<S: Serializer>(bytes: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&match bytes {
            bytes if bytes % (1 << 30) == 0 => format!("{}GiB", bytes >> 30),
            bytes if bytes % (1 << 20) == 0 => format!("{}MiB", bytes >> 20),
            bytes => bytes.to_string(),
        })
    }

    pub(crate) fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "pattern": r"^[0-9]+(\.[0-9]+)?\s*([kKmMgGtTpPeE]?([iI]?[bB])?)$",
            "minimum": 0,
            "examples": ["4GiB", "512MiB"],
        })
    }
}

/// A whole number, which is text where it stands in an environment variable.
pub(crate) fn number<'de, D: Deserializer<'de>, N: FromStr>(
    deserializer: D,
) -> Result<N, D::Error> {
    deserializer.deserialize_any(Written {
        expected: "a whole number in range",
        read: |text| text.trim().parse().ok(),
    })
}

/// What [`text`] reads.
pub(crate) fn text_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "integer"] })
}

/// Text that may look like a number: an App ID or a secret of digits only is still text.
pub(crate) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    deserializer.deserialize_any(Written {
        expected: "text",
        read: |text| Some(text.to_owned()),
    })
}

/// Text, or a whole number by its digits: what is `expected`, and how it is read.
struct Written<T> {
    expected: &'static str,
    read: fn(&str) -> Option<T>,
}

impl<T> Written<T> {
    fn read<E: Error>(&self, text: &str, found: Unexpected<'_>) -> Result<T, E> {
        (self.read)(text).ok_or_else(|| E::invalid_value(found, self))
    }
}

impl<T> Visitor<'_> for Written<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        self.read(text, Unexpected::Str(text))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        self.read(&number.to_string(), Unexpected::Unsigned(number))
    }

    fn visit_u128<E: Error>(self, number: u128) -> Result<T, E> {
        self.read(&number.to_string(), Unexpected::Other("a large number"))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        self.read(&number.to_string(), Unexpected::Signed(number))
    }
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
        #[serde(default, deserialize_with = "super::number")]
        limit: u32,
    }

    fn parse(toml: &str) -> Result<Units, figment::Error> {
        use figment::providers::Format;
        figment::Figment::from(figment::providers::Toml::string(toml)).extract()
    }

    /// What comes of a value that stands so in TOML.
    fn wait(written: &str) -> Option<u128> {
        let parsed = parse(&format!("wait = {written}\nroom = 1\nid = \"a\""));
        parsed.ok().map(|units| units.wait.as_millis())
    }

    fn room(written: &str) -> Option<u64> {
        let parsed = parse(&format!("wait = \"1s\"\nroom = {written}\nid = \"a\""));
        parsed.ok().map(|units| units.room)
    }

    fn id(written: &str) -> Option<String> {
        let parsed = parse(&format!("wait = \"1s\"\nroom = 1\nid = {written}"));
        parsed.ok().map(|units| units.id)
    }

    /// Holds: a duration is a friendly or an ISO 8601 one, has a unit, and is not negative.
    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, milliseconds) in [
            ("10s", 10_000),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("25h", 90_000_000),
            ("250ms", 250),
            ("1.5s", 1_500),
            ("0s", 0),
            ("-0s", 0),
            ("+5s", 5_000),
            ("5s ", 5_000),
            ("1m 30s", 90_000),
            ("1m30s", 90_000),
            ("1h, 30m", 5_400_000),
            ("10 seconds", 10_000),
            ("10 s", 10_000),
            ("1500us", 1),
            ("01:00:00", 3_600_000),
            ("PT30S", 30_000),
            ("pt1m", 60_000),
        ] {
            assert_eq!(wait(&format!("{text:?}")), Some(milliseconds), "{text}");
        }
        for written in [
            "30",
            "0",
            "-5",
            "1.5",
            "true",
            "[]",
            "{}",
            "\"30\"",
            "\"-5s\"",
            "\"5s ago\"",
            "\"1d\"",
            "\"1w\"",
            "\"1y\"",
            "\"s\"",
            "\"soon\"",
            "\"\"",
            "\" 5s\"",
            "\"5s 1m\"",
            "\"P1D\"",
        ] {
            let error = parse(&format!("wait = {written}\nroom = 1\nid = \"a\"")).unwrap_err();
            assert!(
                error
                    .to_string()
                    .contains("a duration with a unit, such as"),
                "{written}: {error}"
            );
        }
    }

    /// Holds: a size is a number of bytes, or has a unit, a decimal or a binary one.
    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (written, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("\"4096\"", 4096),
            ("\"4GiB\"", 4 << 30),
            ("\"512MiB\"", 512 << 20),
            ("\"512MB\"", 512_000_000),
            ("\"1.5KiB\"", 1536),
            ("\"4 gib\"", 4 << 30),
            ("\"4G\"", 4_000_000_000),
            ("\"4k\"", 4_000),
            ("\"7B\"", 7),
            ("9223372036854775807", i64::MAX as u64),
            ("\"18446744073709551615\"", u64::MAX),
        ] {
            assert_eq!(room(written), Some(bytes), "{written}");
        }
        for written in [
            "-1",
            "1.5",
            "true",
            "[]",
            "{}",
            "\"-1\"",
            "\"many\"",
            "\"\"",
            "\"GiB\"",
            "\"4 apples\"",
        ] {
            let error = parse(&format!("wait = \"1s\"\nroom = {written}\nid = \"a\"")).unwrap_err();
            assert!(
                error.to_string().contains("a size, such as"),
                "{written}: {error}"
            );
        }
    }

    /// Holds: a number may be text, is whole and in range.
    #[test]
    fn numbers_may_be_text() {
        let limit = |written: &str| {
            parse(&format!(
                "wait = \"1s\"\nroom = 1\nid = \"a\"\nlimit = {written}"
            ))
        };
        for (written, number) in [
            ("0", 0),
            ("10", 10),
            ("\"10\"", 10),
            ("\" 10\"", 10),
            ("\"007\"", 7),
            ("4294967295", u32::MAX),
        ] {
            assert_eq!(limit(written).unwrap().limit, number, "{written}");
        }
        for written in [
            "-1",
            "1.5",
            "true",
            "[]",
            "{}",
            "4294967296",
            "\"-1\"",
            "\"1.5\"",
            "\"1e3\"",
            "\"10s\"",
            "\"\"",
        ] {
            let error = limit(written).unwrap_err().to_string();
            assert!(error.contains("a whole number"), "{written}: {error}");
        }
    }

    /// Holds: text that looks like a whole number is text, and nothing else is.
    #[test]
    fn text_may_look_like_a_number() {
        for (written, text) in [
            ("12345", "12345"),
            ("-5", "-5"),
            ("\"007\"", "007"),
            ("\"\"", ""),
            ("\"true\"", "true"),
        ] {
            assert_eq!(id(written).as_deref(), Some(text), "{written}");
        }
        for written in ["1.5", "true", "[]", "{}"] {
            assert_eq!(id(written), None, "{written}");
        }
    }
}

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

    /// One that is there, or an optional one.
    pub(crate) fn deserialize<'de, D: Deserializer<'de>, T: From<Duration>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        deserializer.deserialize_any(Written {
            expected: "a duration with a unit, such as \"30s\" or \"250ms\"",
            read: |text| {
                let signed = text.parse::<jiff::SignedDuration>().ok()?;
                Some(Duration::try_from(signed).ok()?.into())
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

    /// One that is there, or an optional one.
    pub(crate) fn deserialize<'de, D: Deserializer<'de>, T: From<u64>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        deserializer.deserialize_any(Written {
            expected: "a size, such as \"4GiB\" or \"512MiB\"",
            read: |text| Some(text.parse::<bytesize::ByteSize>().ok()?.as_u64().into()),
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

/// A default of this many seconds.
pub(crate) fn seconds<const N: u64>() -> Duration {
    Duration::from_secs(N)
}

/// A default of this number.
pub(crate) fn constant<const N: u16, T: From<u16>>() -> T {
    N.into()
}

/// What [`text`] reads.
pub(crate) fn text_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "integer"] })
}

/// Text that may look like a number: an App ID or a secret of digits only is still text.
pub(crate) fn text<'de, D: Deserializer<'de>, T: From<String>>(
    deserializer: D,
) -> Result<T, D::Error> {
    deserializer.deserialize_any(Written {
        expected: "text",
        read: |text| Some(text.to_owned().into()),
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
mod tests;

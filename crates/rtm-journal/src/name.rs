//! Names of lanes and readers.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The longest name: names are in file formats, logs and metrics.
const MAX_NAME_BYTES: usize = 128;

/// The name of a lane: 1 to 128 bytes of `[A-Za-z0-9_.-]`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneName(Arc<str>);

/// The name of a reader: 1 to 128 bytes of `[A-Za-z0-9_.-]`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReaderName(Arc<str>);

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no name: expected 1 to 128 of the characters A-Z, a-z, 0-9, '_', '.', '-'")]
pub struct NameError(String);

/// The lane that is the journal's own: see [`crate::identity`].
const OWN: &str = "rtm-bridge.journal";

impl LaneName {
    /// The journal's own lane.
    pub(crate) fn own() -> LaneName {
        LaneName(OWN.into())
    }

    /// Whether it is the journal's own lane.
    pub(crate) fn is_own(&self) -> bool {
        &*self.0 == OWN
    }

    /// What entries carry instead of the name. Made from the name, so that entries find their lane even when the frame
    /// that introduced it is damaged.
    pub(crate) fn id(&self) -> u32 {
        crc32c::crc32c(self.0.as_bytes())
    }
}

macro_rules! name {
    ($name:ident) => {
        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<$name, NameError> {
                check(text).map($name)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = NameError;

            fn try_from(text: &str) -> Result<$name, NameError> {
                check(text).map($name)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

name!(LaneName);
name!(ReaderName);

fn check(text: &str) -> Result<Arc<str>, NameError> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if text.is_empty() || text.len() > MAX_NAME_BYTES || !text.bytes().all(legal) {
        // Cut, so that a hostile text cannot make a huge error.
        return Err(NameError(text.chars().take(MAX_NAME_BYTES).collect()));
    }
    Ok(Arc::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        let longest = "x".repeat(MAX_NAME_BYTES);
        for good in ["a", "876922cb.app_1-x", &longest] {
            assert_eq!(good.parse::<LaneName>().unwrap().as_str(), good);
        }
        let too_long = "x".repeat(MAX_NAME_BYTES + 1);
        for bad in ["", " ", "a b", "a/b", "ä", "a\n", &too_long] {
            assert!(bad.parse::<ReaderName>().is_err(), "{bad:?}");
        }
    }
}

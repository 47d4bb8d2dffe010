//! Environment variables that lie over the files.

use std::ffi::OsString;

use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};

use rtm_sink::tidied;

/// The prefix of variables that lie over the files. The double underscore keeps clear of the variables that
/// Kubernetes injects for a service that happens to be called `rtm-bridge`.
const PREFIX: &str = "RTM_BRIDGE__";

/// A variable such as `RTM_BRIDGE__JOURNAL__DIR=/data`. Lists, tables and booleans are in TOML's form; all else is text even
/// if it looks like a number (`007` is not 7), of which [`units::number`](crate::fields::units::number) makes numbers.
pub(super) struct Variable {
    pub(super) name: String,
    /// `journal__dir`.
    path: String,
    value: String,
}

impl Variable {
    /// Those of the environment that are ours.
    pub(super) fn all() -> Vec<Variable> {
        let ours = |(name, value): (OsString, OsString)| {
            let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
            let path = name.strip_prefix(PREFIX)?.to_ascii_lowercase();
            let value = tidied(&value).to_owned();
            Some(Variable { name, path, value })
        };
        std::env::vars_os().filter_map(ours).collect()
    }

    /// The key that it sets.
    pub(super) fn key(&self) -> String {
        self.path.replace("__", ".")
    }

    fn value(&self) -> Value {
        let text = self.value.as_str();
        let is_toml = text.starts_with(['[', '{', '"']) || ["true", "false"].contains(&text);
        match text.parse() {
            Ok(value) if is_toml => value,
            _ => Value::from(text),
        }
    }
}

impl Provider for Variable {
    fn metadata(&self) -> Metadata {
        Metadata::named(format!("the environment variable {}", self.name))
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let tables = self.path.rsplit("__");
        let nested = tables.fold(self.value(), |value, key| {
            Value::from(Dict::from([(key.to_owned(), value)]))
        });
        let dict = nested.into_dict().unwrap_or_default();
        Ok(Map::from([(Profile::Default, dict)]))
    }
}

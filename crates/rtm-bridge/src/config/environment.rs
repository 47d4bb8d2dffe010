//! Environment variables that lie over the files.

use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};

/// The prefix of variables that lie over the files. The double underscore keeps clear of the variables that
/// Kubernetes injects for a service that happens to be called `rtm-bridge`.
const PREFIX: &str = "RTM_BRIDGE__";

/// Variables such as `RTM_BRIDGE__JOURNAL__DIR=/data`. Lists, tables and booleans are in TOML's form; all else is text even
/// if it looks like a number (`007` is not 7), of which [`units::number`](super::units::number) makes numbers.
pub(super) struct Environment {
    variables: Vec<Variable>,
}

struct Variable {
    name: String,
    /// `journal__dir`.
    path: String,
    value: String,
}

impl Environment {
    pub(super) fn new(
        variables: impl Iterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
    ) -> Environment {
        let ours = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
            let path = name.strip_prefix(PREFIX)?.to_ascii_lowercase();
            Some(Variable { name, path, value })
        };
        Environment {
            variables: variables.filter_map(ours).collect(),
        }
    }

    /// Names, and the keys that they set.
    pub(super) fn places(&self) -> Vec<(String, String)> {
        let place = |variable: &Variable| (variable.name.clone(), variable.path.replace("__", "."));
        self.variables.iter().map(place).collect()
    }
}

impl Provider for Environment {
    fn metadata(&self) -> Metadata {
        Metadata::named(format!("the environment ({PREFIX}…)"))
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut dict = Dict::new();
        for Variable { path, value, .. } in &self.variables {
            let path: Vec<&str> = path.split("__").collect();
            let is_toml =
                value.starts_with(['[', '{', '"']) || ["true", "false"].contains(&value.as_str());
            let text = || Value::from(value.as_str());
            let value = if is_toml {
                value.parse().unwrap_or_else(|_| text())
            } else {
                text()
            };
            insert(&mut dict, &path, value);
        }
        Ok(Map::from([(Profile::Default, dict)]))
    }
}

fn insert(dict: &mut Dict, path: &[&str], value: Value) {
    let [first, rest @ ..] = path else { return };
    if rest.is_empty() {
        dict.insert((*first).to_owned(), value);
        return;
    }
    let entry = dict
        .entry((*first).to_owned())
        .or_insert_with(|| Value::from(Dict::new()));
    if let Value::Dict(_, inner) = entry {
        insert(inner, rest, value);
    }
}

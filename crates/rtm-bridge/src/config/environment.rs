//! Environment variables that lie over the file.

use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};

/// The prefix of variables that lie over the file. The double underscore keeps clear of the variables that
/// Kubernetes injects for a service that happens to be called `rtm-bridge`.
const PREFIX: &str = "RTM_BRIDGE__";

/// Leaf keys whose environment value is a number. All others are text even if they look like one (`007` is not 7), save
/// for lists, tables and booleans in TOML's form.
const NUMBER_KEYS: &[&str] = &[
    "in_flight",
    "max_bytes",
    "max_entries",
    "min_free_bytes",
    "partitions",
    "replicas",
    "replication_factor",
    "requests_per_second",
];

/// Variables such as `RTM_BRIDGE__JOURNAL__DIR=/data`. Lists and tables in TOML's inline form.
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
            let leaf = path.last().copied().unwrap_or_default();
            let is_toml = value.starts_with(['[', '{', '"'])
                || ["true", "false"].contains(&value.as_str())
                || NUMBER_KEYS.contains(&leaf);
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

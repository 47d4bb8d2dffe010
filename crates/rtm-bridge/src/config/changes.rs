//! In which keys two configurations differ: keys only, for the values may be secrets.

use std::collections::BTreeSet;

use figment::Figment;
use figment::value::{Dict, Value};

/// What a configuration was made of, files and environment together: as it was written, and so without defaults.
#[derive(Clone, Default)]
pub(super) struct Values(Dict);

impl Values {
    /// Of a configuration that is valid: each of its apps has a name of its own.
    pub(super) fn of(figment: &Figment) -> Values {
        let whole = figment.find_value("").ok().and_then(Value::into_dict);
        let mut whole = whole.unwrap_or_default();
        if let Some(Value::Array(tag, apps)) = whole.remove("apps") {
            let named = |app: Value| {
                let name = app.find_ref("name")?.as_str()?.to_owned();
                Some((name, app))
            };
            let apps = apps.into_iter().filter_map(named).collect();
            whole.insert("apps".to_owned(), Value::Dict(tag, apps));
        }
        Values(whole)
    }

    /// The dotted keys in which `new` differs, in order. An app goes by its name: `apps.main.regions`. A table that only one
    /// of the two has is one key, such as a new sink's `sinks.nats`; of a section, such as `journal`, each key counts.
    pub(super) fn changed(&self, new: &Values) -> Vec<String> {
        let mut found = Vec::new();
        compare(&self.0, &new.0, "", &mut found);
        found
    }
}

fn compare(old: &Dict, new: &Dict, at: &str, found: &mut Vec<String>) {
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for key in keys {
        let path = match at {
            "" => key.clone(),
            at => format!("{at}.{key}"),
        };
        match (old.get(key), new.get(key)) {
            (Some(old), Some(new)) if old == new => {}
            (Some(Value::Dict(_, old)), Some(Value::Dict(_, new))) => {
                compare(old, new, &path, found);
            }
            (Some(Value::Dict(_, section)), None) | (None, Some(Value::Dict(_, section)))
                if at.is_empty() =>
            {
                compare(section, &Dict::new(), &path, found);
            }
            _ => found.push(path),
        }
    }
}

#[cfg(test)]
mod tests;

//! Where the values of a configuration come from.

use std::fmt;

use figment::error::Kind;

use super::changes::Values;
use super::files::Files;
use super::problem::{Problem, describe, is_sensitive, shown};

/// Where values come from.
#[derive(Clone, Default)]
pub(super) struct Origin {
    pub(super) files: Files,
    /// Names, and the keys that they set.
    pub(super) variables: Vec<(String, String)>,
    /// Files and environment together.
    pub(super) values: Values,
}

/// Without what they say: there may be secrets in it.
impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Origin")
    }
}

impl Origin {
    /// The variable that sets the value at this key, a table that holds it, or a part of it; otherwise the file. And the key
    /// as it is there.
    pub(super) fn of(&self, key: &str) -> (String, String) {
        let within = |inner: &str, outer: &str| {
            let rest = inner.strip_prefix(outer);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let sets = |(_, path): &&(String, String)| within(key, path);
        let adds = |(_, path): &&(String, String)| within(path, key);
        let variables = &self.variables;
        let found = variables.iter().find(sets);
        match found.or_else(|| variables.iter().find(adds)) {
            Some((name, _)) => (format!("the environment variable {name}"), key.to_owned()),
            None => self.files.of(key),
        }
    }

    /// Whether a variable sets the value at this key, or a table that holds it.
    pub(super) fn is_variable(&self, key: &str) -> bool {
        let mut names = self.variables.iter();
        names.any(|(name, _)| self.of(key).0.ends_with(&format!(" {name}")))
    }

    /// The key, behind its file where there are several.
    pub(super) fn key(&self, key: &str) -> String {
        match self.of(key) {
            (origin, key) if self.files.are_several() => format!("{origin}: {key}"),
            (_, key) => key,
        }
    }

    /// A problem with the value at this key.
    pub(super) fn problem(&self, key: &str, message: String) -> Problem {
        let (origin, key) = self.of(key);
        Problem {
            origin,
            key,
            message,
        }
    }

    /// What figment found in the table at a path, with the file and the whole key, and without values where they may be secret.
    /// `beside` are keys of the table that figment did not know of.
    pub(super) fn problems(
        &self,
        errors: figment::Error,
        table: &[&str],
        beside: &[&str],
    ) -> Vec<Problem> {
        let problem = |error: figment::Error| {
            let below = error.path.iter().map(String::as_str);
            let path: Vec<&str> = table.iter().copied().chain(below).collect();
            let metadata = error.metadata.as_ref();
            let mut set = metadata.is_some_and(|set| set.name.contains("environment"));
            let mut key = path.join(".");
            if let Kind::UnknownField(field, _) = &error.kind {
                // figment tells where the first key of the table is from, and at the root the key is in the path.
                set = true;
                if path.last() != Some(&field.as_str()) {
                    key = format!("{key}.{field}");
                }
            }
            let of = |key: &str| match set {
                true => self.of(key),
                false => self.files.of(key),
            };
            let is_of_table = path.len() == table.len() + 1;
            let beside = if is_of_table { beside } else { &[] };
            Problem {
                origin: of(&key).0,
                key: of(&shown(&path)).1,
                message: describe(&error.kind, beside, is_sensitive(&path)),
            }
        };
        errors.into_iter().map(problem).collect()
    }
}

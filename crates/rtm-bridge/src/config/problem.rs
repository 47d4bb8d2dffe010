//! What is wrong with a configuration: where it stands, what was expected, and no value that may be secret.

use std::fmt;

use figment::error::{Actual, Kind};

use super::files::{Fault, Files};
use crate::fields::problem::list;

/// Keys that may stand in or below `auth`.
pub(super) const AUTH_KEYS: &[&str] = &[
    "auth",
    "basic",
    "token",
    "agora_token",
    "key",
    "uid",
    "secret",
    "secret_file",
    "secret_env",
    "token_file",
    "token_env",
    "user",
    "password",
    "password_file",
    "password_env",
    "jwt",
    "jwt_file",
    "seed_file",
    "nkey_file",
    "credentials_file",
];

/// A configuration that cannot be used, and every reason.
#[derive(Debug)]
pub struct ConfigError {
    /// What is wrong, in the order found.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, or the environment.
    pub origin: String,
    /// The key, such as `apps.0.regions.1`; empty for the whole file.
    pub key: String,
    /// What is wrong with it and what was expected.
    pub message: String,
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Problem {
        Problem {
            origin: fault.file,
            key: shown(&fault.path),
            message: fault.message,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Where values come from.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    pub(super) files: Files,
    /// Names, and the keys that they set.
    pub(super) variables: Vec<(String, String)>,
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
}

/// What figment found, with the file and the whole key, and without values where they may be secret. `beside` are keys of the
/// table at `prefix` that figment did not know of.
pub(super) fn problems(
    error: figment::Error,
    origin: &Origin,
    prefix: &[&str],
    beside: &[&str],
) -> ConfigError {
    let problems = error
        .into_iter()
        .map(|error| {
            let mut path: Vec<&str> = error.path.iter().map(String::as_str).collect();
            // figment appends what was extracted from where it stands.
            if !prefix.is_empty() && path.ends_with(prefix) && path.len() > prefix.len() {
                path.truncate(path.len() - prefix.len());
            }
            if !path.starts_with(prefix) {
                path.splice(0..0, prefix.iter().copied());
            }
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
                true => origin.of(key),
                false => origin.files.of(key),
            };
            let is_of_table = path.len() == prefix.len() + 1;
            let beside = if is_of_table { beside } else { &[] };
            Problem {
                origin: of(&key).0,
                key: of(&shown(&path)).1,
                message: describe(&error.kind, beside, is_sensitive(&path)),
            }
        })
        .collect();
    ConfigError { problems }
}

/// The key at `path`, without what follows `auth` and is no key of ours: that may be a secret in the wrong place.
fn shown<S: AsRef<str>>(path: &[S]) -> String {
    let path: Vec<&str> = path.iter().map(AsRef::as_ref).collect();
    let auth = path.iter().position(|part| *part == "auth");
    let (before, below) = path.split_at(auth.unwrap_or(path.len()));
    let known = below.iter().take_while(|part| AUTH_KEYS.contains(part));
    let parts: Vec<&str> = before.iter().chain(known).copied().collect();
    parts.join(".")
}

/// Whether a value at this key may be a secret, or hold one.
fn is_sensitive(path: &[&str]) -> bool {
    path.iter()
        .any(|part| ["auth", "basic", "token", "secret", "password", "options"].contains(part))
}

fn describe(kind: &Kind, beside: &[&str], sensitive: bool) -> String {
    match kind {
        Kind::InvalidType(actual, expected) | Kind::InvalidValue(actual, expected) if sensitive => {
            format!("expected {expected}, found {}", type_of(actual))
        }
        Kind::InvalidType(actual, expected) => format!("expected {expected}, found {actual}"),
        Kind::InvalidValue(actual, expected) => format!("{actual} is not {expected}"),
        Kind::UnknownField(field, known) => {
            let known = [beside, known].concat();
            format!("unknown key `{field}`, expected one of {}", list(&known))
        }
        Kind::UnknownVariant(variant, known) => {
            let variant = if sensitive {
                "this".to_owned()
            } else {
                format!("`{variant}`")
            };
            format!("{variant} is not one of {}", list(known))
        }
        Kind::MissingField(field) => format!("the key `{field}` is missing"),
        Kind::DuplicateField(field) => format!("the key `{field}` stands twice"),
        Kind::Message(_) if sensitive => {
            "is not of the form expected; see the reference configuration".to_owned()
        }
        other => other.to_string(),
    }
}

fn type_of(actual: &Actual) -> &'static str {
    match actual {
        Actual::Str(_) => "text",
        Actual::Bool(_) => "a boolean",
        Actual::Unsigned(_) | Actual::Signed(_) | Actual::Float(_) => "a number",
        Actual::Map => "a table",
        Actual::Seq => "a list",
        _ => "something else",
    }
}

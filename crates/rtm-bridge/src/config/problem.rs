//! What is wrong with a configuration: where it stands, what was expected, and no value that may be secret.

use std::fmt;

use figment::error::{Actual, Kind};

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

impl Problem {
    /// Of the key at `path` of a file; of the whole file without one. What is no key of ours may be a secret.
    pub(super) fn new(origin: &str, path: &[String], message: impl Into<String>) -> Problem {
        Problem {
            origin: origin.to_owned(),
            key: shown(path),
            message: message.into(),
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
        let lines: Vec<String> = self.problems.iter().map(Problem::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

/// The key at `path`, without what follows `auth` and is no key of ours: that may be a secret in the wrong place.
pub(super) fn shown<S: AsRef<str>>(path: &[S]) -> String {
    let path: Vec<&str> = path.iter().map(AsRef::as_ref).collect();
    let auth = path.iter().position(|part| *part == "auth");
    let (before, below) = path.split_at(auth.unwrap_or(path.len()));
    let known = below.iter().take_while(|part| AUTH_KEYS.contains(part));
    let parts: Vec<&str> = before.iter().chain(known).copied().collect();
    parts.join(".")
}

/// Whether a value at this key may be a secret, or hold one.
pub(super) fn is_sensitive(path: &[&str]) -> bool {
    path.iter()
        .any(|part| ["auth", "basic", "token", "secret", "password", "options"].contains(part))
}

pub(super) fn describe(kind: &Kind, beside: &[&str], sensitive: bool) -> String {
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

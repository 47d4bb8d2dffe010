//! Secrets: in the configuration itself, in a file, or in an environment variable.

use std::path::{Path, PathBuf};

use rtm_source::Secret;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tracing::warn;

use super::problem::{Add, readable};
use super::units;

/// A secret that stands in the file itself. Never printed.
#[derive(Debug, Clone)]
pub struct InlineSecret(pub SecretString);

impl PartialEq for InlineSecret {
    fn eq(&self, other: &InlineSecret) -> bool {
        self.0.expose_secret() == other.0.expose_secret()
    }
}

impl<'de> Deserialize<'de> for InlineSecret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<InlineSecret, D::Error> {
        units::text(deserializer).map(|text| InlineSecret(text.into()))
    }
}

/// Text, and no file.
impl JsonSchema for InlineSecret {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "InlineSecret".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        units::text_schema(generator)
    }
}

/// Exactly one source, and it can be read now.
pub(crate) fn one_secret(
    name: &str,
    inline: &Option<InlineSecret>,
    file: &Option<PathBuf>,
    variable: &Option<String>,
    key: &str,
    add: Add<'_>,
) {
    let given = usize::from(inline.is_some())
        + usize::from(file.is_some())
        + usize::from(variable.is_some());
    if given != 1 {
        add(
            key,
            format!(
                "exactly one of `{name}_file`, `{name}_env` and `{name}` is needed, found {given}"
            ),
        );
    }
    if let Some(file) = file {
        let mut add = |key: &str, message: String| {
            add(
                key,
                format!(
                    "{message}; it is to hold the {name} and nothing else: write it, or name another file"
                ),
            );
        };
        readable(file, &format!("{key}.{name}_file"), &mut add);
    }
    if let Some(variable) = variable
        && std::env::var_os(variable).is_none_or(|value| value.is_empty())
    {
        add(
            &format!("{key}.{name}_env"),
            format!("the environment variable `{variable}` is not set"),
        );
    }
}

/// Validation has seen that exactly one is given.
pub(crate) fn secret(
    inline: &Option<InlineSecret>,
    file: &Option<PathBuf>,
    variable: &Option<String>,
) -> Secret {
    match (inline, file, variable) {
        (_, Some(file), _) => {
            warn_if_world_readable(file);
            Secret::File(file.clone())
        }
        (_, _, Some(variable)) => {
            Secret::Inline(std::env::var(variable).unwrap_or_default().into())
        }
        (Some(inline), _, _) => {
            warn!(
                "a secret stands in the configuration itself; a file or an environment variable keeps it out of backups"
            );
            Secret::Inline(inline.0.clone())
        }
        (None, None, None) => Secret::Inline(SecretString::default()),
    }
}

pub(crate) fn warn_if_world_readable(file: &Path) {
    use std::os::unix::fs::PermissionsExt;
    if std::fs::metadata(file).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0) {
        warn!(file = %file.display(), "the secret file can be read by everyone on this machine");
    }
}

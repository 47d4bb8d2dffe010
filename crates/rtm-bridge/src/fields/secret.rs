//! Secrets: in the configuration itself, in a file, or in an environment variable.

use std::fmt::Display;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rtm_source::Secret;
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::problem::Problems;
use super::units;

/// A secret that stands in the file itself. Never printed.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct InlineSecret(
    #[serde(deserialize_with = "units::text")]
    #[schemars(schema_with = "units::text_schema")]
    SecretString,
);

impl PartialEq for InlineSecret {
    fn eq(&self, other: &InlineSecret) -> bool {
        self.0.expose_secret() == other.0.expose_secret()
    }
}

/// Where a secret may come from: three keys, of which exactly one is needed.
pub(crate) struct SecretKeys<'a> {
    /// The key of the secret itself. Those of its file and of its variable end in `_file` and `_env`.
    name: &'static str,
    inline: &'a Option<InlineSecret>,
    file: &'a Option<PathBuf>,
    variable: &'a Option<String>,
}

impl<'a> SecretKeys<'a> {
    pub(crate) fn new(
        name: &'static str,
        inline: &'a Option<InlineSecret>,
        file: &'a Option<PathBuf>,
        variable: &'a Option<String>,
    ) -> SecretKeys<'a> {
        SecretKeys {
            name,
            inline,
            file,
            variable,
        }
    }

    /// What is wrong with the keys, which stand at `key`: one is needed, and it can be read now.
    pub(crate) fn problems(&self, key: &str, problems: &mut Problems<'_>) {
        let name = self.name;
        let (inline, file, variable) = (self.inline.iter(), self.file.iter(), self.variable.iter());
        let given = inline.count() + file.count() + variable.count();
        if given != 1 {
            problems.add(
                key,
                format!("exactly one of `{name}_file`, `{name}_env` and `{name}` is needed, found {given}"),
            );
        }
        if let Some(file) = self.file {
            let hint = format!(
                "; it is to hold the {name} and nothing else: write it, or name another file"
            );
            problems.readable(format_args!("{key}.{name}_file"), file, &hint);
        }
        if let Some(variable) = self.variable
            && super::variable::variable(variable).is_none_or(|value| value.is_empty())
        {
            problems.add(
                format_args!("{key}.{name}_env"),
                format!("the environment variable `{variable}` is not set, or is empty"),
            );
        }
    }

    /// What is accepted, and gives the secret away.
    pub(crate) fn warnings(&self, key: &str, warnings: &mut Problems<'_>) {
        let name = self.name;
        if let Some(file) = self.file {
            of_file(format_args!("{key}.{name}_file"), file, warnings);
        }
        if self.inline.is_some() {
            of_inline(format_args!("{key}.{name}"), warnings);
        }
    }

    /// The secret, or its file. Validation has seen that exactly one of the keys is given.
    pub(crate) fn secret(&self) -> Secret {
        if let Some(file) = self.file {
            return Secret::File(file.clone());
        }
        if let Some(variable) = self.variable {
            return Secret::Inline(
                super::variable::variable(variable)
                    .unwrap_or_default()
                    .into(),
            );
        }
        let inline = self.inline.as_ref();
        Secret::Inline(inline.map(|inline| inline.0.clone()).unwrap_or_default())
    }
}

/// What [`of_inline`] says.
pub(crate) const INLINE: &str = "a secret stands in the configuration itself; a file or an environment variable keeps it \
                                 out of backups";

/// Warns of the file of a secret, if everyone may read it.
pub(crate) fn of_file(key: impl Display, file: &Path, warnings: &mut Problems<'_>) {
    if is_open_to_all(file) {
        warnings.add(key, open_to_all(file));
    }
}

/// Warns of a secret that stands in the configuration. What holds the configuration is looked at by who knows it.
pub(crate) fn of_inline(key: impl Display, warnings: &mut Problems<'_>) {
    warnings.add(key, INLINE);
}

/// What is said of a file for which [`is_open_to_all`] holds.
pub(crate) fn open_to_all(file: &Path) -> String {
    format!(
        "{} holds a secret, and can be read by everyone on this machine",
        file.display()
    )
}

/// Whether everyone on this machine may read the file.
pub(crate) fn is_open_to_all(file: &Path) -> bool {
    let metadata = std::fs::metadata(file);
    metadata.is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

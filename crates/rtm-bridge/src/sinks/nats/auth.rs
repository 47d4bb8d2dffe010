//! `auth` of a NATS sink.

use std::fs::File;
use std::path::{Path, PathBuf};

use rtm_sink::regular;
use rtm_sink_nats::{NatsAuth, Secret};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::fields::problem::Problems;
use crate::fields::secret::{self, InlineSecret, SecretKeys};
use crate::fields::units;

/// `auth` of a NATS sink: one of five.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum NatsAuthConfig {
    /// A `.creds` file.
    CredentialsFile(PathBuf),
    /// A file with an NKey seed.
    NkeyFile(PathBuf),
    /// A JWT and its seed, each in a file.
    Jwt(JwtConfig),
    /// A user and a password.
    Password(PasswordConfig),
    /// A token in a file.
    TokenFile(PathBuf),
}

/// A JWT and its NKey seed.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct JwtConfig {
    /// The file with the JWT.
    pub(crate) jwt_file: PathBuf,
    /// The file with the seed.
    pub(crate) seed_file: PathBuf,
}

/// A user and a password. Exactly one of `password`, `password_file`, `password_env`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{"required": ["password"]}, {"required": ["password_file"]}, {"required": ["password_env"]}]))]
pub(crate) struct PasswordConfig {
    /// The user.
    #[serde(deserialize_with = "units::text")]
    #[schemars(schema_with = "units::text_schema")]
    pub(crate) user: String,
    /// The password, inline: warned about.
    pub(crate) password: Option<InlineSecret>,
    /// A file that holds it.
    pub(crate) password_file: Option<PathBuf>,
    /// An environment variable that holds it.
    pub(crate) password_env: Option<String>,
}

impl NatsAuthConfig {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            NatsAuthConfig::CredentialsFile(_) => "credentials_file",
            NatsAuthConfig::NkeyFile(_) => "nkey_file",
            NatsAuthConfig::Jwt(_) => "jwt",
            NatsAuthConfig::Password(_) => "password",
            NatsAuthConfig::TokenFile(_) => "token_file",
        }
    }

    pub(super) fn problems(&self, problems: &mut Problems<'_>) {
        let seed = |file: &PathBuf| NatsAuth::NkeySeed(Secret::File(file.clone()));
        match self {
            NatsAuthConfig::CredentialsFile(file) => {
                let auth = NatsAuth::CredentialsFile(file.clone());
                usable("credentials_file", file, &auth, problems);
            }
            NatsAuthConfig::NkeyFile(file) => usable("nkey_file", file, &seed(file), problems),
            NatsAuthConfig::TokenFile(file) => problems.readable("token_file", file, ""),
            NatsAuthConfig::Jwt(JwtConfig {
                jwt_file,
                seed_file,
            }) => {
                problems.readable("jwt.jwt_file", jwt_file, "");
                usable("jwt.seed_file", seed_file, &seed(seed_file), problems);
            }
            NatsAuthConfig::Password(password) => password.keys().problems("password", problems),
        }
    }

    /// Warns of secrets that others may read.
    pub(super) fn secrets(&self, warnings: &mut Problems<'_>) {
        let files = match self {
            NatsAuthConfig::CredentialsFile(file) => vec![("credentials_file", file)],
            NatsAuthConfig::NkeyFile(file) => vec![("nkey_file", file)],
            NatsAuthConfig::TokenFile(file) => vec![("token_file", file)],
            NatsAuthConfig::Jwt(jwt) => vec![
                ("jwt.jwt_file", &jwt.jwt_file),
                ("jwt.seed_file", &jwt.seed_file),
            ],
            NatsAuthConfig::Password(password) => {
                return password.keys().warnings("password", warnings);
            }
        };
        for (key, file) in files {
            secret::of_file(key, file, warnings);
        }
    }

    pub(super) fn options(&self) -> NatsAuth {
        let file = |path: &PathBuf| Secret::File(path.clone());
        match self {
            NatsAuthConfig::CredentialsFile(path) => NatsAuth::CredentialsFile(path.clone()),
            NatsAuthConfig::NkeyFile(path) => NatsAuth::NkeySeed(file(path)),
            NatsAuthConfig::TokenFile(path) => NatsAuth::Token(file(path)),
            NatsAuthConfig::Jwt(jwt) => NatsAuth::Jwt {
                jwt: file(&jwt.jwt_file),
                seed: file(&jwt.seed_file),
            },
            NatsAuthConfig::Password(password) => NatsAuth::UserPassword {
                user: password.user.clone(),
                password: match password.keys().secret() {
                    rtm_source::Secret::Inline(secret) => Secret::Text(secret),
                    rtm_source::Secret::File(file) => Secret::File(file),
                },
            },
        }
    }
}

impl PasswordConfig {
    fn keys(&self) -> SecretKeys<'_> {
        SecretKeys::new(
            "password",
            &self.password,
            &self.password_file,
            &self.password_env,
        )
    }
}

/// A secret that a server's nonce can be signed with.
fn usable(key: &str, file: &Path, auth: &NatsAuth, problems: &mut Problems<'_>) {
    if regular(file).and_then(|()| File::open(file)).is_err() {
        problems.readable(key, file, "");
    } else if let Err(error) = auth.check() {
        // Where it is no seed, the error does not say of which file.
        let error = crate::chain(&error);
        problems.add(key, format!("{}: {error}", file.display()));
    }
}

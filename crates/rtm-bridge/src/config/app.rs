//! `[[apps]]`: App IDs, their regions and their credentials.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fields::problem::NAME_PATTERN;
use crate::fields::region::RegionConfig;
use crate::fields::secret::{InlineSecret, SecretKeys};
use crate::fields::units;

/// One `[[apps]]`: an App ID, its regions and its credentials.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AppConfig {
    /// The label in metrics, tags, topics and subjects: letters, digits, `_`, `-`.
    #[schemars(regex(pattern = NAME_PATTERN))]
    pub name: String,
    /// The App ID at Agora.
    #[serde(deserialize_with = "units::text")]
    #[schemars(schema_with = "units::text_schema")]
    pub app_id: String,
    /// The credentials.
    pub auth: AuthConfig,
    /// Whether its rings are left alone for now; what is stored is still published. Default false.
    #[serde(default)]
    pub paused: bool,
    /// Requests a second that this bridge may use of the App ID's. Default 10, which is all that Agora allows: more only
    /// where Agora has raised it for yours, or what is over is answered with 429.
    #[serde(
        default = "units::constant::<10, u32>",
        deserialize_with = "units::number"
    )]
    #[schemars(range(min = 1, max = 1000))]
    pub requests_per_second: u32,
    /// Region names of the built-in table, or `{ name, base_url }`.
    #[schemars(length(min = 1))]
    pub regions: Vec<RegionConfig>,
    /// What becomes of an event that another region has given already: `publish` (default) or `drop`, within
    /// `copies_window`.
    #[serde(default)]
    pub cross_region_copies: CopyPolicy,
    /// How far apart the fetches of two copies may be. Default `60s`. The journal keeps the entries of this time.
    #[serde(default = "units::seconds::<60>", with = "units::duration")]
    #[schemars(schema_with = "units::duration::schema")]
    pub copies_window: Duration,
    /// Path of the user events below the project. Default `rtm/vendor/user_events`.
    #[serde(default = "user_events_path")]
    pub user_events_path: String,
    /// Path of the channel events below the project. Default `rtm/vendor/channel_events`.
    #[serde(default = "channel_events_path")]
    pub channel_events_path: String,
    /// What ends a request that has no answer. Default `30s`; nothing else does.
    #[serde(default = "units::seconds::<30>", with = "units::duration")]
    #[schemars(schema_with = "units::duration::schema")]
    pub request_deadline: Duration,
    /// How long opening a connection may take. Default `10s`.
    #[serde(default = "units::seconds::<10>", with = "units::duration")]
    #[schemars(schema_with = "units::duration::schema")]
    pub connect_timeout: Duration,
    /// A proxy for Agora, such as `http://proxy:3128`. Default: the system's (`HTTPS_PROXY`), or none.
    pub proxy: Option<String>,
    /// A PEM file with further certificate authorities for Agora. Default: none.
    pub ca_file: Option<PathBuf>,
}

/// What becomes of an event that another region has given already. True repeats, two equal events of one region, are
/// always published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CopyPolicy {
    /// It is published as well; both have the same `event_key`.
    #[default]
    Publish,
    /// It is dropped, counted.
    Drop,
}

fn user_events_path() -> String {
    "rtm/vendor/user_events".to_owned()
}

fn channel_events_path() -> String {
    "rtm/vendor/channel_events".to_owned()
}

/// `auth`: one of three.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum AuthConfig {
    /// `Authorization: Basic`.
    Basic(BasicConfig),
    /// A version 006 token: `x-agora-token` and `x-agora-uid`.
    Token(TokenConfig),
    /// A version 007 token: `Authorization: agora token=…`.
    AgoraToken(AgoraTokenConfig),
}

impl AuthConfig {
    /// The kind's key, and where the secret comes from.
    pub(crate) fn secret(&self) -> (&'static str, SecretKeys<'_>) {
        match self {
            AuthConfig::Basic(of) => {
                let keys = SecretKeys::new("secret", &of.secret, &of.secret_file, &of.secret_env);
                ("basic", keys)
            }
            AuthConfig::Token(of) => {
                let keys = SecretKeys::new("token", &of.token, &of.token_file, &of.token_env);
                ("token", keys)
            }
            AuthConfig::AgoraToken(of) => {
                let keys = SecretKeys::new("token", &of.token, &of.token_file, &of.token_env);
                ("agora_token", keys)
            }
        }
    }
}

/// Basic credentials. Exactly one of `secret`, `secret_file`, `secret_env`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{"required": ["secret"]}, {"required": ["secret_file"]}, {"required": ["secret_env"]}]))]
pub struct BasicConfig {
    /// The API key.
    #[serde(deserialize_with = "units::text")]
    #[schemars(schema_with = "units::text_schema")]
    pub key: String,
    /// The API secret, inline: warned about.
    pub secret: Option<InlineSecret>,
    /// A file that holds it; read again when it changes.
    pub secret_file: Option<PathBuf>,
    /// An environment variable that holds it.
    pub secret_env: Option<String>,
}

/// A version 006 token and the uid it was made for. Exactly one of `token`, `token_file`, `token_env`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{"required": ["token"]}, {"required": ["token_file"]}, {"required": ["token_env"]}]))]
pub struct TokenConfig {
    /// The uid that the token was made for.
    #[serde(deserialize_with = "units::text")]
    #[schemars(schema_with = "units::text_schema")]
    pub uid: String,
    /// The token, inline: warned about.
    pub token: Option<InlineSecret>,
    /// A file that holds it; read again when it changes.
    pub token_file: Option<PathBuf>,
    /// An environment variable that holds it.
    pub token_env: Option<String>,
}

/// A version 007 token. Exactly one of `token`, `token_file`, `token_env`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{"required": ["token"]}, {"required": ["token_file"]}, {"required": ["token_env"]}]))]
pub struct AgoraTokenConfig {
    /// The token, inline: warned about.
    pub token: Option<InlineSecret>,
    /// A file that holds it; read again when it changes.
    pub token_file: Option<PathBuf>,
    /// An environment variable that holds it.
    pub token_env: Option<String>,
}

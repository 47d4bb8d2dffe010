//! `[[apps]]`: App IDs, their regions and their credentials.

use std::path::PathBuf;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};

use super::{units, validate};

/// One `[[apps]]`: an App ID, its regions and its credentials.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AppConfig {
    /// The label in metrics, tags, topics and subjects: letters, digits, `_`, `-`.
    #[schemars(regex(pattern = validate::NAME_PATTERN))]
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
    #[serde(default = "ten", deserialize_with = "units::number")]
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
    #[serde(default = "sixty_seconds", with = "units::duration")]
    #[schemars(schema_with = "units::duration::schema")]
    pub copies_window: Duration,
    /// Path of the user events below the project. Default `rtm/vendor/user_events`.
    #[serde(default = "user_events_path")]
    pub user_events_path: String,
    /// Path of the channel events below the project. Default `rtm/vendor/channel_events`.
    #[serde(default = "channel_events_path")]
    pub channel_events_path: String,
    /// What ends a request that has no answer. Default `30s`; nothing else does.
    #[serde(default = "thirty_seconds", with = "units::duration")]
    #[schemars(schema_with = "units::duration::schema")]
    pub request_deadline: Duration,
    /// How long opening a connection may take. Default `10s`.
    #[serde(default = "ten_seconds", with = "units::duration")]
    #[schemars(schema_with = "units::duration::schema")]
    pub connect_timeout: Duration,
    /// A proxy for Agora, such as `http://proxy:3128`. Default: the system's (`HTTPS_PROXY`), or none.
    #[serde(default)]
    pub proxy: Option<String>,
    /// A PEM file with further certificate authorities for Agora. Default: none.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
}

fn ten() -> u32 {
    10
}

fn sixty_seconds() -> Duration {
    Duration::from_secs(60)
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

fn thirty_seconds() -> Duration {
    Duration::from_secs(30)
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
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
    #[serde(default)]
    pub secret: Option<InlineSecret>,
    /// A file that holds it; read again when it changes.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
    /// An environment variable that holds it.
    #[serde(default)]
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
    #[serde(default)]
    pub token: Option<InlineSecret>,
    /// A file that holds it; read again when it changes.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// An environment variable that holds it.
    #[serde(default)]
    pub token_env: Option<String>,
}

/// A version 007 token. Exactly one of `token`, `token_file`, `token_env`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{"required": ["token"]}, {"required": ["token_file"]}, {"required": ["token_env"]}]))]
pub struct AgoraTokenConfig {
    /// The token, inline: warned about.
    #[serde(default)]
    pub token: Option<InlineSecret>,
    /// A file that holds it; read again when it changes.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// An environment variable that holds it.
    #[serde(default)]
    pub token_env: Option<String>,
}

/// A secret that stands in the file itself. Never printed.
#[derive(Debug, Clone)]
pub struct InlineSecret(pub secrecy::SecretString);

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

/// A region: a name of the built-in table, or a name and a base URL.
#[derive(Debug, Clone, PartialEq)]
pub struct RegionConfig {
    /// The tag. A name, and no promise that the host reads that region's store alone.
    pub name: String,
    /// The base URL; may have a path. None: the table's.
    pub base_url: Option<String>,
    /// Accept `http://` to a host that is not loopback. Shown in a metric.
    pub allow_insecure_http: bool,
}

/// A region that the built-in table does not know.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RegionTable {
    /// The tag, in metrics, topics and subjects. A name, and no promise that the host reads that region's store alone.
    #[schemars(regex(pattern = validate::NAME_PATTERN))]
    name: String,
    /// The base URL; may have a path, which is kept.
    base_url: String,
    /// Accept `http://` to a host that is not loopback. Shown in a metric. Default false.
    #[serde(default)]
    allow_insecure_http: bool,
}

impl JsonSchema for RegionConfig {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RegionConfig".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let table = generator.subschema_for::<RegionTable>();
        json_schema!({
            "description": "A region of Agora's, or a name and a base URL.",
            "anyOf": [
                { "type": "string", "enum": rtm_source::Region::builtin_names().collect::<Vec<_>>() },
                table,
            ],
        })
    }
}

impl<'de> Deserialize<'de> for RegionConfig {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<RegionConfig, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = RegionConfig;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a region's name, or { name = \"…\", base_url = \"https://…\" }")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<RegionConfig, E> {
                Ok(RegionConfig {
                    name: name.to_owned(),
                    base_url: None,
                    allow_insecure_http: false,
                })
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                map: A,
            ) -> Result<RegionConfig, A::Error> {
                let table =
                    RegionTable::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                Ok(RegionConfig {
                    name: table.name,
                    base_url: Some(table.base_url),
                    allow_insecure_http: table.allow_insecure_http,
                })
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

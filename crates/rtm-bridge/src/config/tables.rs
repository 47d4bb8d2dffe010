//! The configuration's tables, and the whole.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use figment::value::Value;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::origin::Origin;
use super::{AppConfig, Problem};
use crate::fields::listen::Listen;
use crate::fields::units;
use crate::sinks::SinkConfig;

/// The configuration of rtm-bridge, in TOML. Environment variables lie over it: `RTM_BRIDGE__SECTION__KEY`.
// As it is read, and once `load` is through with it: valid.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "rtm-bridge")]
pub struct Config {
    #[serde(default)]
    pub(crate) admin: AdminConfig,
    #[serde(default)]
    pub(crate) log: LogConfig,
    #[serde(default)]
    pub(crate) metrics: MetricsConfig,
    #[serde(default)]
    pub(crate) journal: JournalConfig,
    /// How long the sinks may go on publishing after SIGTERM, and a sink that leaves the configuration, before what is left
    /// waits in the journal. Default `10s`.
    #[serde(default = "units::seconds::<10>", with = "units::duration")]
    #[schemars(schema_with = "units::duration::schema")]
    pub(crate) shutdown_deadline: Duration,
    /// The App IDs to poll.
    #[schemars(length(min = 1))]
    pub apps: Vec<AppConfig>,
    /// Where to publish, by the sink's name. One named `kafka`, `nats`, `stdout` or `file` is of that type; another name
    /// needs `type`.
    #[serde(rename = "sinks")]
    #[schemars(schema_with = "super::schema::sinks")]
    pub(super) tables: BTreeMap<String, Value>,
    /// What `tables` said, by sink name: each was read for itself, so that every problem is found.
    #[serde(skip)]
    pub sinks: BTreeMap<String, SinkConfig>,
    /// What it names that is not there and may come: whoever needs it is down until then.
    #[serde(skip)]
    pub(crate) absent: Vec<Problem>,
    #[serde(skip)]
    pub(super) origin: Origin,
}

impl Config {
    /// What templates can name, of each App ID.
    pub fn names(&self) -> Vec<rtm_record::AppNames<'_>> {
        let names = self.apps.iter().map(|app| rtm_record::AppNames {
            app: &app.name,
            app_id: &app.app_id,
            regions: app.regions.iter().map(|region| &*region.name).collect(),
        });
        names.collect()
    }

    /// The keys in which `new` differs, such as `journal.dir` or `apps.main.regions`: an app goes by its name, and an app, a
    /// sink or another table that only one of the two has is one key. Two spellings of one value are a difference.
    pub fn changed(&self, new: &Config) -> Vec<String> {
        self.origin.values.changed(&new.origin.values)
    }

    /// The file or the variable that the value at a key is from.
    pub(crate) fn origin_of(&self, key: &str) -> String {
        self.origin.of(key).0
    }

    /// The table of sinks as the files have it, without the environment and without defaults. There may be secrets in it.
    pub(crate) fn sinks_as_written(&self) -> serde_json::Value {
        self.origin.files.sinks()
    }
}

/// `[admin]`: `/metrics`, `/healthz`, `/readyz` and the status page.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// Address to listen on: `HOST:PORT`, or `:PORT` for every address of the machine. Default `127.0.0.1:9464`; port 0 takes
    /// a free one, which is logged.
    pub listen: Listen,
    /// Host names that requests may name, beside addresses, names without a dot, names below `localhost`, `local`,
    /// `internal`, `home.arpa` and `svc`, the machine's own and that of `listen`. A leading dot takes all below a domain.
    /// Default none. With `token_file` a request may name any host.
    pub hosts: Vec<String>,
    /// A file with the token that requests have to bring, as a bearer's or as a password; `/healthz` needs none. Read again
    /// when it changes. By default nobody is asked for one.
    pub token_file: Option<PathBuf>,
    /// Speak TLS. By default the endpoint speaks plain HTTP.
    pub tls: Option<AdminTls>,
}

/// `tls` of the admin endpoint.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminTls {
    /// The certificate, and those that lead from it to a root, in PEM. Read again when it changes.
    pub cert_file: PathBuf,
    /// Its key, in PEM. Read again when it changes.
    pub key_file: PathBuf,
}

impl Default for AdminConfig {
    fn default() -> AdminConfig {
        AdminConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 9464)).into(),
            hosts: Vec::new(),
            token_file: None,
            tls: None,
        }
    }
}

/// `[metrics]`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsConfig {
    /// Whether each ring has its own series (`ring`), or the rings of an App ID have them together (`app`), without the labels
    /// `region` and `stream`. Default `ring`.
    pub detail: Detail,
}

/// What has series of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Detail {
    /// Each ring.
    #[default]
    Ring,
    /// The rings of an App ID, together.
    App,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// What to log: `error`, `warn`, `info`, `debug` or `trace`, or directives such as `info,rtm_source=debug`. Default
    /// `info`.
    pub level: Option<String>,
    /// How. Default `text`.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people. Coloured on a terminal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// `[journal]`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct JournalConfig {
    /// Its directory. Default `/var/lib/rtm-bridge`.
    pub dir: PathBuf,
    /// Bound on its size. Default `4GiB`: some 130 million events that wait for a sink, at 2,000 a second, 28 bytes each as
    /// measured with the simulator. `rtm-bridge check --outage` estimates what an outage needs.
    #[serde(with = "units::size")]
    #[schemars(schema_with = "units::size::schema")]
    pub max_bytes: u64,
    /// Bound on the responses that wait in it, each of which takes 40 bytes of memory. Default 1048576, from 10000 to
    /// 1000000000; an eighth stays free, as of `max_bytes`. An App ID that finds events whenever it asks brings 10 a
    /// second.
    #[serde(deserialize_with = "units::number")]
    #[schemars(range(min = 10_000, max = 1_000_000_000))]
    pub max_entries: u64,
    /// Free disk space to leave alone. Default `256MiB`.
    #[serde(with = "units::size")]
    #[schemars(schema_with = "units::size::schema")]
    pub min_free_bytes: u64,
}

impl JournalConfig {
    /// Its bounds, for whoever opens the journal; the rest is as by default.
    pub(crate) fn bounds(&self) -> rtm_journal::Options {
        rtm_journal::Options {
            max_bytes: self.max_bytes,
            max_entries: self.max_entries,
            min_free_bytes: self.min_free_bytes,
            ..rtm_journal::Options::default()
        }
    }
}

impl Default for JournalConfig {
    fn default() -> JournalConfig {
        JournalConfig {
            dir: PathBuf::from("/var/lib/rtm-bridge"),
            max_bytes: 4 << 30,
            max_entries: 1 << 20,
            min_free_bytes: 256 << 20,
        }
    }
}

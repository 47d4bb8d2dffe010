//! From files and the environment to a [`Config`], or to problems that say what to do.

use std::collections::BTreeMap;
use std::iter::successors;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use figment::Figment;
use figment::value::Value;
use schemars::JsonSchema;
use serde::Deserialize;

use super::changes::Values;
use super::environment::Environment;
use super::files::{Fault, Files};
use super::problem::{AUTH_KEYS, ConfigError, Origin, Problem, problems};
use super::{AdminConfig, AppConfig, Config, JournalConfig, LogConfig, validate};
use crate::fields::problem::list;
use crate::fields::units;
use crate::sinks::{KEYS, SinkConfig, SinkProblem};

impl Config {
    /// Reads the file at `place`, or the `*.toml` of the directory there, lays the environment over it
    /// (`RTM_BRIDGE__SECTION__KEY`) and validates the whole.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] with every problem found, each with its file and key.
    pub fn load(place: &Path) -> Result<Config, ConfigError> {
        let environment = Environment::new(std::env::vars_os());
        extract(Files::read(place), environment)
    }

    /// As [`Config::load`], from text; for tests and the demo.
    ///
    /// # Errors
    ///
    /// As [`Config::load`].
    pub fn parse(toml: &str) -> Result<Config, ConfigError> {
        extract(Files::text(toml), Environment::new(std::iter::empty()))
    }

    /// The admin address of a configuration, whatever else is wrong with it: who watches a bridge may not be able to read
    /// its secrets.
    #[must_use]
    pub fn admin_listen(place: &Path) -> Option<SocketAddr> {
        let (files, _) = Files::read(place);
        let figment = Figment::from(files).merge(Environment::new(std::env::vars_os()));
        figment.extract_inner("admin.listen").ok()
    }
}

/// The configuration of rtm-bridge, in TOML. Environment variables lie over it: `RTM_BRIDGE__SECTION__KEY`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "rtm-bridge")]
pub(super) struct Raw {
    #[serde(default)]
    admin: AdminConfig,
    #[serde(default)]
    log: LogConfig,
    #[serde(default)]
    journal: JournalConfig,
    /// How long the sinks may go on publishing after SIGTERM, and a sink that leaves the configuration, before what is left
    /// waits in the journal. Default `10s`.
    #[serde(default = "units::seconds::<10>", with = "units::duration")]
    #[schemars(schema_with = "units::duration::schema")]
    shutdown_deadline: Duration,
    /// The App IDs to poll.
    #[schemars(length(min = 1))]
    apps: Vec<AppConfig>,
    /// Where to publish, by the sink's name. One named `kafka`, `nats`, `stdout` or `file` is of that type; another name
    /// needs `type`.
    #[schemars(schema_with = "super::schema::sinks")]
    sinks: BTreeMap<String, Value>,
}

fn extract(
    (files, faults): (Files, Vec<Fault>),
    environment: Environment,
) -> Result<Config, ConfigError> {
    if !faults.is_empty() {
        let problems = faults.into_iter().map(Problem::from).collect();
        return Err(ConfigError { problems });
    }
    let variables = environment.places();
    let figment = &Figment::from(&files).merge(environment);
    let origin = Origin { files, variables };
    let raw: Raw = figment
        .extract()
        .map_err(|error| problems(error, &origin, &[], &[]))?;
    let mut sinks = BTreeMap::new();
    let mut found = Vec::new();
    for (name, table) in &raw.sinks {
        match SinkConfig::read(name, table) {
            Ok(sink) => {
                sinks.insert(name.clone(), sink);
            }
            Err(SinkProblem::Value(mut error)) => {
                // The table was cut out of the whole, which knows where the value is from, or what holds it.
                let path = format!("sinks.{name}.{}", error.path.join("."));
                let paths = successors(Some(&*path), |path| Some(path.rsplit_once('.')?.0));
                let mut metadata = paths.map(|path| figment.find_metadata(path));
                error.metadata = metadata.find_map(|found| found.cloned());
                found.extend(problems(*error, &origin, &["sinks", name], KEYS).problems);
            }
            Err(SinkProblem::Type(message)) => found.push(Problem {
                origin: origin.of(&format!("sinks.{name}")).0,
                key: format!("sinks.{name}.type"),
                message,
            }),
        }
    }
    let config = Config {
        admin: raw.admin,
        log: raw.log,
        journal: raw.journal,
        shutdown_deadline: raw.shutdown_deadline,
        apps: raw.apps,
        sinks,
        origin,
        values: Values::of(figment),
    };
    let mut problems = two_kinds(figment);
    problems.extend(validate::problems(&config));
    if !raw.sinks.is_empty() {
        // They are there, and what is wrong with them is told.
        problems.retain(|(key, _)| key != "sinks");
    }
    for (key, message) in problems {
        found.push(config.origin.problem(&key, message));
    }
    if found.is_empty() {
        Ok(config)
    } else {
        Err(ConfigError { problems: found })
    }
}

/// Where `auth` says two things: figment would take the first and forget the other, which may be the one that is meant.
fn two_kinds(figment: &Figment) -> Vec<(String, String)> {
    let apps = figment.find_value("apps").ok();
    let apps = apps
        .iter()
        .filter_map(Value::as_array)
        .flatten()
        .enumerate();
    let apps = apps.map(|(index, app)| (format!("apps.{index}.auth"), app.find_ref("auth")));
    let sinks = figment.find_value("sinks").ok();
    let sinks = sinks.iter().filter_map(Value::as_dict).flatten();
    let sinks = sinks.map(|(name, sink)| (format!("sinks.{name}.auth"), sink.find_ref("auth")));
    apps.chain(sinks)
        .filter_map(|(key, auth)| {
            let kinds = auth?.as_dict()?;
            // What is no key of ours may be a secret in the wrong place.
            let known = |name: &&str| AUTH_KEYS.contains(name);
            let names = kinds.keys().map(String::as_str);
            let names: Vec<&str> = names
                .map(|name| Some(name).filter(known).unwrap_or("…"))
                .collect();
            let message = || {
                format!(
                    "exactly one kind of credentials is expected, found {}",
                    list(&names)
                )
            };
            (names.len() > 1).then(|| (key, message()))
        })
        .collect()
}

#[cfg(test)]
#[allow(
    clippy::result_large_err,
    reason = "figment's own error type, in tests only"
)]
mod tests;

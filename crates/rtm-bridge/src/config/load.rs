//! From files and the environment to a [`Config`], or to problems that say what to do.

use std::iter::successors;
use std::path::Path;

use figment::Figment;
use figment::value::{Dict, Value};

use super::changes::Values;
use super::environment::Variable;
use super::files::Files;
use super::origin::Origin;
use super::problem::{AUTH_KEYS, ConfigError, Problem};
use super::{AdminConfig, Config, validate};
use crate::fields::problem::list;
use crate::sinks::{KEYS, SinkConfig, SinkProblem};

impl Config {
    /// Reads the file at `place`, or the `*.toml` of the directory there, lays the environment over it
    /// (`RTM_BRIDGE__SECTION__KEY`) and validates the whole.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] with every problem found, each with its file and key.
    pub fn load(place: &Path) -> Result<Config, ConfigError> {
        extract(Files::read(place), &Variable::all())
    }

    /// As [`Config::load`], for whom what is wrong is no reason to look at nothing else.
    ///
    /// # Errors
    ///
    /// When there is no table to look at: the files cannot be read, or a value is of no type that it can have.
    pub(crate) fn examine(place: &Path) -> Result<Examined, ConfigError> {
        examine(Files::read(place), &Variable::all())
    }

    /// As [`Config::load`], from text; for tests and the demo.
    pub fn parse(toml: &str) -> Result<Config, ConfigError> {
        extract(Files::text(toml), &[])
    }

    /// The admin endpoint of a configuration, whatever else is wrong with it: who watches a bridge may not be able to read
    /// its secrets.
    ///
    /// # Errors
    ///
    /// When the files cannot be read, or say of the endpoint what cannot be.
    pub fn admin(place: &Path) -> Result<AdminConfig, ConfigError> {
        let (files, problems) = Files::read(place);
        if !problems.is_empty() {
            return Err(ConfigError { problems });
        }
        let figment = &merged(&files, &Variable::all());
        let Ok(admin) = figment.find_value("admin") else {
            return Ok(AdminConfig::default());
        };
        let origin = Origin {
            variables: Vec::new(),
            values: Values::of(figment),
            files,
        };
        admin.deserialize().map_err(|error| ConfigError {
            problems: origin.problems(error, &["admin"], &[]),
        })
    }
}

/// The environment over the files.
fn merged(files: &Files, variables: &[Variable]) -> Figment {
    variables.iter().fold(Figment::from(files), Figment::merge)
}

/// A configuration as far as it can be read, and what is wrong with it.
pub(crate) struct Examined {
    /// Without the sinks that cannot be read.
    pub(crate) config: Config,
    /// Keys of the whole, and what is wrong with each; what is not there and may come among them.
    pub(crate) problems: Vec<(String, Problem)>,
    /// Whether any of it keeps a bridge from starting.
    pub(crate) is_wrong: bool,
}

pub(super) fn extract(
    read: (Files, Vec<Problem>),
    variables: &[Variable],
) -> Result<Config, ConfigError> {
    let examined = examine(read, variables)?;
    match examined.is_wrong {
        false => Ok(examined.config),
        true => {
            let problems = examined.problems.into_iter();
            let problems = problems.map(|(_, problem)| problem).collect();
            Err(ConfigError { problems })
        }
    }
}

fn examine(
    (files, problems): (Files, Vec<Problem>),
    variables: &[Variable],
) -> Result<Examined, ConfigError> {
    if !problems.is_empty() {
        return Err(ConfigError { problems });
    }
    let figment = &merged(&files, variables);
    let keys = variables.iter().map(|one| (one.name.clone(), one.key()));
    let origin = Origin {
        variables: keys.collect(),
        values: Values::of(figment),
        files,
    };
    let mut config: Config = figment.extract().map_err(|error| ConfigError {
        problems: origin.problems(error, &[], &[]),
    })?;
    let mut found = Vec::new();
    let tables = std::mem::take(&mut config.tables);
    for (name, table) in &tables {
        match SinkConfig::read(name, table) {
            Ok(sink) => {
                config.sinks.insert(name.clone(), sink);
            }
            Err(SinkProblem::Value(mut error)) => {
                // The table was cut out of the whole, which knows where the value is from, or what holds it.
                let path = format!("sinks.{name}.{}", error.path.join("."));
                let paths = successors(Some(&*path), |path| Some(path.rsplit_once('.')?.0));
                let mut metadata = paths.map(|path| figment.find_metadata(path));
                error.metadata = metadata.find_map(|found| found.cloned());
                let problems = origin.problems(*error, &["sinks", name], KEYS).into_iter();
                found.extend(problems.map(|problem| (path.clone(), problem)));
            }
            Err(SinkProblem::Type(message)) => {
                let problem = Problem {
                    origin: origin.of(&format!("sinks.{name}")).0,
                    key: format!("sinks.{name}.type"),
                    message,
                };
                found.push((problem.key.clone(), problem));
            }
        }
    }
    let mut problems = two_kinds(figment);
    if let Ok(whole) = figment.find_value("") {
        unprintable(&whole, "", &mut problems);
    }
    let (wrong, absent) = validate::problems(&config);
    problems.extend(wrong);
    if !tables.is_empty() {
        // They are there, and what is wrong with them is told.
        problems.retain(|(key, _)| key != "sinks");
    }
    let told = |(key, message): (String, String)| {
        let problem = origin.problem(&key, message);
        (key, problem)
    };
    found.extend(problems.into_iter().map(told));
    let is_wrong = !found.is_empty();
    let absent: Vec<_> = absent.into_iter().map(told).collect();
    config.absent = absent.iter().map(|(_, problem)| problem.clone()).collect();
    found.extend(absent);
    config.origin = origin;
    Ok(Examined {
        config,
        problems: found,
        is_wrong,
    })
}

/// Texts with a control character, such as a carriage return that a file of variables has left: it would be a part of a path,
/// a name or a secret, and show nowhere. Options of a broker's client may have several lines.
fn unprintable(value: &Value, key: &str, found: &mut Vec<(String, String)>) {
    let below = |part: &str| match key {
        "" => part.to_owned(),
        key => format!("{key}.{part}"),
    };
    match value {
        Value::String(_, text) if text.contains(char::is_control) => {
            let message = "holds a control character, such as a carriage return or a line feed, that does not belong there";
            found.push((key.to_owned(), message.to_owned()));
        }
        Value::Dict(_, table) => {
            for (part, value) in table.iter().filter(|(part, _)| *part != "options") {
                unprintable(value, &below(part), found);
            }
        }
        Value::Array(_, values) => {
            for (number, value) in values.iter().enumerate() {
                unprintable(value, &below(&number.to_string()), found);
            }
        }
        _ => {}
    }
}

/// Where `auth` says two things: figment would take the first and forget the other, which may be the one that is meant.
fn two_kinds(figment: &Figment) -> Vec<(String, String)> {
    let apps = figment.find_value("apps").ok();
    let apps = apps.iter().filter_map(Value::as_array).flatten();
    let apps = apps
        .enumerate()
        .map(|(index, app)| (format!("apps.{index}"), app));
    let sinks = figment.find_value("sinks").ok();
    let sinks = sinks.iter().filter_map(Value::as_dict).flatten();
    let sinks = sinks.map(|(name, sink)| (format!("sinks.{name}"), sink));
    let mut found = Vec::new();
    for (table, value) in apps.chain(sinks) {
        let kinds = value.find_ref("auth").and_then(Value::as_dict);
        let names = kinds.into_iter().flat_map(Dict::keys).map(String::as_str);
        // What is no key of ours may be a secret in the wrong place.
        let known = |name| Some(name).filter(|name| AUTH_KEYS.contains(name));
        let names: Vec<&str> = names.map(|name| known(name).unwrap_or("…")).collect();
        if names.len() > 1 {
            let names = list(&names);
            let message = format!("exactly one kind of credentials is expected, found {names}");
            found.push((format!("{table}.auth"), message));
        }
    }
    found
}

#[cfg(test)]
#[allow(
    clippy::result_large_err,
    reason = "figment's own error type, in tests only"
)]
mod tests;

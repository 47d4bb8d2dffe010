//! The files of a configuration: the one that `--config` names, or those of a directory, put together.
//!
//! Tables are merged key by key, and the `[[apps]]` of all files make one list. What two files say is refused, and both are
//! named: nobody could tell which of the two is meant. Which file a key stands in is looked up in what each file said, so
//! that no value has to carry its origin with it.

use std::cmp::Reverse;
use std::io;
use std::path::{Path, PathBuf};

use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};

use super::problem::Problem;
use crate::fields::units;

/// What the files say, as a whole and each for itself.
#[derive(Clone, Default)]
pub(super) struct Files {
    /// The file, or the directory.
    name: String,
    parts: Vec<Part>,
    whole: Dict,
}

#[derive(Clone)]
struct Part {
    file: String,
    said: Dict,
}

/// The files that count at `place`: itself, or those of a directory that are named `*.toml`, in the order of their names.
/// Names that begin with a dot do not count: Kubernetes mounts a configuration map as links to `..data/NAME`. Nor do
/// directories.
pub(crate) fn files(place: &Path) -> io::Result<Vec<PathBuf>> {
    if !place.is_dir() {
        return Ok(vec![place.to_path_buf()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(place)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        // A link that leads nowhere counts: that it cannot be read is then told.
        if !name.starts_with(b".") && name.ends_with(b".toml") && !path.is_dir() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

impl Files {
    /// Reads what stands at `place`. With problems, what could be read.
    pub(super) fn read(place: &Path) -> (Files, Vec<Problem>) {
        let mut found = Vec::new();
        let mut read = Files {
            name: place.display().to_string(),
            ..Files::default()
        };
        let files = files(place).unwrap_or_else(|error| {
            found.push(cannot_read(&read.name, &error));
            Vec::new()
        });
        if files.is_empty() && found.is_empty() {
            let message = "no configuration is in this directory; expected at least one file named `*.toml`, whose name \
                           does not begin with a dot; directories in it are not looked into";
            found.push(Problem::new(&read.name, &[], message));
        }
        for file in files {
            let name = file.display().to_string();
            match std::fs::read_to_string(&file) {
                Ok(text) => read.add(name, &text, &mut found),
                Err(error) => found.push(cannot_read(&name, &error)),
            }
        }
        (read, found)
    }

    /// A configuration that is no file.
    pub(super) fn text(toml: &str) -> (Files, Vec<Problem>) {
        let mut found = Vec::new();
        let mut read = Files {
            name: "the configuration".to_owned(),
            ..Files::default()
        };
        read.add(read.name.clone(), toml, &mut found);
        (read, found)
    }

    /// The file that the value at this key of the whole stands in, or that has most of what leads there, and the key in that
    /// file: the index of an app counts from its beginning. What no file has is the whole's.
    pub(super) fn of(&self, key: &str) -> (String, String) {
        if let Some((mut index, rest)) = app(key) {
            for part in &self.parts {
                let apps = part.apps().len();
                if index < apps {
                    return (part.file.clone(), format!("apps.{index}{rest}"));
                }
                index -= apps;
            }
        }
        let depths = self.parts.iter().map(|part| (depth(&part.said, key), part));
        let deepest = depths.min_by_key(|(depth, _)| Reverse(*depth));
        let file = match deepest {
            Some((1.., part)) => &part.file,
            _ => &self.name,
        };
        (file.clone(), key.to_owned())
    }

    /// `sinks` of the whole; null without.
    pub(super) fn sinks(&self) -> serde_json::Value {
        let sinks = serde_json::to_value(self.whole.get("sinks"));
        sinks.unwrap_or_default()
    }

    /// Whether they are those of a directory.
    pub(super) fn are_several(&self) -> bool {
        self.parts.iter().any(|part| part.file != self.name)
    }

    fn add(&mut self, file: String, text: &str, found: &mut Vec<Problem>) {
        let said: Dict = match Toml::from_str(text) {
            Ok(said) => said,
            Err(error) => {
                let message = without_source(error.to_string());
                return found.push(Problem::new(&file, &[], message));
            }
        };
        let mut part = Part { file, said };
        found.extend(part.take_table_of_apps());
        found.extend(self.parts.iter().flat_map(|other| same_apps(other, &part)));
        let mut twice = Vec::new();
        merge(&mut self.whole, &part.said, &mut Vec::new(), &mut twice);
        for (path, here, there) in twice {
            let (other, _) = self.of(&path.join("."));
            let message = match here == there {
                true => format!("stands in {other} too, and a key may stand in one file only"),
                false => format!("is {here} here, and {there} in {other}"),
            };
            found.push(Problem::new(&part.file, &path, message));
        }
        self.parts.push(part);
    }
}

fn cannot_read(file: &str, error: &io::Error) -> Problem {
    let message = format!("cannot read the configuration: {error}");
    Problem::new(file, &[], message)
}

/// The TOML parser repeats the line that it does not understand, which may hold a secret: of those lines only the numbers
/// stay.
fn without_source(message: String) -> String {
    if !message.contains('|') {
        return message;
    }
    let is_source = |line: &&str| line.trim_start().contains('|');
    let lines = message.lines().filter(|line| !is_source(line));
    lines.map(str::trim).collect::<Vec<_>>().join("; ")
}

impl Part {
    /// `[apps]` makes a table, and no other file's list could be merged with it.
    fn take_table_of_apps(&mut self) -> Option<Problem> {
        self.said.get("apps")?.as_dict()?;
        self.said.remove("apps");
        let message =
            "expected a list, found a table: write `[[apps]]` before the keys of each app";
        Some(Problem::new(&self.file, &["apps".to_owned()], message))
    }

    fn apps(&self) -> &[Value] {
        let apps = self.said.get("apps").and_then(Value::as_array);
        apps.unwrap_or_default()
    }
}

/// The index of an app in a key, and what follows.
fn app(key: &str) -> Option<(usize, &str)> {
    let rest = key.strip_prefix("apps.")?;
    let (index, rest) = rest.split_at(rest.find('.').unwrap_or(rest.len()));
    Some((index.parse().ok()?, rest))
}

/// How many tables and values on the way to `key` are there. A name may have dots of its own.
fn depth(table: &Dict, key: &str) -> usize {
    let depths =
        table.iter().filter_map(
            |(name, value)| match key.strip_prefix(name)?.strip_prefix('.') {
                Some(rest) => Some(1 + value.as_dict().map_or(0, |table| depth(table, rest))),
                None => (key == name).then_some(1),
            },
        );
    depths.max().unwrap_or(0)
}

/// What may be the name, or the App ID, of one app only: a problem for each that `part` takes from `other`.
fn same_apps(other: &Part, part: &Part) -> Vec<Problem> {
    let text = |app: &Value, key: &str| units::text::<_, String>(app.find_ref(key)?).ok();
    let mut found = Vec::new();
    for (index, app) in part.apps().iter().enumerate() {
        for key in ["name", "app_id"] {
            let value = text(app, key);
            let mut others = other.apps().iter().map(|other| text(other, key));
            let Some(value) =
                value.filter(|value| others.any(|other| other.as_ref() == Some(value)))
            else {
                continue;
            };
            let file = &other.file;
            let message = match key {
                "name" => format!("`{value}` is the name of an app in {file} too"),
                _ => format!(
                    "an app in {file} has this App ID too; they would steal each other's events"
                ),
            };
            let path = ["apps", &index.to_string(), key].map(str::to_owned);
            found.push(Problem::new(&part.file, &path, message));
        }
    }
    found
}

/// The path of what stands twice, and what it is in the one file and in the other.
type Twice = (Vec<String>, &'static str, &'static str);

/// Lays `from` into `whole`, save for what stands there already, which `twice` takes.
fn merge(whole: &mut Dict, from: &Dict, path: &mut Vec<String>, twice: &mut Vec<Twice>) {
    for (key, value) in from {
        path.push(key.clone());
        match (whole.get_mut(key), value) {
            (None, value) => {
                whole.insert(key.clone(), value.clone());
            }
            (Some(Value::Dict(_, whole)), Value::Dict(_, from)) => merge(whole, from, path, twice),
            (Some(Value::Array(_, whole)), Value::Array(_, from)) if *path == ["apps"] => {
                whole.extend_from_slice(from);
            }
            (Some(there), here) => twice.push((path.clone(), kind(here), kind(there))),
        }
        path.pop();
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Dict(..) => "a table",
        Value::Array(..) => "a list",
        _ => "a value",
    }
}

impl Provider for Files {
    fn metadata(&self) -> Metadata {
        Metadata::named("files")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.whole.clone())]))
    }
}

#[cfg(test)]
mod tests;

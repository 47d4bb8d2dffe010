//! Where to publish: `[sinks.<name>]`.
//!
//! What is to be known of a kind of sink stands in one file here, its [`Kind`]. A new kind is a crate, a file like them and a
//! line in [`KINDS`].

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use figment::value::{Dict, Value};
use rtm_record::{ALL, AppNames, STATIC, Template, UNKNOWN, Variable};
use rtm_sink::AnySink;
use rtm_sink_nats::{covers, widen};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::fields::problem::{NAME, Problems, is_name, list};
use crate::fields::shown::word;

mod common;
pub mod file;
pub mod kafka;
mod kind;
mod late;
pub mod nats;

pub(crate) use common::KEYS;
pub use common::{Common, Stream, WhenFull};
pub use kind::Stored;
pub(crate) use kind::{Bench, Kind, Purpose};

use file::{FileConfig, StdoutConfig};
use kafka::KafkaConfig;
use nats::NatsConfig;

/// Every kind of sink, by its `type`.
const KINDS: &[Entry] = &[
    entry::<KafkaConfig>("kafka"),
    entry::<NatsConfig>("nats"),
    entry::<StdoutConfig>("stdout"),
    entry::<FileConfig>("file"),
];

/// What is written in a table, but for the common keys.
type Table = Arc<dyn Kind>;

/// How the table of a kind is read, and its schema.
struct Entry {
    kind: &'static str,
    read: fn(&Value) -> Result<Table, Box<figment::Error>>,
    schema: fn(&mut SchemaGenerator) -> Schema,
    schema_name: fn() -> Cow<'static, str>,
}

const fn entry<K: Kind + DeserializeOwned + JsonSchema>(kind: &'static str) -> Entry {
    Entry {
        kind,
        read: |table| Ok(Arc::new(table.deserialize::<K>()?)),
        schema: K::json_schema,
        schema_name: K::schema_name,
    }
}

/// One sink, by its `type`; a sink named as a kind needs none.
#[derive(Debug, Clone)]
pub struct SinkConfig {
    /// What `type` says.
    pub(crate) kind: &'static str,
    pub(crate) common: Common,
    table: Table,
}

/// Why a table is no sink.
pub(crate) enum SinkProblem {
    /// A value, at its path below the table.
    Value(Box<figment::Error>),
    /// The `type`.
    Type(String),
}

impl SinkConfig {
    /// The sink of a name and its table.
    pub(crate) fn read(name: &str, table: &Value) -> Result<SinkConfig, SinkProblem> {
        if !is_name(name) {
            return Err(SinkProblem::Type(format!("a sink's name is {NAME}")));
        }
        let kind = table
            .find_ref("type")
            .and_then(Value::as_str)
            .unwrap_or(name);
        let Some(entry) = KINDS.iter().find(|entry| entry.kind == kind) else {
            let known: Vec<&str> = KINDS.iter().map(|entry| entry.kind).collect();
            return Err(SinkProblem::Type(format!(
                "unknown type `{kind}`, expected one of {} (a sink with another name needs `type`)",
                list(&known)
            )));
        };
        let mut own = table.clone();
        let mut common = Dict::new();
        if let Value::Dict(_, keys) = &mut own {
            for key in KEYS {
                common.extend(keys.remove_entry(*key));
            }
        }
        let common = Value::from(common).deserialize().map_err(Box::new);
        Ok(SinkConfig {
            kind: entry.kind,
            common: common.map_err(SinkProblem::Value)?,
            table: (entry.read)(&own).map_err(SinkProblem::Value)?,
        })
    }

    /// The JSON Schema of each kind's table, by its `type`.
    pub(crate) fn schemas(generator: &mut SchemaGenerator) -> Vec<(&'static str, Schema)> {
        let entries = KINDS.iter();
        entries
            .map(|entry| {
                let common = Common::json_schema(generator);
                let mut table = (entry.schema)(generator);
                let own = table
                    .ensure_object()
                    .entry("properties")
                    .or_insert(json!({}));
                let mut keys = common.get("properties").cloned().unwrap_or_default();
                keys["type"]["const"] = json!(entry.kind);
                if let (Some(keys), Some(own)) = (keys.as_object_mut(), own.as_object_mut()) {
                    keys.append(own);
                }
                *own = keys;
                let name = (entry.schema_name)().into_owned();
                let reference = Schema::new_ref(format!("#/$defs/{name}"));
                generator.definitions_mut().insert(name, table.to_value());
                (entry.kind, reference)
            })
            .collect()
    }

    /// The keys of its kind.
    pub(crate) fn table(&self) -> &dyn Kind {
        &*self.table
    }

    /// Makes the client, which need not be connected yet. Where something is missing that may come, such as a file or a
    /// mount, it is a client that is down until then.
    ///
    /// # Errors
    ///
    /// When it can never work as it is described.
    pub(crate) async fn client(&self, name: &str, places: &[String]) -> anyhow::Result<AnySink> {
        late::open(&self.table, name, places).await
    }

    /// What people call the sink of this name, in the middle of a sentence.
    pub(crate) fn title(&self, name: &str) -> String {
        match self.table.title() {
            Some(broker) if name == self.kind => broker.to_owned(),
            Some(broker) => format!("the sink {name} ({broker})"),
            None => format!("the sink {name}"),
        }
    }

    /// What may be shown of it.
    pub(crate) fn shown(&self) -> Vec<(&'static str, String)> {
        let common = &self.common;
        let apps = common.apps.as_ref();
        let apps = apps.map_or_else(|| "all".to_owned(), |apps| apps.join(", "));
        let streams: Vec<&str> = common.streams.iter().map(|one| one.as_str()).collect();
        let mut shown = vec![("type", self.kind.to_owned())];
        shown.extend(self.table.shown());
        shown.push(("when_full", word(common.when_full)));
        shown.push(("apps", apps));
        shown.push(("streams", streams.join(", ")));
        shown
    }

    /// The keys in which `new` needs another client. The common keys are none of them: what they say, any client does.
    pub(crate) fn needs_new_client(&self, new: &SinkConfig) -> Vec<&'static str> {
        match self.kind == new.kind {
            true => self.table.needs_new_client(&*new.table),
            false => vec!["type"],
        }
    }

    /// Whether the events of a stream of an app go to this sink.
    pub fn takes(&self, app: &str, stream: &str) -> bool {
        let apps = self.common.apps.as_ref();
        apps.is_none_or(|apps| apps.iter().any(|known| known == app)) && self.takes_stream(stream)
    }

    /// Whether the events of a stream go to this sink, whatever their app.
    pub(crate) fn takes_stream(&self, stream: &str) -> bool {
        self.common.takes_stream(stream)
    }

    /// Every topic or subject that the sink can publish to, with `x` for each part of an event.
    pub(crate) fn places(&self, apps: &[AppNames<'_>]) -> Vec<String> {
        let templates = self.table.templates();
        let mut places = self.names(templates.records.1, apps, "x");
        places.extend(self.dead_letter_places(apps));
        places.sort();
        places.dedup();
        places
    }

    /// Those of them that dead letters go to.
    pub(crate) fn dead_letter_places(&self, apps: &[AppNames<'_>]) -> Vec<String> {
        let template = self.table.templates().dead_letters.1;
        let mut places = self.names(template, apps, "x");
        places.extend(self.unreadable(template, apps));
        places
    }

    /// Where the dead letters go of entries of the journal that not even the tags can be read of.
    fn unreadable(&self, dead_letters: &str, apps: &[AppNames<'_>]) -> Vec<String> {
        let template = Template::parse(dead_letters, STATIC).ok();
        let taken = apps.iter().filter(|app| {
            let streams = self.common.streams.iter();
            streams
                .into_iter()
                .any(|stream| self.takes(app.app, stream.as_str()))
        });
        let names = taken.flat_map(|app| {
            let template = template.iter();
            template.map(|template| {
                template.render(|variable, text| {
                    text.push_str(match variable {
                        Variable::App => app.app,
                        Variable::AppId => app.app_id,
                        _ => UNKNOWN,
                    });
                })
            })
        });
        names.collect()
    }

    /// Every name that a template leads to, with `part` for each part of an event; none for what is no template.
    fn names(&self, template: &str, apps: &[AppNames<'_>], part: &str) -> Vec<String> {
        let Ok(template) = Template::parse(template, ALL) else {
            return Vec::new();
        };
        template.names(apps, part, |app, stream| self.takes(app, stream))
    }
}

/// Every problem of the sinks.
pub(crate) fn problems(
    sinks: &BTreeMap<String, SinkConfig>,
    apps: &[AppNames<'_>],
    problems: &mut Problems<'_>,
) {
    let known: Vec<&str> = apps.iter().map(|names| names.app).collect();
    let mut paths: HashMap<PathBuf, &str> = HashMap::new();
    for (name, sink) in sinks {
        let mut problems = problems.of(name);
        let nothing = "takes nothing; leave it out for all";
        if sink.common.streams.is_empty() {
            problems.add("streams", nothing);
        }
        if sink.common.apps.as_ref().is_some_and(Vec::is_empty) {
            problems.add("apps", nothing);
        }
        let wanted = sink.common.apps.iter().flatten().enumerate();
        for (index, app) in wanted.filter(|(_, app)| !known.contains(&app.as_str())) {
            let (app, known) = (app.escape_debug(), list(&known));
            problems.add(
                format_args!("apps.{index}"),
                format!(
                    "`{app}` is not the name of an app; expected some of {known}. An app that is renamed or removed is to be \
                     renamed or removed here in the same reload"
                ),
            );
        }
        sink.table.problems(&sink.places(apps), &mut problems);
        if let Some(file) = sink.table.file() {
            // Two spellings of one file are one file.
            let path = file.canonicalize().unwrap_or_else(|_| file.to_owned());
            if let Some(other) = paths.insert(path, name) {
                problems.add(
                    "path",
                    format!("the sink `{other}` writes to this file too"),
                );
            }
        }
    }
}

/// Dead letters among the records: whoever reads those meets documents of another kind. And events that no sink takes.
pub(crate) fn warnings(
    sinks: &BTreeMap<String, SinkConfig>,
    apps: &[AppNames<'_>],
    warnings: &mut Problems<'_>,
) {
    for (name, sink) in sinks {
        sink.table
            .secrets(&mut warnings.of(format_args!("sinks.{name}")));
        let templates = sink.table.templates();
        let (of_records, records) = templates.records;
        let (key, dead) = templates.dead_letters;
        let records = sink.names(records, apps, "*");
        let among = |dead: &String| records.iter().any(|records| covers(&widen(records), dead));
        if let Some(place) = sink.names(dead, apps, "*").into_iter().find(among) {
            warnings.add(
                format_args!("sinks.{name}.{key}"),
                format!(
                    "dead letters go to `{place}`, which is among the places of events by `{of_records}`: a consumer of \
                     events meets both there"
                ),
            );
        }
    }
    for (index, app) in apps.iter().map(|names| names.app).enumerate() {
        for stream in [Stream::User, Stream::Channel].map(Stream::as_str) {
            if !sinks.values().any(|sink| sink.takes(app, stream)) {
                // What leaves them out is the `streams` of a sink that takes the app, or else nothing that stands somewhere.
                let takes_app =
                    |sink: &SinkConfig| ["user", "channel"].iter().any(|one| sink.takes(app, one));
                let key = match sinks.iter().find(|(_, sink)| takes_app(sink)) {
                    Some((name, _)) => format!("sinks.{name}.streams"),
                    None => format!("apps.{index}"),
                };
                warnings.add(
                    key,
                    format!("no sink takes the {stream} events of the app `{app}`: they are polled, and published nowhere"),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests;

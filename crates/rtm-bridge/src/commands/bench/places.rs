//! Where the bench's records go: its configuration, which has topics and streams of its own, and reading them back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rtm_sim::{Ledger, Simulator};
use serde_json::{Value, json};

use super::brokers::{
    kafka_client, make_topics, nats_client, remove_stream, remove_topics, topics,
};
use super::{BenchArgs, pending};
use crate::config::{Config, SinkConfig};
use crate::read_back::{self, Held, Reading};

/// Room in the journal for each ring, so that it is not what is measured; only a bound.
const ROOM_MIB: u64 = 64;

/// The least room.
const LEAST_ROOM_MIB: u64 = 4 << 10;

/// An App ID by its number.
pub(super) fn app_id(number: u16) -> String {
    format!("{:032x}", u32::from(number) + 1)
}

/// The first regions of the built-in table.
pub(super) fn regions(count: u16) -> Vec<String> {
    rtm_source::Region::builtin_names()
        .take(usize::from(count))
        .map(str::to_owned)
        .collect()
}

/// Why the bench cannot begin.
pub(super) enum PlaceError {
    /// The user has to change something.
    Usage(String),
    /// Something else failed.
    Failed(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for PlaceError {
    fn from(error: E) -> PlaceError {
        PlaceError::Failed(error.into())
    }
}

/// See the module.
pub(super) struct Places {
    /// The bridge's configuration file.
    pub(super) config: PathBuf,
    pub(super) parsed: Config,
    journal: PathBuf,
}

impl Places {
    /// Writes the configuration.
    pub(super) fn new(
        args: &BenchArgs,
        dir: &Path,
        simulator: &Simulator,
    ) -> Result<Places, PlaceError> {
        let tag = format!("{:08x}", fastrand::u32(..));
        let journal = dir.join("journal");
        let config = dir.join("rtm-bridge.toml");
        let secret = dir.join("secret");
        write_secret(&secret)?;
        let text = toml_edit::ser::to_string(&json!({
            "admin": { "listen": "127.0.0.1:0" },
            "journal": { "dir": journal.to_string_lossy(), "max_bytes": room(args) },
            "apps": apps(args, &secret, simulator),
            "sinks": sinks(args, dir, &tag)?,
        }))?;
        std::fs::write(&config, &text)?;
        let parsed = match args.config {
            Some(_) => Config::load(&config),
            None => Config::parse(&text),
        };
        let parsed = parsed.map_err(|error| PlaceError::Usage(error.to_string()))?;
        for (name, sink) in &parsed.sinks {
            // What is ours is removed at the end; what is not must not be.
            if !is_ours(sink, dir, &tag) {
                return Err(PlaceError::Usage(format!(
                    "sinks.{name}: the environment lays another topic, stream or path over the bench's own; \
                     unset RTM_BRIDGE__SINKS__… for them"
                )));
            }
        }
        Ok(Places {
            config,
            parsed,
            journal,
        })
    }

    /// Pages that wait in the bridge's journal.
    pub(super) async fn pending(&self) -> anyhow::Result<u64> {
        let dir = self.journal.clone();
        tokio::task::spawn_blocking(move || pending(&dir)).await?
    }

    /// What it makes at the brokers, for people.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        for sink in self.parsed.sinks.values() {
            match sink {
                SinkConfig::Kafka(kafka) => {
                    let topics = topics(kafka);
                    names.extend(
                        topics
                            .into_iter()
                            .map(|(topic, _)| format!("topic {topic}")),
                    );
                }
                SinkConfig::Nats(nats) => names.push(format!("JetStream stream {}", nats.stream)),
                SinkConfig::File(_) | SinkConfig::Stdout(_) => {}
            }
        }
        names
    }

    /// Makes the topics, which are to tell when a record was stored; all of them, or none. The bridge makes the streams.
    pub(super) async fn make(&self) -> anyhow::Result<()> {
        let mut before = Vec::new();
        for (name, sink) in &self.parsed.sinks {
            let SinkConfig::Kafka(kafka) = sink else {
                continue;
            };
            if let Err(error) = make_topics(kafka).await {
                for made in before {
                    remove_topics(made).await?;
                }
                return Err(error.context(format!("sink {name}")));
            }
            before.push(kafka);
        }
        Ok(())
    }

    /// What the sinks' files hold, in bytes: the rest of what the bridge wrote is the journal's.
    pub(super) fn file_bytes(&self) -> u64 {
        let files = self.parsed.sinks.values().filter_map(|sink| match sink {
            SinkConfig::File(file) => std::fs::metadata(&file.path).ok(),
            SinkConfig::Kafka(_) | SinkConfig::Nats(_) | SinkConfig::Stdout(_) => None,
        });
        files.map(|found| found.len()).sum()
    }

    /// Removes what it made; what is missing already is no error.
    pub(super) async fn remove(&self) -> anyhow::Result<()> {
        for (name, sink) in &self.parsed.sinks {
            let removed = match sink {
                SinkConfig::Kafka(_) if rtm_planted::bug("bridge-bench-topics-left") => Ok(()),
                SinkConfig::Kafka(kafka) => remove_topics(kafka).await,
                SinkConfig::Nats(nats) => remove_stream(nats).await,
                SinkConfig::File(_) | SinkConfig::Stdout(_) => Ok(()),
            };
            removed.with_context(|| format!("sink {name}"))?;
        }
        Ok(())
    }

    /// Compares what each sink holds with what was handed out.
    pub(super) async fn read_back(&self, ledger: &Ledger) -> anyhow::Result<Vec<Held>> {
        let lines = read_back::as_lines(ledger);
        let mut held = Vec::new();
        for (name, sink) in &self.parsed.sinks {
            let is_file = matches!(sink, SinkConfig::File(_));
            let mut reading = Reading::new(if is_file { &lines } else { ledger });
            match sink {
                SinkConfig::Kafka(kafka) => {
                    let client = kafka_client(kafka)?;
                    for (index, (topic, dead)) in topics(kafka).iter().enumerate() {
                        // Partitions of two topics must not be taken for one another.
                        let offset = i32::try_from(index)? * 10_000;
                        tokio::task::block_in_place(|| {
                            read_back::kafka(&client, topic, *dead, |stored| {
                                reading.observe(&read_back::Stored {
                                    partition: stored.partition + offset,
                                    ..*stored
                                });
                            })
                        })?;
                    }
                }
                SinkConfig::Nats(nats) => {
                    let client = nats_client(nats).await?;
                    let is_dead = |subject: &str| subject.ends_with(".dead_letters");
                    read_back::nats(&client, &nats.stream, is_dead, |stored| {
                        reading.observe(stored);
                    })
                    .await?;
                }
                SinkConfig::File(file) => {
                    read_back::file(&file.path, |stored| reading.observe(stored))?;
                }
                SinkConfig::Stdout(_) => {}
            }
            held.push(reading.finish(name));
        }
        Ok(held)
    }
}

fn write_secret(path: &Path) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?
        .write_all(b"bench\n")
}

fn room(args: &BenchArgs) -> String {
    let rings = u64::from(args.apps) * u64::from(args.regions) * 2;
    format!("{}MiB", LEAST_ROOM_MIB.max(ROOM_MIB * rings))
}

fn apps(args: &BenchArgs, secret: &Path, simulator: &Simulator) -> Value {
    let region = |name: &String| json!({ "name": name, "base_url": simulator.base_url(name) });
    let regions: Vec<Value> = regions(args.regions).iter().map(region).collect();
    let app = |number| {
        json!({
            "name": format!("bench-{}", number + 1),
            "app_id": app_id(number),
            "regions": regions,
            "auth": { "basic": { "key": "bench", "secret_file": secret.to_string_lossy() } },
        })
    };
    (0..args.apps).map(app).collect()
}

fn sinks(args: &BenchArgs, dir: &Path, tag: &str) -> Result<Value, PlaceError> {
    if let Some(file) = &args.config {
        let theirs = Config::load(file).map_err(|error| PlaceError::Usage(error.to_string()))?;
        let text = std::fs::read_to_string(file)?;
        return rewritten(&text, &theirs.sinks, dir, tag)
            .map_err(|error| PlaceError::Usage(format!("{}: {error}", file.display())));
    }
    let mut sinks = Value::Null;
    if let Some(broker) = &args.kafka {
        sinks["kafka"] = kafka_places("kafka", tag);
        sinks["kafka"]["brokers"] = json!([broker]);
    }
    if let Some(url) = &args.nats {
        sinks["nats"] = nats_places("nats", tag);
        sinks["nats"]["servers"] = json!([url]);
    }
    if sinks.is_null() {
        sinks["file"] = file_places("file", dir);
    }
    Ok(sinks)
}

/// The sinks of a user's configuration `text`, which was read as `theirs`, with places of the bench's own.
fn rewritten(
    text: &str,
    theirs: &BTreeMap<String, SinkConfig>,
    dir: &Path,
    tag: &str,
) -> Result<Value, String> {
    // The parser's message repeats the line that it does not understand, which may hold a secret.
    let written = toml_edit::de::from_str(text);
    let mut written: Value = written.map_err(|_| "has changed, and is no TOML".to_owned())?;
    for (name, sink) in theirs {
        // A sink that only the environment sets has no table yet, which indexing makes.
        let table = &mut written["sinks"][name];
        for (key, value) in own(name, sink, dir, tag)?.as_object().into_iter().flatten() {
            table[key] = value.clone();
        }
    }
    Ok(written["sinks"].take())
}

/// Every key that says where the records of a sink go.
fn own(name: &str, sink: &SinkConfig, dir: &Path, tag: &str) -> Result<Value, String> {
    match sink {
        SinkConfig::Kafka(_) => Ok(kafka_places(name, tag)),
        SinkConfig::Nats(_) => Ok(nats_places(name, tag)),
        SinkConfig::File(_) => Ok(file_places(name, dir)),
        SinkConfig::Stdout(_) => Err(format!(
            "sinks.{name}: what goes to standard output cannot be read back; leave it out"
        )),
    }
}

fn kafka_places(name: &str, tag: &str) -> Value {
    let prefix = format!("rtm-bench-{tag}-{name}");
    json!({
        "topic": format!("{prefix}.{{stream}}_events"),
        "dead_letter_topic": format!("{prefix}.dead_letters"),
        "create": false,
    })
}

fn nats_places(name: &str, tag: &str) -> Value {
    let prefix = format!("rtm_bench_{tag}_{name}");
    json!({
        "stream": format!("RTM_BENCH_{tag}_{name}"),
        "subject": format!("{prefix}.{{app}}.{{region}}.{{stream}}_events"),
        "dead_letter_subject": format!("{prefix}.{{app}}.dead_letters"),
        "create": {},
    })
}

/// Whether all that a sink writes to is the bench's own.
fn is_ours(sink: &SinkConfig, dir: &Path, tag: &str) -> bool {
    let prefixes = [
        format!("rtm-bench-{tag}-"),
        format!("rtm_bench_{tag}_"),
        format!("RTM_BENCH_{tag}_"),
    ];
    let ours = |name: &str| prefixes.iter().any(|prefix| name.starts_with(prefix));
    match sink {
        SinkConfig::Kafka(kafka) => ours(&kafka.topic) && ours(&kafka.dead_letter_topic),
        SinkConfig::Nats(nats) => {
            ours(&nats.stream) && ours(&nats.subject) && ours(&nats.dead_letter_subject)
        }
        SinkConfig::File(file) => file.path.starts_with(dir),
        SinkConfig::Stdout(_) => false,
    }
}

fn file_places(name: &str, dir: &Path) -> Value {
    json!({ "path": dir.join(format!("{name}.ndjson")).to_string_lossy() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Holds: a topic, subject or stream of someone else's, which would be removed at the end, is seen.
    #[test]
    fn what_is_not_ours_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let ours = |places: &str| {
            let head = "[[apps]]\nname = \"a\"\napp_id = \"0a\"\nregions = [\"eu-west-1\"]\n\
                        auth = { basic = { key = \"k\", secret = \"s\" } }\n[sinks.s]\n";
            let config = Config::parse(&format!("{head}{places}"))
                .unwrap_or_else(|error| panic!("{error}: {places}"));
            config.sinks.values().all(|sink| is_ours(sink, dir, "t"))
        };
        let toml = |places: &Value| toml_edit::ser::to_string(places).unwrap();
        let kafka = format!(
            "type = \"kafka\"\nbrokers = [\"b:1\"]\n{}",
            toml(&kafka_places("s", "t"))
        );
        let nats = format!(
            "type = \"nats\"\nservers = [\"nats://b\"]\n{}",
            toml(&nats_places("s", "t"))
        );
        let file = format!("type = \"file\"\n{}", toml(&file_places("s", dir)));
        for sink in [&kafka, &nats, &file] {
            assert!(ours(sink), "{sink}");
        }
        assert!(!ours(
            &kafka.replace("topic = \"rtm-bench-t-s.", "topic = \"rtm.")
        ));
        assert!(!ours(&kafka.replace("rtm-bench-t-s.dead", "rtm.dead")));
        assert!(!ours(&nats.replace("RTM_BENCH_t_s", "RTM")));
        assert!(!ours(&nats.replace("rtm_bench_t_s.", "rtm.")));
        let elsewhere = file.replace(&dir.display().to_string(), "/var");
        assert!(!ours(&elsewhere), "{elsewhere}");
    }

    const TEXT: &str = r#"
[journal]
dir = "/var/lib/rtm-bridge"

[[apps]]
name = "main"
app_id = "0a1b"
auth = { basic = { key = "k", secret = "s" } }
regions = ["eu-west-1"]

[sinks.kafka] # the cluster
brokers = [
  "kafka:9092",
]
topic = "rtm.{stream}_events"
create = true
dead_letter_topic = "rtm.dead"

[sinks.kafka.options]
"security.protocol" = "SASL_SSL"
path = "kept"

[sinks."nats"]
servers = ["nats://nats:4222"]
stream = "RTM"
create.max_age = "1h"
subject = "rtm.{app}"
"#;

    /// Holds: credentials and options stay, however a sink is written, and nothing stays of where the user's records go.
    #[test]
    fn only_the_places_change() {
        let dir = tempfile::tempdir().unwrap();
        let inline = TEXT.replace(
            "[sinks.kafka]",
            "[sinks]\nfile.path = \"/f\"\n[sinks.kafka]",
        );
        for text in [TEXT, &inline] {
            let theirs = Config::parse(text).unwrap();
            let sinks = rewritten(text, &theirs.sinks, dir.path(), "t").unwrap();
            let sinks = toml_edit::ser::to_string(&json!({ "sinks": sinks })).unwrap();
            assert!(!sinks.contains("rtm.") && !sinks.contains("1h"), "{sinks}");
            let (head, _) = text.split_once("[sinks").unwrap();
            let ours = Config::parse(&format!("{sinks}{head}")).unwrap();
            assert_eq!(ours.sinks.len(), theirs.sinks.len());
            for sink in ours.sinks.values() {
                assert!(is_ours(sink, dir.path(), "t"), "{sinks}");
            }
            let Some(SinkConfig::Kafka(kafka)) = ours.sinks.get("kafka") else {
                panic!("{sinks}");
            };
            assert!(!kafka.create && kafka.brokers == ["kafka:9092"]);
            assert_eq!(kafka.options.len(), 2);
            let Some(SinkConfig::Nats(nats)) = ours.sinks.get("nats") else {
                panic!("{sinks}");
            };
            assert_eq!(nats.servers, ["nats://nats:4222"]);
        }
    }
}

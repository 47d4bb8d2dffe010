//! Where a trial's records go, and the configuration that says so: topics and a stream of its own, on brokers that other
//! trials use before and after it.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rtm_bridge::read_back::{Held, Reading};
use rtm_bridge::sinks::{self, Stored};
use rtm_sim::{Ledger, SimApp};

use super::brokers::{Broker, Brokers};
use crate::brokers::{Kafka, Nats, unique};

/// The regions that trials have, the first of them or more.
pub(super) const REGIONS: [&str; 4] =
    ["eu-west-1", "us-east-1", "ap-southeast-1", "ap-northeast-1"];

/// The name of a trial's app, or of the first of several.
pub(super) const APP: &str = "main";

/// The App ID of a trial's app by its number: of the first it is the simulator's usual one.
pub(super) fn app_id(number: usize) -> String {
    match number {
        0 => SimApp::default().app_id,
        _ => format!("{number:032x}"),
    }
}

/// The name of a trial's app by its number.
pub(super) fn app_name(number: usize) -> String {
    match number {
        0 => APP.to_owned(),
        _ => format!("app-{number}"),
    }
}

/// What a trial is made of.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    /// Of the simulator and of the relay.
    pub seed: u64,
    /// How many regions, from 1 to 4.
    pub regions: usize,
    /// How many App IDs.
    pub apps: usize,
    /// How many more the simulator has, for trials that add them later.
    pub apps_later: usize,
    /// Which of the brokers that run are published to.
    pub sinks: Sinks,
    /// `atomic_batches` of the NATS sink: `auto` or `off`; none leaves the sink's default.
    pub atomic_batches: Option<&'static str>,
    /// Whether the NATS sink stores each record once and only once.
    pub exactly_once: bool,
    /// How many events wait in the journal at the start.
    pub backlog: u64,
    /// How many events a page of it has; 0 for as many as a page can have.
    pub backlog_page: u32,
    /// Whether there is a relay between the bridge and the simulator.
    pub wire: bool,
    /// A disk of its own for the journal.
    pub disk: Option<DiskSetup>,
    /// What ends a request without an answer.
    pub request_deadline: Duration,
}

/// Where a trial publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sinks {
    /// Every broker that runs.
    All,
    /// Kafka alone.
    Kafka,
    /// NATS alone.
    Nats,
}

impl From<Broker> for Sinks {
    fn from(broker: Broker) -> Sinks {
        match broker {
            Broker::Kafka => Sinks::Kafka,
            Broker::Nats => Sinks::Nats,
        }
    }
}

impl Sinks {
    fn kafka(self) -> bool {
        self != Sinks::Nats
    }

    fn nats(self) -> bool {
        self != Sinks::Kafka
    }
}

/// A disk for the journal alone.
#[derive(Debug, Clone, Copy)]
pub struct DiskSetup {
    /// Its size.
    pub mib: u64,
    /// How much of it the bridge is to leave free. With 0, writes meet the end of the disk.
    pub min_free_mib: u64,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            seed: 1,
            regions: 1,
            apps: 1,
            apps_later: 0,
            sinks: Sinks::All,
            atomic_batches: None,
            exactly_once: false,
            backlog: 0,
            backlog_page: 0,
            wire: false,
            disk: None,
            request_deadline: Duration::from_secs(30),
        }
    }
}

/// The names and files of a trial.
#[derive(Debug)]
pub(super) struct Places {
    /// The bridge's configuration file.
    pub(super) config: PathBuf,
    /// The file with the secret.
    pub(super) secret: PathBuf,
    pub(super) regions: usize,
    pub(super) apps: usize,
    pub(super) sinks: Sinks,
    /// What the names of topics and subjects begin with, and the name of the stream.
    prefix: String,
    partitions: i32,
    exactly_once: bool,
}

impl Places {
    /// Makes topics and the configuration.
    pub(super) async fn make(
        dir: &Path,
        url: &str,
        brokers: &Brokers,
        setup: &Setup,
    ) -> Result<Places> {
        let places = Places {
            config: dir.join("rtm-bridge.toml"),
            secret: dir.join("secret"),
            regions: setup.regions,
            apps: setup.apps,
            sinks: setup.sinks,
            prefix: unique("trial"),
            partitions: brokers.partitions,
            exactly_once: setup.exactly_once,
        };
        for (topic, _) in places.topics() {
            let settings = [("message.timestamp.type", "LogAppendTime")];
            let partitions = brokers.partitions;
            let created = brokers.kafka.create_topic(&topic, partitions, &settings);
            created.await?;
        }
        places.write_secret(true)?;
        std::fs::write(
            &places.config,
            places.configuration(dir, url, brokers, setup),
        )?;
        Ok(places)
    }

    /// Writes the secret, right or wrong.
    pub(super) fn write_secret(&self, right: bool) -> Result<()> {
        let secret = if right { "demo-secret\n" } else { "wrong\n" };
        replace(&self.secret, secret).context("replace the secret")
    }

    /// Topics and whether they hold dead letters.
    fn topics(&self) -> [(String, bool); 3] {
        let topic = |name: &str| format!("{}.{name}", self.prefix);
        [
            (topic("user_events"), false),
            (topic("channel_events"), false),
            (topic("dead_letters"), true),
        ]
    }

    /// The topics of events.
    pub(super) fn event_topics(&self) -> Vec<String> {
        let topics = self.topics().into_iter();
        topics
            .filter(|(_, dead)| !dead)
            .map(|(topic, _)| topic)
            .collect()
    }

    /// The names of the sinks that are published to.
    pub(super) fn sink_names(&self, brokers: &Brokers) -> Vec<&'static str> {
        let mut names = Vec::new();
        if self.sinks.kafka() {
            names.push("kafka");
        }
        if self.sinks.nats() && brokers.nats.is_some() {
            names.push("nats");
        }
        names
    }

    /// The configuration that the trial begins with.
    fn configuration(&self, dir: &Path, url: &str, brokers: &Brokers, setup: &Setup) -> String {
        let apps = setup.apps + setup.apps_later;
        let journal = match setup.disk {
            Some(disk) => format!(
                "max_bytes = \"{}MiB\"\nmin_free_bytes = \"{}MiB\"\n",
                // Less than the disk, so that it is the disk that fills.
                disk.mib * 3 / 4,
                disk.min_free_mib
            ),
            // Only a bound: a journal has to have room for the requests that may be in flight.
            None if apps > 8 => format!("max_bytes = \"{}MiB\"\n", apps * 128),
            None => String::new(),
        };
        let mut text = format!(
            "shutdown_deadline = \"10s\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\n\
             [journal]\ndir = \"{}/journal\"\n{journal}\n",
            dir.display()
        );
        for number in 0..setup.apps {
            let section = self.app_section(number, &app_name(number), url, setup);
            let _ = writeln!(text, "{section}");
        }
        text + &self.sink_sections(brokers, setup)
    }

    /// The part of the configuration that is of one App ID. More of its keys may follow.
    pub(super) fn app_section(
        &self,
        number: usize,
        name: &str,
        url: &str,
        setup: &Setup,
    ) -> String {
        let regions: Vec<String> = REGIONS[..setup.regions]
            .iter()
            .map(|region| format!("{{ name = \"{region}\", base_url = \"{url}/{region}\" }}"))
            .collect();
        format!(
            "[[apps]]\nname = \"{name}\"\napp_id = \"{}\"\n\
             auth = {{ basic = {{ key = \"demo-key\", secret_file = \"{}\" }} }}\n\
             request_deadline = \"{}ms\"\nregions = [{}]\n",
            app_id(number),
            self.secret.display(),
            setup.request_deadline.as_millis(),
            regions.join(", "),
        )
    }

    fn sink_sections(&self, brokers: &Brokers, setup: &Setup) -> String {
        let prefix = &self.prefix;
        let mut text = String::new();
        if self.sinks.kafka() {
            let _ = writeln!(
                text,
                "[sinks.kafka]\nbrokers = [\"{}\"]\ntopic = \"{prefix}.{{stream}}_events\"\n\
                 dead_letter_topic = \"{prefix}.dead_letters\"\n{}",
                brokers.kafka.address(),
                match setup.exactly_once {
                    true => format!(
                        "create = true\ndelivery = \"exactly_once\"\nprogress_topic = \"{prefix}.progress\"\n"
                    ),
                    false => String::new(),
                }
            );
        }
        if brokers.nats.is_some() && self.sinks.nats() {
            let servers = brokers.nats_urls();
            let atomic = setup
                .atomic_batches
                .map_or_else(String::new, |how| format!("atomic_batches = \"{how}\"\n"));
            let delivery = match setup.exactly_once {
                true => format!(
                    "delivery = \"exactly_once\"\nprogress_subject = \"{prefix}.progress.{{journal}}.{{sink}}.{{app_id}}\"\n"
                ),
                false => String::new(),
            };
            let _ = writeln!(
                text,
                "[sinks.nats]\nservers = {servers:?}\nstream = \"{prefix}\"\ncreate = {{ replicas = {} }}\n{atomic}{delivery}\
                 subject = \"{prefix}.{{app}}.{{region}}.{{stream}}_events\"\n\
                 dead_letter_subject = \"{prefix}.{{app}}.dead_letters\"\n",
                servers.len()
            );
        }
        text
    }

    /// Shows every record that Kafka holds, with the partitions of two topics told apart.
    pub(super) fn read_kafka(
        &self,
        kafka: &Kafka,
        mut each: impl FnMut(&Stored<'_>),
    ) -> Result<()> {
        for (index, (topic, dead)) in self.topics().iter().enumerate() {
            let offset = i32::try_from(index)? * 1_000;
            sinks::kafka::read_back(&kafka.client(), topic, *dead, |stored| {
                each(&Stored {
                    partition: stored.partition + offset,
                    ..*stored
                });
            })?;
        }
        Ok(())
    }

    /// As [`Places::read_kafka`], what is committed, with a reader of which nothing is ours.
    fn read_kafka_committed(&self, kafka: &Kafka, mut each: impl FnMut(&Stored<'_>)) -> Result<()> {
        for (index, (topic, dead)) in (0..).zip(self.topics()) {
            for partition in 0..self.partitions {
                kafka.console_consumer(&topic, partition, |printed| {
                    each(&Stored {
                        partition: partition + index * 1_000,
                        order: printed.offset,
                        key: Some(printed.key.as_bytes()),
                        payload: printed.payload.as_bytes(),
                        timestamp: Some(printed.timestamp),
                        dead_letter: dead,
                        is_line: false,
                    });
                })?;
            }
        }
        Ok(())
    }

    /// Compares what Kafka holds with the ledger.
    pub(super) fn audit_kafka(&self, kafka: &Kafka, ledger: &Ledger) -> Result<Held> {
        let mut reading = Reading::new(ledger);
        match self.exactly_once {
            true => self.read_kafka_committed(kafka, |stored| reading.observe(stored))?,
            false => self.read_kafka(kafka, |stored| reading.observe(stored))?,
        }
        Ok(reading.finish("kafka"))
    }

    /// Compares what NATS holds with the ledger.
    pub(super) async fn audit_nats(&self, nats: &Nats, ledger: &Ledger) -> Result<Held> {
        let mut reading = Reading::new(ledger);
        let client = async_nats::connect(nats.url()).await?;
        let is_dead = |subject: &str| subject.ends_with(".dead_letters");
        sinks::nats::read_back(
            &async_nats::jetstream::new(client),
            &self.prefix,
            is_dead,
            |stored| {
                reading.observe(stored);
            },
        )
        .await?;
        Ok(reading.finish("nats"))
    }

    /// Writes down what the sinks hold, one record a line: partition or subject, offset, key, payload.
    pub(super) async fn save(&self, brokers: &Brokers, dir: &Path) -> Result<()> {
        for (topic, _) in self.topics() {
            let mut text = String::new();
            for record in brokers.kafka.read_all(&topic).await? {
                text += &format!(
                    "{}\t{}\t{:?}\t{}\n",
                    record.partition,
                    record.offset,
                    record.key,
                    String::from_utf8_lossy(&record.payload)
                );
            }
            let name = topic.trim_start_matches(&self.prefix);
            std::fs::write(dir.join(format!("kafka{name}.txt")), text)?;
        }
        if let Some(nats) = brokers.nats.as_ref().filter(|_| self.sinks.nats()) {
            let mut text = String::new();
            for record in nats.read_all(&self.prefix).await? {
                text += &format!(
                    "{}\t{}\t{}\n",
                    record.subject,
                    record.sequence,
                    String::from_utf8_lossy(&record.payload)
                );
            }
            std::fs::write(dir.join("nats.txt"), text)?;
        }
        Ok(())
    }

    /// Removes topics and stream: a broker with those of fifty trials takes long to start again.
    pub(super) async fn remove(&self, brokers: &Brokers) -> Result<()> {
        let topics = self.topics().map(|(topic, _)| topic);
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        let admin: AdminClient<DefaultClientContext> = brokers.kafka.client().create()?;
        admin.delete_topics(&names, &AdminOptions::new()).await?;
        if let Some(nats) = brokers.nats.as_ref().filter(|_| self.sinks.nats()) {
            nats.jetstream().await?.delete_stream(&self.prefix).await?;
        }
        Ok(())
    }
}

/// Writes a file as a tool that rotates secrets does it: never half of it.
pub(super) fn replace(file: &Path, text: &str) -> Result<()> {
    let new = file.with_extension("new");
    std::fs::write(&new, text)?;
    Ok(std::fs::rename(&new, file)?)
}

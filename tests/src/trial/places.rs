//! Where a trial's records go, and the configuration that says so: topics and a stream of its own, on brokers that other
//! trials use before and after it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rtm_bridge::read_back::{self, Stored};
use rtm_sim::{Audit, Findings, Ledger, SimApp};

use super::brokers::Brokers;
use crate::brokers::{Kafka, Nats, unique};

/// The regions that trials have, the first of them or more.
pub(super) const REGIONS: [&str; 3] = ["eu-west-1", "us-east-1", "ap-southeast-1"];

/// The name of a trial's app.
pub(super) const APP: &str = "main";

/// What a trial is made of.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    /// Of the simulator and of the relay.
    pub seed: u64,
    /// How many regions, from 1 to 3.
    pub regions: usize,
    /// Whether there is a relay between the bridge and the simulator.
    pub wire: bool,
    /// A disk of its own for the journal.
    pub disk: Option<DiskSetup>,
    /// What ends a request without an answer.
    pub request_deadline: Duration,
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
    /// What the names of topics and subjects begin with, and the name of the stream.
    prefix: String,
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
            prefix: unique("trial"),
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
        // As a tool that rotates secrets does it: never half a file.
        let new = self.secret.with_extension("new");
        std::fs::write(&new, secret)?;
        std::fs::rename(&new, &self.secret).context("replace the secret")
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

    fn configuration(&self, dir: &Path, url: &str, brokers: &Brokers, setup: &Setup) -> String {
        let prefix = &self.prefix;
        let dir = dir.display();
        let regions: Vec<String> = REGIONS[..setup.regions]
            .iter()
            .map(|region| format!("{{ name = \"{region}\", base_url = \"{url}/{region}\" }}"))
            .collect();
        let journal = setup.disk.map_or_else(String::new, |disk| {
            format!(
                "max_bytes = \"{}MiB\"\nmin_free_bytes = \"{}MiB\"\n",
                // Less than the disk, so that it is the disk that fills.
                disk.mib * 3 / 4,
                disk.min_free_mib
            )
        });
        let nats = brokers.nats.as_ref().map_or_else(String::new, |nats| {
            format!(
                "[sinks.nats]\nservers = [\"{}\"]\nstream = \"{prefix}\"\ncreate = {{}}\n\
                 subject = \"{prefix}.{{app}}.{{region}}.{{stream}}_events\"\n\
                 dead_letter_subject = \"{prefix}.{{app}}.dead_letters\"\n",
                nats.url()
            )
        });
        format!(
            "shutdown_deadline = \"10s\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\n\
             [journal]\ndir = \"{dir}/journal\"\n{journal}\n\
             [[apps]]\nname = \"{APP}\"\napp_id = \"{app_id}\"\n\
             auth = {{ basic = {{ key = \"demo-key\", secret_file = \"{dir}/secret\" }} }}\n\
             request_deadline = \"{deadline}ms\"\nregions = [{regions}]\n\n\
             [sinks.kafka]\nbrokers = [\"{kafka}\"]\ntopic = \"{prefix}.{{stream}}_events\"\n\
             dead_letter_topic = \"{prefix}.dead_letters\"\n\n{nats}",
            app_id = SimApp::default().app_id,
            deadline = setup.request_deadline.as_millis(),
            regions = regions.join(", "),
            kafka = brokers.kafka.address(),
        )
    }

    /// Compares what Kafka holds with the ledger. Gives the ages too: append time minus the event's `ms`, sorted, in
    /// milliseconds.
    pub(super) fn audit_kafka(
        &self,
        kafka: &Kafka,
        ledger: &Ledger,
    ) -> Result<(Findings, Vec<i64>)> {
        let app_id = SimApp::default().app_id;
        let mut audit = Audit::new(ledger);
        let mut ages = Vec::new();
        for (index, (topic, dead)) in self.topics().iter().enumerate() {
            // Partitions of two topics must not be taken for one another.
            let offset = i32::try_from(index)? * 1_000;
            read_back::kafka(&kafka.client(), topic, *dead, |stored| {
                let partition = stored.partition + offset;
                let stored = Stored {
                    partition,
                    ..*stored
                };
                read_back::observe(&mut audit, &app_id, &stored);
                if let (Some(appended), Some(ms)) = (stored.timestamp, event_ms(stored.payload)) {
                    // An odd `ms` may be any number.
                    ages.push(appended.saturating_sub(ms));
                }
            })?;
        }
        ages.sort_unstable();
        Ok((audit.finish(), ages))
    }

    /// Compares what NATS holds with the ledger.
    pub(super) async fn audit_nats(&self, nats: &Nats, ledger: &Ledger) -> Result<Findings> {
        let app_id = SimApp::default().app_id;
        let mut audit = Audit::new(ledger);
        let client = async_nats::connect(nats.url()).await?;
        let is_dead = |subject: &str| subject.ends_with(".dead_letters");
        read_back::nats(&client, &self.prefix, is_dead, |stored| {
            read_back::observe(&mut audit, &app_id, stored);
        })
        .await?;
        Ok(audit.finish())
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
        if let Some(nats) = &brokers.nats {
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
        if let Some(nats) = &brokers.nats {
            nats.jetstream().await?.delete_stream(&self.prefix).await?;
        }
        Ok(())
    }
}

/// An event's `ms`, if its envelope tells.
fn event_ms(payload: &[u8]) -> Option<i64> {
    #[derive(serde::Deserialize)]
    struct Outer {
        event: Inner,
    }
    #[derive(serde::Deserialize)]
    struct Inner {
        ms: i64,
    }
    Some(serde_json::from_slice::<Outer>(payload).ok()?.event.ms)
}

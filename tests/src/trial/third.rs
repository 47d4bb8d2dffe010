//! A third sink, beside those of every trial: the one to which something happens.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_nats::jetstream::stream::{Config, DiscardPolicy};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rtm_bridge::read_back::{Held, Reading, as_lines};
use rtm_bridge::sinks::{self, Stored};
use rtm_sim::Ledger;
use tokio::task::spawn_blocking;

use super::alone::Kind;
use super::brokers::Brokers;
use super::pipe::Pipe;
use super::places::{APP, app_name};
use super::rig::More;
use crate::brokers::{Kafka, unique};
use crate::wait_for;

/// Its name, and the name of the App ID that the fault is of, where it is of one.
pub(super) const THIRD: &str = "third";

/// The most bytes of a record that a small topic takes. Batches of usual events are below it.
const SMALL: &str = "15000";

/// How many records of a subject the server keeps: more than a trial publishes to the App IDs that are well.
const FULL: u64 = 60_000;

/// How long a broker may take to do what it is asked.
const PATIENCE: Duration = Duration::from_secs(20);

/// The sink, and what it needs.
pub(super) struct Third {
    kind: Kind,
    /// What its topics and subjects begin with, and the name of its stream.
    prefix: String,
    dir: PathBuf,
    /// Two brokers of one cluster: the partitions that only the second has lose their leader.
    pair: Option<[Kafka; 2]>,
    pipe: Option<Pipe>,
}

impl Third {
    /// Makes what the sink of `kind` needs, with files in `dir`. Undisturbed it needs what it finds.
    pub(super) async fn prepare(
        kind: Kind,
        dir: &Path,
        brokers: &Brokers,
        disturbed: bool,
    ) -> Result<Third> {
        let mut third = Third {
            kind,
            prefix: unique("third"),
            dir: dir.to_path_buf(),
            pair: None,
            pipe: None,
        };
        match kind {
            Kind::StalledStderr => {
                third.pipe = Some(Pipe::start(&dir.join("pipe"), &third.log())?);
            }
            Kind::StalledStdout => {
                third.pipe = Some(Pipe::start(&dir.join("pipe"), &third.lines())?);
            }
            Kind::RefusingTopic | Kind::TooLarge => third.topics(brokers).await?,
            Kind::WithoutLeader => {
                third.pair = Some(Kafka::start_pair().await?);
                third.topics(brokers).await?;
            }
            Kind::FullSubject => third.stream(brokers, disturbed).await?,
            Kind::MissingCredentials => {
                if !disturbed {
                    third.credentials()?;
                }
            }
        }
        Ok(third)
    }

    /// The configuration of the sink, and how the bridge is run.
    pub(super) fn more(&self, brokers: &Brokers, disturbed: bool) -> Result<More> {
        let mut more = More::default();
        let prefix = &self.prefix;
        more.sections = match self.kind {
            // So that a pipe is soon full.
            Kind::StalledStderr => "\n[log]\nlevel = \"trace\"\n".to_owned(),
            Kind::StalledStdout => format!("\n[sinks.{THIRD}]\ntype = \"stdout\"\n"),
            Kind::RefusingTopic | Kind::TooLarge | Kind::WithoutLeader => {
                let address = match &self.pair {
                    Some(pair) => pair[0].address(),
                    None => brokers.kafka.address(),
                };
                // A compacted topic refuses records without a key.
                let key = match self.kind {
                    Kind::RefusingTopic => "key = \"none\"\n",
                    _ => "",
                };
                format!(
                    "\n[sinks.{THIRD}]\ntype = \"kafka\"\nbrokers = [\"{address}\"]\n{key}\
                     topic = \"{prefix}.{{app}}.{{stream}}_events\"\n\
                     dead_letter_topic = \"{prefix}.{{app}}.dead_letters\"\n"
                )
            }
            Kind::FullSubject | Kind::MissingCredentials => {
                let nats = brokers.nats.as_ref().context("no NATS")?;
                let auth = match self.kind {
                    Kind::MissingCredentials => format!(
                        "auth = {{ password = {{ user = \"rtm\", password_file = \"{}\" }} }}\n",
                        self.password().display()
                    ),
                    _ => String::new(),
                };
                format!(
                    "\n[sinks.{THIRD}]\ntype = \"nats\"\nservers = [\"{}\"]\nstream = \"{prefix}\"\ncreate = {{}}\n\
                     subject = \"{prefix}.{{app}}.{{stream}}_events\"\n{auth}\
                     dead_letter_subject = \"{prefix}.{{app}}.dead_letters\"\n",
                    nats.url()
                )
            }
        };
        if let Some(pipe) = &self.pipe {
            let which = match self.kind {
                Kind::StalledStderr => "2>",
                _ => ">",
            };
            let script = format!("exec \"$@\" {which}\"{}\"", pipe.path().display());
            more.under = ["/bin/sh", "-c", &script, "sh"].map(str::to_owned).to_vec();
        }
        if self.kind == Kind::StalledStderr {
            more.log = Some(self.log());
        }
        more.starts_unready = disturbed && self.kind == Kind::MissingCredentials;
        Ok(more)
    }

    /// Does it.
    pub(super) async fn strike(&mut self, brokers: &Brokers) -> Result<()> {
        match self.kind {
            Kind::StalledStderr | Kind::StalledStdout => self.stall(true)?,
            Kind::RefusingTopic => self.clean_up(brokers, "compact").await?,
            Kind::WithoutLeader => {
                let lost = self.topic(&app_name(1), "user_events");
                let pair = self.pair.as_mut().context("no second broker")?;
                pair[1].kill().await?;
                led(&pair[0], &lost, false).await?;
            }
            // Events that are too large come with the load; the others are so from the start.
            Kind::TooLarge | Kind::FullSubject | Kind::MissingCredentials => {}
        }
        Ok(())
    }

    /// Undoes it.
    pub(super) async fn heal(&mut self, brokers: &Brokers) -> Result<()> {
        match self.kind {
            Kind::StalledStderr | Kind::StalledStdout => self.stall(false)?,
            Kind::RefusingTopic => self.clean_up(brokers, "delete").await?,
            Kind::WithoutLeader => {
                let lost = self.topic(&app_name(1), "user_events");
                let pair = self.pair.as_mut().context("no second broker")?;
                pair[1].restart().await?;
                led(&pair[0], &lost, true).await?;
            }
            Kind::TooLarge => {}
            Kind::FullSubject => self.limit(brokers, None).await?,
            Kind::MissingCredentials => self.credentials()?,
        }
        Ok(())
    }

    /// Compares what the sink holds with the ledger; none where it is no sink. Beside it, how many dead letters there are
    /// of records that are too large, which the comparison leaves out: they may have lost their bytes.
    pub(super) async fn audit(
        &self,
        brokers: &Brokers,
        ledger: &Ledger,
    ) -> Result<Option<(Held, u64)>> {
        let mut letters = std::collections::BTreeSet::new();
        let too_large = self.kind == Kind::TooLarge;
        let lines;
        let ledger = match self.kind {
            Kind::StalledStderr => return Ok(None),
            Kind::StalledStdout => {
                lines = as_lines(ledger);
                &lines
            }
            _ => ledger,
        };
        let mut reading = Reading::new(ledger);
        let mut each = |stored: &Stored<'_>| {
            if stored.dead_letter && too_large {
                letters.insert(stored.payload.to_vec());
            } else if stored.payload != FILLING.as_bytes() {
                reading.observe(stored);
            }
        };
        match self.kind {
            Kind::StalledStdout => sinks::file::read_back(&self.lines(), each)?,
            Kind::FullSubject | Kind::MissingCredentials => {
                let nats = brokers.nats.as_ref().context("no NATS")?;
                let jetstream = nats.jetstream().await?;
                let is_dead = |subject: &str| subject.ends_with(".dead_letters");
                sinks::nats::read_back(&jetstream, &self.prefix, is_dead, each).await?;
            }
            _ => {
                let kafka = self.pair.as_ref().map_or(&brokers.kafka, |pair| &pair[0]);
                for (index, (topic, dead)) in self.names().iter().enumerate() {
                    let offset = i32::try_from(index)? * 1_000;
                    sinks::kafka::read_back(&kafka.client(), topic, *dead, |stored| {
                        each(&Stored {
                            partition: stored.partition + offset,
                            ..*stored
                        });
                    })?;
                }
            }
        }
        let letters = u64::try_from(letters.len())?;
        Ok(Some((reading.finish(THIRD), letters)))
    }

    /// What came through the pipe; it must be more than a pipe holds for a stalled one to be felt.
    pub(super) fn written(&self) -> Option<u64> {
        self.pipe.as_ref().map(Pipe::copied)
    }

    fn stall(&self, stalled: bool) -> Result<()> {
        self.pipe.as_ref().context("no pipe")?.stall(stalled);
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.dir.join("stderr")
    }

    fn lines(&self) -> PathBuf {
        self.dir.join("stdout")
    }

    fn password(&self) -> PathBuf {
        self.dir.join("credentials").join("password")
    }

    fn credentials(&self) -> Result<()> {
        let file = self.password();
        std::fs::create_dir_all(file.parent().context("no directory")?)?;
        Ok(std::fs::write(file, "a password that nobody asks for\n")?)
    }

    fn topic(&self, app: &str, name: &str) -> String {
        format!("{}.{app}.{name}", self.prefix)
    }

    /// The topics of both App IDs, and whether they hold dead letters.
    fn names(&self) -> Vec<(String, bool)> {
        let of = |app: &str| {
            ["user_events", "channel_events", "dead_letters"]
                .map(|name| (self.topic(app, name), name == "dead_letters"))
        };
        [of(APP), of(&app_name(1))].concat()
    }

    async fn topics(&self, brokers: &Brokers) -> Result<()> {
        for (topic, dead) in self.names() {
            let of_second = topic.starts_with(&self.topic(&app_name(1), ""));
            let mut settings = vec![("message.timestamp.type", "LogAppendTime")];
            if self.kind == Kind::TooLarge && of_second {
                settings.push(("max.message.bytes", SMALL));
            }
            match &self.pair {
                Some(pair) => {
                    let brokers = [if of_second && !dead { 2 } else { 1 }];
                    let created = pair[0].create_topic_at(&topic, &brokers, &settings);
                    created.await?;
                }
                None => brokers.kafka.create_topic(&topic, 1, &settings).await?,
            }
        }
        Ok(())
    }

    /// Has the second App ID's topics cleaned up so.
    async fn clean_up(&self, brokers: &Brokers, policy: &str) -> Result<()> {
        let settings = [
            ("cleanup.policy", policy),
            ("message.timestamp.type", "LogAppendTime"),
        ];
        for name in ["user_events", "channel_events"] {
            let topic = self.topic(&app_name(1), name);
            brokers.kafka.set_topic(&topic, &settings).await?;
        }
        Ok(())
    }

    /// A stream that keeps so many records of each subject and refuses more. Disturbed, one subject is full.
    async fn stream(&self, brokers: &Brokers, disturbed: bool) -> Result<()> {
        self.limit(brokers, Some(FULL)).await?;
        if !disturbed {
            return Ok(());
        }
        let nats = brokers.nats.as_ref().context("no NATS")?;
        let client = async_nats::connect(nats.url()).await?;
        let subject = self.topic(&app_name(1), "user_events");
        for _ in 0..FULL {
            client.publish(subject.clone(), FILLING.into()).await?;
        }
        client.flush().await?;
        let jetstream = nats.jetstream().await?;
        wait_for("a full subject", PATIENCE, async || {
            let Ok(mut stream) = jetstream.get_stream(&self.prefix).await else {
                return false;
            };
            let info = stream.info().await;
            info.is_ok_and(|info| info.state.messages >= FULL)
        })
        .await
    }

    async fn limit(&self, brokers: &Brokers, records: Option<u64>) -> Result<()> {
        let nats = brokers.nats.as_ref().context("no NATS")?;
        let config = Config {
            name: self.prefix.clone(),
            subjects: vec![format!("{}.>", self.prefix)],
            max_messages_per_subject: records.map_or(Ok(-1), i64::try_from)?,
            discard: DiscardPolicy::New,
            discard_new_per_subject: records.is_some(),
            ..Config::default()
        };
        let jetstream = nats.jetstream().await?;
        let stream = jetstream.create_or_update_stream(config).await?;
        ensure!(stream.config.name == self.prefix, "another stream");
        Ok(())
    }
}

/// What fills a subject.
const FILLING: &str = "filling";

/// Waits until `topic` has a leader for its partition, or has none.
async fn led(kafka: &Kafka, topic: &str, is_led: bool) -> Result<()> {
    let what = if is_led { "a leader" } else { "no leader" };
    wait_for(&format!("{topic} to have {what}"), PATIENCE, async || {
        let (client, topic) = (kafka.client(), topic.to_owned());
        let leaders = spawn_blocking(move || -> Result<Vec<i32>> {
            let consumer: BaseConsumer = client.create()?;
            let metadata = consumer.fetch_metadata(Some(&topic), Duration::from_secs(5))?;
            let topics = metadata.topics().iter();
            let partitions = topics.flat_map(|topic| topic.partitions());
            Ok(partitions.map(|partition| partition.leader()).collect())
        });
        let leaders = leaders.await.unwrap_or_else(|error| Err(error.into()));
        leaders.is_ok_and(|leaders| leaders.iter().all(|leader| (*leader >= 0) == is_led))
    })
    .await
}

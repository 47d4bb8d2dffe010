//! The brokers, as far as the rows of the failure table see them.

use std::collections::{HashMap, HashSet};

use futures::TryStreamExt;
use rtm_tests::brokers::{self, Kafka, Nats, SecureKafka, unique};
use tokio::sync::MutexGuard;

use super::world::Delivery;

/// A broker that may be killed, and the names of what one world stores in it.
pub(super) struct Bus {
    pub(super) broker: Broker,
    pub(super) name: String,
    /// Whether the bridge makes what is missing.
    pub(super) creates: bool,
}

pub(super) enum Broker {
    Kafka(MutexGuard<'static, SecureKafka>),
    Nats(Box<Nats>),
}

impl Bus {
    pub(super) async fn kafka() -> Bus {
        Bus {
            broker: Broker::Kafka(brokers::mortal_kafka().await),
            name: unique("exactly"),
            creates: true,
        }
    }

    pub(super) async fn nats() -> Bus {
        Bus {
            broker: Broker::Nats(Box::new(Nats::start_own().await.unwrap())),
            name: unique("exactly"),
            creates: true,
        }
    }

    /// The sink's name, which is its type as well.
    pub(super) fn sink(&self) -> &'static str {
        match self.broker {
            Broker::Kafka(_) => "kafka",
            Broker::Nats(_) => "nats",
        }
    }

    /// The sink's table. Another `turn` needs another client.
    pub(super) fn table(&self, delivery: Delivery, turn: u32) -> String {
        let name = &self.name;
        let (own, progress) = match &self.broker {
            Broker::Kafka(kafka) => (
                format!(
                    "[sinks.kafka]\nbrokers = [\"{server}\"]\ntopic = \"{name}\"\n\
                     dead_letter_topic = \"{name}.dead_letters\"\ncreate = {creates}\n\
                     options = {{ \"metadata.max.age.ms\" = \"{age}\" }}\n",
                    server = kafka.kafka().address(),
                    age = 300_000 + turn,
                    creates = self.creates,
                ),
                format!("progress_topic = \"{}\"\n", self.progress()),
            ),
            Broker::Nats(nats) => (
                format!(
                    "[sinks.nats]\nservers = [\"{server}\"]\nstream = \"{name}\"\n\
                     subject = \"{name}.{{region}}.{{stream}}\"\ndead_letter_subject = \"{name}.dead_letters\"\n\
                     ack_timeout = \"{ack}s\"\ncreate = {{ subjects = [\"{name}.>\"] }}\n",
                    server = nats.url(),
                    ack = 2 + turn,
                ),
                format!(
                    "progress_subject = \"{}.{{journal}}.{{sink}}.{{app_id}}\"\n",
                    self.progress()
                ),
            ),
        };
        match delivery {
            Delivery::ExactlyOnce => format!("{own}delivery = \"exactly_once\"\n{progress}"),
            Delivery::AtLeastOnce => own,
        }
    }

    /// The topic that has the progress, or what its subjects begin with.
    pub(super) fn progress(&self) -> String {
        format!("{}.progress", self.name)
    }

    pub(super) async fn kill(&mut self) {
        match &mut self.broker {
            Broker::Kafka(kafka) => kafka.kafka_mut().kill().await.unwrap(),
            Broker::Nats(nats) => nats.kill().await.unwrap(),
        }
    }

    pub(super) async fn restart(&mut self) {
        match &mut self.broker {
            Broker::Kafka(kafka) => kafka.kafka_mut().restart().await.unwrap(),
            Broker::Nats(nats) => nats.restart().await.unwrap(),
        }
    }

    /// What the records say that are stored, and no progress.
    pub(super) async fn read_all(&self) -> Vec<String> {
        let payloads: Vec<_> = match &self.broker {
            Broker::Kafka(kafka) => {
                let records = kafka.kafka().read_all(&self.name).await.unwrap();
                records.into_iter().map(|record| record.payload).collect()
            }
            Broker::Nats(nats) => {
                let records = nats.read_all(&self.name).await.unwrap().into_iter();
                let records = records.filter(|one| !one.subject.starts_with(&self.progress()));
                records.map(|record| record.payload).collect()
            }
        };
        let payloads = payloads.into_iter();
        payloads
            .map(|payload| String::from_utf8(payload.to_vec()).unwrap())
            .collect()
    }

    /// How many lanes have a progress.
    pub(super) async fn lanes(&self) -> usize {
        match &self.broker {
            Broker::Kafka(kafka) => {
                let stored = kafka.kafka().read_all(&self.progress()).await.unwrap();
                let keys: HashSet<_> = stored.into_iter().map(|record| record.key).collect();
                keys.len()
            }
            Broker::Nats(nats) => {
                let filter = format!("{}.>", self.progress());
                let jetstream = nats.jetstream().await.unwrap();
                let stream = jetstream.get_stream(&self.name).await.unwrap();
                let subjects = stream.info_with_subjects(&filter).await.unwrap();
                let subjects: HashMap<_, _> = subjects.try_collect().await.unwrap();
                subjects.len()
            }
        }
    }

    /// Removes all progress, and nothing else.
    pub(super) async fn forget(&self) {
        match &self.broker {
            Broker::Kafka(kafka) => {
                let kafka = kafka.kafka();
                kafka.delete_records(&self.progress()).await.unwrap();
            }
            Broker::Nats(nats) => {
                let filter = format!("{}.>", self.progress());
                let jetstream = nats.jetstream().await.unwrap();
                let stream = jetstream.get_stream(&self.name).await.unwrap();
                let purged = stream.purge().filter(filter).await.unwrap();
                assert_eq!(purged.purged, 1);
            }
        }
    }

    pub(super) fn as_kafka(&self) -> &Kafka {
        match &self.broker {
            Broker::Kafka(kafka) => kafka.kafka(),
            Broker::Nats(_) => panic!("a row for Kafka alone"),
        }
    }

    pub(super) fn as_nats(&self) -> &Nats {
        match &self.broker {
            Broker::Nats(nats) => nats,
            Broker::Kafka(_) => panic!("a row for NATS alone"),
        }
    }
}

//! Two brokers of one cluster, for partitions that only one of them has.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Result;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio::task::spawn_blocking;

use super::{Kafka, PATIENCE, Place};
use crate::brokers::{install, start_local};
use crate::wait_for;

/// The node id of [`KafkaPair::second`].
const SECOND: i32 = 2;

/// Two local brokers. The first one is the cluster's controller too.
pub struct KafkaPair {
    /// Always there.
    pub first: Kafka,
    /// To be killed: the partitions that only it has lose their leader.
    pub second: Kafka,
}

impl KafkaPair {
    /// Starts both. Their files go when they are dropped, or when the tests end.
    ///
    /// # Errors
    ///
    /// When one cannot be started, with what to install.
    pub async fn start() -> Result<KafkaPair> {
        let started = Instant::now();
        let pair = start_local("Kafka, two brokers", KafkaPair::local).await?;
        pair.first.announce(started)?;
        pair.second.announce(started)?;
        Ok(pair)
    }

    async fn local() -> Result<KafkaPair> {
        let formatted = spawn_blocking(install::kafka).await??.join("formatted");
        let place = Place::new(formatted.clone())?;
        let controller_port = place.controller_port;
        let first = Kafka::local(&[], place).await?;
        let mut place = Place::new(formatted)?;
        place.controller_port = controller_port;
        place.format_as_second()?;
        let listen = format!("PLAINTEXT://127.0.0.1:{}", place.port);
        let node = SECOND.to_string();
        let settings = [
            ("process.roles", "broker"),
            ("node.id", &*node),
            ("listeners", &*listen),
        ];
        let second = Kafka::local(&settings, place).await?;
        let pair = KafkaPair { first, second };
        wait_for("both brokers", PATIENCE, async || {
            pair.leaders(None)
                .await
                .is_ok_and(|(brokers, _)| brokers == 2)
        })
        .await?;
        Ok(pair)
    }

    /// Creates a topic of one partition that only the second broker has, or only the first.
    ///
    /// # Errors
    ///
    /// When it is there already, or a setting is refused.
    pub async fn create_topic(
        &self,
        name: &str,
        on_second: bool,
        settings: &[(&str, &str)],
    ) -> Result<()> {
        let replicas = [if on_second { SECOND } else { 1 }];
        let partitions: [&[i32]; 1] = [&replicas];
        let admin: AdminClient<DefaultClientContext> = self.first.client().create()?;
        let topic = NewTopic {
            name,
            num_partitions: 1,
            replication: TopicReplication::Variable(&partitions),
            config: settings.to_vec(),
        };
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        for result in admin.create_topics([&topic], &options).await? {
            result.map_err(|(name, code)| anyhow::anyhow!("create topic {name}: {code}"))?;
        }
        Ok(())
    }

    /// Waits until `topic` has a leader for its partition, or has none.
    ///
    /// # Errors
    ///
    /// When it does not come to that.
    pub async fn led(&self, topic: &str, led: bool) -> Result<()> {
        let what = if led { "a leader" } else { "no leader" };
        wait_for(&format!("{topic} to have {what}"), PATIENCE, async || {
            let leaders = self.leaders(Some(topic)).await;
            leaders.is_ok_and(|(_, leaders)| leaders.iter().all(|leader| (*leader >= 0) == led))
        })
        .await
    }

    /// How many brokers there are, and the leader of each partition; -1 is none.
    async fn leaders(&self, topic: Option<&str>) -> Result<(usize, Vec<i32>)> {
        let (client, topic) = (self.first.client(), topic.map(str::to_owned));
        spawn_blocking(move || {
            let consumer: BaseConsumer = client.create()?;
            let metadata = consumer.fetch_metadata(topic.as_deref(), Duration::from_secs(5))?;
            let topics = metadata.topics().iter();
            let partitions = topics.flat_map(|topic| topic.partitions());
            let leaders = partitions.map(|partition| partition.leader()).collect();
            Ok((metadata.brokers().len(), leaders))
        })
        .await?
    }
}

impl Place {
    /// Takes another node id, in the same cluster. The broker gives its directory an identity of its own.
    fn format_as_second(&mut self) -> Result<()> {
        let properties = fs::read_to_string(self.formatted.join("meta.properties"))?;
        let other = |line: &&str| {
            !["node.id=", "directory.id="]
                .iter()
                .any(|of| line.starts_with(of))
        };
        let mut lines: Vec<&str> = properties.lines().filter(other).collect();
        let node = format!("node.id={SECOND}\n");
        lines.push(&node);
        self.formatted = self.dir.path().join("formatted");
        fs::create_dir(&self.formatted)?;
        fs::write(self.formatted.join("meta.properties"), lines.join("\n"))?;
        Ok(())
    }
}

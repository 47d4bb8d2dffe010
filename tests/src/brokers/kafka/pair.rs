//! Two brokers of one cluster, of which one may end.

use std::fs;

use anyhow::{Context, Result};
use rdkafka::admin::{NewTopic, TopicReplication};
use tokio::task::spawn_blocking;

use super::{Kafka, Place, broker_settings};
use crate::brokers::{Host, Local, install, start_local};

impl Kafka {
    /// Starts two local brokers, 1 and 2. The first is the controller as well, and must not end.
    ///
    /// # Errors
    ///
    /// When they cannot be started, with what to install.
    pub async fn start_pair() -> Result<[Kafka; 2]> {
        start_local("Kafka", async || {
            let formatted = spawn_blocking(install::kafka).await??.join("formatted");
            let first = Kafka::local(&[], Place::new(formatted.clone())?).await?;
            let second = first.second(Place::new(formatted)?).await?;
            Ok([first, second])
        })
        .await
    }

    async fn second(&self, place: Place) -> Result<Kafka> {
        let Host::Local(first) = &self.host else {
            return Err(crate::brokers::not_ours());
        };
        let settings = fs::read_to_string(first.dir.path().join("server.properties"))?;
        let mut lines = settings.lines();
        let controller = lines.find_map(|line| line.strip_prefix("controller.quorum.voters="));
        let (_, port) = controller
            .and_then(|voters| voters.rsplit_once(':'))
            .context("no controller")?;
        let data = place.data();
        fs::create_dir(&data)?;
        fs::write(
            data.join("meta.properties"),
            format!("node.id=2\nversion=1\ncluster.id={}\n", super::CLUSTER_ID),
        )?;
        let listener = format!("PLAINTEXT://127.0.0.1:{}", place.port);
        let over = [
            ("process.roles", "broker"),
            ("node.id", "2"),
            ("listeners", listener.as_str()),
        ];
        let data = data.display().to_string();
        let all = broker_settings(place.port, port.parse()?, "127.0.0.1", &data, &over, &[]);
        let file = place.dir.path().join("server.properties");
        let lines = all.iter().map(|(name, value)| format!("{name}={value}\n"));
        fs::write(&file, lines.collect::<String>())?;
        let mut command = first.command.clone();
        if let Some(last) = command.last_mut() {
            *last = file.display().to_string();
        }
        Kafka::ready(place.port, Host::Local(Local::start(command, place.dir)?)).await
    }

    /// Creates a topic of one partition, whose replicas are at these brokers.
    ///
    /// # Errors
    ///
    /// As [`Kafka::create_topic`].
    pub async fn create_topic_at(
        &self,
        name: &str,
        brokers: &[i32],
        settings: &[(&str, &str)],
    ) -> Result<()> {
        let assignment = [brokers];
        let topic = NewTopic {
            name,
            num_partitions: 1,
            replication: TopicReplication::Variable(&assignment),
            config: settings.to_vec(),
        };
        self.create(topic).await
    }
}

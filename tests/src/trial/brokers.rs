//! The brokers of trials: started once, used by one trial after the other, and always brought back.

use anyhow::{Result, bail};
use futures::future::try_join_all;

use crate::brokers::{CommitProxy, Kafka, Nats};

/// A Kafka and, unless trials are of Kafka alone, a NATS server of one's own.
pub struct Brokers {
    /// The Kafka broker.
    pub kafka: Kafka,
    /// The NATS server, or the first one of a cluster.
    pub nats: Option<Nats>,
    /// The others of the cluster.
    pub nats_peers: Vec<Nats>,
    /// Partitions of Kafka's topics. Several, so that order is kept in each.
    pub partitions: i32,
    /// What disturbs commits, if anything does: it stands before one of the two.
    pub commits: Option<CommitProxy>,
    /// Where NATS is reached through it.
    nats_through: Option<String>,
    kafka_health: Health,
    nats_health: Health,
}

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Broker {
    /// Kafka.
    Kafka,
    /// NATS.
    Nats,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Health {
    #[default]
    Up,
    Paused,
    Killed,
}

impl Brokers {
    /// Starts them, with so many NATS servers: none, one, or three that are a cluster.
    ///
    /// # Errors
    ///
    /// When one does not start.
    pub async fn start(nats_servers: usize) -> Result<Brokers> {
        let (kafka, nats) = tokio::join!(Kafka::start_own(), async {
            Ok::<Vec<Nats>, anyhow::Error>(match nats_servers {
                0 => Vec::new(),
                1 => vec![Nats::start_own().await?],
                3 => Nats::start_cluster().await?.into(),
                _ => bail!("{nats_servers} NATS servers are not one, and no cluster"),
            })
        });
        let mut nats = nats?.into_iter();
        Ok(Brokers {
            partitions: 4,
            kafka: kafka?,
            nats: nats.next(),
            nats_peers: nats.collect(),
            commits: None,
            nats_through: None,
            kafka_health: Health::Up,
            nats_health: Health::Up,
        })
    }

    /// Starts one of each, with a network before `broker` that can disturb its commits.
    ///
    /// # Errors
    ///
    /// When one does not start.
    pub async fn start_disturbed(broker: Broker) -> Result<Brokers> {
        let mut brokers = Brokers::start(1).await?;
        match (broker, &brokers.nats) {
            (Broker::Nats, Some(nats)) => {
                let (proxy, url) = CommitProxy::before_nats(nats).await?;
                (brokers.commits, brokers.nats_through) = (Some(proxy), Some(url));
            }
            _ => {
                let (proxy, kafka) = CommitProxy::before_kafka().await?;
                (brokers.commits, brokers.kafka) = (Some(proxy), kafka);
            }
        }
        Ok(brokers)
    }

    /// Where the NATS servers are reached.
    pub(super) fn nats_urls(&self) -> Vec<String> {
        let servers = self.nats.iter().chain(&self.nats_peers);
        let direct = servers.map(|nats| nats.url().to_owned()).collect();
        let through = self.nats_through.clone();
        through.map_or(direct, |url| vec![url])
    }

    /// The NATS servers.
    pub fn all_nats(&mut self) -> impl Iterator<Item = &mut Nats> {
        self.nats.iter_mut().chain(&mut self.nats_peers)
    }

    /// Stops one in its tracks, with its whole cluster.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub async fn pause(&mut self, broker: Broker) -> Result<()> {
        match broker {
            Broker::Kafka => self.kafka.pause().await?,
            Broker::Nats => {
                for nats in self.all_nats() {
                    nats.pause().await?;
                }
            }
        }
        *self.health(broker) = Health::Paused;
        Ok(())
    }

    /// Kills one (`kill -9`), with its whole cluster.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub async fn kill(&mut self, broker: Broker) -> Result<()> {
        match broker {
            Broker::Kafka => self.kafka.kill().await?,
            Broker::Nats => {
                for nats in self.all_nats() {
                    nats.kill().await?;
                }
            }
        }
        *self.health(broker) = Health::Killed;
        Ok(())
    }

    /// Brings one back, whatever was done to it, and waits until it is ready.
    ///
    /// # Errors
    ///
    /// When it does not come back.
    pub async fn heal(&mut self, broker: Broker) -> Result<()> {
        let health = std::mem::take(self.health(broker));
        match (broker, health) {
            (_, Health::Up) => {}
            (Broker::Kafka, Health::Paused) => self.kafka.resume().await?,
            (Broker::Kafka, Health::Killed) => Box::pin(self.kafka.restart()).await?,
            (Broker::Nats, Health::Paused) => {
                for nats in self.all_nats() {
                    nats.resume().await?;
                }
            }
            (Broker::Nats, Health::Killed) => {
                let restarts = self.all_nats().map(Nats::restart);
                try_join_all(restarts).await?;
            }
        }
        Ok(())
    }

    fn health(&mut self, broker: Broker) -> &mut Health {
        match broker {
            Broker::Kafka => &mut self.kafka_health,
            Broker::Nats => &mut self.nats_health,
        }
    }

    /// Brings both back: what a trial that failed may have left.
    ///
    /// # Errors
    ///
    /// When one does not come back.
    pub async fn heal_all(&mut self) -> Result<()> {
        Box::pin(self.heal(Broker::Kafka)).await?;
        self.heal(Broker::Nats).await
    }
}

//! The brokers of trials: started once, used by one trial after the other, and always brought back.

use anyhow::Result;

use crate::brokers::{Kafka, Nats};

/// A Kafka and, unless trials are of Kafka alone, a NATS server of one's own.
pub struct Brokers {
    /// The Kafka broker.
    pub kafka: Kafka,
    /// The NATS server.
    pub nats: Option<Nats>,
    /// Partitions of Kafka's topics. Several, so that order is kept in each.
    pub partitions: i32,
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
    /// Starts them.
    ///
    /// # Errors
    ///
    /// When one does not start.
    pub async fn start(with_nats: bool) -> Result<Brokers> {
        let (kafka, nats) = tokio::join!(Kafka::start_own(), async {
            if with_nats {
                Some(Nats::start_own().await)
            } else {
                None
            }
        });
        Ok(Brokers {
            partitions: 4,
            kafka: kafka?,
            nats: nats.transpose()?,
            kafka_health: Health::Up,
            nats_health: Health::Up,
        })
    }

    /// Stops one in its tracks.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub async fn pause(&mut self, broker: Broker) -> Result<()> {
        match (broker, &mut self.nats) {
            (Broker::Kafka, _) => {
                self.kafka.pause().await?;
                self.kafka_health = Health::Paused;
            }
            (Broker::Nats, Some(nats)) => {
                nats.pause().await?;
                self.nats_health = Health::Paused;
            }
            (Broker::Nats, None) => {}
        }
        Ok(())
    }

    /// Kills one (`kill -9`).
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub async fn kill(&mut self, broker: Broker) -> Result<()> {
        match (broker, &mut self.nats) {
            (Broker::Kafka, _) => {
                self.kafka.kill().await?;
                self.kafka_health = Health::Killed;
            }
            (Broker::Nats, Some(nats)) => {
                nats.kill().await?;
                self.nats_health = Health::Killed;
            }
            (Broker::Nats, None) => {}
        }
        Ok(())
    }

    /// Brings one back, whatever was done to it, and waits until it is ready.
    ///
    /// # Errors
    ///
    /// When it does not come back.
    pub async fn heal(&mut self, broker: Broker) -> Result<()> {
        match (broker, &mut self.nats) {
            (Broker::Kafka, _) => {
                match self.kafka_health {
                    Health::Up => {}
                    Health::Paused => self.kafka.resume().await?,
                    Health::Killed => Box::pin(self.kafka.restart()).await?,
                }
                self.kafka_health = Health::Up;
            }
            (Broker::Nats, Some(nats)) => {
                match self.nats_health {
                    Health::Up => {}
                    Health::Paused => nats.resume().await?,
                    Health::Killed => nats.restart().await?,
                }
                self.nats_health = Health::Up;
            }
            (Broker::Nats, None) => {}
        }
        Ok(())
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

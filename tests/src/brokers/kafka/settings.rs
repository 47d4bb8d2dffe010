//! How a topic is set, and what its settings must allow.

use anyhow::{Context, Result, bail};
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::{Offset, TopicPartitionList};

use super::{Kafka, PATIENCE};
use crate::wait_for;

impl Kafka {
    /// What a setting of a topic is.
    ///
    /// # Errors
    ///
    /// When there is no such topic or setting, or the broker does not answer.
    pub async fn setting(&self, topic: &str, name: &str) -> Result<String> {
        let admin: AdminClient<DefaultClientContext> = self.client().create()?;
        let options = AdminOptions::new().request_timeout(Some(PATIENCE));
        let topics = [ResourceSpecifier::Topic(topic)];
        let found = admin.describe_configs(&topics, &options).await?;
        let found = found.into_iter().next().context("no answer")?;
        let found = found.map_err(|code| anyhow::anyhow!("the settings of {topic}: {code}"))?;
        let value = found.get(name).and_then(|entry| entry.value.clone());
        value.with_context(|| format!("{topic} has no {name}"))
    }

    /// Removes all records of a compacted topic, whose other settings become those of the broker. A topic that is compacted and
    /// no more lets nobody do that.
    ///
    /// # Errors
    ///
    /// When there is no such topic, or the broker does not do so.
    pub async fn delete_records(&self, topic: &str) -> Result<()> {
        self.set_topic(topic, &[("cleanup.policy", "compact,delete")])
            .await?;
        let admin: AdminClient<DefaultClientContext> = self.client().create()?;
        let mut offsets = TopicPartitionList::new();
        for partition in 0..self.partitions(topic).await? {
            offsets.add_partition_offset(topic, i32::try_from(partition)?, Offset::End)?;
        }
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        let deleted = admin.delete_records(&offsets, &options).await?;
        for partition in deleted.elements() {
            partition.error()?;
        }
        self.set_topic(topic, &[("cleanup.policy", "compact")])
            .await?;
        if !self.read_all(topic).await?.is_empty() {
            bail!("{topic} has records left");
        }
        Ok(())
    }

    /// Sets what a topic has of its own. Its other settings become those of the broker.
    ///
    /// # Errors
    ///
    /// When there is no such topic, or the broker does not take it.
    pub async fn set_topic(&self, topic: &str, settings: &[(&str, &str)]) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.client().create()?;
        let options = AdminOptions::new().request_timeout(Some(PATIENCE));
        let mut config = AlterConfig::new(ResourceSpecifier::Topic(topic));
        for &(name, value) in settings {
            config = config.set(name, value);
        }
        for result in admin.alter_configs([&config], &options).await? {
            result.map_err(|(_, code)| anyhow::anyhow!("set {topic}: {code}"))?;
        }
        for &(name, value) in settings {
            // The broker that stores the topic hears of it a little later.
            wait_for("the setting", PATIENCE, async || {
                let found = self.setting(topic, name).await;
                found.is_ok_and(|found| found == value)
            })
            .await?;
        }
        Ok(())
    }
}

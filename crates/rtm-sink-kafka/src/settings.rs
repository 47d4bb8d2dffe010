//! How topics and brokers are set, as far as they say so: it takes a right of its own to ask.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, OwnedResourceSpecifier, ResourceSpecifier,
};
use rdkafka::config::FromClientConfigAndContext;
use tokio::task::spawn_blocking;

use crate::options::{CANCELED, ConnectError};
use crate::producer::{Configure, Context};

/// How long the brokers may take to say how they are set.
const ANSWER: Duration = Duration::from_secs(5);

/// How a topic is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) min_insync_replicas: Option<usize>,
    pub(crate) max_message_bytes: Option<u64>,
    pub(crate) is_compacted: bool,
    pub(crate) policy: Option<String>,
}

/// A client of its own for questions to the brokers, and for making topics.
///
/// Dropping it ends it on a thread of its own, wherever that happens: the client's own thread is waited for, and so are
/// librdkafka's.
pub(crate) struct Admin {
    /// `None` only while it is dropped.
    client: Option<Arc<AdminClient<Context>>>,
}

impl Admin {
    /// Blocks.
    pub(crate) fn new(configure: impl Configure) -> Result<Admin, ConnectError> {
        let (mut config, context) = configure()?;
        // Nothing here polls for its statistics, which would gather.
        config.remove("statistics.interval.ms");
        let client = AdminClient::from_config_and_context(&config, context);
        let client = client.map_err(ConnectError::Start)?;
        Ok(Admin {
            client: Some(Arc::new(client)),
        })
    }

    pub(crate) async fn start(configure: impl Configure) -> Result<Admin, ConnectError> {
        let started = spawn_blocking(move || Admin::new(configure));
        started.await.unwrap_or(Err(CANCELED))
    }
}

impl Deref for Admin {
    type Target = Arc<AdminClient<Context>>;

    fn deref(&self) -> &Self::Target {
        self.client.as_ref().expect("taken by drop only")
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        let client = self.client.take();
        // If there are no threads to be had, the closure is dropped here, which blocks and is right all the same.
        let _ = thread::Builder::new()
            .name("kafka-drop".into())
            .spawn(move || drop(client));
    }
}

/// How the topics are set; those that do not say so are left out.
pub(crate) async fn of_topics(
    admin: &AdminClient<Context>,
    topics: &[String],
) -> HashMap<String, Settings> {
    let asked = topics.iter().map(|topic| ResourceSpecifier::Topic(topic));
    let asked: Vec<ResourceSpecifier<'_>> = asked.collect();
    let mut found = HashMap::new();
    for said in describe(admin, &asked)
        .await
        .into_iter()
        .flatten()
        .flatten()
    {
        let OwnedResourceSpecifier::Topic(name) = &said.specifier else {
            continue;
        };
        let policy = value(&said, "cleanup.policy");
        let settings = Settings {
            min_insync_replicas: number(&said, "min.insync.replicas"),
            max_message_bytes: number(&said, "max.message.bytes"),
            is_compacted: policy.is_some_and(|policy| policy.contains("compact")),
            policy: policy.map(str::to_owned),
        };
        found.insert(name.clone(), settings);
    }
    found
}

/// The answers, of which some may be refusals; nothing where there is no answer at all.
pub(crate) async fn describe(
    admin: &AdminClient<Context>,
    asked: &[ResourceSpecifier<'_>],
) -> Option<Vec<Result<ConfigResource, rdkafka::error::RDKafkaErrorCode>>> {
    if asked.is_empty() {
        return Some(Vec::new());
    }
    let options = AdminOptions::new().request_timeout(Some(ANSWER));
    admin.describe_configs(asked, &options).await.ok()
}

/// A setting's value.
pub(crate) fn value<'a>(said: &'a ConfigResource, name: &str) -> Option<&'a str> {
    said.get(name)?.value.as_deref()
}

fn number<T: std::str::FromStr>(said: &ConfigResource, name: &str) -> Option<T> {
    value(said, name)?.parse().ok()
}

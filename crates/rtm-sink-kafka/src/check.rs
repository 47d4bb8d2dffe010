//! What `check --connect` asks the brokers. Nothing is published and nothing is made.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use rdkafka::admin::ResourceSpecifier;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::{Metadata, MetadataTopic};
use rdkafka::producer::Producer;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout, timeout_at};

use crate::cause::{few_in_sync, few_replicas, leaderless, unreachable};
use crate::exact;
use crate::failure::{UNSURE, said};
use crate::listener;
use crate::options::ConnectError;
use crate::producer::{Configure, Live};
use crate::producers::Producers;
use crate::settings::{self, Admin, Settings};
use crate::token::Oidc;
use crate::topics::{self, CheckError};

/// How long all of it may take: somebody waits for it.
const ALL: Duration = Duration::from_secs(11);

/// How long the brokers may take to answer at all. What is left of [`ALL`] is for finding out why they do not.
const TIMEOUT: Duration = Duration::from_secs(7);

/// What is at the address of a broker that takes longer to answer is asked as well.
const PROMPT: Duration = Duration::from_secs(2);

/// After this long the first time, and twice as long each time, it is seen whether there is any use in waiting.
const FIRST_LOOK: Duration = Duration::from_millis(500);

/// How long the brokers may take to give the producer its id.
const IDENTIFIED: Duration = Duration::from_secs(3);

/// What [`KafkaSink::check`](crate::KafkaSink::check) found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// Brokers of the cluster.
    pub brokers: Vec<BrokerReached>,
    /// Whether brokers create topics that they are asked for; `None` where they do not tell this user.
    pub creates_topics: Option<bool>,
    /// Why this user may publish nothing.
    pub refused: Option<String>,
    /// Where records are to be stored once and only once, what was found of the progress topic, or why they cannot be.
    pub exact: Option<Result<String, String>>,
    /// The topics asked for, in the order given. Those that a broker in trouble says nothing of are left out.
    pub topics: Vec<TopicReached>,
}

/// One broker, at the address that the brokers advertise for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerReached {
    /// Its id.
    pub id: i32,
    /// `host:port`.
    pub address: String,
    /// Why it cannot be used.
    pub trouble: Option<String>,
}

/// One topic, as this client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicReached {
    /// Its name.
    pub name: String,
    /// Whether it is there.
    pub state: TopicState,
    /// What may keep its records from being stored, by brokers of some versions.
    pub warning: Option<String>,
    /// The largest batch that it takes, in bytes, if it tells this user.
    pub max_message_bytes: Option<u64>,
    /// Whether it keeps the last record of each key only, and so takes none without a key.
    pub is_compacted: bool,
}

/// Whether a topic is there, and can be published to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicState {
    /// It is there.
    There {
        /// How many partitions it has.
        partitions: usize,
        /// What keeps its records from being stored.
        trouble: Option<String>,
    },
    /// It is missing.
    Missing {
        /// Why this user could not create it as the options say, if the brokers would refuse.
        refused: Option<String>,
    },
    /// The brokers do not show it to this user, or refuse its name.
    Refused(String),
    /// The brokers have not said.
    Unanswered,
}

/// Looks at the brokers, and at the topics.
pub(crate) async fn check(
    producers: &Arc<Producers>,
    topics: &[String],
) -> Result<Reached, CheckError> {
    let end = Instant::now() + ALL;
    let live = producers.live().await?;
    let metadata = reach(producers, &live, end).await?;
    let owned = match Oidc::is_asked_for(&producers.options.options) {
        true => None,
        false => Some(Admin::start(quietly(producers.configure())).await?),
    };
    let admin = owned.as_ref();
    let brokers = metadata.brokers().iter();
    let brokers = brokers.map(|broker| {
        let address = format!("{}:{}", broker.host(), broker.port());
        look_at_broker(producers, admin, broker.id(), address)
    });
    let known = async {
        match admin {
            Some(admin) => settings::of_topics(admin, topics).await,
            None => HashMap::new(),
        }
    };
    let exact = async {
        producers.options.exact.as_ref()?;
        let found = timeout_at(end.into(), exact::check(producers)).await;
        Some(found.unwrap_or_else(|_| Err("the brokers do not answer about it".to_owned())))
    };
    let (brokers, known, refused, exact) =
        tokio::join!(join_all(brokers), known, refused(producers, &live), exact);
    let creates_topics = brokers.iter().find_map(|(_, creates)| *creates);
    let brokers: Vec<BrokerReached> = brokers.into_iter().map(|(broker, _)| broker).collect();
    let looked = topics.iter().map(|name| {
        let settings = known.get(name);
        look_at_topic(producers, admin, &metadata, name, settings, end)
    });
    let topics = match brokers.iter().any(|broker| broker.trouble.is_none()) {
        true => join_all(looked).await,
        false => Vec::new(),
    };
    // What has no answer because of a broker is no finding of its own.
    let is_whole = brokers.iter().all(|broker| broker.trouble.is_none());
    let answered = |topic: &TopicReached| is_whole || topic.state != TopicState::Unanswered;
    Ok(Reached {
        brokers,
        creates_topics,
        refused,
        exact,
        topics: topics.into_iter().filter(answered).collect(),
    })
}

/// The brokers and topics of the cluster, or why no broker tells them.
async fn reach(
    producers: &Producers,
    live: &Arc<Live>,
    end: Instant,
) -> Result<Metadata, CheckError> {
    let asked = Arc::clone(live);
    let metadata = spawn_blocking(move || ask_all(&asked)).await;
    let error = match metadata.unwrap_or(Err(KafkaError::Canceled)) {
        Ok(metadata) => return Ok(metadata),
        Err(error) => error,
    };
    let why = timeout_at(end.into(), why_unreachable(producers)).await;
    let said = why.unwrap_or_else(|_| producers.health.lock().last_error.clone());
    Err(CheckError::Unreachable { said, error })
}

async fn look_at_topic(
    producers: &Producers,
    admin: Option<&Admin>,
    metadata: &Metadata,
    name: &str,
    settings: Option<&Settings>,
    end: Instant,
) -> TopicReached {
    let state = state(producers, admin, metadata, name, settings);
    TopicReached {
        name: name.to_owned(),
        warning: warning(metadata, name, settings),
        state: timeout_at(end.into(), state)
            .await
            .unwrap_or(TopicState::Unanswered),
        max_message_bytes: settings.and_then(|settings| settings.max_message_bytes),
        is_compacted: settings.is_some_and(|settings| settings.is_compacted),
    }
}

/// What may keep a topic's records from being stored, where it is not known for sure.
fn warning(metadata: &Metadata, name: &str, settings: Option<&Settings>) -> Option<String> {
    let mut listed = metadata.topics().iter();
    let topic = listed.find(|topic| topic.name() == name)?;
    match settings {
        Some(_) => few_replicas(topic.partitions(), settings),
        None => few_in_sync(topic.partitions(), None),
    }
}

/// Asks for the list of all topics, because asking for one by its name may create it. Blocks.
fn ask_all(live: &Live) -> Result<Metadata, KafkaError> {
    let end = Instant::now() + TIMEOUT;
    let mut patience = FIRST_LOOK;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let client = live.producer().client();
        let asked = client.fetch_metadata(None, patience.min(left));
        // Refused credentials are known in milliseconds, and librdkafka would wait all the same.
        if asked.is_ok() || patience >= left || live.failure().is_some() {
            return asked;
        }
        patience *= 2;
    }
}

/// Why no broker can be reached: what the producer knows, or what is found at the brokers' addresses.
async fn why_unreachable(producers: &Producers) -> Option<String> {
    let Some(failure) = producers.failure() else {
        return unreachable(producers).await;
    };
    // librdkafka does not tell why it refuses a certificate.
    let found = match failure.refused_broker() {
        Some(broker) => listener::trouble(&listener::address(broker), producers, false).await,
        None => None,
    };
    Some(found.unwrap_or_else(|| failure.explained_by(UNSURE).reason))
}

/// For a client that creates no topic by asking for it.
fn quietly(configure: impl Configure) -> impl Configure {
    move || -> Result<_, ConnectError> {
        let (mut config, context) = configure()?;
        config.set("allow.auto.create.topics", "false");
        Ok((config, context))
    }
}

/// Has librdkafka itself connect to the broker, and where it cannot, asks what is at the address. The broker may tell
/// whether it creates topics.
async fn look_at_broker(
    producers: &Producers,
    admin: Option<&Admin>,
    id: i32,
    address: String,
) -> (BrokerReached, Option<bool>) {
    let Some(admin) = admin else {
        let trouble = listener::trouble(&address, producers, true).await;
        let reached = BrokerReached {
            id,
            address,
            trouble,
        };
        return (reached, None);
    };
    let resource = [ResourceSpecifier::Broker(id)];
    let mut said = pin!(settings::describe(admin, &resource));
    let (said, trouble) = match timeout(PROMPT, &mut said).await {
        Ok(said) => (said, None),
        Err(_) => tokio::join!(said, listener::trouble(&address, producers, false)),
    };
    let trouble = match (&said, trouble) {
        (Some(_), _) => None,
        (None, Some(trouble)) => Some(trouble),
        (None, None) => {
            let trouble = listener::trouble(&address, producers, false).await;
            Some(trouble.unwrap_or_else(|| format!("{address}: librdkafka gets no answer")))
        }
    };
    let said = said.and_then(|said| said.into_iter().next()?.ok());
    let creates = said.and_then(|said| {
        settings::value(&said, "auto.create.topics.enable")?
            .parse()
            .ok()
    });
    let reached = BrokerReached {
        id,
        address,
        trouble,
    };
    (reached, creates)
}

async fn state(
    producers: &Producers,
    admin: Option<&Admin>,
    metadata: &Metadata,
    name: &str,
    settings: Option<&Settings>,
) -> TopicState {
    let find = |metadata: &Metadata, there: &dyn Fn(&MetadataTopic) -> TopicState| {
        let topics = metadata.topics();
        let topic = topics.iter().find(|topic| topic.name() == name);
        topic.map(there)
    };
    let there = |topic: &MetadataTopic| {
        let partitions = topic.partitions();
        TopicState::There {
            partitions: partitions.len(),
            // How many replicas are enough is known by the settings alone.
            trouble: leaderless(partitions).or_else(|| few_in_sync(partitions, Some(settings?))),
        }
    };
    if let Some(found) = find(metadata, &there) {
        return found;
    }
    let Some(admin) = admin else {
        return TopicState::Refused("it is missing, or this user may not see it".to_owned());
    };
    let (asked, topic) = (Arc::clone(admin), name.to_owned());
    let ask = move || asked.inner().fetch_metadata(Some(&topic), TIMEOUT);
    let asked = spawn_blocking(ask).await;
    let metadata = match asked.unwrap_or(Err(KafkaError::Canceled)) {
        Ok(metadata) => metadata,
        Err(_) => return TopicState::Unanswered,
    };
    let found = find(&metadata, &|topic| match topic.error() {
        None => there(topic),
        Some(error) => match RDKafkaErrorCode::from(error) {
            RDKafkaErrorCode::UnknownTopicOrPartition => TopicState::Missing { refused: None },
            code => TopicState::Refused(said(code)),
        },
    });
    match found {
        Some(TopicState::Missing { .. }) | None => TopicState::Missing {
            refused: topics::refused(admin, name, producers.options.create_topics)
                .await
                .map(topics::to_create),
        },
        Some(found) => found,
    }
}

/// Why the brokers give the producer no id, without which it can publish nothing.
async fn refused(producers: &Producers, live: &Live) -> Option<String> {
    let end = Instant::now() + IDENTIFIED;
    while Instant::now() < end && !producers.health.lock().identified {
        if let Some(failure) = live.failure() {
            return Some(failure.explained().reason);
        }
        sleep(FIRST_LOOK / 5).await;
    }
    None
}

//! Why a call waits: librdkafka goes on trying, and mostly does not say what for.
//!
//! A call that has lasted for some seconds asks the brokers about its topics, and asks what answers at their addresses.
//! Where they answer and nothing is wrong, it is librdkafka that is stuck, and the call gets another producer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{join_all, try_join_all};
use rdkafka::error::KafkaError;
use rdkafka::metadata::{Metadata, MetadataPartition};
use rdkafka::producer::Producer;
use rtm_sink::Record;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tracing::warn;

use crate::failure::{is_missing, said};
use crate::known::Health;
use crate::listener::{self, address};
use crate::producer::Live;
use crate::producers::Producers;
use crate::reports::Call;
use crate::settings::{self, Settings};
use crate::token::Oidc;

/// After this long a call is looked at: what it finds is to be known before the call counts as stalled, after 10 s.
const FIRST: Duration = Duration::from_secs(3);

/// How long after a look at a call the next one begins.
const NEXT: Duration = Duration::from_secs(10);

/// How long the brokers may take to answer about a topic.
const ANSWER: Duration = Duration::from_secs(3);

/// Brokers that take longer to answer are asked at their addresses, too, so that a call that waits for a silent one is
/// explained when it counts as stalled.
const PROMPT: Duration = Duration::from_secs(1);

/// After this long without any report on a call's records, from brokers that answer, the producer is given up.
///
/// librdkafka 2.12 and later may never send a batch again once a broker has said that its partition has no leader
/// (librdkafka#5430). A broker itself may take 30 s to give up a replica, and would get a batch twice from who is hastier.
const STUCK: Duration = Duration::from_secs(45);

/// The most topics, and the most brokers, that one look asks for.
const MOST: usize = 8;

/// Finds again and again why the call with these records waits, and notes it. It ends by being dropped.
pub(crate) async fn watch(
    producers: &Producers,
    call: &Call<'_>,
    records: &[Record],
) -> Infallible {
    let noted = Noted::new(&producers.health);
    let (mut standing, mut since) = (call.standing(), Instant::now());
    sleep(FIRST).await;
    let topics: BTreeSet<&str> = records.iter().map(|r| r.topic.as_str()).collect();
    let topics: Vec<String> = topics.into_iter().take(MOST).map(str::to_owned).collect();
    loop {
        if call.standing() != standing {
            (standing, since) = (call.standing(), Instant::now());
        }
        // One call at a time asks: the brokers have trouble enough.
        let looking = producers.looking.lock().await;
        let mut found = None;
        if let Ok(live) = producers.live().await {
            found = find(producers, &live, &topics).await;
            let still = since.elapsed();
            let is_still = standing.is_waiting() && call.standing() == standing;
            if found.is_none() && still >= FIRST && is_still {
                found = Some(silent(&live, still));
            }
        }
        drop(looking);
        noted.note(found);
        sleep(NEXT).await;
    }
}

/// What is said of a call whose brokers answer and confirm nothing. After [`STUCK`] its producer is given up.
fn silent(live: &Live, still: Duration) -> String {
    const SILENT: &str = "the brokers answer, and say nothing of the records that were sent";
    if still >= STUCK {
        let seconds = still.as_secs();
        warn!("{SILENT}, for {seconds} s: they are sent again, by a new producer");
        live.give_up("the brokers answer, and the producer gets nothing confirmed");
    }
    format!("{SILENT}; after {STUCK:?} they are sent again, by a new producer")
}

/// What is noted of a call, for as long as the call is in progress.
struct Noted<'a> {
    health: &'a Health,
    call: u64,
}

impl Noted<'_> {
    fn new(health: &Health) -> Noted<'_> {
        let mut known = health.lock();
        known.calls += 1;
        let call = known.calls;
        Noted { health, call }
    }

    fn note(&self, found: Option<String>) {
        let mut known = self.health.lock();
        match found {
            Some(found) => known.causes.insert(self.call, found),
            None => known.causes.remove(&self.call),
        };
    }
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        self.note(None);
    }
}

async fn find(producers: &Producers, live: &Arc<Live>, topics: &[String]) -> Option<String> {
    let mut asked = pin!(try_join_all(topics.iter().map(|topic| ask(live, topic))));
    let answered = match timeout(PROMPT, &mut asked).await {
        Ok(answered) => answered,
        Err(_) => match tokio::join!(asked, at_addresses(producers)) {
            (Err(_), Some(trouble)) => return Some(trouble),
            // Where the brokers are may be known since.
            (answered, _) => answered,
        },
    };
    let Ok(all) = answered else {
        return unreachable(producers).await;
    };
    let mut found: Vec<String> = Vec::new();
    for (topic, metadata) in topics.iter().zip(&all) {
        found.extend(of_topic(producers, topic, metadata).await);
    }
    found.extend(of_leaders(producers, &all).await);
    found.extend(producers.health.lock().throttled());
    if found.is_empty() && !Oidc::is_asked_for(&producers.options.options) {
        found.extend(of_settings(producers, topics, &all).await);
    }
    if found.is_empty() {
        found.extend(producers.health.lock().refused());
    }
    (!found.is_empty()).then(|| found.join("; "))
}

/// Asks for a topic by its name, as librdkafka itself does for every topic with records.
async fn ask(live: &Arc<Live>, topic: &str) -> Result<Metadata, KafkaError> {
    let (live, topic) = (Arc::clone(live), topic.to_owned());
    let ask = move || {
        let client = live.producer().client();
        client.fetch_metadata(Some(&topic), ANSWER)
    };
    let asked = spawn_blocking(ask).await;
    asked.unwrap_or(Err(KafkaError::Canceled))
}

/// Why no broker answers: what is wrong at their addresses, or else what librdkafka said last.
pub(crate) async fn unreachable(producers: &Producers) -> Option<String> {
    let found = at_addresses(producers).await;
    found.or_else(|| producers.health.lock().last_error.clone())
}

/// What is wrong at the addresses that the options name, and at those that brokers have told.
async fn at_addresses(producers: &Producers) -> Option<String> {
    let brokers = producers.options.brokers.iter().take(MOST);
    let mut addresses: BTreeSet<String> = brokers.map(|broker| address(broker)).collect();
    addresses.extend(producers.health.lock().apart.iter().take(MOST).cloned());
    let asked = addresses
        .iter()
        .map(|at| listener::trouble(at, producers, false));
    let found: Vec<String> = join_all(asked).await.into_iter().flatten().collect();
    (!found.is_empty()).then(|| found.join("; "))
}

/// What the brokers say of a topic that keeps its records waiting.
async fn of_topic(producers: &Producers, name: &str, metadata: &Metadata) -> Option<String> {
    let topics = metadata.topics();
    let topic = topics.iter().find(|topic| topic.name() == name)?;
    if let Some(error) = topic.error() {
        let code = error.into();
        let why = match is_missing(code) {
            true => producers.why_missing(name).await,
            false => None,
        };
        let why = why.map(|why| format!(", and {why}")).unwrap_or_default();
        return Some(format!("topic `{name}`: {}{why}", said(code)));
    }
    let partitions = topic.partitions();
    leaderless(partitions).map(|what| format!("topic `{name}`: {what}"))
}

/// Which partitions have no leader.
pub(crate) fn leaderless(partitions: &[MetadataPartition]) -> Option<String> {
    let without = partitions.iter().filter(|partition| partition.leader() < 0);
    let without: Vec<&MetadataPartition> = without.collect();
    let first = without.first()?;
    let replicas: Vec<String> = first.replicas().iter().map(i32::to_string).collect();
    let replicas = replicas.join(", ");
    Some(match without.len() {
        1 => format!(
            "partition {} has no leader; it has its replicas at the brokers {replicas}",
            first.id()
        ),
        count => format!(
            "{count} of {} partitions have no leader; partition {} has its replicas at the brokers {replicas}",
            partitions.len(),
            first.id()
        ),
    })
}

/// What is wrong with the connections to the brokers that lead the topics' partitions.
async fn of_leaders(producers: &Producers, all: &[Metadata]) -> Vec<String> {
    let mut leaders: BTreeMap<i32, String> = BTreeMap::new();
    for metadata in all {
        let partitions = metadata
            .topics()
            .iter()
            .flat_map(|topic| topic.partitions());
        let ids: BTreeSet<i32> = partitions.map(MetadataPartition::leader).collect();
        let brokers = metadata.brokers().iter();
        for broker in brokers.filter(|broker| ids.contains(&broker.id())) {
            leaders.insert(broker.id(), format!("{}:{}", broker.host(), broker.port()));
        }
    }
    let asked = leaders.into_iter().take(MOST).map(async |(id, at)| {
        let is_connected = producers.health.lock().connected.contains(&id);
        let trouble = listener::trouble(&at, producers, is_connected).await?;
        Some(format!("leader {id} cannot be used: {trouble}"))
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// Whether a topic has fewer replicas in sync than it wants, which librdkafka is told and does not tell.
async fn of_settings(producers: &Producers, topics: &[String], all: &[Metadata]) -> Vec<String> {
    let known = match producers.admin().await {
        Some(admin) => settings::of_topics(&admin, topics).await,
        None => HashMap::new(),
    };
    let mut found = Vec::new();
    for metadata in all {
        for topic in metadata.topics() {
            let settings = known.get(topic.name());
            let partitions = topic.partitions();
            let few =
                few_in_sync(partitions, settings).or_else(|| few_replicas(partitions, settings));
            found.extend(few.map(|few| format!("topic `{}`: {few}", topic.name())));
        }
    }
    found
}

/// Which partitions have fewer replicas in sync than the topic wants, or than they have where that is not known. Brokers
/// want no more than there are, since Kafka 3.7.
pub(crate) fn few_in_sync(
    partitions: &[MetadataPartition],
    settings: Option<&Settings>,
) -> Option<String> {
    let least = settings.and_then(|settings| settings.min_insync_replicas);
    let few = |partition: &&MetadataPartition| {
        let there = partition.isr().len();
        let all = partition.replicas().len();
        there < least.map_or(all, |least| least.min(all))
    };
    let first = partitions.iter().find(few)?;
    let wanted = match least {
        Some(least) => format!("min.insync.replicas is {least}"),
        None => "its min.insync.replicas is not shown to this user".to_owned(),
    };
    Some(format!(
        "partition {} has {} of {} replicas in sync, {wanted}",
        first.id(),
        first.isr().len(),
        first.replicas().len()
    ))
}

/// Which partitions have fewer replicas than the topic wants in sync.
pub(crate) fn few_replicas(
    partitions: &[MetadataPartition],
    settings: Option<&Settings>,
) -> Option<String> {
    let least = settings?.min_insync_replicas?;
    let mut few = partitions.iter();
    let first = few.find(|partition| partition.replicas().len() < least)?;
    Some(format!(
        "partition {} has {} replica(s), and min.insync.replicas is {least}: brokers before Kafka 3.7 then store nothing",
        first.id(),
        first.replicas().len()
    ))
}

//! How large a batch each topic takes. Kafka's `max.message.bytes` is on a whole batch, and each refusal costs a producer.
//!
//! Sizes are those before compression, as with the limits of Kafka's own clients: what is not over a limit so is not over it
//! compressed. A topic's limit is asked for after its first refusal, and where it is not told, it is learned from refusals.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rtm_sink::{Record, Topic};

/// After this long a limit is asked for again, or tried, before a record is refused for it: somebody may have raised it.
const FRESH: Duration = Duration::from_secs(60);

/// What a batch has beside its records.
const BATCH_OVERHEAD: usize = 61;

/// What is known of the topics that have refused something for its size.
#[derive(Debug, Default)]
pub(crate) struct Limits(Mutex<HashMap<Topic, Limit>>);

#[derive(Debug, Clone, Copy)]
struct Limit {
    /// No batch of several records is larger.
    batch: usize,
    /// The largest batch of one record, if it is known.
    record: Option<usize>,
    since: Instant,
}

impl Limits {
    /// The largest batch of several records that every topic takes, as far as it is known.
    pub(crate) fn least(&self) -> Option<usize> {
        self.lock().values().map(|limit| limit.batch).min()
    }

    /// The largest batch of one record, by topic.
    pub(crate) fn of_records(&self) -> HashMap<Topic, usize> {
        let topics = self.lock();
        let known = topics
            .iter()
            .filter_map(|(topic, limit)| Some((topic.clone(), limit.record?)));
        known.collect()
    }

    /// The topics whose limit a record is over, and has not been asked for of late.
    pub(crate) fn stale(&self, records: &[Record]) -> BTreeSet<Topic> {
        let topics = self.lock();
        if topics.is_empty() {
            return BTreeSet::new();
        }
        let is_stale = |record: &&Record| {
            topics.get(&record.topic).is_some_and(|limit| {
                limit.since.elapsed() >= FRESH
                    && limit.record.is_some_and(|most| alone(record) > most)
            })
        };
        let stale = records.iter().filter(is_stale);
        stale.map(|record| record.topic.clone()).collect()
    }

    /// The topic says so itself; nothing where it does not, and what was learned is to be tried again.
    pub(crate) fn is_told(&self, topic: &Topic, bytes: Option<usize>) {
        self.note(topic, |limit| {
            limit.record = bytes;
            limit.batch = bytes.unwrap_or(limit.batch);
        });
    }

    /// The topic has refused a batch, and one of several records is to be no larger than this from now on.
    pub(crate) fn batch_is_refused(&self, topic: &Topic, most: usize) {
        self.note(topic, |limit| limit.batch = limit.batch.min(most.max(1)));
    }

    /// The topic has refused a batch of one record.
    pub(crate) fn record_is_refused(&self, record: &Record) {
        let below = alone(record) - 1;
        self.note(&record.topic, |limit| {
            limit.record = Some(limit.record.map_or(below, |most| most.min(below)));
        });
    }

    fn note(&self, topic: &Topic, note: impl FnOnce(&mut Limit)) {
        let mut topics = self.lock();
        let limit = topics.entry(topic.clone()).or_insert(Limit {
            batch: usize::MAX,
            record: None,
            since: Instant::now(),
        });
        limit.since = Instant::now();
        note(limit);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Topic, Limit>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The size of a batch of this record alone, which Kafka compares with a topic's limit: KIP-98, "Message Format".
pub(crate) fn alone(record: &Record) -> usize {
    let text = |bytes: usize| varint(bytes) + bytes;
    let headers = record.headers.iter();
    let headers: usize = headers
        .map(|(name, value)| text(name.len()) + text(value.len()))
        .sum();
    // A length of -1, which is that of no key, takes one byte as well.
    let key = record.key.as_ref().map_or(1, |key| text(key.len()));
    // Its attributes, and how far its time and its place are from the batch's.
    let fixed = 3;
    let body = fixed + key + text(record.payload.len()) + varint(record.headers.len()) + headers;
    BATCH_OVERHEAD + text(body)
}

/// How many bytes a length takes: seven bits in each, after one for the sign.
fn varint(length: usize) -> usize {
    let bits = (usize::BITS - length.leading_zeros()) as usize + 1;
    bits.div_ceil(7)
}

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rtm_sink::{
    ExactLimits, Progress, ProgressKey, PublishError, PublishErrorKind, Queue, Record, Sink,
};
use tracing::debug;

use crate::check::{self, Reached};
use crate::exact::{EXACT_LIMITS, Exact};
use crate::known::Known;
use crate::options::{ConnectError, KafkaOptions};
use crate::producers::Producers;
use crate::publish::publish;
use crate::topics::CheckError;

/// A call that has waited this long without any confirmation means that the sink is not [`up`](KafkaStats::up).
const STALLED: Duration = Duration::from_secs(10);

/// Publishes to Kafka.
///
/// Made without a broker: librdkafka connects by itself, and again whenever it must. Dropping it ends its threads in the
/// background, within some seconds, which a process that ends need not wait for.
pub struct KafkaSink {
    producers: Arc<Producers>,
    /// Stores records once and only once, where the options say so.
    exact: Option<Exact>,
}

/// How a [`KafkaSink`] is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaStats {
    /// Nothing is known to keep records from being confirmed. False while a call has waited for 10 s without any
    /// confirmation, while one waits and no broker can be reached, and after one ended as misconfigured.
    pub up: bool,
    /// Since when a call waits and nothing was confirmed; `None` if no call is in progress.
    pub waiting_since: Option<Instant>,
    /// When a record was last confirmed.
    pub last_confirmation: Option<Instant>,
    /// Records confirmed since the sink was made.
    pub confirmed: u64,
    /// Records that librdkafka holds, and what it has to tell: librdkafka counts errors and reports that nobody took yet
    /// with its records.
    pub queued: usize,
    /// 99th percentile of the slowest broker's round trips lately, refreshed every 5 s.
    pub round_trip: Option<Duration>,
    /// Producers made after one failed.
    pub rebuilds: u64,
    /// Groups that a broker refused and that were published again in parts.
    pub splits: u64,
    /// Why calls in progress wait, where they have lasted for some seconds and it is known.
    pub waits_for: Option<String>,
    /// The last error that librdkafka told, without secrets, until it is known to be over.
    pub last_error: Option<String>,
}

impl KafkaSink {
    /// Starts a producer. It takes milliseconds and needs no broker.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] when the options cannot work, whatever the brokers.
    pub fn new(options: KafkaOptions) -> Result<KafkaSink, ConnectError> {
        let exact = options.exact.as_ref().map(|_| Exact::new());
        let producers = Arc::new(Producers::start(options)?);
        Ok(KafkaSink { producers, exact })
    }

    /// How it is doing, at once and without asking a broker.
    #[must_use]
    pub fn stats(&self) -> KafkaStats {
        let progress = self.producers.reports.progress();
        let exact = self.exact.as_ref().map_or(0, Exact::queued);
        let queued = self.producers.queued() + exact;
        let known = self.producers.health.lock();
        let waiting = progress.waiting_since;
        KafkaStats {
            up: is_up(waiting.map(|since| since.elapsed()), &known),
            waiting_since: waiting,
            last_confirmation: progress.last_confirmation,
            confirmed: progress.confirmed,
            queued,
            round_trip: known.round_trip,
            rebuilds: known.rebuilds,
            splits: known.splits,
            waits_for: known.why(),
            last_error: known.last_error.clone(),
        }
    }

    /// Reaches the brokers and looks for topics, creating none. Nothing is published.
    ///
    /// # Errors
    ///
    /// [`CheckError::Unreachable`] when no broker answers in 7 s; that includes refused credentials. All of it takes 11 s at
    /// the most.
    pub async fn check(&self, topics: &[&str]) -> Result<Reached, CheckError> {
        let topics: Vec<String> = topics.iter().map(|&name| name.to_owned()).collect();
        check::check(&self.producers, &topics).await
    }

    /// Creates those of the topics that do not exist, if [`KafkaOptions::create_topics`] says how. Publishing does the
    /// same before the first record for a topic, so this only makes trouble known early.
    ///
    /// # Errors
    ///
    /// When the brokers cannot be asked in 10 s, or refuse.
    pub async fn ensure_topics(&self, topics: &[&str]) -> Result<(), CheckError> {
        self.producers.ensure_topics(topics).await
    }
}

impl Sink for KafkaSink {
    async fn publish(&self, records: &[Record]) -> Result<(), PublishError> {
        let result = publish(&self.producers, records).await;
        if let Err(error) = &result {
            debug!(kind = %error.kind, cause = %error.source, "not everything was published");
        }
        result
    }

    fn exact(&self) -> Option<ExactLimits> {
        self.exact.as_ref().map(|_| EXACT_LIMITS)
    }

    async fn publish_exactly(
        &self,
        records: &[Record],
        progress: &Progress,
    ) -> Result<(), PublishError> {
        let Some(exact) = &self.exact else {
            return Err(not_exact(records.len()));
        };
        let result = exact.publish(&self.producers, records, progress).await;
        if let Err(error) = &result {
            debug!(kind = %error.kind, cause = %error.source, "a transaction is not known to be stored");
        }
        result
    }

    async fn recall(&self, key: &ProgressKey) -> Result<Option<Bytes>, PublishError> {
        match &self.exact {
            Some(exact) => exact.recall(&self.producers, key).await,
            None => Err(not_exact(0)),
        }
    }

    fn health(&self) -> rtm_sink::Health {
        let stats = self.stats();
        let queue = Queue {
            records: stats.queued as u64,
            round_trip: stats.round_trip.unwrap_or_default(),
        };
        // Where no call waits, the last one has told what there is to tell.
        let is_news = !stats.up && stats.waiting_since.is_some();
        let said = stats.last_error.filter(|_| is_news);
        rtm_sink::Health {
            up: stats.up,
            rebuilds: stats.rebuilds,
            queue: Some(queue),
            said: stats.waits_for.or(said),
            ..rtm_sink::Health::default()
        }
    }

    /// Ends the producer, with what it holds. Calls in progress end as unavailable, and so do later ones.
    async fn close(&self) {
        self.producers.close();
        if let Some(exact) = &self.exact {
            exact.close();
        }
    }
}

fn not_exact(records: usize) -> PublishError {
    let why = "its options do not say where progress is kept";
    PublishError::unknown(PublishErrorKind::Misconfigured, records, why)
}

/// `waiting` is how long a call has waited without any confirmation.
fn is_up(waiting: Option<Duration>, known: &Known) -> bool {
    let in_vain = waiting.is_some_and(|waiting| known.unreachable || waiting >= STALLED);
    !known.misconfigured && !in_vain
}

impl fmt::Debug for KafkaSink {
    /// The configuration is left out: it holds secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSink")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Holds: an idle sink is up though its brokers are away, and a call that waits too long is told.
    #[test]
    fn up_means_that_nothing_waits_in_vain() {
        let known = |unreachable, misconfigured| Known {
            unreachable,
            misconfigured,
            ..Known::default()
        };
        let short = Some(STALLED - Duration::from_millis(1));
        assert!(is_up(None, &known(false, false)));
        assert!(is_up(None, &known(true, false)));
        assert!(is_up(short, &known(false, false)));
        assert!(!is_up(short, &known(true, false)));
        assert!(!is_up(Some(STALLED), &known(false, false)));
        assert!(!is_up(None, &known(false, true)));
    }
}

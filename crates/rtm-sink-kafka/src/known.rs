//! What librdkafka's callbacks, and looks at calls that wait, have found out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rtm_sink::Seldom;
use serde_json::Value;

/// What the callbacks have learned, for [`KafkaStats`](crate::KafkaStats). It outlives producers.
#[derive(Debug, Default)]
pub(crate) struct Health {
    known: Mutex<Known>,
    /// Something in `known` ends with the next confirmation: spares the lock on every one of them.
    flagged: AtomicBool,
}

#[derive(Debug, Default)]
pub(crate) struct Known {
    /// No broker can be reached.
    pub(crate) unreachable: bool,
    /// The last call ended as misconfigured.
    pub(crate) misconfigured: bool,
    /// What librdkafka said last, until it is known to be over.
    pub(crate) last_error: Option<String>,
    /// Why calls in progress wait, by their numbers.
    pub(crate) causes: BTreeMap<u64, String>,
    /// Calls that were looked at, or could have been.
    pub(crate) calls: u64,
    /// Brokers that librdkafka is connected to.
    pub(crate) connected: BTreeSet<i32>,
    /// Where the brokers are that librdkafka was told of and is not connected to.
    pub(crate) apart: BTreeSet<String>,
    /// The broker that throttles us most, and for how long.
    pub(crate) throttle: Option<(String, Duration)>,
    /// Requests that were sent again: by all statistics, and by the last.
    pub(crate) retries: (u64, u64),
    /// Whether the producer has its id, for which it needs a right.
    pub(crate) identified: bool,
    pub(crate) round_trip: Option<Duration>,
    /// Producers made after a failure.
    pub(crate) rebuilds: u64,
    /// Groups that were refused and then published in parts.
    pub(crate) splits: u64,
    /// For the log, that an error ends producers, and that new ones are made.
    pub(crate) fatal: Seldom,
    pub(crate) made: Seldom,
}

impl Health {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes something bad that the next confirmation disproves.
    pub(crate) fn flag(&self, note: impl FnOnce(&mut Known)) {
        note(&mut self.lock());
        self.flagged.store(true, Ordering::Release);
    }

    pub(crate) fn confirmed(&self) {
        if self.flagged.load(Ordering::Relaxed) && self.flagged.swap(false, Ordering::Acquire) {
            let mut known = self.lock();
            known.unreachable = false;
            known.misconfigured = false;
            known.last_error = None;
        }
    }
}

impl Known {
    /// Takes in librdkafka's statistics, and tells whether a broker is reached.
    pub(crate) fn take_in(&mut self, statistics: &Value) -> bool {
        self.round_trip = None;
        self.throttle = None;
        self.connected.clear();
        self.apart.clear();
        let mut retries = 0;
        let mut all_well = true;
        for (_, broker) in statistics["brokers"].as_object().into_iter().flatten() {
            retries += broker["txretries"].as_u64().unwrap_or_default();
            all_well &= matches!(broker["state"].as_str(), Some("UP" | "INIT"));
            let at = broker["nodename"].as_str().unwrap_or_default();
            if broker["state"] != "UP" {
                let is_told = broker["nodeid"].as_i64().is_some_and(|id| id >= 0);
                self.apart.extend(is_told.then(|| at.to_owned()));
                continue;
            }
            let id = broker["nodeid"]
                .as_i64()
                .and_then(|id| i32::try_from(id).ok());
            self.connected.extend(id);
            self.unreachable = false;
            let round_trip = broker["rtt"]["p99"].as_u64().filter(|micros| *micros > 0);
            self.round_trip = self.round_trip.max(round_trip.map(Duration::from_micros));
            let throttle = Duration::from_millis(broker["throttle"]["max"].as_u64().unwrap_or(0));
            let before = self
                .throttle
                .as_ref()
                .map_or(Duration::ZERO, |(_, most)| *most);
            if throttle > before {
                self.throttle = Some((at.to_owned(), throttle));
            }
        }
        self.retries = (retries, retries.saturating_sub(self.retries.0));
        self.identified = statistics["eos"]["idemp_state"] == "Assigned";
        let reached = !self.connected.is_empty();
        if reached && all_well {
            self.last_error = None;
        }
        reached
    }

    /// That a broker throttles us.
    pub(crate) fn throttled(&self) -> Option<String> {
        let (broker, most) = self.throttle.as_ref()?;
        Some(format!(
            "the broker {broker} throttles this client, for up to {most:?} a request, by a quota"
        ))
    }

    /// That brokers refuse what may be sent again, where nothing else is known.
    pub(crate) fn refused(&self) -> Option<String> {
        let (_, lately) = self.retries;
        (lately > 0).then(|| {
            "the brokers are connected and refuse requests for the moment, as with too few replicas in sync"
                .to_owned()
        })
    }

    /// Why something waits, as far as it is known.
    pub(crate) fn why(&self) -> Option<String> {
        let mut causes: Vec<&str> = self.causes.values().map(String::as_str).collect();
        causes.sort_unstable();
        causes.dedup();
        (!causes.is_empty()).then(|| causes.join("; "))
    }
}

#[cfg(test)]
mod tests;

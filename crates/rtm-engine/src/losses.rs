//! What may have been lost at the source, counted durably: the mark of a lane.
//!
//! The mark says whether the App ID's rings are being polled, and how many events each may have cost so far, by reason.
//! A mark that says "polling" at a start means that the last process died while it polled: each ring may have had
//! requests in flight, as many as ever at once, whose pages nobody stored. That is added and stored before anything is asked of Agora, together
//! with the new mark, so that a process that dies at once is counted once as well.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use bytes::Bytes;
use rtm_journal::Lane;
use rtm_source::Ring;
use serde::{Deserialize, Serialize};
use tracing::error;

use crate::chain;
use crate::lock::lock;
use crate::status::metrics::{LOSS_REASONS, Metrics};

/// How many events a request can cost: a full page.
pub(crate) const PAGE: u64 = rtm_source::MAX_PAGE_EVENTS as u64;

/// The most rings that a mark names, so that it stays small. Agora has eight region hosts, each with two rings; what
/// further rings cost counts under the last one.
const MARKED_RINGS: usize = 16;

/// The counts of one App ID.
#[derive(Debug)]
pub(crate) struct Losses {
    lane: Lane,
    mark: Mutex<Mark>,
    /// The most requests that each ring has had in flight at once, where it was more than one.
    in_flight: Mutex<HashMap<Ring, u64>>,
    /// The rings that are marked since the beginning.
    known: Mutex<HashSet<Ring>>,
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Mark {
    polling: bool,
    rings: Vec<RingLosses>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct RingLosses {
    #[serde(rename = "r")]
    region: String,
    #[serde(rename = "s")]
    stream: String,
    /// By [`LOSS_REASONS`].
    #[serde(rename = "l")]
    lost: [u64; LOSS_REASONS.len()],
    /// How many requests may have been in flight that count here: as many as there ever were at once.
    #[serde(rename = "p")]
    polled: u64,
}

/// What the death of the last process may have cost.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Crash {
    /// By region and stream.
    rings: Vec<(String, String, u64)>,
}

impl Crash {
    /// Events of all rings, also of those that are polled no more.
    pub(crate) fn events(&self) -> u64 {
        self.rings.iter().map(|(_, _, events)| events).sum()
    }

    /// Events of one ring.
    pub(crate) fn events_of(&self, ring: &Ring) -> u64 {
        let (region, stream) = (ring.region.name(), ring.stream.as_str());
        let of_ring = self
            .rings
            .iter()
            .filter(|(r, s, _)| r == region && s == stream);
        of_ring.map(|(_, _, events)| events).sum()
    }
}

/// What the mark of a lane says that may have been lost at the source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PossiblyLost {
    /// Events that are counted, since the journal was made.
    pub counted: u64,
    /// Events that the death of the last process may have cost, where it died: the next start on the journal counts them.
    pub uncounted: u64,
}

impl PossiblyLost {
    /// Of a lane's mark; nothing where that cannot be read.
    pub fn of_mark(mark: &[u8]) -> PossiblyLost {
        let mark: Mark = serde_json::from_slice(mark).unwrap_or_default();
        PossiblyLost {
            counted: mark.counted(),
            uncounted: mark.crash().map_or(0, |crash| crash.events()),
        }
    }
}

impl Losses {
    /// Reads the mark.
    pub(crate) fn read(lane: Lane) -> Losses {
        let mark: Mark = lane
            .mark()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        Losses {
            lane,
            mark: Mutex::new(mark),
            in_flight: Mutex::default(),
            known: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Shows the counts in `metrics`, where the app has none yet: also those of rings that are polled no more, and of these
    /// nothing else.
    pub(crate) fn show(&self, app: &str, metrics: &Metrics) {
        for ring in &lock(&self.mark).rings {
            for (reason, events) in LOSS_REASONS.iter().zip(ring.lost) {
                metrics.possibly_lost(app, &ring.region, &ring.stream, reason, events);
            }
        }
    }

    /// Says durably that `rings` are polled from now on, and counts what the death of the last process may have cost:
    /// says which, if it did die while it polled.
    pub(crate) async fn begin(
        &self,
        app: &str,
        rings: &[Ring],
        metrics: &Metrics,
    ) -> Option<Crash> {
        lock(&self.in_flight).clear();
        *lock(&self.known) = rings.iter().cloned().collect();
        let crashed = {
            let mut mark = lock(&self.mark);
            let crashed = mark.crash();
            for (region, stream, events) in crashed.iter().flat_map(|crash| &crash.rings) {
                mark.at(region, stream).add("crash", *events);
                metrics.crashed(app, region, stream, *events);
            }
            mark.polling = true;
            mark.rings.iter_mut().for_each(|ring| ring.polled = 0);
            for ring in rings {
                mark.ring(ring).polled += 1;
            }
            crashed
        };
        self.store().await;
        crashed
    }

    /// Says durably that further rings are polled from now on. One that was polled before since the beginning is marked
    /// already.
    pub(crate) async fn also(&self, rings: &[Ring]) {
        if rings.is_empty() {
            return;
        }
        for ring in rings {
            if lock(&self.known).insert(ring.clone()) {
                lock(&self.mark).ring(ring).polled += 1;
            }
        }
        self.store().await;
    }

    /// Says durably that `ring` may have so many requests in flight at once, until the end: each may cost a page. Returns
    /// at once where that is known already.
    pub(crate) async fn in_flight(&self, ring: &Ring, requests: u64) {
        if requests <= 1 {
            return;
        }
        let known = lock(&self.in_flight)
            .insert(ring.clone(), requests)
            .unwrap_or(1);
        if known >= requests {
            lock(&self.in_flight).insert(ring.clone(), known);
            return;
        }
        lock(&self.mark).ring(ring).polled += requests - known;
        self.store().await;
    }

    /// Counts events that `ring` may have cost, durably.
    pub(crate) async fn count(&self, ring: &Ring, reason: &str, events: u64) {
        if events == 0 {
            return;
        }
        lock(&self.mark).ring(ring).add(reason, events);
        self.store().await;
    }

    /// Events that all rings may have cost since the journal was made, also those that are polled no more.
    pub(crate) fn ever(&self) -> u64 {
        lock(&self.mark).counted()
    }

    /// Says durably that no request is in flight.
    pub(crate) async fn end(&self) {
        lock(&self.mark).polling = false;
        self.store().await;
    }

    async fn store(&self) {
        // One after the other, so that an older mark never comes after a newer one.
        let _turn = self.turn.lock().await;
        let bytes = serde_json::to_vec(&*lock(&self.mark)).unwrap_or_default();
        if let Err(error) = self.lane.set_mark(Some(Bytes::from(bytes))).await {
            error!(
                error = chain(&error),
                "the journal did not take the mark of polling: what the next start counts as possibly lost may be wrong"
            );
        }
    }
}

impl Mark {
    /// What is counted, of all rings.
    fn counted(&self) -> u64 {
        self.rings.iter().flat_map(|ring| ring.lost).sum()
    }

    /// What the death of the process that polls, as the mark says, costs at most.
    fn crash(&self) -> Option<Crash> {
        let polled = self.rings.iter().filter(|ring| ring.polled > 0);
        let cost = |ring: &RingLosses| {
            let events = PAGE * ring.polled;
            (ring.region.clone(), ring.stream.clone(), events)
        };
        self.polling.then(|| Crash {
            rings: polled.map(cost).collect(),
        })
    }

    fn ring(&mut self, ring: &Ring) -> &mut RingLosses {
        self.at(ring.region.name(), ring.stream.as_str())
    }

    fn at(&mut self, region: &str, stream: &str) -> &mut RingLosses {
        let known = self
            .rings
            .iter()
            .position(|known| known.region == region && known.stream == stream);
        let index = known.unwrap_or_else(|| {
            if self.rings.len() < MARKED_RINGS {
                self.rings.push(RingLosses {
                    region: region.to_owned(),
                    stream: stream.to_owned(),
                    lost: [0; LOSS_REASONS.len()],
                    polled: 0,
                });
            }
            self.rings.len() - 1
        });
        &mut self.rings[index]
    }
}

impl RingLosses {
    fn add(&mut self, reason: &str, events: u64) {
        let index = LOSS_REASONS
            .iter()
            .position(|known| *known == reason)
            .unwrap_or(LOSS_REASONS.len() - 1);
        self.lost[index] += events;
    }
}

#[cfg(test)]
mod tests;

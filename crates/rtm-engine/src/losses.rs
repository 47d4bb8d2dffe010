//! What may have been lost at the source, counted durably: the mark of a lane.
//!
//! The mark says whether the App ID's rings are being polled, and how many events each may have cost so far, by reason.
//! A mark that says "polling" at a start means that the last process died while it polled: each ring may have had
//! requests in flight, as many as ever at once, whose pages nobody stored. That is added and stored before anything is asked of Agora, together
//! with the new mark, so that a process that dies at once is counted once as well.

use std::collections::HashMap;
use std::sync::Mutex;

use bytes::Bytes;
use rtm_journal::{AppendError, Lane};
use rtm_source::Ring;
use serde::{Deserialize, Serialize};

use crate::lock::lock;
use crate::status::metrics::{LOSS_REASONS, Metrics};

/// How many events a request can cost: a full page.
pub const PAGE: u64 = rtm_source::MAX_PAGE_EVENTS as u64;

/// The most rings that a mark names, so that it stays small. Agora has eight region hosts, each with two rings; what
/// further rings cost counts under the last one.
const MARKED_RINGS: usize = 16;

/// The counts of one App ID.
#[derive(Debug)]
pub struct Losses {
    lane: Lane,
    mark: Mutex<Mark>,
    /// The most requests that each ring has had in flight at once, where it was more than one.
    in_flight: Mutex<HashMap<Ring, u64>>,
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

impl Losses {
    /// Reads the mark.
    #[must_use]
    pub fn read(lane: Lane) -> Losses {
        let mark: Mark = lane
            .mark()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        Losses {
            lane,
            mark: Mutex::new(mark),
            in_flight: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Shows the counts in `metrics`, where the app has none yet: also those of rings that are polled no more, and of these
    /// nothing else.
    pub fn show(&self, app: &str, metrics: &Metrics) {
        for ring in &lock(&self.mark).rings {
            for (reason, events) in LOSS_REASONS.iter().zip(ring.lost) {
                metrics.possibly_lost(app, &ring.region, &ring.stream, reason, events);
            }
        }
    }

    /// Says durably that `rings` are polled from now on, and counts what the death of the last process may have cost:
    /// says how many events, if it did die while it polled.
    ///
    /// # Errors
    ///
    /// As [`Lane::set_mark`].
    pub async fn begin(
        &self,
        app: &str,
        rings: &[Ring],
        metrics: &Metrics,
    ) -> Result<Option<u64>, AppendError> {
        lock(&self.in_flight).clear();
        let crashed = {
            let mut mark = lock(&self.mark);
            let mut crashed = None;
            if mark.polling {
                let mut cost = 0;
                for ring in mark.rings.iter_mut().filter(|ring| ring.polled > 0) {
                    let events = PAGE * ring.polled;
                    ring.add("crash", events);
                    metrics.crashed(app, &ring.region, &ring.stream, events);
                    cost += events;
                }
                crashed = Some(cost);
            }
            mark.polling = true;
            mark.rings.iter_mut().for_each(|ring| ring.polled = 0);
            for ring in rings {
                mark.ring(ring).polled += 1;
            }
            crashed
        };
        self.store().await?;
        Ok(crashed)
    }

    /// Says durably that further rings are polled from now on.
    ///
    /// # Errors
    ///
    /// As [`Lane::set_mark`].
    pub async fn also(&self, rings: &[Ring]) -> Result<(), AppendError> {
        if rings.is_empty() {
            return Ok(());
        }
        for ring in rings {
            lock(&self.mark).ring(ring).polled += 1;
        }
        self.store().await
    }

    /// Says durably that `ring` may have so many requests in flight at once, until the end: each may cost a page. Returns
    /// at once where that is known already.
    ///
    /// # Errors
    ///
    /// As [`Lane::set_mark`].
    pub async fn in_flight(&self, ring: &Ring, requests: u64) -> Result<(), AppendError> {
        if requests <= 1 {
            return Ok(());
        }
        let known = lock(&self.in_flight)
            .insert(ring.clone(), requests)
            .unwrap_or(1);
        if known >= requests {
            lock(&self.in_flight).insert(ring.clone(), known);
            return Ok(());
        }
        lock(&self.mark).ring(ring).polled += requests - known;
        self.store().await
    }

    /// Counts events that `ring` may have cost, durably.
    ///
    /// # Errors
    ///
    /// As [`Lane::set_mark`].
    pub async fn count(&self, ring: &Ring, reason: &str, events: u64) -> Result<(), AppendError> {
        if events == 0 {
            return Ok(());
        }
        lock(&self.mark).ring(ring).add(reason, events);
        self.store().await
    }

    /// Events that all rings may have cost since the journal was made, also those that are polled no more.
    #[must_use]
    pub fn ever(&self) -> u64 {
        let mark = lock(&self.mark);
        mark.rings.iter().flat_map(|ring| ring.lost).sum()
    }

    /// Says durably that no request is in flight.
    ///
    /// # Errors
    ///
    /// As [`Lane::set_mark`].
    pub async fn end(&self) -> Result<(), AppendError> {
        lock(&self.mark).polling = false;
        self.store().await
    }

    async fn store(&self) -> Result<(), AppendError> {
        // One after the other, so that an older mark never comes after a newer one.
        let _turn = self.turn.lock().await;
        let bytes = serde_json::to_vec(&*lock(&self.mark)).unwrap_or_default();
        self.lane.set_mark(Some(Bytes::from(bytes))).await
    }
}

impl Mark {
    fn ring(&mut self, ring: &Ring) -> &mut RingLosses {
        let (region, stream) = (ring.region.name(), ring.stream.as_str());
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
mod tests {
    use std::sync::Arc;

    use rtm_journal::{Journal, LaneName, Options};
    use rtm_source::{Region, Stream};

    use super::*;

    fn shown(lane: &Lane, metrics: &Metrics) -> Losses {
        let losses = Losses::read(lane.clone());
        losses.show("main", metrics);
        losses
    }

    /// Holds: a crash counts a page for each request that a ring ever had in flight at once, and a stop counts none.
    #[tokio::test]
    async fn a_crash_counts_every_request_that_may_have_been_in_flight() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path(), Options::default()).unwrap();
        let lane = journal.lane(&LaneName::try_from("0a1b").unwrap()).unwrap();
        let region = Arc::new(Region::builtin("eu-west-1").unwrap());
        let rings = Stream::ALL.map(|stream| Ring {
            region: Arc::clone(&region),
            stream,
        });
        let metrics = Metrics::new("1", "c");
        let begin = async || {
            let losses = shown(&lane, &metrics);
            let crashed = losses.begin("main", &rings, &metrics).await.unwrap();
            (losses, crashed)
        };
        let (losses, crashed) = begin().await;
        assert_eq!(crashed, None);
        for requests in [1, 2, 3, 2, 1] {
            losses.in_flight(&rings[0], requests).await.unwrap();
        }
        let (losses, crashed) = begin().await;
        assert_eq!(
            crashed,
            Some(4 * PAGE),
            "three of one ring, one of the other"
        );
        losses.in_flight(&rings[1], 2).await.unwrap();
        losses.end().await.unwrap();
        let (_, crashed) = begin().await;
        assert_eq!(crashed, None);
        assert_eq!(begin().await.1, Some(2 * PAGE));
    }

    /// Holds: of a region that was removed, a start shows what it may have lost, a crash while it was still polled included,
    /// and nothing else: nothing that says that it is polled, and nothing of a ring that lost nothing.
    #[tokio::test]
    async fn a_removed_region_shows_its_losses_only() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path(), Options::default()).unwrap();
        let lane = journal.lane(&LaneName::try_from("0a1b").unwrap()).unwrap();
        let rings = |region: &str| {
            let region = Arc::new(Region::builtin(region).unwrap());
            Stream::ALL.map(|stream| Ring {
                region: Arc::clone(&region),
                stream,
            })
        };
        let (removed, kept) = (rings("us-east-1"), rings("eu-west-1"));
        let of_removed = |metrics: &Metrics| {
            let text = metrics.render();
            let mut series: Vec<String> = text
                .lines()
                .filter(|line| line.contains("us-east-1"))
                .map(str::to_owned)
                .collect();
            series.sort();
            series
        };
        let before = Metrics::new("1", "c");
        let losses = shown(&lane, &before);
        losses.begin("main", &removed, &before).await.unwrap();
        losses.count(&removed[0], "cut", 300).await.unwrap();
        losses.end().await.unwrap();
        let lost = |reason: &str, stream: &str, events: u64| {
            format!(
                "rtm_bridge_events_possibly_lost_total{{app=\"main\",reason=\"{reason}\",region=\"us-east-1\",stream=\"{stream}\"}} {events}"
            )
        };
        let stopped = Metrics::new("1", "c");
        let losses = shown(&lane, &stopped);
        let counted = [lost("cut", removed[0].stream.as_str(), 300)];
        assert_eq!(of_removed(&stopped), counted);
        assert_eq!(losses.ever(), 300);

        // Polled again, and then removed while the process was dead.
        losses.begin("main", &removed, &stopped).await.unwrap();
        let crashed = Metrics::new("1", "c");
        let losses = shown(&lane, &crashed);
        let cost = losses.begin("main", &kept, &crashed).await.unwrap();
        assert_eq!(cost, Some(2 * PAGE));
        let series = of_removed(&crashed);
        for stream in ["user", "channel"] {
            assert!(series.contains(&lost("crash", stream, PAGE)), "{series:#?}");
        }
        assert!(series.contains(&counted[0]), "{series:#?}");
        let is_loss = |line: &&String| {
            line.starts_with("rtm_bridge_events_possibly_lost_total{")
                || line.starts_with("rtm_bridge_pages_in_doubt_total{")
        };
        assert_eq!(series.iter().filter(is_loss).count(), series.len());
        assert_eq!(series.len(), 5, "{series:#?}");
    }

    #[test]
    fn the_largest_mark_fits_the_journal() {
        let ring = |index: u32| RingLosses {
            region: format!("{index:064}"),
            stream: "channel".to_owned(),
            lost: [10_000_000_000_000; LOSS_REASONS.len()],
            polled: 1_000,
        };
        let mark = Mark {
            polling: true,
            rings: (0..MARKED_RINGS as u32).map(ring).collect(),
        };
        let bytes = serde_json::to_vec(&mark).unwrap();
        assert!(
            bytes.len() <= rtm_journal::MAX_MARK_BYTES,
            "{} bytes",
            bytes.len()
        );
    }
}

//! A sink in memory that fails as a seed decides.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use rtm_sink::{Outcome, PublishError, PublishErrorKind, Reason, Record, Sink};
use tokio::sync::Notify;

/// See the module. Clones share everything, so that the store outlives the bridges that publish to it.
#[derive(Clone)]
pub struct SimulatedSink {
    shared: Arc<Shared>,
}

struct Shared {
    /// Shared with other clients of the same store.
    stored: Arc<Mutex<Vec<Record>>>,
    mood: Mutex<Mood>,
    /// Told when a poisoned record is published.
    pub poisoned: Notify,
}

/// What a sink does to calls.
#[derive(Debug, Clone)]
pub struct Mood {
    /// The share of calls that end in trouble: not stored, stored in part, or stored and not confirmed.
    pub fails: f64,
    /// The longest that a call takes.
    pub slow: Duration,
    /// Nothing is taken, and calls wait.
    pub away: bool,
    /// Nothing is taken, and calls fail at once.
    pub down: bool,
    /// How long a call goes on once its records are stored.
    pub confirms_after: Duration,
    /// The share of records that are refused for good, decided by the record's id. Dead letters are not refused.
    pub refused: f64,
    /// More bytes of payload than these are refused for good, of dead letters too.
    pub largest: Option<usize>,
    /// Topics that refuse every record, one by one and for good.
    pub refusing: Vec<&'static str>,
    /// The code of such a refusal.
    pub refusal: &'static str,
    /// Every topic refuses records whose timestamps are older than this, for good.
    pub oldest: Option<i64>,
    /// Topics that there are; all where there are none of these. What is for another is taken by nobody.
    pub topics: Vec<&'static str>,
    /// A record that holds this kills the process, other than as a dead letter.
    pub poison: Option<&'static str>,
    /// All chance.
    pub rng: Rng,
}

impl Default for Mood {
    /// Everything is taken at once.
    fn default() -> Mood {
        Mood {
            fails: 0.0,
            slow: Duration::ZERO,
            away: false,
            down: false,
            confirms_after: Duration::ZERO,
            refused: 0.0,
            largest: None,
            refusing: Vec::new(),
            refusal: "invalid",
            oldest: None,
            topics: Vec::new(),
            poison: None,
            rng: Rng::with_seed(0),
        }
    }
}

impl SimulatedSink {
    /// A sink that begins in this mood.
    #[must_use]
    pub fn new(mood: Mood) -> SimulatedSink {
        SimulatedSink {
            shared: Arc::new(Shared {
                stored: Arc::default(),
                mood: Mutex::new(mood),
                poisoned: Notify::new(),
            }),
        }
    }

    /// Another client of the same store, whose mood is its own.
    #[must_use]
    pub fn another(&self) -> SimulatedSink {
        SimulatedSink {
            shared: Arc::new(Shared {
                stored: Arc::clone(&self.shared.stored),
                mood: Mutex::default(),
                poisoned: Notify::new(),
            }),
        }
    }

    /// Changes what it does to calls.
    pub fn change(&self, change: impl FnOnce(&mut Mood)) {
        change(
            &mut self
                .shared
                .mood
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    /// Everything stored so far, in order.
    #[must_use]
    pub fn stored(&self) -> Vec<Record> {
        self.store().clone()
    }

    /// How many records are stored.
    #[must_use]
    pub fn len(&self) -> usize {
        self.store().len()
    }

    /// Whether nothing is stored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.store().is_empty()
    }

    /// Waits until a poisoned record is published.
    pub async fn poisoned(&self) {
        self.shared.poisoned.notified().await;
    }

    fn store(&self) -> std::sync::MutexGuard<'_, Vec<Record>> {
        self.shared
            .stored
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn mood(&self) -> Mood {
        let mut mood = self
            .shared
            .mood
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let copy = mood.clone();
        // The next call draws other numbers.
        mood.rng.u64(..);
        copy
    }
}

impl Sink for SimulatedSink {
    async fn publish(&self, records: &[Record]) -> Result<(), PublishError> {
        let mut mood = self.mood();
        if !mood.slow.is_zero() {
            let micros = mood.rng.u64(0..=mood.slow.as_micros() as u64);
            tokio::time::sleep(Duration::from_micros(micros)).await;
        }
        while self.mood().away {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        if mood.down {
            return Err(PublishError {
                kind: PublishErrorKind::Unavailable,
                outcomes: vec![Outcome::Unknown; records.len()],
                source: "down in the simulation".into(),
            });
        }
        let is_missing = |record: &Record| {
            !mood.topics.is_empty() && !mood.topics.contains(&record.topic.as_str())
        };
        if let Some(record) = records.iter().find(|record| is_missing(record)) {
            let why = format!("there is no topic {}", record.topic);
            let kind = PublishErrorKind::Misconfigured;
            return Err(PublishError::unknown(kind, records.len(), why));
        }
        let is_dead = |record: &Record| record.topic.as_str() == super::world::DEAD_LETTERS;
        if let Some(poison) = mood.poison {
            let needle = poison.as_bytes();
            let holds = |record: &Record| {
                !is_dead(record)
                    && record
                        .payload
                        .windows(needle.len())
                        .any(|part| part == needle)
            };
            if records.iter().any(holds) {
                self.shared.poisoned.notify_one();
                // The process dies here.
                std::future::pending::<()>().await;
            }
        }
        let fails = mood.rng.f64() < mood.fails;
        let way = mood.rng.u8(0..4);
        let (stops_at, lost_answer, kind) = match (fails, way) {
            (false, _) => (records.len(), false, PublishErrorKind::Unavailable),
            (true, 0) => (0, false, PublishErrorKind::Misconfigured),
            (true, 1) => (records.len(), true, PublishErrorKind::Unavailable),
            (true, _) => (
                mood.rng.usize(0..=records.len()),
                mood.rng.bool(),
                PublishErrorKind::Unavailable,
            ),
        };
        let mut outcomes = vec![Outcome::Unknown; records.len()];
        let mut refused = false;
        for (record, outcome) in records.iter().zip(&mut outcomes).take(stops_at) {
            // The same for every attempt.
            let size = record.payload.len();
            let code = if mood.largest.is_some_and(|largest| size > largest) {
                Some("too_large")
            } else if mood
                .oldest
                .is_some_and(|oldest| record.timestamp.0 < oldest)
            {
                Some("timestamp")
            } else if mood.refusing.contains(&record.topic.as_str()) {
                Some(mood.refusal)
            } else {
                None
            };
            if let Some(code) = code {
                refused = true;
                *outcome = Outcome::Rejected(Reason {
                    code,
                    message: "refused by the simulation, with many words".repeat(20),
                });
                continue;
            }
            let draw = Rng::with_seed(record.id.position << 20 ^ u64::from(record.id.offset)).f64();
            if !is_dead(record) && draw < mood.refused {
                refused = true;
                *outcome = Outcome::Rejected(Reason {
                    code: "too_large",
                    message: "refused by the simulation".to_owned(),
                });
            } else {
                self.store().push(record.clone());
                if !lost_answer {
                    *outcome = Outcome::Confirmed;
                }
            }
        }
        if !mood.confirms_after.is_zero() {
            tokio::time::sleep(mood.confirms_after).await;
        }
        if outcomes
            .iter()
            .all(|outcome| *outcome == Outcome::Confirmed)
        {
            return Ok(());
        }
        let kind = if refused && !fails {
            PublishErrorKind::Rejected
        } else {
            kind
        };
        Err(PublishError {
            kind,
            outcomes,
            source: "failed by the simulation".into(),
        })
    }
}

//! A sink in memory that fails as a seed decides.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use rtm_engine::lock;
use rtm_sink::{
    ExactLimits, Ground, Outcome, Progress, ProgressKey, PublishError, PublishErrorKind, Reason,
    Record, Sink,
};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// See the module. Clones share everything, so that the store outlives the bridges that publish to it.
#[derive(Clone)]
pub struct SimulatedSink {
    shared: Arc<Shared>,
}

struct Shared {
    /// Shared with other clients of the same store.
    stored: Arc<Mutex<Store>>,
    /// The version of each lane's progress that this client knows.
    expected: Mutex<HashMap<ProgressKey, u64>>,
    mood: Mutex<Mood>,
    /// What this client has seen of the store.
    ground: watch::Sender<Ground>,
    /// Told when a poisoned record is published.
    pub poisoned: Notify,
}

/// What is stored: records, and the progress of lanes, each in one with some records, with its version.
#[derive(Default)]
struct Store {
    records: Vec<Record>,
    progress: HashMap<ProgressKey, (u64, Bytes)>,
    /// The number of what was stored last: of a record, or of a progress.
    last: u64,
    /// What it was before each call that stored something, and when.
    before: Vec<Before>,
    /// Records that stand without the progress that they were stored with.
    torn: Vec<usize>,
    /// How often it went back.
    back: u64,
}

struct Before {
    at: Instant,
    records: usize,
    progress: HashMap<ProgressKey, (u64, Bytes)>,
    last: u64,
}

impl Store {
    /// Stores both, if nobody has stored progress of the lane since the version that is expected.
    fn commit(&mut self, records: &[Record], progress: &Progress, expected: u64) -> Option<u64> {
        let version = self.version(&progress.key);
        if version != expected {
            return None;
        }
        self.remember();
        self.records.extend_from_slice(records);
        let new = (version + 1, progress.value.clone());
        self.progress.insert(progress.key.clone(), new);
        self.last += records.len() as u64 + 1;
        Some(version + 1)
    }

    fn remember(&mut self) {
        self.before.push(Before {
            at: Instant::now(),
            records: self.records.len(),
            progress: self.progress.clone(),
            last: self.last,
        });
    }

    /// Becomes what it was before some call within the last `most`. Of what that call stored, the first few records stay.
    fn go_back(&mut self, most: Duration, rng: &mut Rng, is_torn: bool) {
        let recent = self
            .before
            .iter()
            .filter(|before| before.at.elapsed() <= most);
        let recent = recent.count();
        if recent == 0 {
            return;
        }
        let after = self.before.len() + 1 - rng.usize(1..=recent);
        let ends = self
            .before
            .get(after)
            .map_or(self.records.len(), |next| next.records);
        self.before.truncate(after);
        let Some(Before {
            records,
            progress,
            last,
            ..
        }) = self.before.pop()
        else {
            return;
        };
        let stays = match is_torn {
            true => rng.usize(0..=ends - records),
            false => 0,
        };
        self.records.truncate(records + stays);
        self.torn.retain(|index| *index < records);
        self.torn.extend(records..records + stays);
        (self.progress, self.last) = (progress, last + stays as u64);
        self.back += 1;
    }

    fn version(&self, key: &ProgressKey) -> u64 {
        self.progress.get(key).map_or(0, |(version, _)| *version)
    }
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
    /// Records that one call may hold, where they are stored once and only once.
    pub exact: Option<usize>,
    /// Whether the store may go back behind what it has confirmed.
    pub goes_back: bool,
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
            exact: None,
            goes_back: false,
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
                expected: Mutex::default(),
                mood: Mutex::new(mood),
                ground: watch::Sender::default(),
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
                expected: Mutex::default(),
                mood: Mutex::default(),
                ground: watch::Sender::default(),
                poisoned: Notify::new(),
            }),
        }
    }

    /// It is the client of a new process.
    pub fn begin(&self) {
        lock(&self.shared.expected).clear();
        self.shared.ground.send_replace(Ground::default());
        self.look();
    }

    /// The store becomes what it was some time within the last `most`.
    pub fn go_back(&self, most: Duration) {
        let mut rng = self.mood().rng;
        let is_torn = self.exact().is_some();
        self.store().go_back(most, &mut rng, is_torn);
        self.look();
    }

    fn look(&self) {
        let last = self.store().last;
        self.shared.ground.send_if_modified(|ground| {
            let before = *ground;
            ground.look(before, 1, last);
            ground.back != before.back
        });
    }

    fn acknowledge(&self, since: Ground, first: u64, last: u64) {
        self.shared.ground.send_if_modified(|ground| {
            let before = ground.back;
            ground.acknowledge(since, first, last);
            ground.back != before
        });
    }

    /// Changes what it does to calls.
    pub fn change(&self, change: impl FnOnce(&mut Mood)) {
        change(&mut lock(&self.shared.mood));
    }

    /// Everything stored so far, in order.
    #[must_use]
    pub fn stored(&self) -> Vec<Record> {
        self.store().records.clone()
    }

    /// How many records are stored.
    #[must_use]
    pub fn len(&self) -> usize {
        self.store().records.len()
    }

    /// Whether nothing is stored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.store().records.is_empty()
    }

    /// Waits until a poisoned record is published.
    pub async fn poisoned(&self) {
        self.shared.poisoned.notified().await;
    }

    fn store(&self) -> std::sync::MutexGuard<'_, Store> {
        lock(&self.shared.stored)
    }

    fn mood(&self) -> Mood {
        let mut mood = lock(&self.shared.mood);
        let copy = mood.clone();
        // The next call draws other numbers.
        mood.rng.u64(..);
        copy
    }
}

impl SimulatedSink {
    /// What happens before a call stores anything.
    async fn receive(&self, records: &[Record]) -> Result<Mood, PublishError> {
        let back = self.store().back;
        let mut mood = self.mood();
        if !mood.slow.is_zero() {
            let micros = mood.rng.u64(0..=mood.slow.as_micros() as u64);
            tokio::time::sleep(Duration::from_micros(micros)).await;
        }
        while self.mood().away {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        if mood.down || self.store().back != back {
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
        Ok(mood)
    }
}

fn is_dead(record: &Record) -> bool {
    record.topic.as_str() == super::world::DEAD_LETTERS
}

impl Mood {
    /// Why a record is refused for good, the same for every attempt.
    fn refusal_of(&self, record: &Record) -> Option<Reason> {
        let size = record.payload.len();
        let code = if self.largest.is_some_and(|largest| size > largest) {
            "too_large"
        } else if self
            .oldest
            .is_some_and(|oldest| record.timestamp.0 < oldest)
        {
            "timestamp"
        } else if self.refusing.contains(&record.topic.as_str()) {
            self.refusal
        } else {
            let draw = Rng::with_seed(record.id.position << 20 ^ u64::from(record.id.offset)).f64();
            if is_dead(record) || draw >= self.refused {
                return None;
            }
            return Some(Reason {
                code: "too_large",
                message: "refused by the simulation".to_owned(),
            });
        };
        Some(Reason {
            code,
            message: "refused by the simulation, with many words".repeat(20),
        })
    }
}

impl Sink for SimulatedSink {
    async fn publish(&self, records: &[Record]) -> Result<(), PublishError> {
        let since = *self.shared.ground.borrow();
        let mut mood = self.receive(records).await?;
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
        let first = {
            let mut store = self.store();
            store.remember();
            store.last + 1
        };
        for (record, outcome) in records.iter().zip(&mut outcomes).take(stops_at) {
            if let Some(why) = mood.refusal_of(record) {
                refused = true;
                *outcome = Outcome::Rejected(why);
            } else {
                let mut store = self.store();
                store.records.push(record.clone());
                store.last += 1;
                drop(store);
                if !lost_answer {
                    *outcome = Outcome::Confirmed;
                }
            }
        }
        let last = self.store().last;
        if !mood.confirms_after.is_zero() {
            tokio::time::sleep(mood.confirms_after).await;
        }
        if outcomes.contains(&Outcome::Confirmed) {
            self.acknowledge(since, first, last);
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

    fn exact(&self) -> Option<ExactLimits> {
        let records = lock(&self.shared.mood).exact?;
        Some(ExactLimits {
            records,
            bytes: 1 << 20,
        })
    }

    async fn publish_exactly(
        &self,
        records: &[Record],
        progress: &Progress,
    ) -> Result<(), PublishError> {
        let since = *self.shared.ground.borrow();
        let mut mood = self.receive(records).await?;
        let expected = lock(&self.shared.expected).get(&progress.key).copied();
        let expected = expected.unwrap_or_default();
        let refusals = records.iter().map(|record| mood.refusal_of(record));
        let outcomes: Vec<Outcome> = refusals
            .map(|refusal| refusal.map_or(Outcome::Unknown, Outcome::Rejected))
            .collect();
        if outcomes.iter().any(|outcome| *outcome != Outcome::Unknown) {
            // Some brokers do not say which record it is.
            let is_told = records.len() == 1 || mood.rng.bool();
            let unknown = vec![Outcome::Unknown; records.len()];
            return Err(PublishError {
                kind: PublishErrorKind::Rejected,
                outcomes: if is_told { outcomes } else { unknown },
                source: "refused by the simulation".into(),
            });
        }
        let fails = mood.rng.f64() < mood.fails;
        let way = mood.rng.u8(0..4);
        if fails && way == 1 {
            // It is on its way, and nobody waits for it.
            let (stored, late) = (Arc::clone(&self.shared.stored), mood.rng.u64(0..3_000));
            let (records, progress) = (records.to_vec(), progress.clone());
            let back = self.store().back;
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(late)).await;
                let mut stored = lock(&stored);
                // What goes back has lost what was on its way.
                if stored.back == back {
                    stored.commit(&records, &progress, expected);
                }
            });
        }
        let stored = match (fails, way) {
            (true, 0 | 1) => None,
            _ => self.store().commit(records, progress, expected),
        };
        let last = self.store().last;
        if !mood.confirms_after.is_zero() {
            tokio::time::sleep(mood.confirms_after).await;
        }
        match stored {
            Some(version) if !fails => {
                lock(&self.shared.expected).insert(progress.key.clone(), version);
                self.acknowledge(since, last - records.len() as u64, last);
                Ok(())
            }
            _ => Err(PublishError::unknown(
                PublishErrorKind::Unavailable,
                records.len(),
                "no answer, or not what was expected, in the simulation",
            )),
        }
    }

    async fn recall(&self, key: &ProgressKey) -> Result<Option<Bytes>, PublishError> {
        let mood = self.receive(&[]).await?;
        let found = self.store().progress.get(key).cloned();
        if !mood.confirms_after.is_zero() {
            tokio::time::sleep(mood.confirms_after).await;
        }
        let version = found.as_ref().map_or(0, |(version, _)| *version);
        lock(&self.shared.expected).insert(key.clone(), version);
        Ok(found.map(|(_, value)| value))
    }

    fn ground(&self) -> Option<watch::Receiver<Ground>> {
        let goes_back = lock(&self.shared.mood).goes_back;
        goes_back.then(|| self.shared.ground.subscribe())
    }

    async fn torn(&self) -> Result<Vec<Bytes>, PublishError> {
        self.receive(&[]).await?;
        let store = self.store();
        let torn = store
            .torn
            .iter()
            .map(|index| store.records[*index].payload.clone());
        Ok(torn.collect())
    }
}

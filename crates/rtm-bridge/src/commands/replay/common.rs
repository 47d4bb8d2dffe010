//! What is common to both ways of publishing: records that may be stored twice, and records that are stored once.

use std::time::{Duration, Instant};

use anyhow::Context;
use backon::{BackoffBuilder, ExponentialBuilder};
use rtm_record::instead;
use rtm_sink::{Reason, Record, Timestamp};

/// Records that are handed to a sink at once: a page.
pub(super) const BATCH: usize = 1000;

/// With a rate, batches are so small that this many go out in a second.
const BATCHES_A_SECOND: u32 = 4;

/// How long a sink may confirm nothing, and an entry not be read, before the replay gives up. It can be gone on with.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// What became of events.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    /// They were published.
    pub(super) events: u64,
    /// Their dead letters were.
    pub(super) dead_letters: u64,
    /// The sink has them already, as events or as dead letters.
    pub(super) there: u64,
}

impl Counts {
    pub(super) fn add(&mut self, other: Counts) {
        self.events += other.events;
        self.dead_letters += other.dead_letters;
        self.there += other.there;
    }

    pub(super) fn all(&self) -> u64 {
        self.events + self.dead_letters + self.there
    }
}

/// What takes the place of a dead letter that is refused: the same with fewer bytes, or of now, if that is to blame.
pub(super) fn other(letter: &Record, why: &Reason) -> anyhow::Result<Record> {
    let now = Timestamp(jiff::Timestamp::now().as_millisecond());
    instead(letter, why, now).with_context(|| format!("a dead letter is refused: {why}"))
}

pub(super) fn backoff() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(2))
        .without_max_times()
        .build()
}

/// No more than so many records a second, evenly.
pub(super) struct Pace {
    rate: f64,
    /// Records in one call at most.
    pub(super) batch: usize,
    began: Instant,
    sent: u64,
}

impl Pace {
    pub(super) fn new(rate: u32) -> Pace {
        Pace {
            rate: f64::from(rate),
            batch: BATCH.min(rate.div_ceil(BATCHES_A_SECOND) as usize),
            began: Instant::now(),
            sent: 0,
        }
    }

    /// Waits until as many may go out.
    pub(super) async fn wait(&mut self, records: usize) {
        let due = Duration::from_secs_f64(self.sent as f64 / self.rate);
        tokio::time::sleep(due.saturating_sub(self.began.elapsed())).await;
        self.sent += records as u64;
    }
}

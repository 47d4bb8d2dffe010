//! Atomic batches: a page of records that JetStream stores whole or not at all, for one acknowledgement.
//!
//! A batch is plain publishes that name it and their place in it; only the last one, which commits it, needs an answer
//! (nats-server 2.12, ADR-50; `server/stream.go`: `processJetStreamAtomicBatchMsg`). Until then the server holds it aside
//! and checks next to nothing, so that whatever is wrong with one record refuses all.
//!
//! **Why order holds.** One batch at a time is on its way, and it holds the first records of the call that are not
//! settled. So nothing is stored before what came before it, whichever of two connections the server reads first, and
//! whether or not an acknowledgement was lost. What a batch cannot do is published *singly*: at most one record of a key
//! is in flight, and a failure stops the rest.
//!
//! **What a refusal means.** Nothing of the batch was stored by it. Any refusal is followed by the same records singly:
//! one that is known already shows itself as a duplicate, one that is too large is rejected alone, and what is wrong with
//! all of them is told by the first. No acknowledgement means that the fate of all is unknown; published again under the
//! same ids, they are refused as known if they are there, and then told apart singly.
//!
//! A batch never spans two journal entries, so that what is published again after a restart is cut in the same places.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_nats::header::HeaderValue;
use async_nats::jetstream::ErrorCode;
use bytes::Bytes;
use rtm_sink::Record;

use crate::headers::{Place, parse_name};
use crate::reply::Refusal;
use crate::subject;

/// Records in a batch at most, unless the server's configuration says less (`streamDefaultMaxAtomicBatchSize`).
pub(crate) const MAX_RECORDS: usize = 1000;

/// Payload in a batch at most: a page of Agora's is far below. The server holds batches aside, and in a cluster in
/// memory.
pub(crate) const MAX_BYTES: usize = 8 << 20;

/// An entry with so many records is a batch whatever its keys are; see [`next_part`].
const MANY_RECORDS: usize = 250;

/// An entry with fewer records is never a batch.
const MIN_RECORDS: usize = 8;

/// Small entries of which no key has more records than this are published singly: so many round trips.
const MAX_ROUNDS: usize = 4;

/// An answer is asked for after so many bytes without one. It says no more than that the server has come so far: without
/// it, a large page on a slow line would look like a server that is away.
const BYTES_PER_ANSWER: usize = 128 << 10;

/// What is left of the server's `max_payload` for the headers that are added, and for those of the record.
const HEADER_ROOM: usize = 1 << 10;

/// Whether, and how, this connection's JetStream stream takes batches.
#[derive(Debug)]
pub(crate) struct Batching {
    /// Whether the server has batches and the options want them.
    possible: bool,
    /// Whether the JetStream stream takes them, as far as is known.
    on: AtomicBool,
    /// Records in a batch at most.
    records: AtomicUsize,
    max_payload: usize,
}

/// How large a batch may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    records: usize,
    max_payload: usize,
}

/// How the next records are published.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Each with its own acknowledgement, in order, and without waiting for one another.
    Window(Range<usize>),
    /// As one batch.
    Batch(Range<usize>),
    /// Each with its own acknowledgement, and one of a key at a time.
    Singly(Range<usize>),
}

/// A batch on its way.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) range: Range<usize>,
    pub(crate) id: String,
    header: HeaderValue,
    unanswered_bytes: usize,
    pub(crate) refused: Option<Refused>,
    /// What the messages of progress at its end demand, where it is stored once and only once.
    pub(crate) demands: Option<Demands>,
    /// The server's words, where it was refused and is not published singly.
    pub(crate) refusal: Option<Refusal>,
}

/// What the messages of progress at a batch's end demand: see [`crate::exact`].
#[derive(Debug)]
pub(crate) struct Demands {
    /// The index of the first of them.
    pub(crate) from: usize,
    /// The sequence of the message that each is to follow.
    pub(crate) sequences: Vec<u64>,
    /// A newer one takes the older one's place.
    pub(crate) roll_up: bool,
}

/// Why a batch was not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// There are no batches here, or not any more.
    Disabled,
    /// The server takes so many records at most.
    TooLarge(usize),
    /// For what is wrong with one record, or with all: published singly, each shows whether it is wrong.
    Whole,
}

impl Batching {
    pub(crate) fn new(possible: bool, max_payload: usize) -> Batching {
        Batching {
            possible,
            on: AtomicBool::new(possible),
            records: AtomicUsize::new(MAX_RECORDS),
            max_payload,
        }
    }

    /// `None` where there are no batches. No batch is larger than the window, of which it takes its part at once.
    pub(crate) fn limits(&self, window: usize) -> Option<Limits> {
        self.on.load(Ordering::Relaxed).then(|| Limits {
            records: self.records.load(Ordering::Relaxed).min(window),
            max_payload: self.max_payload,
        })
    }

    /// There are no batches, until the JetStream stream allows them. Says whether that is news.
    pub(crate) fn disable(&self) -> bool {
        self.on.swap(false, Ordering::Relaxed)
    }

    /// The JetStream stream allows batches, or does not.
    pub(crate) fn allow(&self, allowed: bool) {
        self.on.store(allowed && self.possible, Ordering::Relaxed);
    }

    /// Lowers the limit. Says whether `records` is a stricter limit than before.
    pub(crate) fn shrink(&self, records: usize) -> bool {
        let before = self.records.fetch_min(records.max(1), Ordering::Relaxed);
        self.on.load(Ordering::Relaxed) && before > records.max(1)
    }
}

/// What to do with the records from `start` on.
///
/// The server makes, syncs and removes a file for each batch, which costs it as much as hundreds of records do. So small
/// entries are published singly, as many together as there are, where that takes few round trips: where a key has few
/// records in them. A small entry of few keys is a batch all the same, for one round trip.
pub(crate) fn next_part(records: &[Record], start: usize, limits: Limits) -> Part {
    let first = entry_end(records, start, limits.records);
    if first - start < MANY_RECORDS {
        let mut rounds = Rounds::default();
        let mut end = start;
        while end < records.len() {
            let next = entry_end(records, end, limits.records);
            let few = next - end < MANY_RECORDS && next - start <= limits.records;
            if !few || rounds.with(&records[end..next]) > MAX_ROUNDS {
                break;
            }
            end = next;
        }
        if end > start {
            return Part::Singly(start..end);
        }
    }
    let entry = &records[start..first];
    if entry.len() >= MIN_RECORDS && entry.iter().all(|record| fits(record, limits)) {
        Part::Batch(start..first)
    } else {
        Part::Singly(start..first)
    }
}

/// How many round trips records take, one of a key at a time.
#[derive(Default)]
struct Rounds<'a> {
    of_keys: HashMap<&'a Bytes, usize>,
    most: usize,
}

impl<'a> Rounds<'a> {
    fn with(&mut self, records: &'a [Record]) -> usize {
        for key in records.iter().filter_map(|record| record.key.as_ref()) {
            let count = self.of_keys.entry(key).or_default();
            *count += 1;
            self.most = self.most.max(*count);
        }
        self.most
    }
}

/// Where the journal entry of the record `start` ends, or as much of it as one batch may hold.
fn entry_end(records: &[Record], start: usize, most: usize) -> usize {
    let entry = |record: &Record| (record.id.epoch, record.id.position);
    let mut bytes = 0;
    let part = records[start..].iter().take(most).take_while(|record| {
        bytes += record.payload.len();
        let same = entry(record) == entry(&records[start]);
        same && bytes <= MAX_BYTES
    });
    // A record that is too large by itself is a part of its own.
    start + part.count().max(1)
}

/// Whether the server will take the record as a part of a batch, as far as can be told without it.
fn fits(record: &Record, limits: Limits) -> bool {
    let own = record.headers.iter();
    // Three times: every byte of a value may have to be escaped.
    let headers: usize = own
        .map(|(name, value)| name.len() + 3 * value.len() + 4)
        .sum();
    record.payload.len() + headers + HEADER_ROOM <= limits.max_payload
        && record
            .headers
            .iter()
            .all(|(name, _)| parse_name(name).is_some())
        && subject::fault(record.topic.as_str()).is_none()
}

impl Batch {
    pub(crate) fn new(range: Range<usize>, id: String) -> Batch {
        let header = id.parse().unwrap_or_default();
        Batch {
            range,
            id,
            header,
            unanswered_bytes: 0,
            refused: None,
            demands: None,
            refusal: None,
        }
    }

    pub(crate) fn place(&mut self, index: usize, record: &Record) -> Place {
        let commits = self.commits(index);
        self.unanswered_bytes += record.payload.len();
        let answered = commits || self.unanswered_bytes > BYTES_PER_ANSWER;
        if answered {
            self.unanswered_bytes = 0;
        }
        let demands = self.demands.as_ref();
        let follows = demands.and_then(|demands| {
            let behind = index.checked_sub(demands.from)?;
            demands.sequences.get(behind).copied()
        });
        Place {
            follows,
            rolls_up: follows.is_some() && demands.is_some_and(|demands| demands.roll_up),
            batch: self.header.clone(),
            sequence: index - self.range.start + 1,
            commits,
            answered,
        }
    }

    pub(crate) fn commits(&self, index: usize) -> bool {
        index + 1 == self.range.end
    }
}

impl Refusal {
    /// What the refusal of a batch of `count` records leads to.
    pub(crate) fn of_batch(&self, count: usize) -> Refused {
        match ErrorCode(self.err_code) {
            ErrorCode::ATOMIC_PUBLISH_DISABLED => Refused::Disabled,
            ErrorCode::ATOMIC_PUBLISH_TOO_LARGE_BATCH => {
                // "atomic publish batch is too large: <most>"
                let told = self.description.rsplit(' ').next();
                let told = told.and_then(|told| told.parse().ok());
                Refused::TooLarge(told.unwrap_or(count / 2))
            }
            _ => Refused::Whole,
        }
    }
}

#[cfg(test)]
mod tests;

//! What is being delivered to a sink.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use rtm_journal::{Entry, Epoch, Position};
use rtm_record::Prepared;
use rtm_sink::{Record, RecordId};
use rtm_source::MAX_PAGE_EVENTS;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::tally::{self, Tally};

/// Records in one batch at most: four full pages, which a broker confirms in some tens of milliseconds. A record costs two
/// kilobytes of memory until it is confirmed, its client's included, and what a batch has taken the process keeps: twice as
/// many drain a backlog no faster than anybody needs.
pub(crate) const MAX_BATCH_RECORDS: usize = 4_000;

/// Bytes of payload in one batch at most, give or take one page.
const MAX_BATCH_BYTES: usize = 2 << 20;

/// Records that a page may have: room for so many is taken before it is read.
const PAGE_ROOM: u32 = MAX_PAGE_EVENTS as u32;

/// All of an entry is settled, whatever the offsets of its events.
pub(crate) const WHOLE: u32 = u32::MAX;

/// What a batch is while it is delivered.
#[derive(Default)]
pub(crate) struct Batch {
    /// The entries that it was made from.
    pub(crate) entries: Vec<Entry>,
    /// What is not yet settled, in order.
    pub(crate) records: Vec<Record>,
    /// For each of them.
    pub(crate) details: Vec<Detail>,
    /// What is settled.
    pub(crate) settled: Tally,
    /// The last entry, readable or not: the cursor goes there.
    pub(crate) through: Option<Position>,
    /// Of the entries that could be read the newest.
    pub(crate) newest: Option<(Position, Epoch)>,
    /// The part of an entry that it is, where the cursor does not move over it: see [`crate::exact`].
    pub(crate) part: Option<Part>,
    /// The broker has some of its records without the progress that they were given with.
    pub(crate) owes_progress: bool,
    /// Bytes of payload.
    pub(crate) bytes: usize,
    /// For the records beyond the first page.
    spare: Option<OwnedSemaphorePermit>,
}

/// A part of an entry: up to which offset its events are settled once the part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) position: Position,
    pub(crate) epoch: Epoch,
    pub(crate) to: u32,
}

impl Part {
    pub(crate) fn of(entry: &Entry, to: u32) -> Part {
        Part {
            position: entry.position,
            epoch: entry.epoch,
            to,
        }
    }
}

/// What is known of a record beside what the sink is given.
#[derive(Debug, Clone)]
pub(crate) struct Detail {
    /// Index of the journal entry it came from.
    pub(crate) entry: usize,
    /// The event's `ms`.
    pub(crate) ms: Option<i64>,
    /// Why it is a dead letter, if it is one.
    pub(crate) dead: Option<&'static str>,
    /// The dead letter as it was before it was cut, if it was.
    pub(crate) uncut: Option<Box<Record>>,
    /// The events that it stands for: more than one only for a dead letter of a whole entry.
    pub(crate) events: u64,
}

impl Batch {
    /// A batch from one entry, without records so far.
    pub(crate) fn of(entry: &Entry) -> Batch {
        Batch {
            entries: vec![entry.clone()],
            through: Some(entry.position),
            newest: Some((entry.position, entry.epoch)),
            ..Batch::default()
        }
    }

    /// The cursor is to go over this entry, too.
    pub(crate) fn reach(&mut self, entry: &Entry) {
        self.through = self.through.max(Some(entry.position));
        self.newest = self.newest.max(Some((entry.position, entry.epoch)));
    }

    /// The epoch of the newest entry that could be read.
    pub(crate) fn epoch(&self) -> Option<Epoch> {
        self.newest.map(|(_, epoch)| epoch)
    }

    /// Adds a record of the newest entry.
    pub(crate) fn push(&mut self, prepared: Prepared, events: u64) {
        self.bytes += prepared.record.payload.len();
        self.details.push(Detail {
            entry: self.entries.len().saturating_sub(1),
            ms: prepared.ms,
            dead: prepared.dead,
            uncut: None,
            events,
        });
        self.records.push(prepared.record);
    }

    /// Where what is not settled goes, each once.
    pub(crate) fn topics(&self) -> Vec<&str> {
        let topics = self.records.iter().map(|record| record.topic.as_str());
        let topics: BTreeSet<&str> = topics.collect();
        topics.into_iter().collect()
    }

    /// Whether one of these is among what is not settled.
    pub(crate) fn has_any(&self, ids: &HashSet<RecordId>) -> bool {
        !ids.is_empty() && self.records.iter().any(|record| ids.contains(&record.id))
    }

    /// Whether it has as much as a batch should have.
    pub(crate) fn is_full(&self) -> bool {
        self.records.len() >= MAX_BATCH_RECORDS || self.bytes >= MAX_BATCH_BYTES
    }

    /// Whether it may have another page, of what all batches of its sink may have together. To be followed by
    /// [`Batch::keep_room`].
    pub(crate) fn has_room(&mut self, spare: Arc<Semaphore>) -> bool {
        let Ok(room) = spare.try_acquire_many_owned(PAGE_ROOM) else {
            return false;
        };
        match &mut self.spare {
            Some(spare) => spare.merge(room),
            none => *none = Some(room),
        }
        true
    }

    /// Gives back what the page, which turned out to have so many records, did not need of its room.
    pub(crate) fn keep_room(&mut self, records: usize) {
        let unused = (PAGE_ROOM as usize).saturating_sub(records);
        drop(self.spare.as_mut().and_then(|spare| spare.split(unused)));
    }

    /// Counts what is not settled as if it were.
    pub(crate) fn count(&self, settled: &mut Tally) {
        count(&self.details, settled);
    }

    /// The events that are not settled.
    pub(crate) fn unsettled(&self) -> u64 {
        self.details.iter().map(|detail| detail.events).sum()
    }
}

/// Counts records that are confirmed.
pub(crate) fn count(confirmed: &[Detail], settled: &mut Tally) {
    for detail in confirmed {
        match detail.dead {
            Some(reason) => settled.dead_letter(tally::dead_letter_reason(reason), detail.events),
            None => settled.confirmed += detail.events,
        }
    }
}

#[cfg(test)]
mod tests;

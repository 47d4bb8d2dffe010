//! Once and only once: what a sink's broker knows of a lane, stored by it in one with the records, and what is to be
//! published after any doubt.
//!
//! **Progress** is what the journal would have committed: the cursor's position and the tally. With it goes what is settled
//! of entries behind that position, for a page may be larger than one call of the sink may hold, and pages that overlapped
//! are published out of the journal's order.
//!
//! **The rule of resuming.** An entry counts as published if its position is not above [`Told::through`] and its epoch is
//! [`Told::epoch`] or came before that one in this journal, or if it is in [`Told::open`]. Positions alone would lose
//! events: a journal that was restored from a backup numbers new entries like those that it has lost.
//!
//! **Two processes of one journal**, which is what a copy makes: whoever finds, after a publish of its own, the progress of
//! another process, and one that is no older, publishes nothing any more. A process that has published nothing yet takes
//! what it finds, so that the newest wins.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use rtm_journal::{Entry, Epoch, Position};
use rtm_sink::{ExactLimits, Progress, ProgressKey, RecordId};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tracing::warn;

use crate::batch::{Batch, MAX_BATCH_RECORDS, Part};
use crate::lock::lock;
use crate::tally::Tally;

/// The version of what is stored.
const VERSION: u32 = 1;

/// So many calls in a row are stored before larger ones are tried again: a server may have a limit that stays.
const CALM: u32 = 16;

/// What is known of a lane at a broker that stores records once and only once.
pub(crate) struct Exact {
    key: ProgressKey,
    /// This process.
    process: Epoch,
    /// Records in one call at most: fewer than the sink takes while a refusal of a call as a whole is looked into.
    records: usize,
    most_records: usize,
    /// Bytes of payload in one call at most.
    most_bytes: usize,
    /// Calls that were stored since `records` changed.
    calm: u32,
    /// The progress that the broker has.
    known: Option<Bytes>,
    /// The events that it says are settled.
    published: Option<u64>,
    /// Whether `known` may be wrong: the broker is to be asked before anything is published.
    is_in_doubt: bool,
    /// What this process has published.
    past: Arc<Mutex<Past>>,
    /// The entry at the cursor, as far as its epoch is known.
    at: (Position, Epoch),
    /// What is settled behind the cursor.
    open: Vec<Open>,
}

/// What this process has published of a lane, once and only once. It outlives the sink's client, which a reload may make
/// anew: of two processes of one journal the older one stays the older.
#[derive(Debug, Default)]
pub(crate) struct Past {
    /// How far, once it has published anything.
    through: Option<u64>,
    /// Another process has published since.
    is_fenced: bool,
}

/// How far an entry behind the cursor is settled: its position, its epoch, up to which offset, and what became of the events
/// up to there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Open(u64, #[serde(with = "hex")] u64, u32, Tally);

/// What a broker is told. Its form is a public interface: other versions read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told {
    v: u32,
    /// The process that publishes.
    #[serde(with = "hex")]
    process: u64,
    /// All entries up to here are settled.
    pub(crate) through: u64,
    /// The epoch of that entry.
    #[serde(with = "hex")]
    epoch: u64,
    /// What is settled of entries behind it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    open: Vec<Open>,
    /// What became of all events up to `through`.
    tally: Tally,
}

/// What a publish of unknown outcome turns out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It is stored.
    Stored,
    /// It is not, and may be published again.
    NotStored,
    /// The lane is somewhere else: it is to be resumed from there.
    Elsewhere,
}

impl Found {
    /// As a label of the metric of recalls.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Found::Stored => "stored",
            Found::NotStored => "not_stored",
            Found::Elsewhere => "elsewhere",
        }
    }
}

/// An entry behind the cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// Where it is in the journal.
    pub position: Position,
    /// Of the process that stored it; unknown of a damaged one.
    pub epoch: Option<Epoch>,
    /// As they were counted when it was stored.
    pub events: u64,
}

/// How the entries that wait compare with what the broker knows.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Shared {
    /// Up to here they are published.
    pub(crate) through: Option<Position>,
    /// The events in those.
    pub(crate) events: u64,
    /// All that the broker knows is in this journal, so that its tally is this journal's.
    pub(crate) is_all: bool,
}

impl Exact {
    pub(crate) fn new(
        key: ProgressKey,
        process: Epoch,
        limits: ExactLimits,
        past: Arc<Mutex<Past>>,
    ) -> Exact {
        let most_records = limits.records.clamp(1, MAX_BATCH_RECORDS);
        Exact {
            key,
            process,
            records: most_records,
            most_records,
            most_bytes: limits.bytes,
            calm: 0,
            known: None,
            published: None,
            is_in_doubt: true,
            past,
            at: (Position(0), Epoch(0)),
            open: Vec::new(),
        }
    }

    pub(crate) fn key(&self) -> &ProgressKey {
        &self.key
    }

    /// Whether the broker is to be asked before anything is published.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.is_in_doubt
    }

    /// Whether another process publishes the same journal, and so this one publishes nothing any more.
    pub(crate) fn is_fenced(&self) -> bool {
        lock(&self.past).is_fenced
    }

    /// A call was given up that may still be stored.
    pub(crate) fn suspect(&mut self) {
        self.is_in_doubt = true;
    }

    /// The cursor goes back, and the broker is to be asked.
    pub(crate) fn doubt(&mut self) {
        self.is_in_doubt = true;
        self.open.clear();
    }

    /// The events that are settled by the progress that the broker has.
    pub(crate) fn published(&self) -> Option<u64> {
        self.published
    }

    /// Records in one call at most.
    pub(crate) fn records(&self) -> usize {
        self.records
    }

    /// Whether a batch has more bytes than one call may have, and not because of a single record.
    pub(crate) fn is_too_large(&self, batch: &Batch) -> bool {
        let bytes = batch.records.iter().map(|record| record.payload.len());
        batch.records.len() > 1 && bytes.sum::<usize>() > self.most_bytes
    }

    /// A call is too large, or was refused as a whole: fewer records show which one is to blame. Says whether fewer are possible.
    pub(crate) fn divide(&mut self, records: usize) -> bool {
        self.records = (records / 2).max(1);
        self.calm = 0;
        records > 1
    }

    /// What is to be stored in one with the records of a batch.
    pub(crate) fn progress(&self, cursor: Position, tally: &Tally, batch: &Batch) -> Progress {
        let mut counted = batch.settled.clone();
        batch.count(&mut counted);
        let mut told = Told {
            v: VERSION,
            process: self.process.0,
            through: cursor.0,
            epoch: self.epoch_at(cursor).0,
            open: self.open.clone(),
            tally: tally.counts(),
        };
        if let Some(part) = batch.part {
            note(&mut told.open, part, &counted);
        } else if let Some(through) = batch.through {
            told.through = through.0;
            told.epoch = batch.epoch().map_or(told.epoch, |epoch| epoch.0);
            told.tally.add(&take_through(&mut told.open, through));
            told.tally.add(&counted);
        }
        Progress {
            key: self.key.clone(),
            value: serde_json::to_vec(&told).unwrap_or_default().into(),
        }
    }

    /// The epoch of the entry at the cursor. Unknown of a cursor that was there before this process: it is durable, and
    /// nobody will ask.
    fn epoch_at(&self, cursor: Position) -> Epoch {
        match self.at {
            (at, epoch) if at == cursor => epoch,
            _ => Epoch(0),
        }
    }

    /// The broker has stored it.
    pub(crate) fn stored(&mut self, progress: Progress) {
        let told = Told::parse(&progress.value);
        lock(&self.past).through = told.as_ref().map(|told| told.through);
        self.published = told.map(|told| told.settled());
        self.known = Some(progress.value);
        self.calm += 1;
        if self.calm >= CALM {
            self.records = (self.records * 2).min(self.most_records);
            self.calm = 0;
        }
    }

    /// What the broker's answer says of a call that was to store `tried`.
    pub(crate) fn judge(&mut self, tried: &Progress, found: Option<Bytes>) -> Found {
        if found.as_ref() == Some(&tried.value) {
            return Found::Stored;
        }
        if found == self.known {
            return Found::NotStored;
        }
        let Some(value) = found else {
            warn!("the broker has lost the progress of this lane; it is written anew");
            return Found::Elsewhere;
        };
        let published = lock(&self.past).through;
        if let (Some(told), Some(published)) = (Told::parse(&value), published)
            && told.process != self.process.0
            && !self.meets_another(&told)
        {
            // What came before ours is there again: the broker has lost what followed.
            warn!(
                through = told.through,
                published, "the broker has gone back behind what it had acknowledged"
            );
        }
        Found::Elsewhere
    }

    /// Whether another process has published since this one did: this one publishes nothing any more.
    pub(crate) fn meets_another(&self, told: &Told) -> bool {
        let mut past = lock(&self.past);
        let is_since = past
            .through
            .is_some_and(|published| told.through >= published);
        past.is_fenced |= is_since && told.process != self.process.0;
        past.is_fenced
    }

    /// Takes what the broker knows, with the cursor where it is by then. `waiting` are the entries behind the cursor.
    pub(crate) fn resume(
        &mut self,
        known: Option<Bytes>,
        told: Option<&Told>,
        cursor: Position,
        waiting: &[Waiting],
    ) {
        self.known = known;
        self.published = told.map(Told::settled);
        self.is_in_doubt = false;
        self.open.clear();
        let Some(told) = told else { return };
        if told.through == cursor.0 {
            self.at = (cursor, Epoch(told.epoch));
        }
        let is_here = |open: &Open| {
            let mut waiting = waiting.iter();
            waiting.any(|entry| (entry.position.0, entry.epoch) == (open.0, Some(Epoch(open.1))))
        };
        let open = told.open.iter().filter(|open| open.0 > cursor.0);
        self.open = open.filter(|open| is_here(open)).cloned().collect();
    }

    /// The offset up to which an entry behind the cursor is settled, if some of it is, and the events that are.
    pub(crate) fn settled_of(&self, entry: &Entry) -> Option<(u32, u64)> {
        let open = self.open_of(entry.position.0, entry.epoch.0)?;
        Some((open.2, open.3.settled()))
    }

    /// Whether a record of an entry behind the cursor is settled.
    pub(crate) fn has(&self, id: RecordId) -> bool {
        let open = self.open_of(id.position, id.epoch);
        open.is_some_and(|open| id.offset <= open.2)
    }

    fn open_of(&self, position: u64, epoch: u64) -> Option<&Open> {
        let mut open = self.open.iter();
        open.find(|open| (open.0, open.1) == (position, epoch))
    }

    /// A part is settled, and the cursor stays.
    pub(crate) fn settle_part(&mut self, part: Part, settled: &Tally) {
        note(&mut self.open, part, settled);
    }

    /// The cursor moves to `through`: what was settled behind it and counts now.
    pub(crate) fn commit(&mut self, through: Position, epoch: Option<Epoch>) -> Tally {
        self.at = (through, epoch.unwrap_or(self.at.1));
        take_through(&mut self.open, through)
    }
}

/// Notes what a part settles.
fn note(open: &mut Vec<Open>, part: Part, settled: &Tally) {
    let entry = (part.position.0, part.epoch.0);
    match open.iter_mut().find(|open| (open.0, open.1) == entry) {
        Some(known) => {
            known.2 = known.2.max(part.to);
            known.3.add(settled);
        }
        None => open.push(Open(entry.0, entry.1, part.to, settled.counts())),
    }
}

/// Takes out what is open no more, once all up to `through` is settled: what that counts.
fn take_through(open: &mut Vec<Open>, through: Position) -> Tally {
    let mut tally = Tally::default();
    for closed in open.extract_if(.., |open| open.0 <= through.0) {
        tally.add(&closed.3);
    }
    tally
}

impl Told {
    /// None where it is not ours to understand.
    pub(crate) fn parse(value: &[u8]) -> Option<Told> {
        let told: Told = serde_json::from_slice(value).ok()?;
        (told.v == VERSION).then_some(told)
    }

    /// The last entry of which it says anything.
    pub(crate) fn last(&self) -> Position {
        let open = self.open.iter().map(|open| open.0);
        Position(open.fold(self.through, u64::max))
    }

    /// What it counts up to its position.
    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The events that it says are settled.
    pub(crate) fn settled(&self) -> u64 {
        let open = self.open.iter().map(|open| open.3.settled());
        self.tally.settled() + open.sum::<u64>()
    }

    /// How far the entries behind the cursor, in the journal's order, are published.
    pub(crate) fn shared(&self, waiting: &[Waiting]) -> Shared {
        let mut shared = Shared::default();
        let mut events = 0;
        let mut is_last = false;
        for entry in waiting
            .iter()
            .take_while(|entry| entry.position.0 <= self.through)
        {
            events += entry.events;
            // What is damaged does not say whose it is, and stands beside what does.
            is_last = entry.epoch.map_or(is_last, |epoch| epoch.0 == self.epoch);
            if is_last {
                shared.through = Some(entry.position);
                shared.events = events;
            }
        }
        shared.is_all = shared.through == Some(Position(self.through));
        shared
    }

    /// How many of the entries that wait are of positions that are published, and not shared: of another history.
    pub(crate) fn foreign(&self, waiting: &[Waiting], shared: &Shared) -> usize {
        let is_foreign = |entry: &&Waiting| {
            entry.position.0 <= self.through && Some(entry.position) > shared.through
        };
        waiting.iter().filter(is_foreign).count()
    }
}

/// Numbers of processes as they are shown everywhere.
mod hex {
    use super::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde asks")]
    pub(super) fn serialize<S: Serializer>(number: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format!("{number:016x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        let text = String::deserialize(from)?;
        u64::from_str_radix(&text, 16).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;

//! Publishing an entry that is suspected of crashing the process: step by step, each noted durably before it is tried.
//!
//! Three crashes in a row without progress of a cursor lead here. What the last process had noted when it crashed is the
//! culprit: an entry whose decoding crashes becomes one dead letter, a record whose publishing crashes becomes a dead
//! letter by itself, and what crashes even as a dead letter is dropped, counted. A step that waits for its broker for
//! [`HARMLESS`] has not crashed anything, so that a bridge that is killed in an outage blames nobody.

use std::time::Duration;

use rtm_journal::{Entry, ReadError};
use rtm_record::entry::EntryError;
use rtm_record::{Prepared, SLICE};
use rtm_sink::Reason;
use tracing::error;

use crate::batch::{Batch, Part, WHOLE};
use crate::order::Group;
use crate::outlet::{Outlet, unreadable};
use crate::tally::{Step, Tally};

/// What waits so long for its broker does not crash the process.
pub(crate) const HARMLESS: Duration = Duration::from_secs(2);

/// The reason of what crashed the process, as a label.
const POISON: &str = "poison";

/// The steps in which a group of entries is published. Each is a batch, and is noted durably before it is handed out.
///
/// Entries come one by one, each with the cursor: in the journal's order then, which for pages that overlapped need not be
/// the ring's.
pub(crate) struct Steps {
    entries: std::vec::IntoIter<Result<Entry, ReadError>>,
    current: Option<Current>,
}

/// The entry that is being published.
struct Current {
    entry: Entry,
    left: Left,
    /// What the last process did with it when it crashed.
    crashed: Option<Step>,
}

/// What is left of an entry.
enum Left {
    Nothing,
    /// One dead letter, for this reason.
    Whole(Reason),
    /// Its records.
    Records {
        /// What is left of a slice of them.
        slice: std::vec::IntoIter<Prepared>,
        /// The index of the next.
        next: u32,
        /// Those before this one are settled.
        from: u32,
    },
}

impl Steps {
    pub(crate) fn new(mut group: Group) -> Steps {
        group.sort_by_key(|entry| match entry {
            Ok(entry) => Some(entry.position),
            Err(ReadError::Damaged { position, .. }) => Some(*position),
            Err(_) => None,
        });
        Steps {
            entries: group.into_iter(),
            current: None,
        }
    }

    /// The next step, which is noted; none when every entry is published and the cursor is behind the last. What was
    /// delivered of the step before is to be in the outlet's tally by then.
    pub(crate) async fn next(&mut self, outlet: &mut Outlet) -> Option<Batch> {
        loop {
            let Some(current) = &mut self.current else {
                match self.entries.next()? {
                    Ok(entry) => self.current = Some(Current::begin(outlet, entry).await),
                    Err(error) => {
                        let mut batch = Batch::default();
                        outlet.damaged(&mut batch, &error);
                        outlet.commit(&batch);
                    }
                }
                continue;
            };
            if let Some(batch) = current.next(outlet).await {
                return Some(batch);
            }
            outlet.commit(&Batch::of(&current.entry));
            self.current = None;
        }
    }
}

impl Current {
    async fn begin(outlet: &mut Outlet, entry: Entry) -> Current {
        let trying = outlet
            .tally
            .trying
            .filter(|trying| trying.position == entry.position.0);
        let crashed = trying
            .filter(|trying| trying.armed)
            .map(|trying| trying.step);
        // What was settled before is counted already.
        let reached = match trying.map(|trying| trying.step) {
            Some(Step::Record(index) | Step::DeadLetter(index)) => Some(index),
            // Decoded again, whatever was known: an outage has disarmed what was noted, and a crash needs a culprit.
            Some(Step::Decode | Step::Whole) | None => None,
        };
        let settled = outlet.exact().and_then(|exact| exact.settled_of(&entry));
        let settled_to = settled.map(|(to, _)| to);
        let left = match crashed {
            // The broker has all of it, with what that counts.
            _ if settled_to == Some(WHOLE) => Left::Nothing,
            Some(Step::Whole) => {
                error!(position = %entry.position, events = entry.count, "an entry crashes even as a dead letter: it is dropped");
                give_up(outlet, Part::of(&entry, WHOLE), POISON, entry.count.into());
                Left::Nothing
            }
            // An entry of which the broker has a part can be decoded.
            Some(Step::Decode) if settled_to.is_none() => {
                Left::Whole(poison("decoding this entry crashed the bridge"))
            }
            _ if reached.is_none() && !outlet.takes(&entry) => {
                let unsettled = outlet.unsettled(&entry);
                give_up(outlet, Part::of(&entry, WHOLE), "not_routed", unsettled);
                Left::Nothing
            }
            _ => {
                if reached.is_none() {
                    outlet.note(entry.position, Step::Decode).await;
                }
                match slice(outlet, &entry, 0) {
                    Ok(slice) => Left::Records {
                        slice,
                        next: 0,
                        // Where the broker knows what is settled, it is asked: it knows, in one, what that counts. What is
                        // published again it may have lost since.
                        from: reached
                            .filter(|_| outlet.exact().is_none() && !outlet.is_again())
                            .unwrap_or(0),
                    },
                    Err(error) => Left::Whole(unreadable(&error)),
                }
            }
        };
        Current {
            entry,
            left,
            crashed,
        }
    }

    async fn next(&mut self, outlet: &mut Outlet) -> Option<Batch> {
        match std::mem::replace(&mut self.left, Left::Nothing) {
            Left::Nothing => None,
            Left::Whole(why) => {
                outlet.note(self.entry.position, Step::Whole).await;
                let mut batch = Batch::of(&self.entry);
                batch.part = Some(Part::of(&self.entry, WHOLE));
                outlet.add_whole(&mut batch, &why);
                Some(batch)
            }
            Left::Records {
                slice: mut records,
                mut next,
                from,
            } => {
                let batch = loop {
                    let Some(prepared) = records.next() else {
                        records = slice(outlet, &self.entry, next as usize).ok()?;
                        if records.as_slice().is_empty() {
                            return None;
                        }
                        continue;
                    };
                    let index = next;
                    next += 1;
                    if index < from {
                        continue;
                    }
                    if let Some(batch) = self.record(outlet, index, prepared).await {
                        break batch;
                    }
                };
                self.left = Left::Records {
                    slice: records,
                    next,
                    from,
                };
                Some(batch)
            }
        }
    }

    /// One record by itself; none where it is not published.
    async fn record(
        &self,
        outlet: &mut Outlet,
        index: u32,
        mut prepared: Prepared,
    ) -> Option<Batch> {
        let events = u64::from(index < self.entry.count);
        if outlet.is_settled(prepared.record.id) {
            return None;
        }
        let part = Part::of(&self.entry, prepared.record.id.offset);
        if prepared.is_dropped {
            give_up(outlet, part, "copy", events);
            return None;
        }
        if outlet.is_torn(prepared.record.id) {
            let is_there = Tally {
                confirmed: events,
                ..Tally::default()
            };
            settle(outlet, part, is_there);
            return None;
        }
        match self.crashed {
            Some(Step::DeadLetter(culprit)) if culprit == index => {
                error!(id = %prepared.record.id, "a record crashes even as a dead letter: it is dropped");
                give_up(outlet, part, POISON, events);
                return None;
            }
            Some(Step::Record(culprit)) if culprit == index => {
                error!(id = %prepared.record.id, "publishing this record crashed the bridge: it goes to the dead letters");
                let why = poison("publishing this record crashed the bridge");
                let letter = outlet.router.refused(&self.entry, &prepared.record, &why);
                if let Ok(letter) = letter {
                    prepared.record = letter;
                }
                prepared.dead = Some(POISON);
                outlet
                    .note(self.entry.position, Step::DeadLetter(index))
                    .await;
            }
            _ => outlet.note(self.entry.position, Step::Record(index)).await,
        }
        let mut batch = Batch::of(&self.entry);
        batch.part = Some(part);
        batch.push(prepared, events);
        Some(batch)
    }
}

/// Counts events that are not published, as a part of their entry.
fn give_up(outlet: &mut Outlet, part: Part, reason: &'static str, events: u64) {
    let mut tally = Tally::default();
    tally.drop_events(reason, events);
    settle(outlet, part, tally);
}

/// Counts what became of a part of an entry.
fn settle(outlet: &mut Outlet, part: Part, settled: Tally) {
    let mut batch = Batch::default();
    batch.settled = settled;
    batch.part = Some(part);
    outlet.settle_part(&batch);
}

/// An entry's records from some index on, as many as memory should hold.
fn slice(
    outlet: &mut Outlet,
    entry: &Entry,
    from: usize,
) -> Result<std::vec::IntoIter<Prepared>, EntryError> {
    let mut page = outlet.router.page(entry, from..from + SLICE)?;
    outlet.judge(&mut page, entry.position);
    Ok(page.prepared.into_iter())
}

fn poison(message: &str) -> Reason {
    Reason {
        code: POISON,
        message: message.to_owned(),
    }
}

#[cfg(test)]
pub(crate) mod tests;

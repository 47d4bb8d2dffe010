//! One lane of a journal that no bridge runs on, published once and only once.
//!
//! The broker keeps the lane's progress as it does for a bridge on that journal, under the journal's own number. So what a
//! bridge has published is left out, and so is what an earlier drain has. No cursor of the journal moves.

use bytes::Bytes;
use rtm_journal::{Entry, Epoch, Position};
use rtm_sink::{ExactLimits, Progress, ProgressKey, RecordId};

use crate::batch::{Batch, Part};
use crate::exact::{Exact, Told};
pub use crate::exact::{Found, Waiting};
use crate::tally::Tally;

/// What a broker knows of a lane that is drained, and what the next records are to be stored in one with.
pub struct Drain {
    exact: Exact,
    cursor: Position,
    tally: Tally,
}

/// The progress that the broker has is of another version.
#[derive(Debug, thiserror::Error)]
#[error("it was published by another version of rtm-bridge, whose progress this one cannot read")]
pub struct NotOurs;

impl Drain {
    /// `cursor` and `tally` are those that the journal has of the sink. `process` is a random number.
    pub fn new(
        key: ProgressKey,
        process: Epoch,
        limits: ExactLimits,
        (cursor, tally): (Position, Tally),
    ) -> Drain {
        Drain {
            exact: Exact::new(key, process, limits, std::sync::Arc::default()),
            cursor,
            tally: tally.counts(),
        }
    }

    /// Whose progress it is.
    pub fn key(&self) -> &ProgressKey {
        self.exact.key()
    }

    /// Takes the progress that the broker has. `waiting` are all entries that the journal's cursor is not over, in order. Tells
    /// how many of them may be there already, though nobody knows: the journal is older than that progress, or there is none.
    ///
    /// # Errors
    ///
    /// [`NotOurs`].
    pub fn resume(&mut self, known: Option<Bytes>, waiting: &[Waiting]) -> Result<usize, NotOurs> {
        let told = known
            .as_deref()
            .map(|value| Told::parse(value).ok_or(NotOurs));
        let told = told.transpose()?;
        // Something was published, and the broker knows nothing of it any more.
        let mut unknown = match told.is_none() && self.tally.settled() > 0 {
            true => waiting.len(),
            false => 0,
        };
        if let Some(told) = &told {
            let shared = told.shared(waiting);
            self.cursor = self.cursor.max(shared.through.unwrap_or_default());
            match shared.is_all {
                true => self.tally = told.tally().clone(),
                false => self.tally.confirmed += shared.events,
            }
            unknown = told.foreign(waiting, &shared);
        }
        self.exact
            .resume(known, told.as_ref(), self.cursor, waiting);
        Ok(unknown)
    }

    /// Whether all of an entry is stored.
    pub fn is_settled(&self, entry: &Entry) -> bool {
        entry.position <= self.cursor
    }

    /// Whether a record is stored, as an event or as a dead letter.
    pub fn has(&self, id: RecordId) -> bool {
        id.position <= self.cursor.0 || self.exact.has(id)
    }

    /// What the next records of an entry are to be stored in one with: those up to offset `to`, or all that is left of it.
    /// `counts` is what becomes of them.
    pub fn progress(&self, entry: &Entry, to: Option<u32>, counts: &Tally) -> Progress {
        let mut batch = Batch::of(entry);
        batch.settled = counts.clone();
        batch.part = to.map(|to| Part::of(entry, to));
        self.exact.progress(self.cursor, &self.tally, &batch)
    }

    /// The broker has stored records that were given with `progress`, which was made of the rest.
    pub fn stored(&mut self, progress: Progress, entry: &Entry, to: Option<u32>, counts: &Tally) {
        match to {
            Some(to) => self.exact.settle_part(Part::of(entry, to), counts),
            None => {
                let open = self.exact.commit(entry.position, Some(entry.epoch));
                self.tally.add(&open);
                self.tally.add(counts);
                self.cursor = entry.position;
            }
        }
        self.exact.stored(progress);
    }

    /// What the broker's answer says of a call that was to store `tried`.
    pub fn judge(&mut self, tried: &Progress, found: Option<Bytes>) -> Found {
        self.exact.judge(tried, found)
    }
}

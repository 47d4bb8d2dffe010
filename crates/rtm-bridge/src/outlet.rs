//! One lane's way out to one sink: its cursor, what is counted with it, and what makes its records.

use std::sync::Arc;
use std::time::Duration;

use rtm_journal::{Entry, Journal, Lane, LaneName, Position, ReadError, Reader, ReaderName};
use rtm_sink::{Reason, Record};
use rtm_source::MAX_PAGE_EVENTS;
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};
use tracing::{debug, error, warn};

use crate::client::Client;
use crate::config::CopyPolicy;
use crate::copies::Copies;
use crate::metrics::{Metrics, SinkMetrics};
use crate::order::{Ahead, Group};
use crate::state::{PipelineState, SinkState};
use crate::tally::{Step, Tally, Trying};
use rtm_record::entry::EntryError;
use rtm_record::{Prepared, PreparedPage, Router};

/// Records that a page may have: room for so many is taken before it is read.
const PAGE_ROOM: u32 = MAX_PAGE_EVENTS as u32;

/// How long reading waits after the storage has failed.
const READ_PAUSE: Duration = Duration::from_secs(1);

/// How often a sink that may skip looks whether it must.
const SKIP_LOOK: Duration = Duration::from_millis(250);

/// So many crashes in a row without progress mean that something in the next entry causes them.
pub const POISON_CRASHES: u32 = 3;

/// See the module.
pub struct Outlet {
    /// The app's name.
    pub app: String,
    /// Where the cursors are.
    pub lane: Lane,
    /// How copies are found, and what becomes of them.
    pub judges: Option<(CopyPolicy, Duration)>,
    /// The cursor.
    pub reader: Reader,
    /// Reads with it.
    pub ahead: Ahead,
    /// What makes records of entries.
    pub router: Router,
    /// What became of the events so far. Stored with the cursor.
    pub tally: Tally,
    /// Its metrics.
    pub metrics: SinkMetrics,
    /// All metrics.
    pub all_metrics: Arc<Metrics>,
    /// Whether it gets on.
    pub state: Arc<SinkState>,
    /// Which copies it has seen; none with a single region.
    pub copies: Option<CopyFilter>,
    /// Held by whoever tries what may crash the process: a crash then has one culprit.
    pub suspicion: Arc<tokio::sync::Mutex<()>>,
    /// Held by us.
    pub suspecting: Option<OwnedMutexGuard<()>>,
    /// Set where the sink may lose events rather than stop the polling: `when_full = "skip"`.
    pub skip: Option<Skip>,
    /// What it publishes with.
    pub client: Client,
}

/// What is known of copies, and the cursor that keeps the entries to know it again after a restart.
pub struct CopyFilter {
    /// What was seen.
    pub copies: Copies,
    /// Lags behind the sink's cursor by the window. None where copies are published: then they are only counted, and a
    /// restart may forget.
    pub behind: Option<Behind>,
}

/// Finds copies among the records of one entry.
struct Judging<'a> {
    filter: &'a mut CopyFilter,
    metrics: &'a SinkMetrics,
    position: Position,
    /// None of them was looked at.
    is_new: bool,
}

impl<'a> Judging<'a> {
    /// For the entry at `position`; none where there is a single region.
    fn begin(
        copies: &'a mut Option<CopyFilter>,
        metrics: &'a SinkMetrics,
        position: Position,
    ) -> Option<Judging<'a>> {
        Some(Judging {
            filter: copies.as_mut()?,
            metrics,
            position,
            is_new: true,
        })
    }

    /// Says whether the next record is dropped.
    fn judge(&mut self, region: &str, fetched_ms: i64, made: &mut Prepared) {
        let CopyFilter { copies, behind } = &mut *self.filter;
        if std::mem::take(&mut self.is_new) {
            copies.entry(fetched_ms, self.position);
        }
        if made
            .event_key
            .is_some_and(|key| copies.is_copy(key, region))
        {
            self.metrics.copies.inc();
            made.is_dropped = behind.is_some();
        }
    }
}

/// The cursor that lags.
pub struct Behind {
    /// Holds entries back.
    pub reader: Reader,
    /// The last entry that it has read.
    read: Position,
}

impl Behind {
    /// A cursor for one outlet.
    #[must_use]
    pub fn new(reader: Reader) -> Behind {
        let read = reader.committed();
        Behind { reader, read }
    }
}

/// What decides whether a sink must skip.
pub struct Skip {
    /// The journal that is full.
    pub journal: Journal,
    /// The lane.
    pub lane: LaneName,
    /// Whether its polling has stopped.
    pub pipeline: Arc<PipelineState>,
    /// Readers of the lane that never skip: where one of them is as far behind, skipping frees nothing.
    pub others: Vec<ReaderName>,
}

/// What a batch is while it is delivered.
#[derive(Default)]
pub struct Batch {
    /// The entries that it was made from.
    pub entries: Vec<Entry>,
    /// What is not yet settled, in order.
    pub records: Vec<Record>,
    /// For each of them.
    pub details: Vec<Detail>,
    /// What is settled.
    pub settled: Tally,
    /// The last entry, readable or not: the cursor goes there.
    pub through: Option<Position>,
    /// Bytes of payload.
    pub bytes: usize,
    /// For the records beyond the first page.
    spare: Option<OwnedSemaphorePermit>,
}

/// What is known of a record beside what the sink is given.
#[derive(Debug, Clone)]
pub struct Detail {
    /// Index of the journal entry it came from.
    pub entry: usize,
    /// The event's `ms`.
    pub ms: Option<i64>,
    /// Why it is a dead letter, if it is one.
    pub dead: Option<&'static str>,
    /// How often the broker refused it.
    pub refusals: u32,
    /// The events that it stands for: more than one only for a dead letter of a whole entry.
    pub events: u64,
}

impl Batch {
    /// A batch from one entry, without records so far.
    #[must_use]
    pub fn of(entry: &Entry) -> Batch {
        Batch {
            entries: vec![entry.clone()],
            through: Some(entry.position),
            ..Batch::default()
        }
    }

    /// Adds a record of the newest entry.
    pub fn push(&mut self, made: Prepared, events: u64) {
        self.bytes += made.record.payload.len();
        self.details.push(Detail {
            entry: self.entries.len().saturating_sub(1),
            ms: made.ms,
            dead: made.dead,
            refusals: 0,
            events,
        });
        self.records.push(made.record);
    }

    /// Whether it may have another page, of what all batches of its sink may have together. To be followed by
    /// [`Batch::keep_room`].
    pub fn has_room(&mut self, spare: Arc<Semaphore>) -> bool {
        if rtm_planted::bug("bridge-batches-without-bound") {
            return true;
        }
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
    pub fn keep_room(&mut self, records: usize) {
        let unused = (PAGE_ROOM as usize).saturating_sub(records);
        drop(self.spare.as_mut().and_then(|spare| spare.split(unused)));
    }

    /// The events that are not settled.
    #[must_use]
    pub fn unsettled(&self) -> u64 {
        self.details.iter().map(|detail| detail.events).sum()
    }
}

impl Outlet {
    /// Goes back to the cursor, as after a start. `crashed` says that the loop, or the process, ended by a crash since.
    pub async fn begin(&mut self, crashed: bool) {
        self.reader.rewind();
        self.ahead.clear();
        self.tally = Tally::decode(&self.reader.tally());
        self.remember().await;
        self.suspecting = None;
        if !crashed || rtm_planted::bug("bridge-poison-not-found") {
            self.tally.stalls = 0;
            if let Some(trying) = &mut self.tally.trying {
                trying.armed = false;
            }
        } else if self.reader.pending().entries > 0 {
            self.tally.stalls += 1;
            // Durable before anything is tried again.
            self.save().await;
            if self.is_careful() {
                error!(
                    crashes = self.tally.stalls,
                    "crash after crash without progress: publishing record by record to find the one that causes them"
                );
            }
        }
    }

    /// The next entries to publish, as soon as they are there. Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// As [`Ahead::next`].
    pub async fn next(&mut self) -> Result<Group, ReadError> {
        self.ahead.next(&mut self.reader).await
    }

    /// The next entries to publish, if they are there.
    ///
    /// # Errors
    ///
    /// As [`Ahead::next`].
    pub fn try_next(&mut self) -> Result<Option<Group>, ReadError> {
        self.ahead.try_next(&mut self.reader)
    }

    /// Whether the next entry is suspected of crashing us.
    #[must_use]
    pub fn is_careful(&self) -> bool {
        self.tally.stalls >= POISON_CRASHES || self.tally.trying.is_some()
    }

    /// Notes durably what is tried next, alone.
    pub async fn note(&mut self, position: Position, step: Step) {
        if self.suspecting.is_none() {
            let suspicion = Arc::clone(&self.suspicion);
            self.suspecting = Some(suspicion.lock_owned().await);
        }
        self.tally.trying = Some(Trying {
            position: position.0,
            step,
            armed: true,
        });
        self.save().await;
    }

    /// Whether something is noted that a crash would be blamed on.
    #[must_use]
    pub fn is_armed(&self) -> bool {
        self.tally.trying.is_some_and(|trying| trying.armed)
    }

    /// What was noted has not crashed us: it waits for its broker, which is another thing.
    pub async fn disarm(&mut self) {
        if let Some(trying) = self.tally.trying.as_mut().filter(|trying| trying.armed) {
            trying.armed = false;
            self.save().await;
            self.suspecting = None;
        }
    }

    async fn save(&mut self) {
        if let Err(error) = self.reader.save(&self.tally.encode()).await {
            warn!(
                error = crate::chain(&error),
                "the journal did not take the counts"
            );
        }
    }

    /// The cursor moves over a batch, all of which is settled, and the counts with it.
    pub fn commit(&mut self, batch: &Batch) {
        let Some(through) = batch.through else { return };
        self.tally.add(&batch.settled);
        self.tally.stalls = 0;
        self.tally.trying = None;
        self.suspecting = None;
        if let Err(error) = self.reader.commit_with(through, &self.tally.encode()) {
            error!(
                error = crate::chain(&error),
                "the journal did not take the cursor"
            );
        }
        if let Some(CopyFilter {
            copies,
            behind: Some(behind),
        }) = &mut self.copies
        {
            behind.follow(copies.horizon());
        }
    }

    /// The records of an entry, without copies where those are dropped, into the batch.
    pub fn add(&mut self, batch: &mut Batch, entry: &Entry) {
        let position = entry.position;
        batch.through = batch.through.max(Some(position));
        batch.entries.push(entry.clone());
        batch.records.reserve(entry.count as usize);
        batch.details.reserve(entry.count as usize);
        let mut judging = Judging::begin(&mut self.copies, &self.metrics, position);
        let added = self.router.each(entry, |tags, mut made| {
            if let Some(judging) = &mut judging {
                judging.judge(&tags.region, tags.fetched_at, &mut made);
            }
            if made.is_dropped {
                let counted = !rtm_planted::bug("bridge-dropped-copies-not-counted");
                batch.settled.drop_events("copy", u64::from(counted));
            } else {
                batch.push(made, 1);
            }
        });
        match added {
            Ok(_) => {
                if rtm_planted::bug("bridge-last-record-lost") && batch.records.pop().is_some() {
                    batch.details.pop();
                    batch.settled.confirmed += 1;
                }
            }
            Err(error) => self.add_whole(batch, &unreadable(&error)),
        }
    }

    /// The newest entry of the batch as one dead letter.
    pub fn add_whole(&mut self, batch: &mut Batch, why: &Reason) {
        let Some(entry) = batch.entries.last() else {
            return;
        };
        let made = self.router.whole(entry, why);
        let events = entry.count.into();
        batch.push(made, events);
    }

    /// Finds the copies among an entry's records, and says which of them are dropped. To be asked once for each entry.
    pub fn judge(&mut self, page: &mut PreparedPage, position: Position) {
        let Some(mut judging) = Judging::begin(&mut self.copies, &self.metrics, position) else {
            return;
        };
        for made in &mut page.prepared {
            judging.judge(&page.region, page.fetched_ms, made);
        }
    }

    /// What could not be read: counted where its events are lost, waited for where they may not be.
    pub async fn unreadable(&mut self, batch: &mut Batch, error: &ReadError) {
        match error {
            ReadError::Damaged { position, count } => {
                self.all_metrics.journal_damaged();
                error!(
                    error = crate::chain(error),
                    events = count,
                    "an entry of the journal is lost for this sink"
                );
                batch.settled.drop_events("damaged", u64::from(*count));
                batch.through = batch.through.max(Some(*position));
            }
            ReadError::Io { .. } => {
                warn!(
                    error = crate::chain(error),
                    "the journal cannot be read; trying again"
                );
                tokio::time::sleep(READ_PAUSE).await;
            }
            ReadError::Closed => {}
        }
    }

    /// Reads again what copies may follow.
    pub async fn remember(&mut self) {
        let through = self.reader.committed();
        if rtm_planted::bug("bridge-copies-forgotten-at-restart") {
            return;
        }
        let Some(CopyFilter {
            copies,
            behind: Some(behind),
        }) = &mut self.copies
        else {
            return;
        };
        behind.reader.rewind();
        copies.recall(behind.reader.committed() == Position(0));
        behind.read = behind.reader.committed();
        while behind.read < through {
            match behind.reader.try_next() {
                Ok(Some(entry)) => {
                    behind.read = entry.position;
                    if entry.position <= through {
                        recall(copies, &entry);
                    }
                }
                Ok(None) => break,
                Err(ReadError::Damaged { position, .. }) => behind.read = position,
                Err(error) => {
                    debug!(error = crate::chain(&error), "not remembered");
                    break;
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// Returns when the sink must let go of what it has, so that polling can go on.
    pub async fn must_skip(skip: Option<&Skip>) {
        let Some(skip) = skip else {
            return std::future::pending().await;
        };
        loop {
            tokio::time::sleep(SKIP_LOOK).await;
            if skip.pipeline.is_stopped() && skip.would_free() {
                return;
            }
        }
    }
}

impl Behind {
    fn follow(&mut self, horizon: Position) {
        while self.read < horizon {
            match self.reader.try_next() {
                Ok(Some(entry)) => self.read = entry.position,
                Err(ReadError::Damaged { position, .. }) => self.read = position,
                Ok(None) | Err(_) => break,
            }
        }
        self.reader.commit(horizon);
    }
}

impl Skip {
    /// Whether no other reader holds the oldest entries back as well.
    fn would_free(&self) -> bool {
        let stats = self.journal.stats();
        let Some(lane) = stats.lanes.iter().find(|lane| lane.name == self.lane) else {
            return false;
        };
        let is_other = |name: &ReaderName| self.others.contains(name);
        let own = lane
            .readers
            .iter()
            .filter(|reader| !is_other(&reader.name))
            .map(|reader| reader.committed)
            .min();
        let others = lane
            .readers
            .iter()
            .filter(|reader| is_other(&reader.name))
            .map(|reader| reader.committed)
            .min();
        own.is_some() && (others.is_none() || own < others)
    }
}

/// Why an entry that cannot be decoded becomes a dead letter.
#[must_use]
pub fn unreadable(error: &EntryError) -> Reason {
    Reason {
        code: "unreadable",
        message: crate::chain(error),
    }
}

fn recall(copies: &mut Copies, entry: &Entry) {
    let Ok((region, fetched_ms, keys)) = Router::keys(entry) else {
        return;
    };
    copies.entry(fetched_ms, entry.position);
    for key in keys {
        copies.is_copy(key, &region);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Holds: batches share what they may hold beyond their first page, and give back what they did not need, and all of
    /// it when they are settled.
    #[test]
    fn batches_share_their_room() {
        let spare = Arc::new(Semaphore::new(2 * PAGE_ROOM as usize));
        let [mut first, mut second, mut third] = [(); 3].map(|()| Batch::default());
        assert!(first.has_room(Arc::clone(&spare)) && second.has_room(Arc::clone(&spare)));
        assert!(!third.has_room(Arc::clone(&spare)), "all of it is taken");
        first.keep_room(1000);
        second.keep_room(10);
        assert!(
            !third.has_room(Arc::clone(&spare)),
            "not all of a page is left"
        );
        drop(first);
        assert_eq!(spare.available_permits(), 1990);
        assert!(second.has_room(Arc::clone(&spare)));
        second.keep_room(0);
        assert_eq!(spare.available_permits(), 1990);
        drop(second);
        assert_eq!(spare.available_permits(), 2000);
    }
}

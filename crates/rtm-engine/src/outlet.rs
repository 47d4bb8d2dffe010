//! One lane's way out to one sink: its cursor, what is counted with it, and what makes its records.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rtm_journal::{Entry, Journal, Lane, Position, ReadError, Reader, ReaderName};
use rtm_record::entry::{self, EntryError};
use rtm_record::{Owner, PreparedPage, Router, Routes, SLICE};
use rtm_sink::{Reason, Record, RecordId, Seldom, Topic};
use rtm_source::Stream;
use tokio::sync::{OwnedMutexGuard, watch};
use tokio::time::Instant;
use tracing::{error, warn};

use crate::batch::Batch;
use crate::chain;
use crate::copies::{CopyFilter, CopyRule};
use crate::lanes::{self, LaneError};
use crate::order::{Group, InFlightRequests, OrderedReader};
use crate::sink::RunningSink;
use crate::status::metrics::SinkMetrics;
use crate::status::sink::SinkState;
use crate::status::state::State;
use crate::tally::{Step, Tally, Trying};

/// How often a sink that may skip looks whether it must.
const SKIP_LOOK: Duration = Duration::from_millis(250);

/// So many crashes in a row without progress mean that something in the next entry causes them.
const POISON_CRASHES: u32 = 3;

/// So many records that a place refuses one after the other, and takes none in between, are not to blame themselves: the
/// place takes nothing. That is more than anyone's odd events in a row; and of a place that is set up wrongly fewer than so
/// many go to the dead letters, from where somebody has to bring them back.
const REFUSED_IN_A_ROW: usize = 20;

/// What a plan says of one lane's way out to one sink. It may change while the outlet runs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OutletPlan {
    /// The app's name, or what an App ID is shown as that has left the plan.
    pub(crate) app: String,
    /// The name that dead letters are routed by whose entry does not say whose it is.
    pub(crate) owner: String,
    /// Where records go, and what they look like.
    pub(crate) routes: Routes,
    /// The streams that the sink takes.
    pub(crate) streams: Vec<Stream>,
    /// How copies are found; none where a single region gives no copies.
    pub(crate) copy_rule: Option<CopyRule>,
    /// Whether and when the oldest events may be given up.
    pub(crate) skip: Skip,
    /// Whether it ends, and when.
    pub(crate) ending: Ending,
}

/// What becomes of events when the journal is full because of the sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Skip {
    /// They stay, and polling stops.
    Never,
    /// The oldest are given up, unless a cursor that is none of these is as far behind: then that frees nothing. These are
    /// the cursors of all sinks that skip.
    With(Vec<ReaderName>),
}

/// Whether an outlet ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It waits for more entries.
    Never,
    /// As soon as nothing waits.
    WhenEmpty,
    /// As soon as nothing waits, or the sink takes nothing, and at this moment at the latest.
    By(Instant),
    /// As soon as the batch that is being published is confirmed, or the sink takes nothing, and at this moment at the
    /// latest: another outlet goes on from there.
    AtOnce(Instant),
}

/// One lane's way out to one sink.
pub(crate) struct Outlet {
    /// What it does, by the plan that it has taken last.
    pub(crate) plan: OutletPlan,
    /// The plan that is in force.
    pub(crate) plans: watch::Receiver<OutletPlan>,
    /// What it publishes with.
    pub(crate) sink: RunningSink,
    /// What makes records of entries.
    pub(crate) router: Router,
    /// What became of the events so far. Stored with the cursor.
    pub(crate) tally: Tally,
    /// Its metrics.
    pub(crate) metrics: SinkMetrics,
    /// Whether it gets on.
    pub(crate) state: Arc<SinkState>,
    lane: Lane,
    /// The cursor.
    reader: Reader,
    /// Reads with the cursor.
    ordered: OrderedReader,
    /// Which copies it has seen; none with a single region.
    copies: Option<CopyFilter>,
    /// Tells whether the App ID's polling has stopped for want of room.
    status: Arc<State>,
    /// Held by the one outlet that tries what may crash the process: a crash then has one culprit.
    suspicion: Arc<tokio::sync::Mutex<()>>,
    /// The suspicion, while this outlet has it.
    suspecting: Option<OwnedMutexGuard<()>>,
    /// The places that refused the last records that they were given, and how many in a row. See [`Outlet::place`].
    refusing: HashMap<Option<Topic>, usize>,
    /// For the log, that records go to the dead letters, and that dead letters are cut.
    pub(crate) said_refused: Seldom,
    pub(crate) said_cut: Seldom,
}

/// What an outlet is made of, beside its plan.
pub(crate) struct OutletParts {
    pub(crate) lane: Lane,
    pub(crate) sink: RunningSink,
    pub(crate) requests: Arc<InFlightRequests>,
    pub(crate) state: Arc<SinkState>,
    pub(crate) status: Arc<State>,
    pub(crate) suspicion: Arc<tokio::sync::Mutex<()>>,
}

impl Outlet {
    /// Opens the cursor of the sink in the lane.
    pub(crate) fn open(
        parts: OutletParts,
        plans: watch::Receiver<OutletPlan>,
    ) -> Result<Outlet, LaneError> {
        let plan = plans.borrow().clone();
        let name = parts.sink.name();
        let copies = match plan.copy_rule {
            Some(rule) => Some(CopyFilter::open(rule, &parts.lane, name)?),
            None => None,
        };
        Ok(Outlet {
            reader: lanes::reader(&parts.lane, name)?,
            ordered: OrderedReader::new(parts.requests, parts.status.journal.epoch()),
            router: Router::new(plan.routes.clone()),
            tally: Tally::default(),
            metrics: parts.state.metrics(),
            state: parts.state,
            lane: parts.lane,
            sink: parts.sink,
            status: parts.status,
            suspicion: parts.suspicion,
            suspecting: None,
            refusing: HashMap::new(),
            said_refused: Seldom::default(),
            said_cut: Seldom::default(),
            copies,
            plan,
            plans,
        })
    }

    /// Goes back to the cursor, as after a start. `crashed` says that the loop, or the process, ended by a crash since.
    pub(crate) async fn begin(&mut self, crashed: bool) {
        self.reader.rewind();
        self.ordered.clear();
        self.tally = Tally::decode(&self.reader.tally());
        self.remember().await;
        self.suspecting = None;
        if !crashed {
            self.tally.stalls = 0;
            if let Some(trying) = &mut self.tally.trying {
                trying.armed = false;
            }
        } else if self.reader.pending().entries > 0 {
            self.tally.stalls += 1;
            // Durable before anything is tried again.
            self.save().await;
            if self.is_poisoned() {
                error!(
                    crashes = self.tally.stalls,
                    "crash after crash without progress: publishing record by record to find the one that causes them"
                );
            }
        }
    }

    /// Takes the plan that is in force, between two batches: where records go, and what becomes of copies.
    pub(crate) async fn renew(&mut self) {
        let plan = self.plans.borrow_and_update().clone();
        let old = std::mem::replace(&mut self.plan, plan);
        if old.app != self.plan.app {
            self.metrics = self.state.metrics();
        }
        if old.routes != self.plan.routes {
            self.route();
        }
        if old.copy_rule == self.plan.copy_rule {
            return;
        }
        // The lagging cursor can be open once.
        self.copies = None;
        if let Some(rule) = self.plan.copy_rule {
            match CopyFilter::open(rule, &self.lane, self.sink.name()) {
                Ok(copies) => self.copies = Some(copies),
                Err(error) => error!(
                    error = chain(&error),
                    "copies are published, and not looked for, until their rule changes or the next start"
                ),
            }
        }
        if !self.plan.copy_rule.is_some_and(|rule| rule.drops) {
            lanes::remove_lagging(&self.lane, self.sink.name()).await;
        }
        self.remember().await;
    }

    fn route(&mut self) {
        self.router = Router::new(self.plan.routes.clone());
        self.refusing.clear();
    }

    /// Whether the plan that is in force has other routes than those that are used.
    pub(crate) fn has_new_routes(&self) -> bool {
        self.plans.borrow().routes != self.plan.routes
    }

    /// Returns when the plan that is in force has other routes than those that are used.
    pub(crate) async fn new_routes(&self) {
        let mut plans = self.plans.clone();
        if plans
            .wait_for(|plan| plan.routes != self.plan.routes)
            .await
            .is_err()
        {
            std::future::pending::<()>().await;
        }
    }

    /// Takes the routes of the plan that is in force in the middle of a batch: what is not settled goes there from now on.
    /// Events are made anew of their entries. A dead letter stays one, and goes where dead letters go now.
    pub(crate) fn reroute(&mut self, batch: &mut Batch) {
        self.plan.routes = self.plans.borrow().routes.clone();
        self.route();
        let mut left = batch.records.iter_mut().zip(&mut batch.details).peekable();
        for (index, entry) in batch.entries.iter().enumerate() {
            let mut events: HashMap<RecordId, &mut Record> = HashMap::new();
            while let Some((record, detail)) = left.next_if(|(_, detail)| detail.entry == index) {
                if detail.dead.is_none() {
                    events.insert(record.id, record);
                    continue;
                }
                if let Some(uncut) = detail.uncut.take() {
                    *record = *uncut;
                }
                let owner = owner(&self.plan, &self.lane);
                record.topic = self.router.dead_letters_of(entry, owner);
            }
            for from in (0..=entry.count as usize).step_by(SLICE) {
                // The batch may have a slice of a large entry.
                if events.is_empty() {
                    break;
                }
                // What could be read before can be read again.
                let _ = self.router.each(entry, from..from + SLICE, |_, prepared| {
                    if let Some(record) = events.remove(&prepared.record.id) {
                        *record = prepared.record;
                    }
                });
            }
        }
    }

    /// What refuses together: a topic, or all subjects that name parts of an event.
    fn place(&self, record: &Record) -> Option<Topic> {
        let is_fixed = self.router.has_fixed_topics();
        is_fixed.then(|| record.topic.clone())
    }

    /// Notes that the place of an event's record takes records.
    pub(crate) fn accepted(&mut self, record: &Record) {
        if !self.refusing.is_empty() {
            self.refusing.remove(&self.place(record));
        }
    }

    /// Whether a record is refused for what it is itself, and another one of the same place may be taken. Else its place
    /// may be to blame.
    pub(crate) fn is_own_fault(&self, why: &Reason) -> bool {
        match why.code {
            Reason::TOO_LARGE | Reason::TIMESTAMP => true,
            // Made of parts of the event.
            "bad_subject" => !self.router.has_fixed_topics(),
            _ => false,
        }
    }

    /// Notes that an event's record was refused.
    pub(crate) fn refused(&mut self, record: &Record, why: &Reason) {
        if !self.is_own_fault(why) {
            *self.refusing.entry(self.place(record)).or_default() += 1;
        }
    }

    /// Whether the place of an event's record takes nothing, as far as can be told.
    pub(crate) fn takes_nothing(&self, record: &Record) -> bool {
        let refused = self.refusing.get(&self.place(record));
        refused.is_some_and(|refused| *refused >= REFUSED_IN_A_ROW)
    }

    /// Ends. Where nothing more comes, since the App ID has left the plan, what is kept to know copies goes.
    pub(crate) async fn end(mut self) {
        if self.plan.ending == Ending::WhenEmpty {
            self.copies = None;
            lanes::remove_lagging(&self.lane, self.sink.name()).await;
        }
    }

    /// Whether it is to end once nothing waits.
    pub(crate) fn is_ending(&self) -> bool {
        self.plan.ending != Ending::Never
    }

    /// The next entries to publish, as soon as they are there. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Group, ReadError> {
        let group = self.ordered.next(&mut self.reader).await;
        self.sink.count_late(self.ordered.take_late());
        group
    }

    /// The next entries to publish, if they are there.
    pub(crate) fn try_next(&mut self) -> Result<Option<Group>, ReadError> {
        let group = self.ordered.try_next(&mut self.reader);
        self.sink.count_late(self.ordered.take_late());
        group
    }

    /// Entries that the cursor has not passed.
    #[cfg(test)]
    pub(crate) fn pending(&self) -> u64 {
        self.reader.pending().entries
    }

    /// Whether something in the next entry is suspected of crashing the process: see [`crate::poison`].
    pub(crate) fn is_poisoned(&self) -> bool {
        self.tally.stalls >= POISON_CRASHES || self.tally.trying.is_some()
    }

    /// Notes durably what is tried next, alone.
    pub(crate) async fn note(&mut self, position: Position, step: Step) {
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
    pub(crate) fn is_armed(&self) -> bool {
        self.tally.trying.is_some_and(|trying| trying.armed)
    }

    /// Notes durably that what is tried has not crashed the process: it waits for its broker, which is another thing.
    pub(crate) async fn disarm(&mut self) {
        if let Some(trying) = self.tally.trying.as_mut().filter(|trying| trying.armed) {
            trying.armed = false;
            self.save().await;
            self.suspecting = None;
        }
    }

    async fn save(&mut self) {
        if let Err(error) = self.reader.save(&self.tally.encode()).await {
            warn!(error = chain(&error), "the journal did not take the counts");
        }
    }

    /// The cursor moves over a batch, all of which is settled, and the counts with it.
    pub(crate) fn commit(&mut self, batch: &Batch) {
        let Some(through) = batch.through else { return };
        self.tally.add(&batch.settled);
        self.tally.stalls = 0;
        self.tally.trying = None;
        self.suspecting = None;
        if let Err(error) = self.reader.commit_with(through, &self.tally.encode()) {
            error!(error = chain(&error), "the journal did not take the cursor");
        }
        if let Some(copies) = &mut self.copies {
            copies.follow();
        }
    }

    /// Whether the sink takes what an entry holds. An entry that cannot be read is taken: it becomes a dead letter.
    pub(crate) fn takes(&self, entry: &Entry) -> bool {
        if self.plan.streams.len() == Stream::ALL.len() {
            return true;
        }
        let stream = entry::ring(&entry.bytes).map(|(_, stream)| stream);
        stream.is_none_or(|stream| {
            let mut taken = self.plan.streams.iter();
            taken.any(|taken| taken.as_str() == stream)
        })
    }

    /// The records of an entry from some index on, without copies where those are dropped, into the batch: a [`SLICE`] at
    /// the most. Says whether there may be more.
    pub(crate) fn add(&mut self, batch: &mut Batch, entry: &Entry, from: usize) -> bool {
        let position = entry.position;
        batch.through = batch.through.max(Some(position));
        if !self.takes(entry) {
            batch.settled.drop_events("not_routed", entry.count.into());
            return false;
        }
        batch.entries.push(entry.clone());
        batch.records.reserve(SLICE.min(entry.count as usize));
        batch.details.reserve(SLICE.min(entry.count as usize));
        let (copies, metrics) = (&mut self.copies, &self.metrics);
        let mut is_begun = from > 0;
        // What an earlier version counted, which may have found one less.
        let mut left = u64::from(entry.count).saturating_sub(from as u64);
        let mut taken = 0;
        let added = self
            .router
            .each(entry, from..from + SLICE, |tags, mut prepared| {
                if let Some(copies) = copies {
                    if !std::mem::replace(&mut is_begun, true) {
                        copies.begin(tags.fetched_at, position);
                    }
                    metrics
                        .copies
                        .inc_by(copies.judge(&tags.region, &mut prepared).into());
                }
                let events = left.min(1);
                (left, taken) = (left - events, taken + 1);
                if prepared.is_dropped {
                    batch.settled.drop_events("copy", events);
                } else {
                    batch.push(prepared, events);
                }
            });
        if let Err(error) = added {
            self.add_whole(batch, &unreadable(&error));
        }
        taken == SLICE
    }

    /// The newest entry of the batch as one dead letter.
    pub(crate) fn add_whole(&mut self, batch: &mut Batch, why: &Reason) {
        let Some(entry) = batch.entries.last() else {
            return;
        };
        let owner = owner(&self.plan, &self.lane);
        let letter = self.router.whole(entry, owner, why);
        let events = entry.count.into();
        batch.push(letter, events);
    }

    /// Finds the copies among an entry's records, and says which of them are dropped. To be asked once for each record.
    pub(crate) fn judge(&mut self, page: &mut PreparedPage, position: Position) {
        if let Some(copies) = &mut self.copies {
            self.metrics
                .copies
                .inc_by(copies.judge_page(page, position));
        }
    }

    /// Counts what is damaged, whose events are lost. Whatever else cannot be read is waited for.
    pub(crate) fn damaged(&mut self, batch: &mut Batch, error: &ReadError) {
        if let ReadError::Damaged { position, count } = error {
            self.state.damaged();
            error!(
                error = chain(error),
                events = count,
                "an entry of the journal is lost for this sink"
            );
            batch.settled.drop_events("damaged", u64::from(*count));
            batch.through = batch.through.max(Some(*position));
        }
    }

    /// Reads again what copies may follow.
    async fn remember(&mut self) {
        let through = self.reader.committed();
        if let Some(copies) = &mut self.copies {
            copies.remember(through).await;
        }
    }

    /// What tells when the sink must let go of what it has, so that polling can go on.
    pub(crate) fn skip_watch(&self) -> SkipWatch {
        SkipWatch {
            plans: self.plans.clone(),
            status: Arc::clone(&self.status),
            lane: self.lane.clone(),
            sink: self.sink.name().to_owned(),
        }
    }
}

/// Tells when a sink must skip, by the plan that is in force at each moment: a batch may wait for hours.
pub(crate) struct SkipWatch {
    plans: watch::Receiver<OutletPlan>,
    status: Arc<State>,
    lane: Lane,
    sink: String,
}

impl SkipWatch {
    /// Returns when it must: when the App ID's polling has stopped for want of room, and to skip would give it some.
    pub(crate) async fn must_skip(&mut self) {
        loop {
            if self.plans.borrow_and_update().skip == Skip::Never {
                if self.plans.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
                continue;
            }
            tokio::time::sleep(SKIP_LOOK).await;
            let polling = self.status.pipeline(self.lane.name().as_str());
            let has_stopped = polling.is_some_and(|polling| polling.is_stopped());
            if let Skip::With(skipping) = &self.plans.borrow().skip
                && has_stopped
                && would_free(&self.status.journal, &self.lane, &self.sink, skipping)
            {
                return;
            }
        }
    }
}

/// Whether the cursor of this name holds the lane's oldest entries back, and no cursor but those of sinks that skip does so
/// as well.
fn would_free(journal: &Journal, lane: &Lane, own: &str, skipping: &[ReaderName]) -> bool {
    let stats = journal.stats();
    let Some(lane) = stats.lanes.iter().find(|stats| stats.name == *lane.name()) else {
        return false;
    };
    let readers = lane.readers.iter();
    let (skipping, others): (Vec<_>, Vec<_>) =
        readers.partition(|reader| skipping.contains(&reader.name));
    let oldest = skipping.iter().map(|reader| reader.committed).min();
    let own = skipping.iter().find(|reader| reader.name.as_str() == own);
    own.is_some_and(|own| {
        Some(own.committed) == oldest && others.iter().all(|other| own.committed < other.committed)
    })
}

fn owner<'a>(plan: &'a OutletPlan, lane: &'a Lane) -> Owner<'a> {
    Owner {
        app: &plan.owner,
        app_id: lane.name().as_str(),
    }
}

/// Why an entry that cannot be decoded becomes a dead letter.
pub(crate) fn unreadable(error: &EntryError) -> Reason {
    Reason {
        code: "unreadable",
        message: chain(error),
    }
}

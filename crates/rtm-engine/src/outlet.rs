//! One lane's way out to one sink: its cursor, what is counted with it, and what makes its records.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rtm_journal::{Entry, Journal, Lane, Position, ReadError, Reader, ReaderName};
use rtm_record::entry::{self, EntryError};
use rtm_record::{Owner, PreparedPage, Router, Routes, SLICE};
use rtm_sink::{Ground, Progress, ProgressKey, Reason, Record, RecordId, Seldom, Sink, Topic};
use rtm_source::Stream;
use tokio::sync::{OwnedMutexGuard, watch};
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::batch::Batch;
use crate::chain;
use crate::copies::{CopyFilter, CopyRule};
use crate::exact::{Exact, Found, Told, Waiting};
use crate::hold::{Hold, Lost};
use crate::lanes::{self, Lagging, LaneError};
use crate::order::{Group, InFlightRequests, OrderedReader, READ_PAUSE};
use crate::sink::RunningSink;
use crate::status::metrics::SinkMetrics;
use crate::status::sink::SinkState;
use crate::status::state::State;
use crate::tally::{Mark, Step, Tally, Trying};

/// How often a sink that may skip looks whether it must.
const SKIP_LOOK: Duration = Duration::from_millis(250);

/// So many crashes in a row without progress mean that something in the next entry causes them.
const POISON_CRASHES: u32 = 3;

/// So many records that a place refuses one after the other, and takes none in between, are not to blame themselves: the
/// place takes nothing. That is more than anyone's odd events in a row; and of a place that is set up wrongly fewer than so
/// many go to the dead letters, from where somebody has to bring them back.
const REFUSED_IN_A_ROW: usize = 20;

/// Why a lane waits whose journal another process publishes.
const FENCED: &str = "another process publishes a copy of this journal, and was started later; end one of the two, or give \
    this copy a number of its own with `rtm-bridge journal new-id`, and start it again";

/// Why a lane waits whose journal has no number yet that a crash would leave as it is.
const NUMBERLESS: &str = "the journal's number, under which the progress is stored, is not on its disk yet: the disk was full \
    at the start; free some space";

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
    /// For how long what is confirmed is held; zero for not at all.
    pub(crate) hold: Duration,
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
    /// What the broker has confirmed and may lose; none where it keeps what it has.
    hold: Option<Hold>,
    /// Records that the broker has without the progress that they were given with.
    torn: HashSet<RecordId>,
    /// The requests of the App ID that are in flight.
    requests: Arc<InFlightRequests>,
    /// Tells whether the App ID's polling has stopped for want of room.
    status: Arc<State>,
    /// Held by the one outlet that tries what may crash the process: a crash then has one culprit.
    suspicion: Arc<tokio::sync::Mutex<()>>,
    /// The suspicion, while this outlet has it.
    suspecting: Option<OwnedMutexGuard<()>>,
    /// A crash is to be counted once the broker has said what it has.
    has_crashed: bool,
    /// Read, and to be given out next.
    ahead: Option<Group>,
    /// What the broker knows, where it stores records once and only once.
    exact: Option<Exact>,
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
        let exact = parts.sink.client().exact().map(|limits| {
            let key = ProgressKey {
                journal: parts.status.journal.id(),
                sink: parts.sink.name().into(),
                lane: parts.lane.name().as_str().into(),
            };
            let past = parts.status.past(&key);
            Exact::new(key, parts.status.journal.epoch(), limits, past)
        });
        let reader = lanes::reader(&parts.lane, name)?;
        let (cursor, epoch) = (reader.committed(), parts.status.journal.epoch());
        let hold = match plan.held_for() {
            Duration::ZERO => None,
            window => Some(Hold::open(&parts.lane, name, window, cursor, epoch)?),
        };
        Ok(Outlet {
            ahead: None,
            exact,
            hold,
            torn: HashSet::new(),
            reader,
            ordered: OrderedReader::new(Arc::clone(&parts.requests), epoch),
            requests: parts.requests,
            router: Router::new(plan.routes.clone()),
            tally: Tally::default(),
            metrics: parts.state.metrics(),
            state: parts.state,
            lane: parts.lane,
            sink: parts.sink,
            status: parts.status,
            suspicion: parts.suspicion,
            has_crashed: false,
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
        self.tally = Tally::decode(&self.reader.tally());
        self.leave_again();
        if let Some(hold) = &mut self.hold {
            hold.begin(self.reader.committed(), self.tally.mark);
        }
        self.go_back().await;
        self.suspecting = None;
        self.has_crashed = false;
        if !crashed {
            self.tally.stalls = 0;
            if let Some(trying) = &mut self.tally.trying {
                trying.armed = false;
            }
        } else if self.exact.is_some() {
            // Nothing is tried before the broker has said what it has: a process that ends while it waits for that has crashed
            // of nothing here.
            self.has_crashed = true;
        } else {
            self.count_crash().await;
        }
    }

    /// Counts that the last process, or loop, crashed, unless nothing waits.
    async fn count_crash(&mut self) {
        let is_back = self.tally.mark.is_some_and(|mark| mark.is_back);
        if self.reader.pending().entries == 0 && !is_back {
            return;
        }
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

    /// Goes back to the cursor. What a broker knows of the lane is to be asked for again.
    pub(crate) async fn go_back(&mut self) {
        self.read_from_cursor().await;
        if let Some(exact) = &mut self.exact {
            exact.doubt();
        }
    }

    async fn read_from_cursor(&mut self) {
        self.leave_again();
        self.reader.rewind();
        self.ordered.clear();
        self.ahead = None;
        self.remember().await;
    }

    /// What the broker knows, where it stores records once and only once.
    pub(crate) fn exact(&mut self) -> Option<&mut Exact> {
        self.exact.as_mut()
    }

    /// Whether a batch has more bytes than one call may have, where the broker stores records once and only once.
    pub(crate) fn is_too_large(&self, batch: &Batch) -> bool {
        let exact = self.exact.as_ref();
        exact.is_some_and(|exact| exact.is_too_large(batch))
    }

    /// Says in the metrics whether another process publishes the same journal.
    pub(crate) fn show_fence(&self) {
        let is_fenced = self.exact.as_ref().is_some_and(Exact::is_fenced);
        self.metrics.fenced.set(f64::from(is_fenced));
    }

    /// Why nothing may be published once and only once, if that is so.
    pub(crate) fn why_not_exactly(&self) -> Option<&'static str> {
        let is_fenced = self.exact.as_ref().is_some_and(Exact::is_fenced);
        match is_fenced {
            true => Some(FENCED),
            false if !self.status.journal.has_durable_id() => Some(NUMBERLESS),
            false => None,
        }
    }

    /// Whether the broker is to be asked before anything is published: what it knows, or whether it has lost something.
    pub(crate) fn is_in_doubt(&mut self) -> bool {
        self.watch_ground();
        let is_moved = (self.hold.as_ref()).is_some_and(|hold| hold.is_moved(self.tally.mark));
        is_moved || self.exact.as_ref().is_some_and(Exact::is_in_doubt)
    }

    /// Whether it is to be asked before the first batch, by whoever has one.
    pub(crate) fn is_unsure(&self) -> bool {
        (self.hold.as_ref()).is_some_and(|hold| hold.is_unseen(self.tally.mark))
    }

    /// Returns when the broker has gone back behind what it had confirmed.
    pub(crate) fn moved(&self) -> impl Future<Output = ()> + Send + use<> {
        let moved = self.hold.as_ref().map(|hold| hold.moved(self.tally.mark));
        async move {
            match moved {
                Some(moved) => moved.await,
                None => std::future::pending().await,
            }
        }
    }

    fn watch_ground(&mut self) {
        if let Some(hold) = &mut self.hold {
            hold.watch(|| self.sink.client().ground());
        }
    }

    /// What the sink knows of its broker's store.
    pub(crate) fn ground(&mut self) -> Ground {
        self.watch_ground();
        self.hold
            .as_ref()
            .map_or_else(Ground::default, Hold::ground)
    }

    /// Notes that a batch of so many records is too large, or was refused as a whole. Says whether fewer are possible.
    pub(crate) fn divide(&mut self, records: usize) -> bool {
        let exact = self.exact.as_mut();
        exact.is_some_and(|exact| exact.divide(records))
    }

    /// What a batch is to be stored in one with, where the broker does that.
    pub(crate) fn progress(&self, batch: &Batch) -> Option<Progress> {
        let exact = self.exact.as_ref()?;
        let again = self.hold.as_ref().and_then(Hold::again);
        let (cursor, tally) = again.unwrap_or_else(|| (self.reader.committed(), &self.tally));
        Some(exact.progress(cursor, tally, batch))
    }

    /// What the broker's answer says of a call that was to store `tried`.
    pub(crate) fn judge_call(&mut self, tried: &Progress, found: Option<Bytes>) -> Found {
        let Some(exact) = &mut self.exact else {
            return Found::NotStored;
        };
        let found = exact.judge(tried, found);
        self.metrics.recalled(found.label());
        found
    }

    /// Takes what the broker knows of the lane: the cursor moves over what is published, and the counts with it. What it has
    /// confirmed and lost is to be published again. `ground` is from before it was asked.
    pub(crate) async fn resume(
        &mut self,
        known: Option<Bytes>,
        ground: Ground,
        torn: HashSet<RecordId>,
    ) {
        let told = known.as_deref().and_then(Told::parse);
        if let Some((exact, told)) = self.exact.as_mut().zip(told.as_ref())
            && exact.meets_another(told)
        {
            return;
        }
        self.leave_again();
        self.torn = torn;
        let mark = self.tally.mark;
        let lost_from = self.lost_from(told.as_ref(), ground);
        let is_foreign = known.is_some() && told.is_none();
        let is_missing = self.exact.is_some()
            && known.is_none()
            && lost_from.is_none()
            && self.tally.settled() > 0;
        if (is_foreign || is_missing) && self.reader.pending().entries > 0 {
            self.metrics.progress_unknown.inc();
        }
        if is_foreign {
            warn!(
                "the broker has a progress of this lane that this version cannot read; what waits is published"
            );
        }
        if is_missing {
            warn!(
                "the broker has no progress of this lane: what was in flight at the last crash may be there twice"
            );
        }
        self.reader.rewind();
        let mut waiting = match &told {
            Some(told) => waiting(&mut self.reader, told.last()).await,
            None => Vec::new(),
        };
        if let Some(told) = &told {
            self.adopt(told, &waiting);
        }
        let mut cursor = self.reader.committed();
        if let (Some(_), Some(hold), Some(told)) = (lost_from, &mut self.hold, &told) {
            waiting = self::waiting(hold.rewound(), told.last()).await;
        }
        if let Some(exact) = &mut self.exact {
            cursor = lost_from.unwrap_or(cursor);
            exact.resume(known, told.as_ref(), cursor, &waiting);
        }
        if std::mem::take(&mut self.has_crashed) {
            self.count_crash().await;
        }
        self.read_from_cursor().await;
        if let Some(from) = lost_from {
            self.begin_again(from, told.as_ref(), mark, ground).await;
        }
    }

    /// Behind which entry lies what the broker has confirmed and lost, if it has lost something.
    fn lost_from(&mut self, told: Option<&Told>, ground: Ground) -> Option<Position> {
        let hold = self.hold.as_mut()?;
        let mark = self.tally.mark;
        let is_back = hold.look(ground, mark);
        let from = match (&self.exact, told) {
            // The progress that was stored last is not there any more.
            (Some(_), Some(told)) => {
                let settled = mark.and_then(|mark| mark.settled);
                let is_back = settled.is_some_and(|settled| told.settled() < settled);
                is_back.then_some(Position(told.through))
            }
            (Some(_), None) if mark.is_none_or(|mark| mark.settled.is_none()) => None,
            (_, _) => is_back.then(|| hold.held_from()),
        };
        if from.is_none()
            && let Some(mark) = &mut self.tally.mark
        {
            mark.is_back = false;
        }
        from
    }

    /// What the broker has confirmed and lost behind `from` is published again, before anything else.
    async fn begin_again(
        &mut self,
        from: Position,
        told: Option<&Told>,
        mark: Option<Mark>,
        ground: Ground,
    ) {
        let (cursor, pending) = (self.reader.committed(), self.reader.pending().count);
        let Some(hold) = &mut self.hold else { return };
        let held = hold.events(pending);
        let lost = match told {
            Some(_) if from >= hold.held_from() => 0,
            Some(told) => (self.tally.settled())
                .saturating_sub(told.settled())
                .saturating_sub(held),
            // Of one that was made anew somebody knows.
            None if mark.is_some_and(|mark| mark.store != ground.store && ground.store != 0) => 0,
            None => hold.lost(ground).min(self.tally.settled()),
        };
        self.metrics.lost_at_broker.inc_by(lost);
        let dropped = self.plan.copy_rule.filter(|rule| rule.drops);
        let is_begin = hold.held_from() == Position(0);
        let again = dropped.map(|rule| CopyFilter::of_again(rule, is_begin));
        let copies = std::mem::replace(&mut self.copies, again);
        let tally = told.map_or_else(
            || Tally {
                confirmed: self.tally.settled().saturating_sub(held),
                ..Tally::default()
            },
            |told| told.tally().clone(),
        );
        let requests = Arc::clone(&self.requests);
        hold.begin_again(requests, (from, cursor), pending, tally, copies);
        let what =
            "the broker has lost what it had confirmed: what is held of it is published again";
        match lost {
            0 => warn!(held, "{what}"),
            lost => error!(held, lost, "{what}, and the rest may be lost for good"),
        }
        // Durable, and the cursor with it, before anything shows at the broker that looks as if it had never gone back.
        let mark = self.tally.mark.get_or_insert_default();
        mark.is_back = true;
        self.save().await;
    }

    /// Leaves what is being published again, which is then to be begun again.
    fn leave_again(&mut self) {
        if let Some(copies) = self.hold.as_mut().and_then(Hold::leave_again) {
            self.copies = copies;
            self.ahead = None;
        }
    }

    /// All that is held of what the broker has lost is published again.
    async fn end_again(&mut self) {
        let ended = self.hold.as_mut().and_then(Hold::end_again);
        let Some((events, given_up, copies)) = ended else {
            return;
        };
        self.copies = copies;
        self.ahead = None;
        self.metrics.lost_at_broker.inc_by(given_up);
        let published = self.exact.as_ref().and_then(Exact::published);
        if let Some(hold) = &mut self.hold
            && !hold.is_moved(self.tally.mark)
        {
            self.tally.mark = hold.mark(None, published);
            // It is confirmed anew.
            hold.begin(self.reader.committed(), self.tally.mark);
        }
        self.save().await;
        info!(
            events,
            given_up, "what the broker had lost is published again"
        );
    }

    /// The next of what the broker has lost, if it is there.
    fn next_lost(&mut self) -> Result<Lost, ReadError> {
        let Some(hold) = &mut self.hold else {
            return Ok(Lost::End);
        };
        loop {
            match hold.next()? {
                Lost::Known(group) => {
                    let entries = group.iter().flatten();
                    if let Some(copies) = &mut self.copies {
                        entries.for_each(|entry| copies.note(entry));
                    }
                }
                other => return Ok(other),
            }
        }
    }

    /// Whether what the broker has lost is being published again.
    pub(crate) fn is_again(&self) -> bool {
        (self.hold.as_ref()).is_some_and(|hold| hold.again().is_some())
    }

    /// Moves the cursor over what the broker has by the rule of resuming.
    fn adopt(&mut self, told: &Told, waiting: &[Waiting]) {
        let shared = told.shared(waiting);
        if let Some(through) = shared.through {
            if shared.is_all {
                let before = std::mem::replace(&mut self.tally, told.tally().clone());
                self.tally.trying = before.trying;
                self.tally.mark = before.mark;
                // An entry that a failing disk has forgotten the journal counts as lost, although it is published.
                let settled = self.tally.settled().saturating_sub(before.settled());
                let forgotten = settled.saturating_sub(shared.events);
                self.tally.confirmed = self.tally.confirmed.saturating_sub(forgotten);
            } else {
                self.tally.confirmed += shared.events;
            }
            if let Some(mark) = &mut self.tally.mark {
                mark.settled = Some(told.settled());
            }
            self.tally.stalls = 0;
            self.has_crashed = false;
            self.tally.trying = self
                .tally
                .trying
                .filter(|trying| trying.position > through.0);
            self.move_to(through);
        }
        let others = told.foreign(waiting, &shared);
        if others > 0 {
            self.metrics.progress_unknown.inc();
            error!(
                entries = others,
                "the sink has seen more of this journal than the journal has: was it restored from a backup? what waits is \
                 published, and may be there already"
            );
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
        self.leave_again();
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
            lanes::remove_lagging(&self.lane, self.sink.name(), Lagging::Copies).await;
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
            (self.copies, self.hold) = (None, None);
            for of in [Lagging::Copies, Lagging::Hold] {
                lanes::remove_lagging(&self.lane, self.sink.name(), of).await;
            }
        }
    }

    /// Whether it is to end once nothing waits.
    pub(crate) fn is_ending(&self) -> bool {
        self.plan.ending != Ending::Never
    }

    /// The next entries to publish, as soon as they are there. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Group, ReadError> {
        if let Some(group) = self.ahead.take() {
            return Ok(group);
        }
        while self.is_again() {
            match self.next_lost()? {
                Lost::Group(group) => return Ok(group),
                Lost::End => self.end_again().await,
                Lost::Known(_) | Lost::NotYet => tokio::time::sleep(READ_PAUSE).await,
            }
        }
        let group = self.ordered.next(&mut self.reader).await;
        self.sink.count_late(self.ordered.take_late());
        group
    }

    /// The next entries to publish, if they are there.
    pub(crate) fn try_next(&mut self) -> Result<Option<Group>, ReadError> {
        if let Some(group) = self.ahead.take() {
            return Ok(Some(group));
        }
        if self.is_again() {
            // What follows goes out in a batch of its own.
            return Ok(match self.next_lost()? {
                Lost::Group(group) => Some(group),
                Lost::Known(_) | Lost::NotYet | Lost::End => None,
            });
        }
        let group = self.ordered.try_next(&mut self.reader);
        self.sink.count_late(self.ordered.take_late());
        group
    }

    /// A group that was read is to be given out next.
    pub(crate) fn put_back(&mut self, group: Group) {
        self.ahead = Some(group);
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
        if self.is_again() {
            return self.commit_again(through, batch);
        }
        let mut published = None;
        if let Some(exact) = &mut self.exact {
            self.tally.add(&exact.commit(through, batch.epoch()));
            published = exact.published();
        }
        self.watch_ground();
        if let Some(hold) = &mut self.hold {
            self.tally.mark = hold.mark(self.tally.mark, published);
        }
        self.tally.add(&batch.settled);
        self.tally.stalls = 0;
        self.tally.trying = None;
        self.suspecting = None;
        self.move_to(through);
        if let Some(copies) = &mut self.copies {
            copies.follow();
        }
        if let Some(hold) = &mut self.hold {
            hold.confirmed(through, self.tally.mark);
        }
    }

    /// A batch of what the broker had lost is settled: the cursor is behind it, and its events are counted.
    fn commit_again(&mut self, through: Position, batch: &Batch) {
        let mut settled = std::mem::take(self.partly());
        settled.add(&batch.settled);
        if let Some(exact) = &mut self.exact {
            exact.commit(through, batch.epoch());
        }
        if let Some(hold) = &mut self.hold {
            let events = hold.published_again(through, &settled);
            self.metrics.republished.inc_by(events);
        }
        self.tally.stalls = 0;
        self.tally.trying = None;
        self.suspecting = None;
    }

    fn move_to(&mut self, through: Position) {
        if let Err(error) = self.reader.commit_with(through, &self.tally.encode()) {
            error!(error = chain(&error), "the journal did not take the cursor");
        }
    }

    /// A batch is settled, and the cursor stays before its entry. Where the broker knows of the part that it is, its counts
    /// wait for the cursor.
    pub(crate) fn settle_part(&mut self, batch: &Batch) {
        match (&mut self.exact, batch.part) {
            (Some(exact), Some(part)) => exact.settle_part(part, &batch.settled),
            _ => self.partly().add(&batch.settled),
        }
    }

    /// The counts of what is settled while the cursor stays. What is published again has counts of its own.
    fn partly(&mut self) -> &mut Tally {
        match self.hold.as_mut().and_then(Hold::settled) {
            Some(settled) => settled,
            None => &mut self.tally,
        }
    }

    /// The events of an entry that are not settled yet.
    pub(crate) fn unsettled(&self, entry: &Entry) -> u64 {
        let exact = self.exact.as_ref();
        let settled = exact.and_then(|exact| exact.settled_of(entry));
        u64::from(entry.count).saturating_sub(settled.map_or(0, |(_, events)| events))
    }

    /// Whether the broker is known to have settled a record, although the cursor is before its entry.
    pub(crate) fn is_settled(&self, id: RecordId) -> bool {
        self.exact.as_ref().is_some_and(|exact| exact.has(id))
    }

    /// Whether the broker has a record without the progress that it was given with.
    pub(crate) fn is_torn(&self, id: RecordId) -> bool {
        self.torn.contains(&id)
    }

    /// Records of an entry in one batch at most, where it has more of them than one batch may have.
    pub(crate) fn slice_of(&self, entry: &Entry) -> usize {
        let Some(exact) = &self.exact else {
            return SLICE;
        };
        let (count, most) = (entry.count as usize, exact.records());
        count.div_ceil(count.div_ceil(most).max(1)).max(1)
    }

    /// Records in one batch at most, where that is bounded beyond what memory should hold.
    pub(crate) fn most_records(&self) -> usize {
        self.exact.as_ref().map_or(usize::MAX, Exact::records)
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

    /// The records of an entry from some index on, as many as `most`, into the batch: without copies where those are
    /// dropped, and without what the broker is known to have settled. Says where they end if there may be more: the offset of
    /// the last.
    pub(crate) fn add(
        &mut self,
        batch: &mut Batch,
        entry: &Entry,
        from: usize,
        most: usize,
    ) -> Option<u32> {
        let position = entry.position;
        batch.reach(entry);
        if !self.takes(entry) {
            // A part may have been published before a reload.
            let unsettled = self.unsettled(entry);
            batch.settled.drop_events("not_routed", unsettled);
            return None;
        }
        let exact = self.exact.as_ref();
        let settled = exact.and_then(|exact| exact.settled_of(entry));
        let settled_to = settled.map(|(to, _)| to);
        batch.entries.push(entry.clone());
        batch.records.reserve(most.min(entry.count as usize));
        batch.details.reserve(most.min(entry.count as usize));
        let is_again = self.is_again();
        let (copies, metrics, torn) = (&mut self.copies, &self.metrics, &self.torn);
        let mut is_begun = from > 0;
        // What an earlier version counted, which may have found one less.
        let mut left = u64::from(entry.count).saturating_sub(from as u64);
        let (mut taken, mut last) = (0, 0);
        let added = self
            .router
            .each(entry, from..from + most, |tags, mut prepared| {
                last = prepared.record.id.offset;
                if let Some(copies) = copies {
                    if !std::mem::replace(&mut is_begun, true) {
                        copies.begin(tags.fetched_at, position);
                    }
                    let is_copy = copies.judge(&tags.region, &mut prepared);
                    metrics.copies.inc_by((is_copy && !is_again).into());
                }
                let events = left.min(1);
                (left, taken) = (left - events, taken + 1);
                if settled_to.is_some_and(|to| last <= to) {
                    return;
                }
                if prepared.is_dropped {
                    batch.settled.drop_events("copy", events);
                } else if torn.contains(&prepared.record.id) {
                    batch.settled.confirmed += events;
                    batch.owes_progress = true;
                } else {
                    batch.push(prepared, events);
                }
            });
        if let Err(error) = added
            && settled_to.is_none()
        {
            self.add_whole(batch, &unreadable(&error));
        }
        (taken == most).then_some(last)
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

/// The entries behind a reader, up to `last`.
async fn waiting(reader: &mut Reader, last: Position) -> Vec<Waiting> {
    let mut waiting = Vec::new();
    while reader.committed() < last {
        waiting.push(match reader.try_next() {
            Ok(Some(entry)) if entry.position <= last => Waiting {
                position: entry.position,
                epoch: Some(entry.epoch),
                events: entry.count.into(),
            },
            Err(ReadError::Damaged { position, count }) if position <= last => Waiting {
                position,
                epoch: None,
                events: count.into(),
            },
            Err(ReadError::Io { .. }) => {
                tokio::time::sleep(READ_PAUSE).await;
                continue;
            }
            Ok(_) | Err(_) => break,
        });
    }
    waiting
}

impl OutletPlan {
    /// For how long what is confirmed is held: so that copies of it are known again, for two windows of theirs more.
    fn held_for(&self) -> Duration {
        if self.hold.is_zero() {
            return self.hold;
        }
        let copies = self.copy_rule.filter(|rule| rule.drops);
        self.hold + copies.map_or(Duration::ZERO, |rule| 2 * rule.window)
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
    let readers = readers.filter(|reader| !lanes::is_hold(&reader.name));
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

#[cfg(test)]
mod tests;

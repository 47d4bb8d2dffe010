//! One call of `publish`: what is queued goes out in order within a window, and acknowledgements settle it.
//!
//! What is queued at a time is a run of records of its own (see [`crate::batch`]): all of them where each has its own
//! acknowledgement, else one atomic batch, or records of which no two share a key.

use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::time::Duration;

use async_nats::client::traits::Publisher;
use async_nats::message::OutboundMessage;
use async_nats::{Message, PublishErrorKind as SendErrorKind, Subject};
use rtm_sink::{Ground, Outcome, PublishError, Reason, Record, Topic};
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::{Instant, sleep_until};

use crate::alarms::{Alarms, Denied};
use crate::batch::{Batch, Demands, Part, Refused, next_part};
use crate::connection::{Connection, Shared};
use crate::failure::PublishFailure;
use crate::headers::HeaderWriter;
use crate::inbox::Lent;
use crate::jetstream;
use crate::reply::{Refusal, Reply, Verdict};
use crate::slot::{Slot, out_of_order};
use crate::subject;

/// Records sent between two looks at what came back: a failure stops the sending no later.
const BURST: usize = 64;

/// A call, from its first record to its last answer.
pub(crate) struct Call<'a> {
    shared: &'a Shared,
    connection: &'a Connection,
    window: &'a Semaphore,
    alarms: watch::Receiver<Alarms>,
    /// Denials before this call are none of its own.
    denials_before: u64,
    inbox: Lent<'a>,
    records: &'a [Record],
    /// What follows them, where they are stored once and only once: the progress of each lane.
    progress_of_lanes: &'a [Record],
    headers: HeaderWriter,
    /// What is being sent, if it is an atomic batch.
    batch: Option<Batch>,
    /// The records to send now, in this order.
    queue: VecDeque<usize>,
    /// The last record's subject: the next one mostly has the same.
    subject: Option<(Topic, Subject)>,
    settled: Vec<Slot>,
    in_flight: usize,
    permits: Option<SemaphorePermit<'a>>,
    failure: Option<Failure>,
    duplicates: u64,
    /// How far the JetStream stream reached when the call began.
    ground: Ground,
    /// When an answer last came, or the first record went out after a pause.
    progress: Instant,
}

/// Why a batch that is stored once and only once was not confirmed.
pub(crate) enum Unstored {
    /// The server refused it: nothing of it is stored.
    Refused(Refusal),
    /// A record cannot be sent, and so no commit was.
    Unsendable,
    /// It may be stored.
    Failed(PublishFailure),
}

/// The first thing that went wrong, as far as it is known while records are in flight.
enum Failure {
    Known(PublishFailure),
    /// No responders, or a timeout: JetStream has to be asked why. Holds the record's index.
    Unclear(PublishFailure, Option<usize>),
}

impl<'a> Call<'a> {
    pub(crate) fn new(
        shared: &'a Shared,
        connection: &'a Connection,
        window: &'a Semaphore,
        inbox: Lent<'a>,
        records: &'a [Record],
    ) -> Call<'a> {
        let mut alarms = connection.alarms.subscribe();
        let denials_before = alarms.borrow_and_update().denials;
        let expects = shared.options.expect_stream;
        let expected = expects.then_some(shared.options.stream.as_str());
        Call {
            shared,
            connection,
            window,
            alarms,
            denials_before,
            inbox,
            records,
            progress_of_lanes: &[],
            headers: HeaderWriter::new(expected, Some(&shared.options.id_suffix)),
            batch: None,
            queue: VecDeque::new(),
            subject: None,
            settled: vec![Slot::Unsent; records.len()],
            in_flight: 0,
            permits: None,
            failure: None,
            duplicates: 0,
            ground: shared.lookout.ground(),
            progress: Instant::now(),
        }
    }

    /// Publishes, and tells how it went.
    pub(crate) async fn run(mut self) -> Result<(), PublishError> {
        self.note_alarms();
        let mut next = 0;
        while next < self.records.len() && !self.has_failed() {
            let limits = self
                .connection
                .batching
                .limits(self.shared.options.in_flight);
            let part = match limits {
                Some(limits) => next_part(self.records, next, limits),
                None => Part::Window(next..self.records.len()),
            };
            next = match part {
                Part::Window(range) => {
                    let end = range.end;
                    self.send(range.collect()).await;
                    end
                }
                Part::Batch(range) => self.publish_batch(range).await,
                Part::Singly(range) => self.publish_singly(range).await,
            };
        }
        let failure = match self.failure.take() {
            Some(Failure::Unclear(failure, index)) => {
                let subject = index.map(|index| self.record(index).topic.as_str());
                let options = &self.shared.options;
                Some(jetstream::diagnose(&self.connection.api, options, subject, failure).await)
            }
            Some(Failure::Known(failure)) => Some(failure),
            None => None,
        };
        self.finish(failure)
    }

    /// Publishes all as one batch, with the progress behind the records, or nothing, and returns the sequence of the last. The records have an id for the server's
    /// deduplication only where the options say so.
    pub(crate) async fn run_exactly(
        mut self,
        progress_of_lanes: &'a [Record],
        demands: Demands,
    ) -> Result<u64, Unstored> {
        let count = self.records.len() + progress_of_lanes.len();
        self.progress_of_lanes = progress_of_lanes;
        self.settled.resize(count, Slot::Unsent);
        let expects = self.shared.options.expect_stream;
        let expected = expects.then_some(self.shared.options.stream.as_str());
        let options = &self.shared.options;
        let suffix = options.has_message_ids().then_some(&*options.id_suffix);
        self.headers = HeaderWriter::new(expected, suffix);
        self.note_alarms();
        let range = 0..count;
        let id = self.inbox.batch_id(range.start);
        let mut batch = Batch::new(range.clone(), id);
        batch.demands = Some(demands);
        self.batch = Some(batch);
        self.send(range.collect()).await;
        let batch = self.batch.take();
        let is_refused = batch.as_ref().is_some_and(|batch| batch.refused.is_some());
        if self.failure.is_none() && is_refused {
            let refusal = batch.and_then(|batch| batch.refusal);
            return Err(refusal.map_or(Unstored::Unsendable, Unstored::Refused));
        }
        if let Some(Slot::Confirmed { sequence, .. }) = self.settled.last() {
            self.tell_ground();
            return Ok(*sequence);
        }
        let failure = match self.failure.take() {
            Some(Failure::Known(failure)) => failure,
            Some(Failure::Unclear(failure, index)) => {
                let subject = index.map(|index| self.record(index).topic.as_str());
                let options = &self.shared.options;
                jetstream::diagnose(&self.connection.api, options, subject, failure).await
            }
            None => PublishFailure::NotServing(None),
        };
        Err(Unstored::Failed(failure))
    }

    /// Sends the records of `queue`, and settles them.
    async fn send(&mut self, queue: VecDeque<usize>) {
        self.queue = queue;
        while self.may_send() || self.in_flight > 0 {
            // Looked at each time, because the branches below come to it only when there is nothing else to do.
            if self.alarms.has_changed().unwrap_or(false) {
                self.note_alarms();
                continue;
            }
            let deadline = self.progress + self.shared.options.ack_timeout;
            // A call without room waits for other calls, and has asked the server nothing that could go unanswered.
            let asks = self.held() > 0;
            let mut alarms = self.alarms.clone();
            tokio::select! {
                biased;
                () = self.step() => (),
                // It cannot fail: the sender lives in the connection.
                _ = alarms.changed() => self.note_alarms(),
                () = sleep_until(deadline), if asks => self.give_up(),
            }
        }
    }

    fn record(&self, index: usize) -> &'a Record {
        let behind = index.checked_sub(self.records.len());
        behind.map_or_else(
            || &self.records[index],
            |behind| &self.progress_of_lanes[behind],
        )
    }

    fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    fn may_send(&self) -> bool {
        !self.has_failed() && !self.queue.is_empty()
    }

    /// Waits for room if there is none, sends what there is room for, or else waits for an answer; then takes all answers
    /// that are here.
    ///
    /// May be dropped at any `await`: what it has done is in `self`.
    async fn step(&mut self) {
        if self.may_send() && self.held() == 0 {
            return self.wait_for_room().await;
        }
        let room = if self.may_send() { self.take_room() } else { 0 };
        if room > 0 {
            self.send_some(room).await;
        } else {
            match self.inbox.next().await {
                Some(answer) => self.settle(&answer),
                None => return self.lose_connection(),
            }
        }
        while let Some(answer) = self.inbox.try_next() {
            self.settle(&answer);
        }
        self.give_back_room();
    }

    /// The room of what is settled goes back to all calls; what this one still needs it takes again.
    fn give_back_room(&mut self) {
        let rest_of_batch = self.batch.as_ref().map_or(0, |_| self.queue.len());
        let spare = self.held().saturating_sub(self.in_flight + rest_of_batch);
        drop(
            self.permits
                .as_mut()
                .and_then(|permits| permits.split(spare)),
        );
    }

    /// Waits for the first of the window's room: nothing of this call is in flight, so that no answer of its own makes any.
    async fn wait_for_room(&mut self) {
        let want = if self.batch.is_some() {
            // All of it at once: two batches that each hold half of the window would wait for ever.
            self.queue.len()
        } else {
            1
        };
        let want = u32::try_from(want).unwrap_or(u32::MAX);
        // The semaphore is never closed, so that this cannot fail.
        self.permits = self.window.acquire_many(want).await.ok();
        self.progress = Instant::now();
    }

    /// How many records may be sent now.
    fn take_room(&mut self) -> usize {
        let want = BURST.min(self.queue.len());
        let spare = self.held() - self.in_flight;
        let free = want
            .saturating_sub(spare)
            .min(self.window.available_permits());
        let free = u32::try_from(free).unwrap_or(0);
        if let (Ok(more), Some(held)) = (self.window.try_acquire_many(free), &mut self.permits) {
            held.merge(more);
        }
        want.min(self.held() - self.in_flight)
    }

    fn held(&self) -> usize {
        self.permits
            .as_ref()
            .map_or(0, SemaphorePermit::num_permits)
    }

    async fn send_some(&mut self, room: usize) {
        if self.in_flight == 0 {
            self.progress = Instant::now();
        }
        for _ in 0..room {
            let Some(&index) = self.queue.front() else {
                return;
            };
            let message = match self.message(index) {
                Ok(message) => message,
                Err(_) if self.batch.is_some() => return self.refuse_batch(Refused::Whole),
                Err(reason) => {
                    self.settle_as(index, Slot::Rejected(reason));
                    self.queue.pop_front();
                    continue;
                }
            };
            match self.connection.client.publish_message(message).await {
                Ok(()) => {
                    self.settled[index] = Slot::InFlight;
                    self.in_flight += 1;
                }
                Err(error) => match error.kind() {
                    SendErrorKind::Send => return self.lose_connection(),
                    // Without this record the batch would have a gap; published singly, the record shows what is wrong.
                    _ if self.batch.is_some() => return self.refuse_batch(Refused::Whole),
                    SendErrorKind::MaxPayloadExceeded => {
                        self.settle_as(index, rejected(Reason::TOO_LARGE, error.to_string()));
                    }
                    SendErrorKind::InvalidSubject => {
                        self.settle_as(index, rejected("bad_subject", error.to_string()));
                    }
                },
            }
            self.queue.pop_front();
        }
    }

    fn message(&mut self, index: usize) -> Result<OutboundMessage, Reason> {
        let record = self.record(index);
        let subject = match &self.subject {
            Some((topic, subject)) if *topic == record.topic => subject.clone(),
            _ => {
                if let Some(fault) = subject::fault(record.topic.as_str()) {
                    return Err(reason("bad_subject", fault.to_owned()));
                }
                let subject = Subject::from(record.topic.as_str());
                self.subject = Some((record.topic.clone(), subject.clone()));
                subject
            }
        };
        let bad_header = |name| reason("bad_header", format!("the header `{name}` cannot be sent"));
        let place = self.batch.as_mut().map(|batch| batch.place(index, record));
        let headers = self.headers.headers_of(record, place.as_ref());
        let answered = place.is_none_or(|place| place.answered);
        Ok(OutboundMessage {
            subject,
            reply: answered.then(|| self.inbox.reply_to(index)),
            payload: record.payload.clone(),
            headers: Some(headers.map_err(bad_header)?),
        })
    }

    /// Takes one answer. A late one, a second one and what is none at all change nothing.
    fn settle(&mut self, answer: &Message) {
        let Some(index) = self.inbox.index_of(answer) else {
            return;
        };
        if self.settled.get(index) != Some(&Slot::InFlight) {
            return;
        }
        let options = &self.shared.options;
        let reply = Reply::parse(answer, &options.stream, options.domain.as_deref());
        if self.batch.is_some() {
            return self.settle_batch(index, reply);
        }
        match reply {
            Reply::Stored {
                sequence,
                duplicate,
            } => {
                self.duplicates += u64::from(duplicate);
                self.settle_as(index, Slot::stored(sequence, duplicate));
            }
            Reply::Refused(refusal) => match refusal.verdict() {
                Verdict::Reject(reason) => self.settle_as(index, Slot::Rejected(reason)),
                Verdict::Fail(_) => {
                    self.settle_as(index, Slot::Failed);
                    self.fail(Failure::Known(PublishFailure::Refused(refusal)));
                }
            },
            Reply::NoResponders => {
                self.settle_as(index, Slot::Failed);
                self.fail(Failure::Unclear(
                    PublishFailure::NotServing(None),
                    Some(index),
                ));
            }
            Reply::Committed { .. } | Reply::Empty | Reply::Foreign => {
                tracing::debug!(subject = %self.record(index).topic, "an answer that is not ours");
            }
        }
    }

    fn settle_as(&mut self, index: usize, slot: Slot) {
        if self.settled[index] == Slot::InFlight {
            self.in_flight -= 1;
            self.progress = Instant::now();
        }
        self.settled[index] = slot;
    }

    /// The first failure stays, unless a worse one follows: misconfigured is what a person must hear of.
    fn fail(&mut self, failure: Failure) {
        use rtm_sink::PublishErrorKind::Misconfigured;
        let replace = match (&self.failure, &failure) {
            (None, _) => true,
            (Some(Failure::Known(known)), Failure::Known(new)) => {
                known.kind() != Misconfigured && new.kind() == Misconfigured
            }
            (Some(Failure::Unclear(..)), Failure::Known(new)) => new.kind() == Misconfigured,
            (Some(_), Failure::Unclear(..)) => false,
        };
        if replace {
            self.failure = Some(failure);
        }
    }

    /// Nothing in flight will be answered any more.
    fn abandon(&mut self) {
        for index in 0..self.settled.len() {
            if self.settled[index] == Slot::InFlight {
                self.settle_as(index, Slot::Failed);
            }
        }
    }

    fn lose_connection(&mut self) {
        self.connection.end();
        let said = self.alarms.borrow().said.clone();
        self.fail(Failure::Known(PublishFailure::Disconnected { said }));
        self.abandon();
    }

    fn give_up(&mut self) {
        let waited: Duration = self.shared.options.ack_timeout;
        let first = self.settled.iter().position(|slot| *slot == Slot::InFlight);
        // Of a flood of denials some are lost, so that a record's own may be unknown: the last one stands for it.
        let alarms = self.alarms.borrow().clone();
        let denied = alarms.denied.last();
        let denied = denied.filter(|denied| denied.number > self.denials_before);
        self.fail(match denied {
            Some(denied) => Failure::Known(PublishFailure::Denied(denied.said.clone())),
            None => Failure::Unclear(PublishFailure::Timeout(waited), first),
        });
        self.abandon();
    }

    /// What the server said by itself: the end, or denials, which are the only answer to what they deny.
    fn note_alarms(&mut self) {
        let alarms = self.alarms.borrow_and_update().clone();
        if alarms.ended {
            return self.lose_connection();
        }
        if let Some(said) = alarms.inbox_denied {
            // A denied subscription stays denied on this connection; by the next, the permission may have been given.
            self.connection.end();
            self.fail(Failure::Known(PublishFailure::Denied(said)));
            return self.abandon();
        }
        let before = self.denials_before;
        for denied in alarms.denied.iter().filter(|denied| denied.number > before) {
            self.deny(denied);
        }
    }

    fn deny(&mut self, denied: &Denied) {
        let subject = denied.subject.as_deref();
        let mut hit = false;
        for index in 0..self.settled.len() {
            let named = subject.is_none_or(|subject| subject == self.record(index).topic.as_str());
            if named && self.settled[index] == Slot::InFlight {
                hit = true;
                if self.batch.is_none() {
                    self.settle_as(index, Slot::Failed);
                }
            }
        }
        let is_exact = self
            .batch
            .as_ref()
            .is_some_and(|batch| batch.demands.is_some());
        if hit && is_exact {
            self.queue.clear();
            self.fail(Failure::Known(PublishFailure::Denied(denied.said.clone())));
            self.abandon();
        } else if hit && self.batch.is_some() {
            // Without the denied records the batch has a gap, and is never stored. Singly, only those are denied.
            self.refuse_batch(Refused::Whole);
        } else if hit {
            self.fail(Failure::Known(PublishFailure::Denied(denied.said.clone())));
        }
    }

    /// Tells which sequences were given to new messages.
    fn tell_ground(&self) {
        let new = self.settled.iter().filter_map(|slot| match slot {
            Slot::Confirmed {
                sequence,
                duplicate: false,
            } => Some(*sequence),
            _ => None,
        });
        if let (Some(first), Some(last)) = (new.clone().min(), new.max())
            && self.shared.options.looks_back
        {
            self.shared.lookout.acknowledge(self.ground, first, last);
        }
    }

    fn finish(self, failure: Option<PublishFailure>) -> Result<(), PublishError> {
        self.tell_ground();
        let confirmed = self
            .settled
            .iter()
            .filter(|slot| matches!(slot, Slot::Confirmed { .. }))
            .count();
        let counters = &self.shared.counters;
        counters.count(
            confirmed as u64,
            self.duplicates,
            out_of_order(self.records, &self.settled),
            failure.is_some(),
        );
        if confirmed == self.records.len() {
            return Ok(());
        }
        let rejected = self.settled.iter().find_map(|slot| match slot {
            Slot::Rejected(reason) => Some(PublishFailure::Rejected(reason.clone())),
            _ => None,
        });
        // Without a failure every record was settled, and not all were confirmed.
        let failure = failure
            .or(rejected)
            .unwrap_or(PublishFailure::NotServing(None));
        let outcome = |slot| match slot {
            Slot::Confirmed { .. } => Outcome::Confirmed,
            Slot::Rejected(reason) => Outcome::Rejected(reason),
            Slot::Unsent | Slot::InFlight | Slot::Failed => Outcome::Unknown,
        };
        Err(PublishError {
            kind: failure.kind(),
            outcomes: self.settled.into_iter().map(outcome).collect(),
            source: failure.into(),
        })
    }
}

/// A call's atomic batches.
impl Call<'_> {
    /// Publishes the range as one batch, and, where that is refused, singly. Returns where to go on.
    async fn publish_batch(&mut self, range: Range<usize>) -> usize {
        let id = self.inbox.batch_id(range.start);
        self.batch = Some(Batch::new(range.clone(), id));
        self.send(range.clone().collect()).await;
        let refused = self.batch.take().and_then(|batch| batch.refused);
        let Some(refused) = refused else {
            return range.end;
        };
        // Answers to what was sent of the batch are still to come.
        self.inbox.renew(self.records.len());
        match refused {
            Refused::Disabled => {
                if self.connection.batching.disable() {
                    tracing::warn!(
                        jetstream = self.shared.options.stream,
                        "the jetstream takes no atomic batches: publishing records singly until it allows them"
                    );
                }
                range.start
            }
            Refused::TooLarge(most) if self.connection.batching.shrink(most) => {
                tracing::info!(most, "the server takes smaller atomic batches");
                range.start
            }
            Refused::TooLarge(_) | Refused::Whole => self.publish_singly(range).await,
        }
    }

    /// Publishes what is not settled of the range, at most one record of a key at a time. Returns where to go on.
    async fn publish_singly(&mut self, range: Range<usize>) -> usize {
        while !self.has_failed() {
            let mut keys = HashSet::new();
            let wave: VecDeque<usize> = range
                .clone()
                .filter(|index| self.settled[*index] == Slot::Unsent)
                .filter(|index| match &self.records[*index].key {
                    Some(key) => keys.insert(key),
                    None => true,
                })
                .collect();
            if wave.is_empty() {
                break;
            }
            self.send(wave).await;
        }
        range.end
    }

    /// Takes an answer to a record of the batch that is on its way.
    fn settle_batch(&mut self, index: usize, reply: Reply) {
        let Some(batch) = &self.batch else { return };
        let count = batch.range.len() as u64;
        match reply {
            Reply::Committed {
                sequence,
                batch: id,
                count: stored,
            } if batch.commits(index) && id == batch.id && stored == count => {
                self.confirm_batch(sequence);
            }
            Reply::Refused(refusal) => {
                tracing::debug!(%refusal, "an atomic batch was refused");
                self.refuse_batch(refusal.of_batch(batch.range.len()));
                if let Some(batch) = &mut self.batch {
                    batch.refusal = Some(refusal);
                }
            }
            // A server that knows no batches stored this record, and may have refused others.
            Reply::Stored { .. } => self.refuse_batch(Refused::Disabled),
            Reply::NoResponders => {
                self.queue.clear();
                self.fail(Failure::Unclear(
                    PublishFailure::NotServing(None),
                    Some(index),
                ));
                self.abandon();
            }
            Reply::Empty if !batch.commits(index) => self.progress = Instant::now(),
            Reply::Empty | Reply::Committed { .. } | Reply::Foreign => {
                tracing::debug!("an answer that is not ours");
            }
        }
    }

    /// All of the batch is stored, the last record in this place.
    fn confirm_batch(&mut self, sequence: u64) {
        let Some(batch) = &self.batch else { return };
        let range = batch.range.clone();
        for index in range.clone() {
            let behind = (range.end - 1 - index) as u64;
            let sequence = sequence.saturating_sub(behind);
            self.settle_as(index, Slot::stored(sequence, false));
        }
    }

    /// Nothing of the batch is stored, and nothing more of it is sent.
    fn refuse_batch(&mut self, why: Refused) {
        let Some(batch) = &mut self.batch else { return };
        batch.refused = Some(why);
        let range = batch.range.clone();
        self.queue.clear();
        for index in range {
            if self.settled[index] == Slot::InFlight {
                self.settle_as(index, Slot::Unsent);
            }
        }
    }
}

fn reason(code: &'static str, message: String) -> Reason {
    Reason { code, message }
}

fn rejected(code: &'static str, message: String) -> Slot {
    Slot::Rejected(reason(code, message))
}

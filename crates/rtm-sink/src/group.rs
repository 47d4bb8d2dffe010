//! Group commit: exact calls that arrive while one is under way make the next one together. A broker takes a group for
//! about what it takes one small call, and there may be hundreds of App IDs.

use std::fmt;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::error;

use crate::{
    BoxError, ExactLimits, Outcome, Progress, ProgressKey, PublishError, PublishErrorKind, Record,
};

/// Calls that wait for their turn. There is one for each lane at most.
const WAITING: usize = 1024;

/// What stores groups: one after the other, so that nothing is on its way when a lane is recalled.
pub trait Commit: Send + 'static {
    /// Stores all records, in order, and the progress of every lane in one, or nothing of them. `whose` tells which records
    /// are of the lane of each progress.
    ///
    /// # Errors
    ///
    /// As [`Sink::publish_exactly`](crate::Sink::publish_exactly), with one outcome for each record. Where nothing is stored
    /// for a reason that may be of one lane alone, of several lanes the error is [`PublishErrorKind::Rejected`]: each is then
    /// stored by itself, and has its own error.
    fn commit(
        &mut self,
        records: &[Record],
        progress: &[Progress],
        whose: &[Range<usize>],
    ) -> impl Future<Output = Result<(), PublishError>> + Send;

    /// As [`Sink::recall`](crate::Sink::recall).
    ///
    /// # Errors
    ///
    /// As there.
    fn recall(
        &mut self,
        key: &ProgressKey,
    ) -> impl Future<Output = Result<Option<Bytes>, PublishError>> + Send;

    /// A call has panicked. What it had begun is to be given up before the next one: a transaction that is open, say. By
    /// default nothing, for what begins nothing that outlives a call.
    fn panicked(&mut self) {}
}

/// The calls of all lanes, in groups. When it is dropped, what is on its way is given up.
#[derive(Debug)]
pub struct GroupCommit {
    jobs: mpsc::Sender<Job>,
    _worker: JoinSet<()>,
}

enum Job {
    Publish(Call),
    Recall(
        ProgressKey,
        oneshot::Sender<Result<Option<Bytes>, PublishError>>,
    ),
}

type Answer = oneshot::Sender<Result<(), PublishError>>;

struct Call {
    records: Vec<Record>,
    bytes: usize,
    progress: Progress,
    answer: Answer,
}

impl GroupCommit {
    /// Groups hold at most what `limits` says of one call, where the progress of each lane after the first counts as a
    /// record. Must be called within a tokio runtime.
    pub fn new(commit: impl Commit, limits: ExactLimits) -> GroupCommit {
        let (jobs, waiting) = mpsc::channel(WAITING);
        let mut worker = JoinSet::new();
        worker.spawn(work(commit, limits, waiting));
        GroupCommit {
            jobs,
            _worker: worker,
        }
    }

    /// As [`Sink::publish_exactly`](crate::Sink::publish_exactly). A call that is dropped before its turn stores nothing.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn publish(
        &self,
        records: &[Record],
        progress: &Progress,
    ) -> Result<(), PublishError> {
        let (answer, answered) = oneshot::channel();
        let call = Call {
            records: records.to_vec(),
            bytes: records.iter().map(|record| record.payload.len()).sum(),
            progress: progress.clone(),
            answer,
        };
        let given = self.jobs.send(Job::Publish(call)).await;
        match (given, answered.await) {
            (Ok(()), Ok(answer)) => answer,
            _ => Err(given_up(records.len())),
        }
    }

    /// As [`Sink::recall`](crate::Sink::recall).
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn recall(&self, key: &ProgressKey) -> Result<Option<Bytes>, PublishError> {
        let (answer, answered) = oneshot::channel();
        let given = self.jobs.send(Job::Recall(key.clone(), answer)).await;
        match (given, answered.await) {
            (Ok(()), Ok(answer)) => answer,
            _ => Err(given_up(0)),
        }
    }
}

fn given_up(records: usize) -> PublishError {
    let why = "the sink has given the call up, by its end or by a panic";
    PublishError::unknown(PublishErrorKind::Unavailable, records, why)
}

/// Stores groups until nobody can give any more. Whoever waits while a call panics hears that its outcome is unknown, and the
/// calls that follow are stored as ever: else one odd record would end the sink.
async fn work(mut commit: impl Commit, limits: ExactLimits, mut waiting: mpsc::Receiver<Job>) {
    let mut next = None;
    loop {
        let working = work_until_ended(&mut commit, limits, &mut waiting, &mut next);
        if AssertUnwindSafe(working).catch_unwind().await.is_ok() {
            return;
        }
        error!(
            "storing records once and only once has panicked, and begins again; please report this"
        );
        commit.panicked();
    }
}

async fn work_until_ended(
    commit: &mut impl Commit,
    limits: ExactLimits,
    waiting: &mut mpsc::Receiver<Job>,
    next: &mut Option<Job>,
) {
    loop {
        let job = match next.take() {
            Some(job) => job,
            None => match waiting.recv().await {
                Some(job) => job,
                None => return,
            },
        };
        let first = match job {
            Job::Publish(call) => call,
            Job::Recall(key, answer) => {
                // Whoever asked may be gone.
                let _ = answer.send(commit.recall(&key).await);
                continue;
            }
        };
        let mut group = Group::default();
        group.push(first);
        while let Ok(job) = waiting.try_recv() {
            match job {
                Job::Publish(call) if group.has_room(&call, limits) => group.push(call),
                other => {
                    *next = Some(other);
                    break;
                }
            }
        }
        group.store(commit).await;
    }
}

/// Calls that are stored together.
#[derive(Default)]
struct Group {
    records: Vec<Record>,
    bytes: usize,
    progress: Vec<Progress>,
    /// Which records are whose.
    calls: Vec<(Range<usize>, Answer)>,
}

impl Group {
    fn has_room(&self, call: &Call, limits: ExactLimits) -> bool {
        let records = self.records.len() + self.progress.len() + call.records.len();
        records <= limits.records && self.bytes + call.bytes <= limits.bytes
    }

    fn push(&mut self, mut call: Call) {
        if call.answer.is_closed() {
            return;
        }
        let from = self.records.len();
        self.records.append(&mut call.records);
        self.bytes += call.bytes;
        self.progress.push(call.progress);
        self.calls.push((from..self.records.len(), call.answer));
    }

    async fn store(self, commit: &mut impl Commit) {
        let Group {
            records,
            progress,
            calls,
            ..
        } = self;
        if calls.is_empty() {
            return;
        }
        let whose: Vec<Range<usize>> = calls.iter().map(|(range, _)| range.clone()).collect();
        let stored = commit.commit(&records, &progress, &whose).await;
        let error = match stored {
            Ok(()) => {
                for (_, answer) in calls {
                    // Whoever asked may be gone.
                    let _ = answer.send(Ok(()));
                }
                return;
            }
            Err(error) => error,
        };
        // Nothing is stored for certain, and one of them is to blame: each by itself shows which.
        if error.kind == PublishErrorKind::Rejected && calls.len() > 1 {
            let mut alone = calls.into_iter().zip(progress);
            for ((range, answer), progress) in alone.by_ref() {
                let progress = std::slice::from_ref(&progress);
                let whose = 0..range.len();
                let whose = std::slice::from_ref(&whose);
                let stored = commit.commit(&records[range], progress, whose).await;
                let is_away =
                    matches!(&stored, Err(error) if error.kind == PublishErrorKind::Unavailable);
                let _ = answer.send(stored);
                if is_away {
                    break;
                }
            }
            // The others would wait as long, one after the other: nothing of theirs was sent.
            for ((range, answer), _) in alone {
                let why = "the broker went away before this call";
                let kind = PublishErrorKind::Unavailable;
                let _ = answer.send(Err(PublishError::unknown(kind, range.len(), why)));
            }
            return;
        }
        let shared = Shared(Arc::new(error.source));
        for (range, answer) in calls {
            let outcomes = error.outcomes.get(range.clone());
            let unknown = || vec![Outcome::Unknown; range.len()];
            let _ = answer.send(Err(PublishError {
                kind: error.kind,
                outcomes: outcomes.map_or_else(unknown, <[Outcome]>::to_vec),
                source: Box::new(shared.clone()),
            }));
        }
    }
}

/// One error that several calls have.
#[derive(Debug, Clone)]
struct Shared(Arc<BoxError>);

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Shared {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{collections::VecDeque, time::Duration};

use tokio::sync::watch;

use bytes::Bytes;

use crate::{
    ExactLimits, Ground, Health, Outcome, Progress, ProgressKey, PublishError, PublishErrorKind,
    Reason, Record, Sink,
};

/// A sink around another that fails as it is told: the lost answer as well as the refused one.
///
/// Clones share the inner sink and the faults.
pub struct Faulty<S> {
    inner: Arc<S>,
    plan: Arc<Mutex<Plan>>,
    held: watch::Sender<bool>,
}

/// What happens to one call of `publish` that has records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is stored, and every outcome is unknown.
    Refuse(PublishErrorKind),
    /// So many records are stored and confirmed; the others are not stored, and unknown.
    StopAfter(usize),
    /// Everything is stored, and every outcome is unknown: the answer was lost.
    LoseAnswer,
}

#[derive(Default)]
struct Plan {
    next: VecDeque<Fault>,
    delay: Duration,
    rejects: Option<Predicate>,
}

type Predicate = Arc<dyn Fn(&Record) -> bool + Send + Sync>;

/// Why a [`Faulty`] failed.
#[derive(Debug, thiserror::Error)]
#[error("told to fail: {0}")]
struct Told(String);

impl<S> Faulty<S> {
    /// Passes everything on until told otherwise.
    pub fn new(inner: S) -> Faulty<S> {
        Faulty {
            inner: Arc::new(inner),
            plan: Arc::default(),
            held: watch::Sender::new(false),
        }
    }

    /// The same faults around another sink.
    pub fn with(&self, inner: S) -> Faulty<S> {
        Faulty {
            inner: Arc::new(inner),
            ..self.clone()
        }
    }

    /// The sink inside.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// Adds a fault; each is used by one call, in the order added.
    pub fn next(&self, fault: Fault) {
        self.plan().next.push_back(fault);
    }

    /// Rejects, without storing them, the records of which `rejects` holds. It replaces what was set before.
    pub fn reject(&self, rejects: impl Fn(&Record) -> bool + Send + Sync + 'static) {
        self.plan().rejects = Some(Arc::new(rejects));
    }

    /// From now on, calls wait before anything is stored, until [`release`](Self::release).
    pub fn hold(&self) {
        self.held.send_replace(true);
    }

    /// Lets the calls that are held go on.
    pub fn release(&self) {
        self.held.send_replace(false);
    }

    /// From now on, each call takes this much longer.
    pub fn slow(&self, delay: Duration) {
        self.plan().delay = delay;
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Sink> Sink for Faulty<S> {
    async fn publish(&self, records: &[Record]) -> Result<(), PublishError> {
        let delay = self.plan().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        // The sender lives as long as `self`.
        let _ = self.held.subscribe().wait_for(|held| !held).await;
        if records.is_empty() {
            return self.inner.publish(records).await;
        }
        let fault = self.plan().next.pop_front();
        let told = |fault: Fault| Told(format!("{fault:?}"));
        match fault {
            None => self.publish_accepted(records).await,
            Some(fault @ Fault::Refuse(kind)) => {
                Err(PublishError::unknown(kind, records.len(), told(fault)))
            }
            Some(fault @ Fault::StopAfter(count)) => {
                let mut error = PublishError::unknown(
                    PublishErrorKind::Unavailable,
                    records.len(),
                    told(fault),
                );
                let stored = count.min(records.len());
                self.inner.publish(&records[..stored]).await?;
                error.outcomes[..stored].fill(Outcome::Confirmed);
                Err(error)
            }
            Some(fault @ Fault::LoseAnswer) => {
                self.inner.publish(records).await?;
                Err(PublishError::unknown(
                    PublishErrorKind::Unavailable,
                    records.len(),
                    told(fault),
                ))
            }
        }
    }

    fn exact(&self) -> Option<ExactLimits> {
        self.inner.exact()
    }

    /// Of the faults, a rejection refuses all, and any other is a lost answer: stored or not.
    async fn publish_exactly(
        &self,
        records: &[Record],
        progress: &Progress,
    ) -> Result<(), PublishError> {
        let delay = self.plan().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        // The sender lives as long as `self`.
        let _ = self.held.subscribe().wait_for(|held| !held).await;
        let rejects = self.plan().rejects.clone();
        let is_rejected = |record: &Record| rejects.as_ref().is_some_and(|rejects| rejects(record));
        if records.iter().any(is_rejected) {
            let outcome = |record: &Record| match is_rejected(record) {
                true => Outcome::Rejected(Reason {
                    code: "told",
                    message: "told to reject".into(),
                }),
                false => Outcome::Unknown,
            };
            return Err(PublishError {
                kind: PublishErrorKind::Rejected,
                outcomes: records.iter().map(outcome).collect(),
                source: Told("reject".into()).into(),
            });
        }
        let fault = self.plan().next.pop_front();
        let kind = match fault {
            None => return self.inner.publish_exactly(records, progress).await,
            Some(Fault::Refuse(kind)) => kind,
            Some(Fault::StopAfter(_)) => PublishErrorKind::Unavailable,
            Some(Fault::LoseAnswer) => {
                self.inner.publish_exactly(records, progress).await?;
                PublishErrorKind::Unavailable
            }
        };
        let told = Told(format!("{fault:?}"));
        Err(PublishError::unknown(kind, records.len(), told))
    }

    async fn recall(&self, key: &ProgressKey) -> Result<Option<Bytes>, PublishError> {
        self.inner.recall(key).await
    }

    fn ground(&self) -> Option<watch::Receiver<Ground>> {
        self.inner.ground()
    }

    async fn torn(&self) -> Result<Vec<Bytes>, PublishError> {
        self.inner.torn().await
    }

    fn health(&self) -> Health {
        self.inner.health()
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

impl<S: Sink> Faulty<S> {
    /// Stores what is not rejected, and tells the outcomes in the order given.
    async fn publish_accepted(&self, records: &[Record]) -> Result<(), PublishError> {
        let Some(rejects) = self.plan().rejects.clone() else {
            return self.inner.publish(records).await;
        };
        let accepted: Vec<Record> = records
            .iter()
            .filter(|record| !rejects(record))
            .cloned()
            .collect();
        let result = self.inner.publish(&accepted).await;
        if accepted.len() == records.len() {
            return result;
        }
        let (kind, outcomes, source) = match result {
            Ok(()) => {
                let source = Told("reject".into()).into();
                let confirmed = vec![Outcome::Confirmed; accepted.len()];
                (PublishErrorKind::Rejected, confirmed, source)
            }
            Err(error) => (error.kind, error.outcomes, error.source),
        };
        let mut told = outcomes.into_iter();
        let outcome = |record: &Record| {
            if rejects(record) {
                Outcome::Rejected(Reason {
                    code: "told",
                    message: "told to reject".into(),
                })
            } else {
                told.next().unwrap_or(Outcome::Unknown)
            }
        };
        Err(PublishError {
            kind,
            outcomes: records.iter().map(outcome).collect(),
            source,
        })
    }
}

impl<S> Clone for Faulty<S> {
    fn clone(&self) -> Faulty<S> {
        Faulty {
            inner: Arc::clone(&self.inner),
            plan: Arc::clone(&self.plan),
            held: self.held.clone(),
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for Faulty<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faulty")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

use crate::{
    ExactLimits, Progress, ProgressKey, PublishError, PublishErrorKind, Record, Sink, Topic,
};

/// Keeps records in memory, and the progress of lanes, for tests. It confirms everything; what fails is added around it by `conformance::Faulty`.
///
/// Clones share the store, so a test keeps one clone and gives the other away. The store has no bound: a test ends.
#[derive(Debug, Clone)]
pub struct MemorySink {
    store: Arc<Mutex<Vec<Record>>>,
    /// By lane, with the number of the call that stored it.
    progress: Arc<Mutex<HashMap<ProgressKey, (u64, Bytes)>>>,
    /// Whether it stores records once and only once.
    is_exact: bool,
    /// The number that this client knows of each lane.
    known: Arc<Mutex<HashMap<ProgressKey, u64>>>,
    count: watch::Sender<usize>,
}

impl MemorySink {
    /// A sink with an empty store.
    #[must_use]
    pub fn new() -> MemorySink {
        MemorySink {
            store: Arc::default(),
            progress: Arc::default(),
            is_exact: false,
            known: Arc::default(),
            count: watch::Sender::new(0),
        }
    }

    /// A sink with an empty store that stores records once and only once.
    #[must_use]
    pub fn exact() -> MemorySink {
        MemorySink {
            is_exact: true,
            ..MemorySink::new()
        }
    }

    /// Another client of the same store.
    #[must_use]
    pub fn another(&self) -> MemorySink {
        MemorySink {
            known: Arc::default(),
            ..self.clone()
        }
    }

    /// Everything stored so far, in the order stored, duplicates included.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        self.lock().clone()
    }

    /// What is stored under one topic, in the order stored.
    #[must_use]
    pub fn records_of(&self, topic: &Topic) -> Vec<Record> {
        self.lock()
            .iter()
            .filter(|record| record.topic == *topic)
            .cloned()
            .collect()
    }

    /// Returns once at least `count` records are stored, duplicates included. The caller sets the deadline.
    pub async fn wait_for(&self, count: usize) {
        // The sender lives as long as `self`, so that waiting cannot fail.
        let _ = self
            .count
            .subscribe()
            .wait_for(|stored| *stored >= count)
            .await;
    }

    /// A panic in another test's thread leaves a list of whole records: nothing to protect anyone from.
    fn lock(&self) -> MutexGuard<'_, Vec<Record>> {
        held(&self.store)
    }
}

fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for MemorySink {
    fn default() -> MemorySink {
        MemorySink::new()
    }
}

impl Sink for MemorySink {
    async fn publish(&self, records: &[Record]) -> Result<(), PublishError> {
        let stored = {
            let mut store = self.lock();
            store.extend_from_slice(records);
            store.len()
        };
        self.count.send_replace(stored);
        Ok(())
    }

    fn exact(&self) -> Option<ExactLimits> {
        self.is_exact.then_some(ExactLimits {
            records: 500,
            bytes: 1 << 20,
        })
    }

    /// Refused where another client has published the lane since this one recalled it.
    async fn publish_exactly(
        &self,
        records: &[Record],
        progress: &Progress,
    ) -> Result<(), PublishError> {
        let mut all = held(&self.progress);
        let mut known = held(&self.known);
        let number = all.get(&progress.key).map_or(0, |(number, _)| *number);
        if known.get(&progress.key).copied().unwrap_or(0) != number {
            let kind = PublishErrorKind::Unavailable;
            let why = "another client has published this lane";
            return Err(PublishError::unknown(kind, records.len(), why));
        }
        let stored = {
            let mut store = self.lock();
            store.extend_from_slice(records);
            store.len()
        };
        all.insert(progress.key.clone(), (number + 1, progress.value.clone()));
        known.insert(progress.key.clone(), number + 1);
        self.count.send_replace(stored);
        Ok(())
    }

    async fn recall(&self, key: &ProgressKey) -> Result<Option<Bytes>, PublishError> {
        let found = held(&self.progress).get(key).cloned();
        let number = found.as_ref().map_or(0, |(number, _)| *number);
        held(&self.known).insert(key.clone(), number);
        Ok(found.map(|(_, value)| value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{self, Carries, Fault, Faulty, Rig, Stored};

    /// One store for the whole suite, with every fault that the suite knows.
    struct MemoryRig {
        sink: Faulty<MemorySink>,
    }

    impl Rig for MemoryRig {
        type Sink = Faulty<MemorySink>;

        async fn sink(&self) -> Faulty<MemorySink> {
            self.sink.clone()
        }

        async fn exact(&self) -> Option<Faulty<MemorySink>> {
            let another = self.sink.with(self.sink.inner().another());
            Some(another)
        }

        async fn topic(&self, case: &str) -> Topic {
            Topic::from(case)
        }

        async fn stored(&self, topic: &Topic) -> Vec<Stored> {
            let stored = |record: Record| Stored {
                id: Some(record.id.to_string()),
                key: Some(record.key.unwrap_or_default()),
                timestamp: Some(record.timestamp),
                headers: Some(record.headers),
                payload: record.payload,
            };
            self.sink
                .inner()
                .records_of(topic)
                .into_iter()
                .map(stored)
                .collect()
        }

        fn refused(&self, topic: &Topic) -> Option<Record> {
            self.sink
                .reject(|record| record.key.as_deref() == Some(b"refused"));
            Some(Record {
                key: Some("refused".into()),
                ..conformance::record(topic, 0)
            })
        }

        async fn take_away(&self) -> Option<()> {
            self.sink.hold();
            Some(())
        }

        async fn bring_back(&self) {
            self.sink.release();
        }

        fn carries(&self) -> Carries {
            Carries {
                order_after_failure: true,
                ..Carries::default()
            }
        }
    }

    #[tokio::test]
    async fn conforms() {
        let rig = MemoryRig {
            sink: Faulty::new(MemorySink::exact()),
        };
        assert_eq!(conformance::run(&rig).await, Vec::<&str>::new());
        assert_eq!(conformance::exact::run(&rig).await, Vec::<&str>::new());
    }

    #[tokio::test]
    async fn clones_share_the_store() {
        let sink = MemorySink::new();
        let clone = sink.clone();
        let waiting = tokio::spawn(async move { clone.wait_for(2).await });
        let topic = Topic::from("t");
        sink.publish(&[
            conformance::record(&topic, 0),
            conformance::record(&topic, 1),
        ])
        .await
        .unwrap();
        tokio::time::timeout(conformance::PATIENCE, waiting)
            .await
            .unwrap()
            .unwrap();
    }

    #[tokio::test]
    async fn faults_come_once_each_in_the_order_given() {
        let sink = Faulty::new(MemorySink::new());
        let topic = Topic::from("t");
        let records = [
            conformance::record(&topic, 0),
            conformance::record(&topic, 1),
        ];
        sink.next(Fault::Refuse(PublishErrorKind::Misconfigured));
        sink.next(Fault::StopAfter(1));
        assert_eq!(
            sink.publish(&records).await.unwrap_err().kind,
            PublishErrorKind::Misconfigured
        );
        assert_eq!(sink.inner().records().len(), 0);
        assert_eq!(
            sink.publish(&records).await.unwrap_err().kind,
            PublishErrorKind::Unavailable
        );
        assert_eq!(sink.inner().records(), records[..1]);
        sink.publish(&records[1..]).await.unwrap();
        assert_eq!(sink.inner().records(), records);
    }
}

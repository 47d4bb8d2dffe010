use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::{PublishError, Record, Sink, Topic};

/// Keeps records in memory, for tests. It confirms everything; what fails is added around it by `conformance::Faulty`.
///
/// Clones share the store, so a test keeps one clone and gives the other away. The store has no bound: a test ends.
#[derive(Debug, Clone)]
pub struct MemorySink {
    store: Arc<Mutex<Vec<Record>>>,
    count: watch::Sender<usize>,
}

impl MemorySink {
    /// A sink with an empty store.
    #[must_use]
    pub fn new() -> MemorySink {
        MemorySink {
            store: Arc::default(),
            count: watch::Sender::new(0),
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
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PublishErrorKind;
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
            sink: Faulty::new(MemorySink::new()),
        };
        assert_eq!(conformance::run(&rig).await, Vec::<&str>::new());
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

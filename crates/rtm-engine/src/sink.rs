//! One sink as it runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rtm_sink::{AnySink, Health, Sink};
use tokio::sync::Semaphore;

use crate::batch::MAX_BATCH_RECORDS;

/// Records, beyond a first page each, that all batches of one sink may hold: two batches of the largest size. So a backlog
/// of many App IDs takes no more memory than that of a few, and none waits long for the others to be confirmed.
const SPARE_RECORDS: usize = 2 * MAX_BATCH_RECORDS;

/// A sink's client, with what all lanes share that publish to it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct RunningSink {
    name: Arc<str>,
    kind: &'static str,
    title: Arc<str>,
    client: AnySink,
    spare: Arc<Semaphore>,
    /// Records whose page came behind later ones of its ring.
    late: Arc<AtomicU64>,
}

impl RunningSink {
    /// One that goes by `name` in labels and by `title` among people.
    pub(crate) fn new(name: &str, kind: &'static str, title: &str, client: AnySink) -> RunningSink {
        RunningSink {
            name: name.into(),
            kind,
            title: title.into(),
            client,
            spare: Arc::new(Semaphore::new(SPARE_RECORDS)),
            late: Arc::default(),
        }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What the configuration says that it is, such as `kafka`.
    pub(crate) fn kind(&self) -> &'static str {
        self.kind
    }

    /// What people call it, in the middle of a sentence.
    pub(crate) fn title(&self) -> &str {
        &self.title
    }

    /// What records are handed to.
    pub(crate) fn client(&self) -> &AnySink {
        &self.client
    }

    /// The room that batches share; one permit is one record.
    pub(crate) fn spare(&self) -> Arc<Semaphore> {
        Arc::clone(&self.spare)
    }

    /// Whether it is the very same one, and not one of the same name.
    pub(crate) fn is(&self, other: &RunningSink) -> bool {
        Arc::ptr_eq(&self.spare, &other.spare)
    }

    /// Counts records that it gets behind later ones of their ring.
    pub(crate) fn count_late(&self, records: u64) {
        self.late.fetch_add(records, Ordering::Relaxed);
    }

    /// What its client says of itself; what is out of order is so for whichever reason.
    pub(crate) fn health(&self) -> Health {
        let mut health = self.client.health();
        *health.out_of_order.get_or_insert(0) += self.late.load(Ordering::Relaxed);
        health
    }

    /// Ends the client. What it had not confirmed is published again by the next one.
    pub(crate) async fn close(self) {
        self.client.close().await;
    }
}

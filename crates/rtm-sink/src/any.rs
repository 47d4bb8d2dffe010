use std::pin::Pin;
use std::sync::Arc;

use crate::{PublishError, Record, Sink};

type Publishing<'a> = Pin<Box<dyn Future<Output = Result<(), PublishError>> + Send + 'a>>;

/// A sink of any kind behind one pointer, for those who hold several kinds. Costs an allocation for each call of
/// `publish`, which is a batch. Cheap to clone; clones are the same sink.
#[derive(Clone)]
pub struct AnySink(Arc<dyn Object>);

impl AnySink {
    /// Holds `sink`.
    pub fn new<S: Sink>(sink: Arc<S>) -> AnySink {
        AnySink(Arc::new(sink))
    }
}

trait Object: Send + Sync + 'static {
    fn publish<'a>(&'a self, records: &'a [Record]) -> Publishing<'a>;
}

impl<S: Sink> Object for Arc<S> {
    fn publish<'a>(&'a self, records: &'a [Record]) -> Publishing<'a> {
        Box::pin(S::publish(self, records))
    }
}

impl Sink for AnySink {
    async fn publish(&self, records: &[Record]) -> Result<(), PublishError> {
        self.0.publish(records).await
    }
}

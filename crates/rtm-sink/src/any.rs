use std::pin::Pin;
use std::sync::Arc;

use crate::{Health, PublishError, Record, Sink};

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

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
    fn publish<'a>(&'a self, records: &'a [Record]) -> Boxed<'a, Result<(), PublishError>>;
    fn health(&self) -> Health;
    fn close(&self) -> Boxed<'_, ()>;
}

impl<S: Sink> Object for Arc<S> {
    fn publish<'a>(&'a self, records: &'a [Record]) -> Boxed<'a, Result<(), PublishError>> {
        Box::pin(S::publish(self, records))
    }

    fn health(&self) -> Health {
        S::health(self)
    }

    fn close(&self) -> Boxed<'_, ()> {
        Box::pin(S::close(self))
    }
}

impl Sink for AnySink {
    async fn publish(&self, records: &[Record]) -> Result<(), PublishError> {
        self.0.publish(records).await
    }

    fn health(&self) -> Health {
        self.0.health()
    }

    async fn close(&self) {
        self.0.close().await;
    }
}

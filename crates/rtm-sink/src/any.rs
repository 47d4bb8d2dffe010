use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use crate::{ExactLimits, Ground, Health, Progress, ProgressKey, PublishError, Record, Sink};

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
    fn exact(&self) -> Option<ExactLimits>;
    fn publish_exactly<'a>(
        &'a self,
        records: &'a [Record],
        progress: &'a Progress,
    ) -> Boxed<'a, Result<(), PublishError>>;
    fn recall<'a>(&'a self, key: &'a ProgressKey)
    -> Boxed<'a, Result<Option<Bytes>, PublishError>>;
    fn ground(&self) -> Option<watch::Receiver<Ground>>;
    fn torn(&self) -> Boxed<'_, Result<Vec<Bytes>, PublishError>>;
    fn health(&self) -> Health;
    fn close(&self) -> Boxed<'_, ()>;
}

impl<S: Sink> Object for Arc<S> {
    fn publish<'a>(&'a self, records: &'a [Record]) -> Boxed<'a, Result<(), PublishError>> {
        Box::pin(S::publish(self, records))
    }

    fn exact(&self) -> Option<ExactLimits> {
        S::exact(self)
    }

    fn publish_exactly<'a>(
        &'a self,
        records: &'a [Record],
        progress: &'a Progress,
    ) -> Boxed<'a, Result<(), PublishError>> {
        Box::pin(S::publish_exactly(self, records, progress))
    }

    fn recall<'a>(
        &'a self,
        key: &'a ProgressKey,
    ) -> Boxed<'a, Result<Option<Bytes>, PublishError>> {
        Box::pin(S::recall(self, key))
    }

    fn ground(&self) -> Option<watch::Receiver<Ground>> {
        S::ground(self)
    }

    fn torn(&self) -> Boxed<'_, Result<Vec<Bytes>, PublishError>> {
        Box::pin(S::torn(self))
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

    fn exact(&self) -> Option<ExactLimits> {
        self.0.exact()
    }

    async fn publish_exactly(
        &self,
        records: &[Record],
        progress: &Progress,
    ) -> Result<(), PublishError> {
        self.0.publish_exactly(records, progress).await
    }

    async fn recall(&self, key: &ProgressKey) -> Result<Option<Bytes>, PublishError> {
        self.0.recall(key).await
    }

    fn ground(&self) -> Option<watch::Receiver<Ground>> {
        self.0.ground()
    }

    async fn torn(&self) -> Result<Vec<Bytes>, PublishError> {
        self.0.torn().await
    }

    fn health(&self) -> Health {
        self.0.health()
    }

    async fn close(&self) {
        self.0.close().await;
    }
}

use std::future::Future;

use crate::{Health, PublishError, Record};

/// A broker that stores records durably.
///
/// # Contract
///
/// - **Order.** Records of one topic and key that one `publish` is given, and those of later calls, are stored in the
///   order given, as far as the sink's documentation promises; the caller never has two calls in progress that hold
///   records of one topic and key.
/// - **Durability.** `Ok(())` means that the broker has confirmed every record. Nothing is confirmed that was not.
/// - **Duplicates.** A record whose outcome was [`Unknown`](crate::Outcome::Unknown) is published again with the same
///   [`Record::id`]; implementations hand the id to the broker's deduplication where there is one.
/// - **Refusal.** A record that is [`Rejected`](crate::Outcome::Rejected) is not stored, and nothing is remembered of it: a
///   smaller record of the same id is a new one. After some refusals in a row a call may end, and leave the others unknown:
///   whether it is the records or the place, the caller decides.
/// - **Cancellation.** Dropping the future leaves every outcome unknown. Late confirmations of a dropped call never
///   confirm a record of a later one.
/// - **Closing.** [`close`](Sink::close) makes nothing durable that was not, and takes nothing back that was confirmed. It
///   ends by itself in seconds, whatever the broker does, and may be called again. Calls of `publish` that are in progress,
///   and later ones, keep this contract: they confirm what is stored, or leave it unknown as
///   [`Unavailable`](crate::PublishErrorKind::Unavailable). A sink that is dropped need not have been closed.
pub trait Sink: Send + Sync + 'static {
    /// Stores `records` in order and returns once the broker has confirmed every one.
    ///
    /// # Errors
    ///
    /// [`PublishError`] tells the outcome of each record, in the order given. Records of unknown outcome are to be
    /// published again, in order and with the same ids.
    fn publish(&self, records: &[Record]) -> impl Future<Output = Result<(), PublishError>> + Send;

    /// How the sink is doing, at once and without asking the broker; also while calls are in progress, and after `close`.
    ///
    /// By default: up, for a sink whose calls say all that there is to say.
    fn health(&self) -> Health {
        Health::default()
    }

    /// Ends what the sink has open: connections, threads, queues.
    ///
    /// By default: nothing, for a sink that needs no more than to be dropped.
    fn close(&self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

use std::future::Future;

use crate::{PublishError, Record};

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
/// - **Cancellation.** Dropping the future leaves every outcome unknown. Late confirmations of a dropped call never
///   confirm a record of a later one.
pub trait Sink: Send + Sync + 'static {
    /// Stores `records` in order and returns once the broker has confirmed every one.
    ///
    /// # Errors
    ///
    /// [`PublishError`] tells the outcome of each record, in the order given. Records of unknown outcome are to be
    /// published again, in order and with the same ids.
    fn publish(&self, records: &[Record]) -> impl Future<Output = Result<(), PublishError>> + Send;
}

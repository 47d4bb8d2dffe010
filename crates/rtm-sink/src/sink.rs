use std::future::Future;

use bytes::Bytes;
use tokio::sync::watch;

use crate::{
    ExactLimits, Ground, Health, Progress, ProgressKey, PublishError, PublishErrorKind, Record,
};

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
/// - **Once and only once**, where [`exact`](Sink::exact) says so. What one [`publish_exactly`](Sink::publish_exactly) is
///   given is stored in one with its progress, or nothing of it is. After any error whose outcomes are not all known, and
///   after a dropped call, the caller asks [`recall`](Sink::recall) before it publishes anything of that lane again. The
///   caller has one call of a lane in progress at a time.
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

    /// How much one call of [`publish_exactly`](Sink::publish_exactly) may hold; none where this sink does not store records
    /// once and only once. It stays what it is.
    fn exact(&self) -> Option<ExactLimits> {
        None
    }

    /// Stores `records`, in order, and `progress` in one, or nothing of both. Without records it stores the progress.
    ///
    /// # Errors
    ///
    /// [`PublishError`], with one outcome for each record. None is confirmed. If some are
    /// [`Rejected`](crate::Outcome::Rejected), nothing is stored, and the others may be given again without those.
    /// [`PublishErrorKind::Rejected`] without a rejected record says that nothing is stored, for a reason that the broker
    /// gives for the call as a whole: fewer records may show which one is to blame. After any other error the call may have
    /// been stored: see [`recall`](Sink::recall).
    fn publish_exactly(
        &self,
        records: &[Record],
        progress: &Progress,
    ) -> impl Future<Output = Result<(), PublishError>> + Send {
        let _ = progress;
        let error = PublishError::unknown(
            PublishErrorKind::Misconfigured,
            records.len(),
            "this sink cannot store records once and only once",
        );
        std::future::ready(Err(error))
    }

    /// The progress that the broker has of a lane, once nothing that this sink was given before can change it unnoticed: a
    /// call that is still on its way either shows here or is refused when it arrives, or makes the next one be refused.
    ///
    /// # Errors
    ///
    /// [`PublishError`] without outcomes, when the broker does not tell.
    fn recall(
        &self,
        key: &ProgressKey,
    ) -> impl Future<Output = Result<Option<Bytes>, PublishError>> + Send {
        let _ = key;
        let kind = PublishErrorKind::Misconfigured;
        let why = "this sink cannot store records once and only once";
        std::future::ready(Err(PublishError::unknown(kind, 0, why)))
    }

    /// How far the broker's store reaches, where that may become less: a store that loses what it has acknowledged. Receivers
    /// are told when it is first seen and when it has gone back; before a call of [`publish`](Sink::publish) stores anything
    /// behind what was lost.
    ///
    /// By default: none, for a store that keeps what it has.
    fn ground(&self) -> Option<watch::Receiver<Ground>> {
        None
    }

    /// Returns once the [`ground`](Sink::ground) was seen, with the payloads of records that the store may have torn off the
    /// progress that they were given with: what is stored in one is so through every failure but that of the power.
    ///
    /// # Errors
    ///
    /// [`PublishError`] without outcomes, when the broker does not tell.
    fn torn(&self) -> impl Future<Output = Result<Vec<Bytes>, PublishError>> + Send {
        std::future::ready(Ok(Vec::new()))
    }

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

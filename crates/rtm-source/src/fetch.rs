//! The seam between the data path and where its pages come from.

use crate::{FetchError, Page, Ring, Slot};

/// One App ID's rings, and how to read them.
///
/// [`Source`](crate::Source) is what a bridge runs on. A simulation of time and network puts something else in its place,
/// which goes through [`Slot::using`], [`Response::judge`](crate::Response::judge) and
/// [`FetchError::no_response`] like `Source` does: then the rate limit and the verdicts are the shipped ones, and not a
/// model of them.
pub trait Fetch: Send + Sync + 'static {
    /// All rings, each once, always in the same order.
    fn rings(&self) -> &[Ring];

    /// Whether the credentials have changed since this was last asked, as far as can be told without a request: what Agora
    /// refused is then worth another try.
    fn credentials_changed(&self) -> bool {
        false
    }

    /// Reads, and thereby empties, `ring`: at most [`MAX_PAGE_EVENTS`](crate::MAX_PAGE_EVENTS) events.
    ///
    /// **One request.** A call sends at most one, once: no retry, no redirect, no hedging, whatever happens, since a
    /// second one would read, and delete, again. Calls may run side by side. Those for one ring get pages that are
    /// disjoint and end in any order; the older events come out first.
    ///
    /// **The slot** is the limiter's permission to send it. It rests from the moment of the response or the failure, and
    /// for longer if nothing has shown that the request arrived: see [`Slot::using`].
    ///
    /// **It ends by itself**, within a deadline of its own, and returns what arrived until then.
    ///
    /// **Cancellation loses events.** The caller lets the future run to its end, in a task that nothing aborts, shutdown
    /// included. Dropping it ends the request without telling what became of the events; for the limiter it counts as
    /// timed out.
    ///
    /// # Errors
    ///
    /// [`FetchError`] tells what must be assumed about the events; what did arrive of a body is in its `partial`. No
    /// error is final: the next call may succeed.
    fn fetch(
        &self,
        ring: &Ring,
        slot: Slot,
    ) -> impl Future<Output = Result<Page, FetchError>> + Send;
}

//! The data path, in the order of the data: [`poll`], [`request`], [`publish`], [`deliver`], [`settle`]. [`crate::supervisor`]
//! keeps its loops running.
//!
//! ```text
//! Agora ──GET──> poll ──page──> journal (durable) ──> publish: decode → tag → route ──deliver──> Kafka
//!                                    one cursor per                (one loop per               ──> NATS
//!                                    App ID and sink                App ID and sink)           ──> stdout, file
//! ```
//!
//! Invariants, and where they are kept:
//!
//! - Never read what cannot be stored: a [`request::Ticket`] holds the journal's reservation, and [`request::fetch`] takes a
//!   ticket.
//! - Order: pages of a ring that was asked several times at once are put back into order by [`crate::order`].
//! - Bytes before meaning: [`request::fetch`] appends the body as it came; [`publish`] is the first to decode it.
//! - A slow or dead broker never slows polling: [`poll`] and [`publish`] meet only at the journal.
//! - A cursor moves only over what the broker confirmed: [`publish`] commits after [`deliver`] returns.
//! - A GET in flight is ended by its deadline only: [`poll`] waits for its tasks, shutdown included.

mod deliver;
mod panic;
mod poll;
mod publish;
mod request;
mod settle;

pub(crate) use poll::{Polling, poll};
pub(crate) use publish::publish_until_ended;
#[cfg(test)]
pub(crate) use publish::{publish_all, publish_by_steps};

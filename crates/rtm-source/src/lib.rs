//! Where the events come from: Agora's RTM (Signaling) event API, whose reads **delete**.
//!
//! One [`Source`] and one [`Limiter`] for each App ID, and a [`Schedule`] that says which ring to ask next. A poll is
//!
//! ```text
//! let ring = schedule.next(now);             // Next::Poll(ring)
//! let slot = limiter.slot().await;           // never more than N requests in any second at the server
//! let turn = schedule.started(&ring, now);
//! let fetched = source.fetch(&ring, slot).await;             // one GET, never retried, never redirected
//! schedule.observe(turn, now, &Outcome::of(&fetched));
//! ```
//!
//! What comes back is a [`Page`]: the body as received, to be made durable *before* anything reads it. [`decode()`] is
//! for afterwards: it splits a body into events, is pure, and never fails as a whole.
//!
//! A [`FetchError`] says what must be assumed about the events that the request was for: nothing was deleted, or up to
//! [`MAX_PAGE_EVENTS`] may be gone ([`FetchError::possibly_lost`]).

mod arrivals;
mod auth;
mod build;
mod certificate;
mod client;
mod connections;
mod console;
mod decode;
mod error;
mod fetch;
mod fields;
mod in_flight;
mod limiter;
mod options;
mod page;
mod rate;
mod ring;
mod scan;
mod schedule;
mod second_poller;
mod verdict;

pub use auth::{Auth, Secret};
pub use build::tls as client_tls;
pub use certificate::said as tls_said;
pub use client::Source;
pub use connections::Connections;
pub use console::{ConsoleError, Project, Projects};
pub use decode::{Decoded, Event, Reject, decode, decode_each};
pub use error::{BoxError, BuildError, ConnectError, SecretError};
pub use fetch::Fetch;
pub use http::HeaderMap;
pub use in_flight::InFlight;
pub use limiter::{Limiter, LimiterStats, Slot};
pub use options::SourceOptions;
pub use page::{FetchError, FetchErrorKind, Page, RequestIds};
pub use reqwest::Url;
pub use ring::{
    MAX_PAGE_EVENTS, MAX_RING_EVENTS, ParseStreamError, Region, RegionError, Ring, Stream,
};
pub use scan::count;
pub use schedule::{
    MOST_IN_FLIGHT_PER_RING, Next, Observed, Outcome, Overflow, Schedule, ScheduleOptions, Turn,
};
pub use verdict::{Ending, NoResponse, Response, is_invisible};

/// What the fuzz targets under `fuzz/` call beside the API; no part of it.
#[doc(hidden)]
pub mod fuzz {
    /// `Retry-After`, as a response's is read.
    #[must_use]
    pub fn retry_after(text: &str, now: jiff::Timestamp) -> Option<std::time::Duration> {
        crate::verdict::retry_after(text, now)
    }
}

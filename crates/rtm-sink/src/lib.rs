//! What the bridge publishes, and the contract of whatever stores it.
//!
//! [`Sink`] has one method that every sink writes, and two more where the broker can store records once and only once, because constructors connect, client libraries reconnect, and "returns
//! after confirmation" leaves nothing to flush. Routing, retries, tags and metrics are the caller's, written once.
//!
//! The sinks that need no broker are here: [`FileSink`] (one JSON document a line, to a file or to standard output)
//! and [`MemorySink`]. With the feature `conformance`, [`conformance`] is the suite that every sink runs.

mod any;
#[cfg(feature = "conformance")]
pub mod conformance;
mod exact;
mod file;
mod ground;
mod group;
mod health;
mod memory;
mod outcome;
mod patient;
mod record;
mod seldom;
mod sink;
mod text;

pub use any::AnySink;
pub use exact::{ExactLimits, Progress, ProgressKey};
pub use file::{CreateError, FileSink};
pub use ground::Ground;
pub use group::{Commit, GroupCommit};
pub use health::{Health, Queue};
pub use memory::MemorySink;
pub use outcome::{BoxError, Outcome, PublishError, PublishErrorKind, Reason};
pub use patient::{Patient, Waiting};
pub use record::{Headers, Record, RecordId, Timestamp, Topic};
pub use seldom::Seldom;
pub use sink::Sink;
pub use text::{read_text, regular, tidied};

//! The bridge itself, without what is around it: App IDs are polled into a journal, and published from there.
//!
//! Read [`bridge`] first: the data path is there, top to bottom. A program makes a [`Plan`](plan::Plan) of whatever its
//! users configure, and [`Parts`](plan::Parts) that make sources and sinks, and calls [`supervisor::run`]. The engine knows no
//! broker, no configuration file, no HTTP endpoint and no command line.
//!
//! | module | what |
//! |---|---|
//! | [`plan`] | what a bridge is to do, and how one plan follows another |
//! | [`supervisor`] | keeps running what a plan says |
//! | [`bridge`] | the data path: poll, publish, deliver |
//! | [`pipeline`] | one App ID's polling: its parts |
//! | [`order`] | pages of a ring that was asked several times at once, back in the ring's order |
//! | [`routes`], [`outlet`], [`batch`] | what is published to what; one lane's way out to one sink; what is being delivered |
//! | [`copies`], [`poison`] | copies of one event from two regions; which record crashes the process |
//! | [`lanes`], [`orphan`] | the journal's lanes and cursors; what is left of App IDs that left the plan |
//! | [`tally`], [`losses`] | the counts that survive: of what became of events, of what the source may have lost |
//! | [`sink`] | one sink as it runs |
//! | [`status`] | what goes on, what is wrong, and every metric |

mod batch;
pub mod bridge;
mod chain;
pub mod copies;
mod lanes;
mod lock;
mod losses;
mod order;
mod orphan;
mod outlet;
mod pipeline;
pub mod plan;
mod poison;
mod routes;
mod sink;
pub mod status;
pub mod supervisor;
pub mod tally;

pub use chain::chain;
pub use lock::lock;

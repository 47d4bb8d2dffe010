//! The bridge itself, without what is around it: App IDs are polled into a journal, and published from there.
//!
//! Read `bridge` first: it names the files of the data path, in the order of the data. A program makes a [`Plan`](plan::Plan) of whatever its
//! users configure, and [`Parts`](plan::Parts) that make sources and sinks, and calls [`supervisor::run`]. The engine knows no
//! broker, no configuration file, no HTTP endpoint and no command line.
//!
//! `docs/architecture.md` has the map of its modules.

mod batch;
mod bridge;
mod chain;
pub mod copies;
pub mod drain;
mod exact;
mod hold;
mod lanes;
mod lock;
mod losses;
mod order;
mod orphan;
mod outlet;
pub mod page;
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
pub use losses::PossiblyLost;

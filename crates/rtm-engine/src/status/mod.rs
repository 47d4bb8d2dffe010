//! What the bridge is doing now: for readiness, for the metrics that are gauges, for the status page and live views.

pub mod health;
pub mod metrics;
pub mod phrases;
pub mod report;
pub mod snapshot;
pub mod words;

pub(crate) mod history;
pub(crate) mod pipeline;
pub(crate) mod room;
pub(crate) mod sink;
pub(crate) mod state;

pub use state::State;

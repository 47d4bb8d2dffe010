//! What the bridge is doing now: for readiness, for the metrics that are gauges, for the status page and live views.
//!
//! | module | what |
//! |---|---|
//! | [`pipeline`], [`sink`] | what the data path tells: of one App ID's polling, of its way into one sink |
//! | [`metrics`] | every metric |
//! | [`health`] | when something is wrong |
//! | [`snapshot`] | what goes on at one moment |
//! | [`words`] | what is wrong, decided from a snapshot, in sentences |
//! | [`report`] | the document of the status page, readiness, the text for Prometheus |

pub mod health;
pub mod metrics;
pub mod phrases;
pub mod report;
pub mod snapshot;
pub mod words;

pub(crate) mod history;
pub(crate) mod pipeline;
pub(crate) mod sink;
pub(crate) mod state;

pub use state::State;

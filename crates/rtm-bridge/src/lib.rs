//! The bridge from Agora's RTM event API to Kafka and NATS JetStream: the program around the engine.
//!
//! The data path is in [`rtm_engine`]. Here is what a user has to do with: the configuration, the command line, HTTP, systemd.
//!
//! `docs/architecture.md` has the map of its modules.

mod admin;
mod attempt;
pub mod commands;
pub mod config;
mod fields;
mod notify;
pub mod read_back;
mod reload;
mod run;
pub mod sinks;
mod stderr;
pub mod usage;
pub mod wire;

pub(crate) use rtm_engine::{chain, lock};

/// The commit that this was built from, or `unknown`.
pub const COMMIT: &str = env!("RTM_BRIDGE_COMMIT");

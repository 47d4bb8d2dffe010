//! The bridge from Agora's RTM event API to Kafka and NATS JetStream: the program around the engine.
//!
//! The data path is in [`rtm_engine`]. Here is what a user has to do with: the configuration, the command line, HTTP, systemd.
//!
//! | module | what |
//! |---|---|
//! | [`fields`] | the kinds of values that a configuration is made of |
//! | [`sinks`] | every kind of sink, each in one file |
//! | [`config`] | TOML and environment to valid types |
//! | [`run`] | the bridge, from a configuration until it is stopped |
//! | [`wire`] | the configuration to what the engine runs on |
//! | [`reload`] | a new configuration while the bridge runs |
//! | [`admin`] | `/metrics`, `/healthz`, `/readyz`, the status page |
//! | [`notify`] | what systemd is told |
//! | [`read_back`] | what sinks hold, for the demo and the trials |
//! | [`usage`] | what a process has used, for the bench and the trials |
//! | [`commands`] | what the command line can do |

pub mod admin;
pub mod commands;
pub mod config;
pub mod fields;
pub mod notify;
pub mod read_back;
pub mod reload;
pub mod run;
pub mod sinks;
pub mod usage;
pub mod wire;

pub(crate) use rtm_engine::{chain, lock};

/// The commit that this was built from, or `unknown`.
pub const COMMIT: &str = env!("RTM_BRIDGE_COMMIT");

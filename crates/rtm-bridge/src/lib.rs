//! The bridge from Agora's RTM event API to Kafka and NATS JetStream.
//!
//! Read [`bridge`] first: the data path is there, top to bottom.
//!
//! | module | what |
//! |---|---|
//! | [`bridge`] | run, poll, publish, deliver |
//! | [`config`] | TOML and environment to valid types |
//! | [`assemble`] | configuration to the parts of a bridge |
//! | [`client`] | a sink's configuration to what publishes |
//! | [`order`] | pages of a ring that was asked several times at once, back in the ring's order |
//! | [`outlet`], [`careful`] | one lane's way out to one sink; what crashes us is published step by step |
//! | [`tally`], [`losses`] | the counts that survive: of what became of events, of what the source may have lost |
//! | [`copies`] | copies of one event from two regions |
//! | [`metrics`], [`series`] | every metric, a row each; which series a configuration leads to |
//! | [`state`] | what is going on now: readiness, gauges, the status page's document |
//! | [`admin`] | `/metrics`, `/healthz`, `/readyz`, the status page |
//! | [`reload`] | a new configuration while the bridge runs |
//! | [`notify`] | what systemd is told |
//! | [`read_back`] | what sinks hold, for the demo and the trials |
//! | [`usage`] | what a process has used, for the bench and the trials |
//! | [`commands`] | what the command line can do |

use std::sync::{Mutex, MutexGuard, PoisonError};

pub mod admin;
pub mod assemble;
pub mod bridge;
mod careful;
pub mod client;
pub mod commands;
pub mod config;
pub mod copies;
pub mod losses;
pub mod metrics;
pub mod notify;
pub mod order;
pub mod outlet;
pub mod read_back;
pub mod reload;
pub mod series;
pub mod state;
pub mod tally;
pub mod usage;

/// The commit that this was built from, or `unknown`.
pub const COMMIT: &str = env!("RTM_BRIDGE_COMMIT");

/// An error and all of its sources, on one line, control characters escaped.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let part = error.to_string();
        // Some libraries print their source themselves.
        if !text.ends_with(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        source = error.source();
    }
    if text.contains(char::is_control) {
        text = text
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
    }
    text
}

/// A lock whose holder's panic is not ours: every holder leaves the value whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

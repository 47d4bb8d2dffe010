//! What a broker's client says of itself.

use std::time::Duration;

/// What a broker's client says of itself.
#[derive(Debug, Clone, Default)]
pub struct ClientState {
    /// Whether the broker takes records.
    pub up: bool,
    /// Times that it was given up and made anew.
    pub rebuilds: u64,
    /// Times that it connected again.
    pub reconnects: u64,
    /// Records that may stand after later ones, where the sink cannot keep order through every failure.
    pub out_of_order: Option<u64>,
    /// Its queue, where it has one.
    pub queue: Option<QueueState>,
    /// What it said last of its connections, while it is not up.
    pub said: Option<String>,
}

/// A client's queue.
#[derive(Debug, Clone, Default)]
pub struct QueueState {
    /// Records in it.
    pub records: u64,
    /// Average round trip to the brokers; zero when unknown.
    pub round_trip: Duration,
}

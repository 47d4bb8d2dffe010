use std::time::Duration;

/// How a sink is doing, as its client tells. Counts are since the sink was made, and never fall.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Nothing is known to keep records from being confirmed.
    pub up: bool,
    /// It has what it needs to begin with. Otherwise it is down, and [`said`](Health::said) names what is missing.
    pub begun: bool,
    /// Times that the client was given up and made anew.
    pub rebuilds: u64,
    /// Times that the client connected again.
    pub reconnects: u64,
    /// The client's queue; none where it has none.
    pub queue: Option<Queue>,
    /// Records that may stand after later ones of their topic and key; none where the sink keeps order through every
    /// failure.
    pub out_of_order: Option<u64>,
    /// What the client said last of its connections, while it is not up. Without secrets.
    pub said: Option<String>,
}

impl Default for Health {
    /// Up, and nothing to tell.
    fn default() -> Health {
        Health {
            up: true,
            begun: true,
            rebuilds: 0,
            reconnects: 0,
            queue: None,
            out_of_order: None,
            said: None,
        }
    }
}

/// The queue of a sink's client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Queue {
    /// Records in it.
    pub records: u64,
    /// Round trip to the brokers; zero when unknown.
    pub round_trip: Duration,
}

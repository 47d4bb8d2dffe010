//! The keys that every sink has, whatever its kind.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The names of [`Common`]'s keys.
pub(crate) const KEYS: &[&str] = &["type", "when_full", "apps", "streams"];

/// The keys that a sink of any kind has, beside those of its kind.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Common {
    /// Only to tell the type where the sink has another name.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// What happens when the journal is full because of this sink: `stop` (polling stops; default) or `skip` (the oldest
    /// events are given up for this sink, counted).
    #[serde(default)]
    pub when_full: WhenFull,
    /// The names of the apps whose events go to this sink. Default: all.
    #[schemars(length(min = 1))]
    pub apps: Option<Vec<String>>,
    /// The streams whose events go to this sink: `user`, `channel`. Default: both.
    #[serde(default = "both")]
    #[schemars(length(min = 1))]
    pub streams: Vec<Stream>,
}

impl Common {
    /// Whether the events of a stream go to the sink.
    pub(crate) fn takes_stream(&self, stream: &str) -> bool {
        self.streams.iter().any(|taken| taken.as_str() == stream)
    }
}

/// What happens when an App ID's room in the journal is gone because a sink lags.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// Polling stops, and Agora overwrites its oldest events.
    #[default]
    Stop,
    /// The oldest events are given up for this sink, counted as dropped, and polling goes on for the others.
    Skip,
}

/// One of the two that each region of an App ID has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Login and logout.
    User,
    /// Join and leave.
    Channel,
}

impl Stream {
    /// As tags, topics and metrics have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Stream::User => "user",
            Stream::Channel => "channel",
        }
    }
}

fn both() -> Vec<Stream> {
    vec![Stream::User, Stream::Channel]
}

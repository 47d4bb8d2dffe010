//! What became of a lane's events at one sink: counts that survive, since the journal stores them with the cursor.
//!
//! For each App ID and sink, always: stored = confirmed + pending + dead-lettered + dropped. What is stored and what is
//! pending the journal knows; the rest is here, and changes only together with the cursor.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Why events are dropped, as labels.
pub const DROP_REASONS: [&str; 5] = ["copy", "skipped", "damaged", "poison", "not_routed"];

/// Why events became dead letters, as labels: the decoder's reasons and the brokers'. Others count as `other`.
pub const DEAD_LETTER_REASONS: [&str; 17] = [
    "not_an_object",
    "too_deep",
    "invalid_utf8",
    "invalid_json",
    "no_user_id",
    "odd_user_id",
    "odd_channel_id",
    "id_too_long",
    "too_large",
    "timestamp",
    "invalid",
    "policy",
    "bad_subject",
    "bad_header",
    "unreadable",
    "poison",
    "other",
];

/// The label for a reason: itself, or `other`.
pub fn dead_letter_reason(reason: &str) -> &'static str {
    let known = DEAD_LETTER_REASONS.iter().find(|known| **known == reason);
    known.copied().unwrap_or("other")
}

/// Counts of events, and what is known of crashes since the cursor last moved.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    /// Events that the broker confirmed, dead letters aside.
    #[serde(rename = "c")]
    pub confirmed: u64,
    /// Events whose dead letter was confirmed, by reason.
    #[serde(rename = "d", skip_serializing_if = "BTreeMap::is_empty")]
    pub dead_lettered: BTreeMap<Cow<'static, str>, u64>,
    /// Events that were given up on purpose, by [`DROP_REASONS`].
    #[serde(rename = "x", skip_serializing_if = "BTreeMap::is_empty")]
    pub dropped: BTreeMap<Cow<'static, str>, u64>,
    /// Crashes in a row without progress of the cursor.
    #[serde(rename = "s", skip_serializing_if = "is_zero")]
    pub stalls: u32,
    /// How far the entry at the cursor is published, where it is published step by step. The counts include what was
    /// settled of it.
    #[serde(rename = "t", skip_serializing_if = "Option::is_none")]
    pub trying: Option<Trying>,
    /// How far the broker's store reached, where that may become less.
    #[serde(rename = "m", skip_serializing_if = "Option::is_none")]
    pub mark: Option<Mark>,
}

/// What a broker's store had acknowledged when the cursor came to where it is: see [`crate::hold`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mark {
    /// The process that was told.
    #[serde(rename = "p")]
    pub process: u64,
    /// Which store it was; 0 where nobody knows.
    #[serde(rename = "s")]
    pub store: u64,
    /// The number of the last record that was acknowledged, of whichever lane.
    #[serde(rename = "l")]
    pub last: u64,
    /// Where records are stored once and only once, the events that the progress said were settled.
    #[serde(rename = "c", skip_serializing_if = "Option::is_none")]
    pub settled: Option<u64>,
    /// The store has gone back behind that, and what it lost is not all published again.
    #[serde(rename = "b", skip_serializing_if = "std::ops::Not::not")]
    pub is_back: bool,
}

/// One step of publishing an entry, each of which may crash the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trying {
    /// The entry.
    #[serde(rename = "p")]
    pub position: u64,
    /// Which part of it.
    #[serde(rename = "a")]
    pub step: Step,
    /// It is being tried, so that a crash now is its doing.
    #[serde(rename = "r")]
    pub armed: bool,
}

/// What is done with an entry, each step by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Reading and decoding it.
    #[serde(rename = "e")]
    Decode,
    /// Publishing it whole as a dead letter, because decoding it has crashed.
    #[serde(rename = "w")]
    Whole,
    /// Publishing the record of this index.
    #[serde(rename = "r")]
    Record(u32),
    /// Publishing that record as a dead letter, because publishing it has crashed.
    #[serde(rename = "l")]
    DeadLetter(u32),
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde asks")]
fn is_zero(stalls: &u32) -> bool {
    *stalls == 0
}

impl Tally {
    /// As the journal stores it.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// As it was stored; zero for a new reader.
    pub fn decode(bytes: &[u8]) -> Tally {
        serde_json::from_slice(bytes).unwrap_or_default()
    }

    /// Counts events that became dead letters.
    pub fn dead_letter(&mut self, reason: &'static str, events: u64) {
        *self.dead_lettered.entry(Cow::Borrowed(reason)).or_default() += events;
    }

    /// Counts events that were given up on purpose.
    pub fn drop_events(&mut self, reason: &'static str, events: u64) {
        if events > 0 {
            *self.dropped.entry(Cow::Borrowed(reason)).or_default() += events;
        }
    }

    /// The counts alone.
    pub(crate) fn counts(&self) -> Tally {
        let mut counts = Tally::default();
        counts.add(self);
        counts
    }

    /// Everything but what is pending.
    pub fn settled(&self) -> u64 {
        let sum = |counts: &BTreeMap<_, u64>| counts.values().sum::<u64>();
        self.confirmed + sum(&self.dead_lettered) + sum(&self.dropped)
    }

    /// Adds the counts of `other`, and leaves what is known of crashes.
    pub fn add(&mut self, other: &Tally) {
        self.confirmed += other.confirmed;
        for (reason, events) in &other.dead_lettered {
            *self.dead_lettered.entry(reason.clone()).or_default() += events;
        }
        for (reason, events) in &other.dropped {
            *self.dropped.entry(reason.clone()).or_default() += events;
        }
    }
}

#[cfg(test)]
mod tests;

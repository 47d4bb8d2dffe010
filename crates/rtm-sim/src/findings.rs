//! What an audit found, for people and for programs.

use std::fmt;

use crate::ledger::Stream;

/// What an audit found. Counts are of events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Deleted by reads, whatever became of the responses.
    pub handed_out: u64,
    /// Of those handed out, those that were sent for certain and so must be there.
    pub required: u64,
    /// Events of the ledger that were found, each once.
    pub seen_distinct: u64,
    /// Records of an event that had been found before, under the same id. They are allowed.
    pub duplicates: u64,
    /// Events found among the dead letters.
    pub dead_lettered: u64,
    /// Of those, events with a clear user and channel, which only a broker has reason to refuse.
    pub dead_lettered_sound: u64,
    /// Dead letters of responses, or of rests of responses, that could not be read, each once: they are no events.
    pub unreadable: u64,
    /// Required and not found.
    pub missing_count: u64,
    /// Records of events that were never handed out, or not as far as the response was sent, or without a readable
    /// identity.
    pub invented_count: u64,
    /// Records whose event is not the one handed out at that place, byte for byte.
    pub altered_count: u64,
    /// Records with another App ID, region or stream than the response had.
    pub mistagged_count: u64,
    /// Records under another key than the event asks for.
    pub miskeyed_count: u64,
    /// Records of an event of a page that was found before under another epoch or position: a duplicate that no
    /// consumer can recognise.
    pub reidentified_count: u64,
    /// Events that stand, for the first time, after a later event of the same ring and key.
    pub out_of_order_count: u64,
    /// Keys of a ring whose events are in more than one partition, where no order is kept between them.
    pub split_key_count: u64,
    /// Events of cut responses that were found.
    pub cut_whole_delivered: u64,
    /// Deleted at the source and never sent whole, or sent to a client that went away, and found nowhere: truly lost,
    /// and nobody's fault here. The bridge's count of possible loss may not be below this plus what a kill cost.
    pub lost_at_source: u64,
    /// Of those, events of responses that carried none.
    pub unsent_events: u64,
    /// Every page of which something required is missing.
    pub pages_missing: Vec<PageMissing>,
    /// Some of each kind of trouble, in words.
    pub examples: Vec<String>,
}

/// A page of which something required was not found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageMissing {
    /// The ring's App ID.
    pub app_id: String,
    /// The ring's region.
    pub region: String,
    /// The ring's stream.
    pub stream: Stream,
    /// Which of the ring's pages.
    pub serial: u64,
    /// Whether it is the last of the ring's pages in the ledger.
    pub last: bool,
    /// How many events were required.
    pub required: u64,
    /// How many of them were not found.
    pub missing: u64,
    /// When the response had been handed to the socket, in milliseconds since the Unix epoch.
    pub finished_at_ms: Option<u64>,
}

impl Findings {
    /// Whether every event that was sent is there.
    #[must_use]
    pub fn nothing_missing(&self) -> bool {
        self.missing_count == 0
    }

    /// Whether, beyond that, everything that is there is right: the events, their tags, keys, ids and order.
    #[must_use]
    pub fn clean(&self) -> bool {
        let wrong = self.wrong();
        self.nothing_missing() && wrong.iter().all(|(_, count)| *count == 0)
    }

    fn wrong(&self) -> [(&'static str, u64); 7] {
        [
            ("invented", self.invented_count),
            ("altered", self.altered_count),
            ("mistagged", self.mistagged_count),
            ("miskeyed", self.miskeyed_count),
            ("under a second id", self.reidentified_count),
            ("out of order", self.out_of_order_count),
            ("keys in two partitions", self.split_key_count),
        ]
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "handed out        {:>10}", self.handed_out)?;
        writeln!(
            f,
            "found             {:>10}  and {} duplicates",
            self.seen_distinct, self.duplicates
        )?;
        if self.dead_lettered > 0 {
            writeln!(
                f,
                "dead letters      {:>10}  of which {} with clear ids",
                self.dead_lettered, self.dead_lettered_sound
            )?;
        }
        if self.lost_at_source > 0 {
            writeln!(
                f,
                "lost at source    {:>10}  deleted and not sent, {} of them in responses without events",
                self.lost_at_source, self.unsent_events
            )?;
        }
        for (what, count) in self.wrong().iter().filter(|(_, count)| *count > 0) {
            writeln!(f, "{what:<17} {count:>10}")?;
        }
        for example in &self.examples {
            writeln!(f, "  {example}")?;
        }
        if self.handed_out == 0 && self.nothing_missing() {
            write!(f, "nothing was handed out")
        } else if self.nothing_missing() {
            write!(f, "nothing missing")
        } else {
            write!(
                f,
                "MISSING           {:>10}  in {} pages",
                self.missing_count,
                self.pages_missing.len()
            )
        }
    }
}

//! When something is wrong: every threshold, and what it makes of one ring and of one delivery.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A ring that has not answered for this long is not being polled: three times the longest backoff of a passing fault.
const POLL_AGE: Duration = Duration::from_secs(30);

/// A batch that has waited this long with nothing confirmed is worth a word; a broker takes milliseconds. Sooner than the
/// bridge calls the sink down, since who looks at the page wants to know now.
pub const LATE: Duration = Duration::from_millis(1500);

/// A batch that has waited this long with nothing confirmed says that the sink is down.
const CONFIRMATION_AGE: Duration = Duration::from_secs(10);

/// Events that have waited this long say that the sink is behind, though it takes records.
const BEHIND: Duration = Duration::from_secs(120);

/// A batch that has waited this long for a sink that is down is not waited for at the end.
const STUCK_AFTER: Duration = Duration::from_secs(2);

/// What is called recent: as long as the chart of requests is wide.
pub const RECENTLY: Duration = Duration::from_secs(300);

/// How full the journal must be to be worth a word, in percent.
pub const NEARLY_FULL_PERCENT: u64 = 80;

/// Less free disk than this many times `journal.min_free_bytes` is worth a word.
pub const NEARLY_FULL_DISK: u64 = 2;

/// Entries bound a journal, and not their bytes, where it is this many times as full as its files are large.
pub const BOUND_BY_ENTRIES: f64 = 1.5;

/// Pending events from which their size says how fast the journal fills.
pub const ENOUGH_TO_ESTIMATE: u64 = 1000;

/// Events a second from which their rate does.
pub const FAST_ENOUGH_TO_ESTIMATE: f64 = 1.0;

/// How a ring, a sink, or one App ID's way into a sink is; the worst is the greatest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// As it should be.
    #[default]
    Up,
    /// Not yet answered, or a batch waits longer than it should, or failed; nothing is called down yet.
    Late,
    /// Not polled, or not publishing.
    Down,
}

impl Health {
    /// Of a ring whose last successful poll, or the begin of its polling, is `silence` ago.
    pub fn of_ring(silence: Duration, has_answered: bool) -> Health {
        match has_answered {
            _ if silence > POLL_AGE => Health::Down,
            true => Health::Up,
            false => Health::Late,
        }
    }

    /// Of a way into a sink whose oldest event has waited for `age`.
    pub fn of_backlog(age: Duration) -> Health {
        match age >= BEHIND {
            true => Health::Late,
            false => Health::Up,
        }
    }

    /// Of a sink, as far as its client tells. That it reaches no broker calls nothing down by itself: a batch tells.
    pub fn of_client(client: &rtm_sink::Health) -> Health {
        match (client.begun, client.up) {
            (false, _) => Health::Down,
            (true, false) => Health::Late,
            (true, true) => Health::Up,
        }
    }
}

/// How the batch fares that an App ID's records are being published with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delivery {
    /// How long it has waited with nothing confirmed; none where there is no batch.
    pub waiting: Option<Duration>,
    /// Why it is not done.
    pub trouble: Option<Trouble>,
}

/// Why a batch is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// The broker refuses it until someone changes something.
    Held(String),
    /// The last attempt failed, and another follows.
    Failed(String),
}

impl Delivery {
    /// How the way into the sink is, as far as this batch tells. A failed attempt alone calls nothing down: most are over
    /// within seconds.
    pub fn health(&self) -> Health {
        if matches!(self.trouble, Some(Trouble::Held(_))) || self.has_waited(CONFIRMATION_AGE) {
            Health::Down
        } else if self.trouble.is_some() || self.has_waited(LATE) {
            Health::Late
        } else {
            Health::Up
        }
    }

    /// Whether it makes the bridge not ready: what is called down does, and nothing else.
    pub fn is_overdue(&self) -> bool {
        self.health() == Health::Down
    }

    /// Whether waiting for it at the end of the process is of no use.
    pub fn is_stuck(&self, is_client_up: bool) -> bool {
        let fails = !is_client_up || self.trouble.is_some();
        fails && self.has_waited(STUCK_AFTER)
    }

    fn has_waited(&self, age: Duration) -> bool {
        self.waiting.is_some_and(|waiting| waiting >= age)
    }
}

impl Trouble {
    /// What the broker or its client said.
    pub fn why(&self) -> &str {
        match self {
            Trouble::Held(why) | Trouble::Failed(why) => why,
        }
    }
}

#[cfg(test)]
mod tests;

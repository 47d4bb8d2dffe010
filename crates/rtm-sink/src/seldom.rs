//! Lines that would repeat themselves in the log.

use std::time::Duration;

use tokio::time::Instant;

/// How often a line that repeats itself is said again.
const AGAIN: Duration = Duration::from_secs(60);

/// When a line that may repeat itself is due: at once, and then every so often.
#[derive(Debug, Default)]
pub struct Seldom {
    said: Option<Instant>,
    /// How often it came since it was said.
    times: u64,
}

impl Seldom {
    /// As [`due_every`](Seldom::due_every), once a minute.
    pub fn due(&mut self, times: u64) -> Option<u64> {
        self.due_every(AGAIN, times)
    }

    /// The line comes so many times more. If it is due, says how often it came since it was last said.
    pub fn due_every(&mut self, interval: Duration, times: u64) -> Option<u64> {
        self.times += times;
        let is_due = self.said.is_none_or(|said| said.elapsed() >= interval);
        if !is_due || self.times == 0 {
            return None;
        }
        self.said = Some(Instant::now());
        Some(std::mem::take(&mut self.times))
    }
}

#[cfg(test)]
mod tests;

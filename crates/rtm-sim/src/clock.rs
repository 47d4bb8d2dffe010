//! The simulator's time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// What time it is at the server.
///
/// Both kinds go by tokio's clock for everything but the time of day, so that under tokio's paused time every delay, the
/// rate limit and the arrival of events are simulated too.
#[derive(Debug, Clone)]
pub struct Clock {
    origin: Instant,
    /// The time of day at `origin`, since the Unix epoch; the system's if there is none.
    starts_at: Option<Duration>,
}

impl Clock {
    /// The system's time of day.
    #[must_use]
    pub fn system() -> Clock {
        Clock {
            origin: Instant::now(),
            starts_at: None,
        }
    }

    /// A time of day that is `unix_ms`, in milliseconds since the Unix epoch, now, and goes on with tokio's clock.
    #[must_use]
    pub fn simulated(unix_ms: u64) -> Clock {
        Clock {
            origin: Instant::now(),
            starts_at: Some(Duration::from_millis(unix_ms)),
        }
    }

    /// The time since the clock was made.
    #[must_use]
    pub fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub fn unix_ms(&self) -> u64 {
        let since = match self.starts_at {
            Some(_) => self.unix_at(self.monotonic()),
            None => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
        };
        millis(since)
    }

    /// Whether the time of day is simulated.
    pub(crate) fn is_simulated(&self) -> bool {
        self.starts_at.is_some()
    }

    /// The simulated time of day at `monotonic`, in milliseconds since the Unix epoch.
    pub(crate) fn unix_ms_at(&self, monotonic: Duration) -> u64 {
        millis(self.unix_at(monotonic))
    }

    fn unix_at(&self, monotonic: Duration) -> Duration {
        self.starts_at.unwrap_or_default() + monotonic
    }
}

fn millis(since: Duration) -> u64 {
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

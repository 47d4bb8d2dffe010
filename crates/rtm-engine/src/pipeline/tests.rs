#![allow(clippy::unwrap_used)]

use rtm_journal::{Journal, Options};
use tokio::time::Instant;

use super::*;

/// Holds: the first request of a process is sent when what its predecessor sent counts no more: a second after one that
/// ended by itself, and 250 ms later after a crash, for requests that still travel.
#[tokio::test(start_paused = true)]
async fn the_first_request_waits_for_those_of_the_predecessor() {
    for (after_crash, waits_ms) in [(false, 1_000), (true, 1_250)] {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            min_free_bytes: 0,
            ..Options::default()
        };
        let journal = Journal::open(dir.path(), options).unwrap();
        let lane = journal.lane(&"app".parse().unwrap()).unwrap();
        let spread = Duration::from_millis(40);
        let account = Account::new(lane, 10, after_crash, spread, journal.epoch());
        let began = Instant::now();
        drop(account.limiter.slot().await);
        let waited = began.elapsed().as_millis();
        assert_eq!(waited, waits_ms + 40, "after a crash: {after_crash}");
    }
}

//! A panic in a loop, which ends no other.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use tracing::error;

/// Pause after a panic, so that one that comes again at once does not fill the log.
const AFTER_PANIC: Duration = Duration::from_millis(100);

/// Whether a loop has ended by itself. A panic in it is told, with what becomes of that.
pub(super) async fn has_ended(looping: impl Future<Output = ()>, told: &str) -> bool {
    if AssertUnwindSafe(looping).catch_unwind().await.is_ok() {
        return true;
    }
    error!("{told}; please report this");
    tokio::time::sleep(AFTER_PANIC).await;
    false
}

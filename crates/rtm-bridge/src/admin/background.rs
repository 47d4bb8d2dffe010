//! Work for the endpoint that would hold up the data path.

use tokio::sync::Semaphore;

/// Does work that takes many milliseconds where there are many App IDs: not on a thread of the data path's, and one at a
/// time, whoever asks.
pub(super) async fn background<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    static ONE: Semaphore = Semaphore::const_new(1);
    // It goes along, since the work does not end with who asked for it.
    let one = ONE.acquire().await.ok()?;
    let work = move || {
        let done = work();
        drop(one);
        done
    };
    tokio::task::spawn_blocking(work).await.ok()
}

//! Work that may hang, such as reading a file on a share that does not answer.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::timeout;

/// Work that is asked for again and again. One attempt at most is under way, so that work that hangs holds one thread or
/// task, and not one more for each time that somebody asks.
pub(crate) struct Attempt<T>(Mutex<Option<JoinHandle<T>>>);

impl<T> Default for Attempt<T> {
    fn default() -> Attempt<T> {
        Attempt(Mutex::new(None))
    }
}

impl<T> Attempt<T> {
    /// How the attempt that is under way ends, or the one that `begin` begins where none is. None where it takes longer than
    /// `patience`; it then goes on, and the next call waits for it.
    pub(crate) async fn wait(
        &self,
        patience: Duration,
        begin: impl FnOnce() -> JoinHandle<T>,
    ) -> Option<Result<T, JoinError>> {
        let ended = async {
            let mut under_way = self.0.lock().await;
            let ended = under_way.get_or_insert_with(begin).await;
            *under_way = None;
            ended
        };
        timeout(patience, ended).await.ok()
    }
}

impl<T> Drop for Attempt<T> {
    /// Ends a task. A thread that blocks goes on, and nobody hears of it.
    fn drop(&mut self) {
        if let Some(under_way) = self.0.get_mut() {
            under_way.abort();
        }
    }
}

#[cfg(test)]
mod tests;

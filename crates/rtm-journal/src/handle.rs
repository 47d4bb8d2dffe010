//! What journals, lanes and readers keep alive.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::state::{Ending, Shared};

/// A journal with its writer. The writer ends with the last handle.
pub(crate) struct Handle {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Handle {
    /// Without a thread where the writer is driven.
    pub(crate) fn new(shared: Arc<Shared>, thread: Option<JoinHandle<()>>) -> Handle {
        Handle {
            shared,
            thread: Mutex::new(thread),
        }
    }

    /// Waits for the end of the writer's thread.
    pub(crate) fn join(&self) {
        if let Some(thread) = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            // A panic has been reported by the runtime, and noted as an end without a close.
            let _ = thread.join();
        }
    }
}

impl Deref for Handle {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // A close that is on its way is finished, though nobody waits for it any more.
        self.state().ending.get_or_insert(Ending::Abandon);
        self.work.notify();
        self.join();
    }
}

//! The writer without a thread: for simulations, in which time stands still while something happens.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use crate::writer::{End, Writer};

/// Does what a journal's writer has to do, whenever it is run: the same code as the thread's.
///
/// ```text
/// let (journal, mut driver) = Journal::open_driven(disk, options)?;
/// loop {
///     let until = driver.run();
///     select! { () = driver.woken() => {}, () = sleep_until(until) => {} }
/// }
/// ```
///
/// Nothing becomes durable between two runs. Dropping it is a crash of the process: nothing more is written, and
/// everybody who waits is told that the journal is closed.
pub struct Driver {
    writer: Writer,
    /// There until the writer has ended; tells everybody when it goes.
    end: Option<End>,
}

impl Driver {
    pub(crate) fn new(writer: Writer) -> Driver {
        let end = End {
            shared: Arc::clone(&writer.shared),
            result: None,
        };
        Driver {
            writer,
            end: Some(end),
        }
    }

    /// Does all that is due, and says when it wants to be run again at the latest, by the clock of
    /// [`crate::Options::monotonic`]: never, where only new work gives it something to do, or the journal is closed.
    pub fn run(&mut self) -> Option<Instant> {
        let shared = Arc::clone(&self.writer.shared);
        while let Some(end) = &mut self.end {
            let next = {
                let mut state = shared.state();
                self.writer.next(&mut state, shared.options.instant())
            };
            match next {
                Ok(next) => {
                    if let Some(ended) = self.writer.act(next) {
                        end.result = ended.0;
                        self.end = None;
                    }
                }
                Err(until) => return until,
            }
        }
        None
    }

    /// Returns as soon as there is new work, also if that came before the call. Dropping the future loses nothing.
    pub async fn woken(&self) {
        self.writer.shared.work.driver.notified().await;
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

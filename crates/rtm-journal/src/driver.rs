//! The writer without a thread: for simulations, in which time stands still while something happens.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use crate::writer::{Built, End, Next, Writer};

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
    /// A write that was laid out, and is stored by the next step.
    laid_out: Option<Built>,
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
            laid_out: None,
            end: Some(end),
        }
    }

    /// Does all that is due, and says when it wants to be run again at the latest, by the clock of
    /// [`crate::Options::monotonic`]: never, where only new work gives it something to do, or the journal is closed.
    pub fn run(&mut self) -> Option<Instant> {
        self.go_on(false)
    }

    /// As [`Driver::run`], but what is written takes two calls: the first lays it out, the second stores it. What happens in
    /// between happens while the disk writes.
    pub fn step(&mut self) -> Option<Instant> {
        if let Some(built) = self.laid_out.take() {
            // A failure is noted, and tried again after a pause.
            let _ = self.writer.store(built);
        }
        self.go_on(true)
    }

    fn go_on(&mut self, in_steps: bool) -> Option<Instant> {
        let shared = Arc::clone(&self.writer.shared);
        while let Some(end) = &mut self.end {
            let now = shared.options.instant();
            let next = self.writer.next(&mut shared.state(), now);
            match next {
                Ok(Next::Write) if in_steps => {
                    self.laid_out = Some(self.writer.lay_out(false));
                    return Some(now);
                }
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

    /// Waits for `work`, and does meanwhile what the journal has to write for it.
    pub async fn run_during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            self.run();
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = self.woken() => {}
            }
        }
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

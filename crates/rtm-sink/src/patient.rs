//! Writing to what may not be ready.

use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, poll};

/// A descriptor whose writes wait, also where it is one that does not block.
///
/// Whether it blocks is not up to us: standard output and standard error are shared with whoever gave them to us, and
/// what one of them sets holds for all. `write_all` on such a descriptor fails half-way, and says not where.
#[derive(Debug)]
pub struct Patient {
    file: File,
    waiting: Waiting,
}

impl Patient {
    /// Writes to `file`, and tells `waiting` when it takes something.
    pub fn new(file: File, waiting: Waiting) -> Patient {
        Patient { file, waiting }
    }

    /// The descriptor.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// What is told.
    pub fn waiting(&self) -> &Waiting {
        &self.waiting
    }
}

impl Write for Patient {
    /// Writes a part, as soon as the descriptor takes one.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.file.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut ready = [PollFd::new(&self.file, PollFlags::OUT)];
                    match poll(&mut ready, None) {
                        // What is wrong with the descriptor, the next write says.
                        Ok(_) | Err(rustix::io::Errno::INTR) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                written => {
                    self.waiting.again();
                    return written;
                }
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Since when a write has waited, for whoever asks meanwhile.
#[derive(Debug, Clone, Default)]
pub struct Waiting(Arc<Mutex<Option<Instant>>>);

impl Waiting {
    /// Since when nothing was taken of what is being written; none while nothing is.
    pub fn since(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does `work`, which writes.
    pub fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        self.set(Some(Instant::now()));
        let done = work();
        self.set(None);
        done
    }

    fn again(&self) {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if since.is_some() {
            *since = Some(Instant::now());
        }
    }

    fn set(&self, since: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }
}

#[cfg(test)]
mod tests;

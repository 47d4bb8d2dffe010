//! Standard error, behind a queue and a thread of its own: whoever writes to it never waits for who reads it.
//!
//! Standard error is a pipe more often than not, and a reader may stop: a log collector that hangs, a terminal that was
//! paused. What the queue has no room for is dropped and counted, and the log says so once there is room again.
//! `tracing-appender` counts neither bytes nor what it says itself, and its queue is not for what panics print.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Condvar, LazyLock, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rtm_sink::{Patient, Waiting};
use tracing::warn;

use crate::lock;

/// Lines that wait, at most: seconds of the most that is ever logged.
const LINES: usize = 2048;

/// Bytes that wait, at most; a line may hold a broker's answer.
const BYTES: usize = 1 << 20;

/// Bytes that are written at once.
const WRITE_BYTES: usize = 16 << 10;

/// How long the end of the process waits for what is still queued.
pub(crate) const AT_THE_END: Duration = Duration::from_secs(2);

/// How long an end in a hurry waits for it.
pub(crate) const IN_A_HURRY: Duration = Duration::from_millis(500);

/// Prints `line`, which has its line feed, as soon as standard error takes it.
pub(crate) fn print(line: Vec<u8>) {
    if *RUNS {
        QUEUE.add(line);
    } else {
        let _ = io::stderr().write_all(&line);
    }
}

/// Returns once all that was printed is written, or after `deadline`.
pub(crate) fn flush(deadline: Duration) {
    QUEUE.flush(deadline);
}

/// How many lines were dropped since the start of the process.
pub(crate) fn dropped() -> u64 {
    lock(&QUEUE.state).dropped
}

static QUEUE: Queue = Queue::new();

/// Whether there is a thread that writes; the first line starts it. It is never joined: its last write may never return.
static RUNS: LazyLock<bool> = LazyLock::new(|| {
    let start = || {
        let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        let out = Patient::new(stderr, Waiting::default());
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || QUEUE.write_to(out, || tell(&QUEUE)))
    };
    start().is_ok()
});

/// Says how many lines were dropped since this was said last.
fn tell(queue: &Queue) {
    let lines = {
        let mut state = lock(&queue.state);
        let lines = state.dropped - state.told;
        state.told = state.dropped;
        lines
    };
    warn!(
        lines,
        "lines of the log were dropped: standard error did not take them in time"
    );
}

/// Lines on their way to where they are written.
struct Queue {
    state: Mutex<State>,
    /// There are lines again, or none any more.
    changed: Condvar,
}

struct State {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    is_writing: bool,
    dropped: u64,
    /// How many of the dropped ones the log has told of.
    told: u64,
}

impl Queue {
    const fn new() -> Queue {
        Queue {
            state: Mutex::new(State {
                lines: VecDeque::new(),
                bytes: 0,
                is_writing: false,
                dropped: 0,
                told: 0,
            }),
            changed: Condvar::new(),
        }
    }

    fn add(&self, line: Vec<u8>) {
        let mut state = lock(&self.state);
        if state.lines.len() >= LINES || state.bytes + line.len() > BYTES {
            state.dropped += 1;
            return;
        }
        state.bytes += line.len();
        state.lines.push_back(line);
        drop(state);
        self.changed.notify_all();
    }

    fn flush(&self, deadline: Duration) {
        let until = Instant::now() + deadline;
        let mut state = lock(&self.state);
        while state.is_writing || !state.lines.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.changed.wait_timeout(state, left);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Writes what is added, for ever. Calls `tell` when lines were dropped and there is room again.
    fn write_to(&self, mut out: impl Write, tell: impl Fn()) {
        loop {
            let (lines, bytes) = self.next();
            let written = out.write_all(&bytes).is_ok();
            let mut state = lock(&self.state);
            state.is_writing = false;
            if !written {
                state.dropped += lines;
            }
            let has_room = state.lines.len() < LINES / 2 && state.bytes < BYTES / 2;
            let is_due = written && has_room && state.told < state.dropped;
            drop(state);
            self.changed.notify_all();
            if is_due {
                tell();
            }
        }
    }

    /// Waits for lines, and takes as many as are written at once.
    fn next(&self) -> (u64, Vec<u8>) {
        let mut state = lock(&self.state);
        while state.lines.is_empty() {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.is_writing = true;
        let (mut lines, mut bytes) = (0, Vec::new());
        while bytes.len() < WRITE_BYTES
            && let Some(line) = state.lines.pop_front()
        {
            state.bytes -= line.len();
            bytes.extend_from_slice(&line);
            lines += 1;
        }
        (lines, bytes)
    }
}

#[cfg(test)]
mod tests;

//! How many connections may be open, and which one goes when there are more.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::lock;

/// Connections, at most; Prometheus, a probe and a few people need a handful.
const MOST: u64 = 64;

/// Connections that are being answered, at most, as a share of all: each may hold a document of megabytes.
const ANSWERED_SHARE: u64 = 8;

/// The share of the process' descriptors that connections may take. The rest is for the journal and the brokers.
const DESCRIPTORS_SHARE: u64 = 4;

/// How many connections may be open, and how many of them may be answered, where the process may open so many files.
pub(super) fn most(descriptors: Option<u64>) -> (usize, usize) {
    let most = descriptors.unwrap_or(u64::MAX) / DESCRIPTORS_SHARE;
    let most = most.clamp(ANSWERED_SHARE, MOST);
    (most as usize, (most / ANSWERED_SHARE) as usize)
}

/// Who waits for the same thing, in the order in which they came. Who has been there longest goes first: a client that has
/// come to ask asks at once, and one that sits there does not.
#[derive(Debug, Default)]
pub(super) struct Seats(Mutex<VecDeque<(CancellationToken, Instant)>>);

/// A seat, until it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    of: Arc<Seats>,
    until: CancellationToken,
}

impl Seats {
    /// A seat. `until` is cancelled when it is taken back.
    pub(super) fn take(self: &Arc<Seats>, until: CancellationToken) -> Seat {
        lock(&self.0).push_back((until.clone(), Instant::now()));
        let of = Arc::clone(self);
        Seat { of, until }
    }

    /// As [`Seats::take`], of so many: when there are more, the one that was taken first is taken back.
    pub(super) fn take_of(self: &Arc<Seats>, most: usize, until: CancellationToken) -> Seat {
        if lock(&self.0).len() >= most {
            self.take_back();
        }
        self.take(until)
    }

    /// When the first was taken of those that are.
    pub(super) fn first(&self) -> Option<Instant> {
        lock(&self.0).front().map(|(_, since)| *since)
    }

    /// Takes back the seat that was taken first.
    pub(super) fn take_back(&self) {
        if let Some((first, _)) = lock(&self.0).pop_front() {
            first.cancel();
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        lock(&self.of.0).retain(|(until, _)| *until != self.until);
    }
}

#[cfg(test)]
mod tests;

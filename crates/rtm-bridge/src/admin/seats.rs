//! How many connections may be open, and which one goes when there are more.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio_util::sync::CancellationToken;

use crate::lock;

/// Connections, at most; Prometheus, a probe and a few people need a handful.
const MOST: u64 = 64;

/// Connections that are being answered, at most, as a share of all: each may hold a document of megabytes.
const ANSWERED_SHARE: u64 = 8;

/// The share of the process' descriptors that connections may take. The rest is for the journal and the brokers.
const DESCRIPTORS_SHARE: u64 = 4;

/// Seats of one kind. Who comes when all are taken gets the seat of who has sat there longest: a client that has come to
/// ask asks at once, and one that sits there does not.
#[derive(Debug)]
pub(super) struct Seats {
    most: usize,
    taken: Mutex<VecDeque<CancellationToken>>,
}

/// A seat, until it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    of: Arc<Seats>,
    until: CancellationToken,
}

impl Seats {
    /// For connections that wait for a request, and for those that are answered, where the process may open so many files.
    pub(super) fn for_descriptors(descriptors: Option<u64>) -> (Arc<Seats>, Arc<Seats>) {
        let most = descriptors.unwrap_or(u64::MAX) / DESCRIPTORS_SHARE;
        let most = most.clamp(ANSWERED_SHARE, MOST);
        let answered = most / ANSWERED_SHARE;
        (Seats::new(most - answered), Seats::new(answered))
    }

    fn new(most: u64) -> Arc<Seats> {
        Arc::new(Seats {
            most: most as usize,
            taken: Mutex::default(),
        })
    }

    /// A seat. `until` is cancelled once it is another's.
    pub(super) fn take(self: &Arc<Seats>, until: CancellationToken) -> Seat {
        let mut taken = lock(&self.taken);
        taken.push_back(until.clone());
        if taken.len() > self.most
            && let Some(longest) = taken.pop_front()
        {
            longest.cancel();
        }
        drop(taken);
        let of = Arc::clone(self);
        Seat { of, until }
    }

    /// Takes back the seat that was taken first.
    pub(super) fn free_one(&self) {
        if let Some(longest) = lock(&self.taken).pop_front() {
            longest.cancel();
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        lock(&self.of.taken).retain(|until| *until != self.until);
    }
}

#[cfg(test)]
mod tests;

//! One region's store of one stream, as Agora keeps it.

use std::collections::VecDeque;

/// The most events that a ring keeps. Source: Agora's RESTful event API, "at most 2,000 events".
pub const RING_EVENTS: usize = 2_000;

/// The most events that one call returns. Source: as above.
pub const PAGE_EVENTS: usize = 1_000;

/// Events that wait to be read, oldest first, and how many came and went.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    waiting: VecDeque<Box<str>>,
    generated: u64,
    overwritten: u64,
}

impl Ring {
    /// Stores an event; past [`RING_EVENTS`] it replaces the oldest, silently.
    pub(crate) fn push(&mut self, event: Box<str>) {
        if self.waiting.len() == RING_EVENTS {
            self.waiting.pop_front();
            self.overwritten += 1;
        }
        self.waiting.push_back(event);
        self.generated += 1;
    }

    /// Reads, and thereby deletes, the oldest [`PAGE_EVENTS`] or fewer.
    pub(crate) fn take(&mut self) -> Vec<Box<str>> {
        let count = self.waiting.len().min(PAGE_EVENTS);
        self.waiting.drain(..count).collect()
    }

    /// How many events ever arrived.
    pub(crate) fn generated(&self) -> u64 {
        self.generated
    }

    /// How many were replaced before anyone read them.
    pub(crate) fn overwritten(&self) -> u64 {
        self.overwritten
    }

    /// How many are there to be read.
    pub(crate) fn waiting(&self) -> u64 {
        self.waiting.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a plain list: what is read is the oldest of the newest 2,000, at most 1,000, in order, once.
        #[test]
        fn keeps_the_newest_and_gives_the_oldest(steps in prop::collection::vec(0usize..1_700, 1..12)) {
            let mut ring = Ring::default();
            let mut model: Vec<u64> = Vec::new();
            let (mut next, mut lost, mut taken) = (0, 0, 0);
            for pushes in steps {
                for _ in 0..pushes {
                    ring.push(next.to_string().into());
                    model.push(next);
                    next += 1;
                }
                let excess = model.len().saturating_sub(2_000);
                lost += model.drain(..excess).count() as u64;
                let expected: Vec<u64> = model.drain(..model.len().min(1_000)).collect();
                let page: Vec<u64> = ring.take().iter().map(|event| event.parse().unwrap_or(u64::MAX)).collect();
                taken += page.len() as u64;
                prop_assert_eq!(page, expected);
                prop_assert_eq!((ring.generated(), ring.overwritten()), (next, lost));
                prop_assert_eq!(ring.generated(), ring.overwritten() + taken + ring.waiting());
            }
        }
    }
}

//! The newest entries in memory, so that a reader that keeps up reads no file and decompresses nothing.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::Position;

/// What an entry takes beside its bytes.
const SLOT_BYTES: usize = 64;

/// The newest entries of all lanes, the oldest going first.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    /// The most bytes.
    most: usize,
    /// Positions increase over the whole journal, so this is sorted.
    entries: VecDeque<(Position, Bytes)>,
    bytes: usize,
}

impl Tail {
    /// Of at most so many bytes.
    pub(crate) fn of(most: usize) -> Tail {
        Tail {
            most,
            ..Tail::default()
        }
    }

    pub(crate) fn push(&mut self, position: Position, entry: Bytes) {
        self.bytes += entry.len() + SLOT_BYTES;
        self.entries.push_back((position, entry));
        while self.bytes > self.most {
            self.pop();
        }
    }

    pub(crate) fn get(&self, position: Position) -> Option<Bytes> {
        let at = self
            .entries
            .binary_search_by_key(&position, |(at, _)| *at)
            .ok()?;
        Some(self.entries[at].1.clone())
    }

    /// Lets go of what nobody will read again.
    pub(crate) fn forget_before(&mut self, position: Position) {
        while self
            .entries
            .front()
            .is_some_and(|(first, _)| *first < position)
        {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some((_, entry)) = self.entries.pop_front() {
            self.bytes -= entry.len() + SLOT_BYTES;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_first_and_the_bound_holds() {
        let mut tail = Tail::of(8 << 20);
        let entry = Bytes::from(vec![0; 1 << 20]);
        for position in 1..=20 {
            tail.push(Position(position), entry.clone());
            assert!(tail.bytes <= 8 << 20);
        }
        assert_eq!(tail.get(Position(13)), None);
        assert_eq!(tail.get(Position(14)), Some(entry));
        assert_eq!(tail.get(Position(21)), None);
        tail.forget_before(Position(20));
        assert_eq!(tail.entries.len(), 1);
    }

    #[test]
    fn an_entry_larger_than_the_bound_is_not_kept() {
        let mut tail = Tail::of(8 << 20);
        tail.push(Position(1), Bytes::from(vec![0; 8 << 20]));
        assert_eq!((tail.get(Position(1)), tail.bytes), (None, 0));
    }
}

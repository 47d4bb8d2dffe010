//! Where the live entries of a lane are: 40 bytes of memory for each.

use std::collections::VecDeque;

use crate::Position;

/// The entries of one lane that some reader has not committed, by position.
#[derive(Debug, Default)]
pub(crate) struct Index {
    slots: VecDeque<Slot>,
    /// The sum of the frames that have left, so that `Slot::end` need never be rewritten.
    base: u64,
    base_count: u64,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    position: Position,
    /// The bytes of all frames of this lane up to and with this one: differences tell what is pending.
    end: u64,
    /// The same of their counts.
    count_end: u64,
    at_ms: i64,
    segment: u32,
    offset: u32,
}

/// Where one entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) position: Position,
    pub(crate) segment: u32,
    pub(crate) offset: u32,
    /// Header and body.
    pub(crate) bytes: u32,
    pub(crate) at_ms: i64,
    pub(crate) count: u32,
}

/// The entries behind a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Behind {
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
    pub(crate) count: u64,
    /// When the first of them was appended.
    pub(crate) oldest_ms: Option<i64>,
}

impl Index {
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.slots.back().map_or(0, |last| last.end - self.base)
    }

    /// Adds an entry, whose position is larger than all before.
    pub(crate) fn push(&mut self, place: Place) {
        debug_assert!(
            self.slots
                .back()
                .is_none_or(|last| last.position < place.position)
        );
        let (end, count_end) = self.start(self.slots.len());
        self.slots.push_back(Slot {
            position: place.position,
            end: end + u64::from(place.bytes),
            count_end: count_end + u64::from(place.count),
            at_ms: place.at_ms,
            segment: place.segment,
            offset: place.offset,
        });
    }

    /// The first entry behind `position`.
    pub(crate) fn after(&self, position: Position) -> Option<Place> {
        self.place(self.rank(position))
    }

    pub(crate) fn behind(&self, position: Position) -> Behind {
        let rank = self.rank(position);
        let Some(first) = self.slots.get(rank) else {
            return Behind::default();
        };
        let (start, count_start) = self.start(rank);
        let (end, count_end) = self.start(self.slots.len());
        Behind {
            entries: (self.slots.len() - rank) as u64,
            bytes: end - start,
            count: count_end - count_start,
            oldest_ms: Some(first.at_ms),
        }
    }

    /// Takes out the first entry if it is not behind `floor`.
    pub(crate) fn pop_through(&mut self, floor: Position) -> Option<Place> {
        let first = self.place(0).filter(|first| first.position <= floor)?;
        self.base += u64::from(first.bytes);
        self.base_count += u64::from(first.count);
        self.slots.pop_front();
        if self.slots.len() < self.slots.capacity() / 4 && self.slots.capacity() > 1024 {
            // An outage makes the index large; it need not stay so.
            self.slots.shrink_to(self.slots.len() * 2);
        }
        Some(first)
    }

    /// Says that the entry is in another place now. Returns the old one, or nothing if the entry has left.
    pub(crate) fn relocate(
        &mut self,
        position: Position,
        segment: u32,
        offset: u32,
    ) -> Option<Place> {
        let rank = self
            .slots
            .binary_search_by_key(&position, |slot| slot.position)
            .ok()?;
        let old = self.place(rank);
        let slot = &mut self.slots[rank];
        slot.segment = segment;
        slot.offset = offset;
        old
    }

    pub(crate) fn places(&self) -> impl Iterator<Item = Place> + '_ {
        (0..self.slots.len()).filter_map(|rank| self.place(rank))
    }

    fn place(&self, rank: usize) -> Option<Place> {
        let slot = self.slots.get(rank)?;
        let (start, count_start) = self.start(rank);
        Some(Place {
            position: slot.position,
            segment: slot.segment,
            offset: slot.offset,
            // A frame's length and count are below 2^32, so are these differences.
            bytes: (slot.end - start) as u32,
            at_ms: slot.at_ms,
            count: (slot.count_end - count_start) as u32,
        })
    }

    /// The bytes and counts of all frames before the one at `rank`.
    fn start(&self, rank: usize) -> (u64, u64) {
        rank.checked_sub(1)
            .map_or((self.base, self.base_count), |before| {
                let slot = &self.slots[before];
                (slot.end, slot.count_end)
            })
    }

    /// How many entries are not behind `position`.
    fn rank(&self, position: Position) -> usize {
        // Readers are at one of the ends almost always.
        match (self.slots.front(), self.slots.back()) {
            (Some(first), _) if position < first.position => 0,
            (_, Some(last)) if position >= last.position => self.slots.len(),
            _ => self.slots.partition_point(|slot| slot.position <= position),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(position: u64) -> Place {
        Place {
            position: Position(position),
            segment: 1,
            offset: position as u32,
            bytes: position as u32,
            at_ms: position as i64,
            count: 10 * position as u32,
        }
    }

    #[test]
    fn what_is_behind_is_counted() {
        let mut index = Index::default();
        for position in [2, 3, 5, 9] {
            index.push(place(position));
        }
        let behind = |index: &Index, position| {
            let behind = index.behind(Position(position));
            assert_eq!(behind.count, 10 * behind.bytes);
            (behind.entries, behind.bytes, behind.oldest_ms)
        };
        assert_eq!(behind(&index, 0), (4, 19, Some(2)));
        assert_eq!(behind(&index, 2), (3, 17, Some(3)));
        assert_eq!(behind(&index, 4), (2, 14, Some(5)));
        assert_eq!(behind(&index, 9), (0, 0, None));
        assert_eq!(index.pop_through(Position(4)), Some(place(2)));
        assert_eq!(index.pop_through(Position(4)), Some(place(3)));
        assert_eq!(index.pop_through(Position(4)), None);
        assert_eq!((index.len(), index.bytes()), (2, 14));
        assert_eq!(behind(&index, 0), (2, 14, Some(5)));
        assert_eq!(behind(&index, 5), (1, 9, Some(9)));
        assert_eq!(index.after(Position(5)), Some(place(9)));
        assert_eq!(index.after(Position(9)), None);
    }

    #[test]
    fn a_moved_entry_keeps_everything_but_its_place() {
        let mut index = Index::default();
        index.push(place(2));
        index.push(place(3));
        assert_eq!(index.relocate(Position(2), 8, 77), Some(place(2)));
        assert_eq!(
            index.after(Position(0)),
            Some(Place {
                segment: 8,
                offset: 77,
                ..place(2)
            })
        );
        assert_eq!(index.after(Position(2)), Some(place(3)));
        assert_eq!(index.relocate(Position(4), 8, 0), None);
    }

    #[test]
    fn a_slot_is_as_small_as_the_documentation_says() {
        assert_eq!(size_of::<Slot>(), 40);
    }
}

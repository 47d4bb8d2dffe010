//! Who may have how many bytes.
//!
//! A lane uses what its live entries take on the disk (at least [`Limits::least_charge`] each) and what it has
//! reserved. Half of the capacity is guaranteed to the lanes that are open, in equal shares; the rest is common. What a
//! lane uses beyond its share comes out of the common part, and so does everything that lanes hold which nobody opened.
//!
//! Two more bounds are the same for all lanes: the size of the files, which includes what is dead but not yet
//! reclaimed, and the free space of the file system.
//!
//! Architecture invariant: what is live and reserved stays within the capacity (while what nobody opened fits into the
//! common part), which is a segment less than what the files may take; so where the files are in the way, at least a
//! segment of them is dead, and `reclaim` can make room.

use crate::frame::HEADER_BYTES;
use crate::options::{Limits, MAX_ENTRY_BYTES};
use crate::state::{LaneState, State};

/// What a lane could still reserve, by each of the bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) share: u64,
    pub(crate) disk: u64,
    pub(crate) free: u64,
}

impl Room {
    /// The largest entry that could be reserved now.
    pub(crate) fn entry_bytes(&self) -> u64 {
        self.share
            .min(self.disk)
            .min(self.free)
            .saturating_sub(HEADER_BYTES as u64)
            .min(MAX_ENTRY_BYTES as u64)
    }
}

/// How the capacity is divided.
struct Division {
    share: u64,
    common: u64,
}

impl State {
    /// `spare_bytes` is what the file system has free, beyond what is to be left alone.
    pub(crate) fn room(
        &self,
        limits: &Limits,
        expected: usize,
        lane: u32,
        spare_bytes: u64,
    ) -> Room {
        let Division { share, common } = self.division(limits, expected);
        let beyond = |lane: &LaneState| {
            lane.used(limits)
                .saturating_sub(if lane.open { share } else { 0 })
        };
        let others = self
            .lanes
            .iter()
            .filter(|(id, _)| **id != lane)
            .map(|(_, lane)| beyond(lane))
            .sum::<u64>();
        let used = self.lanes.get(&lane).map_or(0, |lane| lane.used(limits));
        let reserved = self.reserved();
        Room {
            share: share.saturating_sub(used)
                + common
                    .saturating_sub(others)
                    .saturating_sub(used.saturating_sub(share)),
            disk: limits
                .disk_bytes
                .saturating_sub(self.file_bytes())
                .saturating_sub(reserved),
            free: spare_bytes.saturating_sub(reserved),
        }
    }

    /// The most that a lane can ever have for one entry, with all others empty.
    pub(crate) fn most(&self, limits: &Limits, expected: usize) -> u64 {
        let Division { share, common } = self.division(limits, expected);
        share + common
    }

    /// The size of all segments.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.segments.values().map(|segment| segment.bytes).sum()
    }

    /// See [`crate::Stats::used_bytes`].
    pub(crate) fn used(&self, limits: &Limits, max_bytes: u64) -> u64 {
        let lanes = self.lanes.values();
        let held: u64 = lanes.clone().map(LaneState::held_bytes).sum();
        let charged: u64 = lanes.map(|lane| lane.charged(limits)).sum();
        let charged = charged.saturating_sub(held);
        let part = u128::from(max_bytes) * u128::from(charged) / u128::from(limits.capacity);
        let files = self.file_bytes().saturating_sub(held);
        files.max(u64::try_from(part).unwrap_or(u64::MAX))
    }

    /// What is reserved, or handed over and not yet written.
    pub(crate) fn reserved(&self) -> u64 {
        self.lanes.values().map(LaneState::reserved).sum()
    }

    fn division(&self, limits: &Limits, expected: usize) -> Division {
        let open = self.lanes.values().filter(|lane| lane.open).count();
        let share = limits.guaranteed / expected.max(open).max(1) as u64;
        Division {
            share,
            common: limits.capacity - share * open as u64,
        }
    }
}

impl LaneState {
    pub(crate) fn reserved(&self) -> u64 {
        self.reserved.values().sum()
    }

    fn used(&self, limits: &Limits) -> u64 {
        self.charged(limits) + self.reserved()
    }

    /// What its live entries count as.
    fn charged(&self, limits: &Limits) -> u64 {
        let least = self.index.len() as u64 * limits.least_charge;
        self.index.bytes().max(least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        segment_bytes: 10,
        disk_bytes: 2000,
        capacity: 1000,
        guaranteed: 500,
        least_charge: 0,
    };

    fn state(lanes: &[(bool, u64)]) -> State {
        let mut state = State::default();
        for (id, (open, reserved)) in lanes.iter().enumerate() {
            let lane = LaneState {
                open: *open,
                reserved: [(0, *reserved)].into(),
                ..LaneState::default()
            };
            state.lanes.insert(id as u32, lane);
        }
        state
    }

    fn share(state: &State, lane: u32) -> u64 {
        state.room(&LIMITS, 2, lane, u64::MAX).share
    }

    #[test]
    fn a_share_is_kept_for_a_lane_whatever_the_others_take() {
        // 250 each, 500 common.
        let state = state(&[(true, 750), (true, 0)]);
        assert_eq!(share(&state, 0), 0);
        assert_eq!(share(&state, 1), 250);
    }

    #[test]
    fn what_is_common_goes_to_who_asks_first() {
        let state = state(&[(true, 300), (true, 400)]);
        assert_eq!(share(&state, 0), 300);
        assert_eq!(share(&state, 1), 300);
        assert_eq!(state.most(&LIMITS, 2), 750);
    }

    #[test]
    fn a_lane_that_nobody_opened_lives_on_the_common_part() {
        let state = state(&[(true, 0), (true, 0), (false, 500)]);
        assert_eq!(share(&state, 0), 250);
        assert_eq!(share(&state, 1), 250);
    }

    #[test]
    fn more_lanes_than_expected_shrink_the_shares() {
        let state = state(&[(true, 0), (true, 0), (true, 0), (true, 625)]);
        assert_eq!(share(&state, 3), 0);
        assert_eq!(share(&state, 0), 125);
    }

    #[test]
    fn tiny_entries_are_charged_for_their_place_in_the_index() {
        let limits = Limits {
            least_charge: 100,
            ..LIMITS
        };
        let mut state = state(&[(true, 0)]);
        let place = crate::index::Place {
            position: crate::Position(1),
            segment: 0,
            offset: 0,
            bytes: 1,
            at_ms: 0,
            count: 0,
        };
        state.lanes.get_mut(&0).unwrap().index.push(place);
        assert_eq!(state.room(&limits, 1, 0, u64::MAX).share, 900);
        // A tenth of the capacity, so a tenth of the journal, though its files are smaller; unless they are larger.
        assert_eq!(state.used(&limits, 2100), 210);
        let files = crate::state::SegmentState {
            bytes: 211,
            ..Default::default()
        };
        state.segments.insert(1, files);
        assert_eq!(state.used(&limits, 2100), 211);
    }

    #[test]
    fn reservations_count_against_the_files_and_the_free_space() {
        let mut state = state(&[(true, 300)]);
        state.segments.insert(
            1,
            crate::state::SegmentState {
                bytes: 1500,
                ..Default::default()
            },
        );
        let room = state.room(&LIMITS, 1, 0, 400);
        assert_eq!((room.disk, room.free), (200, 100));
    }
}

//! The journal's own number. It is the mark of a lane that nobody can open, so that it needs no other format: an earlier
//! version keeps it, and a copy of the journal has it too.

use std::hash::{BuildHasher, RandomState};
use std::time::Instant;

use bytes::Bytes;

use crate::LaneName;
use crate::state::State;

/// The number that a mark tells.
pub(crate) fn of_mark(mark: Option<&Bytes>) -> Option<u128> {
    Some(u128::from_be_bytes(mark?.as_ref().try_into().ok()?))
}

/// A number that no other journal has.
pub(crate) fn random() -> u128 {
    // The keys of a RandomState come from the system's random numbers, and are other ones each time.
    let half = || u128::from(RandomState::new().hash_one(std::process::id()));
    half() << 64 | half()
}

impl State {
    /// The journal's number.
    pub(crate) fn identity(&self) -> Option<u128> {
        of_mark(self.lanes.get(&LaneName::own().id())?.mark.as_ref())
    }

    /// Whether the journal's number is durable.
    pub(crate) fn has_durable_identity(&self) -> bool {
        let own = self.lanes.get(&LaneName::own().id());
        own.is_some_and(|own| own.mark.is_some() && own.changed == own.saved)
    }

    /// Gives the journal this number.
    pub(crate) fn set_identity(&mut self, number: u128, now: Instant) {
        let name = LaneName::own();
        let id = name.id();
        let lane = self.lanes.entry(id).or_default();
        lane.name = Some(name);
        lane.mark = Some(Bytes::copy_from_slice(&number.to_be_bytes()));
        self.touch(id, now);
    }
}

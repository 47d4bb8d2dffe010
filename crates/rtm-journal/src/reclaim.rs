//! Making room: segments without a live entry are unlinked, and segments that are mostly dead are cleaned.
//!
//! Unlinking takes no space, so it works on a full disk. Cleaning is for when the files have reached their bound,
//! somebody waits, and a slow lane pins old segments with a few live entries each: those are copied to the newest
//! segment, as they are, with their positions and epochs. Without it one stopped lane would take the room of all.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::frame::HEADER_BYTES;
use crate::index::Place;
use crate::reader::{Unreadable, read_frame};
use crate::state::{Append, From, SegmentState};
use crate::writer::{LONGEST_PAUSE, Writer};

/// A segment is worth cleaning when this part of it is dead. A journal at its bound has a segment of a sixteenth.
const WORTH_CLEANING: u64 = 32;
/// The newest segment is worth leaving when what is dead in it is this part of a segment.
const WORTH_LEAVING: u64 = 4;

/// How long a segment that could not be read is left alone.
const UNREADABLE_PAUSE: Duration = Duration::from_secs(30);

/// Without a live entry.
fn is_dead(segment: &SegmentState) -> bool {
    segment.entries == 0
}

impl Writer {
    /// Lets go of entries that every reader has committed, and unlinks segments that have none left. Says whether any
    /// was.
    pub(crate) fn reclaim(&mut self) -> bool {
        let shared = Arc::clone(&self.shared);
        let (released, dead) = {
            let mut state = shared.state();
            let released = state.release();
            // The newest durable head is all that tells the lanes and cursors, so its segment stays. So do newer
            // segments, which may be durable without our knowing.
            let newest = state
                .segments
                .iter()
                .rev()
                .find(|(_, segment)| segment.durable)
                .map(|(number, _)| *number);
            let dead = state
                .segments
                .iter()
                .filter(|(number, segment)| is_dead(segment) && Some(**number) < newest);
            (
                released,
                dead.map(|(number, _)| *number).collect::<Vec<u32>>(),
            )
        };
        let mut unlinked = Vec::new();
        let failed_before = self.reclaim_at.take().is_some();
        for segment in dead {
            match shared.storage.unlink(segment) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    if !failed_before && self.reclaim_at.is_none() {
                        tracing::warn!(segment, %error, "a dead segment of the journal cannot be removed; trying on");
                    }
                    self.reclaim_at = Some(shared.options.instant() + LONGEST_PAUSE);
                }
                _ => unlinked.push(segment),
            }
        }
        if !unlinked.is_empty() {
            // Should removed segments come back after a power loss, they are found dead and removed again.
            if let Err(error) = shared.storage.sync_dir() {
                tracing::warn!(%error, "the journal's directory cannot be synced after a removal");
            }
            let mut state = shared.state();
            state
                .segments
                .retain(|segment, _| !unlinked.contains(segment));
        }
        if released || !unlinked.is_empty() {
            shared.room.notify_waiters();
        }
        !unlinked.is_empty()
    }

    /// Makes room for a `reserve` that the size of the files keeps waiting: does the one thing that frees the most bytes
    /// for the fewest that are written.
    pub(crate) fn make_room(&mut self) {
        let now = self.shared.options.instant();
        let segment_bytes = self.shared.limits.segment_bytes;
        let (active, worst) = {
            let state = self.shared.state();
            let active = self
                .active
                .and_then(|active| state.segments.get(&active.segment));
            let number = self.active.map(|active| active.segment);
            let part = |dead: u64, bytes: u64| dead.saturating_mul(1 << 20) / bytes.max(1);
            let sealed = state.segments.iter().filter(|(other, segment)| {
                Some(**other) != number && segment.entries > 0 && segment.is_readable(now)
            });
            let worst = sealed
                .filter(|(_, segment)| segment.dead_bytes() * WORTH_CLEANING >= segment.bytes)
                .max_by_key(|(_, segment)| part(segment.dead_bytes(), segment.bytes))
                .map(|(number, _)| *number);
            (active.copied(), worst)
        };
        // Rolling is cheap, and makes the newest segment one that can be unlinked or cleaned.
        if active.is_some_and(|active| active.dead_bytes() * WORTH_LEAVING >= segment_bytes) {
            self.roll = true;
            let wrote = self.write(false);
            // This may have freed nothing yet, and a `reserve` that waits does not ask again by itself.
            self.shared.state().pressure |= wrote.is_ok();
        } else if let Some(segment) = worst {
            self.clean(segment);
        }
    }

    /// Copies a group of a segment's live entries forward. When the last has gone, it is unlinked like any other.
    fn clean(&mut self, segment: u32) {
        let shared = Arc::clone(&self.shared);
        let places: Vec<_> = {
            let state = shared.state();
            let places = state.lanes.values().flat_map(|lane| lane.index.places());
            let mut bytes = 0;
            places
                .filter(|place| place.segment == segment)
                .take_while(|place| {
                    let first = bytes == 0;
                    bytes += u64::from(place.bytes);
                    first || bytes <= self.group_bytes()
                })
                .collect()
        };
        // What could not be copied keeps its segment.
        let _ = self.copy(places);
        let wrote = self.write(false);
        // Where live entries are left in the segment, the next group is copied without being asked for.
        let mut state = shared.state();
        let more = state.segments.get(&segment).is_some_and(|segment| {
            segment.entries > 0 && segment.is_readable(shared.options.instant())
        });
        state.pressure |= wrote.is_ok() && more;
    }

    /// Takes entries as they are into the group that is written next, as far as they can be read. Fails where the storage
    /// did, and not for damage.
    pub(crate) fn copy(&mut self, places: impl IntoIterator<Item = Place>) -> io::Result<()> {
        let mut copied = Ok(());
        for place in places {
            let segment = place.segment;
            match read_frame(&*self.shared.storage, place) {
                Ok((header, frame)) => {
                    let body = Bytes::from(frame).slice(HEADER_BYTES..);
                    self.group.appends.push(Append {
                        header,
                        body,
                        from: From::Segment(segment),
                    });
                }
                Err(error) => {
                    // The reader of the entry will tell what is wrong with it; here the entry only keeps its segment.
                    tracing::warn!(segment, %error, "a segment of the journal cannot be cleaned");
                    let until = self.shared.options.instant() + UNREADABLE_PAUSE;
                    self.clean_at.get_or_insert(until);
                    if let Some(state) = self.shared.state().segments.get_mut(&segment) {
                        state.unreadable_until = Some(until);
                    }
                    if let Unreadable::Io(error) = error {
                        copied = Err(error);
                    }
                }
            }
        }
        copied
    }
}

//! Opening: what the segments say, and the little that has to be put right.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

use bytes::Bytes;

use crate::change::{self, Appended, Change, Cursor};
use crate::frame::{Kind, MAX_POSITION, VERSION, take};
use crate::index::{Index, Place};
use crate::reader::BAD_SECTOR_PATIENCE;
use crate::scan::{BadSectors, Frame, Trust, is_bad_sector, read_version, scan};
use crate::state::{LaneState, ReaderState, Recovered, SegmentState, State};
use crate::{Epoch, LaneName, OpenError, Position, ReaderName, Storage};

/// Reads the journal, and cuts the torn tail of its newest segment.
///
/// May be interrupted anywhere and done again: what is cut is nothing that a second reading would believe. Nothing is
/// ever appended to an old segment, since its last sync may have failed unseen; the writer begins a new one, into which
/// everything goes that no later write vouches for. `pause` waits between two tries to read what the disk cannot read.
pub(crate) fn recover(
    storage: &dyn Storage,
    pause: &dyn Fn(Duration),
) -> Result<Recovered, OpenError> {
    let replay = read_patiently(storage, pause).map_err(|error| match error {
        ReplayError::Version { segment, found } => OpenError::Version {
            segment,
            found,
            known: VERSION,
        },
        ReplayError::List(source) => OpenError::Storage {
            operation: "list",
            source,
        },
        ReplayError::Read { source, .. } => OpenError::Storage {
            operation: "read",
            source,
        },
    })?;
    let mut state = State {
        next_position: replay.next_position,
        ..State::default()
    };
    let unclean = !replay.clean && !replay.segments.is_empty();
    for segment in &replay.segments {
        state.damaged += segment.damaged;
        if segment.damaged > 0 {
            tracing::error!(
                segment = segment.number,
                stretches = segment.damaged,
                "the journal is damaged; the rest is kept"
            );
        }
        let bytes = segment.bytes;
        state.segments.insert(
            segment.number,
            SegmentState {
                bytes,
                head_bytes: segment.head_bytes,
                durable: segment.head_bytes > 0 && segment.proven,
                ..SegmentState::default()
            },
        );
    }
    if let Some(newest) = replay.segments.last() {
        state.next_segment = newest.number.checked_add(1).ok_or(OpenError::Storage {
            operation: "number another segment in",
            source: io::ErrorKind::StorageFull.into(),
        })?;
        cut(storage, newest, &mut state);
    }
    let mut live = Vec::new();
    for (id, lane) in replay.lanes {
        let lane = lane.into_state();
        for place in lane.index.places() {
            let told = place.position <= lane.appended.last;
            let unproven = !told || replay.unproven.contains(&(place.segment, place.offset));
            if unproven {
                live.push(place);
            }
            state.segments.entry(place.segment).or_default().add(place);
        }
        state.lanes.insert(id, lane);
    }
    Ok(Recovered {
        state,
        unclean,
        unproven: live,
    })
}

/// As [`Replay::read`]. Bytes that the disk has failed to read for [`BAD_SECTOR_PATIENCE`], while it reads others, are
/// damage: a journal that waited for them for ever would keep all else from being published, and events from being polled.
/// Whatever else fails may pass, and the opening fails.
fn read_patiently(storage: &dyn Storage, pause: &dyn Fn(Duration)) -> Result<Replay, ReplayError> {
    let mut waited = Duration::ZERO;
    loop {
        match Replay::read(storage, false, BadSectors::Fail) {
            Err(ReplayError::Read { segment, source }) if is_bad_sector(&source) => {
                if waited >= BAD_SECTOR_PATIENCE {
                    let replay = Replay::read(storage, false, BadSectors::AreDamage)?;
                    let reads = replay.segments.iter().any(|read| !read.epochs.is_empty());
                    return reads
                        .then_some(replay)
                        .ok_or(ReplayError::Read { segment, source });
                }
                let left = (BAD_SECTOR_PATIENCE - waited).as_secs();
                tracing::error!(segment, error = %source, "the journal cannot be read; it is tried for {left} s more");
            }
            read => return read,
        }
        pause(PAUSE);
        waited += PAUSE;
    }
}

/// Between two tries to read what the disk cannot read.
const PAUSE: Duration = Duration::from_secs(2);

/// Cuts the torn tail. Where that fails the journal opens all the same: nothing is written behind the tail, and at the
/// next opening it is found torn again.
fn cut(storage: &dyn Storage, newest: &SegmentRead, state: &mut State) {
    let segment = newest.number;
    // Behind what the disk cannot read there may be more than a torn tail.
    if newest.end < newest.bytes && newest.bad_blocks == 0 {
        tracing::warn!(
            segment,
            bytes = newest.bytes - newest.end,
            "cutting the journal's torn tail"
        );
        // With no intact frame there is nothing to keep: reclaim unlinks it.
        if newest.end > 0 {
            match storage.truncate(segment, newest.end) {
                Ok(()) => state.segments.entry(segment).or_default().bytes = newest.end,
                Err(error) => tracing::warn!(segment, %error, "the journal's torn tail stays"),
            }
        }
    }
}

/// What the segments say, without a change to any of them.
#[derive(Default)]
pub(crate) struct Replay {
    pub(crate) lanes: BTreeMap<u32, LaneRead>,
    /// By number.
    pub(crate) segments: Vec<SegmentRead>,
    pub(crate) next_position: u64,
    /// The newest segment ends with the frame that closing writes.
    pub(crate) clean: bool,
    /// Of the segments before, what might be torn.
    torn: Vec<(u32, Place)>,
    /// The places of entries that nobody vouches for.
    pub(crate) unproven: BTreeSet<(u32, u32)>,
    /// There was an intact head, and no number has been missing since: the next head tells nothing new of what was
    /// appended, unless something in between is lost.
    seamless: bool,
}

#[derive(Debug, Default)]
pub(crate) struct SegmentRead {
    pub(crate) number: u32,
    pub(crate) bytes: u64,
    pub(crate) end: u64,
    pub(crate) damaged: u64,
    pub(crate) entries: u64,
    pub(crate) counts: u64,
    /// Prologue and head; 0 where the head is damaged.
    pub(crate) head_bytes: u64,
    pub(crate) last_group: Option<u32>,
    /// Its head had been durable.
    pub(crate) proven: bool,
    /// Stretches in the last group that are no intact frames.
    pub(crate) torn: u64,
    /// The torn stretches had been durable: the next segment's head knows of more entries.
    pub(crate) lost: bool,
    pub(crate) unproven: Vec<Place>,
    pub(crate) epochs: BTreeSet<Epoch>,
    /// As [`crate::scan::Scanned::bad_blocks`].
    pub(crate) bad_blocks: u64,
}

#[derive(Default)]
pub(crate) struct LaneRead {
    pub(crate) name: Option<LaneName>,
    pub(crate) mark: Option<Bytes>,
    pub(crate) readers: BTreeMap<ReaderName, Cursor>,
    /// Counts that a later write vouches for. `appended` also has those of every entry that reads back.
    proven: Appended,
    pub(crate) appended: Appended,
    /// Everything up to here is dead.
    pub(crate) floor: Position,
    entries: Vec<Place>,
}

pub(crate) enum ReplayError {
    List(io::Error),
    Version { segment: u32, found: u32 },
    Read { segment: u32, source: io::Error },
}

impl Replay {
    /// Reads every segment. With `living` set another process may be at work, and segments may go while we read.
    pub(crate) fn read(
        storage: &dyn Storage,
        living: bool,
        bad_sectors: BadSectors,
    ) -> Result<Replay, ReplayError> {
        let mut replay = Replay::read_all(storage, living, bad_sectors)?;
        let unproven = &replay.unproven;
        replay
            .lanes
            .values_mut()
            .for_each(|lane| lane.settle(unproven));
        Ok(replay)
    }

    /// The same, with entries that every reader has committed, and in no order.
    pub(crate) fn read_all(
        storage: &dyn Storage,
        living: bool,
        bad_sectors: BadSectors,
    ) -> Result<Replay, ReplayError> {
        let mut segments = storage.list().map_err(ReplayError::List)?;
        segments.sort_unstable();
        let gone = |error: &io::Error| living && error.kind() == io::ErrorKind::NotFound;
        // All versions first: of a journal that we do not know nothing is believed.
        for (segment, _) in &segments {
            match read_version(storage, *segment) {
                Ok(None | Some(VERSION)) => {}
                Ok(Some(found)) => {
                    return Err(ReplayError::Version {
                        segment: *segment,
                        found,
                    });
                }
                Err(error) if gone(&error) => {}
                Err(error) if bad_sectors == BadSectors::AreDamage && is_bad_sector(&error) => {}
                Err(source) => {
                    return Err(ReplayError::Read {
                        segment: *segment,
                        source,
                    });
                }
            }
        }
        let mut replay = Replay {
            next_position: 1,
            ..Replay::default()
        };
        for (number, bytes) in segments {
            let mut read = SegmentRead {
                number,
                bytes,
                ..SegmentRead::default()
            };
            replay.clean = false;
            let before = replay.segments.last().map(|before| before.number);
            if before.is_none_or(|before| before + 1 != number) {
                // The head that could have told is gone.
                replay.seamless = false;
                replay.torn.clear();
            }
            match scan(storage, number, bytes, bad_sectors, &mut |frame| {
                replay.apply(&mut read, &frame);
            }) {
                Ok(scanned) => {
                    read.end = scanned.end;
                    read.last_group = scanned.last_group;
                    read.torn = scanned.torn;
                    read.damaged += scanned.damaged;
                    read.bad_blocks = scanned.bad_blocks;
                    if scanned.bad_blocks > 0 {
                        // Whatever stood there: it may have been more than what a crash tears.
                        read.damaged = read.damaged.max(1);
                    }
                    replay.segments.push(read);
                }
                Err(error) if gone(&error) => {}
                Err(source) => {
                    return Err(ReplayError::Read {
                        segment: number,
                        source,
                    });
                }
            }
        }
        replay.find_unproven();
        Ok(replay)
    }

    /// A segment's second group is written when its first is durable, and with it everything before. So what nobody
    /// vouches for is in the last groups of the newest segments, back to the first that has a second group.
    fn find_unproven(&mut self) {
        let mut vouched = false;
        for segment in self.segments.iter_mut().rev() {
            if !vouched {
                let places = segment.unproven.iter();
                self.unproven
                    .extend(places.map(|place| (place.segment, place.offset)));
            }
            vouched |= segment.last_group.is_some_and(|start| start > 0);
            segment.proven = vouched;
        }
    }

    fn apply(&mut self, segment: &mut SegmentRead, frame: &Frame) {
        let Frame {
            offset,
            header,
            body,
            trust,
        } = frame;
        segment.epochs.insert(header.epoch);
        self.clean = header.kind == Kind::Close;
        match header.kind {
            Kind::Close => {}
            Kind::Entry => {
                let place = Place {
                    position: header.position,
                    segment: segment.number,
                    offset: *offset,
                    bytes: header.frame_bytes(),
                    at_ms: header.at_ms,
                    count: header.count,
                };
                if *trust == Trust::Torn {
                    return self.torn.push((header.lane, place));
                }
                segment.entries += 1;
                segment.counts += u64::from(header.count);
                self.saw(header.position);
                let lane = self.lanes.entry(header.lane).or_default();
                lane.appended.add(header.position, header.count);
                lane.entries.push(place);
                if *trust == Trust::Unproven {
                    segment.unproven.push(place);
                } else {
                    lane.proven.add(header.position, header.count);
                }
            }
            Kind::Head | Kind::Changes => {
                let mut rest = body.as_slice();
                if header.kind == Kind::Head {
                    let Some(next) = take(&mut rest) else {
                        return segment.damaged += 1;
                    };
                    let next = u64::from_le_bytes(next).min(MAX_POSITION.0);
                    self.next_position = self.next_position.max(next);
                }
                let Some(changes) = change::decode(rest) else {
                    return segment.damaged += 1;
                };
                if header.kind == Kind::Head {
                    segment.head_bytes = u64::from(offset + header.frame_bytes());
                    // A head tells all readers, so a reader that it does not tell is no more.
                    self.lanes
                        .values_mut()
                        .for_each(|lane| lane.readers.clear());
                }
                let unseen = self.seamless && changes.iter().any(|change| self.is_unseen(change));
                changes.into_iter().for_each(|change| self.change(change));
                if header.kind == Kind::Head {
                    self.settle_torn(unseen);
                    self.seamless = true;
                }
            }
        }
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::Lane {
                lane,
                floor,
                appended,
                mark,
            } => {
                self.saw(floor.max(appended.last));
                let read = self.lanes.entry(lane.id()).or_default();
                (read.name, read.floor, read.mark) = (Some(lane), floor, mark);
                (read.proven, read.appended) = (appended, appended);
            }
            Change::Reader {
                lane,
                reader,
                cursor,
            } => {
                self.saw(cursor.through);
                let read = self.lanes.entry(lane.id()).or_default();
                read.readers.insert(reader, cursor);
                // The lane's name is known from here alone where the frame that introduced the lane is damaged.
                read.name = Some(lane);
            }
            Change::RemoveReader { lane, reader } => {
                self.lanes
                    .entry(lane.id())
                    .or_default()
                    .readers
                    .remove(&reader);
            }
        }
    }

    /// A head has told which entries had been durable when it was written: what looks torn among them is damaged, and
    /// stays for its readers to hear of. The rest never was, or was written again behind the head.
    fn settle_torn(&mut self, unseen: bool) {
        let mut told = 0;
        for (id, place) in std::mem::take(&mut self.torn) {
            // A torn frame may be a copy forward of an entry that is still intact where it was: nothing is lost then.
            let is_copy = |lane: &LaneRead| {
                let mut entries = lane.entries.iter();
                entries.any(|known| known.position == place.position)
            };
            if let Some(lane) = self.lanes.get_mut(&id)
                && place.position <= lane.appended.last
                && !is_copy(lane)
            {
                lane.entries.push(place);
                // Unproven, so that any other copy of the entry is preferred.
                self.unproven.insert((place.segment, place.offset));
                told += 1;
            }
        }
        if let Some(before) = self.segments.last_mut().filter(|_| unseen) {
            before.lost = true;
            before.damaged += before.torn.saturating_sub(told);
        }
    }

    /// Whether the change knows of entries that no segment before has.
    fn is_unseen(&self, change: &Change) -> bool {
        let Change::Lane { lane, appended, .. } = change else {
            return false;
        };
        let seen = self.lanes.get(&lane.id());
        seen.map_or(Position(0), |seen| seen.appended.last) < appended.last
    }

    /// Positions are never given twice.
    fn saw(&mut self, position: Position) {
        self.next_position = self.next_position.max(position.0.saturating_add(1));
    }
}

impl LaneRead {
    /// The entries that some reader has not committed, each once, by position.
    pub(crate) fn entries(&self) -> &[Place] {
        &self.entries
    }

    /// Lets go of what is dead.
    fn settle(&mut self, unproven: &BTreeSet<(u32, u32)>) {
        let cursors = self.readers.values().map(|cursor| cursor.through);
        if let Some(slowest) = cursors.min() {
            self.floor = self.floor.max(slowest);
        }
        self.entries.retain(|place| place.position > self.floor);
        self.sort(unproven);
    }

    /// An entry may be there twice: in a segment whose sync failed, or copied forward. The later one had been synced,
    /// unless nobody vouches for it: then the earlier one, of a copy forward, is what there is for certain.
    pub(crate) fn sort(&mut self, unproven: &BTreeSet<(u32, u32)>) {
        self.entries.sort_unstable_by_key(|place| {
            let at = (place.segment, place.offset);
            (place.position, unproven.contains(&at), Reverse(at))
        });
        self.entries.dedup_by_key(|place| place.position);
    }

    fn into_state(self) -> LaneState {
        let mut index = Index::default();
        self.entries.into_iter().for_each(|place| index.push(place));
        let readers = self
            .readers
            .into_iter()
            .map(|(name, cursor)| (name, ReaderState::recovered(cursor)))
            .collect();
        LaneState {
            name: self.name,
            mark: self.mark,
            floor: self.floor,
            // Entries that are not proven are counted when they are copied forward.
            appended: self.proven,
            readers,
            index,
            ..LaneState::default()
        }
    }
}

//! Everything that is stored, read and checked, for people: damage, and entries one by one.

use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::SystemTime;

use zstd::bulk::Decompressor;

use crate::disk::Disk;
use crate::frame::{HEADER_BYTES, Header, Kind, PROLOGUE_BYTES, from_ms};
use crate::index::Place;
use crate::inspect::{failed, look, look_alone, name_of};
use crate::reader::{Unreadable, read_entry};
use crate::recover::{Replay, SegmentRead};
use crate::scan::{BadSectors, Frame, read_version, scan};
use crate::{Entry, InspectError, LaneName, Position, ReaderName, Storage};

/// What checking a journal came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verification {
    /// How many segments there are.
    pub segments: u64,
    /// Their size.
    pub bytes: u64,
    /// Frames that are intact, entries among them.
    pub frames: u64,
    /// Entries that are intact.
    pub entries: u64,
    /// What had been durable, and is not what was written.
    pub damage: Vec<Damage>,
    /// What is not whole of a segment's last write, and was never reported durable: what a crash leaves. Opening the
    /// journal passes over it.
    pub torn: Vec<Damage>,
}

/// A stretch of a segment that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The number of the segment.
    pub segment: u32,
    /// Where the stretch begins.
    pub offset: u64,
    /// How long it is.
    pub bytes: u64,
    /// What it hit, for people.
    pub what: String,
}

pub(crate) fn verify(dir: &Path) -> Result<Verification, InspectError> {
    let disk = look_alone(dir)?;
    let replay = Replay::read_all(&disk, false, BadSectors::Fail).map_err(failed(dir))?;
    let lanes = replay.lanes.iter();
    let mut check = Check {
        disk: &disk,
        lanes: lanes.map(|(id, lane)| (*id, name_of(*id, lane))).collect(),
        decompressor: None,
        found: Verification::default(),
    };
    for segment in &replay.segments {
        let checked = check.segment(segment);
        checked.map_err(|source| InspectError::Storage {
            segment: segment.number,
            source,
        })?;
    }
    Ok(check.found)
}

struct Check<'a> {
    disk: &'a Disk,
    lanes: BTreeMap<u32, String>,
    decompressor: Option<Decompressor<'static>>,
    found: Verification,
}

impl Check<'_> {
    fn segment(&mut self, read: &SegmentRead) -> io::Result<()> {
        self.found.segments += 1;
        self.found.bytes += read.bytes;
        let mut frames: Vec<Frame> = Vec::new();
        scan(
            self.disk,
            read.number,
            read.bytes,
            BadSectors::Fail,
            &mut |frame| {
                frames.push(frame);
            },
        )?;
        if read.bytes > 0 && read_version(self.disk, read.number)?.is_none() {
            let bytes = read.bytes.min(PROLOGUE_BYTES as u64);
            self.note(read, 0, bytes, "the prologue".to_owned());
        }
        let mut at = PROLOGUE_BYTES as u64;
        for frame in frames {
            self.gap(read, at, frame.offset.into())?;
            at = (frame.offset + frame.header.frame_bytes()).into();
            match self.frame(read, &frame) {
                Ok(()) => {
                    self.found.frames += 1;
                    self.found.entries += u64::from(frame.header.kind == Kind::Entry);
                }
                Err(Unreadable::Io(error)) => return Err(error),
                Err(Unreadable::Damaged(what)) => {
                    let what = format!("{}: {what}", self.name(&frame.header));
                    let bytes = frame.header.frame_bytes().into();
                    self.note(read, frame.offset.into(), bytes, what);
                }
            }
        }
        self.gap(read, at, read.bytes)
    }

    /// Checks an entry's frame. Those of other kinds were checked when they were scanned.
    fn frame(&mut self, read: &SegmentRead, frame: &Frame) -> Result<(), Unreadable> {
        if frame.header.kind == Kind::Entry {
            let place = Place {
                position: frame.header.position,
                segment: read.number,
                offset: frame.offset,
                bytes: frame.header.frame_bytes(),
                at_ms: frame.header.at_ms,
                count: frame.header.count,
            };
            read_entry(self.disk, place, &mut self.decompressor)?;
        }
        Ok(())
    }

    /// Between two frames there is nothing, in a sound segment.
    fn gap(&mut self, read: &SegmentRead, from: u64, to: u64) -> io::Result<()> {
        if from >= to {
            return Ok(());
        }
        let mut header = [0; HEADER_BYTES];
        let bytes = self.disk.read(read.number, from, &mut header)?;
        let header = u32::try_from(from)
            .ok()
            .and_then(|at| Header::decode(&header[..bytes], read.number, at));
        let what = match header {
            Some(header) => format!("{}: its bytes", self.name(&header)),
            None => "frames whose headers cannot be read".to_owned(),
        };
        self.note(read, from, to - from, what);
        Ok(())
    }

    fn note(&mut self, read: &SegmentRead, offset: u64, bytes: u64, what: String) {
        let damage = Damage {
            segment: read.number,
            offset,
            bytes,
            what,
        };
        let durable = read.last_group.is_some_and(|group| offset < group.into());
        if durable || read.lost {
            self.found.damage.push(damage);
        } else {
            self.found.torn.push(damage);
        }
    }

    fn name(&self, header: &Header) -> String {
        match header.kind {
            Kind::Head => "the head, with all cursors and marks".to_owned(),
            Kind::Changes => "cursors or marks".to_owned(),
            Kind::Close => "the note of a clean end".to_owned(),
            Kind::Entry => format!(
                "the entry of lane {} at position {}, count {}",
                self.lanes.get(&header.lane).map_or("?", String::as_str),
                header.position,
                header.count
            ),
        }
    }
}

/// Which entries are asked for. The default is all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryFilter {
    /// Of this lane only.
    pub lane: Option<LaneName>,
    /// From and to these positions, both with them.
    pub positions: RangeInclusive<Position>,
    /// Appended at this time or later.
    pub since: Option<SystemTime>,
    /// Appended before this time.
    pub before: Option<SystemTime>,
}

impl Default for EntryFilter {
    fn default() -> EntryFilter {
        EntryFilter {
            lane: None,
            positions: Position(0)..=Position(u64::MAX),
            since: None,
            before: None,
        }
    }
}

impl EntryFilter {
    fn wants(&self, place: &Place) -> bool {
        let at = from_ms(place.at_ms);
        self.positions.contains(&place.position)
            && self.since.is_none_or(|since| at >= since)
            && self.before.is_none_or(|before| at < before)
    }
}

/// An entry, wherever the readers are.
#[derive(Debug)]
pub struct StoredEntry {
    /// Its lane; `?` and a number where everything that told the name is damaged.
    pub lane: String,
    /// Where it is.
    pub position: Position,
    /// What was counted in it.
    pub count: u32,
    /// When it was handed over, by the wall clock.
    pub appended_at: SystemTime,
    /// Readers that have not committed it.
    pub pending: Vec<ReaderName>,
    /// Its lane has no reader, and the entry is kept for one to come.
    pub unclaimed: bool,
    /// The entry, or why it cannot be read: an [`io::Error`] where the storage says so.
    pub entry: Result<Entry, Box<dyn std::error::Error + Send + Sync>>,
}

/// Whose the entries of a lane are.
struct Owners {
    lane: String,
    readers: Vec<(ReaderName, Position)>,
    /// Up to here, none is needed any more.
    floor: Position,
}

/// Entries, read one by one.
pub struct StoredEntries {
    disk: Disk,
    living: bool,
    lanes: BTreeMap<u32, Owners>,
    places: std::vec::IntoIter<(u32, Place)>,
    decompressor: Option<Decompressor<'static>>,
}

pub(crate) fn stored(dir: &Path, filter: &EntryFilter) -> Result<StoredEntries, InspectError> {
    entries(dir, look_alone(dir)?, false, filter)
}

pub(crate) fn stored_beside(
    dir: &Path,
    filter: &EntryFilter,
) -> Result<StoredEntries, InspectError> {
    let (disk, holder) = look(dir)?;
    entries(dir, disk, holder.is_some(), filter)
}

fn entries(
    dir: &Path,
    disk: Disk,
    living: bool,
    filter: &EntryFilter,
) -> Result<StoredEntries, InspectError> {
    let replay = Replay::read_all(&disk, living, BadSectors::Fail).map_err(failed(dir))?;
    let asked = filter.lane.as_ref().map(LaneName::id);
    let mut lanes = BTreeMap::new();
    let mut places = Vec::new();
    for (id, mut lane) in replay.lanes {
        if asked.is_some_and(|asked| asked != id) {
            continue;
        }
        lane.sort(&replay.unproven);
        let wanted = lane.entries().iter().filter(|place| filter.wants(place));
        places.extend(wanted.map(|place| (id, *place)));
        let readers = lane.readers.iter();
        let owners = Owners {
            lane: name_of(id, &lane),
            readers: readers
                .map(|(name, cursor)| (name.clone(), cursor.through))
                .collect(),
            floor: lane.floor,
        };
        lanes.insert(id, owners);
    }
    places.sort_unstable_by_key(|(_, place)| place.position);
    Ok(StoredEntries {
        disk,
        living,
        lanes,
        places: places.into_iter(),
        decompressor: None,
    })
}

impl Iterator for StoredEntries {
    type Item = StoredEntry;

    fn next(&mut self) -> Option<StoredEntry> {
        let (id, place) = self.places.next()?;
        let owners = self.lanes.get(&id)?;
        let readers = owners.readers.iter();
        let pending = readers.filter(|(_, through)| *through < place.position);
        Some(StoredEntry {
            lane: owners.lane.clone(),
            position: place.position,
            count: place.count,
            appended_at: from_ms(place.at_ms),
            pending: pending.map(|(name, _)| name.clone()).collect(),
            unclaimed: owners.readers.is_empty() && place.position > owners.floor,
            entry: read_entry(&self.disk, place, &mut self.decompressor).map_err(
                |error| match error {
                    Unreadable::Io(error) => error.into(),
                    damaged @ Unreadable::Damaged(_) => damaged.into(),
                },
            ),
        })
    }

    /// What is passed over is not read.
    fn nth(&mut self, n: usize) -> Option<StoredEntry> {
        if let Some(last) = n.checked_sub(1) {
            self.places.nth(last)?;
        }
        self.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.places.size_hint()
    }
}

impl ExactSizeIterator for StoredEntries {}

impl StoredEntries {
    /// Whether a process has the journal open, which may remove entries that every reader has committed.
    #[must_use]
    pub fn may_be_reclaimed(&self) -> bool {
        self.living
    }

    /// Leaves the newest of each lane.
    #[must_use]
    pub fn newest_of_each_lane(mut self) -> StoredEntries {
        let newest: BTreeMap<u32, Place> = self.places.collect();
        self.places = Vec::from_iter(newest).into_iter();
        self
    }
}

impl std::fmt::Debug for StoredEntries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredEntries")
            .field("left", &self.places.len())
            .finish_non_exhaustive()
    }
}

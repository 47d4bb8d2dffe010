//! A look at a journal from outside, for people.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::SystemTime;

use bytes::Bytes;

use crate::disk::{Disk, Lock};
use crate::frame::VERSION;
use crate::identity;
use crate::index::{Behind, Place};
use crate::recover::{LaneRead, Replay, ReplayError};
use crate::scan::BadSectors;
use crate::stats::{Pending, missing};
use crate::{Epoch, InspectError, LaneName, Position};

/// What is in a journal's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// The random number of the journal; none of one that this version has not opened yet.
    pub id: Option<u128>,
    /// A process has it open, and what follows may be changing.
    pub in_use: bool,
    /// That process, if its lock tells.
    pub in_use_by: Option<u32>,
    /// The last process closed it. True of an empty journal, false while one is at work.
    pub clean: bool,
    /// The size of all segments.
    pub bytes: u64,
    /// What opening would cut off the newest segment.
    pub torn_bytes: u64,
    /// Stretches that are no intact frames, torn tail aside. Bodies are not read.
    pub damaged: u64,
    /// The processes that wrote what is there.
    pub epochs: Vec<Epoch>,
    /// By number.
    pub segments: Vec<SegmentInspection>,
    /// By name.
    pub lanes: Vec<LaneInspection>,
}

/// One segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentInspection {
    /// Its number; larger is later.
    pub number: u32,
    /// Its size.
    pub bytes: u64,
    /// Entries in it, live or not.
    pub entries: u64,
    /// The counts of those entries.
    pub counts: u64,
    /// Stretches that are no intact frames, torn tail aside.
    pub damaged: u64,
}

/// One lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneInspection {
    /// Its name; `?` and a number where everything that told it is damaged.
    pub name: String,
    /// Entries that some reader has not committed, or all where there is no reader.
    pub entries: u64,
    /// Their size on the disk.
    pub bytes: u64,
    /// The counts of all entries that ever became durable in it.
    pub appended: u64,
    /// Its mark.
    pub mark: Option<Bytes>,
    /// By name.
    pub readers: Vec<ReaderInspection>,
}

/// One reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReaderInspection {
    /// Its name.
    pub name: String,
    /// Everything up to here is committed.
    pub committed: Position,
    /// What is not.
    pub pending: Pending,
    /// The counts of what is committed.
    pub passed: u64,
    /// As [`crate::ReaderStats::missing`].
    pub missing: u64,
    /// What was stored with the cursor: see [`crate::Reader::tally`].
    pub tally: Bytes,
}

/// The directory for reading, and who has it open: nobody, or somebody of that process number if it tells.
pub(crate) fn look(dir: &Path) -> Result<(Disk, Option<Option<u32>>), InspectError> {
    let holder = Lock::held(dir);
    let disk = Disk::read_only(dir).map_err(|source| InspectError::Directory {
        path: dir.to_owned(),
        source,
    })?;
    Ok((disk, holder))
}

/// As [`look`], where nobody may be changing it meanwhile.
pub(crate) fn look_alone(dir: &Path) -> Result<Disk, InspectError> {
    match look(dir)? {
        (disk, None) => Ok(disk),
        (_, Some(pid)) => Err(InspectError::InUse {
            path: dir.to_owned(),
            pid,
        }),
    }
}

pub(crate) fn failed(dir: &Path) -> impl Fn(ReplayError) -> InspectError {
    move |error| match error {
        ReplayError::List(source) => InspectError::Directory {
            path: dir.to_owned(),
            source,
        },
        ReplayError::Version { segment, found } => InspectError::Version {
            segment,
            found,
            known: VERSION,
        },
        ReplayError::Read { segment, source } => InspectError::Storage { segment, source },
    }
}

pub(crate) fn inspect(dir: &Path, now: SystemTime) -> Result<Inspection, InspectError> {
    let (disk, holder) = look(dir)?;
    let replay = Replay::read(&disk, holder.is_some(), BadSectors::Fail).map_err(failed(dir))?;
    let epochs: BTreeSet<Epoch> = replay
        .segments
        .iter()
        .flat_map(|segment| segment.epochs.iter().copied())
        .collect();
    let segment = |read: &crate::recover::SegmentRead| SegmentInspection {
        number: read.number,
        bytes: read.bytes,
        entries: read.entries,
        counts: read.counts,
        damaged: read.damaged,
    };
    let mut lanes: Vec<LaneInspection> = replay
        .lanes
        .iter()
        .filter(|(_, lane)| !lane.name.as_ref().is_some_and(LaneName::is_own))
        .map(|(id, lane)| lane_inspection(*id, lane, now))
        .collect();
    lanes.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    let own = replay.lanes.get(&LaneName::own().id());
    Ok(Inspection {
        id: own.and_then(|own| identity::of_mark(own.mark.as_ref())),
        in_use: holder.is_some(),
        in_use_by: holder.flatten(),
        clean: replay.clean || replay.segments.is_empty(),
        bytes: replay.segments.iter().map(|segment| segment.bytes).sum(),
        torn_bytes: replay
            .segments
            .last()
            .map_or(0, |newest| newest.bytes.saturating_sub(newest.end)),
        damaged: replay.segments.iter().map(|segment| segment.damaged).sum(),
        epochs: epochs.into_iter().collect(),
        segments: replay.segments.iter().map(segment).collect(),
        lanes,
    })
}

/// `?` and a number where everything that told it is damaged.
pub(crate) fn name_of(id: u32, lane: &LaneRead) -> String {
    lane.name
        .as_ref()
        .map_or_else(|| format!("?{id:08x}"), ToString::to_string)
}

fn lane_inspection(id: u32, lane: &LaneRead, now: SystemTime) -> LaneInspection {
    let behind = |through: Position| {
        let pending = &lane.entries()[lane
            .entries()
            .partition_point(|place| place.position <= through)..];
        let bytes = |places: &[Place]| places.iter().map(|place| u64::from(place.bytes)).sum();
        Behind {
            entries: pending.len() as u64,
            bytes: bytes(pending),
            count: pending.iter().map(|place| u64::from(place.count)).sum(),
            oldest_ms: pending.first().map(|first| first.at_ms),
        }
    };
    let all = behind(Position(0));
    let readers = lane.readers.iter().map(|(name, cursor)| {
        let pending = Pending::of(behind(cursor.through), now);
        ReaderInspection {
            name: name.to_string(),
            committed: cursor.through,
            pending,
            passed: cursor.passed,
            missing: missing(lane.appended.counts, cursor, pending.count),
            tally: cursor.tally.clone(),
        }
    });
    LaneInspection {
        name: name_of(id, lane),
        entries: all.entries,
        bytes: all.bytes,
        appended: lane.appended.counts,
        mark: lane.mark.clone(),
        readers: readers.collect(),
    }
}

//! What can go wrong, one enum for each operation.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::{LaneName, Position, ReaderName};

/// Why a journal did not open. Nothing was changed, save for what [`OpenError::Storage`] tells.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be made, read or restricted to its owner.
    #[error("the journal's directory {} cannot be used", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another process, or another [`crate::Journal`] of this one, has it open.
    #[error("the journal in {} is in use{}", path.display(), pid.map(|pid| format!(" by process {pid}")).unwrap_or_default())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The holder, as it wrote itself into the lock file.
        pid: Option<u32>,
    },
    /// A segment is of a format that this program does not know. It was not touched.
    #[error(
        "segment {segment} has format version {found}, and this program reads {known}: use the release that wrote it"
    )]
    Version {
        /// The number of the segment.
        segment: u32,
        /// Its version.
        found: u32,
        /// The version of this program.
        known: u32,
    },
    /// `max_bytes` is less than a journal can work in.
    #[error("max_bytes is {max_bytes}, and a journal needs at least {least}")]
    TooSmall {
        /// What was asked for.
        max_bytes: u64,
        /// The least.
        least: u64,
    },
    /// The storage failed. A full disk is not among this: such a journal opens, and waits for space.
    #[error("cannot {operation} the journal's storage")]
    Storage {
        /// What was being done.
        operation: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The writer's thread could not be started.
    #[error("cannot start the journal's writer")]
    Thread(#[source] io::Error),
}

/// Why there is no lane of this name.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    /// Two names share one checksum, by which entries find their lane. Choose another name.
    #[error("the lane name {name} collides with {other}")]
    Collision {
        /// The name asked for.
        name: LaneName,
        /// The lane that has its place.
        other: LaneName,
    },
    /// The journal keeps what it knows of itself there.
    #[error("the lane name {0} is the journal's own")]
    Reserved(LaneName),
    /// There are [`crate::MAX_LANES`] lanes.
    #[error("the journal has {0} lanes, the most there can be")]
    TooMany(usize),
    /// The journal is closed.
    #[error("the journal is closed")]
    Closed,
}

/// Why there is no reader of this name.
#[derive(Debug, thiserror::Error)]
pub enum ReaderError {
    /// It is open already: two readers would move one cursor.
    #[error("the reader {0} is open already")]
    AlreadyOpen(ReaderName),
    /// There are [`crate::MAX_READERS`] readers in this lane.
    #[error("the lane has {0} readers, the most there can be")]
    TooMany(usize),
    /// The journal is closed.
    #[error("the journal is closed")]
    Closed,
}

/// Why a reader was not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveReaderError {
    /// It is open: drop it first.
    #[error("the reader {0} is open")]
    Open(ReaderName),
    /// The lane has no such reader.
    #[error("there is no reader {0}")]
    Unknown(ReaderName),
    /// The journal is closed, or was closed before the removal was durable.
    #[error("the journal is closed")]
    Closed,
}

/// Why an entry, a mark or a tally was not stored.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// It is larger than what was reserved, a mark larger than [`crate::MAX_MARK_BYTES`], or a tally larger than
    /// [`crate::MAX_TALLY_BYTES`].
    #[error("{bytes} bytes are more than the {most} there is room for")]
    TooLarge {
        /// The size of what was to be stored.
        bytes: usize,
        /// The most that fits.
        most: usize,
    },
    /// The journal is closed, or was closed before the entry was durable.
    #[error("the journal is closed")]
    Closed,
}

/// Why the next entry could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The entry is damaged: its bytes are lost. The reader has passed it, and goes on with the next; committing this
    /// position, or a later one, lets go of it.
    #[error("the entry at position {position} is damaged")]
    Damaged {
        /// Where the entry was.
        position: Position,
        /// What was counted in it: that is kept apart from the bytes.
        count: u32,
    },
    /// The entry cannot be read now, and may be later. The reader has not moved: try again after a while, for as long as
    /// it takes. Only where the disk itself fails to read a segment for 30 s, while it reads others and writes, do the
    /// entries that it cannot read become [`ReadError::Damaged`].
    #[error("the entry at position {position} cannot be read")]
    Io {
        /// Where the entry is.
        position: Position,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The journal is closed, and everything was read.
    #[error("the journal is closed")]
    Closed,
}

/// Why a journal did not close cleanly. It is closed nevertheless, and the next opening calls it unclean.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CloseError {
    /// The last write failed, more than once.
    #[error("the journal's last write failed")]
    Storage(#[source] Arc<io::Error>),
    /// The writer's thread had ended before.
    #[error("the journal's writer had stopped")]
    Stopped,
}

/// Why a journal could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// A process has it open, and what is asked for needs it to stand still.
    #[error("the journal in {} is in use{}: stop the bridge, or look at a copy", path.display(), pid.map(|pid| format!(" by process {pid}")).unwrap_or_default())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The holder, as it wrote itself into the lock file.
        pid: Option<u32>,
    },
    /// The directory cannot be read.
    #[error("the journal's directory {} cannot be read", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A segment is of a format that this program does not know.
    #[error("segment {segment} has format version {found}, and this program reads {known}")]
    Version {
        /// The number of the segment.
        segment: u32,
        /// Its version.
        found: u32,
        /// The version of this program.
        known: u32,
    },
    /// A segment cannot be read.
    #[error("segment {segment} cannot be read")]
    Storage {
        /// The number of the segment.
        segment: u32,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

//! A durable, bounded journal of opaque entries in lanes, with one durable cursor per lane and reader.
//!
//! ```text
//! let journal = Journal::open(dir, Options::default())?;   // recovers by itself; one process at a time
//! let lane = journal.lane(&"app".parse()?)?;
//! let room = lane.reserve(2 << 20).await;                   // waits for room; the bytes are fetched after this
//! let position = room.append(page, events).await?;          // durable on return
//!
//! let mut reader = lane.reader(&"kafka".parse()?)?;
//! let entry = reader.next().await?;                         // waits at the tail
//! reader.commit(entry.position);                            // durable within `commit_interval`
//! ```
//!
//! # Promises
//!
//! - **Durable on return.** What [`Reservation::append`] has returned for survives a power loss, in the order of its
//!   [`Position`]s. A failed write or sync is never asked again on the same file: what was pending goes to a new one.
//! - **Cursors never run ahead.** A crash repeats at most what was committed in the last
//!   [`Options::commit_interval`]; it never skips.
//! - **Nothing is overwritten.** An entry is kept until every reader of its lane has committed it. A lane without
//!   readers keeps everything. When a lane's room is gone, [`Lane::reserve`] waits.
//! - **Counted.** What the caller counts in each entry is summed over a lane and over what each reader has committed,
//!   exactly, across restarts; a reader's own [tally](Reader::commit_with) is durable together with its cursor.
//! - **Bounded.** [`Options::max_bytes`] bounds the directory; every lane has a share that no other can take.
//! - **Recovery needs nobody.** A torn tail is cut; damage in the middle costs the frames it hit, and no others.
//!
//! # Map
//!
//! | module | what |
//! |---|---|
//! | `journal`, `lane`, `reader` | the API: [`Journal`]; [`Lane`] and [`Reservation`]; [`Reader`]. `handle` is what they keep alive |
//! | `state` | what the process knows: lanes, cursors, segments; one lock. `index` is where each entry is |
//! | `room` | who may have how many bytes |
//! | `writer` | the one that writes, in a thread or by a [`Driver`]: groups, new segments, failures; `reclaim` removes and cleans segments |
//! | `frame`, `change` | the format, byte by byte |
//! | `scan`, `recover` | reading segments back; `inspect` and `verify` are the same for people |
//! | `storage`, `disk` | the operations on files that everything above is built on, and the real ones; `sim` has simulated ones |
//!
//! Architecture invariant: only `writer` and `reclaim` (and `recover`, before the writer starts) change files.

mod change;
mod disk;
mod driver;
mod error;
mod frame;
mod handle;
mod identity;
mod index;
mod inspect;
mod journal;
mod lane;
mod name;
mod options;
mod position;
mod reader;
mod reclaim;
mod recover;
mod room;
mod scan;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
mod state;
mod stats;
mod storage;
mod tail;
mod verify;
mod writer;

#[cfg(test)]
mod tests;

pub use driver::Driver;
pub use error::{
    AppendError, CloseError, InspectError, LaneError, OpenError, ReadError, ReaderError,
    RemoveReaderError,
};
pub use inspect::{Inspection, LaneInspection, ReaderInspection, SegmentInspection};
pub use journal::Journal;
pub use lane::{Lane, Reservation};
pub use name::{LaneName, NameError, ReaderName};
pub use options::{
    MAX_ENTRY_BYTES, MAX_LANES, MAX_MARK_BYTES, MAX_READERS, MAX_TALLY_BYTES, Options,
};
pub use position::{Epoch, Position};
pub use reader::{Entry, Reader};
pub use stats::{LaneStats, Pending, ReaderStats, Stats, Unreadable};
pub use storage::Storage;
pub use verify::{Damage, EntryFilter, StoredEntries, StoredEntry, Verification};

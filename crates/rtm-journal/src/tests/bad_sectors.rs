//! Opening a journal of which the disk cannot read a part.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::io::Errno;

use super::*;
use crate::{Driver, OpenError, ReadError, Storage};

/// A disk that fails to read some bytes, so many times or for ever.
struct Bad {
    disk: Arc<TestDisk>,
    segments: Vec<u32>,
    bytes: Range<u64>,
    error: Errno,
    times: AtomicU32,
}

impl Storage for Bad {
    fn read(&self, segment: u32, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let read = self.disk.read(segment, offset, into)?;
        let meets = offset < self.bytes.end && self.bytes.start < offset + read as u64;
        if self.segments.contains(&segment) && meets && self.times.load(Ordering::Relaxed) > 0 {
            self.times.fetch_sub(1, Ordering::Relaxed);
            return Err(self.error.into());
        }
        Ok(read)
    }

    fn create(&self, segment: u32) -> io::Result<()> {
        self.disk.create(segment)
    }

    fn append(&self, segment: u32, bytes: &[u8]) -> io::Result<()> {
        self.disk.append(segment, bytes)
    }

    fn sync(&self, segment: u32) -> io::Result<()> {
        self.disk.sync(segment)
    }

    fn list(&self) -> io::Result<Vec<(u32, u64)>> {
        self.disk.list()
    }

    fn unlink(&self, segment: u32) -> io::Result<()> {
        self.disk.unlink(segment)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }

    fn truncate(&self, segment: u32, bytes: u64) -> io::Result<()> {
        self.disk.truncate(segment, bytes)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }
}

/// Twelve entries of 1 KiB in each of two segments, and none of them read.
async fn filled() -> (Arc<TestDisk>, Vec<Vec<u8>>) {
    let disk = TestDisk::of(std::collections::BTreeMap::new());
    let entries: Vec<_> = (0..24).map(|entry| noise(entry, 1024)).collect();
    for half in entries.chunks(12) {
        let journal = open(&disk);
        let lane = lane(&journal, "lane");
        let _reader = reader(&lane, "reader");
        for entry in half {
            append(&lane, entry).await;
        }
        in_time(journal.close()).await.unwrap();
    }
    (disk.after_kill(), entries)
}

/// Opens in time that stands still, so that nothing is waited for.
fn open_bad(
    disk: &Arc<TestDisk>,
    segments: &[u32],
    bytes: Range<u64>,
    error: Errno,
    times: u32,
) -> Result<(Journal, Driver), OpenError> {
    let bad = Bad {
        disk: Arc::clone(disk),
        segments: segments.to_vec(),
        bytes,
        error,
        times: AtomicU32::new(times),
    };
    let began = Instant::now();
    let options = Options {
        tail_bytes: 0,
        monotonic: Some(Arc::new(move || began)),
        ..options()
    };
    Journal::open_driven(bad, options)
}

/// The entries that the reader finds, and how many it has passed as damaged.
fn found(journal: &Journal) -> (Vec<Vec<u8>>, u64) {
    let mut reader = reader(&lane(journal, "lane"), "reader");
    let mut entries = Vec::new();
    loop {
        match reader.try_next() {
            Ok(Some(entry)) => entries.push(entry.bytes.to_vec()),
            Err(ReadError::Damaged { .. }) => {}
            Ok(None) => break,
            // Of what is in the index, and in the bad sector.
            Err(ReadError::Io { .. }) => {
                panic!("an entry whose header is lost is not in the index")
            }
            Err(error) => panic!("{error}"),
        }
    }
    (entries, journal.stats().damaged)
}

/// Holds: a journal of which the disk cannot read a block opens all the same, with every entry that is outside of it, and
/// says that it is damaged; whether the block is the head of a segment or the end of the newest. No file is cut.
#[tokio::test]
async fn a_bad_sector_costs_what_stands_in_it() {
    let (disk, entries) = filled().await;
    let segments: Vec<u32> = disk.files().keys().copied().collect();
    let [first, second] = segments[..] else {
        panic!("{segments:?}")
    };
    let size = disk.files()[&second].len() as u64;
    let before = disk.files();
    for (segment, bytes) in [
        (first, 0..100),
        (first, 5_000..5_001),
        (second, size - 1..size),
    ] {
        let opened = open_bad(&disk, &[segment], bytes.clone(), Errno::IO, u32::MAX);
        let (journal, _driver) = opened.unwrap_or_else(|error| panic!("{bytes:?}: {error}"));
        let (read, damaged) = found(&journal);
        let lost = entries.iter().filter(|entry| !read.contains(entry)).count();
        assert!(damaged > 0, "{bytes:?} of {segment}");
        assert!(
            (1..=5).contains(&lost),
            "{bytes:?} of {segment}: {lost} lost"
        );
        assert!(read.iter().all(|entry| entries.contains(entry)));
        drop(journal);
        for (segment, bytes) in &before {
            assert_eq!(disk.files().get(segment), Some(bytes));
        }
    }
}

/// Holds: what cannot be read for a while costs nothing; what a disk does not say of its medium, and a disk that reads
/// nothing at all, keep the journal from opening.
#[tokio::test]
async fn what_may_pass_is_no_damage() {
    let (disk, entries) = filled().await;
    let segments: Vec<u32> = disk.files().keys().copied().collect();
    let (journal, _driver) = open_bad(&disk, &segments[..1], 0..100, Errno::IO, 10).unwrap();
    assert_eq!(found(&journal), (entries, 0));
    drop(journal);
    for error in [Errno::ACCESS, Errno::MFILE, Errno::STALE] {
        assert!(
            open_bad(&disk, &segments[..1], 0..100, error, u32::MAX).is_err(),
            "{error}"
        );
    }
    let (disk, _) = filled().await;
    let segments: Vec<u32> = disk.files().keys().copied().collect();
    assert!(open_bad(&disk, &segments, 0..u64::MAX, Errno::IO, u32::MAX).is_err());
}

//! Entries that are there and cannot be read, for a time and for ever; in time that stands still.

use std::collections::BTreeSet;
use std::io;

use rustix::io::Errno;
use tokio::time::{self, Instant as TokioInstant};

use super::*;
use crate::sim::READ_ERRORS;
use crate::{Driver, ReadError};

/// Longer than any patience.
const LONG: Duration = Duration::from_secs(600);

/// Every entry is read from its file.
fn open_driven(disk: &Arc<TestDisk>) -> (Journal, tokio::task::JoinHandle<()>) {
    let options = Options {
        tail_bytes: 0,
        monotonic: Some(Arc::new(|| TokioInstant::now().into_std())),
        ..options()
    };
    let (journal, driver) = Journal::open_driven(Arc::clone(disk), options).unwrap();
    (journal, tokio::spawn(drive(driver)))
}

async fn drive(mut driver: Driver) {
    loop {
        match driver.run() {
            Some(at) => drop(time::timeout_at(at.into(), driver.woken()).await),
            None => driver.woken().await,
        }
    }
}

/// Appends so many entries, none like another, and gives them.
async fn fill(lane: &Lane, entries: u64) -> Vec<Vec<u8>> {
    let entries: Vec<_> = (0..entries).map(|entry| noise(entry, 500)).collect();
    for entry in &entries {
        append(lane, entry).await;
    }
    entries
}

/// Reads on for so long, a try each second. What came, and how many entries were given up.
async fn read_for(reader: &mut Reader, long: Duration) -> (Vec<Vec<u8>>, usize) {
    let (mut entries, mut damaged) = (Vec::new(), 0);
    let end = TokioInstant::now() + long;
    while TokioInstant::now() < end {
        match reader.try_next() {
            Ok(Some(entry)) => entries.push(entry.bytes.to_vec()),
            Ok(None) => break,
            Err(ReadError::Damaged { .. }) => damaged += 1,
            Err(ReadError::Io { .. }) => time::sleep(Duration::from_secs(1)).await,
            Err(error) => panic!("{error}"),
        }
    }
    (entries, damaged)
}

/// Holds: whatever keeps an entry from being read, it is waited for, and told in the stats, until it can be: descriptors
/// or rights that are missing, a stale handle, a file that is away; and a disk that reads nothing, or does not write
/// either.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_waited_for() {
    type Fails = fn(Op, bool) -> bool;
    let segment: Fails = |op, is_first| op == Op::Read && is_first;
    let reads: Fails = |op, _| op == Op::Read;
    let all: Fails = |_, _| true;
    let others = READ_ERRORS.into_iter().filter(|error| *error != Errno::IO);
    let others = others.map(|error| (error, segment));
    for (error, fails) in others.chain([(Errno::IO, reads), (Errno::IO, all)]) {
        let disk = TestDisk::new();
        let (journal, driving) = open_driven(&disk);
        let a = lane(&journal, "a");
        let mut reader = reader(&a, "r");
        let held = fill(&a, 100).await;
        let first = *disk.files().keys().next().unwrap();
        disk.fail(move |op, segment| fails(op, segment == first).then_some(error));
        let nothing = (Vec::new(), 0);
        assert_eq!(read_for(&mut reader, LONG).await, nothing, "{error}");
        let told = journal.stats().unreadable.expect("it is told");
        assert_eq!(told.why, io::Error::from(error).to_string());
        assert!(told.tried >= LONG - Duration::from_secs(2), "{told}");
        disk.heal();
        assert_eq!(read_for(&mut reader, LONG).await, (held, 0), "{error}");
        assert_eq!(journal.stats().unreadable, None);
        assert_eq!(journal.stats().damaged, 0);
        driving.abort();
    }
}

/// Holds: nothing is lost while writes fail, though the disk had written a moment before and reads the rest.
#[tokio::test(start_paused = true)]
async fn nothing_is_lost_while_writes_fail() {
    let disk = TestDisk::new();
    let (journal, driving) = open_driven(&disk);
    let a = lane(&journal, "a");
    let mut reader = reader(&a, "r");
    fill(&a, 100).await;
    let first = *disk.files().keys().next().unwrap();
    disk.fail(move |op, segment| (op == Op::Read && segment == first).then_some(Errno::IO));
    let nothing = (Vec::new(), 0);
    assert_eq!(
        read_for(&mut reader, Duration::from_secs(20)).await,
        nothing
    );
    append(&a, b"a write").await;
    disk.fail(move |op, segment| (op != Op::Read || segment == first).then_some(Errno::IO));
    let waiting = tokio::spawn(async move { append(&a, b"waits").await });
    assert_eq!(read_for(&mut reader, LONG).await, nothing);
    waiting.abort();
    driving.abort();
}

/// Holds: a segment that the disk cannot read while it reads the others and writes is lost after half a minute, at once
/// for all of its entries, and nothing else is.
#[tokio::test(start_paused = true)]
async fn a_bad_segment_is_waited_for_once() {
    let disk = TestDisk::new();
    let (journal, driving) = open_driven(&disk);
    let a = lane(&journal, "a");
    let mut reader = reader(&a, "r");
    let held = fill(&a, 200).await;
    let segments: BTreeSet<u32> = disk.files().into_keys().collect();
    assert!(segments.len() > 4);
    let bad = *segments.iter().nth(1).unwrap();
    disk.fail(move |op, segment| (op == Op::Read && segment == bad).then_some(Errno::IO));
    let began = TokioInstant::now();
    let (entries, damaged) = read_for(&mut reader, LONG).await;
    assert!(damaged > 20, "{damaged}");
    assert_eq!(entries.len() + damaged, held.len());
    assert!(entries.iter().all(|entry| held.contains(entry)));
    assert_eq!(journal.stats().damaged, damaged as u64);
    assert_eq!(journal.stats().unreadable, None);
    let took = began.elapsed().as_secs();
    assert!((30..=32).contains(&took), "{took} s");
    driving.abort();
}

/// Holds: the patience with a bad segment begins anew with every sign that it may be something else, and an entry that was
/// read leaves none of it to the next one.
#[tokio::test(start_paused = true)]
async fn only_the_disk_itself_uses_patience_up() {
    let disk = TestDisk::new();
    let (journal, driving) = open_driven(&disk);
    let a = lane(&journal, "a");
    let mut reader = reader(&a, "r");
    fill(&a, 100).await;
    let first = *disk.files().keys().next().unwrap();
    let fail = |error: Errno| {
        disk.fail(move |op, segment| (op == Op::Read && segment == first).then_some(error));
    };
    for entry in 0..5 {
        fail(Errno::IO);
        let nothing = (Vec::new(), 0);
        assert_eq!(
            read_for(&mut reader, Duration::from_secs(20)).await,
            nothing
        );
        fail(Errno::MFILE);
        assert_eq!(read_for(&mut reader, Duration::from_secs(1)).await, nothing);
        fail(Errno::IO);
        assert_eq!(
            read_for(&mut reader, Duration::from_secs(20)).await,
            nothing
        );
        disk.heal();
        assert_eq!(reader.try_next().unwrap().unwrap().bytes, noise(entry, 500));
    }
    driving.abort();
}

/// Holds: a segment that could not be read when it was to be cleaned is cleaned once it can be, so that a stopped lane
/// does not take the room of the others for ever.
#[tokio::test(start_paused = true)]
async fn a_segment_is_cleaned_once_it_can_be_read() {
    let disk = TestDisk::new();
    let options = Options {
        tail_bytes: 0,
        lanes_expected: 2,
        monotonic: Some(Arc::new(|| TokioInstant::now().into_std())),
        ..options()
    };
    let (journal, driver) = Journal::open_driven(Arc::clone(&disk), options).unwrap();
    let driving = tokio::spawn(drive(driver));
    let (stopped, going) = (lane(&journal, "stopped"), lane(&journal, "going"));
    let _never = reader(&stopped, "r");
    let mut reader = reader(&going, "r");
    // A little of the stopped lane in each segment.
    disk.fail(|op, _| (op == Op::Read).then_some(Errno::MFILE));
    let mut turn = async |entry| {
        let room = time::timeout(Duration::from_secs(5), going.reserve(2000)).await;
        let Ok(room) = room else { return false };
        let position = room.append(noise(entry, 2000), 1).await.unwrap();
        if entry % 4 == 0
            && let Some(room) = stopped.try_reserve(100)
        {
            room.append(noise(entry, 100), 1).await.unwrap();
        }
        disk.heal();
        while reader.try_next().unwrap().is_some() {}
        disk.fail(|op, _| (op == Op::Read).then_some(Errno::MFILE));
        reader.commit(position);
        true
    };
    let mut entry = 0;
    while turn(entry).await {
        entry += 1;
        assert!(entry < 10_000, "nothing had to be cleaned");
    }
    let waiting = tokio::spawn({
        let going = going.clone();
        async move { going.reserve(2000).await }
    });
    // Long enough for each segment to be tried.
    time::sleep(100 * LONG).await;
    assert!(!waiting.is_finished(), "nothing can be read");
    disk.heal();
    time::timeout(Duration::from_secs(60), waiting)
        .await
        .expect("it is tried again")
        .unwrap()
        .append("x", 1)
        .await
        .unwrap();
    journal.check();
    driving.abort();
}

//! What a journal does when nothing goes wrong.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::*;
use crate::{
    AppendError, CloseError, LaneError, MAX_MARK_BYTES, ReadError, ReaderError, RemoveReaderError,
};

#[tokio::test]
async fn entries_come_back_in_order_and_again_until_committed() {
    let disk = TestDisk::new();
    let journal = open(&disk);
    let lane = lane(&journal, "a");
    let mut reader = reader(&lane, "r");
    assert_eq!(reader.try_next().unwrap(), None);
    let first = append(&lane, b"one").await;
    let second = append(&lane, &noise(1, 5000)).await;
    assert_eq!((first, second), (Position(1), Position(2)));
    let entry = next(&mut reader).await;
    assert_eq!(
        (entry.position, entry.epoch, &entry.bytes[..]),
        (first, journal.epoch(), &b"one"[..])
    );
    assert_eq!(next(&mut reader).await.bytes, noise(1, 5000));
    reader.rewind();
    assert_eq!(next(&mut reader).await.position, first);
    reader.commit(first);
    reader.rewind();
    assert_eq!(next(&mut reader).await.position, second);
    reader.commit(second);
    reader.commit(first);
    assert_eq!(reader.committed(), second, "a commit does not go backwards");
    journal.check();
}

#[tokio::test]
async fn a_reader_waits_at_the_tail() {
    let journal = open(&TestDisk::new());
    let lane = lane(&journal, "a");
    let mut reader = reader(&lane, "r");
    let waiting = tokio::spawn(async move { next(&mut reader).await });
    tokio::task::yield_now().await;
    let position = append(&lane, b"x").await;
    assert_eq!(waiting.await.unwrap().position, position);
}

#[tokio::test]
async fn everything_survives_a_reopening() {
    let disk = TestDisk::new();
    let journal = open(&disk);
    assert!(!journal.unclean());
    let (one, two) = (lane(&journal, "one"), lane(&journal, "two"));
    let mut kafka = reader(&one, "kafka");
    let _nats = reader(&one, "nats");
    for entry in 0..10 {
        append(&one, &[entry; 100]).await;
        append(&two, &[entry; 200]).await;
    }
    let third = std::iter::repeat_with(|| kafka.try_next().unwrap().unwrap().position)
        .nth(2)
        .unwrap();
    kafka.commit(third);
    two.set_mark(Some(Bytes::from_static(b"polling")))
        .await
        .unwrap();
    let epoch = journal.epoch();
    journal.close().await.unwrap();
    drop((journal, one, two, kafka, _nats));

    let journal = open(&disk);
    assert!(!journal.unclean());
    assert_ne!(journal.epoch(), epoch);
    assert_eq!(
        journal
            .lanes()
            .iter()
            .map(LaneName::as_str)
            .collect::<Vec<_>>(),
        ["one", "two"]
    );
    let (one, two) = (lane(&journal, "one"), lane(&journal, "two"));
    assert_eq!(
        (one.mark(), two.mark()),
        (None, Some(Bytes::from_static(b"polling")))
    );
    let (mut kafka, mut nats) = (reader(&one, "kafka"), reader(&one, "nats"));
    assert_eq!((kafka.pending().entries, nats.pending().entries), (7, 10));
    let entry = next(&mut kafka).await;
    assert_eq!(
        (entry.epoch, &entry.bytes[..]),
        (epoch, &[3; 100][..]),
        "an entry keeps its epoch"
    );
    assert_eq!(
        drain(&mut nats),
        (0..10).map(|entry| vec![entry; 100]).collect::<Vec<_>>()
    );
    assert_eq!(
        drain(&mut reader(&two, "new")).len(),
        10,
        "a new reader starts at the oldest entry kept"
    );
    let position = append(&one, b"after").await;
    assert_eq!(position, Position(21), "positions go on");
    journal.check();
}

/// The bug this is for: a close that does not write cursors, a drop that looks like a close.
#[tokio::test]
async fn only_a_close_is_clean() {
    let disk = TestDisk::new();
    let journal = open(&disk);
    append(&lane(&journal, "a"), b"x").await;
    drop(journal);
    let journal = open(&disk);
    assert!(journal.unclean());
    drop(journal);
    let journal = open(&disk);
    assert!(
        journal.unclean(),
        "the process before this one did not close it either"
    );
    journal.close().await.unwrap();
    journal.close().await.unwrap();
    let again = open(&disk);
    assert!(!again.unclean());
}

#[tokio::test]
async fn a_closed_journal_says_so() {
    let journal = open(&TestDisk::new());
    let lane = lane(&journal, "a");
    let mut reader = reader(&lane, "r");
    let early = lane.reserve(10).await;
    append(&lane, b"x").await;
    journal.close().await.unwrap();
    assert!(matches!(
        early.append("y", 1).await,
        Err(AppendError::Closed)
    ));
    assert!(matches!(
        lane.reserve(10).await.append("y", 1).await,
        Err(AppendError::Closed)
    ));
    assert!(matches!(
        lane.set_mark(None).await,
        Err(AppendError::Closed)
    ));
    assert!(matches!(
        journal.lane(&"b".parse().unwrap()),
        Err(LaneError::Closed)
    ));
    assert!(matches!(
        lane.reader(&"s".parse().unwrap()),
        Err(ReaderError::Closed)
    ));
    let entry = next(&mut reader).await;
    reader.commit(entry.position);
    assert_eq!(reader.committed(), Position(0), "commits come too late");
    assert!(matches!(
        in_time(reader.next()).await,
        Err(ReadError::Closed)
    ));
}

#[tokio::test]
async fn closing_wakes_everybody() {
    let journal = open(&TestDisk::new());
    let lane = lane(&journal, "a");
    let mut reader = reader(&lane, "r");
    // All the room there is.
    let held = lane.reserve(usize::MAX).await;
    let other = lane.clone();
    let reserving =
        tokio::spawn(async move { other.reserve(usize::MAX).await.append("x", 1).await });
    let reading = tokio::spawn(async move { reader.next().await });
    until("a waiter", || journal.stats().waiting == 1).await;
    in_time(journal.close()).await.unwrap();
    assert!(matches!(
        in_time(reserving).await.unwrap(),
        Err(AppendError::Closed)
    ));
    assert!(matches!(
        in_time(reading).await.unwrap(),
        Err(ReadError::Closed)
    ));
    drop(held);
}

#[tokio::test]
async fn a_reader_is_open_once() {
    let journal = open(&TestDisk::new());
    let lane = lane(&journal, "a");
    let first = reader(&lane, "r");
    assert!(matches!(
        lane.reader(&"r".parse().unwrap()),
        Err(ReaderError::AlreadyOpen(_))
    ));
    drop(first);
    reader(&lane, "r");
}

#[tokio::test]
async fn commits_reach_no_further_than_what_was_given_out() {
    let journal = open(&TestDisk::new());
    let lane = lane(&journal, "a");
    let mut reader = reader(&lane, "r");
    let first = append(&lane, b"1").await;
    append(&lane, b"2").await;
    next(&mut reader).await;
    reader.commit(Position(u64::MAX));
    assert_eq!(reader.committed(), first);
    assert_eq!(drain(&mut reader), [b"2"]);
}

#[tokio::test]
async fn a_commit_becomes_durable_by_itself() {
    let disk = TestDisk::new();
    let journal = open(&disk);
    let lane = lane(&journal, "a");
    let mut reader = reader(&lane, "r");
    append(&lane, b"1").await;
    let entry = next(&mut reader).await;
    reader.commit(entry.position);
    until("a durable commit", || {
        let journal = open(&disk.after_power_loss());
        journal.stats().lanes[0]
            .readers
            .iter()
            .any(|reader| reader.committed == entry.position)
    })
    .await;
}

#[tokio::test]
async fn a_mark_is_durable_on_return() {
    let disk = TestDisk::new();
    let journal = open_with(
        &disk,
        Options {
            commit_interval: Duration::from_secs(3600),
            ..options()
        },
    );
    let lane = lane(&journal, "a");
    for mark in [Some(Bytes::from(vec![7; MAX_MARK_BYTES])), None] {
        lane.set_mark(mark.clone()).await.unwrap();
        let after = open(&disk.after_power_loss());
        assert_eq!(super::lane(&after, "a").mark(), mark);
    }
    let large = Some(Bytes::from(vec![7; MAX_MARK_BYTES + 1]));
    assert!(matches!(
        lane.set_mark(large).await,
        Err(AppendError::TooLarge { .. })
    ));
}

#[tokio::test]
async fn a_removed_reader_stays_removed_and_holds_nothing() {
    let disk = TestDisk::new();
    let journal = open(&disk);
    let lane = lane(&journal, "a");
    let mut fast = reader(&lane, "fast");
    let slow = reader(&lane, "slow");
    append(&lane, b"1").await;
    let first = next(&mut fast).await.position;
    fast.commit(first);
    let name = "slow".parse().unwrap();
    assert!(matches!(
        lane.remove_reader(&name).await,
        Err(RemoveReaderError::Open(_))
    ));
    drop(slow);
    lane.remove_reader(&name).await.unwrap();
    assert!(matches!(
        lane.remove_reader(&name).await,
        Err(RemoveReaderError::Unknown(_))
    ));
    until("a reclaimed entry", || {
        journal.stats().lanes[0].entries == 0
    })
    .await;
    let after = open(&disk.after_power_loss());
    assert_eq!(after.stats().lanes[0].readers.len(), 1);
    // With the last reader gone, what it had committed stays dead.
    drop(fast);
    append(&lane, b"2").await;
    lane.remove_reader(&"fast".parse().unwrap()).await.unwrap();
    let after = open(&disk.after_power_loss());
    assert_eq!(drain(&mut reader(&super::lane(&after, "a"), "new")), [b"2"]);
}

#[tokio::test]
async fn limits_are_told() {
    let journal = open(&TestDisk::new());
    let lane = lane(&journal, "a");
    let room = lane.reserve(10).await;
    assert!(matches!(
        room.append(vec![0; 11], 1).await,
        Err(AppendError::TooLarge {
            bytes: 11,
            most: 10
        })
    ));
    assert_eq!(
        journal.stats().lanes[0].reserved,
        0,
        "a refused append gives its room back"
    );
    let most = lane.reserve(usize::MAX).await;
    assert!(
        (800 << 10..1 << 20).contains(&most.bytes()),
        "{}",
        most.bytes()
    );
    drop(most);
    append(&lane, b"").await;
}

#[tokio::test]
async fn lanes_of_one_checksum_are_kept_apart() {
    let (one, other) = colliding();
    assert_eq!(one.id(), other.id());
    let journal = open(&TestDisk::new());
    journal.lane(&one).unwrap();
    assert!(matches!(
        journal.lane(&other),
        Err(LaneError::Collision { .. })
    ));
}

/// Two names of one checksum: of some ten thousand names two share 32 bits.
fn colliding() -> (LaneName, LaneName) {
    let mut seen = std::collections::HashMap::new();
    (0u32..)
        .find_map(|number| {
            let name: LaneName = format!("lane-{number}").parse().unwrap();
            seen.insert(name.id(), name.clone())
                .map(|other| (other, name))
        })
        .unwrap()
}

#[tokio::test]
async fn many_appends_share_a_sync() {
    let disk = TestDisk::new();
    let journal = open(&disk);
    let lane = lane(&journal, "a");
    append(&lane, b"warm").await;
    // A slow disk, so that all come while the first is being synced.
    disk.fail(|op, _| {
        if op == Op::Sync {
            std::thread::sleep(Duration::from_millis(20));
        }
        None::<std::io::Error>
    });
    let before = disk.syncs();
    let appends = (0..200u8).map(|entry| {
        let lane = lane.clone();
        tokio::spawn(async move { append(&lane, &[entry]).await })
    });
    let mut positions = Vec::new();
    for append in appends.collect::<Vec<_>>() {
        positions.push(append.await.unwrap().0);
    }
    positions.sort_unstable();
    assert_eq!(positions, (2..=201).collect::<Vec<_>>());
    let syncs = disk.syncs() - before;
    assert!((1..=50).contains(&syncs), "{syncs} syncs for 200 appends");
}

#[tokio::test]
async fn on_sync_tells_each_group() {
    let groups = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&groups);
    let on_sync: Arc<dyn Fn(Duration) + Send + Sync> = Arc::new(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
    });
    let journal = open_with(
        &TestDisk::new(),
        Options {
            on_sync: Some(on_sync),
            ..options()
        },
    );
    let lane = lane(&journal, "a");
    let before = groups.load(Ordering::Relaxed);
    append(&lane, b"x").await;
    assert!(groups.load(Ordering::Relaxed) > before);
}

#[tokio::test]
async fn a_reader_that_keeps_up_reads_no_file() {
    let disk = TestDisk::new();
    let journal = open(&disk);
    let lane = lane(&journal, "a");
    let mut reader = reader(&lane, "r");
    let before = disk.reads();
    for entry in 0..50 {
        append(&lane, &noise(entry, 1000)).await;
        let read = next(&mut reader).await;
        assert_eq!(read.bytes, noise(entry, 1000));
        reader.commit(read.position);
    }
    assert_eq!(disk.reads(), before);
}

#[tokio::test]
async fn a_dropped_append_does_no_harm() {
    let journal = open(&TestDisk::new());
    let lane = lane(&journal, "a");
    let mut reader = reader(&lane, "r");
    {
        let mut append = Box::pin(lane.reserve(1).await.append("1", 1));
        // Once polled, it is handed over.
        assert!(matches!(
            futures_poll(append.as_mut()),
            std::task::Poll::Pending | std::task::Poll::Ready(Ok(_))
        ));
    }
    assert_eq!(next(&mut reader).await.bytes, &b"1"[..]);
    until("its room back", || journal.stats().lanes[0].reserved == 0).await;
}

fn futures_poll<F: Future>(future: std::pin::Pin<&mut F>) -> std::task::Poll<F::Output> {
    future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
}

#[tokio::test]
async fn ages_are_told_by_the_clock_given() {
    let now = Arc::new(AtomicU64::new(1_000_000));
    let clock = Arc::clone(&now);
    let clock: Arc<dyn Fn() -> SystemTime + Send + Sync> =
        Arc::new(move || UNIX_EPOCH + Duration::from_millis(clock.load(Ordering::Relaxed)));
    let journal = open_with(
        &TestDisk::new(),
        Options {
            clock: Some(clock),
            ..options()
        },
    );
    let lane = lane(&journal, "a");
    let mut reader = reader(&lane, "r");
    assert_eq!(reader.pending().oldest_age, None);
    append(&lane, b"1").await;
    now.store(1_005_000, Ordering::Relaxed);
    assert_eq!(reader.pending().oldest_age, Some(Duration::from_secs(5)));
    assert_eq!(
        journal.stats().lanes[0].readers[0].oldest_pending_age,
        Some(Duration::from_secs(5))
    );
    now.store(0, Ordering::Relaxed);
    assert_eq!(
        reader.pending().oldest_age,
        Some(Duration::ZERO),
        "a clock that went back makes no age"
    );
    assert_eq!(
        next(&mut reader).await.appended_at,
        UNIX_EPOCH + Duration::from_secs(1000)
    );
}

/// Holds: a journal whose writer is gone takes nothing and gives no room, and everybody who waits is told.
#[tokio::test]
async fn a_writer_that_dies_takes_nobody_with_it_and_gives_no_room() {
    let disk = TestDisk::new();
    let journal = open(&disk);
    let lane = lane(&journal, "a");
    disk.fail(|op, _| {
        assert_ne!(op, Op::Append, "planted: the writer panics");
        None::<std::io::Error>
    });
    let mut stopped = Box::pin(journal.stopped());
    assert!(futures::poll!(&mut stopped).is_pending());
    let lost = in_time(async { lane.reserve(1).await.append("x", 1).await }).await;
    assert!(matches!(lost, Err(AppendError::Closed)));
    in_time(stopped).await;
    // Whoever got room would read what cannot be stored.
    assert!(lane.try_reserve(1).is_none());
    assert!(futures::poll!(Box::pin(lane.reserve(1))).is_pending());
    assert!(matches!(
        in_time(journal.close()).await,
        Err(CloseError::Stopped)
    ));
}

/// Holds: an entry is compressed where nobody reads it, or somebody is late with it, and otherwise stored as it is; both
/// come back the same.
#[tokio::test]
async fn what_may_stay_is_compressed() {
    const BYTES: usize = 2_000;
    let disk = TestDisk::new();
    let journal = open_with(
        &disk,
        Options {
            compress_from: 2,
            ..options()
        },
    );
    let lane = lane(&journal, "a");
    let small = |bytes: u64| bytes < BYTES as u64 / 2;
    append(&lane, &[0; BYTES]).await;
    let (mut quick, mut slow) = (reader(&lane, "quick"), reader(&lane, "slow"));
    assert!(small(quick.pending().bytes), "nobody read it");
    let read = next(&mut quick).await.position;
    quick.commit(read);
    let mut all = vec![vec![0; BYTES]];
    let mut sizes = Vec::new();
    for number in 1..=3 {
        let before = slow.pending().bytes;
        append(&lane, &[number; BYTES]).await;
        all.push(vec![number; BYTES]);
        sizes.push(small(slow.pending().bytes - before));
        let read = next(&mut quick).await.position;
        quick.commit(read);
    }
    assert_eq!(sizes, [false, true, true], "from two before one reader on");
    journal.forget_tail();
    assert_eq!(drain(&mut slow), all);
    slow.commit(quick.committed());
    append(&lane, &[4; BYTES]).await;
    assert!(
        !small(slow.pending().bytes),
        "all before it is done with, durably or not"
    );
    drop((journal, lane, quick, slow));
    let after = open(&disk.after_power_loss());
    let mut slow = reader(&super::lane(&after, "a"), "slow");
    let found = drain(&mut slow);
    assert_eq!(found.last(), Some(&vec![4; BYTES]));
}

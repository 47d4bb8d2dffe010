//! What is counted, and the tally that goes with a cursor.

use super::*;
use crate::{AppendError, MAX_TALLY_BYTES, ReaderStats};

async fn append_counted(lane: &Lane, entry: &[u8], count: u32) -> Position {
    in_time(async {
        let room = lane.reserve(entry.len()).await;
        room.append(entry.to_vec(), count).await.unwrap()
    })
    .await
}

/// Of the first lane, and its first reader.
fn counts(journal: &Journal) -> (u64, ReaderStats) {
    let lane = journal.stats().lanes.swap_remove(0);
    (lane.appended, lane.readers[0].clone())
}

fn long_interval() -> Options {
    Options {
        commit_interval: Duration::from_secs(3600),
        ..options()
    }
}

/// Holds: appended, passed and pending are exact, through reclaim, power losses and clean restarts.
#[tokio::test]
async fn counts_survive_everything() {
    let mut disk = TestDisk::new();
    let (mut appended, mut passed) = (0, 0);
    for round in 0..9u32 {
        let journal = open(&disk);
        let a = lane(&journal, "a");
        let mut r = reader(&a, "r");
        assert_eq!(counts(&journal).0, appended, "round {round}");
        assert_eq!(counts(&journal).1.passed, passed, "round {round}");
        for entry in 0..40 {
            append_counted(&a, &noise(entry, 1000), round + entry as u32).await;
            appended += u64::from(round) + entry;
        }
        for _ in 0..37 {
            let entry = next(&mut r).await;
            passed += u64::from(entry.count);
            r.commit(entry.position);
        }
        let tally = format!("{round}");
        r.save(tally.as_bytes()).await.unwrap();
        let (sum, stats) = counts(&journal);
        assert_eq!((sum, stats.passed), (appended, passed));
        assert_eq!(stats.pending_count, r.pending().count);
        assert_eq!(
            stats.passed + stats.pending_count + stats.missing,
            appended,
            "round {round}"
        );
        assert_eq!(stats.missing, 0);
        until("the committed to be reclaimed", || {
            journal.stats().lanes[0].entries == r.pending().entries
        })
        .await;
        if round % 3 == 0 {
            journal.close().await.unwrap();
        }
        drop((r, a, journal));
        disk = if round % 3 == 1 {
            disk.after_power_loss()
        } else {
            disk.after_kill()
        };
    }
}

/// Holds: a reader that comes later starts at the oldest entry kept, with nothing passed; what it will ever be given is
/// passed and pending.
#[tokio::test]
async fn a_late_reader_counts_from_where_it_starts() {
    let disk = TestDisk::new();
    let journal = open(&disk);
    let a = lane(&journal, "a");
    let mut early = reader(&a, "early");
    for count in 1..=4 {
        append_counted(&a, b"x", count).await;
    }
    next(&mut early).await;
    let second = next(&mut early).await.position;
    early.commit(second);
    until("a reclaimed entry", || {
        journal.stats().lanes[0].entries == 2
    })
    .await;
    let mut late = reader(&a, "late");
    assert_eq!(late.pending().count, 7);
    let third = next(&mut late).await;
    assert_eq!(third.count, 3);
    late.commit(third.position);
    append_counted(&a, b"x", 10).await;
    for journal in [&journal, &open(&disk.after_power_loss())] {
        let lane = &journal.stats().lanes[0];
        let of = |name| {
            let reader = lane
                .readers
                .iter()
                .find(|reader| reader.name.as_str() == name);
            reader.map(|reader| (reader.passed, reader.pending_count, reader.missing))
        };
        assert_eq!(lane.appended, 20);
        assert_eq!(of("early"), Some((3, 17, 0)));
        assert_eq!(of("late"), Some((3, 14, 0)));
    }
}

/// Holds: the tally that a power loss leaves is the one that was committed with the cursor that it leaves.
#[tokio::test]
async fn a_tally_is_that_of_its_cursor() {
    let disk = TestDisk::new();
    let journal = open_with(&disk, long_interval());
    let a = lane(&journal, "a");
    let mut r = reader(&a, "r");
    assert_eq!(r.tally(), "");
    let mut first_seen = None;
    for entry in 0..30u64 {
        append(&a, &noise(entry, 500)).await;
        let position = next(&mut r).await.position;
        r.commit_with(position, &position.0.to_le_bytes()).unwrap();
        assert_eq!(r.tally(), &position.0.to_le_bytes()[..]);
        let after = open(&disk.after_power_loss());
        let r = reader(&lane(&after, "a"), "r");
        let committed = r.committed();
        if committed > Position(0) {
            assert_eq!(r.tally(), &committed.0.to_le_bytes()[..]);
            first_seen.get_or_insert(committed);
        } else {
            assert_eq!(r.tally(), "");
        }
    }
    assert!(first_seen.is_some(), "nothing was ever durable");
    // Backwards nothing happens; in its place, the tally alone is replaced.
    r.commit_with(Position(3), b"back").unwrap();
    assert_eq!(r.tally(), &30u64.to_le_bytes()[..]);
    r.commit_with(Position(30), b"same").unwrap();
    assert_eq!((r.committed(), r.tally()), (Position(30), "same".into()));
    // A commit without one leaves it.
    append(&a, b"x").await;
    let last = next(&mut r).await.position;
    r.commit(last);
    assert_eq!((r.committed(), r.tally()), (last, "same".into()));
}

/// Holds: a saved tally is durable on return, together with the cursor, and waits out a failing disk.
#[tokio::test]
async fn a_saved_tally_is_durable_on_return() {
    let disk = TestDisk::new();
    let journal = open_with(&disk, long_interval());
    let a = lane(&journal, "a");
    let mut r = reader(&a, "r");
    append(&a, b"x").await;
    let position = next(&mut r).await.position;
    r.commit(position);
    r.save(b"tally").await.unwrap();
    let check = |tally: &[u8]| {
        let after = open(&disk.after_power_loss());
        let r = reader(&lane(&after, "a"), "r");
        assert_eq!(
            (r.committed(), r.tally()),
            (position, tally.to_vec().into())
        );
    };
    check(b"tally");
    disk.fail(|op, _| (op == Op::Sync).then_some(std::io::ErrorKind::Other));
    let saving = tokio::spawn(async move {
        r.save(b"more").await.unwrap();
        r
    });
    until("a failure", || journal.stats().failing).await;
    assert!(!saving.is_finished());
    check(b"tally");
    disk.heal();
    let mut r = in_time(saving).await.unwrap();
    check(b"more");
    let large = vec![0; MAX_TALLY_BYTES + 1];
    let too_large = |result| matches!(result, Err(AppendError::TooLarge { .. }));
    assert!(too_large(r.save(&large).await));
    assert!(too_large(r.commit_with(position, &large)));
    assert_eq!(r.tally(), "more");
    journal.close().await.unwrap();
    assert!(matches!(r.save(b"late").await, Err(AppendError::Closed)));
}

/// Holds: while the last write failed no room is given, and it is given again by itself once writing works.
#[tokio::test]
async fn a_failing_journal_gives_no_room() {
    let disk = TestDisk::new();
    let journal = open_with(&disk, long_interval());
    let a = lane(&journal, "a");
    let held = a.reserve(100).await;
    disk.fail(|op, _| (op != Op::Read).then_some(std::io::ErrorKind::StorageFull));
    let appending = tokio::spawn(async move { held.append("held", 1).await });
    until("a failure", || journal.stats().failing).await;
    assert!(a.try_reserve(1).is_none());
    assert_eq!(journal.stats().lanes[0].room_left, 0);
    let waiting = {
        let a = a.clone();
        tokio::spawn(async move { a.reserve(1).await })
    };
    until("a waiter", || journal.stats().waiting == 1).await;
    disk.heal();
    drop(in_time(waiting).await.unwrap());
    in_time(appending).await.unwrap().unwrap();
    // With nothing to write, too: only an opening on a full disk leaves a journal so.
    drop((a, journal));
    disk.fail(|op, _| (op == Op::Create).then_some(std::io::ErrorKind::StorageFull));
    let journal = open_with(&disk, long_interval());
    let a = lane(&journal, "b");
    assert!(a.try_reserve(1).is_none());
    disk.heal();
    drop(in_time(a.reserve(1)).await);
}

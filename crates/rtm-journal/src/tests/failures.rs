//! A disk that fails, and then does not.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::{AppendError, CloseError, OpenError, ReadError};

const OPS: [Op; 4] = [Op::Create, Op::Append, Op::Sync, Op::SyncDir];

/// Holds: what append returned for survives a power loss, wherever it comes. Fails without the sync of the file, or of
/// the directory.
#[tokio::test]
async fn what_was_appended_survives_a_power_loss() {
    let disk = TestDisk::new();
    let journal = open(&disk);
    let a = lane(&journal, "a");
    drop(reader(&a, "r"));
    let mut appended = Vec::new();
    // Over several segments.
    for entry in 0..60 {
        let bytes = noise(entry, 1000);
        append(&a, &bytes).await;
        appended.push(bytes);
        if entry % 3 == 0 {
            let after = open(&disk.after_power_loss());
            assert_eq!(drain(&mut reader(&lane(&after, "a"), "r")), appended);
        }
    }
    assert!(disk.files().len() > 3);
}

/// Holds, for a failure of each operation: the append waits, is not reported durable before it is, goes to a new
/// segment (the test disk panics when a failed one is used again), and keeps its position and order.
#[tokio::test]
async fn a_failed_write_is_done_again_in_a_new_segment() {
    for op in OPS {
        let disk = TestDisk::new();
        let journal = open(&disk);
        let a = lane(&journal, "a");
        let mut reader = reader(&a, "r");
        append(&a, b"before").await;
        // Creating happens only in a new segment, which a failed append leads to.
        disk.fail(move |asked, _| {
            (asked == op || asked == Op::Append && op != Op::Sync)
                .then_some(io::ErrorKind::StorageFull)
        });
        let waiting: Vec<_> = (0..3u8)
            .map(|entry| {
                let a = a.clone();
                tokio::spawn(async move { append(&a, &[entry]).await })
            })
            .collect();
        until("failures", || journal.stats().write_failures >= 3).await;
        assert!(
            waiting.iter().all(|append| !append.is_finished()),
            "{op:?}: reported, but not durable"
        );
        assert!(journal.stats().failing);
        assert_eq!(
            drain(&mut reader),
            [b"before"],
            "{op:?}: seen, but not durable"
        );
        let after = open(&disk.after_power_loss());
        assert_eq!(after.stats().lanes[0].entries, 1, "{op:?}");
        disk.heal();
        let mut positions = Vec::new();
        for append in waiting {
            positions.push(append.await.unwrap().0);
        }
        positions.sort_unstable();
        assert_eq!(positions, [2, 3, 4], "{op:?}");
        assert!(!journal.stats().failing);
        let stored = drain(&mut reader);
        assert_eq!(stored.len(), 3, "{op:?}");
        for after in [open(&disk.after_power_loss()), open(&disk.after_kill())] {
            let mut reader = super::reader(&lane(&after, "a"), "r");
            assert_eq!(
                drain(&mut reader)[1..],
                stored,
                "{op:?}: nothing missing, nothing twice"
            );
            assert_eq!(after.stats().damaged, 0, "{op:?}");
        }
        journal.check();
    }
}

/// Holds, for a single failure at any call: nothing that was reported is missing, nothing is there twice.
#[tokio::test]
async fn one_failure_at_any_call_loses_nothing() {
    for failing_call in 0..40 {
        let disk = TestDisk::new();
        let journal = open(&disk);
        let mut calls = 0;
        disk.fail(move |op, _| {
            calls += u64::from(op != Op::Read);
            (op != Op::Read && calls == failing_call).then_some(io::ErrorKind::Other)
        });
        let a = lane(&journal, "a");
        let mut reader = reader(&a, "r");
        let mut appended = Vec::new();
        let mut seen = Vec::new();
        for entry in 0..20 {
            let bytes = noise(entry, 2000);
            append(&a, &bytes).await;
            appended.push(bytes);
            if entry % 4 == 3 {
                while let Some(entry) = reader.try_next().unwrap() {
                    seen.push(entry.bytes.to_vec());
                    reader.commit(entry.position);
                }
            }
            let after = open(&disk.after_power_loss());
            let held = drain(&mut super::reader(&lane(&after, "a"), "r"));
            // The cursor may be behind what was seen, and never ahead.
            let first = appended.len() - held.len();
            assert!(
                first <= seen.len(),
                "call {failing_call}: an entry is missing"
            );
            assert_eq!(held, appended[first..], "call {failing_call}");
        }
        assert_eq!(seen, appended);
        journal.check();
    }
}

/// Holds: on a full disk commits alone free the room, and then all goes on by itself.
#[tokio::test]
async fn a_full_disk_is_freed_by_commits() {
    let disk = TestDisk::new();
    let journal = open_with(
        &disk,
        Options {
            commit_interval: Duration::from_secs(3600),
            ..options()
        },
    );
    let a = lane(&journal, "a");
    let mut reader = reader(&a, "r");
    for entry in 0..60 {
        append(&a, &noise(entry, 1000)).await;
    }
    // Full until something is removed.
    let writes = Arc::new(AtomicU64::new(1));
    let full = Arc::clone(&writes);
    let newest = disk.files().into_keys().max().unwrap();
    disk.fail(move |op, segment| {
        // Not one of those that the failing writes leave behind.
        if op == Op::Unlink && segment <= newest {
            full.store(0, Ordering::Relaxed);
        }
        (matches!(op, Op::Append | Op::Create) && full.load(Ordering::Relaxed) > 0)
            .then_some(io::ErrorKind::StorageFull)
    });
    let waiting = {
        let a = a.clone();
        tokio::spawn(async move { append(&a, b"more").await })
    };
    until("a failure", || journal.stats().failing).await;
    // Those alone: the waiting one may come through before the last of them is committed.
    for _ in 0..60 {
        let position = next(&mut reader).await.position;
        reader.commit(position);
    }
    in_time(waiting).await.unwrap();
    assert_eq!(drain(&mut reader), [b"more"]);
    let after = open(&disk.after_power_loss());
    let left = drain(&mut super::reader(&lane(&after, "a"), "r"));
    assert_eq!(left.last().unwrap(), b"more");
}

/// Holds: a journal opens on a full disk, and takes entries when there is room; any other failure is told.
#[tokio::test]
async fn opening_waits_out_a_full_disk_only() {
    let disk = TestDisk::new();
    disk.fail(|op, _| (op == Op::Create).then_some(io::ErrorKind::PermissionDenied));
    let error = Journal::open_on(Arc::clone(&disk), options()).unwrap_err();
    assert!(
        matches!(
            error,
            OpenError::Storage {
                operation: "write to",
                ..
            }
        ),
        "{error}"
    );
    disk.fail(|op, _| (op == Op::Create).then_some(io::ErrorKind::StorageFull));
    let journal = open(&disk);
    let a = lane(&journal, "a");
    let waiting = tokio::spawn(async move { append(&a, b"x").await });
    until("more failures", || journal.stats().write_failures > 2).await;
    // After a crash of now it would have another number.
    assert!(!journal.has_durable_id());
    disk.heal();
    in_time(waiting).await.unwrap();
    assert!(journal.has_durable_id());
    let id = journal.id();
    drop(journal);
    let again = open(&disk);
    assert!(again.has_durable_id());
    assert_eq!(again.id(), id);
}

/// Holds: a close on a broken disk ends, says so, and fails who waits.
#[tokio::test]
async fn a_close_on_a_broken_disk_gives_up() {
    let disk = TestDisk::new();
    let journal = open(&disk);
    let a = lane(&journal, "a");
    append(&a, b"kept").await;
    disk.fail(|op, _| (op != Op::Read).then_some(io::ErrorKind::StorageFull));
    let waiting = tokio::spawn(async move { a.reserve(1).await.append("x", 1).await });
    until("a failure", || journal.stats().failing).await;
    assert!(matches!(
        in_time(journal.close()).await,
        Err(CloseError::Storage(_))
    ));
    assert!(matches!(
        in_time(waiting).await.unwrap(),
        Err(AppendError::Closed)
    ));
    let after = open(&disk.after_power_loss());
    assert!(after.unclean());
    assert_eq!(after.stats().lanes[0].entries, 1);
}

/// Holds: a dead segment that cannot be removed is tried again, and its room counts until it is.
#[tokio::test]
async fn a_failed_removal_is_tried_again() {
    let disk = TestDisk::new();
    let journal = open(&disk);
    disk.fail(|op, _| (op == Op::Unlink).then_some(io::ErrorKind::Other));
    let a = lane(&journal, "a");
    let mut reader = reader(&a, "r");
    let mut turn = async |entry| {
        append(&a, &noise(entry, 1000)).await;
        let position = next(&mut reader).await.position;
        reader.commit(position);
    };
    for entry in 0..60 {
        turn(entry).await;
    }
    assert!(journal.stats().bytes > 60_000);
    disk.heal();
    turn(60).await;
    turn(61).await;
    until("their removal", || journal.stats().segments == 1).await;
    journal.check();
}

/// Holds: files that cannot be removed count, whoever waits; and once they can be, all goes on by itself, with nobody
/// writing or committing.
#[tokio::test]
async fn files_that_stay_are_in_the_way_until_they_go() {
    let disk = TestDisk::new();
    let journal = open(&disk);
    disk.fail(|op, _| (op == Op::Unlink).then_some(io::ErrorKind::Other));
    let a = lane(&journal, "a");
    let mut reader = reader(&a, "r");
    while let Some(room) = a.try_reserve(20_000) {
        in_time(room.append(noise(1, 20_000), 1)).await.unwrap();
        let position = next(&mut reader).await.position;
        reader.commit(position);
        assert!(disk.bytes() <= 1 << 20, "{} bytes", disk.bytes());
    }
    until("an end of the commits", || {
        journal.stats().lanes[0].entries == 0
    })
    .await;
    assert!(a.try_reserve(20_000).is_none());
    let waiting = tokio::spawn(async move { a.reserve(20_000).await });
    until("a waiter", || journal.stats().waiting == 1).await;
    disk.heal();
    drop(in_time(waiting).await.unwrap());
}

/// Holds: a failing read is told, and tried again at the same entry.
#[tokio::test]
async fn a_failing_read_does_not_skip() {
    let disk = TestDisk::new();
    let journal = open(&disk);
    append(&lane(&journal, "a"), b"x").await;
    journal.close().await.unwrap();
    let journal = open(&disk);
    let mut reader = reader(&lane(&journal, "a"), "r");
    disk.fail(|op, _| (op == Op::Read).then_some(io::ErrorKind::Other));
    for _ in 0..3 {
        assert!(matches!(
            reader.next().await,
            Err(ReadError::Io {
                position: Position(1),
                ..
            })
        ));
    }
    disk.heal();
    assert_eq!(next(&mut reader).await.bytes, &b"x"[..]);
}

/// Holds: an opening that cannot read changes nothing, and the next one finds everything.
#[tokio::test]
async fn an_opening_that_cannot_read_loses_nothing() {
    let disk = TestDisk::new();
    let journal = open(&disk);
    append(&lane(&journal, "a"), &noise(1, 100)).await;
    let disk = disk.after_kill();
    let files = disk.files();
    // The last entry is unproven, and read once more to be copied forward.
    for failing_read in 1.. {
        let reads = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&reads);
        disk.fail(move |op, _| {
            let reads = reads.fetch_add(u64::from(op == Op::Read), Ordering::Relaxed) + 1;
            (op == Op::Read && reads == failing_read).then_some(io::ErrorKind::Other)
        });
        match Journal::open_on(Arc::clone(&disk), options()) {
            Ok(_) => {
                assert!(seen.load(Ordering::Relaxed) < failing_read, "it was passed");
                assert!(failing_read > 3);
                break;
            }
            Err(OpenError::Storage { operation, .. }) => assert_eq!(operation, "read"),
            Err(error) => panic!("{error}"),
        }
        assert_eq!(disk.files(), files);
    }
    let disk = TestDisk::of(files);
    assert_eq!(
        drain(&mut reader(&lane(&open(&disk), "a"), "r")),
        [noise(1, 100)]
    );
}

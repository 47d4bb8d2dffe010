//! A journal without a thread, under time that stands still.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::{self, Instant as TokioInstant};

use super::*;
use crate::{AppendError, CloseError, Driver, Epoch};

fn driven() -> Options {
    Options {
        commit_interval: Duration::from_millis(100),
        monotonic: Some(Arc::new(|| TokioInstant::now().into_std())),
        clock: Some(Arc::new(|| std::time::UNIX_EPOCH)),
        epoch: Some(Epoch(7)),
        ..options()
    }
}

fn open_driven(disk: &Arc<TestDisk>) -> (Journal, Driver) {
    Journal::open_driven(Arc::clone(disk), driven()).unwrap()
}

/// Runs it until it is dropped.
async fn drive(mut driver: Driver) {
    loop {
        match driver.run() {
            Some(at) => {
                let at = TokioInstant::from_std(at);
                let _ = time::timeout_at(at, driver.woken()).await;
            }
            None => driver.woken().await,
        }
    }
}

/// Holds: nothing is durable before the driver runs, all that waits is after, in one write.
#[tokio::test(start_paused = true)]
async fn nothing_happens_between_two_runs() {
    let disk = TestDisk::new();
    let (journal, mut driver) = open_driven(&disk);
    assert_eq!(journal.epoch(), Epoch(7));
    let a = lane(&journal, "a");
    driver.run();
    let appends: Vec<_> = (0..3u8)
        .map(|entry| {
            let room = a.try_reserve(1).unwrap();
            tokio::spawn(async move { room.append(vec![entry], 1).await.unwrap() })
        })
        .collect();
    time::sleep(Duration::from_secs(60)).await;
    assert!(appends.iter().all(|append| !append.is_finished()));
    let before = disk.syncs();
    driver.woken().await;
    driver.run();
    assert_eq!(disk.syncs(), before + 1);
    for append in appends {
        append.await.unwrap();
    }
    let closing = tokio::spawn(async move { journal.close().await });
    tokio::task::yield_now().await;
    assert_eq!(driver.run(), None);
    closing.await.unwrap().unwrap();
    assert!(!open(&disk.after_power_loss()).unclean());
}

/// Holds: cursors become durable when the clock given says so, to the millisecond.
#[tokio::test(start_paused = true)]
async fn a_commit_is_due_by_the_clock_given() {
    let disk = TestDisk::new();
    let (journal, driver) = open_driven(&disk);
    let driving = tokio::spawn(drive(driver));
    let a = lane(&journal, "a");
    let mut r = reader(&a, "r");
    append(&a, b"x").await;
    let position = next(&mut r).await.position;
    time::sleep(Duration::from_secs(1)).await;
    r.commit(position);
    let durable = || {
        let journal = open(&disk.after_power_loss());
        reader(&lane(&journal, "a"), "r").committed()
    };
    time::sleep(Duration::from_millis(99)).await;
    assert_eq!(durable(), Position(0));
    time::sleep(Duration::from_millis(2)).await;
    assert_eq!(durable(), position);
    driving.abort();
}

/// Holds: a commit that soon follows an entry wakes nobody, and is durable in time all the same; the writer does not look
/// for commits for ever.
#[tokio::test(start_paused = true)]
async fn a_commit_after_an_entry_is_expected() {
    let disk = TestDisk::new();
    let (journal, mut driver) = open_driven(&disk);
    let a = lane(&journal, "a");
    let mut r = reader(&a, "r");
    let room = a.try_reserve(1).unwrap();
    let appending = tokio::spawn(async move { room.append("x", 1).await.unwrap() });
    tokio::task::yield_now().await;
    let looks_at = driver.run().expect("it looks for commits by itself");
    driver.woken().await;
    let position = appending.await.unwrap();
    assert_eq!(next(&mut r).await.position, position);
    time::sleep(Duration::from_millis(10)).await;
    r.commit(position);
    let woken = time::timeout(Duration::ZERO, driver.woken()).await;
    assert!(woken.is_err(), "the commit has woken the writer");
    let syncs = disk.syncs();
    time::sleep_until(TokioInstant::from_std(looks_at)).await;
    let due = driver.run().expect("the commit is due");
    assert_eq!(disk.syncs(), syncs, "it may wait for an entry");
    time::sleep_until(TokioInstant::from_std(due)).await;
    assert_eq!(driver.run(), None, "nothing is expected any more");
    assert_eq!(disk.syncs(), syncs + 1);
    let reopened = open(&disk.after_power_loss());
    assert_eq!(reader(&lane(&reopened, "a"), "r").committed(), position);
}

/// Holds: tries again on a failing disk pause by the clock given.
#[tokio::test(start_paused = true)]
async fn pauses_are_told_by_the_clock_given() {
    let disk = TestDisk::new();
    let (journal, driver) = open_driven(&disk);
    let driving = tokio::spawn(drive(driver));
    let a = lane(&journal, "a");
    append(&a, b"x").await;
    disk.fail(|op, _| (op == Op::Sync).then_some(std::io::ErrorKind::Other));
    let room = a.reserve(1).await;
    let appending = tokio::spawn(async move { room.append("y", 1).await });
    time::sleep(Duration::from_secs(60)).await;
    // 10 ms, doubled to 1 s: seven tries in the first second and a bit, then one a second.
    let failures = journal.stats().write_failures;
    assert!((60..=70).contains(&failures), "{failures}");
    disk.heal();
    let began = TokioInstant::now();
    appending.await.unwrap().unwrap();
    assert!(began.elapsed() <= Duration::from_secs(1));
    driving.abort();
}

/// Holds: a dropped driver is a crash: nothing more is written, and everybody is told.
#[tokio::test(start_paused = true)]
async fn a_dropped_driver_is_a_crash() {
    let disk = TestDisk::new();
    let (journal, driver) = open_driven(&disk);
    let a = lane(&journal, "a");
    let room = a.reserve(4).await;
    let appending = tokio::spawn(async move { room.append("lost", 1).await });
    tokio::task::yield_now().await;
    let files = disk.files();
    drop(driver);
    assert!(matches!(appending.await.unwrap(), Err(AppendError::Closed)));
    assert!(matches!(journal.close().await, Err(CloseError::Stopped)));
    drop((a, journal));
    assert_eq!(disk.files(), files);
    assert!(open(&disk).unclean());
}

/// Holds: the same steps make the same files, byte for byte, with failures in between.
#[tokio::test(start_paused = true)]
async fn the_same_steps_make_the_same_files() {
    let run = async || {
        let disk = TestDisk::new();
        let (journal, driver) = open_driven(&disk);
        let driving = tokio::spawn(drive(driver));
        let (a, b) = (lane(&journal, "a"), lane(&journal, "b"));
        let mut r = reader(&a, "r");
        let calls = AtomicU64::new(0);
        disk.fail(move |op, _| {
            let call = calls.fetch_add(u64::from(op != Op::Read), Ordering::Relaxed);
            (op != Op::Read && call % 7 == 3).then_some(std::io::ErrorKind::Other)
        });
        for entry in 0..50 {
            append(&a, &noise(entry, 2000)).await;
            append(&b, &noise(entry, 20)).await;
            let entry = next(&mut r).await;
            if entry.position.0.is_multiple_of(3) {
                r.commit(entry.position);
                time::sleep(Duration::from_millis(entry.position.0)).await;
            }
        }
        journal.close().await.unwrap();
        driving.abort();
        let _ = driving.await;
        disk.files()
    };
    assert_eq!(run().await, run().await);
}

/// Holds: what is committed while a group is written is kept until the commit is durable, so that a crash finds every
/// entry that its cursors point to.
#[tokio::test(start_paused = true)]
async fn what_is_committed_during_a_write_is_kept_until_that_is_durable() {
    let disk = TestDisk::new();
    let (journal, mut driver) = open_driven(&disk);
    let a = lane(&journal, "a");
    let mut r = reader(&a, "r");
    let held: Vec<_> = (0..60).map(|entry| noise(entry, 1000)).collect();
    let mut last = Position(0);
    for (number, entry) in held.iter().enumerate() {
        let room = a.try_reserve(entry.len()).unwrap();
        let (entry, appended) = (entry.clone(), tokio::spawn(room.append(entry.clone(), 1)));
        tokio::task::yield_now().await;
        // The write is laid out, with the cursor as it is.
        driver.step();
        if number + 1 == held.len() {
            r.commit(last);
        }
        driver.step();
        last = appended.await.unwrap().unwrap();
        assert_eq!(next(&mut r).await.bytes, entry);
    }
    assert!(disk.files().len() > 3, "segments were removed");
    let after = open(&disk.after_power_loss());
    let stats = &after.stats().lanes[0].readers[0];
    assert_eq!((stats.missing, stats.pending_count), (0, 60));
    assert_eq!(drain(&mut reader(&lane(&after, "a"), "r")), held);
    // Once it is, they go.
    time::sleep(Duration::from_secs(1)).await;
    driver.run();
    assert_eq!(disk.files().len(), 1);
}

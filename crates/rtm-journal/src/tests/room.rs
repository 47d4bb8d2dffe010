//! Who may have how much, and what frees it.

use super::*;

/// What the reader has not read, committed.
fn catch_up(reader: &mut Reader) {
    while let Some(entry) = reader.try_next().unwrap() {
        reader.commit(entry.position);
    }
}

/// Holds: with readers that keep up, ten times the journal's size goes through the largest reservations there are,
/// and the files never pass the bound.
#[tokio::test]
async fn readers_that_keep_up_never_run_out_of_room() {
    let disk = TestDisk::new();
    let journal = open(&disk);
    let a = lane(&journal, "a");
    let (mut one, mut two) = (reader(&a, "1"), reader(&a, "2"));
    for entry in 0..200 {
        let room = in_time(a.reserve(usize::MAX)).await;
        in_time(room.append(noise(entry, 50_000), 1)).await.unwrap();
        catch_up(&mut one);
        catch_up(&mut two);
        assert!(disk.bytes() <= 1 << 20, "{} bytes", disk.bytes());
    }
    assert!(disk.unlinks() > 100);
    journal.check();
}

/// Holds: what only a yielding reader holds is read again as long as there is room. It keeps nobody waiting,
/// counts as no part of the journal that is taken, and a new reader does not begin with it.
#[tokio::test]
async fn what_yields_takes_no_room() {
    let disk = TestDisk::new();
    let journal = open(&disk);
    let a = lane(&journal, "a");
    let mut own = reader(&a, "own");
    let mut held = a.yielding_reader(&"own.hold".parse().unwrap()).unwrap();
    for entry in 0..12 {
        append(&a, &noise(entry, 1_000)).await;
    }
    catch_up(&mut own);
    append(&a, &[7; 1_000]).await;
    assert_eq!(held.pending().entries, 13);
    assert_eq!(reader(&a, "new").pending().entries, 1);
    let stats = journal.stats();
    let (live, used) = (stats.lanes[0].bytes, stats.used_bytes);
    assert!(
        stats.bytes >= live && used + 11_000 < stats.bytes,
        "{live} {used} {}",
        stats.bytes
    );
    assert_eq!(drain(&mut held).len(), 13);
    held.rewind();
    a.remove_reader(&"new".parse().unwrap()).await.unwrap();
    // Ten times the journal's size goes through, and nobody waits.
    for entry in 0..200 {
        let room = a.try_reserve(50_000).expect("what is held yields");
        in_time(room.append(noise(entry, 50_000), 1)).await.unwrap();
        catch_up(&mut own);
    }
    assert!(held.pending().entries < 20);
    // One that waits for a slow reader gets the room of what that has passed, and not of what is held since.
    let filled = async {
        while let Some(room) = a.try_reserve(50_000) {
            in_time(room.append(noise(1, 50_000), 1)).await.unwrap();
        }
    };
    filled.await;
    let waiting = {
        let a = a.clone();
        tokio::spawn(async move { in_time(a.reserve(50_000)).await.append("more", 1).await })
    };
    until("a waiter", || journal.stats().waiting == 1).await;
    catch_up(&mut own);
    in_time(waiting).await.unwrap().unwrap();
    journal.check();
}

/// Holds: nothing is reclaimed before the slowest reader has committed it, a full lane waits, and a commit wakes it.
#[tokio::test]
async fn a_full_lane_waits_for_its_slowest_reader() {
    let disk = TestDisk::new();
    let journal = open(&disk);
    let a = lane(&journal, "a");
    let (mut fast, mut slow) = (reader(&a, "fast"), reader(&a, "slow"));
    let mut appended = Vec::new();
    while let Some(room) = a.try_reserve(20_000) {
        let bytes = noise(appended.len() as u64, 20_000);
        in_time(room.append(bytes.clone(), 1)).await.unwrap();
        appended.push(bytes);
        catch_up(&mut fast);
    }
    assert!(
        disk.bytes() <= 1 << 20 && appended.len() > 30,
        "{} entries",
        appended.len()
    );
    assert!(journal.stats().lanes[0].room_left < 20_000);
    let waiting = {
        let a = a.clone();
        tokio::spawn(async move { in_time(a.reserve(20_000)).await.append("more", 1).await })
    };
    until("a waiter", || journal.stats().waiting == 1).await;
    assert_eq!(slow.pending().entries, appended.len() as u64);
    for expected in &appended {
        let entry = next(&mut slow).await;
        assert_eq!(entry.bytes, expected);
        slow.commit(entry.position);
    }
    in_time(waiting).await.unwrap().unwrap();
    journal.check();
}

/// Holds: a stopped lane takes neither the share of another nor, by pinning segments, its room.
#[tokio::test]
async fn a_stopped_lane_stops_no_other() {
    let disk = TestDisk::new();
    let journal = open_with(
        &disk,
        Options {
            lanes_expected: 2,
            ..options()
        },
    );
    let (stopped, going) = (lane(&journal, "stopped"), lane(&journal, "going"));
    let mut never = reader(&stopped, "r");
    let mut reader = reader(&going, "r");
    let mut held = Vec::new();
    for entry in 0..1500 {
        if let Some(room) = stopped.try_reserve(2000) {
            let bytes = noise(entry, 2000);
            in_time(room.append(bytes.clone(), 1)).await.unwrap();
            held.push(bytes);
        }
        let room = in_time(going.reserve(20_000)).await;
        in_time(room.append(noise(entry, 2000), 1)).await.unwrap();
        catch_up(&mut reader);
        assert!(disk.bytes() <= 1 << 20, "{} bytes at {entry}", disk.bytes());
    }
    // Its share, 224 KiB, and the common 448 KiB.
    let took: usize = held.iter().map(Vec::len).sum();
    assert!((600_000..690_000).contains(&took), "{took}");
    journal.check();
    journal.forget_tail();
    assert_eq!(
        drain(&mut never),
        held,
        "what was copied forward is all there, in order"
    );
    // And again from the disk.
    let after = open(&disk.after_power_loss());
    assert_eq!(
        drain(&mut super::reader(&lane(&after, "stopped"), "r")),
        held
    );
    assert_eq!(after.stats().damaged, 0);
}

/// Holds: an entry that was copied forward keeps its position, and the epoch and time of its append.
#[tokio::test]
async fn an_entry_copied_forward_is_the_same_entry() {
    let disk = TestDisk::new();
    let two = || Options {
        lanes_expected: 2,
        ..options()
    };
    let journal = open_with(&disk, two());
    let old = journal.epoch();
    let stopped = lane(&journal, "stopped");
    append(&stopped, b"old").await;
    let holds_old = |file: &[u8]| file.windows(3).any(|bytes| bytes == b"old");
    let place = || {
        disk.files()
            .into_iter()
            .find(|(_, file)| holds_old(file))
            .map(|(segment, _)| segment)
    };
    let first_place = place();
    let first_entry = |journal: &Journal| {
        journal.forget_tail();
        reader(&lane(journal, "stopped"), "r")
            .try_next()
            .unwrap()
            .unwrap()
    };
    let before = first_entry(&journal);
    assert_eq!(before.epoch, old);
    // Much that dies beside the one that stays.
    let fill = async |lane: &Lane| {
        for entry in 0..6 {
            append(lane, &noise(entry, 2000)).await;
        }
    };
    let going = lane(&journal, "going");
    fill(&going).await;
    journal.close().await.unwrap();
    drop((journal, stopped, going));

    let journal = open_with(&disk, two());
    let (stopped, going) = (lane(&journal, "stopped"), lane(&journal, "going"));
    let mut reader = reader(&going, "r");
    for entry in 0..1500 {
        if let Some(room) = stopped.try_reserve(2000) {
            in_time(room.append(noise(entry, 2000), 1)).await.unwrap();
        }
        in_time(going.reserve(20_000))
            .await
            .append(noise(entry, 2000), 1)
            .await
            .unwrap();
        catch_up(&mut reader);
    }
    assert_ne!(place(), first_place, "it has moved");
    assert_eq!(first_entry(&journal), before);
    drop((stopped, going, reader));
    drop(journal);
    assert_eq!(first_entry(&open_with(&disk, two())), before);
}

/// Holds: dropping a reservation, and using less than was reserved, wakes who waits.
#[tokio::test]
async fn room_that_is_given_back_wakes_who_waits() {
    let journal = open(&TestDisk::new());
    let a = lane(&journal, "a");
    let all = a.reserve(usize::MAX).await;
    assert!(a.try_reserve(1).is_none());
    let waiting = {
        let a = a.clone();
        tokio::spawn(async move { a.reserve(usize::MAX).await })
    };
    until("a waiter", || journal.stats().waiting == 1).await;
    drop(all);
    let all = in_time(waiting).await.unwrap();
    let waiting = {
        let a = a.clone();
        tokio::spawn(async move { a.reserve(500_000).await })
    };
    until("a waiter", || journal.stats().waiting == 1).await;
    in_time(all.append("little", 1)).await.unwrap();
    drop(in_time(waiting).await.unwrap());
    let stats = journal.stats();
    assert_eq!((stats.waiting, stats.lanes[0].reserved), (0, 0));
    drop(a.reserve(1 << 30));
}

/// Holds: below the free space to be left alone nothing is reserved, and it goes on by itself when there is more.
#[tokio::test]
async fn free_space_of_the_disk_is_left_alone() {
    let disk = TestDisk::new();
    let journal = open_with(
        &disk,
        Options {
            min_free_bytes: 1000,
            ..options()
        },
    );
    let a = lane(&journal, "a");
    disk.set_free(1500);
    assert!(a.try_reserve(600).is_none());
    assert!(a.try_reserve(400).is_some());
    let waiting = tokio::spawn(async move { a.reserve(600).await });
    until("a waiter", || journal.stats().waiting == 1).await;
    assert_eq!(journal.stats().free_bytes, Some(1500));
    disk.set_free(5000);
    drop(in_time(waiting).await.unwrap());
}

/// Holds: a lane without a reader keeps everything, for a reader to come.
#[tokio::test]
async fn a_lane_without_readers_keeps_everything() {
    let disk = TestDisk::new();
    let journal = open(&disk);
    let a = lane(&journal, "a");
    let mut appended = Vec::new();
    while let Some(room) = a.try_reserve(20_000) {
        let bytes = noise(appended.len() as u64, 20_000);
        in_time(room.append(bytes.clone(), 1)).await.unwrap();
        appended.push(bytes);
    }
    assert_eq!(drain(&mut reader(&a, "late")), appended);
}

/// Holds: a thousand lanes of two readers, with marks and tallies, make a head of about a kilobyte each, and all of it is
/// there after a restart.
#[tokio::test]
async fn a_thousand_lanes_fit_into_a_head() {
    let disk = TestDisk::new();
    let thousand = || Options {
        max_bytes: 512 << 20,
        lanes_expected: 1000,
        commit_interval: Duration::from_secs(3600),
        ..options()
    };
    let journal = open_with(&disk, thousand());
    let name = |lane: u32| format!("{lane:032x}");
    let mut readers = Vec::new();
    for number in 0..1000 {
        let lane = lane(&journal, &name(number));
        for name in ["kafka", "nats"] {
            let mut reader = reader(&lane, name);
            reader.commit_with(Position(0), &[7; 200]).unwrap();
            readers.push(reader);
        }
    }
    let last = lane(&journal, &name(999));
    last.set_mark(Some(bytes::Bytes::from(vec![1; 64])))
        .await
        .unwrap();
    journal.close().await.unwrap();
    drop((readers, last, journal));
    let before = disk.files().into_keys().max().unwrap();
    let journal = open_with(&disk, thousand());
    let head = disk.files()[&(before + 1)].len();
    assert!((500_000..1_000_000).contains(&head), "{head} bytes");
    assert_eq!(journal.stats().lanes.len(), 1000);
    assert_eq!(
        reader(&lane(&journal, &name(500)), "nats").tally(),
        &[7; 200][..]
    );
}

//! What a damaged journal gives back: cut anywhere, or with any bit flipped.

use std::collections::BTreeMap;

use super::*;
use crate::frame::{HEADER_BYTES, PROLOGUE_BYTES, prologue};
use crate::{OpenError, ReadError};

type Files = BTreeMap<u32, Vec<u8>>;

/// A small journal of two lanes, some of it committed, not closed: its files, and what lane `a` has behind the cursor.
async fn small() -> (Files, Vec<Vec<u8>>) {
    let disk = TestDisk::new();
    let journal = open_with(
        &disk,
        Options {
            commit_interval: Duration::from_secs(3600),
            ..options()
        },
    );
    let (a, b) = (lane(&journal, "a"), lane(&journal, "b"));
    let mut reader = reader(&a, "r");
    for entry in 0..6 {
        append(&a, &entry_of(entry)).await;
        append(&b, b"other").await;
    }
    let first = next(&mut reader).await.position;
    reader.commit(first);
    append(&a, &entry_of(6)).await;
    (disk.files(), (1..7).map(entry_of).collect())
}

/// One in two is stored as it is, one compressed.
fn entry_of(number: u8) -> Vec<u8> {
    if number.is_multiple_of(2) {
        noise(number.into(), 20)
    } else {
        vec![number; 90]
    }
}

/// Everything that can be read, and how many entries were reported as damaged.
fn read_all(reader: &mut Reader) -> (Vec<Vec<u8>>, usize) {
    let (mut entries, mut damaged) = (Vec::new(), 0);
    loop {
        match reader.try_next() {
            Ok(Some(entry)) => entries.push(entry.bytes.to_vec()),
            Ok(None) => return (entries, damaged),
            Err(ReadError::Damaged { .. }) => damaged += 1,
            Err(error) => panic!("{error}"),
        }
    }
}

/// The beginning of each frame, and the end of the last.
fn frames(file: &[u8]) -> Vec<usize> {
    let mut at = PROLOGUE_BYTES;
    let mut frames = vec![at];
    while at < file.len() {
        at += HEADER_BYTES + u32::from_le_bytes(file[at + 8..at + 12].try_into().unwrap()) as usize;
        frames.push(at);
    }
    assert_eq!(at, file.len());
    frames
}

fn only(files: &Files) -> (u32, &Vec<u8>) {
    assert_eq!(files.len(), 1);
    files
        .iter()
        .map(|(segment, file)| (*segment, file))
        .next()
        .unwrap()
}

/// Holds: a file cut anywhere opens, gives every whole entry before the cut, and can be written to again.
#[tokio::test]
async fn a_file_cut_at_every_byte_gives_all_before_the_cut() {
    let (files, live) = small().await;
    let (segment, file) = only(&files);
    let ends = frames(file);
    // Entries of lane `a`, by the frame they end with.
    let mut entry_ends = Vec::new();
    for frame in ends.windows(2) {
        let id = u32::from_le_bytes(file[frame[0] + 24..frame[0] + 28].try_into().unwrap());
        if file[frame[0] + 28] == 2 && id == "a".parse::<LaneName>().unwrap().id() {
            entry_ends.push(frame[1]);
        }
    }
    assert_eq!(entry_ends.len(), 7);
    for cut in 0..=file.len() {
        let disk = TestDisk::of([(segment, file[..cut].to_vec())].into());
        let journal = open(&disk);
        assert!(journal.unclean(), "cut at {cut}");
        let a = lane(&journal, "a");
        let mut reader = reader(&a, "r");
        let (mut entries, damaged) = read_all(&mut reader);
        assert_eq!(damaged, 0, "cut at {cut}: a torn tail is no damage");
        // The commit may be cut off: then the first entry comes again.
        if entries.first() == Some(&entry_of(0)) {
            entries.remove(0);
        }
        let whole = entry_ends
            .iter()
            .filter(|end| **end <= cut)
            .count()
            .saturating_sub(1);
        assert_eq!(entries, live[..whole], "cut at {cut}");
        journal.check();
        if cut % 7 == 0 {
            append(&a, b"on").await;
            drop((reader, a, journal));
            let journal = open(&disk);
            let (entries, damaged) = read_all(&mut super::reader(&lane(&journal, "a"), "r"));
            assert_eq!(
                (entries.last().unwrap().as_slice(), damaged),
                (&b"on"[..], 0),
                "cut at {cut}"
            );
        }
    }
}

/// Holds: a flipped bit costs the frame it is in, and nothing else; opening needs nobody and never panics.
#[tokio::test]
async fn any_flipped_bit_costs_its_frame_only() {
    let (files, live) = small().await;
    let (segment, file) = only(&files);
    let frames = frames(file);
    for bit in 0..file.len() * 8 {
        let mut flipped = file.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let journal = open(&TestDisk::of([(segment, flipped)].into()));
        let (mut entries, damaged) = read_all(&mut reader(&lane(&journal, "a"), "r"));
        if entries.first() == Some(&entry_of(0)) {
            entries.remove(0);
        }
        let frame = frames
            .windows(2)
            .find(|frame| (frame[0]..frame[1]).contains(&(bit / 8)));
        let lost = live.iter().filter(|entry| !entries.contains(entry)).count();
        assert!(
            lost <= 1 && damaged <= 1,
            "bit {bit}: {lost} lost, {damaged} reported"
        );
        assert!(frame.is_some() || lost == 0, "bit {bit} is in the prologue");
        let kept: Vec<&Vec<u8>> = live
            .iter()
            .filter(|entry| entries.contains(entry))
            .collect();
        assert_eq!(
            entries.iter().collect::<Vec<_>>(),
            kept,
            "bit {bit}: in order, nothing twice"
        );
        journal.check();
    }
}

/// Holds: of the last write any part may be torn, and what is not whole was never there; it is no damage, for it was
/// never reported durable. What is whole behind a hole is given.
#[tokio::test]
async fn a_torn_last_write_is_no_damage() {
    let disk = TestDisk::new();
    let journal = open(&disk);
    let a = lane(&journal, "a");
    drop(reader(&a, "r"));
    append(&a, b"before").await;
    // Three in one write: they come while the disk is busy.
    let (busy, go) = (
        Arc::new(std::sync::Barrier::new(2)),
        Arc::new(std::sync::Barrier::new(2)),
    );
    let (entered, leave) = (Arc::clone(&busy), Arc::clone(&go));
    let mut held = false;
    disk.fail(move |op, _| {
        if op == Op::Sync && !std::mem::replace(&mut held, true) {
            entered.wait();
            leave.wait();
        }
        None::<std::io::Error>
    });
    let spawn = |bytes: Vec<u8>| {
        let a = a.clone();
        tokio::spawn(async move { append(&a, &bytes).await })
    };
    let mut appends = vec![spawn(b"busy".to_vec())];
    tokio::task::yield_now().await;
    busy.wait();
    appends.extend((1..=3).map(|seed| spawn(noise(seed, 300))));
    tokio::task::yield_now().await;
    go.wait();
    for append in appends {
        append.await.unwrap();
    }
    let files = disk.files();
    let (segment, file) = only(&files);
    let at = |seed| {
        file.windows(300)
            .position(|bytes| bytes == noise(seed, 300))
            .unwrap()
    };
    for (torn, left) in [(2, vec![1, 3]), (3, vec![1, 2])] {
        let mut torn_file = file.clone();
        torn_file[at(torn) + 100..at(torn) + 200].fill(0);
        let journal = open(&TestDisk::of([(segment, torn_file)].into()));
        let mut expected = vec![b"before".to_vec(), b"busy".to_vec()];
        expected.extend(left.into_iter().map(|seed| noise(seed, 300)));
        assert_eq!(
            read_all(&mut reader(&lane(&journal, "a"), "r")),
            (expected, 0)
        );
    }
}

/// Holds: damage is told once, with its position, and the reader goes on; committing the position lets go of it.
#[tokio::test]
async fn damage_is_reported_once_and_passed() {
    let disk = TestDisk::new();
    let journal = open(&disk);
    let a = lane(&journal, "a");
    drop(reader(&a, "r"));
    for entry in 0..3 {
        append(&a, &noise(entry, 300)).await;
    }
    journal.close().await.unwrap();
    let mut files = disk.files();
    let file = files.values_mut().next().unwrap();
    let at = file
        .windows(300)
        .position(|bytes| bytes == noise(1, 300))
        .unwrap();
    file[at + 5] ^= 1;
    let disk = TestDisk::of(files);
    let journal = open(&disk);
    let a = lane(&journal, "a");
    let mut reader = reader(&a, "r");
    assert_eq!(next(&mut reader).await.position, Position(1));
    assert!(matches!(
        reader.next().await,
        Err(ReadError::Damaged {
            position: Position(2),
            count: 1,
        })
    ));
    assert_eq!(next(&mut reader).await.position, Position(3));
    assert_eq!(journal.stats().damaged, 1);
    reader.commit(Position(2));
    reader.rewind();
    assert_eq!(next(&mut reader).await.position, Position(3));
}

/// Holds: a lane is found by its name even when every frame that told the name is gone.
#[tokio::test]
async fn a_lane_whose_introduction_is_lost_is_found_by_its_name() {
    let (files, live) = small().await;
    let (segment, file) = only(&files);
    let frames = frames(file);
    let mut damaged = file.clone();
    for frame in frames.windows(2).filter(|frame| file[frame[0] + 28] != 2) {
        damaged[frame[0] + 10] ^= 0xff;
    }
    let journal = open(&TestDisk::of([(segment, damaged)].into()));
    assert!(journal.lanes().is_empty());
    let (entries, _) = read_all(&mut reader(&lane(&journal, "a"), "r"));
    assert_eq!(entries[1..], live);
}

/// Holds: bytes that look like a frame are none, where they are not in a frame's place: not even behind damage.
#[tokio::test]
async fn a_frame_inside_an_entry_is_not_believed() {
    let (files, _) = small().await;
    let (_, inner) = only(&files);
    let disk = TestDisk::new();
    let journal = open(&disk);
    let a = lane(&journal, "a");
    drop(reader(&a, "r"));
    // Noise around it keeps it from being compressed.
    let hostile = [noise(1, 4000), inner.clone(), noise(2, 4000)].concat();
    append(&a, &hostile).await;
    append(&a, b"after").await;
    journal.close().await.unwrap();
    let mut files = disk.files();
    let file = files.values_mut().next().unwrap();
    let at = file
        .windows(4000)
        .position(|bytes| bytes == noise(1, 4000))
        .unwrap()
        - HEADER_BYTES;
    file[at + 9] ^= 1;
    let journal = open(&TestDisk::of(files));
    assert_eq!(journal.stats().damaged, 1);
    assert_eq!(
        read_all(&mut reader(&lane(&journal, "a"), "r")),
        (vec![b"after".to_vec()], 0)
    );
}

/// Holds: a journal of another version is refused, and not a byte of it changed.
#[tokio::test]
async fn another_version_is_refused_and_left_alone() {
    let (mut files, _) = small().await;
    let (segment, _) = only(&files);
    let mut other = prologue(segment + 1);
    other[8] = 9;
    let crc = crc32c::crc32c(&other[..20]);
    other[20..].copy_from_slice(&crc.to_le_bytes());
    files.insert(segment + 1, other.to_vec());
    // A torn tail, which opening would cut.
    files.get_mut(&segment).unwrap().extend_from_slice(b"torn");
    let disk = TestDisk::of(files.clone());
    let error = Journal::open_on(Arc::clone(&disk), options()).unwrap_err();
    assert!(
        matches!(
            error,
            OpenError::Version {
                found: 9,
                known: 2,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(disk.files(), files);
}

/// Holds: files of nothing but noise or zeros open, quickly and empty.
#[tokio::test]
async fn garbage_opens_as_an_empty_journal() {
    for garbage in [
        vec![0; 300_000],
        noise(1, 300_000),
        crate::frame::MAGIC.repeat(50_000),
        Vec::new(),
    ] {
        let disk = TestDisk::of([(3, garbage)].into());
        let journal = open(&disk);
        assert!(journal.unclean());
        assert_eq!(journal.stats().lanes, []);
        assert!(
            !disk.files().contains_key(&3),
            "with nothing in it, it is removed"
        );
    }
}

/// Holds: what is torn in the last write of a segment is damage where a later segment says that it had been durable, and
/// is told with its count; a corrupt middle is told from a torn tail.
#[tokio::test]
async fn damage_in_the_last_write_of_an_older_segment_is_told() {
    let disk = TestDisk::new();
    let journal = open(&disk);
    let a = lane(&journal, "a");
    drop(reader(&a, "r"));
    let mut room = a.reserve(20_000).await;
    for count in 1..=3 {
        let bytes = noise(count.into(), 17_000);
        in_time(room.append(bytes, count)).await.unwrap();
        room = a.reserve(20_000).await;
    }
    drop(room);
    let files = disk.files();
    assert!(files.len() >= 3);
    let holding = |seed| {
        let at = |file: &Vec<u8>| file.windows(17_000).position(|w| w == noise(seed, 17_000));
        let found = files
            .iter()
            .find_map(|(segment, file)| at(file).map(|at| (*segment, at)));
        found.unwrap()
    };
    for (seed, told) in [(1, true), (2, true), (3, false)] {
        let mut files = files.clone();
        let (segment, at) = holding(seed);
        files.get_mut(&segment).unwrap()[at + 100] ^= 1;
        let journal = open(&TestDisk::of(files));
        let mut r = reader(&lane(&journal, "a"), "r");
        let mut found = Vec::new();
        loop {
            match r.try_next() {
                Ok(Some(entry)) => found.push((entry.count, true)),
                Err(ReadError::Damaged { count, .. }) => found.push((count, false)),
                Ok(None) => break,
                Err(error) => panic!("{error}"),
            }
        }
        let mut expected = vec![(1, true), (2, true), (3, true)];
        if told {
            expected[seed as usize - 1].1 = false;
        } else {
            expected.pop();
        }
        assert_eq!(found, expected, "{seed}");
    }
}

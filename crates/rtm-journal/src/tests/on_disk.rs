//! On the real file system: lock, permissions, inspection.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::{EntryFilter, OpenError, StoredEntry};

fn mode(path: &std::path::Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_journal_in_a_directory_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/journal");
    let journal = Journal::open(&path, options()).unwrap();
    let a = lane(&journal, "a");
    let mut reader = reader(&a, "r");
    for entry in 0..100 {
        append(&a, &noise(entry, 1000)).await;
        if entry < 50 {
            let position = next(&mut reader).await.position;
            reader.commit(position);
        }
    }
    journal.close().await.unwrap();
    drop((journal, a, reader));
    let journal = Journal::open(&path, options()).unwrap();
    assert!(!journal.unclean());
    let rest = drain(&mut super::reader(&lane(&journal, "a"), "r"));
    assert_eq!(
        rest,
        (50..100)
            .map(|entry| noise(entry, 1000))
            .collect::<Vec<_>>()
    );
    assert!(journal.stats().free_bytes.is_some());
}

#[tokio::test]
async fn one_at_a_time_and_the_error_says_who() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), options()).unwrap();
    let error = Journal::open(dir.path(), options()).unwrap_err();
    assert!(
        matches!(error, OpenError::Locked { pid: Some(pid), .. } if pid == std::process::id()),
        "{error}"
    );
    assert!(error.to_string().contains(&std::process::id().to_string()));
    // A close lets the next one in, whatever handles there are; so does dropping all of them.
    journal.close().await.unwrap();
    let next = Journal::open(dir.path(), options()).unwrap();
    drop(next);
    drop(Journal::open(dir.path(), options()).unwrap());
}

#[tokio::test]
async fn others_are_shut_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    drop(Journal::open(&path, options()).unwrap());
    assert_eq!(mode(&path), 0o700);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let files: Vec<_> = fs::read_dir(&path)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    assert_eq!(files.len(), 2);
    for file in &files {
        assert_eq!(mode(file), 0o600, "{}", file.display());
        fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
    }
    // A reader keeps the segment, so that its mode can be looked at.
    let journal = Journal::open(&path, options()).unwrap();
    assert_eq!(mode(&path), 0o700);
    for file in files.iter().filter(|file| file.exists()) {
        assert_eq!(mode(file), 0o600, "{}", file.display());
    }
    drop(journal);
}

#[tokio::test]
async fn files_of_others_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    for name in [
        "notes.txt",
        "1.segment",
        "+000000001.segment",
        "00000000001.segment",
    ] {
        fs::write(dir.path().join(name), "mine").unwrap();
    }
    drop(Journal::open(dir.path(), options()).unwrap());
    for name in [
        "notes.txt",
        "1.segment",
        "+000000001.segment",
        "00000000001.segment",
    ] {
        assert_eq!(fs::read(dir.path().join(name)).unwrap(), b"mine");
    }
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_is_told() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let path = dir.path().join("file/journal");
    assert!(matches!(
        Journal::open(&path, options()),
        Err(OpenError::Directory { .. })
    ));
    assert!(Journal::inspect(&path).is_err());
}

#[tokio::test]
async fn inspection_tells_what_there_is_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), options()).unwrap();
    let a = lane(&journal, "a");
    let mut fast = reader(&a, "fast");
    let slow = reader(&a, "slow");
    a.set_mark(Some(bytes::Bytes::from_static(b"mark")))
        .await
        .unwrap();
    for entry in 0..5 {
        append(&a, &noise(entry, 100)).await;
    }
    let third = std::iter::repeat_with(|| fast.try_next().unwrap().unwrap().position)
        .nth(2)
        .unwrap();
    fast.commit(third);
    let living = Journal::inspect(dir.path()).unwrap();
    assert_eq!(
        (living.in_use, living.in_use_by, living.clean),
        (true, Some(std::process::id()), false)
    );
    let epoch = journal.epoch();
    journal.close().await.unwrap();
    drop((journal, a, fast, slow));

    let segment = fs::read_dir(dir.path())
        .unwrap()
        .map(|file| file.unwrap().path());
    let segment = segment
        .filter(|path| path.extension().is_some_and(|end| end == "segment"))
        .max()
        .unwrap();
    let before = fs::read(&segment).unwrap();
    let closed = Journal::inspect(dir.path()).unwrap();
    assert_eq!(
        (closed.in_use, closed.in_use_by, closed.clean),
        (false, None, true)
    );
    assert_eq!(
        (closed.bytes, closed.torn_bytes, closed.damaged),
        (before.len() as u64, 0, 0)
    );
    assert_eq!(
        (
            closed.epochs.as_slice(),
            closed.segments.len(),
            closed.segments[0].entries
        ),
        (&[epoch][..], 1, 5)
    );
    let [lane] = closed.lanes.as_slice() else {
        panic!("{:?}", closed.lanes)
    };
    assert_eq!(
        (lane.name.as_str(), lane.entries, lane.mark_bytes),
        ("a", 5, Some(4))
    );
    let readers: Vec<_> = lane
        .readers
        .iter()
        .map(|reader| (reader.name.as_str(), reader.pending.entries))
        .collect();
    assert_eq!(readers, [("fast", 2), ("slow", 5)]);
    assert!(
        lane.readers[1].pending.oldest_age.is_some() && lane.readers[1].pending.bytes == lane.bytes
    );

    fs::write(&segment, [before.as_slice(), b"torn"].concat()).unwrap();
    assert_eq!(Journal::inspect(dir.path()).unwrap().torn_bytes, 4);
    assert_eq!(
        fs::read(&segment).unwrap().len(),
        before.len() + 4,
        "looking does not cut"
    );
}

/// Holds: some of what is stored can be looked at without reading the rest, also while a process has the journal open.
#[tokio::test]
async fn stored_entries_can_be_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), options()).unwrap();
    let lane = lane(&journal, "a");
    for entry in 0..10 {
        append(&lane, &noise(entry, 100)).await;
    }
    let stored = || Journal::stored_beside(dir.path(), &EntryFilter::default()).unwrap();
    assert_eq!(stored().len(), 10);
    let bytes = |stored: StoredEntry| stored.entry.unwrap().bytes.to_vec();
    let third: Vec<_> = stored().step_by(3).map(bytes).collect();
    assert_eq!(third, [0, 3, 6, 9].map(|entry| noise(entry, 100)));
    let mut rest = stored();
    assert_eq!(rest.nth(8).map(bytes), Some(noise(8, 100)));
    assert_eq!(rest.len(), 1);
    assert!(rest.nth(1).is_none() && rest.next().is_none());
}

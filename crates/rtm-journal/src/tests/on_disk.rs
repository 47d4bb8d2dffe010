//! On the real file system: lock, permissions, inspection.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use super::*;
use crate::{EntryFilter, LaneError, OpenError, StoredEntry};

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
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
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

/// Holds: what root makes in the directory of a service is the service's, who could not open it otherwise: the lock,
/// segments, those that root made before, and directories.
#[tokio::test]
async fn what_root_makes_is_the_directorys_owners() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    chown(dir.path(), Some(10_001), Some(10_002)).unwrap();
    let path = dir.path().join("deep/journal");
    drop(Journal::open(&path, options()).unwrap());
    let segment = |file: &fs::DirEntry| file.path().extension().is_some_and(|it| it == "segment");
    let files = || fs::read_dir(&path).unwrap().map(Result::unwrap);
    let made_before = files().find(segment).unwrap().path();
    chown(&made_before, Some(0), Some(0)).unwrap();
    let journal = Journal::open(&path, options()).unwrap();
    append(&lane(&journal, "a"), b"x").await;
    let of = |path: &std::path::Path| {
        let found = fs::metadata(path).unwrap();
        (found.uid(), found.gid())
    };
    assert!(files().filter(segment).count() > 0);
    for path in files()
        .map(|file| file.path())
        .chain([path.clone(), dir.path().join("deep")])
    {
        assert_eq!(of(&path), (10_001, 10_002), "{}", path.display());
    }
}

/// Holds: a directory that holds what is not the journal's is not closed to others, who may need it: it is refused, with
/// what is in it. One that is empty, or the journal's, is closed.
#[tokio::test]
async fn a_directory_of_others_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let set = |mode| fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
    set(0o1777);
    fs::create_dir(dir.path().join("lost+found")).unwrap();
    drop(Journal::open(dir.path(), options()).unwrap());
    assert_eq!(mode(dir.path()), 0o700);
    fs::write(dir.path().join("theirs"), "").unwrap();
    drop(Journal::open(dir.path(), options()).unwrap());
    set(0o1777);
    let error = Journal::open(dir.path(), options()).unwrap_err();
    assert_eq!(mode(dir.path()), 0o777);
    let OpenError::Directory { source, .. } = error else {
        panic!("{error}");
    };
    let said = source.to_string();
    assert!(
        said.contains("such as \"theirs\": set journal.dir below it"),
        "{said}"
    );
}

/// Holds: where a directory, or a file in it, belongs to somebody else, the error says whose it is and who asks.
#[test]
fn a_foreign_owner_is_named() {
    // Of root where the tests run as anybody; else of somebody, as whom a thread goes on.
    let dir = tempfile::tempdir().unwrap();
    let is_root = rustix::process::geteuid().is_root();
    let said = |path: &std::path::Path| match Journal::open(path, options()).unwrap_err() {
        OpenError::Directory { source, .. } => source.to_string(),
        error => panic!("{error}"),
    };
    if !is_root {
        let said = said(std::path::Path::new("/usr"));
        assert!(
            said.contains("/usr belongs to uid 0, this is uid "),
            "{said}"
        );
        return;
    }
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (foreign, own) = (dir.path().join("foreign"), dir.path().join("own"));
    fs::create_dir(&foreign).unwrap();
    fs::create_dir(&own).unwrap();
    drop(Journal::open(&own, options()).unwrap());
    let mut made = fs::read_dir(&own).unwrap().map(|file| file.unwrap().path());
    let segment = made.find(|path| path.extension().is_some()).unwrap();
    chown(&own, Some(10_001), Some(10_001)).unwrap();
    chown(own.join("lock"), Some(10_001), Some(10_001)).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let user = rustix::process::Uid::from_raw(10_001);
            rustix::thread::set_thread_res_uid(user, user, user).unwrap();
            let whose =
                "belongs to uid 0, this is uid 10001: chown it, or set journal.dir below it";
            let said_of = said(&foreign);
            assert_eq!(said_of, format!("{} {whose}", foreign.display()));
            let said_of = said(&own);
            assert_eq!(said_of, format!("{} {whose}", segment.display()));
        });
    });
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
        (
            lane.name.as_str(),
            lane.entries,
            lane.mark.as_ref().map(|mark| mark.len())
        ),
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

/// Holds: a journal keeps its number, a copy has it too, and a new one is another, durable at once; nobody sees where it is
/// kept.
#[tokio::test]
async fn a_journal_has_a_number_of_its_own() {
    let [dir, copy, other] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let first = Journal::open(dir.path(), options()).unwrap();
    let id = first.id();
    assert_ne!(id, 0);
    assert_eq!(first.lanes(), []);
    assert!(first.stats().lanes.is_empty());
    let own = "rtm-bridge.journal".parse().unwrap();
    assert!(matches!(first.lane(&own), Err(LaneError::Reserved(_))));
    first.close().await.unwrap();
    for file in fs::read_dir(dir.path()).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    let stranger = Journal::open(other.path(), options()).unwrap();
    assert_ne!(stranger.id(), id);
    let found = Journal::inspect(dir.path()).unwrap();
    assert_eq!((found.id, found.lanes.len()), (Some(id), 0));
    let again = Journal::open(dir.path(), options()).unwrap();
    assert_eq!(again.id(), id);
    let copied = Journal::open(copy.path(), options()).unwrap();
    assert_eq!(copied.id(), id);
    let new = copied.renew_id().await.unwrap();
    assert_ne!(new, id);
    // As a crash.
    drop(copied);
    assert_eq!(Journal::inspect(copy.path()).unwrap().id, Some(new));
}

#![allow(clippy::unwrap_used)]

use std::os::unix::fs::symlink;

use tokio::time::{Instant, timeout};

use super::*;

fn watch(place: &Path) -> Watch {
    Watch::new(
        place,
        Seen::now(place),
        Arc::new(Notify::from_env()),
        |_| {},
    )
    .unwrap()
}

async fn is_read_again(watch: &mut Watch) -> bool {
    timeout(5 * LOOK, watch.next()).await.is_ok()
}

/// Holds: a mounted configuration map is read again when its link is swapped, once; of a directory the names and contents
/// count, and what is no part of the configuration does not.
#[tokio::test(start_paused = true)]
async fn a_directory_is_watched_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for (version, text) in [("..1", "a = 1"), ("..2", "a = 2")] {
        std::fs::create_dir(at(version)).unwrap();
        std::fs::write(at(version).join("10.toml"), text).unwrap();
    }
    symlink("..1", at("..data")).unwrap();
    symlink("..data/10.toml", at("10.toml")).unwrap();
    let mut watch = watch(dir.path());
    assert!(!is_read_again(&mut watch).await);

    symlink("..2", at("..new")).unwrap();
    std::fs::rename(at("..new"), at("..data")).unwrap();
    let swapped = Instant::now();
    assert!(is_read_again(&mut watch).await);
    assert!(swapped.elapsed() >= 2 * LOOK, "one look was enough");
    assert!(!is_read_again(&mut watch).await);

    std::fs::write(at("notes.txt"), "x").unwrap();
    std::fs::write(at(".30.toml"), "x").unwrap();
    std::fs::create_dir(at("more")).unwrap();
    std::fs::write(at("more/40.toml"), "x").unwrap();
    assert!(!is_read_again(&mut watch).await);

    std::fs::write(at("20.toml"), "").unwrap();
    assert!(is_read_again(&mut watch).await, "a file came");
    std::fs::rename(at("20.toml"), at("50.toml")).unwrap();
    assert!(is_read_again(&mut watch).await, "a file has another name");
    std::fs::remove_file(at("50.toml")).unwrap();
    assert!(is_read_again(&mut watch).await, "a file is gone");
}

/// Holds: one file is watched by its content, and that it is gone is seen as well.
#[tokio::test(start_paused = true)]
async fn a_file_is_watched() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rtm-bridge.toml");
    std::fs::write(&file, "a = 1").unwrap();
    let mut watch = watch(&file);
    std::fs::write(dir.path().join("other.toml"), "a = 1").unwrap();
    std::fs::write(&file, "a = 1").unwrap();
    assert!(!is_read_again(&mut watch).await);
    std::fs::write(&file, "a = 2").unwrap();
    assert!(is_read_again(&mut watch).await);
    std::fs::remove_file(&file).unwrap();
    assert!(is_read_again(&mut watch).await);
    assert!(!is_read_again(&mut watch).await);
}

/// Holds: what changes between the reading of the first configuration and the watching is seen without another change.
#[tokio::test(start_paused = true)]
async fn a_change_before_the_watching_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rtm-bridge.toml");
    std::fs::write(&file, "a = 1").unwrap();
    let seen = Seen::now(&file);
    std::fs::write(&file, "a = 2").unwrap();
    let mut watch = Watch::new(&file, seen, Arc::new(Notify::from_env()), |_| {}).unwrap();
    assert!(is_read_again(&mut watch).await);
    assert!(!is_read_again(&mut watch).await);
}

//! `replay --unconfirmed`: a journal that was moved away, and that no bridge will run on again, is drained by hand.

use std::fs;
use std::os::unix::fs::symlink;

use super::replay::Place;

/// Holds: everything is published, what the sink has not confirmed with it, marked; the journal is as before to the byte.
#[test]
fn a_journal_that_was_set_aside_is_drained() {
    let place = Place::new();
    let before = place.files();
    let old = place.set_aside();
    let drain = |more: &[&str]| {
        let args = ["--dir", old.to_str().unwrap(), "--unconfirmed", "--yes"];
        place.replay(&[&args, more].concat())
    };
    let (code, text) = drain(&["--sink", "late"]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(place.positions("late").0, Vec::from_iter(1..=12));
    assert!(
        place
            .lines("late")
            .iter()
            .all(|line| line["replayed"] == true)
    );
    assert!(
        text.contains("42 of them late has not confirmed, the first at position 1"),
        "{text}"
    );
    let (code, text) = drain(&["--sink", "out"]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(place.positions("out").0, Vec::from_iter(1..=12));
    assert!(
        text.contains("12 of them out has not confirmed, the first at position 6; --from 6"),
        "{text}"
    );
    // As the text advises.
    fs::remove_file(place.path("out")).unwrap();
    assert_eq!(drain(&["--sink", "out", "--from", "6"]).0, Some(0));
    assert_eq!(place.positions("out").0, Vec::from_iter(6..=12));
    fs::rename(&old, place.journal()).unwrap();
    assert!(place.files() == before, "the journal was touched");
}

/// Holds: what a bridge publishes, or will, is not published before it: not of the configuration's journal by whatever name,
/// and of no journal that a process holds. Without the flag what waits is left out, and the flag is told.
#[test]
fn what_a_bridge_will_publish_is_refused() {
    let place = Place::new();
    let refused = |dir: &[&str], says: &str| {
        let flags = ["--sink", "late", "--unconfirmed", "--yes"];
        let (code, text) = place.replay(&[&flags, dir].concat());
        assert_eq!(code, Some(2), "{dir:?}: {text}");
        assert!(text.contains(says), "{dir:?}: {text}");
        assert!(!place.path("late").exists(), "{dir:?}");
    };
    refused(&[], "--dir");
    let (journal, link) = (place.journal(), place.path("link"));
    symlink(&journal, &link).unwrap();
    let around = place.path("link/../journal");
    for dir in [&journal, &link, &around] {
        let dir = dir.to_str().unwrap();
        refused(&["--dir", dir], "is the journal of the configuration");
    }
    let old = place.set_aside();
    let old = old.to_str().unwrap();
    let held = place.open(old);
    refused(&["--dir", old], "is in use by process");
    drop(held);
    let (code, text) = place.replay(&["--sink", "late", "--yes", "--dir", old]);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("left out: 42 events") && text.contains("--unconfirmed"),
        "{text}"
    );
}

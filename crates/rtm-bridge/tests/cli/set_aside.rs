//! `replay --unconfirmed`: a journal that was moved away, and that no bridge will run on again, is drained by hand.

use std::fs;
use std::io::{BufReader, Read, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;

use super::replay::{APPS, Place};

/// Drains a journal that was set aside.
fn drain(place: &Place, old: &Path, more: &[&str]) -> (Option<i32>, String) {
    let args = ["--dir", old.to_str().unwrap(), "--unconfirmed", "--yes"];
    place.replay(&[&args, more].concat())
}

/// Holds: what the sink has not confirmed is published, marked, and nothing else; the journal is as before to the byte.
#[test]
fn a_journal_that_was_set_aside_is_drained() {
    let place = Place::new();
    let before = place.files();
    let old = place.set_aside();
    let (code, text) = drain(&place, &old, &["--sink", "late"]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(place.positions("late").0, Vec::from_iter(1..=12));
    let lines = place.lines("late");
    assert!(lines.iter().all(|line| line["replayed"] == true));
    let (code, text) = drain(&place, &old, &["--sink", "out", "--dry-run"]);
    assert_eq!(code, Some(0), "{text}");
    for says in [
        "to out: 2 entries from position 6 to 12, ",
        "one, r0, user: 6 events in 1 entry, position 6 to 6",
        "two, r0, user: 6 events in 1 entry, position 12 to 12",
    ] {
        assert!(text.contains(says), "expected {says:?} in {text}");
    }
    let (code, text) = drain(&place, &old, &["--sink", "out"]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(place.positions("out").0, [6, 12]);
    fs::rename(&old, place.journal()).unwrap();
    assert!(place.files() == before, "the journal was touched");
}

/// Holds: a file that another process writes, such as the bridge on its new journal, is left to it, and said to be its.
#[test]
fn a_file_that_is_written_is_left_alone() {
    let place = Place::new();
    let old = place.set_aside();
    let writer = rtm_sink::FileSink::create(place.path("late")).unwrap();
    let (code, text) = drain(&place, &old, &["--sink", "late"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("another process writes to it"), "{text}");
    assert!(place.lines("late").is_empty());
    drop(writer);
    let (code, text) = drain(&place, &old, &["--sink", "late"]);
    assert_eq!(code, Some(0), "{text}");
}

/// Holds: before a journal is drained whose process died, what that may have cost at the source is told: nobody counts it.
#[test]
fn a_drain_tells_what_a_death_may_have_cost() {
    let place = Place::new();
    let mark = br#"{"polling":true,"rings":[{"r":"r0","s":"user","l":[0,0,0,0],"p":1}]}"#;
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let journal = place.open(place.journal());
        let lane = journal.lane(&APPS[0].parse().unwrap()).unwrap();
        lane.set_mark(Some(mark.to_vec().into())).await.unwrap();
    });
    let old = place.set_aside();
    let (code, text) = drain(&place, &old, &["--sink", "late"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("up to 1000 events may have been lost at the source"),
        "{text}"
    );
}

/// Holds: a sink that has confirmed everything is drained of nothing: the dry run says so, and so does the drain.
#[test]
fn a_sink_that_has_all_is_not_drained() {
    let place = Place::new();
    place.confirm_all("out");
    let old = place.set_aside();
    for more in [&["--dry-run"][..], &[]] {
        let (code, text) = drain(&place, &old, &[&["--sink", "out"], more].concat());
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains("to out: 0 events"), "{text}");
    }
    assert!(!place.path("out").exists());
    assert_eq!(drain(&place, &old, &["--sink", "late"]).0, Some(0));
    assert_eq!(place.positions("late").0, Vec::from_iter(1..=12));
}

/// Holds: what waits of an App ID that left the configuration is drained to a sink that takes some apps only; of an App ID
/// that is there and that the sink takes no more, nothing.
#[test]
fn what_a_removed_app_left_is_drained() {
    let place = Place::new();
    let narrow = |apps: &str| {
        let path = place.path("rtm-bridge.toml");
        let config = fs::read_to_string(&path).unwrap();
        let other = config.replace(
            "[[apps]]",
            "[[apps]]\nname = \"other\"\napp_id = \"a\"\nauth = \
            { basic = { key = \"k\", secret = \"s\" } }\nregions = [\"eu-west-1\"]\n[[apps]]",
        );
        let sink = format!("[sinks.late]\napps = [\"{apps}\"]\n");
        fs::write(&path, other.replace("[sinks.late]\n", &sink)).unwrap();
    };
    narrow("other");
    let old = place.set_aside();
    let (code, text) = drain(&place, &old, &["--sink", "late"]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(place.positions("late").0, Vec::from_iter(7..=12), "{text}");
}

/// Holds: a sink that the journal has forgotten is drained of nothing that other sinks had, which is told; and of all that
/// is kept where no sink is left.
#[test]
fn what_no_sink_is_left_for_is_drained() {
    let place = Place::new();
    let old = place.set_aside();
    let forget = |sink: &str| {
        let journal = place.open(&old);
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            for app in APPS {
                let lane = journal.lane(&app.parse().unwrap()).unwrap();
                lane.remove_reader(&sink.parse().unwrap()).await.unwrap();
            }
            journal.close().await.unwrap();
        });
    };
    forget("late");
    let (code, text) = drain(&place, &old, &["--sink", "late", "--dry-run"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("to late: 0 events"), "{text}");
    assert!(text.contains("knows other sinks and no late"), "{text}");
    forget("out");
    assert_eq!(drain(&place, &old, &["--sink", "late"]).0, Some(0));
    assert_eq!(place.positions("late").0, [6, 12]);
}

/// Holds: an entry that is away for a while is waited for, and not passed over.
#[test]
fn what_cannot_be_read_for_now_is_waited_for() {
    let place = Place::new();
    let old = place.set_aside();
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin("rtm-bridge"));
    let mut replay = command
        .args(["replay", "--sink", "late", "--unconfirmed", "--config"])
        .arg(place.path("rtm-bridge.toml"))
        .arg("--dir")
        .arg(&old)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(replay.stderr.take().unwrap());
    let mut until = |says: &str| {
        let mut text = Vec::new();
        while !String::from_utf8_lossy(&text).contains(says) {
            let mut byte = [0];
            let count = told.read(&mut byte).unwrap();
            assert!(count > 0, "no {says:?}: {}", String::from_utf8_lossy(&text));
            text.push(byte[0]);
        }
    };
    until("Type yes");
    let files = fs::read_dir(&old).unwrap().map(|file| file.unwrap().path());
    let segments = files.filter(|file| file.extension().is_some_and(|kind| kind == "segment"));
    let segments: Vec<_> = segments
        .map(|file| (file.clone(), file.with_extension("away")))
        .collect();
    for (segment, away) in &segments {
        fs::rename(segment, away).unwrap();
    }
    replay.stdin.take().unwrap().write_all(b"yes\n").unwrap();
    until("the entry at position 1 cannot be read now: its segment is not there; trying again");
    for (segment, away) in &segments {
        fs::rename(away, segment).unwrap();
    }
    until("of 12 entries");
    assert_eq!(replay.wait().unwrap().code(), Some(0));
    assert_eq!(place.positions("late").0, Vec::from_iter(1..=12));
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

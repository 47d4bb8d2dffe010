//! `demo`, where something is in its way.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A demo with a directory for temporary files of its own.
fn demo(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("rtm-bridge"));
    command.arg("demo").args(args).env("TMPDIR", dir);
    command
}

fn left(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name());
    names
        .map(|name| name.to_string_lossy().into_owned())
        .collect()
}

/// Holds: whoever reads its output may stop, as `head` does: it ends by itself, with 0 and without a word, and leaves
/// nothing behind.
#[test]
fn a_closed_output_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    // Without an end: what ends it is that nobody reads.
    let mut demo = demo(dir.path(), &[])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    assert!(first.starts_with("A simulation of Agora's API"), "{first}");
    assert!(lines.next().unwrap().is_ok());
    drop(lines);
    let deadline = Instant::now() + Duration::from_secs(60);
    while demo.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            demo.kill().unwrap();
            panic!("it goes on for nobody");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let output = demo.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert_eq!(stderr, "");
    assert_eq!(left(dir.path()), Vec::<String>::new());
}

/// Holds: a broker that refuses ends it at once, with its name and the reason, before any event is made.
#[test]
fn a_broker_that_is_away_is_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    for (args, says) in [
        (
            ["--kafka", "127.0.0.1:1"],
            "sink kafka: cannot reach a Kafka broker: 127.0.0.1:1: Connection refused",
        ),
        (
            ["--nats", "nats://127.0.0.1:1"],
            "sink nats: cannot reach 127.0.0.1:1",
        ),
    ] {
        let output = demo(dir.path(), &args).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(says), "{stderr}");
        assert_eq!(output.stdout, b"", "{args:?}");
        assert_eq!(left(dir.path()), Vec::<String>::new());
    }
}

/// Holds: a demo that shows nothing does not say that nothing is missing.
#[test]
fn nothing_handed_out_is_no_success() {
    let dir = tempfile::tempdir().unwrap();
    let output = demo(dir.path(), &["--rate", "0", "--for", "1s"])
        .output()
        .unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stdout}");
    assert!(stdout.contains("NOTHING WAS HANDED OUT"), "{stdout}");
    assert!(!stdout.contains("nothing missing"), "{stdout}");
}

/// Holds: a demo of one sink that has everything says so once.
#[test]
fn a_demo_tells_its_end_once() {
    let dir = tempfile::tempdir().unwrap();
    let output = demo(dir.path(), &["--rate", "100", "--for", "2s"])
        .output()
        .unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stdout}");
    assert_eq!(stdout.matches("nothing missing").count(), 1, "{stdout}");
}

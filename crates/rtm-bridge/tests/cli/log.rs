//! What is logged, and how journald and people get it.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use super::SOUND;

/// Runs the program with standard error in a file that `JOURNAL_STREAM` names as journald's, or does not.
fn run(dir: &Path, args: &[&str], stdout: Stdio, is_journald: bool) -> (ExitStatus, String) {
    let log = File::create(dir.join("log")).unwrap();
    let found = log.metadata().unwrap();
    let inode = found.ino() + u64::from(!is_journald);
    let status = Command::new(assert_cmd::cargo::cargo_bin("rtm-bridge"))
        .args(args)
        .env("JOURNAL_STREAM", format!("{}:{inode}", found.dev()))
        .env("RUST_LOG", "trace")
        .stdout(stdout)
        .stderr(log)
        .status()
        .unwrap();
    (status, fs::read_to_string(dir.join("log")).unwrap())
}

/// A configuration that `run` warns of, and ends with an error after it: its journal is another's, as long as that is held.
fn warned_and_refused(dir: &Path, format: &str) -> (String, rtm_journal::Journal) {
    fs::write(dir.join("secret"), "s").unwrap();
    let file = dir.join("rtm-bridge.toml");
    let text = SOUND
        .replace("regions", "requests_per_second = 11\nregions")
        .replace("DIR", dir.to_str().unwrap());
    let options = rtm_journal::Options {
        min_free_bytes: 0,
        ..rtm_journal::Options::default()
    };
    let held = rtm_journal::Journal::open(&dir.join("journal"), options).unwrap();
    let head = format!("[admin]\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"{format}\"\n");
    fs::write(&file, head + &text).unwrap();
    (file.to_str().unwrap().to_owned(), held)
}

/// Holds: where journald reads standard error each line begins with its priority, in both formats, what ends the process
/// included, so that `journalctl -p warning` has the warnings and errors; text leaves the time to journald.
#[test]
fn journald_is_told_priorities() {
    for format in ["text", "json"] {
        let dir = tempfile::tempdir().unwrap();
        let (file, _held) = warned_and_refused(dir.path(), format);
        let args = ["run", "--config", &file];
        let (status, log) = run(dir.path(), &args, Stdio::null(), true);
        assert_eq!(status.code(), Some(1), "{log}");
        let expected = [
            ("<6>", "starting"),
            ("<4>", "is more than the 10 that Agora allows"),
            ("<3>", "rtm-bridge: "),
        ];
        for (priority, says) in expected {
            let line = log.lines().find(|line| line.contains(says));
            let line = line.unwrap_or_else(|| panic!("{format}: no {says:?} in {log}"));
            let rest = line.strip_prefix(priority);
            let rest = rest.unwrap_or_else(|| panic!("{format}: {line}"));
            match format {
                "json" if priority != "<3>" => {
                    serde_json::from_str::<serde_json::Value>(rest).unwrap();
                }
                _ => assert!(!rest.starts_with("20"), "{line}"),
            }
        }
        for line in log.lines() {
            let known = ["<3>", "<4>", "<6>", "<7>"];
            let priority = known.iter().find(|known| line.starts_with(**known));
            assert!(priority.is_some(), "{format}: {line}");
        }
    }
}

/// Holds: standard error that is not journald's, though `JOURNAL_STREAM` came along, has times and no priorities.
#[test]
fn a_redirected_log_has_times() {
    let dir = tempfile::tempdir().unwrap();
    let (file, _held) = warned_and_refused(dir.path(), "text");
    let (_, log) = run(
        dir.path(),
        &["run", "--config", &file],
        Stdio::null(),
        false,
    );
    let lines: Vec<&str> = log.lines().collect();
    let (last, entries) = lines.split_last().unwrap();
    assert!(entries.len() >= 2, "{log}");
    for line in entries {
        assert!(line.starts_with("20"), "{line}");
    }
    assert!(last.starts_with("rtm-bridge: "), "{last}");
}

/// Holds: a panic has a line with a priority in the journal, beside what the usual hook prints.
#[test]
fn a_panic_is_found_in_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let (status, log) = run(dir.path(), &["config", "example"], full.into(), true);
    assert!(!status.success(), "{log}");
    let told = log
        .lines()
        .any(|line| line.starts_with("<3>rtm-bridge: panicked at") && line.contains("No space"));
    assert!(told, "{log}");
}

/// Holds: a level that is none is refused, from the file and from each variable, with where it stands and what was
/// expected.
#[test]
fn a_level_that_is_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().display().to_string();
    fs::write(dir.path().join("secret"), "s").unwrap();
    let file = dir.path().join("rtm-bridge.toml");
    for (level, variable, told) in [
        ("inof", None, "log.level: `inof` is neither"),
        (
            "info",
            Some(("RTM_BRIDGE__LOG__LEVEL", "rtm_bridge")),
            "log.level: `rtm_bridge` is neither",
        ),
        (
            "info",
            Some(("RUST_LOG", "debgu")),
            "RUST_LOG: `debgu` is neither",
        ),
    ] {
        let text = format!(
            "[log]\nlevel = \"{level}\"\n{}",
            SOUND.replace("DIR", &path)
        );
        fs::write(&file, text).unwrap();
        for command in ["check", "run"] {
            let output = Command::new(assert_cmd::cargo::cargo_bin("rtm-bridge"))
                .args([command, "--config"])
                .arg(&file)
                .env_remove("RUST_LOG")
                .envs(variable)
                .output()
                .unwrap();
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8(said).unwrap();
            assert_eq!(output.status.code(), Some(2), "{command}: {said}");
            assert!(said.contains(told), "{command}: {said}");
            assert!(
                said.contains("expected error, warn, info, debug or trace"),
                "{command}: {said}"
            );
        }
    }
}

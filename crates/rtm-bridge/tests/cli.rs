//! The command line, as a user meets it.

#![allow(clippy::unwrap_used)]

#[path = "cli/check.rs"]
mod check_all;
#[path = "cli/completions.rs"]
mod completions;
#[path = "cli/demo.rs"]
mod demo;
#[path = "cli/directory.rs"]
mod directory;
#[path = "cli/documentation.rs"]
mod documentation;
#[path = "cli/gaps.rs"]
mod gaps;
#[path = "cli/help.rs"]
mod help;
#[path = "cli/journal.rs"]
mod journal;
#[path = "cli/log.rs"]
mod log;
#[path = "cli/replay.rs"]
mod replay;
#[path = "cli/schema.rs"]
mod schema;
#[path = "cli/secrets.rs"]
mod secrets;
#[path = "cli/security.rs"]
mod security;
#[path = "cli/set_aside.rs"]
mod set_aside;
#[path = "cli/simulate.rs"]
mod simulate;
#[path = "cli/top.rs"]
mod top;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use assert_cmd::Command;
use rtm_bridge::config::Config;

const SOUND: &str = r#"
[journal]
dir = "DIR/journal"

[[apps]]
name = "main"
app_id = "876922cbca0098dff4323566daa89675"
auth = { basic = { key = "k", secret_file = "DIR/secret" } }
regions = ["eu-west-1"]

[sinks.kafka]
brokers = ["127.0.0.1:9"]
"#;

/// A secret that nobody else may read.
fn write_secret(dir: &Path) {
    let file = dir.join("secret");
    std::fs::write(&file, "canary-secret\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn check(dir: &Path, toml: &str) -> (Option<i32>, String) {
    write_secret(dir);
    let file = dir.join("rtm-bridge.toml");
    std::fs::write(&file, toml.replace("DIR", dir.to_str().unwrap())).unwrap();
    let output = Command::cargo_bin("rtm-bridge")
        .unwrap()
        .args(["check", "--config", file.to_str().unwrap()])
        .output()
        .unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap()
    );
    (output.status.code(), text)
}

#[test]
fn a_sound_configuration_is_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let (code, text) = check(dir.path(), SOUND);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        !dir.path().join("journal").exists(),
        "check touches nothing"
    );
}

#[test]
fn broken_configurations_are_refused_with_what_to_do() {
    let cases = [
        ("name = \"main\"", "nmae = \"main\"", "unknown key `nmae`"),
        ("name = \"main\"\n", "", "the key `name` is missing"),
        ("[journal]", "[jurnal]", "unknown key `jurnal`"),
        (
            "[journal]",
            "[journal]\nmax_bytes = \"many\"",
            "a size, such as",
        ),
        (
            "regions =",
            "request_deadline = 30\nregions =",
            "a duration with a unit",
        ),
        ("\"eu-west-1\"", "\"eu-wset-1\"", "did you mean eu-west-1?"),
        (
            "[\"eu-west-1\"]",
            "[{ name = \"x\", base_url = \"http://example.com\" }]",
            "http:// is accepted for loopback addresses only",
        ),
        ("DIR/secret", "DIR/nothing", "cannot read"),
        (
            "secret_file = \"DIR/secret\"",
            "secret_env = \"RTM_NOT_SET\"",
            "RTM_NOT_SET",
        ),
        (
            "brokers =",
            "topic = \"rtm.{regoin}\"\nbrokers =",
            "unknown variable `{regoin}`",
        ),
        ("brokers =", "options = { \"acks\" = 1 }\nbrokers =", "acks"),
        ("[sinks.kafka]", "[sinks.kafkaa]", "unknown type `kafkaa`"),
        ("[journal]", "[journal", "TOML parse error"),
    ];
    for (from, to, says) in cases {
        let dir = tempfile::tempdir().unwrap();
        assert!(SOUND.contains(from), "{from}");
        let (code, text) = check(dir.path(), &SOUND.replacen(from, to, 1));
        assert_eq!(code, Some(2), "{to}: {text}");
        assert!(text.contains(says), "{to}: expected {says:?} in {text}");
        assert!(!text.contains("canary-secret"), "{text}");
        assert!(
            !dir.path().join("journal").exists(),
            "{to}: touched the journal"
        );
    }
}

/// Holds: where the disk has no room for a page of each ring, so that polling cannot begin, `check` says so and fails.
#[test]
fn a_disk_without_room_fails_the_check() {
    let dir = tempfile::tempdir().unwrap();
    let little = SOUND.replacen("[journal]", "[journal]\nmin_free_bytes = \"900 TiB\"", 1);
    let (code, text) = check(dir.path(), &little);
    assert_eq!(code, Some(2), "{text}");
    for says in [
        "journal: FAILED",
        "are free there",
        "journal.min_free_bytes",
    ] {
        assert!(text.contains(says), "{says} in {text}");
    }
}

/// Holds: who begins is told how; the same file that goes missing at a reload is told without, for there a bridge runs.
#[test]
fn a_missing_file_says_what_to_do() {
    for command in [&["run"][..], &["check"], &["journal", "stat"], &["replay"]] {
        let output = Command::cargo_bin("rtm-bridge")
            .unwrap()
            .args(command)
            .args(["--config", "/nowhere/rtm-bridge.toml"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{command:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        for says in ["No such file", "--config", "config example", "demo"] {
            assert!(text.contains(says), "{command:?}: {says} in {text}");
        }
    }
    let error = Config::load(Path::new("/nowhere/rtm-bridge.toml")).unwrap_err();
    let told = error.to_string();
    assert!(
        told.contains("No such file") && !told.contains("demo") && !told.contains("--config"),
        "{told}"
    );
}

#[test]
fn the_version_names_the_commit() {
    let output = Command::cargo_bin("rtm-bridge")
        .unwrap()
        .arg("--version")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("rtm-bridge 0.1.0 ("), "{text}");
}

#[test]
fn the_reference_configuration_is_sound() {
    let dir = tempfile::tempdir().unwrap();
    let reference =
        include_str!("../../../deploy/rtm-bridge.toml").replace("/run/secrets/agora", "DIR/secret");
    let (code, text) = check(dir.path(), &reference);
    assert_eq!(code, Some(0), "{text}");
}

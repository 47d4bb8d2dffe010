//! `simulate`: its file, and many App IDs.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::check;

/// Holds: with `--apps` it prints TOML that, with a sink, is a configuration of the bridge for all of them.
#[test]
fn many_app_ids_come_with_their_configuration() {
    let mut simulator = Command::new(assert_cmd::cargo::cargo_bin("rtm-bridge"))
        .args(["simulate", "--listen", "127.0.0.1:0", "--apps", "3"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut toml = String::new();
    for line in BufReader::new(simulator.stdout.take().unwrap()).lines() {
        toml += &line.unwrap();
        toml.push('\n');
        if toml.matches("regions =").count() == 3 {
            break;
        }
    }
    simulator.kill().unwrap();
    simulator.wait().unwrap();
    assert!(toml.starts_with("# simulator is listening on http://127.0.0.1:"));
    let dir = tempfile::tempdir().unwrap();
    let (code, text) = check(
        dir.path(),
        &format!("[journal]\ndir = \"DIR/journal\"\n{toml}\n[sinks.stdout]\n"),
    );
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("3 App ID(s), 6 rings"), "{text}");
}

/// Holds: a file that is wrong is refused with its name, the key, the place and what is expected; with exit code 2.
#[test]
fn a_wrong_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("s.json");
    for (text, says) in [
        (
            r#"{"apps":5}"#,
            "apps: invalid type: integer `5`, expected a sequence at line 1 column 9",
        ),
        (r#"{"x":1}"#, "unknown field `x`, expected one of"),
        (r#"{"load":{"odd":2}}"#, "load.odd must be from 0 to 1"),
    ] {
        std::fs::write(&file, text).unwrap();
        let output = Command::new(assert_cmd::cargo::cargo_bin("rtm-bridge"))
            .args(["simulate", "--config", file.to_str().unwrap()])
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(says), "{stderr}");
    }
}

//! `--config` with a directory.

use std::path::Path;

use assert_cmd::Command;

use super::SOUND;

/// The sound configuration in two files.
fn parts(dir: &Path) {
    std::fs::write(dir.join("secret"), "s\n").unwrap();
    let sound = SOUND.replace("DIR", dir.to_str().unwrap());
    let (journal, rest) = sound.split_once("[[apps]]").unwrap();
    std::fs::write(dir.join("10-journal.toml"), journal).unwrap();
    std::fs::write(dir.join("20-rest.toml"), format!("[[apps]]{rest}")).unwrap();
}

fn told(args: &[&str], dir: &Path) -> (Option<i32>, String) {
    let mut command = Command::cargo_bin("rtm-bridge").unwrap();
    let output = command
        .args(args)
        .arg("--config")
        .arg(dir)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    (output.status.code(), text.concat())
}

/// Holds: what reads a configuration reads that of a directory.
#[test]
fn every_command_takes_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    parts(dir.path());
    let (code, text) = told(&["check"], dir.path());
    assert_eq!(code, Some(0), "{text}");
    let verdict = format!("{}: valid", dir.path().display());
    assert!(text.contains(&verdict), "{text}");
    // The journal of the configuration, which is not there yet.
    for command in [&["journal", "stat"][..], &["journal", "verify"]] {
        let (code, text) = told(command, dir.path());
        assert!(code != Some(0), "{command:?}: {text}");
        assert!(text.contains("/journal"), "{command:?}: {text}");
    }
    let (_, text) = told(&["replay", "--sink", "none", "--yes"], dir.path());
    assert!(text.contains("none") && text.contains("kafka"), "{text}");
    std::fs::write(
        dir.path().join("30.toml"),
        "[admin]\nlisten = \"127.0.0.1:1\"\n",
    )
    .unwrap();
    let (code, text) = told(&["top", "--once"], dir.path());
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("http://127.0.0.1:1"), "{text}");
}

/// Holds: `check` tells both files of what stands twice, the file of what is wrong, and what an empty directory lacks.
#[test]
fn problems_name_their_files() {
    let dir = tempfile::tempdir().unwrap();
    let (code, text) = told(&["check"], dir.path());
    assert_eq!(code, Some(2), "{text}");
    assert!(
        text.contains("`*.toml`") && text.lines().count() == 1,
        "{text}"
    );
    parts(dir.path());
    let third = dir.path().join("30.toml");
    std::fs::write(&third, "[journal]\ndir = \"/x\"\n").unwrap();
    let (code, text) = told(&["check"], dir.path());
    assert_eq!(code, Some(2), "{text}");
    for says in ["/30.toml: journal.dir: ", "/10-journal.toml too"] {
        assert!(text.contains(says), "{says} in {text}");
    }
    std::fs::write(&third, "[journal]\nmax_bytes = 1\n").unwrap();
    let (code, text) = told(&["run"], dir.path());
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("/30.toml: journal.max_bytes: "), "{text}");
}

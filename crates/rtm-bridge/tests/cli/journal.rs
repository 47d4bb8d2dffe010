//! The journal's tools, on journals that were written as the bridge writes them.

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use rtm_journal::{Journal, Lane, Options, Position};
use serde_json::Value;

const APPS: [&str; 2] = [
    "876922cbca0098dff4323566daa89675",
    "0123456789abcdef0123456789abcdef",
];

/// A journal of two App IDs with three entries each, of one, two and three events; the sink `kafka` has confirmed the
/// first of each, and the sink `nats` nothing.
fn journal(dir: &Path) -> PathBuf {
    let dir = dir.join("journal");
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let journal = open(&dir);
        for app in APPS {
            let lane = lane(&journal, app);
            let mut kafka = lane.reader(&"kafka".parse().unwrap()).unwrap();
            let _nats = lane.reader(&"nats".parse().unwrap()).unwrap();
            for count in 1..=3u8 {
                let entry = entry(app, count);
                let room = lane.reserve(entry.len()).await;
                room.append(entry, count.into()).await.unwrap();
            }
            let first = kafka.next().await.unwrap();
            kafka.commit(first.position);
        }
        journal.close().await.unwrap();
    });
    dir
}

fn open(dir: &Path) -> Journal {
    let options = Options {
        min_free_bytes: 0,
        ..Options::default()
    };
    Journal::open(dir, options).unwrap()
}

fn lane(journal: &Journal, app: &str) -> Lane {
    journal.lane(&app.parse().unwrap()).unwrap()
}

/// The third is not UTF-8, and the second would clear a terminal.
fn entry(app: &str, count: u8) -> Vec<u8> {
    let tags = format!(
        r#"{{"app":"main","app_id":"{app}","region":"eu-west-1","stream":"user","fetched_at":7,"status":200,"complete":true}}"#
    );
    let body: &[u8] = match count {
        1 => br#"{"events":[]}"#,
        2 => b"\x1b[2J \xe2\x80\xae",
        _ => b"\xff\x00",
    };
    let length = u32::try_from(tags.len()).unwrap().to_le_bytes();
    [&[1], &length[..], tags.as_bytes(), body].concat()
}

fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::cargo_bin("rtm-bridge").unwrap();
    let output = command.arg("journal").args(args).output().unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

fn dump(dir: &Path, more: &[&str]) -> Vec<Value> {
    let dir = dir.to_str().unwrap();
    let (code, out, err) = run(&[&["dump", "--dir", dir], more].concat());
    assert_eq!(code, Some(0), "{err}");
    assert!(
        out.chars().all(|c| c == '\n' || !c.is_control()) && !out.contains('\u{202e}'),
        "{out:?}"
    );
    out.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The only segment.
fn segment(dir: &Path) -> PathBuf {
    let files = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
    let mut segments = files.filter(|file| file.extension().is_some_and(|end| end == "segment"));
    let segment = segments.next().unwrap();
    assert_eq!(segments.next(), None);
    segment
}

/// Holds: every entry comes with its tags and its body, byte for byte, and filters do what they say.
#[test]
fn a_dump_tells_every_entry() {
    let temp = tempfile::tempdir().unwrap();
    let dir = journal(temp.path());
    let (_, text, _) = run(&["dump", "--dir", dir.to_str().unwrap()]);
    let begins = format!(r#"{{"position":1,"lane":"{}","epoch":""#, APPS[0]);
    assert!(text.starts_with(&begins), "{text}");
    assert!(
        text.lines()
            .all(|line| line.find("\"body") > line.find("\"tags\""))
    );
    let all = dump(&dir, &[]);
    assert_eq!(all.len(), 6);
    for (index, entry) in all.iter().enumerate() {
        let count = index % 3 + 1;
        assert_eq!(entry["position"], index + 1);
        assert_eq!(entry["count"], count);
        assert_eq!(entry["lane"], APPS[index / 3]);
        assert_eq!(entry["tags"]["app_id"], APPS[index / 3]);
        assert_eq!(entry["epoch"].as_str().unwrap().len(), 16);
        let pending: &[&str] = if count == 1 {
            &["nats"]
        } else {
            &["kafka", "nats"]
        };
        assert_eq!(entry["pending"], Value::from(pending));
        match count {
            1 => assert_eq!(entry["body"], r#"{"events":[]}"#),
            2 => assert_eq!(entry["body"], "\u{1b}[2J \u{202e}"),
            _ => assert_eq!(entry["body_hex"], "ff00"),
        }
    }
    let positions = |more: &[&str]| -> Vec<u64> {
        let found = dump(&dir, more);
        found
            .iter()
            .map(|entry| entry["position"].as_u64().unwrap())
            .collect()
    };
    assert_eq!(positions(&["--app", APPS[1]]), [4, 5, 6]);
    assert_eq!(positions(&["--app", "main"]).len(), 6);
    assert_eq!(positions(&["--from", "2", "--to", "4"]), [2, 3, 4]);
    assert_eq!(positions(&["--from", "7"]), [0; 0]);
    let nothing = "nothing is stored in";
    for (from, is_told) in [("7", true), ("6", false)] {
        let (_, _, err) = run(&["dump", "--dir", dir.to_str().unwrap(), "--from", from]);
        assert_eq!(err.contains(nothing), is_told, "{from}: {err}");
    }
    // As with `replay`, times are of the fetch.
    let fetched = "1970-01-01T00:00:00.007Z";
    assert_eq!(positions(&["--since", fetched]).len(), 6);
    assert_eq!(positions(&["--until", fetched]), [0; 0]);
    assert_eq!(positions(&["--since", "2999-01-01T00:00:00Z"]), [0; 0]);
    assert_eq!(
        positions(&["--region", "eu-west-1", "--stream", "user"]).len(),
        6
    );
    assert_eq!(positions(&["--stream", "channel"]), [0; 0]);
    let dir = dir.to_str().unwrap();
    for (wrong, says) in [
        (&["--since", "yesterday"][..], "yesterday"),
        (
            &["--app", "mian"],
            "no app mian; --app takes an App ID or one of: main",
        ),
        // Of the range that is asked for nothing is looked at, and the app is known all the same.
        (
            &["--from", "7", "--region", "us"],
            "--region takes one of: eu-west-1",
        ),
        (&["--from", "3", "--to", "2"], "--from 3 is behind --to 2"),
    ] {
        let (code, out, err) = run(&[&["dump", "--dir", dir], wrong].concat());
        assert_eq!((code, &*out), (Some(2), ""), "{wrong:?}: {err}");
        assert!(err.contains(says), "{wrong:?}: {err}");
    }
}

/// Holds: a sound journal and a torn end are no damage and exit 0; a flipped bit is found where it is and exits 1, and
/// costs its entry only.
#[test]
fn verify_tells_damage_from_a_torn_end() {
    let temp = tempfile::tempdir().unwrap();
    let dir = journal(temp.path());
    let path = dir.to_str().unwrap().to_owned();
    let segment = segment(&dir);
    let sound = fs::read(&segment).unwrap();
    let verify = || run(&["verify", "--dir", &path]);
    let (code, out, err) = verify();
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(
        out.contains("6 of them entries") && out.contains("no damage"),
        "{out}"
    );

    fs::write(&segment, &sound[..sound.len() - 3]).unwrap();
    let (code, out, _) = verify();
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("torn") && out.contains("no damage"), "{out}");

    let mut damaged = sound.clone();
    // Of the frame with position 5, a byte behind its header.
    let header = [&[0xa7, 0x4a, 0xf5, 0xc1][..], &5u64.to_le_bytes()];
    let found = sound
        .windows(40)
        .position(|frame| frame.starts_with(header[0]) && frame.ends_with(header[1]));
    let at = found.unwrap() + 70;
    damaged[at] ^= 1;
    fs::write(&segment, &damaged).unwrap();
    let (code, out, _) = verify();
    assert_eq!(code, Some(1), "{out}");
    let says = format!(
        "the entry of lane {} at position 5, count 2: its bytes",
        APPS[1]
    );
    assert!(out.contains("DAMAGED") && out.contains(&says), "{out}");
    let (code, out, _) = run(&["verify", "--json", "--dir", &path]);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &json["entries"]), (Some(1), &Value::from(5)));
    let damage = &json["damage"][0];
    let (from, bytes) = (
        damage["offset"].as_u64().unwrap(),
        damage["bytes"].as_u64().unwrap(),
    );
    assert!(
        (from..from + bytes).contains(&(at as u64)),
        "{damage} and {at}"
    );
    // What can be read is dumped, and the rest told, whatever it may have been of.
    for (asked, lines) in [(&[][..], 6), (&["--app", APPS[0]], 4), (&["--to", "4"], 4)] {
        let (code, out, _) = run(&[&["dump", "--dir", &path], asked].concat());
        let errors = out
            .lines()
            .filter(|line| line.contains("\"error\""))
            .count();
        let damaged = usize::from(asked != ["--to", "4"]);
        assert_eq!(
            (code, out.lines().count(), errors),
            (Some(damaged as i32), lines, damaged)
        );
    }
}

/// Holds: of a journal whose process died while it polled, what that may have cost at the source is told, since nobody
/// counts it where no bridge starts on it again; of one that is in use or was closed, nothing is.
#[test]
fn what_a_death_may_have_cost_is_told() {
    let temp = tempfile::tempdir().unwrap();
    let dir = journal(temp.path());
    let path = dir.to_str().unwrap().to_owned();
    let mark = |polling: bool| {
        let mark = format!(
            r#"{{"polling":{polling},"rings":[{{"r":"eu-west-1","s":"user","l":[0,7,0,0],"p":2}}]}}"#
        );
        let journal = open(&dir);
        let lane = lane(&journal, APPS[0]);
        futures::executor::block_on(lane.set_mark(Some(mark.into()))).unwrap();
        journal
    };
    let told = |command: &str| {
        let (_, out, _) = run(&[command, "--dir", &path]);
        let (_, json, _) = run(&[command, "--json", "--dir", &path]);
        let json: Value = serde_json::from_str(&json).unwrap();
        let events = json["uncounted_events"].as_u64().unwrap();
        assert_eq!(
            out.contains("up to 2000 events may have been lost"),
            events > 0,
            "{out}"
        );
        (events, json["clean"] == true)
    };
    let held = mark(true);
    assert_eq!(told("stat"), (0, false));
    drop(held);
    assert_eq!([told("stat"), told("verify")], [(2000, false); 2]);
    let closed = mark(false);
    futures::executor::block_on(closed.close()).unwrap();
    assert_eq!([told("stat"), told("verify")], [(0, true); 2]);
}

/// Holds: a journal that is in use is not touched, and the message says what to do; a copy of it can be looked at.
#[test]
fn a_journal_in_use_is_left_alone() {
    let temp = tempfile::tempdir().unwrap();
    let dir = journal(temp.path());
    let held = open(&dir);
    let path = dir.to_str().unwrap();
    for tool in [
        &["verify"][..],
        &["dump"],
        &["forget", "--sink", "nats", "--yes"],
    ] {
        let (code, out, err) = run(&[tool, &["--dir", path]].concat());
        assert_eq!(code, Some(1), "{tool:?}: {out}{err}");
        assert!(err.contains("in use by process"), "{tool:?}: {err}");
    }
    assert_eq!(held.stats().lanes[0].readers.len(), 2);
    let copy = temp.path().join("copy");
    fs::create_dir(&copy).unwrap();
    for file in fs::read_dir(&dir).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copy.join(file.file_name())).unwrap();
    }
    assert_eq!(dump(&copy, &[]).len(), 6);
    assert_eq!(run(&["verify", "--dir", copy.to_str().unwrap()]).0, Some(0));
}

/// Holds: forgetting needs a yes, names what it costs, takes the sink from the App ID it is told, and from all without;
/// other sinks keep their place, and a crash before it is still seen after it.
#[test]
fn forgetting_a_sink_lets_go_of_what_it_held() {
    let temp = tempfile::tempdir().unwrap();
    let dir = journal(temp.path());
    let path = dir.to_str().unwrap().to_owned();
    let forget = |more: &[&str]| run(&[&["forget", "--dir", &path], more].concat());
    let readers = |lane: usize| -> Vec<String> {
        let found = Journal::inspect(&dir).unwrap();
        let lane = found.lanes.iter().find(|found| found.name == APPS[lane]);
        let readers = &lane.unwrap().readers;
        readers.iter().map(|reader| reader.name.clone()).collect()
    };
    let (code, _, err) = forget(&["--sink", "nats"]);
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("--yes"), "{err}");
    let (code, _, err) = forget(&["--sink", "nobody", "--yes"]);
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("knows no sink nobody"), "{err}");
    let (code, _, err) = forget(&["--sink", "nats", "--app", "mian", "--yes"]);
    assert_eq!(code, Some(2), "{err}");
    assert!(
        err.contains("no app mian; --app takes an App ID or one of: main"),
        "{err}"
    );
    let (code, out, err) = forget(&["--sink", "nats", "--app", APPS[1], "--yes"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("6 events not confirmed"), "{out}");
    assert_eq!(
        (readers(0).len(), readers(1)),
        (2, vec!["kafka".to_owned()])
    );
    assert!(Journal::inspect(&dir).unwrap().clean);
    // A process that dies.
    drop(open(&dir));
    assert_eq!(forget(&["--sink", "nats", "--yes"]).0, Some(0));
    assert_eq!(readers(0), ["kafka"]);
    let journal = open(&dir);
    assert!(journal.unclean());
    let kafka = lane(&journal, APPS[0]).reader(&"kafka".parse().unwrap());
    assert_eq!(kafka.unwrap().committed(), Position(1));
}

/// Holds: a cursor that the next start would make again is not forgotten; that of an App ID which the sink takes no more is.
#[test]
fn what_is_configured_is_not_forgotten() {
    let temp = tempfile::tempdir().unwrap();
    let dir = journal(temp.path());
    let app = |name: &str, app_id: &str| {
        format!(
            "[[apps]]\nname = \"{name}\"\napp_id = \"{app_id}\"\nregions = [\"eu-west-1\"]\n\
             auth = {{ basic = {{ key = \"k\", secret = \"s\" }} }}\n"
        )
    };
    let config = format!(
        "[journal]\ndir = \"{}\"\nmin_free_bytes = 0\n{}{}[sinks.kafka]\ntype = \"stdout\"\napps = [\"a\"]\n",
        dir.display(),
        app("a", APPS[0]),
        app("b", APPS[1])
    );
    let file = temp.path().join("rtm-bridge.toml");
    fs::write(&file, config).unwrap();
    let forget = |more: &[&str]| {
        let file = file.to_str().unwrap();
        let always = ["forget", "--config", file, "--sink", "kafka", "--yes"];
        run(&[&always, more].concat())
    };
    for more in [&[][..], &["--app", APPS[0]], &["--app", "a"]] {
        let (code, _, err) = forget(more);
        assert_eq!(code, Some(2), "{more:?}: {err}");
        assert!(err.contains("is in the configuration"), "{more:?}: {err}");
    }
    let (code, out, err) = forget(&["--app", "b"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("5 events not confirmed"), "{out}");
}

/// Holds: a yes that comes through a pipe is a yes, and any other answer is none.
#[test]
fn a_question_is_answered_through_a_pipe() {
    let temp = tempfile::tempdir().unwrap();
    let dir = journal(temp.path());
    let forget = |answer: &str| {
        let mut command = Command::cargo_bin("rtm-bridge").unwrap();
        let command = command
            .args(["journal", "forget", "--sink", "nats", "--dir"])
            .arg(&dir);
        command.write_stdin(answer).output().unwrap().status.code()
    };
    for answer in ["", "no\n", "yess\n"] {
        assert_eq!(forget(answer), Some(2), "{answer:?}");
    }
    assert_eq!(forget("yes\n"), Some(0));
}

/// Holds: lanes have their apps' names, those of the configuration first; a sink that the configuration does not have is
/// marked; without a configuration nothing is.
#[test]
fn a_stat_names_apps_and_marks_sinks() {
    let temp = tempfile::tempdir().unwrap();
    let dir = journal(temp.path());
    let config = format!(
        "[journal]\ndir = \"{}\"\n[[apps]]\nname = \"a\"\napp_id = \"{}\"\nregions = [\"eu-west-1\"]\n\
         auth = {{ basic = {{ key = \"k\", secret = \"s\" }} }}\n[sinks.kafka]\ntype = \"stdout\"\n",
        dir.display(),
        APPS[0]
    );
    let file = temp.path().join("rtm-bridge.toml");
    fs::write(&file, config).unwrap();
    let (file, dir) = (file.to_str().unwrap(), dir.to_str().unwrap());
    let (code, out, err) = run(&["stat", "--config", file]);
    assert_eq!(code, Some(0), "{err}");
    for says in [
        format!("lane {} (a): ", APPS[0]),
        format!("lane {} (main): ", APPS[1]),
    ] {
        assert!(out.contains(&says), "expected {says:?} in {out}");
    }
    let marked = |out: &str| -> Vec<bool> {
        let readers = out
            .lines()
            .filter(|line| line.contains("committed through"));
        readers
            .map(|line| line.contains("NO SINK OF THE CONFIGURATION"))
            .collect()
    };
    assert_eq!(marked(&out), [false, true, false, true], "{out}");
    let json = run(&["stat", "--json", "--config", file]).1;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["lanes"][1]["app"], "a");
    assert_eq!(json["lanes"][1]["readers"][1]["configured"], false);
    let none = temp.path().join("none.toml");
    let (code, out, err) = run(&["stat", "--dir", dir, "--config", none.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(marked(&out), [false; 4], "{out}");
    assert!(out.contains(&format!("lane {} (main): ", APPS[0])), "{out}");
}

/// Holds: no command takes a directory that is not there, or that holds no journal: wrong usage, and nothing is made.
#[test]
fn a_directory_without_a_journal_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let missing = temp.path().join("missing");
    for command in [
        &["stat"][..],
        &["verify"],
        &["dump"],
        &["forget", "--sink", "kafka", "--yes"],
    ] {
        for (dir, says) in [(&*missing, "no directory"), (temp.path(), "no journal in")] {
            let dir = dir.to_str().unwrap();
            let (code, _, err) = run(&[command, &["--dir", dir]].concat());
            assert_eq!(code, Some(2), "{command:?} {dir}: {err}");
            assert!(err.contains(says), "{command:?} {dir}: {err}");
        }
    }
    assert!(!missing.exists());
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
}

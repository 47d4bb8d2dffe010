//! `replay`, into a file: what it takes, what it leaves, what it says. Real brokers are in `tests/`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use assert_cmd::Command;
use rtm_journal::{Journal, Options};
use serde_json::Value;

pub(super) const APPS: [&str; 2] = [
    "876922cbca0098dff4323566daa89675",
    "0123456789abcdef0123456789abcdef",
];

/// Entries in each App ID's lane; the sink `out` has confirmed all but the last, and `late` nothing.
const ENTRIES: u64 = 6;

/// A journal, a configuration with the file sinks `out` and `late`, and the file of `out`.
pub(super) struct Place {
    temp: tempfile::TempDir,
}

impl Place {
    /// Entry n of an App ID is fetched n seconds after the epoch, has n events and one that is none, and is of the stream
    /// `user` where n is even.
    pub(super) fn new() -> Place {
        let temp = tempfile::tempdir().unwrap();
        let place = Place { temp };
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let journal = place.open(place.journal());
            for app in APPS {
                let lane = journal.lane(&app.parse().unwrap()).unwrap();
                let mut out = lane.reader(&"out".parse().unwrap()).unwrap();
                let _late = lane.reader(&"late".parse().unwrap()).unwrap();
                for number in 1..=ENTRIES {
                    let entry = entry(app, number);
                    let room = lane.reserve(entry.len()).await;
                    room.append(entry, u32::try_from(number).unwrap())
                        .await
                        .unwrap();
                    let read = out.next().await.unwrap();
                    if number < ENTRIES {
                        out.commit(read.position);
                    }
                }
            }
            journal.close().await.unwrap();
        });
        let dir = place.temp.path().display();
        let config = format!(
            "[journal]\ndir = \"{dir}/journal\"\n[[apps]]\nname = \"now\"\napp_id = \"{}\"\n\
             auth = {{ basic = {{ key = \"k\", secret = \"s\" }} }}\nregions = [\"eu-west-1\"]\n\
             [sinks.out]\ntype = \"file\"\npath = \"{dir}/out\"\n[sinks.late]\ntype = \"file\"\npath = \"{dir}/late\"\n",
            APPS[0]
        );
        fs::write(place.temp.path().join("rtm-bridge.toml"), config).unwrap();
        place
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    pub(super) fn journal(&self) -> PathBuf {
        self.path("journal")
    }

    /// The journal, where no configuration says that it is.
    pub(super) fn set_aside(&self) -> PathBuf {
        let old = self.path("old");
        fs::rename(self.journal(), &old).unwrap();
        old
    }

    pub(super) fn open(&self, dir: impl AsRef<Path>) -> Journal {
        let options = Options {
            min_free_bytes: 0,
            ..Options::default()
        };
        Journal::open(dir.as_ref(), options).unwrap()
    }

    /// Has a sink confirm everything.
    pub(super) fn confirm_all(&self, sink: &str) {
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let journal = self.open(self.journal());
            for app in APPS {
                let lane = journal.lane(&app.parse().unwrap()).unwrap();
                let mut reader = lane.reader(&sink.parse().unwrap()).unwrap();
                while let Some(read) = reader.try_next().unwrap() {
                    reader.commit(read.position);
                }
            }
            journal.close().await.unwrap();
        });
    }

    /// Every file of the journal, with its bytes.
    pub(super) fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let files = fs::read_dir(self.journal()).unwrap();
        let paths = files.map(|file| file.unwrap().path());
        paths
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect()
    }

    pub(super) fn replay(&self, args: &[&str]) -> (Option<i32>, String) {
        let config = self.temp.path().join("rtm-bridge.toml");
        let mut command = Command::cargo_bin("rtm-bridge").unwrap();
        let output = command
            .args(["replay", "--config", config.to_str().unwrap()])
            .args(args)
            .output()
            .unwrap();
        // The answer of a dry run is on standard output, which else belongs to the sink of that name.
        let (answer, silent) = match args.contains(&"--dry-run") && output.status.code() != Some(2)
        {
            true => (output.stdout, output.stderr),
            false => (output.stderr, output.stdout),
        };
        assert_eq!(String::from_utf8_lossy(&silent), "");
        (output.status.code(), String::from_utf8(answer).unwrap())
    }

    /// The lines of a sink's file.
    pub(super) fn lines(&self, sink: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.temp.path().join(sink)).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Positions in a sink's file, each once, and how many lines.
    pub(super) fn positions(&self, sink: &str) -> (Vec<u64>, usize) {
        let lines = self.lines(sink);
        let positions = lines.iter().map(|line| line["position"].as_u64().unwrap());
        let mut positions: Vec<u64> = positions.collect();
        positions.dedup();
        (positions, lines.len())
    }
}

fn entry(app: &str, number: u64) -> Vec<u8> {
    let stream = if number.is_multiple_of(2) {
        "user"
    } else {
        "channel"
    };
    let name = if app == APPS[0] { "one" } else { "two" };
    let tags = format!(
        r#"{{"app":"{name}","app_id":"{app}","region":"r{}","stream":"{stream}","fetched_at":{},"status":200,"complete":true}}"#,
        number % 3,
        number * 1000
    );
    let events = (0..number)
        .map(|event| format!(r#"{{"user_id":"u{event}","type":"Login","ms":{number}}}"#));
    let events: Vec<String> = events.chain(["7".to_owned()]).collect();
    let body = format!(r#"{{"result":"success","events":[{}]}}"#, events.join(","));
    let length = u32::try_from(tags.len()).unwrap().to_le_bytes();
    [&[1], &length[..], tags.as_bytes(), body.as_bytes()].concat()
}

/// Holds: a range is published whole, its dead letters with it, every record marked, under the ids of the first time; the
/// journal is as before to the byte; and again it is the same.
#[test]
fn a_range_is_published_again_and_marked() {
    let place = Place::new();
    let before = place.files();
    let epoch = Journal::inspect(&place.journal()).unwrap().epochs[0];
    let range = ["--sink", "out", "--from", "2", "--to", "4", "--yes"];
    let (code, text) = place.replay(&range);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("9 events and 3 dead letters were published to out again, of 3 entries"),
        "{text}"
    );
    let lines = place.lines("out");
    assert_eq!(place.positions("out"), (vec![2, 3, 4], 12));
    for line in &lines {
        assert_eq!(line["replayed"], true, "{line}");
        let id = line["id"].as_str().unwrap();
        assert!(
            id.starts_with(&format!("{epoch}.{}.", line["position"])),
            "{line}"
        );
        assert_eq!(line["app"], "one", "the tags are those of then: {line}");
    }
    let letters = lines
        .iter()
        .filter(|line| line["reason"] == "not_an_object");
    assert_eq!(letters.count(), 3);
    assert!(place.files() == before, "the journal was touched");
    assert_eq!(place.replay(&range).0, Some(0));
    let twice = place.lines("out");
    assert_eq!(twice[..12], lines[..]);
    assert_eq!(twice[12..], lines[..]);
}

/// Holds: what the sink has not confirmed is left out, and said: it is about to come, and a replay must not come first.
#[test]
fn what_waits_is_not_replayed() {
    let place = Place::new();
    let (code, text) = place.replay(&["--sink", "out", "--yes"]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(place.positions("out").0, [1, 2, 3, 4, 5, 7, 8, 9, 10, 11]);
    assert!(
        text.contains("left out: 12 events that out has not confirmed"),
        "{text}"
    );
    let (code, text) = place.replay(&["--sink", "late", "--yes"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("nothing to publish") && text.contains("left out: 42 events"),
        "{text}"
    );
}

/// Holds: each filter takes what it says, alone and with others; times are of the fetch, the second one exclusive.
#[test]
fn filters_take_what_they_say() {
    for (filter, positions) in [
        (&["--app", "two"][..], &[7, 8, 9, 10, 11][..]),
        (&["--app", APPS[0]], &[1, 2, 3, 4, 5]),
        // By the name that it has now, and by that of then.
        (&["--app", "now"], &[1, 2, 3, 4, 5]),
        (&["--app", "one"], &[1, 2, 3, 4, 5]),
        (&["--region", "r1"], &[1, 4, 7, 10]),
        (&["--stream", "user"], &[2, 4, 8, 10]),
        (&["--since", "1970-01-01T00:00:04Z"], &[4, 5, 10, 11]),
        (&["--until", "1970-01-01T00:00:02Z"], &[1, 7]),
        (
            &[
                "--since",
                "1970-01-01T00:00:02Z",
                "--until",
                "1970-01-01T00:00:04Z",
                "--app",
                "one",
            ],
            &[2, 3],
        ),
        (&["--from", "10"], &[10, 11]),
        (&["--to", "1"], &[1]),
        (&["--until", "10m"], &[1, 2, 3, 4, 5, 7, 8, 9, 10, 11]),
    ] {
        let place = Place::new();
        let (code, text) = place.replay(&[&["--sink", "out", "--yes"], filter].concat());
        assert_eq!(code, Some(0), "{filter:?}: {text}");
        assert_eq!(place.positions("out").0, positions, "{filter:?}: {text}");
    }
}

/// Holds: a sink gets what it takes and nothing else, of an App ID that has another name by now too.
#[test]
fn a_sink_gets_what_it_takes() {
    let place = Place::new();
    let path = place.path("rtm-bridge.toml");
    let config = fs::read_to_string(&path).unwrap();
    let narrow = "[sinks.out]\napps = [\"now\"]\nstreams = [\"user\"]\n";
    fs::write(path, config.replace("[sinks.out]\n", narrow)).unwrap();
    let (code, text) = place.replay(&["--sink", "out", "--yes"]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(place.positions("out").0, [2, 4], "{text}");
    assert!(!text.contains("two, "), "{text}");
}

/// Holds: without a yes nothing is published, nor with --dry-run, which says how much it would be; a wrong sink is told
/// which there are.
#[test]
fn nothing_is_published_unasked() {
    let place = Place::new();
    let (code, text) = place.replay(&["--sink", "out"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("--yes"), "{text}");
    let (code, text) = place.replay(&["--sink", "out", "--dry-run", "--from", "2", "--to", "3"]);
    assert_eq!(code, Some(0), "{text}");
    for says in [
        "every entry is kept, the first fetched 1970-01-01T00:00:01.000Z",
        "to out: 2 entries from position 2 to 3, fetched 1970-01-01T00:00:02.000Z to 1970-01-01T00:00:03.000Z, about 5 events",
        "one, r2, user: 2 events in 1 entry, position 2 to 2",
        "one, r0, channel: 3 events in 1 entry, position 3 to 3",
    ] {
        assert!(text.contains(says), "expected {says:?} in {text}");
    }
    for wrong in [&["--yes"][..], &["--sink", "kafka", "--yes"]] {
        let (code, text) = place.replay(wrong);
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains("late, out"), "{text}");
    }
    for wrong in [
        &["--rate", "0"][..],
        &["--since", "noon"],
        &["--since", "10"],
        &["--stream", "both"],
    ] {
        assert_eq!(place.replay(wrong).0, Some(2), "{wrong:?}");
    }
    assert!(!place.temp.path().join("out").exists());
}

/// Holds: what was never there is wrong usage, and told with what there is; what is there and has no events is not.
#[test]
fn a_slip_is_told() {
    let place = Place::new();
    for (wrong, says) in [
        (
            &["--app", "tow"][..],
            "no app tow; --app takes an App ID or one of: now, one, two",
        ),
        (
            &["--region", "r7"],
            "no region r7; --region takes one of: eu-west-1, r0, r1, r2",
        ),
        (&["--from", "10", "--to", "5"], "--from 10 is behind --to 5"),
        (
            &[
                "--since",
                "1970-01-01T00:00:04Z",
                "--until",
                "1970-01-01T00:00:04Z",
            ],
            "is not before --until",
        ),
    ] {
        let (code, text) = place.replay(&[&["--sink", "out", "--yes"], wrong].concat());
        assert_eq!(code, Some(2), "{wrong:?}: {text}");
        assert!(text.contains(says), "{wrong:?}: {text}");
    }
    for empty in [
        ["--since", "10m"],
        ["--region", "eu-west-1"],
        ["--from", "99"],
    ] {
        let (code, text) = place.replay(&[&["--sink", "out", "--yes"], &empty[..]].concat());
        assert_eq!(code, Some(1), "{empty:?}: {text}");
        assert!(text.contains("nothing to publish"), "{empty:?}: {text}");
    }
    assert!(!place.path("out").exists());
}

/// Holds: what is asked for and is not kept any more is told, the rest is published, and the exit code says that it is not
/// all; also where an entry cannot be read.
#[test]
fn what_is_gone_is_told() {
    let place = Place::new();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        // All is confirmed: the next process begins a segment, and the old one goes.
        let journal = place.open(place.journal());
        for app in APPS {
            let lane = journal.lane(&app.parse().unwrap()).unwrap();
            for (sink, waiting) in [("out", 1), ("late", ENTRIES)] {
                let mut reader = lane.reader(&sink.parse().unwrap()).unwrap();
                for _ in 0..waiting {
                    let read = reader.next().await.unwrap();
                    reader.commit(read.position);
                }
            }
        }
        journal.close().await.unwrap();
        let journal = place.open(place.journal());
        let lane = journal.lane(&APPS[0].parse().unwrap()).unwrap();
        let mut out = lane.reader(&"out".parse().unwrap()).unwrap();
        let entry = entry(APPS[0], 9);
        lane.reserve(entry.len())
            .await
            .append(entry, 9)
            .await
            .unwrap();
        let read = out.next().await.unwrap();
        out.commit(read.position);
        journal.close().await.unwrap();
    });
    let (code, text) = place.replay(&["--sink", "out", "--from", "4", "--to", "20", "--yes"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("GONE: 9 of the entries that are asked for"),
        "{text}"
    );
    assert!(
        text.contains("the oldest entry that is kept is at position 13"),
        "{text}"
    );
    assert_eq!(place.positions("out"), (vec![13], 10));
    let (code, text) = place.replay(&["--sink", "out", "--since", "1970-01-01T00:00:01Z", "--yes"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("GONE: what was fetched before"), "{text}");
    assert_eq!(
        place.replay(&["--sink", "out", "--from", "13", "--yes"]).0,
        Some(0)
    );
}

/// Holds: beside a running bridge nothing is replayed into a file that is the bridge's; elsewhere it is, and from a copy.
#[test]
fn a_running_bridge_keeps_its_file() {
    let place = Place::new();
    let held = place.open(place.journal());
    let (code, text) = place.replay(&["--sink", "out", "--yes"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("a bridge is running"), "{text}");
    assert!(!place.temp.path().join("out").exists());
    let copy = place.temp.path().join("copy");
    copy_dir(&place.journal(), &copy);
    let copy = copy.to_str().unwrap();
    let (code, text) = place.replay(&["--sink", "out", "--to", "1", "--yes", "--dir", copy]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(place.positions("out").0, [1]);
    drop(held);
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

/// Holds: a rate is kept. 40 records at 20 a second take two seconds, less one batch.
#[test]
fn a_rate_is_kept() {
    let place = Place::new();
    let began = Instant::now();
    let (code, text) = place.replay(&["--sink", "out", "--yes", "--rate", "20"]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(place.positions("out").1, 40);
    assert!(
        began.elapsed().as_secs_f64() >= 35.0 / 20.0,
        "{:?}",
        began.elapsed()
    );
}

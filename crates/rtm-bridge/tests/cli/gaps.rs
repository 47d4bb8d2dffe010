//! What `check` refuses, so that `run` does not have to, and what it warns of.

use rtm_sim::{SimApp, SimAuth, SimConfig, Simulator};

use super::{SOUND, check};

const NATS: &str = "[sinks.nats]\nservers = [\"nats://127.0.0.1:4222\"]\nstream = \"RTM\"\n";

/// Each case: what to replace in the sound configuration, by what, the key that must be named and what must be said.
/// `DIR` is a directory with a file `secret`, and `RTM_NATS` stands for a sound NATS sink.
type Case = (&'static str, &'static str, &'static str, &'static str);

/// Of the journal, of deadlines and of App IDs.
const OF_APPS: &[Case] = &[
    (
        "DIR/journal",
        "DIR/secret",
        "journal.dir",
        "is not a directory; expected a directory",
    ),
    (
        "DIR/journal",
        "DIR/secret/journal",
        "journal.dir",
        "secret is not a directory",
    ),
    ("DIR/journal", "", "journal.dir", "expected a directory"),
    (
        "DIR/journal",
        "/proc/x",
        "journal.dir",
        "cannot be made: the file system of /proc stores no files",
    ),
    (
        "[journal]",
        "[journal]\nmax_bytes = \"23MiB\"",
        "journal.max_bytes",
        "too small for the requests that may be in flight on 2 rings: at least 24 MiB",
    ),
    (
        "[journal]",
        "[journal]\nmax_bytes = 0",
        "journal.max_bytes",
        "at least 24 MiB",
    ),
    (
        "[journal]",
        "[journal]\nmax_entries = 9999",
        "journal.max_entries",
        "9999 cannot be; expected 10000 to 1000000000, each with 40 bytes of memory",
    ),
    (
        "[journal]",
        "[journal]\nmax_entries = 1000000001",
        "journal.max_entries",
        "expected 10000 to 1000000000",
    ),
    (
        "[journal]",
        "shutdown_deadline = \"25h\"\n[journal]",
        "shutdown_deadline",
        "at most 24h",
    ),
    (
        "regions =",
        "request_deadline = \"0s\"\nregions =",
        "apps.0.request_deadline",
        "such as \"10s\"",
    ),
    (
        "regions =",
        "request_deadline = \"25h\"\nregions =",
        "apps.0.request_deadline",
        "at most 24h",
    ),
    (
        "regions =",
        "connect_timeout = \"0s\"\nregions =",
        "apps.0.connect_timeout",
        "such as \"10s\"",
    ),
    (
        "regions =",
        "copies_window = \"0s\"\nregions =",
        "apps.0.copies_window",
        "such as \"10s\"",
    ),
    (
        "regions =",
        "copies_window = \"25h\"\nregions =",
        "apps.0.copies_window",
        "at most 24h",
    ),
    (
        "regions =",
        "user_events_path = \"/rtm/vendor/channel_events\"\nregions =",
        "apps.0.channel_events_path",
        "is the path of the user events too",
    ),
    (
        "[\"eu-west-1\"]",
        "[\"eu-west-1\", { name = \"other\", base_url = \"https://API-eu-west-1.agora.io:443/\" }]",
        "apps.0.regions.1",
        "`other` and `eu-west-1` have the same base URL",
    ),
    (
        "regions =",
        "requests_per_second = 0\nregions =",
        "apps.0.requests_per_second",
        "expected 1 to 1000",
    ),
    (
        "basic = {",
        "token = { uid = \"u\", token_file = \"DIR/secret\" }, basic = {",
        "apps.0.auth",
        "exactly one kind of credentials is expected, found `basic`, `token`",
    ),
    (
        "basic = {",
        "canary-secret = 1, basic = {",
        "apps.0.auth",
        "",
    ),
];

/// Of sinks.
const OF_SINKS: &[Case] = &[
    (
        "[sinks.kafka]",
        "[sinks.file]\npath = \"DIR\"\n[sinks.kafka]",
        "sinks.file.path",
        "is a directory; expected a file",
    ),
    (
        "[sinks.kafka]",
        "[sinks.file]\npath = \"DIR/nothing/out\"\n[sinks.kafka]",
        "sinks.file.path",
        "there is no directory",
    ),
    (
        "[sinks.kafka]",
        "[sinks.file]\npath = \"..\"\n[sinks.kafka]",
        "sinks.file.path",
        "expected a file",
    ),
    (
        "[sinks.kafka]",
        "[sinks.file]\npath = \"DIR/secret\"\n[sinks.two]\ntype = \"file\"\npath = \"DIR/./secret\"\n[sinks.kafka]",
        "sinks.two.path",
        "the sink `file` writes to this file too",
    ),
    (
        "nats://127",
        "http://127",
        "sinks.nats.servers.0",
        "is not a server URL such as nats://host:4222",
    ),
    (
        "nats://127",
        "ws://127",
        "sinks.nats.servers.0",
        "is not a server URL",
    ),
    (
        "nats://127",
        "nats://u:canary-secret@127",
        "sinks.nats.servers.0",
        "holds credentials",
    ),
    (
        "stream =",
        "auth = { nkey_file = \"DIR/secret\" }\nstream =",
        "sinks.nats.auth.nkey_file",
        "not an NKey seed",
    ),
    (
        "stream =",
        "auth = { credentials_file = \"DIR/secret\" }\nstream =",
        "sinks.nats.auth.credentials_file",
        "is not a credentials file: it has no USER JWT section",
    ),
    (
        "stream =",
        "auth = { jwt = { jwt_file = \"DIR/secret\", seed_file = \"DIR/secret\" } }\nstream =",
        "sinks.nats.auth.jwt.seed_file",
        "not an NKey seed",
    ),
    (
        "stream =",
        "auth = { token_file = \"DIR/secret\", password = { user = \"u\", password_file = \"DIR/secret\" } }\nstream =",
        "sinks.nats.auth",
        "found `password`, `token_file`",
    ),
    (
        "stream =",
        "ack_timeout = \"0s\"\nstream =",
        "sinks.nats.ack_timeout",
        "such as \"10s\"",
    ),
    (
        "stream =",
        "ack_timeout = \"25h\"\nstream =",
        "sinks.nats.ack_timeout",
        "at most 24h",
    ),
    (
        "stream =",
        "create = { subjects = [\"rtm.main.*.user_events\", \"rtm.*.dead_letters\"] }\nstream =",
        "sinks.nats.create.subjects",
        "would not store what is published to `rtm.main.eu-west-1.channel_events`",
    ),
    (
        "stream =",
        "create = { subjects = [\"rtm.>.x\"] }\nstream =",
        "sinks.nats.create.subjects.0",
        "is no subject filter",
    ),
    (
        "stream =",
        "create = { replicas = 6 }\nstream =",
        "sinks.nats.create.replicas",
        "expected 1 to 5",
    ),
    (
        "stream =",
        "create = { max_bytes = 0 }\nstream =",
        "sinks.nats.create.max_bytes",
        "leave it out",
    ),
    (
        "stream =",
        "create = { max_bytes = 300 }\nstream =",
        "sinks.nats.create.max_bytes",
        "expected 65536 bytes at least",
    ),
    (
        "stream =",
        "create = { max_age = \"0s\" }\nstream =",
        "sinks.nats.create.max_age",
        "leave it out",
    ),
    (
        "stream =",
        "create = { max_age = \"1m\" }\nstream =",
        "sinks.nats.create.max_age",
        "shorter than `duplicate_window`",
    ),
    (
        "stream =",
        "create = { duplicate_window = \"0s\" }\nstream =",
        "sinks.nats.create.duplicate_window",
        "such as \"2m\"",
    ),
];

/// Holds: each is refused with exit code 2, by its file and its key, with what was expected; without a secret, and
/// without touching the journal's place.
#[test]
fn check_refuses_what_run_would_refuse() {
    let sound = format!("{SOUND}\n{NATS}");
    let dir = tempfile::tempdir().unwrap();
    let (code, text) = check(dir.path(), &sound);
    assert_eq!(code, Some(0), "{text}");
    for (from, to, key, says) in OF_APPS.iter().chain(OF_SINKS) {
        let dir = tempfile::tempdir().unwrap();
        assert!(sound.contains(from), "{from}");
        let (code, text) = check(dir.path(), &sound.replacen(from, to, 1));
        assert_eq!(code, Some(2), "{to}: {text}");
        let place = format!("{}/rtm-bridge.toml: {key}", dir.path().display());
        assert!(text.contains(&place), "{to}: expected {place:?} in {text}");
        assert!(text.contains(says), "{to}: expected {says:?} in {text}");
        assert!(!text.contains("canary-secret"), "{to}: {text}");
        assert!(!dir.path().join("journal").exists(), "{to}");
    }
}

/// Holds: filters that cover the templates are accepted, whatever they look like.
#[test]
fn subjects_that_store_everything_are_accepted() {
    for subjects in [
        "\"rtm.>\"",
        "\">\"",
        "\"rtm.main.>\"",
        "\"rtm.*.*.*\", \"rtm.*.dead_letters\"",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let create = format!("create = {{ subjects = [{subjects}] }}\nstream =");
        let toml = format!("{SOUND}\n{NATS}").replace("stream =", &create);
        let (code, text) = check(dir.path(), &toml);
        assert_eq!(code, Some(0), "{subjects}: {text}");
    }
}

/// Holds: what may be a mistake is accepted, and said.
#[test]
fn check_warns_of_what_may_be_a_mistake() {
    for (from, to, says) in [
        (
            "regions =",
            "requests_per_second = 11\nregions =",
            "apps.0.requests_per_second: 11 is more than the 10 that Agora allows",
        ),
        (
            "[journal]",
            "[admin]\nlisten = \"0.0.0.0:9464\"\n[journal]",
            "admin.listen: is not loopback",
        ),
        (
            "[\"eu-west-1\"]",
            "[{ name = \"x\", base_url = \"http://example.com\", allow_insecure_http = true }]",
            "apps.0.regions.0: credentials and events cross the network in the clear",
        ),
        (
            "brokers =",
            "topic = \"rtm.{stream}\"\ndead_letter_topic = \"rtm.channel\"\nbrokers =",
            "sinks.kafka.dead_letter_topic: dead letters go to `rtm.channel`, which is among the places of events by `topic`",
        ),
        (
            "[sinks.kafka]",
            "[sinks.nats]\nservers = [\"nats://127.0.0.1:4222\"]\nstream = \"RTM\"\nsubject = \"rtm.{app}.of_{type}\"\n\
             dead_letter_subject = \"rtm.{app}.dead_letters\"\n[sinks.kafka]",
            "sinks.nats.dead_letter_subject: dead letters go to `rtm.main.dead_letters`",
        ),
        (
            "876922cbca0098dff4323566daa89675",
            "abc",
            "apps.0.app_id: `abc` is not 32 hexadecimal digits",
        ),
        (
            "876922cbca0098dff4323566daa89675",
            "876922cbca0098dff4323566daa8967z",
            "apps.0.app_id: `876922cbca0098dff4323566daa8967z` is not",
        ),
        (
            "[journal]",
            &format!("[journal]\nmax_bytes = {}", disk(&std::env::temp_dir())),
            "journal.max_bytes: ",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (code, text) = check(dir.path(), &SOUND.replacen(from, to, 1));
        assert_eq!(code, Some(0), "{to}: {text}");
        assert!(
            text.contains("warning: ") && text.contains(says),
            "{to}: {text}"
        );
        let (_, text) = check(dir.path(), &format!("{SOUND}\n{NATS}"));
        assert!(!text.contains("warning"), "{text}");
        assert!(
            text.lines()
                .last()
                .unwrap()
                .contains("rtm-bridge.toml: valid"),
            "{text}"
        );
    }
}

/// How large the disk is, which is more than can be free on it.
fn disk(dir: &std::path::Path) -> u64 {
    let found = rustix::fs::statvfs(dir).unwrap();
    found.f_blocks * found.f_frsize
}

/// Holds: a journal that may grow larger than its disk is warned of, and starts: the default is, on a small volume, and
/// polling stops before the disk is full.
#[test]
fn a_journal_larger_than_its_disk_is_warned_of() {
    let temp = tempfile::tempdir().unwrap();
    let max_bytes = format!("[journal]\nmax_bytes = {}", disk(temp.path()) + 1);
    let toml = SOUND.replace("[journal]", &max_bytes);
    let (found, text) = check(temp.path(), &toml);
    assert_eq!(found, Some(0), "{text}");
    let says = "polling would stop before max_bytes is reached";
    assert!(
        text.contains("journal.max_bytes") && text.contains(says),
        "{text}"
    );
}

/// A simulator that takes the key `k`, with this secret, for this App ID, and another key for an App ID of its own.
fn agora(runtime: &tokio::runtime::Runtime, app_id: &str, secret: &str) -> Simulator {
    let app = |app_id: &str, key: &str, secret: &str| SimApp {
        app_id: app_id.to_owned(),
        auth: SimAuth::Basic {
            key: key.to_owned(),
            secret: secret.to_owned(),
        },
    };
    let apps = vec![app(app_id, "k", secret), app("another-account", "k2", "s2")];
    let config = SimConfig {
        apps,
        ..SimConfig::default()
    };
    runtime.block_on(Simulator::start(config)).unwrap()
}

/// The sound configuration with a region at this URL, and without a broker.
fn at(base_url: &str) -> String {
    let region = format!("[{{ name = \"eu-west-1\", base_url = \"{base_url}\" }}]");
    let toml = SOUND.replace("[\"eu-west-1\"]", &region);
    toml.replace(
        "[sinks.kafka]\nbrokers = [\"127.0.0.1:9\"]",
        "[sinks.stdout]",
    )
}

/// Holds: `check --connect` tells a right key from a wrong one, and an App ID that is another account's; and it says where it
/// cannot know. The ledger says that nothing was read.
#[test]
fn check_tries_agora_s_key() {
    const APP_ID: &str = "876922cbca0098dff4323566daa89675";
    let temp = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let token = |toml: String| {
        toml.replace(
            "basic = { key = \"k\", secret_file",
            "agora_token = { token_file",
        )
    };
    for (app_id, secret, is_token, says, expected) in [
        (
            APP_ID,
            "s",
            false,
            "credentials: ok, the key is right, and the App ID is its account's",
            0,
        ),
        (
            APP_ID,
            "another",
            false,
            "credentials: FAILED, 127.0.0.1 refuses the key or its secret (status 401)",
            1,
        ),
        (
            "an-app-of-the-account",
            "s",
            false,
            "credentials: FAILED, the key is right, but the App ID 876922cbca0098dff4323566daa89675 is none of the 1 of its \
             account",
            1,
        ),
        (
            APP_ID,
            "s",
            true,
            "credentials not tried: a token cannot be tried",
            0,
        ),
    ] {
        let simulator = agora(&runtime, app_id, secret);
        let mut toml = at(&simulator.base_url("eu-west-1"));
        if is_token {
            toml = token(toml);
        }
        let (code, text) = outage(&toml, temp.path(), &["--connect"]);
        assert_eq!(code, Some(expected), "{text}");
        for says in [
            says,
            "its name resolves and a connection is opened; no event was read",
        ] {
            assert!(text.contains(says), "expected {says:?} in {text}");
        }
        assert!(simulator.ledger().pages.is_empty(), "an event was read");
        assert_eq!(
            simulator.stats().apps[0].requests,
            0,
            "the event API was asked"
        );
        let (code, text) = outage(&toml, temp.path(), &[]);
        assert_eq!(code, Some(0), "{text}");
        assert!(
            text.contains("can be read") && text.contains("Agora was not asked"),
            "{text}"
        );
    }
}

/// Holds: where nobody answers for the console, that is said, and is no failure by itself.
#[test]
fn a_host_without_a_console_is_no_failure() {
    let temp = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let simulator = agora(&runtime, "876922cbca0098dff4323566daa89675", "s");
    // Below no region's path, where the simulator knows nothing.
    let toml = at(&format!("{}/below/that", simulator.base_url("eu-west-1")));
    let (code, text) = outage(&toml, temp.path(), &["--connect"]);
    assert_eq!(code, Some(0), "{text}");
    let says = "credentials not tried: 127.0.0.1 does not say whether they are right (status 404); wrong ones show when";
    assert!(text.contains(says), "{text}");
}

/// Holds: each sink has a line, with and without a broker.
#[test]
fn every_sink_has_a_line() {
    let temp = tempfile::tempdir().unwrap();
    let toml = format!("{SOUND}\n{NATS}\n[sinks.stdout]\n[sinks.file]\npath = \"DIR/events\"\n");
    let (code, text) = check(temp.path(), &toml);
    assert_eq!(code, Some(0), "{text}");
    for sink in ["kafka", "nats", "stdout", "file"] {
        assert!(
            text.contains(&format!("sink {sink}: ok, ")),
            "{sink}: {text}"
        );
    }
}

fn outage(toml: &str, dir: &std::path::Path, args: &[&str]) -> (Option<i32>, String) {
    std::fs::write(dir.join("secret"), "s").unwrap();
    let file = dir.join("rtm-bridge.toml");
    std::fs::write(&file, toml.replace("DIR", dir.to_str().unwrap())).unwrap();
    let mut command = assert_cmd::Command::cargo_bin("rtm-bridge").unwrap();
    let output = command
        .args(["check", "--config", file.to_str().unwrap()])
        .args(args)
        .output()
        .unwrap();
    let (out, err) = (output.stdout, output.stderr);
    let text = [out, err].map(|text| String::from_utf8(text).unwrap());
    (output.status.code(), text.concat())
}

/// Holds: an outage that fits is told with its size, its assumption and how long the journal would last; one that does
/// not is a failure that says what would do, and with that it fits.
#[test]
fn an_outage_is_estimated() {
    let dir = tempfile::tempdir().unwrap();
    let six_hours = ["--outage", "6h", "--rate", "2000"];
    let (code, text) = outage(SOUND, dir.path(), &six_hours);
    assert_eq!(code, Some(0), "{text}");
    // 43.2 million events of 32 + 350 * 10 / 2000 bytes, and 7/8 of 4 GiB without two pages.
    for says in [
        "43200000 events and about 1.4 GiB",
        "assumed",
        "max_bytes = 4.0 GiB and max_entries = 1048576 hold 15.4 h",
    ] {
        assert!(text.contains(says), "expected {says:?} in {text}");
    }
    let small = SOUND.replace("[journal]", "[journal]\nmax_bytes = \"1GiB\"");
    let (code, text) = outage(&small, dir.path(), &six_hours);
    assert_eq!(code, Some(2), "{text}");
    assert!(
        text.contains("FAILED") && text.contains("hold only 3.8 h"),
        "{text}"
    );
    assert!(
        text.contains("stops; max_bytes = \"1.6GiB\" would do"),
        "{text}"
    );
    let enough = SOUND.replace("[journal]", "[journal]\nmax_bytes = \"1.6GiB\"");
    assert_eq!(outage(&enough, dir.path(), &six_hours).0, Some(0));
    // No disk has that much free.
    let kept = SOUND.replace("[journal]", "[journal]\nmin_free_bytes = \"1000PiB\"");
    let (code, text) = outage(&kept, dir.path(), &six_hours);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("but the disk of"), "{text}");
    // As it prints them: days, and weeks.
    for (length, said) in [
        ("10d", "10.0 days"),
        ("1w", "7.0 days"),
        ("1d 12h", "36.0 h"),
    ] {
        let (code, text) = outage(SOUND, dir.path(), &["--outage", length, "--rate", "0.5"]);
        assert_eq!(code, Some(0), "{length}: {text}");
        assert!(
            text.contains(&format!("{said} at 0.5 events")),
            "{length}: {text}"
        );
    }
    // Small responses are bounded by their number, with a journal of any size; what would do, does.
    for (journal, length, rate) in [
        ("", "2d", "10"),
        ("max_bytes = \"64MiB\"", "25h 20m", "10"),
        ("max_bytes = \"64MiB\"", "5d", "10"),
        ("max_entries = 10000", "1h", "10"),
        ("", "52w", "2000"),
    ] {
        let asked = ["--outage", length, "--rate", rate];
        let config = SOUND.replace("[journal]", &format!("[journal]\n{journal}"));
        let (code, text) = outage(&config, dir.path(), &asked);
        assert_eq!(code, Some(2), "{text}");
        let (_, enough) = text.split_once("then stops; ").unwrap();
        let (enough, _) = enough.split_once(" would do").unwrap();
        assert!(enough.contains("max_entries = "), "{text}");
        let settings = enough.split(" and ");
        let settings = settings.map(|one| one.split(" (").next().unwrap_or_default());
        let settings: Vec<&str> = std::iter::once("[journal]").chain(settings).collect();
        let mended = SOUND.replace("[journal]", &settings.join("\n"));
        let (_, text) = outage(&mended, dir.path(), &asked);
        // Not every disk has as much.
        assert!(!text.contains("would do"), "{text}");
    }
    let (_, text) = outage(SOUND, dir.path(), &["--outage", "2d", "--rate", "10"]);
    let says = "max_entries = 1048576 hold only 25.5 h";
    assert!(text.contains(says), "{text}");
    for wrong in [
        &["--outage", "6h"][..],
        &["--rate", "5"],
        &["--outage", "6", "--rate", "5"],
        &["--outage", "1 month", "--rate", "5"],
        &["--outage", "-6h", "--rate", "5"],
        &["--outage", "6h", "--rate", "0"],
    ] {
        assert_eq!(outage(SOUND, dir.path(), wrong).0, Some(2), "{wrong:?}");
    }
}

/// Holds: where the journal has enough events, they are the measure, as an outage would store them: what is read at once is
/// not compressed, and what waits is.
#[test]
fn an_outage_is_estimated_from_what_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let journal_dir = dir.path().join("journal");
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let options = rtm_journal::Options {
            min_free_bytes: 0,
            ..rtm_journal::Options::default()
        };
        let journal = rtm_journal::Journal::open(&journal_dir, options).unwrap();
        let lane = journal
            .lane(&"876922cbca0098dff4323566daa89675".parse().unwrap())
            .unwrap();
        let mut reader = lane.reader(&"kafka".parse().unwrap()).unwrap();
        // Half of the bytes no compression makes fewer, and of the other half it leaves next to nothing: 100 to an event.
        let mut state = 1u64;
        for _ in 0..20 {
            let mut entry = vec![0; 100_000];
            entry.extend((0..100_000).map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 56) as u8
            }));
            let room = lane.reserve(entry.len()).await;
            room.append(entry, 1000).await.unwrap();
            let read = reader.next().await.unwrap().position;
            reader.commit(read);
        }
        assert!(
            journal.stats().bytes > 20 * 200_000,
            "none of it is compressed"
        );
        journal.close().await.unwrap();
    });
    let (code, text) = outage(SOUND, dir.path(), &["--outage", "1h", "--rate", "1000"]);
    assert_eq!(code, Some(0), "{text}");
    let says = "100 bytes an event, as the 20000 events that are in the journal now would take if they waited)";
    assert!(text.contains(says), "{text}");
    // The sample is the same each time, or following the advice would not end it.
    let again = outage(SOUND, dir.path(), &["--outage", "1h", "--rate", "1000"]);
    assert_eq!(again.1, text);
}

//! `rtm-bridge bench`, as a user runs it, with real brokers.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rtm_tests::brokers::{self, Kafka, Nats};
use rtm_tests::wait_for;
use serde_json::Value;

async fn bench(arguments: &[&str]) -> Output {
    tokio::process::Command::new(rtm_tests::binary::rtm_bridge().unwrap())
        .arg("bench")
        .args(arguments)
        .output()
        .await
        .unwrap()
}

fn text(output: &Output) -> String {
    format!(
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn topics(kafka: &Kafka) -> Vec<String> {
    let consumer: BaseConsumer = kafka.client().create().unwrap();
    let metadata = consumer
        .fetch_metadata(None, Duration::from_secs(20))
        .unwrap();
    let names = metadata.topics().iter().map(|topic| topic.name());
    names
        .filter(|name| name.starts_with("rtm-bench-"))
        .map(str::to_owned)
        .collect()
}

async fn streams() -> Vec<String> {
    use futures::TryStreamExt;
    let context = brokers::nats().await.jetstream().await.unwrap();
    let names: Vec<String> = context.stream_names().try_collect().await.unwrap();
    names
        .into_iter()
        .filter(|name| name.starts_with("RTM_BENCH_"))
        .collect()
}

/// What a document of the bench's must say when all went well.
fn assert_clean(output: &Output, sinks: &[&str]) -> Value {
    assert!(output.status.success(), "{}", text(output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["clean"], true, "{report}");
    let events = report["events"].as_u64().unwrap();
    assert!(events > 500, "{report}");
    let names: Vec<&str> = report["sinks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|sink| sink["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, sinks);
    for sink in report["sinks"].as_array().unwrap() {
        assert_eq!(sink["found"], events, "{report}");
        let p50 = sink["age_ms"]["p50"].as_i64().unwrap();
        let p99 = sink["age_ms"]["p99"].as_i64().unwrap();
        assert!(
            p50 > 10 && p99 >= p50 && sink["age_ms"]["max"].as_i64().unwrap() >= p99,
            "{report}"
        );
    }
    // Too few events for the time of each to mean anything.
    assert!(report["cpu_seconds_per_million_events"].is_null());
    for positive in [
        "cpu_cores",
        "peak_memory_bytes",
        "written_bytes_per_event",
        "journal_bytes_per_event",
        "requests",
    ] {
        assert!(report[positive].as_f64().unwrap() > 0.0, "{report}");
    }
    let most = report["most_requests_of_an_app_in_a_second"].as_u64();
    assert!((1..=10).contains(&most.unwrap()), "{report}");
    report
}

/// Holds: with the brokers named on the command line, or in a configuration whose own topics and streams stay untouched,
/// what was handed out is all found, the figures are there, and nothing of the bench stays behind.
#[tokio::test(flavor = "multi_thread")]
async fn measures_and_leaves_nothing_behind() {
    let (kafka, nats) = brokers::both().await;
    let arguments = ["--rate", "400", "--for", "3s", "--json"];
    let named = [
        "--kafka",
        kafka.address(),
        "--nats",
        nats.url(),
        "--apps",
        "2",
    ];
    let output = bench(&[&named[..], &arguments].concat()).await;
    let report = assert_clean(&output, &["kafka", "nats"]);
    assert_eq!(report["apps"], 2);
    let progress = String::from_utf8_lossy(&output.stderr);
    assert!(progress.contains("events"), "plain lines of progress");

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rtm-bridge.toml");
    let topic = brokers::unique("untouched");
    let config = format!(
        "[[apps]]\nname = \"main\"\napp_id = \"0a1b\"\nregions = [\"eu-west-1\"]\n\
         auth = {{ basic = {{ key = \"k\", secret = \"s\" }} }}\n\
         [sinks.events]\ntype = \"kafka\"\nbrokers = [\"{}\"]\ntopic = \"{topic}\"\ncreate = true\n\
         dead_letter_topic = \"{topic}.dead\"\n[sinks.events.options]\n\"linger.ms\" = 1\n",
        kafka.address()
    );
    std::fs::write(&file, config).unwrap();
    let theirs = ["--config", file.to_str().unwrap()];
    let output = bench(&[&theirs[..], &arguments].concat()).await;
    assert_clean(&output, &["events"]);

    wait_for(
        "the topics to be gone",
        Duration::from_secs(20),
        async || topics(kafka).is_empty(),
    )
    .await
    .unwrap();
    assert_eq!(streams().await, Vec::<String>::new());
    let consumer: BaseConsumer = kafka.client().create().unwrap();
    let metadata = consumer
        .fetch_metadata(None, Duration::from_secs(20))
        .unwrap();
    let names = || metadata.topics().iter().map(|known| known.name());
    assert!(names().all(|name| !name.starts_with(&topic)), "untouched");
}

/// Holds: a broker that is away ends it with 1 and says which; what cannot be read as a configuration, or holds nothing
/// that can be measured, with 2.
#[tokio::test(flavor = "multi_thread")]
async fn says_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, sinks: &str| {
        let file = dir.path().join(name);
        let config = format!(
            "[[apps]]\nname = \"main\"\napp_id = \"0a1b\"\nregions = [\"eu-west-1\"]\n\
             auth = {{ basic = {{ key = \"k\", secret = \"s\" }} }}\n{sinks}"
        );
        std::fs::write(&file, config).unwrap();
        file.display().to_string()
    };
    let stdout = write("stdout.toml", "[sinks.stdout]\n");
    let misspelt = write("misspelt.toml", "[sinks.kafka]\nbroker = [\"k:1\"]\n");
    let missing = Path::new("/nowhere/rtm-bridge.toml").display().to_string();
    let cases: [(&[&str], i32, &str); 6] = [
        (
            &["--nats", "nats://127.0.0.1:9"],
            1,
            "cannot reach 127.0.0.1:9",
        ),
        (&["--kafka", "127.0.0.1:9"], 1, "127.0.0.1:9"),
        (&["--kafka", "nobroker"], 2, "expected host:port"),
        (&["--config", &stdout], 2, "cannot be read back"),
        (&["--config", &misspelt], 2, "broker"),
        (&["--config", &missing], 2, "/nowhere/rtm-bridge.toml"),
    ];
    let ran = cases.map(|(arguments, code, says)| async move {
        let output = bench(arguments).await;
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        assert!(text(&output).contains(says), "{}", text(&output));
        assert!(output.stdout.is_empty(), "{arguments:?}");
    });
    futures::future::join_all(ran).await;

    // The topic would be removed at the end.
    let theirs = write(
        "theirs.toml",
        "[sinks.kafka]\nbrokers = [\"127.0.0.1:9\"]\n",
    );
    let output = tokio::process::Command::new(rtm_tests::binary::rtm_bridge().unwrap())
        .args(["bench", "--config", &theirs])
        .env("RTM_BRIDGE__SINKS__KAFKA__TOPIC", "precious")
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("unset RTM_BRIDGE__SINKS__"));
}

/// Holds: a server without JetStream ends bench and demo at once, with what to do, and without a word of things that were
/// never made.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_jetstream_is_told_at_once() {
    let plain =
        "accounts { PLAIN { users: [ { user: plain, password: plain } ] } }\nno_auth_user: plain";
    let server = Nats::start_own_with(plain).await.unwrap();
    for command in ["bench", "demo"] {
        let began = Instant::now();
        let output = tokio::process::Command::new(rtm_tests::binary::rtm_bridge().unwrap())
            .args([command, "--for", "30s", "--nats", server.url()])
            .output()
            .await
            .unwrap();
        let told = text(&output);
        assert!(began.elapsed() < Duration::from_secs(20), "{command}");
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(
            told.contains("sink nats: JetStream is not enabled at 127.0.0.1:"),
            "{told}"
        );
        assert!(
            !told.contains("removed") && !told.contains("kept:"),
            "{told}"
        );
        // The demo's log is its user's too.
        let lines = if command == "bench" { 1 } else { 2 };
        assert!(told.trim().lines().count() <= lines, "{told}");
    }
}

/// Holds: what was lost at the ring, since the rate is beyond the API's, is announced, is the last word, and fails the
/// bench, whatever is found of the rest.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_lost_at_the_ring_fails_it() {
    let output = bench(&["--rate", "30000", "--for", "3s"]).await;
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        told.contains("warning: 30000 events a second for each App ID"),
        "{told}"
    );
    assert!(told.contains("--apps 3 would do"), "{told}");
    let report = String::from_utf8_lossy(&output.stdout);
    let last = report.trim_end().lines().last().unwrap();
    assert!(last.starts_with("LOST AT THE RING: "), "{report}");
}

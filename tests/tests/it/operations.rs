//! What whoever operates the bridge is told, and what a new configuration changes, where no broker matters: the real
//! binary and the simulator's ledger, mostly with a file for a sink.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use rtm_bridge::read_back::Reading;
use rtm_bridge::sinks;
use rtm_sim::{Load, SimApp, SimAuth, Simulator};
use rtm_tests::bridge::{Bridge, Metrics, http_client};
use rtm_tests::brokers::{Nats, unique};
use rtm_tests::wait_for;
use serde_json::Value;

use super::reload::{File, take, until};
use super::simulated::{self, load, simulator};

const SOON: Duration = Duration::from_secs(30);
const PENDING: &str = "rtm_bridge_journal_pending_events";
const FETCHED: &str = "rtm_bridge_events_fetched_total";

/// A configuration of the simulator's App ID and its two regions; `app` is what else is said of it.
fn text(simulator: &Simulator, dir: &Path, app: &str, sinks: &str) -> String {
    let region = |region: &str| {
        let url = simulator.base_url(region);
        format!("{{ name = \"{region}\", base_url = \"{url}\" }}")
    };
    format!(
        "[admin]\nlisten = \"127.0.0.1:0\"\n[journal]\ndir = \"{dir}/journal\"\n\
         [[apps]]\nname = \"main\"\napp_id = \"{app_id}\"\n\
         auth = {{ basic = {{ key = \"demo-key\", secret = \"demo-secret\" }} }}\n\
         regions = [{a}, {b}]\n{app}\n{sinks}",
        dir = dir.display(),
        app_id = SimApp::default().app_id,
        a = region("a"),
        b = region("b"),
    )
}

fn file_sink(dir: &Path) -> String {
    format!("[sinks.file]\npath = \"{}/events.jsonl\"\n", dir.display())
}

async fn get(bridge: &Bridge, path: &str) -> Value {
    let url = format!("{}{path}", bridge.admin);
    let answer = http_client().unwrap().get(url).send().await.unwrap();
    serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
}

fn sum(metrics: &Metrics, name: &str) -> f64 {
    metrics.sum(name, &[]).unwrap()
}

/// Waits until all that was handed out is stored and published.
async fn quiet(bridge: &Bridge, simulator: &Simulator) {
    let quiet = async || {
        let Ok(metrics) = bridge.metrics().await else {
            return false;
        };
        let rings = simulator.stats().rings;
        let waiting: u64 = rings.iter().map(|ring| ring.waiting).sum();
        waiting == 0 && sum(&metrics, PENDING) == 0.0
    };
    // Twice, for a page that was under way between its ring and the journal.
    for _ in 0..2 {
        if let Err(error) = wait_for("everything to be published", SOON, quiet).await {
            panic!(
                "{error}: {:?}\n{}",
                simulator.stats(),
                bridge.process.output().unwrap()
            );
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Holds: while Agora refuses the credentials `/readyz` and the page's first finding say so, with the status, and the log
/// has one line for each refused request; once they are taken, all of that ends.
#[tokio::test(flavor = "multi_thread")]
async fn refused_credentials_are_said_where_one_looks() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let simulator = simulator(50.0).await;
    let app_id = SimApp::default().app_id;
    let auth = |secret: &str| SimAuth::Basic {
        key: "demo-key".to_owned(),
        secret: secret.to_owned(),
    };
    simulator.set_auth(&app_id, auth("rotated"));
    let mut file = File::new(dir);
    file.write(&text(&simulator, dir, "", &file_sink(dir)));
    let bridge = Bridge::start(&file.path, &[], &dir.join("log"))
        .await
        .unwrap();
    until(&bridge, "refused requests", |metrics| {
        Ok(metrics.sum("rtm_bridge_credentials_refused_total", &[])? >= 4.0)
    })
    .await;
    let ready = get(&bridge, "/readyz").await;
    let reasons = ready["reasons"].as_array().unwrap();
    assert_eq!(reasons.len(), 4, "{ready}");
    for reason in reasons {
        let reason = reason["reason"].as_str().unwrap();
        assert!(
            reason.contains(": not polled yet: Agora answers 401 (unauthorized)"),
            "{ready}"
        );
    }
    let status = get(&bridge, "/status.json").await;
    let finding = status["findings"][0]["text"].as_str().unwrap();
    assert!(finding.contains("Agora answers 401"), "{finding}");

    let logged_once = async || {
        // A request is counted just before it is logged, and others may come meanwhile.
        let refused = "rtm_bridge_credentials_refused_total";
        let metrics = bridge.metrics().await.unwrap();
        let log = bridge.process.output().unwrap();
        let lines = log.lines().filter(|line| line.contains("401"));
        lines.count() as f64 == sum(&metrics, refused)
    };
    if let Err(error) = wait_for("one line for each refusal", SOON, logged_once).await {
        panic!("{error}:\n{}", bridge.process.output().unwrap());
    }

    simulator.set_auth(&app_id, auth("demo-secret"));
    let ready = async || bridge.ready().await.is_ok_and(|ready| ready.is_ok());
    // The schedule leaves a refused ring alone for up to half a minute.
    wait_for("readiness", 2 * SOON, ready).await.unwrap();
    let status = get(&bridge, "/status.json").await;
    for ring in status["rings"].as_array().unwrap() {
        assert_eq!(ring["failure"], Value::Null, "{ring}");
    }
}

/// Holds: librdkafka's remarks on options that only the bridge sets are no warnings, in the log or on the page; one on an
/// option that the operator wrote is.
#[tokio::test(flavor = "multi_thread")]
async fn librdkafka_warns_of_what_the_operator_wrote_only() {
    let simulator = simulator(50.0).await;
    for (options, warned) in [
        ("", false),
        ("options = { \"queuing.strategy\" = \"fifo\" }\n", true),
    ] {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path();
        let sinks = format!(
            "[sinks.kafka]\nbrokers = [\"127.0.0.1:1\"]\ntopic = \"t\"\ndead_letter_topic = \"d\"\n{options}"
        );
        let mut file = File::new(dir);
        file.write(&text(&simulator, dir, "", &sinks));
        let bridge = Bridge::start(&file.path, &[], &dir.join("log"))
            .await
            .unwrap();
        // What it says of its options comes before what it says of brokers.
        let tried = async || {
            let log = bridge.process.output().unwrap();
            log.lines()
                .any(|line| line.contains("librdkafka") && line.contains("Connect to"))
        };
        wait_for("librdkafka to try its broker", SOON, tried)
            .await
            .unwrap();
        let status = get(&bridge, "/status.json").await;
        let recent = status["recent"].to_string();
        let log = bridge.process.output().unwrap();
        for said in [&log, &recent] {
            assert!(!said.contains("enable.gapless.guarantee"), "{said}");
            assert_eq!(said.contains("queuing.strategy"), warned, "{said}");
            assert_eq!(said.contains("CONFWARN"), warned, "{said}");
        }
    }
}

/// Holds: a process that is killed while an App ID is paused loses nothing and counts nothing as lost; the next one leaves
/// the App ID alone as well, says so, and publishes what was stored; and once it goes on, every event is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_during_a_pause_loses_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let simulator = simulator(200.0).await;
    let mut nats = Nats::start_own().await.unwrap();
    let name = unique("paused");
    let sinks = format!(
        "[sinks.nats]\nservers = [\"{server}\"]\nstream = \"{name}\"\nsubject = \"{name}.{{region}}.{{stream}}\"\n\
         dead_letter_subject = \"{name}.dead_letters\"\ncreate = {{}}\n",
        server = nats.url()
    );
    let with = |app: &str| text(&simulator, dir, app, &sinks);
    let mut file = File::new(dir);
    file.write(&with(""));
    let mut bridge = Bridge::start(&file.path, &[], &dir.join("log"))
        .await
        .unwrap();
    until(&bridge, "published events", |metrics| {
        Ok(metrics.sum("rtm_bridge_records_confirmed_total", &[])? > 50.0)
    })
    .await;
    nats.pause().await.unwrap();
    until(&bridge, "events that wait", |metrics| {
        Ok(metrics.sum(PENDING, &[])? > 100.0)
    })
    .await;
    take(&mut bridge, &mut file, &with("paused = true")).await;
    let status = get(&bridge, "/status.json").await;
    assert!(status["apps"][0]["paused_seconds"].is_f64(), "{status}");
    assert_eq!(status["rings"].as_array().unwrap().len(), 4);
    let requests = || simulator.stats().apps[0].requests;
    rests(&requests).await;
    let at_kill = requests();
    bridge.process.kill().unwrap();

    let mut bridge = Bridge::start(&file.path, &[], &dir.join("log"))
        .await
        .unwrap();
    until(&bridge, "what waits to be known again", |metrics| {
        Ok(metrics.sum(PENDING, &[])? > 100.0)
    })
    .await;
    nats.resume().await.unwrap();
    until(&bridge, "what was stored to be published", |metrics| {
        Ok(metrics.sum(PENDING, &[])? == 0.0)
    })
    .await;
    // A bridge that polls has begun to long ago: it sends its first request within two seconds.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(requests(), at_kill, "it polls what is paused");
    assert_eq!(bridge.ready().await.unwrap(), Ok(()));
    let ready = get(&bridge, "/readyz").await;
    assert_eq!(ready["paused"], Value::from(vec!["main"]));
    let status = get(&bridge, "/status.json").await;
    let finding = status["findings"][0]["text"].as_str().unwrap();
    assert!(
        finding.starts_with("Polling of main is paused and was when the bridge started"),
        "{finding}"
    );
    assert_eq!(status["apps"][0]["paused_seconds"], Value::Null);

    take(&mut bridge, &mut file, &with("")).await;
    until(&bridge, "events after the pause", |metrics| {
        Ok(metrics.sum(FETCHED, &[])? > 50.0)
    })
    .await;
    simulator.stop_generating();
    quiet(&bridge, &simulator).await;
    let lost = "rtm_bridge_events_possibly_lost_total";
    assert_eq!(sum(&bridge.metrics().await.unwrap(), lost), 0.0);
    assert!(bridge.process.terminate(SOON).await.unwrap().success());
    let ledger = simulator.ledger();
    let client = async_nats::connect(nats.url()).await.unwrap();
    let mut reading = Reading::new(&ledger);
    let is_dead = |subject: &str| subject.ends_with(".dead_letters");
    sinks::nats::read_back(
        &async_nats::jetstream::new(client),
        &name,
        is_dead,
        |stored| reading.observe(stored),
    )
    .await
    .unwrap();
    // What was in flight to NATS at the kill may have come twice.
    let findings = reading.finish("nats").findings;
    assert!(findings.nothing_missing(), "{findings:?}");
}

/// Waits until the number stays as it is for a second, which is longer than any answer takes.
async fn rests(requests: &impl Fn() -> u64) {
    let rest = async || {
        let before = requests();
        tokio::time::sleep(Duration::from_secs(1)).await;
        requests() == before
    };
    wait_for("polling to end", SOON, rest).await.unwrap();
}

/// Holds: under load the policy for copies changes back and forth by reload. Whether copies are dropped is as the
/// configuration says from then on; whenever a change comes, no event is lost in all of its copies, none is published
/// more often than it was handed out, and what is missing is what was counted as dropped.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_changes_what_becomes_of_copies() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let load = Load {
        copies: 0.5,
        ..load(400.0)
    };
    let simulator = simulated::of(&[&SimApp::default().app_id], &["a", "b"], load).await;
    let with = |policy: &str| {
        let app = format!("cross_region_copies = \"{policy}\"\ncopies_window = \"2s\"");
        text(&simulator, dir, &app, &file_sink(dir))
    };
    let mut file = File::new(dir);
    file.write(&with("publish"));
    let mut bridge = Bridge::start(&file.path, &[], &dir.join("log"))
        .await
        .unwrap();
    until(&bridge, "events", |metrics| {
        Ok(metrics.sum(FETCHED, &[])? > 0.0)
    })
    .await;
    let copies = |metrics: &Metrics| {
        metrics
            .sum("rtm_bridge_cross_region_copies_total", &[])
            .unwrap()
    };
    let dropped = |metrics: &Metrics| {
        let of = [("reason", "copy")];
        metrics
            .sum("rtm_bridge_records_dropped_total", &of)
            .unwrap()
    };
    for (policy, drops) in [
        ("publish", false),
        ("drop", true),
        ("publish", false),
        ("drop", true),
    ] {
        let text = with(policy);
        if std::fs::read_to_string(&file.path).unwrap() != text {
            take(&mut bridge, &mut file, &text).await;
            // A batch that is under way ends as it began; and for a window it is not known what came before.
            let at = copies(&bridge.metrics().await.unwrap());
            until(&bridge, "copies after the reload", |metrics| {
                Ok(copies(metrics) > at + 100.0)
            })
            .await;
        }
        let before = bridge.metrics().await.unwrap();
        until(&bridge, "copies", |metrics| {
            Ok(copies(metrics) > copies(&before) + 100.0)
        })
        .await;
        let after = bridge.metrics().await.unwrap();
        let more = dropped(&after) - dropped(&before);
        assert_eq!(more > 0.0, drops, "{policy}: {more} dropped");
        // All of them, as far as one moment can tell: the cursor counts after the filter does.
        if drops {
            assert!(more > 50.0, "{more} dropped");
        }
    }
    simulator.stop_generating();
    quiet(&bridge, &simulator).await;
    let metrics = bridge.metrics().await.unwrap();
    assert_eq!(sum(&metrics, "rtm_bridge_events_possibly_lost_total"), 0.0);
    assert!(bridge.process.terminate(SOON).await.unwrap().success());

    let ledger = simulator.ledger();
    let mut handed_out: HashMap<&str, u64> = HashMap::new();
    for event in ledger.pages.iter().flat_map(|page| page.events.iter()) {
        *handed_out.entry(event).or_default() += 1;
    }
    let mut published: HashMap<String, u64> = HashMap::new();
    sinks::file::read_back(&dir.join("events.jsonl"), |stored| {
        let envelope = rtm_sim::parse_envelope(stored.payload).unwrap();
        *published
            .entry(envelope.event.get().to_owned())
            .or_default() += 1;
    })
    .unwrap();
    let mut missing = 0;
    for (event, handed_out) in &handed_out {
        let published = published.get(*event).copied().unwrap_or_default();
        assert!(
            (1..=*handed_out).contains(&published),
            "{published} of {handed_out}: {event}"
        );
        missing += handed_out - published;
    }
    assert_eq!(published.len(), handed_out.len());
    assert_eq!(missing as f64, dropped(&metrics));
}

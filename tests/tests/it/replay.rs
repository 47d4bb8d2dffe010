//! `rtm-bridge replay` into real brokers, beside a running bridge and without one.
#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use rtm_journal::{Inspection, Journal, LaneInspection};
use rtm_tests::bridge::{Bridge, http_client};
use rtm_tests::brokers::{self, Kafka, Nats};
use rtm_tests::process::Process;
use rtm_tests::{binary, wait_for};
use serde_json::Value;

use super::two_regions::{TwoRegions, two_regions};

const SOON: Duration = Duration::from_secs(60);

/// What one broker holds: topic or subject, document, headers.
type Held = Vec<Record>;
type Record = (String, Vec<u8>, Vec<(String, String)>);

async fn in_kafka(kafka: &Kafka, prefix: &str) -> [Held; 3] {
    let mut all: [Held; 3] = Default::default();
    for (held, end) in all
        .iter_mut()
        .zip(["user_events", "channel_events", "dead_letters"])
    {
        let topic = format!("{prefix}.{end}");
        for record in kafka.read_all(&topic).await.unwrap_or_default() {
            assert_eq!(record.partition, 0, "order is compared");
            let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
            let headers = record
                .headers
                .iter()
                .map(|(name, value)| (name.clone(), text(value)));
            held.push((topic.clone(), record.payload.to_vec(), headers.collect()));
        }
    }
    all
}

async fn in_nats(nats: &Nats, jetstream: &str) -> Held {
    let records = nats.read_all(jetstream).await.unwrap();
    let record = |mut record: brokers::NatsRecord| {
        // NATS keeps no order of them.
        record.headers.sort();
        (record.subject, record.payload.to_vec(), record.headers)
    };
    records.into_iter().map(record).collect()
}

fn position(payload: &[u8]) -> u64 {
    let text = std::str::from_utf8(payload).unwrap();
    let id = text.split('"').nth(5).unwrap();
    id.split('.').nth(1).unwrap().parse().unwrap()
}

/// Asserts that nothing came and nothing went.
fn assert_same(before: &[Record], after: &[Record]) {
    let other = before
        .iter()
        .zip(after)
        .position(|(before, after)| before != after);
    let shown = |records: &[Record], at: usize| {
        records.get(at).map(|(topic, payload, headers)| {
            format!("{topic}: {} {headers:?}", String::from_utf8_lossy(payload))
        })
    };
    let at = other.unwrap_or_else(|| before.len().min(after.len()));
    assert!(
        other.is_none() && before.len() == after.len(),
        "{} records and {}; number {at}: {:?} and {:?}",
        before.len(),
        after.len(),
        shown(before, at),
        shown(after, at)
    );
}

/// Asserts that `after` is `before` and then, marked, what of `before` is in the range, in the same order.
fn assert_replayed(before: &Held, after: &Held, range: (u64, u64), ids: bool) -> usize {
    assert_eq!(after[..before.len()], before[..], "what was there is there");
    let expected = before.iter().filter(|(_, payload, _)| {
        let position = position(payload);
        range.0 <= position && position <= range.1 && !marked(payload)
    });
    let expected: Vec<_> = expected.collect();
    let replayed = &after[before.len()..];
    assert_eq!(replayed.len(), expected.len());
    for ((topic, payload, headers), (old_topic, old_payload, old_headers)) in
        replayed.iter().zip(&expected)
    {
        assert_eq!(topic, old_topic);
        let text = String::from_utf8(payload.clone()).unwrap();
        let unmarked = text.replacen(r#","replayed":true"#, "", 1);
        assert!(marked(payload), "{text}");
        assert_eq!(unmarked.as_bytes(), old_payload);
        let header = |headers: &[(String, String)], name: &str| {
            let found = headers.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.clone())
        };
        assert_eq!(header(headers, "rtm-replayed").as_deref(), Some("true"));
        assert_eq!(header(old_headers, "rtm-replayed"), None);
        assert_eq!(header(headers, "rtm-id"), header(old_headers, "rtm-id"));
        if ids {
            let old = header(old_headers, "Nats-Msg-Id").unwrap();
            let new = header(headers, "Nats-Msg-Id").unwrap();
            assert!(
                new.starts_with(&format!("{old}.replay-")),
                "{new} after {old}"
            );
        }
    }
    expected.len()
}

fn marked(payload: &[u8]) -> bool {
    // An odd event may be beyond this parser; the mark is in front of it.
    let text = String::from_utf8_lossy(payload);
    text.split_once(r#","app":"#)
        .unwrap()
        .0
        .ends_with(r#","replayed":true"#)
}

/// Cursors, and what is counted with them.
fn cursors(dir: &Path) -> Vec<LaneInspection> {
    let Inspection { mut lanes, .. } = Journal::inspect(dir).unwrap();
    for lane in &mut lanes {
        // What is held for NATS is not pending, and gets older.
        lane.readers.retain(|reader| !reader.name.contains('.'));
    }
    lanes
}

async fn replay(config: &Path, args: &[&str], log: &Path) -> (Option<i32>, String) {
    let all = ["replay", "--config", config.to_str().unwrap(), "--yes"];
    let all = all.iter().chain(args).map(OsStr::new);
    let mut process = Process::start(&binary::rtm_bridge().unwrap(), all, &[], log, None).unwrap();
    let status = process.wait(SOON).await.unwrap();
    (status.code(), process.output().unwrap())
}

/// Holds: a replay of a range gives exactly that range, marked, in order, with the ids of the first time and the dead
/// letters; cursors stay; into Kafka beside a running bridge, into JetStream within its duplicate window, and twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_range_comes_again_exactly_and_marked() {
    let (kafka, nats) = brokers::both().await;
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let load = ["--rate", "2000", "--odd", "0.05"];
    let TwoRegions {
        name,
        simulator,
        config,
    } = two_regions("replay", &load, true, dir, kafka, nats).await;
    let mut bridge = Bridge::start(&config, &[], &dir.join("bridge.log"))
        .await
        .unwrap();
    let journal = dir.join("journal");
    let enough = async || {
        Journal::inspect(&journal)
            .is_ok_and(|found| found.segments.iter().map(|s| s.entries).sum::<u64>() >= 40)
    };
    wait_for("forty entries", SOON, enough).await.unwrap();
    let stop = http_client()
        .unwrap()
        .post(format!("{}/_sim/stop", simulator.url));
    stop.send().await.unwrap().error_for_status().unwrap();
    let quiet = async || {
        let metrics = bridge.metrics().await.unwrap();
        let pending = metrics
            .sum("rtm_bridge_journal_pending_events", &[])
            .unwrap();
        let fetched = metrics.sum("rtm_bridge_events_fetched_total", &[]).unwrap();
        let stats = http_client()
            .unwrap()
            .get(format!("{}/_sim/stats", simulator.url));
        let stats: Value = stats.send().await.unwrap().json().await.unwrap();
        let rings = stats["rings"].as_array().unwrap();
        let all = |what: &str| {
            rings
                .iter()
                .map(|ring| ring[what].as_f64().unwrap())
                .sum::<f64>()
        };
        pending == 0.0 && all("waiting") == 0.0 && all("handed_out") == fetched
    };
    wait_for("everything to be confirmed", SOON, quiet)
        .await
        .unwrap();
    // A cursor is durable within a tenth of a second.
    let settled = async || {
        let readers = &cursors(&journal)[0].readers;
        readers.iter().all(|reader| reader.pending.entries == 0)
    };
    wait_for("the cursors", SOON, settled).await.unwrap();

    let range = (11, 30);
    let asked = ["--from", "11", "--to", "30", "--sink"];
    let (kafka_before, nats_before) = (in_kafka(kafka, &name).await, in_nats(nats, &name).await);
    let cursors_before = cursors(&journal);
    let log = dir.join("replay.log");
    let (code, said) = replay(&config, &[&asked[..], &["kafka"]].concat(), &log).await;
    assert_eq!(code, Some(0), "{said}");
    let kafka_after = in_kafka(kafka, &name).await;
    let counts: Vec<usize> = kafka_before
        .iter()
        .zip(&kafka_after)
        .map(|(before, after)| assert_replayed(before, after, range, false))
        .collect();
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    assert_same(&nats_before, &in_nats(nats, &name).await);
    assert_eq!(cursors(&journal), cursors_before);

    assert!(bridge.process.terminate(SOON).await.unwrap().success());
    let cursors_before = cursors(&journal);
    let mut before = nats_before;
    for _ in 0..2 {
        let (code, said) = replay(&config, &[&asked[..], &["nats"]].concat(), &log).await;
        assert_eq!(code, Some(0), "{said}");
        let after = in_nats(nats, &name).await;
        assert_eq!(
            assert_replayed(&before, &after, range, true),
            counts.iter().sum::<usize>()
        );
        before = after;
    }
    for (before, after) in kafka_after.iter().zip(&in_kafka(kafka, &name).await) {
        assert_same(before, after);
    }
    assert_eq!(cursors(&journal), cursors_before);
}

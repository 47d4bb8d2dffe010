#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Instant;

use figment::value::Value;
use rtm_sink::Topic;
use rtm_sink::conformance;

use super::*;
use crate::sinks::SinkConfig;

/// How long what has come may take to be used.
const SOON: Duration = Duration::from_secs(30);

fn config(kind: &str, table: serde_json::Value) -> SinkConfig {
    let table = Value::serialize(table).unwrap();
    SinkConfig::read(kind, &table).unwrap_or_else(|_| panic!("{kind} is a sink"))
}

fn file(path: &Path) -> SinkConfig {
    config("file", serde_json::json!({ "path": path }))
}

/// Holds: a sink whose directory, or a file that its client needs, is missing is down and says what is missing, confirms
/// nothing, and begins by itself once that is there.
#[tokio::test]
async fn a_sink_waits_for_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let mount = dir.path().join("mount");
    let client = file(&mount.join("events"))
        .client("file", &[])
        .await
        .unwrap();
    let health = client.health();
    assert!(!health.up && !health.begun);
    let said = health.said.unwrap();
    assert!(
        said.contains("mount/events") && said.contains("No such file"),
        "{said}"
    );
    let records = [conformance::record(&Topic::from("t"), 0)];
    let error = client.publish(&records).await.unwrap_err();
    assert_eq!(error.kind, PublishErrorKind::Unavailable);
    assert_eq!(error.outcomes.len(), 1);
    std::fs::create_dir(&mount).unwrap();
    let began = Instant::now();
    while client.publish(&records).await.is_err() {
        assert!(began.elapsed() < SOON, "{:?}", client.health());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(client.health().begun);
    let stored = std::fs::read_to_string(mount.join("events")).unwrap();
    assert_eq!(stored.lines().count(), 1);
    client.close().await;
}

/// Holds: a sink that is to store records once and only once, and cannot begin yet, is no sink of another promise meanwhile.
#[tokio::test]
async fn a_promise_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let credentials = dir.path().join("nats.creds");
    let table = serde_json::json!({
        "servers": ["nats://127.0.0.1:1"],
        "stream": "RTM",
        "delivery": "exactly_once",
        "auth": { "credentials_file": credentials },
    });
    let client = config("nats", table).client("nats", &[]).await.unwrap();
    assert!(!client.health().begun);
    assert!(client.exact().is_some());
    let key = ProgressKey {
        journal: 1,
        sink: "nats".into(),
        lane: "0a1b".into(),
    };
    let error = client.recall(&key).await.unwrap_err();
    assert_eq!(error.kind, PublishErrorKind::Unavailable);
    let progress = Progress {
        key,
        value: Bytes::new(),
    };
    let records = [conformance::record(&Topic::from("t"), 0)];
    let error = client.publish_exactly(&records, &progress).await;
    assert_eq!(error.unwrap_err().outcomes.len(), 1);
    client.close().await;
}

/// Holds: the same of Kafka's secrets and certificates; and what can never work is refused as before.
#[tokio::test]
async fn only_what_may_come_is_waited_for() {
    let missing = |table: serde_json::Value| async {
        let client = config("kafka", table).client("kafka", &[]).await;
        client.map(|client| client.health().begun)
    };
    for name in ["option_files", "options"] {
        let option = match name {
            "option_files" => "sasl.password",
            _ => "ssl.ca.location",
        };
        let table = serde_json::json!({
            "brokers": ["127.0.0.1:1"],
            "options": { "security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN", "sasl.username": "u" },
        });
        let mut table = table;
        table[name][option] = "/nowhere/at/all".into();
        assert_eq!(missing(table).await.ok(), Some(false), "{option}");
    }
    // A text that is none, and a path through a file, are mistakes: nothing that comes makes them right.
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("text");
    std::fs::write(&text, [0xff]).unwrap();
    for file in [text.clone(), text.join("below")] {
        let table = serde_json::json!({ "brokers": ["127.0.0.1:1"], "option_files": { "sasl.password": file } });
        assert!(missing(table).await.is_err(), "{}", file.display());
    }
    let wrong =
        serde_json::json!({ "brokers": ["127.0.0.1:1"], "options": { "no.such.option": "1" } });
    assert!(missing(wrong).await.is_err());
}

//! What the release before has left in a journal is published by this one.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use rtm_tests::bridge::Bridge;
use rtm_tests::wait_for;
use serde::Deserialize;

const SOON: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
struct Record {
    id: String,
    app: String,
}

/// Holds: a journal of release 0.1.0, whose process was killed, is opened; of what waits in it every event is published once
/// and in order, under the id that 0.1.0 gave it, copies of what 0.1.0 has published are found, and its counts go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_journal_of_0_1_is_drained() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/journal-0.1");
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let (journal, out) = (dir.join("journal"), dir.join("out.ndjson"));
    std::fs::create_dir(&journal).unwrap();
    for file in std::fs::read_dir(fixture.join("journal")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), journal.join(file.file_name())).unwrap();
    }
    // Nothing is polled: what is published is the journal's.
    let app = |name: &str, app_id: &str, regions: &[&str]| {
        let region = |name: &&str| {
            format!("{{ name = \"{name}\", base_url = \"http://127.0.0.1:1/{name}\" }}")
        };
        let regions: Vec<String> = regions.iter().map(region).collect();
        format!(
            "[[apps]]\nname = \"{name}\"\napp_id = \"{app_id}\"\npaused = true\ncross_region_copies = \"drop\"\n\
             auth = {{ basic = {{ key = \"k\", secret = \"s\" }} }}\nregions = [{}]\n",
            regions.join(", ")
        )
    };
    let text = format!(
        "[admin]\nlisten = \"127.0.0.1:0\"\n[journal]\ndir = \"{}\"\nmin_free_bytes = \"1MiB\"\n{}{}\
         [sinks.out]\ntype = \"file\"\npath = \"{}\"\n",
        journal.display(),
        app("chat", "0a1b", &["eu", "us"]),
        app("video", "0c2d", &["eu"]),
        out.display(),
    );
    let config = dir.join("rtm-bridge.toml");
    std::fs::write(&config, text).unwrap();
    let mut bridge = Bridge::start(&config, &[], &dir.join("log")).await.unwrap();
    let look = async || {
        let metrics = bridge.metrics().await;
        metrics.is_ok_and(|metrics| {
            metrics
                .sum("rtm_bridge_journal_pending_events", &[])
                .unwrap()
                == 0.0
        })
    };
    wait_for("everything to be published", SOON, look)
        .await
        .unwrap();
    let metrics = bridge.metrics().await.unwrap();
    assert!(bridge.process.terminate(SOON).await.unwrap().success());

    let published = std::fs::read_to_string(out).unwrap();
    let records = published
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    let records: Vec<Record> = records.collect();
    let expected = std::fs::read_to_string(fixture.join("ids.txt")).unwrap();
    // Between two App IDs there is no order.
    for name in ["chat", "video"] {
        let ids = records.iter().filter(|record| record.app == name);
        let ids: Vec<&str> = ids.map(|record| record.id.as_str()).collect();
        let is_its = |id: &&str| ids.contains(id);
        let expected: Vec<&str> = expected.lines().filter(is_its).collect();
        assert_eq!(ids, expected, "{name}");
    }
    assert_eq!(records.len(), expected.lines().count());
    let of = |name: &str| metrics.sum(&format!("rtm_bridge_{name}"), &[]).unwrap();
    let dropped = of("records_dropped_total");
    assert!(dropped > 0.0, "copies");
    let settled = of("records_confirmed_total") + of("records_dead_lettered_total") + dropped;
    assert_eq!(of("events_stored_total"), settled);
    assert_eq!(settled, 342.0);
}

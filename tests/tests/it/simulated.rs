//! The stand-in for Agora, in the test's own process.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use rtm_sim::{Load, SimApp, SimConfig, Simulator};
use rtm_tests::bridge::Bridge;

/// One with the usual App ID, and the regions `a` and `b`.
pub(super) async fn simulator(events_per_second: f64) -> Simulator {
    let usual = SimApp::default().app_id;
    of(&[&usual], &["a", "b"], load(events_per_second)).await
}

pub(super) fn load(events_per_second: f64) -> Load {
    Load {
        events_per_second,
        ..Load::default()
    }
}

/// One with these App IDs, which all have the usual key.
pub(super) async fn of(app_ids: &[&str], regions: &[&str], load: Load) -> Simulator {
    let apps = app_ids.iter().map(|app_id| SimApp {
        app_id: (*app_id).to_owned(),
        ..SimApp::default()
    });
    let config = SimConfig {
        apps: apps.collect(),
        regions: regions.iter().map(ToString::to_string).collect(),
        load,
        ..SimConfig::default()
    };
    Simulator::start(config).await.unwrap()
}

/// A bridge of the usual App ID and one region, with its files in `dir`, into these sinks.
pub(super) async fn bridge(dir: &Path, events_per_second: f64, sinks: &str) -> (Bridge, Simulator) {
    let simulator = simulator(events_per_second).await;
    let config = format!(
        "[admin]\nlisten = \"127.0.0.1:0\"\n[journal]\ndir = \"{dir}/journal\"\n\
         [[apps]]\nname = \"main\"\napp_id = \"{app_id}\"\n\
         auth = {{ basic = {{ key = \"demo-key\", secret = \"demo-secret\" }} }}\n\
         regions = [{{ name = \"r\", base_url = \"{url}\" }}]\n{sinks}",
        dir = dir.display(),
        app_id = SimApp::default().app_id,
        url = simulator.base_url("a"),
    );
    let file = dir.join("rtm-bridge.toml");
    std::fs::write(&file, config).unwrap();
    let bridge = Bridge::start(&file, &[], &dir.join("log")).await.unwrap();
    (bridge, simulator)
}

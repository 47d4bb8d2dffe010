//! The stand-in for Agora, in the test's own process.
#![allow(clippy::unwrap_used)]

use rtm_sim::{Load, SimApp, SimConfig, Simulator};

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

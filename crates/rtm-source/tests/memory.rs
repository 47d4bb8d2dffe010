//! In a process of its own, whose peak of memory says what a hostile far end can make the source hold.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use rtm_sim::{Faults, Load, SimApp, SimAuth, SimConfig, Simulator};
use rtm_source::{Auth, Limiter, Region, Secret, Source, SourceOptions};

/// The most that this process has ever held, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Holds: a body of 64 MiB, a bomb that unpacks to as much, endless headers and a slow drip cost a few times the cap of a
/// page (2 MiB), the simulator's share included, and the events in them are kept.
#[tokio::test]
async fn hostile_bodies_stay_under_the_cap() {
    let start = |app: &str| SimConfig {
        apps: vec![SimApp {
            app_id: app.into(),
            auth: SimAuth::Open,
        }],
        regions: vec!["eu".into()],
        load: Load {
            events_per_second: 0.0,
            ..Load::default()
        },
        ..SimConfig::default()
    };
    let sim = Simulator::start(start("app")).await.unwrap();
    let region = Region::new("eu", &sim.base_url("eu"), false).unwrap();
    let token = Secret::Inline("unused".to_owned().into());
    let mut options = SourceOptions::new("app", Auth::AgoraToken { token }, vec![region]);
    options.deadline = Duration::from_secs(1);
    let source = Source::new(options).unwrap();
    let limiter = Limiter::new(10, Duration::ZERO);
    let ring = source.rings()[0].clone();
    let event = r#"{"user_id":"u","type":"Login","ms":1}"#;
    // Whatever is only allocated once.
    sim.push("app", "eu", rtm_sim::Stream::User, &[event; 900]);
    source.fetch(&ring, limiter.slot().await).await.unwrap();

    let before = peak();
    let none = Faults::default;
    for faults in [
        Faults {
            huge: 1.0,
            ..none()
        },
        Faults {
            bomb: 1.0,
            ..none()
        },
        Faults {
            headers: 1.0,
            ..none()
        },
        Faults {
            drip: 1.0,
            huge: 0.0,
            ..none()
        },
    ] {
        sim.set_faults(faults.clone());
        for _ in 0..2 {
            sim.push("app", "eu", rtm_sim::Stream::User, &[event; 900]);
            let fetched = source.fetch(&ring, limiter.slot().await).await;
            let (page, lost) = match &fetched {
                Ok(page) => (Some(page), 0),
                Err(error) => (error.partial.as_deref(), error.possibly_lost()),
            };
            let kept = page.map_or(0, |page| page.count);
            assert!(page.is_none_or(|page| page.body.len() <= 2 << 20));
            assert!(kept >= 900 || lost + kept as u64 >= 900, "{kept} {lost}");
            if faults.bomb > 0.0 {
                assert!(kept >= 900 && page.is_some_and(|page| page.body.len() == 2 << 20));
            }
        }
    }
    let grown = (peak() - before) / 1_024;
    assert!(grown < 16, "{grown} MiB");
    sim.shutdown().await;
}

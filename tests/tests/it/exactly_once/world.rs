//! A bridge or two, an Agora and a broker, and what must hold of what the broker has stored.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rtm_sim::{Load, SimApp, SimConfig, Simulator, Stream};
use rtm_tests::bridge::{Bridge, Metrics};
use rtm_tests::process::Process;
use rtm_tests::{binary, wait_for};
use tempfile::TempDir;

use super::super::reload::until;
use super::bus::Bus;

pub(super) const SOON: Duration = Duration::from_secs(60);

/// A sink's `delivery`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    AtLeastOnce,
    ExactlyOnce,
}

/// A broker, an Agora with two regions, and a place for journals.
pub(super) struct World {
    pub(super) dir: TempDir,
    simulator: Simulator,
    pub(super) bus: Bus,
    /// Events that were given to Agora.
    pub(super) given: usize,
}

/// One bridge.
pub(super) struct Place {
    pub(super) journal: PathBuf,
    pub(super) config: PathBuf,
    region: &'static str,
    pub(super) delivery: Delivery,
    /// Another one needs another client of the sink.
    pub(super) turn: u32,
}

impl World {
    pub(super) async fn new(bus: Bus) -> World {
        let config = SimConfig {
            regions: ["a", "b"].map(str::to_owned).to_vec(),
            load: Load {
                events_per_second: 0.0,
                ..Load::default()
            },
            ..SimConfig::default()
        };
        World {
            dir: tempfile::tempdir().unwrap(),
            simulator: Simulator::start(config).await.unwrap(),
            bus,
            given: 0,
        }
    }

    /// A bridge that reads this region, with a journal in this directory.
    pub(super) fn place(&self, journal: &str, region: &'static str) -> Place {
        let place = Place {
            journal: self.dir.path().join(journal),
            config: self.dir.path().join(format!("{journal}.toml")),
            region,
            delivery: Delivery::ExactlyOnce,
            turn: 0,
        };
        self.configure(&place);
        place
    }

    pub(super) fn configure(&self, place: &Place) {
        let text = format!(
            "[admin]\nlisten = \"127.0.0.1:0\"\n[journal]\ndir = \"{journal}\"\n\
             [[apps]]\nname = \"main\"\napp_id = \"{app_id}\"\nrequests_per_second = 4\n\
             auth = {{ basic = {{ key = \"demo-key\", secret = \"demo-secret\" }} }}\n\
             regions = [{{ name = \"{region}\", base_url = \"{url}\" }}]\n{sink}",
            journal = place.journal.display(),
            app_id = SimApp::default().app_id,
            region = place.region,
            url = self.simulator.base_url(place.region),
            sink = self.bus.table(place.delivery, place.turn),
        );
        let new = place.config.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, &place.config).unwrap();
    }

    pub(super) async fn start(&self, place: &Place) -> Bridge {
        let log = place.journal.with_extension("log");
        let bridge = Bridge::start(&place.config, &[], &log).await.unwrap();
        until(&bridge, "its metrics", |metrics| {
            Ok(count(metrics, "sink_up") >= 0.0)
        })
        .await;
        bridge
    }

    /// Gives so many events to a region, in several pages, and waits until the bridge has stored them.
    pub(super) async fn give(&mut self, bridge: &Bridge, region: &str, pages: usize) {
        for _ in 0..pages {
            let before = count(&bridge.metrics().await.unwrap(), "events_stored_total");
            let number = self.given..self.given + 10;
            let events: Vec<String> = number
                .map(|number| format!(r#"{{"user_id":"u-{number}","type":"Login","ms":1}}"#))
                .collect();
            let events: Vec<&str> = events.iter().map(String::as_str).collect();
            let app_id = SimApp::default().app_id;
            self.simulator.push(&app_id, region, Stream::User, &events);
            self.given += 10;
            until(bridge, "a page in the journal", |metrics| {
                Ok(count(metrics, "events_stored_total") == before + 10.0)
            })
            .await;
        }
    }

    /// As [`World::give`], until the broker has confirmed them.
    pub(super) async fn publish(&mut self, bridge: &Bridge, region: &str, pages: usize) {
        self.give(bridge, region, pages).await;
        confirmed(bridge).await;
    }

    /// Holds: each event that was given, from `first` on, is stored, and none twice.
    pub(super) async fn assert_once_from(&self, first: usize) {
        let expected: BTreeMap<usize, u32> =
            (first..self.given).map(|number| (number, 1)).collect();
        let mut times = BTreeMap::new();
        // A broker that is back does not show at once what is committed.
        let shown = wait_for("what is stored", SOON, async || {
            times = self.times().await;
            times.len() >= expected.len()
        });
        let shown = shown.await;
        assert_eq!(times, expected, "{shown:?}");
    }

    pub(super) async fn assert_once(&self) {
        self.assert_once_from(0).await;
    }

    /// How many events are stored.
    pub(super) async fn stored(&self) -> usize {
        self.times().await.len()
    }

    /// How often each event is stored.
    async fn times(&self) -> BTreeMap<usize, u32> {
        let mut times = BTreeMap::new();
        for text in self.bus.read_all().await {
            let number = text.split_once("\"u-").unwrap().1.split('"').next();
            *times.entry(number.unwrap().parse().unwrap()).or_default() += 1;
        }
        times
    }

    /// Drains a journal that was set aside; what was said.
    pub(super) async fn drain(&self, place: &Place, aside: &Path) -> String {
        ended(self.start_drain(place, aside, &[])).await
    }

    pub(super) fn start_drain(&self, place: &Place, aside: &Path, more: &[&str]) -> Process {
        let (config, dir) = (place.config.to_str().unwrap(), aside.to_str().unwrap());
        let args = [
            "replay",
            "--config",
            config,
            "--dir",
            dir,
            "--sink",
            self.bus.sink(),
        ];
        self.start_command(&[&args[..], &["--unconfirmed", "--yes"], more].concat())
    }

    pub(super) async fn command(&self, args: &[&str]) -> String {
        ended(self.start_command(args)).await
    }

    fn start_command(&self, args: &[&str]) -> Process {
        let args = args.iter().map(OsStr::new);
        let log = self.dir.path().join("command.log");
        let binary = binary::rtm_bridge().unwrap();
        Process::start(&binary, args, &[], &log, None).unwrap()
    }
}

async fn ended(mut process: Process) -> String {
    let status = process.wait(SOON).await.unwrap();
    let said = process.output().unwrap();
    assert!(status.success(), "{said}");
    said
}

pub(super) fn count(metrics: &Metrics, name: &str) -> f64 {
    let sum = metrics.sum(&format!("rtm_bridge_{name}"), &[]);
    sum.unwrap_or(f64::NAN)
}

/// How long it may take until everything is published after a broker was killed. Kafka's next producer waits for what an earlier
/// one had open, and reads again after 25 s if that was in vain.
const PUBLISHED: Duration = Duration::from_secs(120);

pub(super) async fn confirmed(bridge: &Bridge) {
    let all = wait_for("confirmations", PUBLISHED, async || {
        let metrics = bridge.metrics().await;
        metrics.is_ok_and(|metrics| count(&metrics, "journal_pending_events") == 0.0)
    });
    if let Err(error) = all.await {
        panic!("{error}\n{}", bridge.process.output().unwrap());
    }
}

pub(super) async fn end(mut bridge: Bridge) -> String {
    assert!(bridge.process.terminate(SOON).await.unwrap().success());
    bridge.process.output().unwrap()
}

pub(super) fn killed(mut bridge: Bridge) {
    bridge.process.kill().unwrap();
}

pub(super) fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

//! What becomes of records where a journal, a copy of one, or the progress at the broker is not what it was: the real binary
//! and a real NATS.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_nats::jetstream::stream::Stream as Jetstream;
use futures::TryStreamExt;
use rtm_sim::{Load, SimApp, SimConfig, Simulator, Stream};
use rtm_tests::bridge::{Bridge, Metrics};
use rtm_tests::brokers::{Nats, unique};
use rtm_tests::process::Process;
use rtm_tests::{binary, wait_for};
use tempfile::TempDir;

use super::reload::until;

const SOON: Duration = Duration::from_secs(60);

const FENCED: &str = "another process publishes a copy of this journal";

/// A NATS of its own, an Agora with two regions, and a place for journals.
struct World {
    dir: TempDir,
    simulator: Simulator,
    nats: Nats,
    name: String,
    /// Events that were given to Agora.
    given: usize,
}

/// One bridge.
struct Place {
    journal: PathBuf,
    config: PathBuf,
    region: &'static str,
    ack_timeout: u32,
}

impl World {
    async fn new() -> World {
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
            nats: Nats::start_own().await.unwrap(),
            name: unique("exactly"),
            given: 0,
        }
    }

    /// A bridge that reads this region, with a journal in this directory.
    fn place(&self, journal: &str, region: &'static str) -> Place {
        let place = Place {
            journal: self.dir.path().join(journal),
            config: self.dir.path().join(format!("{journal}.toml")),
            region,
            ack_timeout: 2,
        };
        self.configure(&place);
        place
    }

    fn configure(&self, place: &Place) {
        let (name, region) = (&self.name, place.region);
        let text = format!(
            "[admin]\nlisten = \"127.0.0.1:0\"\n[journal]\ndir = \"{journal}\"\n\
             [[apps]]\nname = \"main\"\napp_id = \"{app_id}\"\nrequests_per_second = 4\n\
             auth = {{ basic = {{ key = \"demo-key\", secret = \"demo-secret\" }} }}\n\
             regions = [{{ name = \"{region}\", base_url = \"{url}\" }}]\n\
             [sinks.nats]\nservers = [\"{server}\"]\nstream = \"{name}\"\nsubject = \"{name}.{{region}}.{{stream}}\"\n\
             dead_letter_subject = \"{name}.dead_letters\"\ndelivery = \"exactly_once\"\n\
             progress_subject = \"{name}.progress.{{journal}}.{{sink}}.{{app_id}}\"\nack_timeout = \"{ack}s\"\n\
             create = {{ subjects = [\"{name}.>\"] }}\n",
            journal = place.journal.display(),
            app_id = SimApp::default().app_id,
            url = self.simulator.base_url(region),
            server = self.nats.url(),
            ack = place.ack_timeout,
        );
        let new = place.config.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, &place.config).unwrap();
    }

    async fn start(&self, place: &Place) -> Bridge {
        let log = place.journal.with_extension("log");
        let bridge = Bridge::start(&place.config, &[], &log).await.unwrap();
        until(&bridge, "its metrics", |metrics| {
            Ok(count(metrics, "sink_up") >= 0.0)
        })
        .await;
        bridge
    }

    /// Gives so many events to a region, in several pages, and waits until the bridge has stored them.
    async fn give(&mut self, bridge: &Bridge, region: &str, pages: usize) {
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
    async fn publish(&mut self, bridge: &Bridge, region: &str, pages: usize) {
        self.give(bridge, region, pages).await;
        confirmed(bridge).await;
    }

    async fn jetstream(&self) -> Jetstream {
        let jetstream = self.nats.jetstream().await.unwrap();
        jetstream.get_stream(&self.name).await.unwrap()
    }

    /// Holds: each event that was given, from `first` on, is stored, and none twice.
    async fn assert_once_from(&self, first: usize) {
        let stored = self.nats.read_all(&self.name).await.unwrap();
        let progress = format!("{}.progress.", self.name);
        let mut times: BTreeMap<usize, u32> = BTreeMap::new();
        for record in stored
            .iter()
            .filter(|one| !one.subject.starts_with(&progress))
        {
            let text = String::from_utf8(record.payload.to_vec()).unwrap();
            let number = text
                .split_once("\"u-")
                .unwrap()
                .1
                .split('"')
                .next()
                .unwrap();
            *times.entry(number.parse().unwrap()).or_default() += 1;
        }
        let expected: BTreeMap<usize, u32> =
            (first..self.given).map(|number| (number, 1)).collect();
        assert_eq!(times, expected);
    }

    async fn assert_once(&self) {
        self.assert_once_from(0).await;
    }

    async fn command(&self, args: &[&str]) -> String {
        let args = args.iter().map(OsStr::new);
        let log = self.dir.path().join("command.log");
        let binary = binary::rtm_bridge().unwrap();
        let mut process = Process::start(&binary, args, &[], &log, None).unwrap();
        let status = process.wait(SOON).await.unwrap();
        let said = process.output().unwrap();
        assert!(status.success(), "{said}");
        said
    }
}

fn count(metrics: &Metrics, name: &str) -> f64 {
    let sum = metrics.sum(&format!("rtm_bridge_{name}"), &[]);
    sum.unwrap_or(f64::NAN)
}

async fn confirmed(bridge: &Bridge) {
    until(bridge, "confirmations", |metrics| {
        Ok(count(metrics, "journal_pending_events") == 0.0)
    })
    .await;
}

async fn end(mut bridge: Bridge) -> String {
    assert!(bridge.process.terminate(SOON).await.unwrap().success());
    bridge.process.output().unwrap()
}

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

/// Holds: a journal that was restored from a backup numbers new events as others that were published, and each of them is
/// published once all the same; that is told, and counted.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_journal_loses_and_repeats_nothing() {
    let mut world = World::new().await;
    let place = world.place("journal", "a");
    let backup = world.dir.path().join("backup");
    let bridge = world.start(&place).await;
    world.publish(&bridge, "a", 3).await;
    end(bridge).await;
    copy(&place.journal, &backup);
    let bridge = world.start(&place).await;
    world.publish(&bridge, "a", 5).await;
    end(bridge).await;

    copy(&backup, &place.journal);
    world.nats.kill().await.unwrap();
    let bridge = world.start(&place).await;
    world.give(&bridge, "a", 3).await;
    world.nats.restart().await.unwrap();
    confirmed(&bridge).await;
    world.publish(&bridge, "a", 4).await;
    let metrics = bridge.metrics().await.unwrap();
    assert_eq!(count(&metrics, "exact_progress_unknown_total"), 1.0);
    assert_eq!(
        count(&metrics, "events_stored_total"),
        count(&metrics, "records_confirmed_total")
    );
    let said = end(bridge).await;
    assert!(said.contains("was it restored from a backup?"), "{said}");
    world.assert_once().await;
}

/// Holds: what a backup holds that was published after it was made is known to be published, since both histories share it.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_backup_shares_is_not_published_again() {
    let mut world = World::new().await;
    let place = world.place("journal", "a");
    let backup = world.dir.path().join("backup");
    let bridge = world.start(&place).await;
    world.publish(&bridge, "a", 2).await;
    world.nats.kill().await.unwrap();
    world.give(&bridge, "a", 4).await;
    copy(&place.journal, &backup);
    world.nats.restart().await.unwrap();
    confirmed(&bridge).await;
    world.publish(&bridge, "a", 1).await;
    end(bridge).await;

    copy(&backup, &place.journal);
    let bridge = world.start(&place).await;
    confirmed(&bridge).await;
    world.publish(&bridge, "a", 2).await;
    end(bridge).await;
    world.assert_once().await;
}

/// Holds: of two bridges on copies of one journal the one that was started last publishes, and the other holds what it reads,
/// says so, and stays so through a reload that makes its client anew; with a number of its own it publishes all of it once.
#[tokio::test(flavor = "multi_thread")]
async fn a_hot_copy_fences_the_original() {
    let mut world = World::new().await;
    let mut old = world.place("journal", "a");
    let new = world.place("copy", "b");
    let mut original = world.start(&old).await;
    world.publish(&original, "a", 2).await;
    copy(&old.journal, &new.journal);
    let hot = world.start(&new).await;
    world.publish(&hot, "b", 3).await;
    world.give(&original, "a", 2).await;
    let fenced = |metrics: &Metrics| Ok(count(metrics, "exact_fenced") == 1.0);
    until(&original, "the fence", fenced).await;
    assert!(
        original
            .ready()
            .await
            .unwrap()
            .unwrap_err()
            .contains(FENCED)
    );

    old.ack_timeout = 3;
    let told = |bridge: &Bridge| bridge.process.output().unwrap().matches(FENCED).count();
    let before = told(&original);
    let renew = || {
        world.configure(&old);
        Ok(())
    };
    original.reload(renew).await.unwrap();
    let decided = async || {
        let pending = count(&original.metrics().await.unwrap(), "journal_pending_events");
        told(&original) > before || pending == 0.0
    };
    wait_for("the new client", SOON, decided).await.unwrap();
    until(&original, "the fence of the new client", fenced).await;
    let pending = count(&original.metrics().await.unwrap(), "journal_pending_events");
    assert_eq!(pending, 20.0);
    world.publish(&hot, "b", 1).await;

    end(original).await;
    let config = old.config.to_str().unwrap();
    let args = ["journal", "new-id", "--yes", "--config", config];
    assert!(world.command(&args).await.contains("has the number"));
    let original = world.start(&old).await;
    confirmed(&original).await;
    world.publish(&original, "a", 1).await;
    world.publish(&hot, "b", 1).await;
    end(original).await;
    end(hot).await;
    world.assert_once().await;
}

/// Holds: a journal that was wiped has no relation to what was before it; one that was set aside is drained beside the new one.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_journal_has_a_progress_of_its_own() {
    let mut world = World::new().await;
    let place = world.place("journal", "a");
    let bridge = world.start(&place).await;
    world.publish(&bridge, "a", 3).await;
    end(bridge).await;
    std::fs::remove_dir_all(&place.journal).unwrap();
    let bridge = world.start(&place).await;
    world.publish(&bridge, "a", 2).await;
    world.nats.kill().await.unwrap();
    world.give(&bridge, "a", 3).await;
    end(bridge).await;

    let aside = world.dir.path().join("aside");
    std::fs::rename(&place.journal, &aside).unwrap();
    world.nats.restart().await.unwrap();
    let bridge = world.start(&place).await;
    world.publish(&bridge, "a", 2).await;
    let (config, dir) = (place.config.to_str().unwrap(), aside.to_str().unwrap());
    let args = ["replay", "--config", config, "--dir", dir, "--sink", "nats"];
    let args = [&args[..], &["--unconfirmed", "--yes"]].concat();
    world.command(&args).await;
    end(bridge).await;
    world.assert_once().await;
    let filter = format!("{}.progress.>", world.name);
    let stream = world.jetstream().await;
    let subjects = stream.info_with_subjects(&filter).await.unwrap();
    let subjects: Vec<_> = subjects.try_collect().await.unwrap();
    assert_eq!(subjects.len(), 3, "{subjects:?}");
}

/// Holds: progress that was purged, or has aged out with all that was stored, is written anew; that is told and counted, and
/// what comes is stored once. So it is where that happened while the bridge was stopped.
#[tokio::test(flavor = "multi_thread")]
async fn lost_progress_is_written_anew() {
    let mut world = World::new().await;
    let place = world.place("journal", "a");
    let bridge = world.start(&place).await;
    world.publish(&bridge, "a", 2).await;
    let filter = format!("{}.progress.>", world.name);
    let purge = async |world: &World| {
        let jetstream = world.jetstream().await;
        let purged = jetstream.purge().filter(filter.clone()).await.unwrap();
        assert_eq!(purged.purged, 1);
    };
    purge(&world).await;
    world.publish(&bridge, "a", 2).await;
    let unknown = |metrics: &Metrics| count(metrics, "exact_progress_unknown_total");
    assert_eq!(unknown(&bridge.metrics().await.unwrap()), 1.0);
    let said = end(bridge).await;
    assert!(
        said.contains("has lost the progress of this lane"),
        "{said}"
    );

    purge(&world).await;
    world.nats.kill().await.unwrap();
    let bridge = world.start(&place).await;
    world.give(&bridge, "a", 2).await;
    world.nats.restart().await.unwrap();
    confirmed(&bridge).await;
    assert_eq!(unknown(&bridge.metrics().await.unwrap()), 1.0);
    world.assert_once().await;

    let age = async |world: &World, max_age| {
        let jetstream = world.nats.jetstream().await.unwrap();
        let mut config = world.jetstream().await.cached_info().config.clone();
        config.max_age = max_age;
        config.duplicate_window = config.duplicate_window.min(Duration::from_millis(200));
        jetstream.update_stream(config).await.unwrap();
    };
    age(&world, Duration::from_millis(200)).await;
    let is_empty = async || world.jetstream().await.cached_info().state.messages == 0;
    wait_for("everything to age out", SOON, is_empty)
        .await
        .unwrap();
    age(&world, Duration::ZERO).await;
    let aged_out = world.given;
    world.publish(&bridge, "a", 2).await;
    assert_eq!(unknown(&bridge.metrics().await.unwrap()), 2.0);
    end(bridge).await;
    world.assert_once_from(aged_out).await;
}

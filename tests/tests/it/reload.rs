//! A new configuration under load: real brokers, the real binary, the simulator's ledger and its judge of the limit.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use rtm_bridge::read_back::Reading;
use rtm_bridge::sinks::{self, Stored};
use rtm_sim::{Faults, Load, SimApp, SimAuth, SimConfig, Simulator};
use rtm_tests::bridge::{Bridge, Metrics};
use rtm_tests::brokers::{self, unique};
use rtm_tests::{binary, wait_for};

const SOON: Duration = Duration::from_secs(30);
const SUCCESSFUL: &str = "rtm_bridge_config_last_reload_successful";
const BUDGET: &str = "rtm_bridge_request_budget_per_second";

/// The configuration file, as Kubernetes has it: a symbolic link that is swapped for another.
pub(super) struct File {
    dir: PathBuf,
    pub(super) path: PathBuf,
    versions: u32,
}

impl File {
    pub(super) fn new(dir: &Path) -> File {
        File {
            dir: dir.to_path_buf(),
            path: dir.join("rtm-bridge.toml"),
            versions: 0,
        }
    }

    pub(super) fn write(&mut self, text: &str) {
        self.versions += 1;
        let real = self.dir.join(format!("version-{}", self.versions));
        let link = self.dir.join("new-link");
        std::fs::write(&real, text).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        std::fs::rename(&link, &self.path).unwrap();
    }

    /// What `check` says is wrong with it.
    fn checked(&self) -> Vec<String> {
        let mut check = Command::new(binary::rtm_bridge().unwrap());
        let checked = check.arg("check").arg("--config").arg(&self.path).output();
        let said = String::from_utf8(checked.unwrap().stderr).unwrap();
        let lines = said
            .lines()
            .filter_map(|line| line.strip_prefix("rtm-bridge: "));
        lines
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect()
    }
}

pub(super) async fn until(
    bridge: &Bridge,
    what: &str,
    holds: impl Fn(&Metrics) -> anyhow::Result<bool>,
) {
    let look = async || {
        let metrics = bridge.metrics().await;
        metrics.is_ok_and(|metrics| holds(&metrics).unwrap_or(false))
    };
    if let Err(error) = wait_for(what, SOON, look).await {
        panic!("{error}\n{}", bridge.process.output().unwrap());
    }
}

/// Has the file read, and waits until it was taken.
pub(super) async fn take(bridge: &mut Bridge, file: &mut File, text: &str) {
    let replace = || {
        file.write(text);
        Ok(())
    };
    if let Err(error) = bridge.reload(replace).await {
        panic!("{error}\n{}", bridge.process.output().unwrap());
    }
    let metrics = bridge.metrics().await.unwrap();
    assert_eq!(metrics.get(SUCCESSFUL), Some(1.0));
}

/// Has the file read, and waits until it was refused, with every one of `says` in the log.
async fn refuse(bridge: &mut Bridge, file: &mut File, text: &str, says: &[String]) {
    let good = std::fs::read_to_string(&file.path).unwrap();
    assert_ne!(good, text);
    file.write(text);
    let says = if says.is_empty() {
        &file.checked()
    } else {
        says
    };
    assert!(!says.is_empty(), "check finds nothing wrong");
    bridge.process.signal(Signal::SIGHUP).unwrap();
    until(bridge, "a refusal", |metrics| {
        Ok(metrics.get(SUCCESSFUL) == Some(0.0))
    })
    .await;
    let log = bridge.process.output().unwrap();
    for line in says {
        assert!(log.contains(line.as_str()), "not in the log: {line}\n{log}");
    }
    take(bridge, file, &good).await;
}

/// Holds: under load a region is added and another removed, the key is rotated, the rate goes down and up again and
/// again, topics and the log level change, an App ID is paused and goes on; broken files are refused as a whole, as
/// `check` would, and what runs stays. Nothing is lost, requests in flight during a change least of all, and no second has more requests
/// than Agora allows.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_under_load_loses_nothing() {
    let (kafka, nats) = brokers::both().await;
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let name = unique("reload");
    let topics = [
        "user_events",
        "channel_events",
        "v2.user_events",
        "v2.channel_events",
    ];
    for topic in topics {
        kafka
            .create_topic(&format!("{name}.{topic}"), 2, &[])
            .await
            .unwrap();
    }
    let app = SimApp::default();
    let app_id = app.app_id.clone();
    let simulator = Simulator::start(SimConfig {
        apps: vec![app],
        regions: ["a", "b", "c"].map(str::to_owned).to_vec(),
        load: Load {
            events_per_second: 600.0,
            ..Load::default()
        },
        // So that requests are in flight at every moment.
        faults: Faults {
            delay_ms: [300, 600],
            ..Faults::default()
        },
        ..SimConfig::default()
    })
    .await
    .unwrap();
    let text = |regions: &[&str], key: &str, rate: u32, version: &str, paused: bool| {
        let regions = regions.iter().map(|region| {
            let url = simulator.base_url(region);
            format!("{{ name = \"{region}\", base_url = \"{url}\" }}")
        });
        let regions: Vec<String> = regions.collect();
        format!(
            "[admin]\nlisten = \"127.0.0.1:0\"\n[journal]\ndir = \"{dir}/journal\"\n\
             [[apps]]\nname = \"main\"\napp_id = \"{app_id}\"\npaused = {paused}\nrequests_per_second = {rate}\n\
             auth = {{ basic = {{ key = \"{key}\", secret = \"demo-secret\" }} }}\nregions = [{regions}]\n\
             [sinks.kafka]\nbrokers = [\"{broker}\"]\ntopic = \"{name}.{version}{{stream}}_events\"\n\
             dead_letter_topic = \"{name}.dead_letters\"\n\
             [sinks.nats]\nservers = [\"{server}\"]\nstream = \"{name}\"\nsubject = \"{name}.{{region}}.{{stream}}\"\n\
             dead_letter_subject = \"{name}.dead_letters\"\ncreate = {{}}\n",
            dir = dir.display(),
            regions = regions.join(", "),
            broker = kafka.address(),
            server = nats.url(),
        )
    };
    let mut file = File::new(dir);
    file.write(&text(&["a", "c"], "demo-key", 10, "", false));
    let mut bridge = Bridge::start(&file.path, &[], &dir.join("log"))
        .await
        .unwrap();
    let fetched = |metrics: &Metrics, region: &str| {
        metrics.sum("rtm_bridge_events_fetched_total", &[("region", region)])
    };
    let polls = |metrics: &Metrics| metrics.sum("rtm_bridge_polls_total", &[]);
    until(&bridge, "events of a and c", |metrics| {
        Ok(fetched(metrics, "a")? > 0.0 && fetched(metrics, "c")? > 0.0)
    })
    .await;

    // A region comes, another goes. Its series are there at once, and those that say "polled" are gone.
    take(
        &mut bridge,
        &mut file,
        &text(&["a", "b"], "demo-key", 10, "", false),
    )
    .await;
    until(&bridge, "events of b", |metrics| {
        Ok(fetched(metrics, "b")? > 0.0)
    })
    .await;
    let metrics = bridge.metrics().await.unwrap();
    assert!(
        metrics
            .sum("rtm_bridge_polls_total", &[("region", "c")])
            .is_err()
    );
    assert!(
        fetched(&metrics, "c").unwrap() > 0.0,
        "what was counted stays"
    );

    // The rate goes down and up while requests are in flight; a limit that is forgotten shows as an eleventh request.
    for rate in [4, 10, 9, 10, 3, 10] {
        take(
            &mut bridge,
            &mut file,
            &text(&["a", "b"], "demo-key", rate, "", false),
        )
        .await;
        let metrics = bridge.metrics().await.unwrap();
        assert_eq!(metrics.sum(BUDGET, &[]).unwrap(), f64::from(rate));
    }

    // A key is rotated at Agora, and then here: refused requests have cost nothing.
    let second = |secret: &str| SimAuth::Basic {
        key: "second-key".to_owned(),
        secret: secret.to_owned(),
    };
    simulator.set_auth(&app_id, second("demo-secret"));
    until(&bridge, "a refused request", |metrics| {
        Ok(metrics.sum("rtm_bridge_credentials_refused_total", &[])? > 0.0)
    })
    .await;
    let good = text(&["a", "b"], "second-key", 10, "v2.", false);
    // This one by its content alone, through the swapped link.
    let before = bridge.metrics().await.unwrap();
    file.write(&good);
    until(&bridge, "events after the rotation", |metrics| {
        Ok(fetched(metrics, "a")? > fetched(&before, "a")?)
    })
    .await;

    // Broken, in several ways, each with a rate that must not be taken.
    let other = text(&["a", "b"], "second-key", 7, "v2.", false);
    refuse(
        &mut bridge,
        &mut file,
        &other.replace("[journal]", "[journal"),
        &[],
    )
    .await;
    refuse(
        &mut bridge,
        &mut file,
        &other.replace("paused", "pausd"),
        &[],
    )
    .await;
    let restart = other.replace("/journal\"", "/elsewhere\"");
    let says = ["journal.dir: needs a restart to change".to_owned()];
    let budget = async |bridge: &Bridge| bridge.metrics().await.unwrap().sum(BUDGET, &[]).unwrap();
    refuse(&mut bridge, &mut file, &restart, &says).await;
    assert!(!dir.join("elsewhere").exists());
    assert_eq!(budget(&bridge).await, 10.0);

    // Paused: nothing more is asked, the bridge is ready, and then it goes on.
    take(
        &mut bridge,
        &mut file,
        &text(&["a", "b"], "second-key", 10, "v2.", true),
    )
    .await;
    let paused = bridge.metrics().await.unwrap();
    assert_eq!(paused.get("rtm_bridge_app_paused{app=\"main\"}"), Some(1.0));
    // Longer than any answer takes.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let requests = simulator.stats().apps[0].requests;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(simulator.stats().apps[0].requests, requests);
    assert_eq!(bridge.ready().await.unwrap(), Ok(()));
    take(&mut bridge, &mut file, &good).await;
    let polled = polls(&paused).unwrap();
    until(&bridge, "polls after the pause", |metrics| {
        Ok(polls(metrics)? > polled + 4.0)
    })
    .await;

    simulator.stop_generating();
    let quiet = async || {
        let metrics = bridge.metrics().await.unwrap();
        let pending = metrics
            .sum("rtm_bridge_journal_pending_events", &[])
            .unwrap();
        let rings = simulator.stats().rings;
        let waiting: u64 = (rings.iter().filter(|ring| ring.region != "c"))
            .map(|ring| ring.waiting)
            .sum();
        let handed_out: u64 = rings.iter().map(|ring| ring.handed_out).sum();
        let fetched = metrics.sum("rtm_bridge_events_fetched_total", &[]).unwrap();
        pending == 0.0 && waiting == 0 && fetched >= handed_out as f64
    };
    let settled = wait_for("everything to be confirmed", SOON, quiet).await;
    let log = bridge.process.output().unwrap();
    if let Err(error) = settled {
        panic!("{error}: {:?}\n{log}", simulator.stats());
    }
    let metrics = bridge.metrics().await.unwrap();
    let lost = metrics
        .sum("rtm_bridge_events_possibly_lost_total", &[])
        .unwrap();
    assert_eq!(lost, 0.0);
    let quieter = format!("{good}[log]\nlevel = \"warn\"\n");
    take(&mut bridge, &mut file, &quieter).await;
    assert!(bridge.process.terminate(SOON).await.unwrap().success());
    let log = bridge.process.output().unwrap();
    assert!(!log.contains("all_published=true"), "it still logs: {log}");

    let stats = simulator.stats();
    assert!(stats.apps[0].max_in_second <= 10, "{:?}", stats.apps);
    let ledger = simulator.ledger();
    let mut in_kafka = Reading::new(&ledger);
    for (number, topic) in topics.iter().enumerate() {
        let offset = 100 * i32::try_from(number).unwrap();
        let mut records = 0;
        let topic = format!("{name}.{topic}");
        sinks::kafka::read_back(&kafka.client(), &topic, false, |stored| {
            records += 1;
            in_kafka.observe(&Stored {
                partition: stored.partition + offset,
                ..*stored
            });
        })
        .unwrap();
        assert!(records > 0, "{topic} is empty");
    }
    let mut findings = in_kafka.finish("kafka").findings;
    // Keys went on in other topics, as the configuration said.
    findings.split_key_count = 0;
    assert!(findings.clean(), "kafka: {findings:?}");
    let client = async_nats::connect(nats.url()).await.unwrap();
    let mut in_nats = Reading::new(&ledger);
    let is_dead = |subject: &str| subject.ends_with(".dead_letters");
    sinks::nats::read_back(
        &async_nats::jetstream::new(client),
        &name,
        is_dead,
        |stored| in_nats.observe(stored),
    )
    .await
    .unwrap();
    let findings = in_nats.finish("nats").findings;
    assert!(findings.clean(), "nats: {findings:?}");
}

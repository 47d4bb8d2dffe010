//! The dashboard as a person sees it, of a bridge that is well and of one whose Kafka is away.

use std::path::{Path, PathBuf};
use std::time::Instant;

use rtm_sim::{Faults, Load, SimApp, SimConfig, Simulator};
use rtm_tests::bridge::{Bridge, http_client};
use rtm_tests::brokers::{self, Kafka, Nats, unique};
use rtm_tests::monitoring::{Drawing, Drawn, Prometheus, Span};
use rtm_tests::wait_for;
use serde_json::{Value, json};

use super::{SOON, dashboard, substituted};

/// The names that App IDs have here are as long as people's are.
fn app(number: u32) -> (String, String) {
    (
        format!("production-chat-{number:03}"),
        format!("{number:032x}"),
    )
}

const REGIONS: [&str; 2] = ["eu-west-1", "ap-southeast-1"];

/// What is watched.
struct Watched {
    simulator: Simulator,
    bridge: Bridge,
    prometheus: Prometheus,
}

/// A bridge with `count` App IDs under load, and its Prometheus.
async fn watched(count: u32, dir: &Path, kafka: &Kafka, nats: &Nats) -> Watched {
    let name = unique("drawn");
    for end in ["user_events", "channel_events", "dead_letters"] {
        let topic = format!("{name}.{end}");
        kafka.create_topic(&topic, 4, &[]).await.unwrap();
    }
    let apps = || (1..=count).map(app);
    let simulator = Simulator::start(SimConfig {
        apps: apps()
            .map(|(_, app_id)| SimApp {
                app_id,
                ..SimApp::default()
            })
            .collect(),
        regions: REGIONS.map(str::to_owned).to_vec(),
        load: Load {
            events_per_second: 300.0 / f64::from(count),
            ..Load::default()
        },
        ..SimConfig::default()
    })
    .await
    .unwrap();
    let regions = REGIONS.map(|region| {
        let url = simulator.base_url(region);
        format!("{{ name = \"{region}\", base_url = \"{url}\" }}")
    });
    // As many requests as a busy machine can answer in time.
    let rate = if count > 10 { 1 } else { 4 };
    let sections: String = apps()
        .map(|(name, app_id)| {
            format!(
                "[[apps]]\nname = \"{name}\"\napp_id = \"{app_id}\"\nrequests_per_second = {rate}\n\
                 auth = {{ basic = {{ key = \"demo-key\", secret = \"demo-secret\" }} }}\nregions = [{}]\n",
                regions.join(", ")
            )
        })
        .collect();
    let text = format!(
        "[admin]\nlisten = \"127.0.0.1:0\"\n[journal]\ndir = \"{dir}/journal\"\nmax_bytes = \"32GiB\"\n{sections}\
         [sinks.kafka]\nbrokers = [\"{broker}\"]\ntopic = \"{name}.{{stream}}_events\"\n\
         dead_letter_topic = \"{name}.dead_letters\"\n\
         [sinks.nats]\nservers = [\"{server}\"]\nstream = \"{name}\"\nsubject = \"{name}.{{region}}.{{stream}}\"\n\
         dead_letter_subject = \"{name}.dead_letters\"\ncreate = {{}}\natomic_batches = \"off\"\n",
        dir = dir.display(),
        broker = kafka.address(),
        server = nats.url(),
    );
    let config = dir.join("rtm-bridge.toml");
    std::fs::write(&config, text).unwrap();
    let bridge = Bridge::start(&config, &[], &dir.join("bridge.log"))
        .await
        .unwrap();
    let target = bridge.admin.trim_start_matches("http://");
    let rules = dir.join("rules.yml");
    std::fs::write(&rules, "groups: []\n").unwrap();
    let prometheus = Prometheus::start(target, &rules).await.unwrap();
    Watched {
        simulator,
        bridge,
        prometheus,
    }
}

impl Watched {
    /// Has everything go wrong at the source, so that legends are at their longest, and waits until Prometheus knows.
    async fn trouble(&self) {
        let load = Load {
            events_per_second: 1500.0,
            odd: 0.3,
            ..Load::default()
        };
        let faults = Faults {
            status: 0.3,
            cut: 0.1,
            closed: 0.1,
            delay_ms: [1000, 1500],
            ..Faults::default()
        };
        let client = http_client().unwrap();
        let told = [("load", json!(load)), ("faults", json!(faults))];
        for (what, body) in told {
            let url = format!("http://{}/_sim/{what}", self.simulator.addr());
            let answer = client.put(url).json(&body).send().await.unwrap();
            assert!(answer.status().is_success(), "{what}");
        }
        let is_told = "count(sum by (reason) (rtm_bridge_records_dead_lettered_total > 0)) > 4
            and count(sum by (reason) (rtm_bridge_events_possibly_lost_total > 0)) > 1
            and sum(rtm_bridge_overflow_suspected_total) > 0
            and sum(rtm_bridge_rate_limited_total) > 0
            and sum(rtm_bridge_credentials_refused_total) > 0";
        wait_for("trouble of every kind", 2 * SOON, async || {
            !self.prometheus.query(is_told).await.unwrap().is_empty()
        })
        .await
        .unwrap();
    }
}

/// Where a person looks at the pictures.
fn picture(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dashboard");
    std::fs::create_dir_all(&dir).unwrap();
    dir.join(format!("{name}.png"))
}

/// What is wrong with panels: errors, queries without data, texts that are cut off, too small or on one another.
fn wrong(panels: &[Drawn], picture: &Path) -> Vec<String> {
    assert!(panels.len() > 30, "{} panels", panels.len());
    let is_wrong = |panel: &&Drawn| {
        !panel.errors.is_empty() || !panel.bad.is_empty() || panel.queries.contains(&0)
    };
    let wrong = panels.iter().filter(is_wrong);
    wrong
        .map(|panel| format!("{}: {panel:#?}", picture.display()))
        .collect()
}

fn panel<'a>(panels: &'a [Drawn], title: &str) -> &'a Drawn {
    panels.iter().find(|panel| panel.title == title).unwrap()
}

/// Holds: with 3 App IDs and with 200, every panel is drawn within seconds, has data, and is legible. Nothing is red while
/// all is well, and nothing is cut off while everything goes wrong. While Kafka is away its sink is red, and the time until the journal is full is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_person_sees_what_goes_on() {
    let document = dashboard().unwrap().document;
    let mut kafka = Kafka::start_own().await.unwrap();
    let nats = brokers::nats().await;
    let mut drawing = Drawing::start().await.unwrap();
    let mut found = Vec::new();
    for apps in [3, 200] {
        let temp = tempfile::tempdir().unwrap();
        let began = Instant::now();
        let watched = watched(apps, temp.path(), &kafka, nats).await;
        let prometheus = &watched.prometheus;
        let mut draw = async |name: &str| {
            let picture = picture(&format!("{apps}-{name}"));
            let span = Span {
                seconds: began.elapsed().as_secs(),
                scrape: 1,
            };
            let start = Instant::now();
            let drawn = drawing
                .draw(&document, prometheus, span, &picture)
                .await
                .unwrap();
            println!("{} took {:.1?}", picture.display(), start.elapsed());
            found.extend(wrong(&drawn, &picture));
            drawn
        };
        // So that graphs have something to show.
        wait_for("twenty scrapes", 2 * SOON, async || {
            let scrapes = prometheus.query("sum_over_time(up[1h])").await.unwrap();
            let are_enough = scrapes.iter().any(|scrapes| scrapes.value >= 30.0);
            are_enough && matches!(watched.bridge.ready().await, Ok(Ok(())))
        })
        .await
        .unwrap();
        let panels = draw("well").await;
        let red = panels.iter().filter(|panel| panel.red > 0);
        let red: Vec<_> = red
            .map(|panel| format!("{apps}, red, and all is well: {panel:#?}"))
            .collect();

        kafka.pause().await.unwrap();
        told(prometheus).await;
        let panels = draw("outage").await;
        let sinks = panel(&panels, "Sinks up");
        assert!(sinks.text.contains("DOWN") && sinks.red > 1000, "{sinks:?}");
        let time = panel(&panels, "Time until the journal is full");
        let units = ["min", "hour", "day"];
        assert!(
            units.iter().any(|unit| time.text.contains(unit)) && !time.text.contains('>'),
            "{time:?}"
        );
        kafka.resume().await.unwrap();
        if apps == 3 {
            watched.trouble().await;
            draw("trouble").await;
        }
        found.extend(red);
        if apps == 3 {
            what_is_wrong_is_found(&mut drawing, &document, prometheus).await;
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Holds: the check finds a panel of a kind that cannot be drawn, an option that is none, a query that is none, one
/// without data, a title that is cut off, names that are too small, and what is red.
async fn what_is_wrong_is_found(drawing: &mut Drawing, document: &Value, prometheus: &Prometheus) {
    let mut document = document.clone();
    let row = document["panels"].as_array_mut().unwrap();
    let mut change = |title: &str, place: &str, value: Value| {
        let panel = row.iter_mut().find(|panel| panel["title"] == title);
        *panel.unwrap().pointer_mut(place).unwrap() = value;
    };
    change("Losses at Agora", "/type", json!("state-timeline"));
    let defaults = json!({ "unheardOf": 1, "thresholds": { "steps": [] } });
    change("Unaccounted for", "/fieldConfig/defaults", defaults);
    change("Sinks up", "/targets/0/expr", json!("min by ("));
    change("Running for", "/targets/0/expr", json!("unheard_of"));
    change(
        "Given up after storing",
        "/title",
        json!("Given up ".repeat(9)),
    );
    change(
        "Last successful poll",
        "/options/orientation",
        json!("vertical"),
    );
    let steps = json!([{ "value": null, "color": "red" }]);
    change(
        "Possibly lost at Agora",
        "/fieldConfig/defaults/thresholds/steps",
        steps,
    );
    let span = Span {
        seconds: 30,
        scrape: 1,
    };
    let drawn = drawing
        .draw(&document, prometheus, span, &picture("wrong"))
        .await
        .unwrap();
    for (title, found) in [
        ("Losses at Agora", "state-timeline cannot be drawn"),
        ("Unaccounted for", "unheardOf"),
        ("Sinks up", "parse error"),
        ("Running for", "queries: [0]"),
        ("Given up", "cut off: Given up"),
        ("Last successful poll", "too small"),
    ] {
        let panel = drawn.iter().find(|panel| panel.title.starts_with(title));
        let panel = format!("{:?}", panel.unwrap());
        assert!(panel.contains(found), "{panel}");
    }
    assert!(panel(&drawn, "Possibly lost at Agora").red > 1000);
}

/// Waits until Prometheus knows of the outage, and when the journal will be full.
async fn told(prometheus: &Prometheus) {
    let dashboard = dashboard().unwrap();
    let panel = dashboard
        .panels
        .iter()
        .find(|panel| panel.title.starts_with("Time until"));
    let time = substituted(&panel.unwrap().queries[0].expression, ".*");
    wait_for("an outage and its end to be told", SOON, async || {
        let down = prometheus.query("rtm_bridge_sink_up == 0").await.unwrap();
        let soon = format!("({time}) < 8640000");
        !down.is_empty() && !prometheus.query(&soon).await.unwrap().is_empty()
    })
    .await
    .unwrap();
}

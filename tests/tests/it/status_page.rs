//! The status page in a real browser, of a real bridge whose Kafka goes away under load.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rtm_sim::SimApp;
use rtm_tests::bridge::{Bridge, Simulator, http_client};
use rtm_tests::brokers::{self, Kafka, Nats};
use rtm_tests::browser::{Browser, View};
use rtm_tests::monitoring::text;
use serde_json::Value;

use super::reload::{File, take};
use super::simulated;
use super::two_regions::{TwoRegions, two_regions};

const SOON: Duration = Duration::from_secs(60);

/// Within which time the first screen must say it.
const TOLD: Duration = Duration::from_secs(5);

const PHONE: View = View {
    width: 360,
    height: 740,
    dark: false,
};
const DESKTOP: View = View {
    width: 1280,
    height: 800,
    dark: false,
};

async fn bridge(dir: &Path, kafka: &Kafka, nats: &Nats) -> (Bridge, Simulator) {
    let TwoRegions {
        simulator, config, ..
    } = two_regions("page", &["--rate", "800"], false, dir, kafka, nats).await;
    let bridge = Bridge::start(&config, &[], &dir.join("bridge.log"))
        .await
        .unwrap();
    (bridge, simulator)
}

/// Waits until the page's text at `selector` is as wanted; gives it, and how long it took.
async fn until(
    browser: &mut Browser,
    selector: &str,
    deadline: Duration,
    wanted: impl Fn(&str) -> bool,
) -> (String, Duration) {
    let began = Instant::now();
    loop {
        let text = browser.text(selector).await.unwrap();
        if wanted(&text) {
            return (text, began.elapsed());
        }
        assert!(began.elapsed() < deadline, "after {deadline:?}: {text}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The time of day after `since`, as it is today.
fn since(text: &str) -> Timestamp {
    let (_, rest) = text.split_once("since ").unwrap();
    let today = Timestamp::now().to_string();
    let (day, _) = today.split_once('T').unwrap();
    format!("{day}T{}Z", &rest[..8]).parse().unwrap()
}

/// Looks at the page as it is now on a phone and on a desktop, in light and in dark.
async fn look(browser: &mut Browser, name: &str) {
    let pictures = std::env::var_os("RTM_TEST_PICTURES");
    for (device, view) in [("phone", PHONE), ("desktop", DESKTOP)] {
        for dark in [false, true] {
            browser.view(View { dark, ..view }).await.unwrap();
            let fits = "document.documentElement.scrollWidth <= innerWidth";
            assert_eq!(browser.evaluate(fits).await.unwrap(), true, "{device}");
            let first = "document.querySelector(\".finding\").getBoundingClientRect().bottom <= innerHeight";
            assert_eq!(browser.evaluate(first).await.unwrap(), true, "{device}");
            let pale: Value = browser.evaluate(PALE).await.unwrap();
            assert_eq!(pale, Value::Array(Vec::new()), "{device}, dark: {dark}");
            if let Some(dir) = &pictures {
                let scheme = if dark { "dark" } else { "light" };
                let path = |whole: &str| {
                    Path::new(dir).join(format!("{name}-{device}-{scheme}{whole}.png"))
                };
                browser.screenshot(&path(""), false).await.unwrap();
                browser.screenshot(&path("-whole"), true).await.unwrap();
            }
        }
    }
}

/// Opens the configuration without a mouse. It has the hosts, and no secret.
async fn by_keyboard(browser: &mut Browser) {
    let focused = "document.activeElement.matches(\"summary\") && document.activeElement.matches(\":focus-visible\")";
    for _ in 0..10 {
        browser.press("Tab", 9, "").await.unwrap();
        if browser.evaluate(focused).await.unwrap() == true {
            break;
        }
    }
    assert_eq!(browser.text("#settings").await.unwrap(), "");
    browser.press("Enter", 13, "\r").await.unwrap();
    let settings = browser.text("#settings").await.unwrap();
    assert!(settings.contains("a at http://127.0.0.1:"), "{settings}");
    for secret in [
        "demo-key",
        "demo-secret",
        "876922cbca0098dff4323566daa89675",
    ] {
        let everything = browser
            .evaluate("document.documentElement.outerHTML")
            .await
            .unwrap();
        assert!(!everything.as_str().unwrap().contains(secret), "{secret}");
    }
    // It is refreshed, and stays as it is.
    let clock = browser.text("#clock").await.unwrap();
    until(browser, "#clock", SOON, |text| text != clock).await;
    assert!(browser.evaluate(focused).await.unwrap() == true);
    assert_ne!(browser.text("#settings").await.unwrap(), "");
}

/// Holds: `docs/status.md` has every field of `/status.json`, and no other; the document's version is its own.
fn every_field_is_documented(document: &Value) {
    fn fields<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(object) => {
                for (name, value) in object {
                    found.insert(name);
                    fields(value, found);
                }
            }
            Value::Array(values) => values.iter().for_each(|value| fields(value, found)),
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    fields(document, &mut found);
    let text = text("docs/status.md").unwrap();
    let documented: BTreeSet<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    assert_eq!(documented, found);
    assert!(text.contains(&format!("version {}", document["v"])));
}

/// Texts whose contrast to what is behind them is below WCAG's 4.5.
const PALE: &str = r#"(() => {
    const light = (colour) => {
        const [r, g, b] = colour.match(/[\d.]+/g).slice(0, 3).map((c) => c / 255)
            .map((c) => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4);
        return .2126 * r + .7152 * g + .0722 * b;
    };
    const behind = (of) => {
        for (; of; of = of.parentElement) {
            const colour = getComputedStyle(of).backgroundColor;
            if (!/, 0\)$/.test(colour)) return colour;
        }
        throw new Error("no background");
    };
    const pale = new Set();
    let looked = 0;
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const of = texts.currentNode.parentElement;
        if (!texts.currentNode.data.trim() || !of.checkVisibility() || of.closest("script")) continue;
        looked += 1;
        const [a, b] = [light(getComputedStyle(of).color), light(behind(of))].sort((a, b) => b - a);
        if ((a + .05) / (b + .05) < 4.5) pale.add(texts.currentNode.data);
    }
    if (looked < 30) throw new Error(`only ${looked} texts`);
    return [...pale];
})()"#;

/// Holds: within five seconds of an outage of Kafka under load the first screen says in words which sink is down, since
/// when, how much waits, and that polling goes on; then that it is up again; and that contact is lost when it is. On a
/// phone and a desktop, in light and dark, with nothing cut off and nothing pale, and by keyboard. The page asks its own server only,
/// and breaks no policy of its own.
#[tokio::test(flavor = "multi_thread")]
async fn says_within_five_seconds_what_is_down() {
    let temp = tempfile::tempdir().unwrap();
    let mut kafka = Kafka::start_own().await.unwrap();
    let (mut bridge, _simulator) = bridge(temp.path(), &kafka, brokers::nats().await).await;
    let mut browser = Browser::open(&bridge.admin).await.unwrap();
    browser.view(PHONE).await.unwrap();
    let flows = |text: &str| text.contains("Nothing is lost; everything flows.");
    until(&mut browser, "#findings", SOON, flows).await;

    let before = bridge.metrics().await.unwrap();
    let at = Timestamp::now();
    kafka.pause().await.unwrap();
    let silent =
        |text: &str| text.contains("Kafka seems to be down: it has confirmed nothing since");
    let (text, took) = until(&mut browser, ".finding", TOLD, silent).await;
    println!("said after {took:.1?}: {text}");
    assert!(text.contains("events wait for it in the journal"), "{text}");
    assert!(
        text.contains("polling goes on, and nothing is lost"),
        "{text}"
    );
    // The page's times have no fractions; the last batch may have been confirmed just before.
    let off = since(&text).duration_since(at).as_secs_f64();
    assert!((-2.0..2.0).contains(&off), "{off} s: {text}");
    assert!(
        browser
            .text("#sinks")
            .await
            .unwrap()
            .contains("silent since")
    );
    if std::env::var_os("RTM_TEST_PICTURES").is_some() {
        look(&mut browser, "silent").await;
    }

    let down = |text: &str| text.contains("Kafka is down since");
    let (text, _) = until(&mut browser, ".finding", SOON, down).await;
    let off = since(&text).duration_since(at).as_secs_f64();
    assert!((-2.0..2.0).contains(&off), "{off} s: {text}");
    let fetched = "rtm_bridge_events_fetched_total";
    let after = bridge.metrics().await.unwrap();
    let more = after.sum(fetched, &[]).unwrap() - before.sum(fetched, &[]).unwrap();
    assert!(more > 0.0, "the page says that polling goes on");
    look(&mut browser, "down").await;

    by_keyboard(&mut browser).await;

    kafka.resume().await.unwrap();
    until(&mut browser, "#findings", SOON, flows).await;
    look(&mut browser, "good").await;

    let client = http_client().unwrap();
    let page = client.get(format!("{}/status", bridge.admin)).send();
    let page = page.await.unwrap();
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    assert!(
        policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"),
        "{policy}"
    );
    let document = client
        .get(format!("{}/status.json?app=main", bridge.admin))
        .send();
    let document = document.await.unwrap().bytes().await.unwrap();
    every_field_is_documented(&serde_json::from_slice(&document).unwrap());

    let seen = browser.seen().await.unwrap();
    assert!(seen.requests.len() > 5, "{seen:?}");
    let foreign = seen
        .requests
        .iter()
        .find(|url| !url.starts_with(&format!("{}/", bridge.admin)) && !url.starts_with("data:"));
    assert_eq!(foreign, None);
    assert_eq!(seen.errors, Vec::<String>::new());

    bridge.process.kill().unwrap();
    let gone = |text: &str| text.contains("No contact with the bridge since");
    let (_, took) = until(&mut browser, "#lost", SOON, gone).await;
    assert!(took <= 2 * TOLD, "{took:?}");
}

/// Holds: an App ID that is paused is named on the first screen, with since when, and its rings stay, as paused; so it is
/// with every App ID paused, and then nothing is said to flow. On a phone and a desktop, in light and dark.
#[tokio::test(flavor = "multi_thread")]
async fn says_what_is_paused() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let ids = [
        SimApp::default().app_id,
        "0123456789abcdef0123456789abcdef".to_owned(),
    ];
    let app_ids = ids.each_ref().map(String::as_str);
    let simulator = simulated::of(&app_ids, &["a"], rtm_sim::Load::default()).await;
    let text = |paused: [bool; 2]| {
        let apps = ["game", "chat"].iter().zip(&ids).zip(paused);
        let apps = apps.map(|((name, app_id), paused)| {
            let url = simulator.base_url("a");
            format!(
                "[[apps]]\nname = \"{name}\"\napp_id = \"{app_id}\"\npaused = {paused}\n\
                 auth = {{ basic = {{ key = \"demo-key\", secret = \"demo-secret\" }} }}\n\
                 regions = [{{ name = \"a\", base_url = \"{url}\" }}]\n"
            )
        });
        let apps: String = apps.collect();
        let dir = dir.display();
        format!(
            "[admin]\nlisten = \"127.0.0.1:0\"\n[journal]\ndir = \"{dir}/journal\"\n{apps}\
             [sinks.file]\npath = \"{dir}/events.jsonl\"\n"
        )
    };
    let mut file = File::new(dir);
    file.write(&text([false, false]));
    let mut bridge = Bridge::start(&file.path, &[], &dir.join("log"))
        .await
        .unwrap();
    let mut browser = Browser::open(&bridge.admin).await.unwrap();
    browser.view(PHONE).await.unwrap();
    let flows = |text: &str| text.contains("Nothing is lost; everything flows.");
    until(&mut browser, "#findings", SOON, flows).await;

    let at = Timestamp::now();
    take(&mut bridge, &mut file, &text([false, true])).await;
    let paused = |text: &str| text.contains("Polling of chat is paused since");
    let (said, _) = until(&mut browser, ".finding", TOLD, paused).await;
    let off = since(&said).duration_since(at).as_secs_f64();
    assert!((-2.0..2.0).contains(&off), "{off} s: {said}");
    let findings = browser.text("#findings").await.unwrap();
    assert!(findings.contains("Everything else flows."), "{findings}");
    let rings = browser.text("#rings").await.unwrap();
    assert_eq!(rings.matches("paused").count(), 2, "{rings}");
    for ring in [
        "chat a user",
        "chat a channel",
        "game a user",
        "game a channel",
    ] {
        assert!(rings.contains(ring), "{ring}: {rings}");
    }
    look(&mut browser, "paused").await;

    take(&mut bridge, &mut file, &text([true, true])).await;
    let all = |text: &str| text.contains("Polling of game is paused since");
    let (said, _) = until(&mut browser, "#findings", TOLD, all).await;
    assert!(paused(&said) && !said.contains("flow"), "{said}");
    let seen = browser.seen().await.unwrap();
    assert_eq!(seen.errors, Vec::<String>::new());
}

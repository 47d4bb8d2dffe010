//! The endpoints as documented.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rtm_sim::{Load, SimApp, SimAuth, SimConfig, Simulator, StartError, Stream};

use super::{APP, REGION, client, fetch, get, open, quiet, start, url, wait_until};

/// A page holds the oldest 1,000 of the newest 2,000, byte for byte, and nothing is had twice.
#[tokio::test]
async fn a_read_deletes() {
    let sim = start(quiet()).await;
    let events: Vec<String> = (0..2_500)
        .map(|n| format!(r#"{{"user_id" : "é{n}", "ms":1e400}}"#))
        .collect();
    let events: Vec<&str> = events.iter().map(String::as_str).collect();
    sim.push(APP, REGION, Stream::User, &events);
    let client = client();
    for page in [&events[500..1_500], &events[1_500..]] {
        let got = get(&client, &url(&sim, REGION, APP, "user")).await;
        assert!(got.complete);
        let id = got.headers["x-request-id"].to_str().unwrap();
        let expected = format!(
            r#"{{"result":"success","request_id":"{id}","events":[{}]}}"#,
            page.join(",")
        );
        assert_eq!(String::from_utf8(got.body).unwrap(), expected);
    }
    assert_eq!(
        get(&client, &url(&sim, REGION, APP, "user")).await.events(),
        0
    );
    let stats = sim.stats();
    let ring = &stats.rings[0];
    assert_eq!(
        (
            ring.generated,
            ring.overwritten,
            ring.handed_out,
            ring.waiting
        ),
        (2_500, 500, 2_000, 0)
    );
    sim.shutdown().await;
}

/// Regions and streams are rings of their own, and both spellings of the path read the same one.
#[tokio::test]
async fn rings_are_apart() {
    let sim = start(quiet()).await;
    sim.push(APP, REGION, Stream::User, &["1"]);
    sim.push(APP, REGION, Stream::Channel, &["2"]);
    sim.push(APP, "us-east-1", Stream::Channel, &["3"]);
    let client = client();
    let us = url(&sim, "us-east-1", APP, "channel").replace("/vendor/", "/hook/");
    assert_eq!(
        get(&client, &us).await.json()["events"],
        serde_json::json!([3])
    );
    assert_eq!(
        get(&client, &url(&sim, REGION, APP, "channel"))
            .await
            .json()["events"],
        serde_json::json!([2])
    );
    assert_eq!(
        get(&client, &url(&sim, REGION, APP, "user")).await.json()["events"],
        serde_json::json!([1])
    );
}

/// What is not the API is refused as its gateway refuses it, and nothing is deleted or counted.
#[tokio::test]
async fn refusals_are_as_documented() {
    let sim = start(quiet()).await;
    sim.push(APP, REGION, Stream::User, &["1"]);
    let client = client();
    let right = url(&sim, REGION, APP, "user");
    let no_route = "no Route matched with those values";
    for (wrong, status, message) in [
        (right.replace(REGION, "mars-1"), 404, no_route),
        (right.replace("user_events", "User_events"), 404, no_route),
        (right.replace("vendor", "vendors"), 404, no_route),
        (format!("{right}/"), 404, no_route),
        (right.replace(APP, "app-2"), 400, "appid is invalid"),
    ] {
        let got = get(&client, &wrong).await;
        assert_eq!(
            (got.status, &got.json()["message"]),
            (status, &message.into()),
            "{wrong}"
        );
    }
    assert_eq!(fetch(client.post(&right)).await.status, 404);
    assert_eq!(
        (sim.stats().apps[0].requests, sim.stats().rings[0].waiting),
        (0, 1)
    );
    assert_eq!(get(&client, &format!("{right}?limit=5")).await.events(), 1);
}

/// Each kind of credentials is accepted where it belongs, and nowhere else.
#[tokio::test]
async fn credentials_are_checked() {
    let auths = [
        SimAuth::Basic {
            key: "k".into(),
            secret: "s:t".into(),
        },
        SimAuth::Token {
            token: "006t".into(),
            uid: "u".into(),
        },
        SimAuth::Agora {
            token: "007t".into(),
        },
    ];
    let apps = auths.iter().enumerate();
    let config = SimConfig {
        apps: apps
            .map(|(n, auth)| SimApp {
                app_id: n.to_string(),
                auth: auth.clone(),
            })
            .collect(),
        ..quiet()
    };
    let sim = start(config).await;
    let client = client();
    let unauthorized = (401, "Unauthorized");
    let basic = (401, "Invalid authentication credentials");
    let token = (401, "invalid token");
    let old = [("x-agora-token", "007t"), ("x-agora-uid", "u")];
    type Headers<'a> = &'a [(&'a str, &'a str)];
    let cases: [(usize, Headers<'_>, (u16, &str)); 9] = [
        (0, &[("authorization", "Basic azpzOnQ=")], (200, "")),
        (0, &[("authorization", "Basic azpz")], basic),
        (0, &[], unauthorized),
        (
            1,
            &[("x-agora-token", "006t"), ("x-agora-uid", "u")],
            (200, ""),
        ),
        (1, &[("x-agora-token", "006t"), ("x-agora-uid", "v")], token),
        (1, &[("x-agora-token", "006t")], unauthorized),
        (2, &[("authorization", "agora token=007t")], (200, "")),
        (2, &[("authorization", "agora token=006t")], token),
        (2, &old, unauthorized),
    ];
    for (app, headers, (status, message)) in cases {
        let mut request = client.get(url(&sim, REGION, &app.to_string(), "user"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let got = fetch(request).await;
        assert_eq!(got.status, status, "{app} {headers:?}");
        if status != 200 {
            assert_eq!(got.json()["message"], message, "{app} {headers:?}");
        }
    }
    assert_eq!(
        sim.stats()
            .apps
            .iter()
            .map(|app| app.unauthorized)
            .sum::<u64>(),
        6
    );
}

/// The eleventh request in a second is refused and deletes nothing, whichever ring it asks for; another App ID is not
/// concerned.
#[tokio::test]
async fn the_eleventh_request_is_refused() {
    let config = SimConfig {
        apps: vec![open(APP), open("other")],
        ..quiet()
    };
    let sim = start(config).await;
    let client = client();
    let urls: Vec<String> = [
        (REGION, "user"),
        (REGION, "channel"),
        ("us-east-1", "user"),
        ("us-east-1", "channel"),
    ]
    .map(|(region, stream)| url(&sim, region, APP, stream))
    .to_vec();
    // On a machine that takes more than a second for eleven requests, the limit is not met: try again.
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let begun = Instant::now();
        let mut statuses = Vec::new();
        for turn in 0..11 {
            sim.push(APP, REGION, Stream::User, &["1"]);
            statuses.push(get(&client, &urls[turn % 4]).await.status);
        }
        if begun.elapsed() < Duration::from_secs(1) {
            assert_eq!(statuses[..10], [200; 10]);
            assert_eq!(statuses[10], 429);
            break;
        }
        assert!(
            Instant::now() < deadline,
            "eleven requests take more than a second"
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(
        get(&client, &url(&sim, REGION, "other", "user"))
            .await
            .status,
        200
    );
    let waiting = sim.stats().rings[0].waiting;
    let got = get(&client, &urls[0]).await;
    assert_eq!(got.status, 429, "the second is not over");
    assert_eq!(got.json()["message"], "API rate limit exceeded");
    let stats = sim.stats();
    assert_eq!(stats.rings[0].waiting, waiting);
    assert!(
        stats.apps[0].refused_429 >= 2 && stats.apps[0].max_in_second >= 12,
        "{stats:?}"
    );
    assert_eq!(
        (stats.apps[1].refused_429, stats.apps[1].max_in_second),
        (0, 1)
    );
}

/// An empty poll looks like nothing in particular.
#[tokio::test]
async fn empty_polls_vary() {
    let apps: Vec<SimApp> = (0..6).map(|n| open(&n.to_string())).collect();
    let sim = start(SimConfig { apps, ..quiet() }).await;
    let client = client();
    let (mut forms, mut ids) = (HashSet::new(), HashSet::new());
    for n in 0..48 {
        let got = get(&client, &url(&sim, REGION, &(n % 6).to_string(), "user")).await;
        assert_eq!(
            (got.status, got.complete, &got.json()["result"]),
            (200, true, &"success".into())
        );
        forms.insert(got.json().get("events").map(ToString::to_string));
        assert!(ids.insert(got.json()["request_id"].as_str().unwrap().to_owned()));
    }
    assert_eq!(
        forms,
        HashSet::from([None, Some("null".to_owned()), Some("[]".to_owned())])
    );
    assert!(sim.ledger().pages.is_empty());
}

/// Events arrive by themselves, at about the rate that was asked for, until they are stopped.
#[tokio::test]
async fn events_arrive_in_real_time() {
    let begun = Instant::now();
    let sim = start(SimConfig {
        load: Load {
            events_per_second: 5_000.0,
            ..Load::default()
        },
        ..quiet()
    })
    .await;
    let generated = || {
        sim.stats()
            .rings
            .iter()
            .map(|ring| ring.generated)
            .sum::<u64>()
    };
    wait_until("the arrival of 2,000 events", || generated() >= 2_000).await;
    let most = begun.elapsed().as_secs_f64() * 5_000.0;
    assert!(generated() as f64 <= most + 1.0, "too many");
    assert!(begun.elapsed() >= Duration::from_millis(399), "too soon");
    sim.stop_generating();
    let at_stop = generated();
    // A tick that was under way may still end, once.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(generated() <= at_stop + 250);
    let after = generated();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(generated(), after);
    assert!(!sim.stats().generating);
    sim.set_load(Load {
        events_per_second: 5_000.0,
        ..Load::default()
    });
    wait_until("the next event", || generated() > after).await;
}

/// It listens on loopback only, unless it is told otherwise, and names what is wrong with its configuration.
#[tokio::test]
async fn starts_on_loopback_only() {
    let listen: SocketAddr = "0.0.0.0:0".parse().unwrap();
    let refused = Simulator::start(SimConfig { listen, ..quiet() })
        .await
        .unwrap_err();
    assert!(matches!(refused, StartError::NotLoopback { addr } if addr == listen));

    let sim = start(quiet()).await;
    let taken = Simulator::start(SimConfig {
        listen: sim.addr(),
        ..quiet()
    })
    .await
    .unwrap_err();
    assert!(matches!(taken, StartError::Listen { .. }));

    let invalid = Simulator::start(SimConfig {
        apps: Vec::new(),
        ..quiet()
    })
    .await
    .unwrap_err();
    assert!(matches!(invalid, StartError::Invalid(_)));
}

/// A simulator that was shut down leaves its address free and its clients without an answer.
#[tokio::test]
async fn shutdown_ends_everything() {
    let mut config = quiet();
    config.faults.delay_ms = [60_000, 60_000];
    let sim = start(config.clone()).await;
    let (addr, client) = (sim.addr(), client());
    let waiting = tokio::spawn({
        let (client, url) = (client.clone(), url(&sim, REGION, APP, "user"));
        async move { get(&client, &url).await }
    });
    wait_until("the request", || sim.stats().apps[0].requests == 1).await;
    tokio::time::timeout(Duration::from_secs(5), sim.shutdown())
        .await
        .unwrap();
    assert_eq!(waiting.await.unwrap().status, 0);
    config.listen = addr;
    start(config).await.shutdown().await;
}

//! The simulator's own endpoints.

use rtm_sim::{Ledger, SimStats, Stream};

use super::{APP, REGION, client, fetch, get, quiet, start, url};

/// What a program in another process sees is what the handle sees.
#[tokio::test]
async fn says_over_http_what_the_handle_says() {
    let sim = start(quiet()).await;
    let client = client();
    let own = |path: &str| format!("http://{}/_sim/{path}", sim.addr());
    assert_eq!(get(&client, &own("health")).await.json()["status"], "ok");

    // Bytes that a round through a JSON value would change.
    let events = r#"[{ "user_id":1.0, "b":1, "a":"\u0041" },7]"#;
    let push =
        format!(r#"{{"app_id":"{APP}","region":"{REGION}","stream":"channel","events":{events}}}"#);
    for _ in 0..3 {
        assert_eq!(
            fetch(client.post(own("push")).body(push.clone()))
                .await
                .status,
            200
        );
        let got = get(&client, &url(&sim, REGION, APP, "channel")).await;
        assert!(
            String::from_utf8(got.body)
                .unwrap()
                .ends_with(&format!(r#""events":{events}}}"#))
        );
    }
    sim.push(APP, REGION, Stream::User, &["1"]);

    let stats: SimStats = serde_json::from_slice(&get(&client, &own("stats")).await.body).unwrap();
    assert_eq!(stats, sim.stats());
    let lines = get(&client, &own("ledger")).await;
    assert!(lines.complete);
    assert_eq!(
        Ledger::from_ndjson(lines.body.as_slice(), stats.rings).unwrap(),
        sim.ledger()
    );
    assert_eq!(sim.ledger().pages.len(), 3);
}

/// A ledger of many chunks arrives whole.
#[tokio::test]
async fn streams_a_long_ledger() {
    let sim = start(quiet()).await;
    let client = client();
    let long = format!(r#""{}""#, "x".repeat(500));
    for _ in 0..4 {
        sim.push(APP, REGION, Stream::User, &vec![long.as_str(); 1_000]);
        assert_eq!(
            get(&client, &url(&sim, REGION, APP, "user")).await.events(),
            1_000
        );
    }
    let lines = get(&client, &format!("http://{}/_sim/ledger", sim.addr())).await;
    let ledger = Ledger::from_ndjson(lines.body.as_slice(), sim.stats().rings).unwrap();
    assert_eq!((ledger.handed_out(), ledger.pages.len()), (4_000, 4));
}

/// Load and faults change while it runs; nonsense is refused with its reason and changes nothing.
#[tokio::test]
async fn load_and_faults_can_be_changed() {
    let sim = start(quiet()).await;
    let client = client();
    let own = |path: &str| format!("http://{}/_sim/{path}", sim.addr());
    let put = |path: &str, body: &'static str| fetch(client.put(own(path)).body(body));
    let ring = url(&sim, REGION, APP, "user");

    assert_eq!(
        put("faults", r#"{"status":1,"statuses":[503]}"#)
            .await
            .status,
        200
    );
    assert_eq!(get(&client, &ring).await.status, 503);
    for (path, body, says) in [
        ("faults", r#"{"status":2}"#, "faults.status"),
        ("faults", r#"{"statuz":0}"#, "statuz"),
        (
            "load",
            r#"{"pattern":{"kind":"storm","every_ms":5,"lasting_ms":9,"times":2}}"#,
            "storm",
        ),
        ("load", "", "EOF"),
    ] {
        let got = put(path, body).await;
        assert_eq!(got.status, 400);
        let why = got.json()["error"].as_str().unwrap().to_owned();
        assert!(why.contains(says), "{why}");
    }
    assert_eq!(get(&client, &ring).await.status, 503);
    assert_eq!(put("faults", "{}").await.status, 200);
    assert_eq!(get(&client, &ring).await.status, 200);

    assert_eq!(
        put("load", r#"{"events_per_second":2000}"#).await.status,
        200
    );
    super::wait_until("events", || sim.stats().rings[0].generated > 0).await;
    assert_eq!(fetch(client.post(own("stop"))).await.status, 200);
    assert!(!sim.stats().generating);

    let push = r#"{"app_id":"nobody","region":"eu-west-1","stream":"user","events":[]}"#;
    assert_eq!(fetch(client.post(own("push")).body(push)).await.status, 404);
    assert_eq!(get(&client, &own("nothing")).await.status, 404);
}

/// Holds: credentials can be changed over HTTP; the old ones are refused from then on.
#[tokio::test]
async fn credentials_can_be_changed() {
    let sim = start(quiet()).await;
    let client = client();
    let own = format!("http://{}/_sim/auth", sim.addr());
    let set = async |app: &str| {
        let body = format!(r#"{{"app_id":"{app}","auth":{{"agora":{{"token":"t2"}}}}}}"#);
        fetch(client.put(&own).body(body)).await.status
    };
    let read = async |token: &str| {
        let request = client.get(url(&sim, REGION, APP, "user"));
        fetch(request.header("authorization", format!("agora token={token}")))
            .await
            .status
    };
    assert_eq!(read("t1").await, 200);
    assert_eq!(set("nobody").await, 404);
    assert_eq!(set(APP).await, 200);
    assert_eq!((read("t1").await, read("t2").await), (401, 200));
    assert_eq!(sim.stats().apps[0].unauthorized, 1);
    sim.shutdown().await;
}

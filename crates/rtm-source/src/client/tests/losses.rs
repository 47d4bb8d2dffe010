//! Against the simulator over TCP, with everything going wrong: what was saved, what was lost, and what is said of it.

use rtm_sim::{Faults, LedgerPage, Load, SimApp, SimAuth, SimConfig, Simulator};

use super::*;

async fn simulator(apps: usize, faults: Faults) -> Simulator {
    Simulator::start(SimConfig {
        apps: (0..apps)
            .map(|app| SimApp {
                app_id: app.to_string(),
                auth: SimAuth::Open,
            })
            .collect(),
        regions: vec!["eu".into()],
        load: Load {
            events_per_second: 0.0,
            ..Load::default()
        },
        faults,
        ..SimConfig::default()
    })
    .await
    .unwrap()
}

fn source(simulator: &Simulator, app: usize, deadline: Duration) -> Source {
    let region = Region::new("eu", &simulator.base_url("eu"), false).unwrap();
    let token = Secret::Inline(CANARY.into());
    let auth = Auth::AgoraToken { token };
    let mut options = SourceOptions::new(app.to_string(), auth, vec![region]);
    options.deadline = deadline;
    Source::new(options).unwrap()
}

/// Events of every length, some of them odd.
fn events(random: &mut fastrand::Rng) -> Vec<String> {
    let event = |random: &mut fastrand::Rng| match random.u8(..16) {
        0 => "1e400".to_owned(),
        1 => r#""]}""#.to_owned(),
        2 => r#"{"user_id":null,"new":[{"a":"\\\""}]}"#.to_owned(),
        _ => format!(
            r#"{{"user_id":"{}","type":"Login","ms":7}}"#,
            "u".repeat(random.usize(..64))
        ),
    };
    let count = [0, 1, 10, 999, 1_000, 1_300][random.usize(..6)];
    (0..count).map(|_| event(random)).collect()
}

/// How many of the page's events are in `body`, each at its place, to the byte.
fn kept(page: &LedgerPage, body: &[u8]) -> usize {
    let decoded = crate::decode(body);
    let found: std::collections::HashMap<usize, &[u8]> = decoded
        .events
        .iter()
        .map(|event| match event {
            Ok(event) => (event.offset as usize, event.raw.as_bytes()),
            Err(reject) => (reject.offset as usize, reject.raw),
        })
        .collect();
    let in_place = page.spans().zip(page.events.iter());
    in_place
        .filter(|(span, event)| found.get(&span.start) == Some(&event.as_bytes()))
        .count()
}

/// Holds: whatever goes wrong at the far end, the events that Agora deleted and that are not in our hands are never more
/// than what [`FetchError::possibly_lost`] says, what is counted as saved is there to the byte, and a page that is none
/// of the errors has lost nothing.
#[tokio::test]
async fn possible_loss_is_never_below_the_true_one() {
    const APPS: usize = 24;
    let faults = Faults {
        status: 0.06,
        cut: 0.1,
        failed_result: 0.06,
        closed: 0.06,
        html: 0.06,
        reset: 0.1,
        stall: 0.1,
        drip: 0.1,
        drip_ms: 3_000,
        huge: 0.06,
        huge_bytes: 8 << 20,
        gzip: 0.06,
        bomb: 0.06,
        headers: 0.06,
        ..Faults::default()
    };
    let simulator = Arc::new(simulator(APPS, faults).await);
    let mut polls = tokio::task::JoinSet::new();
    for app in 0..APPS {
        let simulator = Arc::clone(&simulator);
        polls.spawn(async move {
            let source = source(&simulator, app, Duration::from_millis(800));
            let mut random = fastrand::Rng::with_seed(app as u64);
            let (mut seen, mut reasons, mut true_loss) = (0, Vec::new(), 0);
            let mut requests = 0;
            for _ in 1..10 {
                let events = events(&mut random);
                let events: Vec<&str> = events.iter().map(String::as_str).collect();
                simulator.push(&app.to_string(), "eu", rtm_sim::Stream::User, &events);
                let fetched = fetch(&source).await;
                // On a busy machine the deadline may pass before the simulator has read the request, which reads all
                // the same: what it does belongs to this round.
                let stats = || simulator.stats().apps[app].requests;
                let read = async {
                    while stats() == requests {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                };
                let read = timeout(Duration::from_secs(10), read).await;
                // Nor need it have left by then.
                let may_have_stayed = |error: &FetchError| {
                    error.kind == FetchErrorKind::NotSent || error.reason == "timeout"
                };
                let may_have_stayed = fetched.as_ref().is_err_and(may_have_stayed);
                assert!(
                    read.is_ok() || may_have_stayed,
                    "the simulator has read no request: {fetched:?}"
                );
                requests = stats();
                let ledger = simulator.ledger().pages.into_iter();
                let pages: Vec<LedgerPage> = ledger
                    .filter(|page| page.app_id == app.to_string())
                    .collect();
                let deleted = pages.get(seen);
                assert!(pages.len() <= seen + 1, "a request was sent twice");
                seen = pages.len();
                let (page, possibly, reason) = match &fetched {
                    Ok(page) => (Some(page), 0, "page"),
                    Err(error) => (
                        error.partial.as_deref(),
                        error.possibly_lost(),
                        error.reason,
                    ),
                };
                let body = page.map_or(&b""[..], |page| &page.body);
                let count = page.map_or(0, Page::events);
                let kept = deleted.map_or(0, |deleted| kept(deleted, body));
                assert_eq!(kept, count, "{reason}: counted as saved, and not there");
                assert!(body.len() <= 2 << 20);
                let lost = deleted.map_or(0, |deleted| deleted.events.len()) - kept;
                assert!(
                    lost as u64 <= possibly,
                    "{reason}: {lost} lost, {possibly} told"
                );
                reasons.push(reason);
                true_loss += lost;
            }
            (reasons, true_loss)
        });
    }
    let (mut reasons, mut true_loss) = (Vec::new(), 0);
    for (told, lost) in polls.join_all().await {
        reasons.extend(told);
        true_loss += lost;
    }
    for reason in [
        "page",
        "cut",
        "timeout",
        "reset",
        "too_large",
        "status",
        "failed",
        "unexpected",
    ] {
        let count = reasons.iter().filter(|told| **told == reason).count();
        assert!(count > 0, "{reason} never came");
    }
    assert!(true_loss > 5_000, "{true_loss}");
}

/// Holds: a gzip that nobody asked for is undone, whole, cut and longer than any page; what cannot be undone is kept.
#[tokio::test]
async fn an_unasked_gzip_is_undone_within_bounds() {
    let events = [r#"{"user_id":"u"}"#; 500];
    let one = |gzip, bomb| Faults {
        gzip,
        bomb,
        ..Faults::default()
    };
    // What follows the end of the JSON is cut off, and nothing is missing.
    for (faults, bomb) in [(one(1.0, 0.0), false), (one(0.0, 1.0), true)] {
        let simulator = simulator(1, faults).await;
        let source = source(&simulator, 0, Duration::from_secs(20));
        simulator.push("0", "eu", rtm_sim::Stream::User, &events);
        let page = fetch(&source).await.unwrap();
        assert_eq!((page.count, page.complete), (500, true));
        assert_eq!(page.body.len() == 2 << 20, bomb);
    }
    for (encoding, body) in [("gzip", "not gzip"), ("br", PAGE), ("gzip, gzip", "x")] {
        let headers = format!("Content-Encoding: {encoding}\r\n");
        let server = Server::answering(response(200, &headers, body));
        match server.fetch().await {
            // Said to be encoded, and not: the JSON tells.
            Ok(page) => assert_eq!(page.body, PAGE),
            Err(error) => {
                assert_eq!(error.kind, FetchErrorKind::InDoubt);
                assert_eq!(error.partial.unwrap().body, body, "the only copy");
            }
        }
    }
}

/// Holds: more than 1,000 headers, or some 400 kB of them, are refused without being kept, and in doubt.
#[tokio::test]
async fn headers_have_limits() {
    let more = |count: usize| "X-More: and more\r\n".repeat(count);
    let long = |bytes: usize| format!("X-Long: {}\r\n", "x".repeat(bytes));
    for (headers, accepted) in [
        (more(120), true),
        (more(999), true),
        (more(1_001), false),
        (long(200_000), true),
        (long(1_000_000), false),
        (long(64 << 20), false),
    ] {
        let server = Server::answering(response(200, &headers, PAGE));
        match server.fetch().await {
            Ok(page) => assert!(accepted && page.body == PAGE),
            Err(error) => {
                assert!(!accepted, "{error:?}");
                assert_eq!(
                    (error.kind, error.reason),
                    (FetchErrorKind::InDoubt, "reset")
                );
                assert_eq!(error.possibly_lost(), 1_000);
            }
        }
    }
}

/// Holds: a token that expires is replaced in its file, and polling heals without a restart; and one that expires before
/// its file has changed heals as soon as it has. What the far end quotes of either is nowhere.
#[tokio::test]
async fn an_expired_token_heals() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    let agora = |token: &str| SimAuth::Agora {
        token: token.into(),
    };
    std::fs::write(&path, "canary-first").unwrap();
    let simulator = simulator(1, Faults::default()).await;
    simulator.set_auth("0", agora("canary-first"));
    let region = Region::new("eu", &simulator.base_url("eu"), false).unwrap();
    let token = Secret::File(path.clone());
    let auth = Auth::AgoraToken { token };
    let source = Source::new(SourceOptions::new("0", auth, vec![region])).unwrap();
    simulator.push("0", "eu", rtm_sim::Stream::User, &[r#"{"user_id":"u"}"#]);
    assert_eq!(fetch(&source).await.unwrap().count, 1);
    // Rotated on both sides: no request is refused.
    std::fs::write(&path, "canary-second").unwrap();
    simulator.set_auth("0", agora("canary-second"));
    fetch(&source).await.unwrap();
    // Expired, and the file comes late.
    simulator.set_auth("0", agora("canary-third!"));
    for _ in 0..2 {
        let error = fetch(&source).await.unwrap_err();
        assert_eq!(
            (error.kind, error.status),
            (FetchErrorKind::Refused, Some(401))
        );
        assert_eq!(error.possibly_lost(), 0);
    }
    std::fs::write(&path, "canary-third!").unwrap();
    fetch(&source).await.unwrap();
    assert_eq!(simulator.stats().apps[0].unauthorized, 2);
}

//! What goes wrong on purpose, and that the ledger tells the truth about it.

use std::collections::HashMap;
use std::time::Duration;

use rtm_sim::{
    Fate, Faults, LedgerPage, Load, Observed, SimApp, SimConfig, Simulator, Stream, audit,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{APP, Got, REGION, client, get, open, quiet, start, url, wait_until};

/// Under every fault at once, for every page: the client has exactly the bytes that the ledger says were sent, each
/// ring's events all are somewhere, and an audit of what arrived finds it clean.
#[tokio::test]
async fn the_ledger_is_true_under_faults() {
    const APPS: usize = 12;
    let apps: Vec<SimApp> = (0..APPS).map(|n| open(&n.to_string())).collect();
    let faults = Faults {
        status: 0.15,
        cut: 0.3,
        failed_result: 0.15,
        closed: 0.1,
        html: 0.05,
        delay_ms: [0, 20],
        ..Faults::default()
    };
    let load = Load {
        events_per_second: 3_000.0,
        odd: 0.2,
        copies: 0.2,
        ..Load::default()
    };
    let sim = start(SimConfig {
        apps,
        load,
        faults,
        ..quiet()
    })
    .await;
    let mut received = HashMap::new();
    let polls = (0..APPS).map(|app| poll(&sim, app.to_string(), 16));
    for pages in futures_join(polls).await {
        received.extend(pages);
    }
    sim.stop_generating();
    sim.set_faults(Faults::default());
    let drained = (0..APPS).map(|app| poll(&sim, app.to_string(), 4));
    for pages in futures_join(drained).await {
        received.extend(pages);
    }
    let (ledger, stats) = (sim.ledger(), sim.stats());
    assert_eq!(ledger.rings, stats.rings);
    conserved(&ledger.pages, &ledger.rings);

    let mut fates = [0; 3];
    for page in &ledger.pages {
        assert!(page.finished_at_ms.is_some(), "{page:?}");
        let got = received.get(page.request_id.as_str());
        match page.fate {
            Fate::Whole => {
                fates[0] += 1;
                assert!(got.unwrap().complete);
                assert_eq!(carried(page, &got.unwrap().body), page.events.len());
            }
            Fate::Cut {
                bytes_sent,
                whole_events_sent,
            } => {
                fates[1] += 1;
                let got = got.unwrap();
                assert_eq!(got.body.len(), bytes_sent);
                assert!((0..=1).contains(&(carried(page, &got.body) - whole_events_sent)));
            }
            Fate::Unsent => {
                fates[2] += 1;
                assert!(got.is_none_or(|got| carried(page, &got.body) == 0));
            }
        }
    }
    assert!(
        fates.iter().all(|count| *count > 5),
        "some fate never came: {fates:?}"
    );
    let sum = |count: fn(&rtm_sim::AppStats) -> u64| stats.apps.iter().map(count).sum::<u64>();
    assert_eq!(sum(|app| app.refused_429), 0);
    assert!(sum(|app| app.faults) > 50);

    let ids: Vec<(usize, std::ops::Range<usize>, String)> = ledger
        .pages
        .iter()
        .enumerate()
        .flat_map(|(index, page)| {
            page.spans()
                .map(move |span| (index, span.clone(), format!("ab.{index}.{}", span.start)))
        })
        .collect();
    let observed = ids
        .iter()
        .enumerate()
        .filter_map(|(order, (index, span, id))| {
            let page = &ledger.pages[*index];
            let body = &received.get(page.request_id.as_str())?.body;
            let carries = page.fate != Fate::Unsent;
            Some(Observed {
                sink_order: order as u64,
                partition: 0,
                app_id: &page.app_id,
                region: &page.region,
                stream: page.stream.as_str(),
                request_id: &page.request_id,
                id,
                key: None,
                event: body.get(span.clone()).filter(|_| carries)?,
                dead_letter: false,
            })
        });
    let findings = audit(&ledger, observed);
    assert!(findings.clean(), "{findings}");
    assert!(
        findings.lost_at_source > 0
            && findings.unsent_events > 0
            && findings.cut_whole_delivered > 0
    );
    assert_eq!(
        findings.handed_out,
        findings.seen_distinct + findings.lost_at_source
    );
    assert_eq!(
        findings.lost_at_source,
        ledger
            .rings
            .iter()
            .map(|ring| ring.cut + ring.unsent)
            .sum::<u64>()
    );
}

/// Runs the futures one beside the other.
async fn futures_join<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut running: Vec<_> = futures.map(Box::pin).collect();
    let mut results = Vec::new();
    std::future::poll_fn(|context| {
        running.retain_mut(|future| match future.as_mut().poll(context) {
            std::task::Poll::Ready(result) => {
                results.push(result);
                false
            }
            std::task::Poll::Pending => true,
        });
        if running.is_empty() {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    results
}

/// Polls the four rings of an App ID in turn, `rounds` times in all and never too fast, and keeps what was received.
async fn poll(sim: &Simulator, app: String, rounds: usize) -> Vec<(String, Got)> {
    let client = client();
    let mut received = Vec::new();
    for round in 0..rounds {
        let region = [REGION, "us-east-1"][round % 2];
        let stream = ["user", "channel"][round / 2 % 2];
        let got = get(&client, &url(sim, region, &app, stream)).await;
        if let Some(id) = got.headers.get("x-request-id") {
            received.push((id.to_str().unwrap().to_owned(), got));
        }
        // A tenth of a second from each answer to the next request keeps eleven from any second.
        tokio::time::sleep(Duration::from_millis(101)).await;
    }
    received
}

/// How many of the page's events stand in `body` where the ledger says.
fn carried(page: &LedgerPage, body: &[u8]) -> usize {
    let both = page.spans().zip(page.events.iter());
    both.take_while(|(span, event)| body.get(span.clone()) == Some(event.as_bytes()))
        .count()
}

/// Every event that arrived was overwritten, handed out, or waits.
fn conserved(pages: &[LedgerPage], rings: &[rtm_sim::RingStats]) {
    for ring in rings {
        let own = |page: &&LedgerPage| {
            (&page.app_id, &page.region, page.stream) == (&ring.app_id, &ring.region, ring.stream)
        };
        let handed_out: u64 = pages
            .iter()
            .filter(own)
            .map(|page| page.events.len() as u64)
            .sum();
        assert_eq!(handed_out, ring.handed_out, "{ring:?}");
        assert_eq!(
            ring.generated,
            ring.overwritten + handed_out + ring.waiting,
            "{ring:?}"
        );
        let serials: Vec<u64> = pages.iter().filter(own).map(|page| page.serial).collect();
        assert_eq!(serials, (0..ring.pages).collect::<Vec<_>>());
    }
}

/// Each kind of failure by itself has the status it should, and refusals never delete.
#[tokio::test]
async fn faults_are_what_they_say() {
    let client = client();
    let whole = |faults: Faults| Faults {
        deletes: 1.0,
        ..faults
    };
    for (faults, status, deletes) in [
        (
            Faults {
                status: 1.0,
                statuses: vec![403],
                ..Faults::default()
            },
            403,
            false,
        ),
        (
            Faults {
                status: 1.0,
                statuses: vec![429],
                ..Faults::default()
            },
            429,
            false,
        ),
        (
            Faults {
                status: 1.0,
                statuses: vec![408],
                ..Faults::default()
            },
            408,
            true,
        ),
        (
            Faults {
                status: 1.0,
                statuses: vec![500],
                ..Faults::default()
            },
            500,
            true,
        ),
        (
            Faults {
                closed: 1.0,
                ..Faults::default()
            },
            0,
            true,
        ),
        (
            Faults {
                html: 1.0,
                ..Faults::default()
            },
            200,
            true,
        ),
    ] {
        for really in [true, false] {
            let deletes = deletes && really;
            let faults = if really {
                whole(faults.clone())
            } else {
                Faults {
                    deletes: 0.0,
                    ..faults.clone()
                }
            };
            let sim = start(SimConfig {
                faults: faults.clone(),
                ..quiet()
            })
            .await;
            sim.push(APP, REGION, Stream::User, &["1", "2"]);
            let got = get(&client, &url(&sim, REGION, APP, "user")).await;
            assert_eq!(got.status, status, "{faults:?}");
            assert!(faults.html == 0.0 || got.body.starts_with(b"<!DOCTYPE html>"));
            let (stats, ledger) = (sim.stats(), sim.ledger());
            assert_eq!(
                stats.rings[0].waiting,
                if deletes { 0 } else { 2 },
                "{faults:?}"
            );
            assert_eq!(stats.rings[0].unsent, if deletes { 2 } else { 0 });
            assert_eq!((stats.apps[0].faults, stats.apps[0].refused_429), (1, 0));
            assert_eq!(ledger.pages.len(), usize::from(deletes));
            if let [page] = &ledger.pages[..] {
                let expected = if status == 0 { None } else { Some(status) };
                assert_eq!((page.fate, page.status), (Fate::Unsent, expected));
            }
        }
    }
}

/// A client that goes away in the middle of a response is in the ledger as one: with no more than the socket took, and
/// nothing of it required.
#[tokio::test]
async fn a_client_that_goes_away_is_noticed() {
    let sim = start(quiet()).await;
    // More than the buffers of two sockets hold.
    let event = format!(r#""{}""#, "x".repeat(60_000));
    sim.push(APP, REGION, Stream::User, &vec![event.as_str(); 1_000]);
    let mut socket = TcpStream::connect(sim.addr()).await.unwrap();
    let path = format!("/{REGION}/dev/v2/project/{APP}/rtm/vendor/user_events");
    socket
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut some = vec![0; 100_000];
    socket.read_exact(&mut some).await.unwrap();
    let under_way = sim.ledger().pages.remove(0);
    assert_eq!(
        (under_way.fate, under_way.finished_at_ms),
        (Fate::Whole, None)
    );
    assert!(under_way.at_ms.is_some());
    drop(socket);
    wait_until("the end of the response", || {
        sim.ledger().pages[0].fate != Fate::Whole
    })
    .await;
    let page = sim.ledger().pages.remove(0);
    let Fate::Cut {
        bytes_sent,
        whole_events_sent,
    } = page.fate
    else {
        panic!("{:?}", page.fate)
    };
    assert!((99_000..60_000_000).contains(&bytes_sent), "{bytes_sent}");
    assert_eq!(
        whole_events_sent,
        (bytes_sent - page.first_event_at + 1) / 60_003
    );
    assert_eq!(page.finished_at_ms, None);
    assert_eq!(audit(&sim.ledger(), []).missing_count, 0);
}

/// Request by request, a ring meets the same faults for one seed, whatever the other rings do meanwhile.
#[tokio::test]
async fn the_seed_decides_the_faults() {
    let statuses = async |seed: u64, disturb: bool| {
        let faults = Faults {
            status: 0.5,
            closed: 0.2,
            ..Faults::default()
        };
        let sim = start(SimConfig {
            seed,
            faults,
            ..quiet()
        })
        .await;
        let client = client();
        let mut statuses = Vec::new();
        for turn in 0..10 {
            if disturb && turn % 3 == 0 {
                get(&client, &url(&sim, "us-east-1", APP, "user")).await;
            }
            if statuses.len() < 6 {
                statuses.push(get(&client, &url(&sim, REGION, APP, "user")).await.status);
            }
        }
        statuses
    };
    let first = statuses(11, false).await;
    assert_eq!(first, statuses(11, true).await);
    assert_ne!(first, statuses(12, false).await);
}

/// Holds: a reset asks the client for nothing and may leave it anything, a stall and a drip give exactly what the ledger
/// says, and what is packed is sent whole.
#[tokio::test]
async fn the_other_faults_are_in_the_ledger() {
    let none = Faults::default;
    let event = r#"{"user_id":"u","type":"Login","ms":1}"#;
    for (name, faults) in [
        (
            "reset",
            Faults {
                reset: 1.0,
                ..none()
            },
        ),
        (
            "stall",
            Faults {
                stall: 1.0,
                ..none()
            },
        ),
        (
            "drip",
            Faults {
                drip: 1.0,
                drip_ms: 300,
                ..none()
            },
        ),
        (
            "gzip",
            Faults {
                gzip: 1.0,
                ..none()
            },
        ),
        (
            "huge",
            Faults {
                huge: 1.0,
                huge_bytes: 1 << 20,
                ..none()
            },
        ),
        (
            "headers",
            Faults {
                headers: 1.0,
                deletes: 1.0,
                ..none()
            },
        ),
    ] {
        let sim = start(SimConfig { faults, ..quiet() }).await;
        let client = client();
        // What stalls, stalls until the client has had enough.
        let impatient = reqwest::Client::builder()
            .no_proxy()
            .read_timeout(Duration::from_millis(200))
            .build()
            .unwrap();
        let client = if name == "stall" { &impatient } else { &client };
        for round in 0..6 {
            sim.push(APP, REGION, Stream::User, &[event; 20]);
            let started = std::time::Instant::now();
            let got = get(client, &url(&sim, REGION, APP, "user")).await;
            let page = sim.ledger().pages.swap_remove(round);
            assert_eq!(page.events.len(), 20);
            match (name, page.fate) {
                ("reset", Fate::Cut { bytes_sent, .. }) => {
                    assert!(page.finished_at_ms.is_none() && got.body.len() <= bytes_sent);
                    assert!(!got.complete);
                }
                ("stall", Fate::Cut { bytes_sent, .. }) => {
                    assert!(page.finished_at_ms.is_some() && !got.complete);
                    assert_eq!(got.body.len(), bytes_sent);
                }
                ("drip", Fate::Whole) => {
                    assert!(got.complete && got.events() == 20);
                    assert!(started.elapsed() >= Duration::from_millis(250));
                }
                ("gzip", Fate::Whole) => {
                    assert!(got.complete && got.body.starts_with(b"\x1f\x8b"));
                    assert_eq!(got.headers["content-encoding"], "gzip");
                }
                ("huge", Fate::Whole) => {
                    assert!(got.complete && got.body.len() > 1 << 20 && got.events() == 20);
                    assert_eq!(carried(&page, &got.body), 20);
                }
                ("headers", Fate::Unsent) => assert!(got.body.is_empty()),
                (name, fate) => panic!("{name}: {fate:?}"),
            }
        }
        assert_eq!(sim.stats().apps[0].faults, 6);
        conserved(&sim.ledger().pages, &sim.ledger().rings);
        sim.shutdown().await;
    }
}

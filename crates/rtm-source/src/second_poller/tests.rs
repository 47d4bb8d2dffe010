//! Patterns on a fake clock, and two bridges on one App ID at the simulator.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use rtm_sim::{Clock, Faults, InProcess, Load, Pattern, SimApp, SimAuth, SimConfig};

use super::*;
use crate::{
    Ending, Limiter, Next, NoResponse, Observed, Outcome, Region, Response, Ring, Schedule,
    ScheduleOptions, Stream,
};

/// Polls a ring every 200 ms for so many minutes, to which events come at the times that `arrives` gives, in
/// milliseconds; someone else reads it at the times that `other` says. Gives how many polls saw that there are holes, which
/// are never an alarm.
fn polled(minutes: u64, mut arrives: impl FnMut(i64) -> u32, other: impl Fn(i64) -> bool) -> usize {
    let origin = Instant::now();
    let (mut signs, mut end, mut ring) = (SecondPoller::default(), PageEnd::default(), Vec::new());
    let mut alarmed = 0;
    for ms in 0..minutes as i64 * 60_000 {
        ring.extend((0..arrives(ms)).map(|_| ms));
        if other(ms) {
            ring.clear();
        }
        if ms % 200 == 0 {
            let span = ring.first().copied().zip(ring.last().copied());
            let now = origin + Duration::from_millis(ms as u64);
            signs.page(now, &mut end, ring.len(), ring.len() >= 1_000, span);
            assert!(!signs.suspected(now), "holes prove nothing");
            alarmed += usize::from(signs.has_holes(now));
            ring.clear();
        }
    }
    alarmed
}

/// Events that come independently of each other, `rate` of them in a second, which may change; a few hundred at most.
fn independent(seed: u64, rate: impl Fn(i64) -> f64) -> impl FnMut(i64) -> u32 {
    let mut random = fastrand::Rng::with_seed(seed);
    move |ms| u32::from(random.f64() < rate(ms) / 1_000.0)
}

/// Holds: without a second poller there are no holes, at any rate, in a quiet hour, in storms, with lulls, or in bunches.
#[test]
fn nobody_else_no_alarm() {
    let nobody = |_: i64| false;
    for rate in [0.1, 5.0, 50.0, 110.0, 200.0, 500.0] {
        assert_eq!(polled(5, independent(1, |_| rate), nobody), 0, "{rate}/s");
    }
    // A busy day that ends in a quiet hour, and begins again.
    let day = |ms: i64| 400.0 * (1.0 + (ms as f64 / 300_000.0).cos()) / 2.0;
    assert_eq!(polled(10, independent(2, day), nobody), 0);
    let suddenly = |ms: i64| if (ms / 180_000) % 2 == 0 { 500.0 } else { 0.05 };
    assert_eq!(polled(15, independent(3, suddenly), nobody), 0);
    for period in [1_000, 10_000] {
        let on_off = move |ms: i64| if ms % period < period / 2 { 800.0 } else { 0.0 };
        assert_eq!(polled(10, independent(4, on_off), nobody), 0, "{period} ms");
    }
    for apart in [5, 20, 500, 1_000] {
        let bunches = move |ms: i64| if ms % apart == 0 { 40 } else { 0 };
        assert_eq!(polled(5, bunches, nobody), 0, "{apart} ms apart");
    }
}

/// Holds: events that come in bunches as far apart as our polls look like a second poller, for as long as they come, and
/// that is no alarm.
#[test]
fn bunches_at_our_own_pace_prove_nothing() {
    let bunches = |ms: i64| if (50..60).contains(&(ms % 100)) { 4 } else { 0 };
    let told = polled(5, bunches, |_| false);
    assert!(
        told > 1_000,
        "{told} of 1,500: the pattern shows nothing here"
    );
}

/// Holds: a second poller leaves holes, at our pace, a quicker one and one that is several times slower; and they end when
/// it has gone.
#[test]
fn a_second_poller_leaves_holes() {
    for pace in [130, 211, 430] {
        let other = move |ms: i64| ms % pace == 0 && ms < 300_000;
        let alarmed = polled(5, independent(5, |_| 400.0), other);
        assert!(alarmed > 1_000, "{pace} ms: {alarmed} of 1,500");
        let after = polled(8, independent(5, |_| 400.0), other);
        assert!(after < 1_700, "{pace} ms: {after} of 2,400");
    }
    // It leaves, and with it the traffic: nothing shows that it has, so time tells.
    let rate = |ms: i64| if ms < 300_000 { 400.0 } else { 0.0 };
    let other = |ms: i64| ms % 211 == 0;
    let alarmed = polled(16, independent(6, rate), other);
    assert!((1_000..1_500 + 3_100).contains(&alarmed), "{alarmed}");
}

/// Holds: trouble at Agora of less than two minutes is no alarm, longer trouble is none for ever, and 429s all the time
/// are one, soon and for good.
#[test]
fn refusals_that_go_on_are_an_alarm() {
    let origin = Instant::now();
    let alarmed = |refused: &dyn Fn(u64) -> bool| {
        let mut signs = SecondPoller::default();
        let mut at = Vec::new();
        for second in 0..3_600 {
            let now = origin + Duration::from_secs(second);
            if refused(second) {
                signs.refused(now);
            }
            if signs.suspected(now) {
                at.push(second);
            }
        }
        at
    };
    assert!(alarmed(&|_| false).is_empty());
    assert!(alarmed(&|second| (100..215).contains(&second)).is_empty());
    // Single ones, rarely.
    assert!(alarmed(&|second| second % 400 == 7).is_empty());
    let trouble = alarmed(&|second| (100..400).contains(&second));
    assert_eq!(trouble[0], 220);
    assert!(*trouble.last().unwrap() < 400 + MEMORY.as_secs());
    let always = alarmed(&|second| second % 5 == 0);
    assert_eq!((always[0], always.len()), (120, 3_480));
}

/// A bridge's poll loop: the schedule, the limiter and the verdicts as shipped, and the simulator at no distance. Gives
/// the seconds at which `is_seen` says that there was a sign.
async fn bridge(
    server: InProcess,
    per_second: usize,
    phase_ms: u64,
    seconds: u64,
    is_seen: fn(&Observed) -> bool,
) -> Vec<u64> {
    let region = Arc::new(Region::new("eu", "http://127.0.0.1/eu", false).unwrap());
    let rings = Stream::ALL.map(|stream| Ring {
        region: Arc::clone(&region),
        stream,
    });
    let options = ScheduleOptions {
        requests_per_second: per_second,
        ..ScheduleOptions::default()
    };
    let mut schedule = Schedule::new(rings.to_vec(), options, phase_ms);
    let limiter = Limiter::new(per_second, Duration::from_millis(1_000 + phase_ms));
    let (start, mut alarmed) = (tokio::time::Instant::now(), Vec::new());
    while start.elapsed() < Duration::from_secs(seconds) {
        let ring = match schedule.next(tokio::time::Instant::now().into_std()) {
            Next::Poll(ring) => ring,
            Next::Wait(until) => {
                tokio::time::sleep_until(until.into()).await;
                continue;
            }
        };
        let slot = limiter.slot().await;
        let turn = schedule.started(&ring, tokio::time::Instant::now().into_std());
        let path = format!("/eu/dev/v2/project/app/rtm/vendor/{}_events", ring.stream);
        let fetched = slot
            .using(async {
                tokio::time::sleep(Duration::from_millis(15)).await;
                let exchange = server.get(&path, &[]).await;
                tokio::time::sleep(Duration::from_millis(15)).await;
                let Some(status) = exchange.status() else {
                    return Err(crate::FetchError::no_response(NoResponse::Reset, None));
                };
                let named = |(name, value): (&str, &str)| {
                    let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                    (name, HeaderValue::from_str(value).unwrap())
                };
                let headers: HeaderMap = exchange.headers().map(named).collect();
                let body = Bytes::copy_from_slice(exchange.body());
                exchange.received(body.len());
                let ending = Ending::Closed;
                let response = Response {
                    status,
                    headers,
                    body,
                    ending,
                };
                response.judge(&ring, jiff::Timestamp::UNIX_EPOCH)
            })
            .await;
        let now = tokio::time::Instant::now().into_std();
        let observed = schedule.observe(turn, now, &Outcome::of(&fetched));
        if is_seen(&observed) {
            alarmed.push(start.elapsed().as_secs());
        }
    }
    alarmed.dedup();
    alarmed
}

fn server(load: Load, faults: Faults) -> InProcess {
    let config = SimConfig {
        apps: vec![SimApp {
            app_id: "app".into(),
            auth: SimAuth::Open,
        }],
        regions: vec!["eu".into()],
        load,
        faults,
        ..SimConfig::default()
    };
    InProcess::new(&config, Clock::simulated(1_800_000_000_000)).unwrap()
}

fn load(events_per_second: f64) -> Load {
    Load {
        events_per_second,
        users: 100,
        channels: 10,
        ..Load::default()
    }
}

/// Holds: two bridges on one App ID are told: both by 429s at the full budget, which is an alarm, and one at least by holes
/// at half of it each, where there is no 429 at all.
#[tokio::test(start_paused = true)]
async fn two_bridges_on_one_app_id() {
    for (per_second, refused) in [(10, true), (5, false)] {
        let server = server(load(400.0), Faults::default());
        let alarms = Arc::new(Mutex::new(Vec::new()));
        let mut bridges = tokio::task::JoinSet::new();
        for phase_ms in [0, 37] {
            let (server, alarms) = (server.clone(), Arc::clone(&alarms));
            bridges.spawn(async move {
                let is_seen = if refused {
                    |observed: &Observed| observed.second_poller
                } else {
                    |observed: &Observed| observed.holes
                };
                let alarmed = bridge(server, per_second, phase_ms, 300, is_seen).await;
                alarms.lock().unwrap().push(alarmed);
            });
        }
        bridges.join_all().await;
        assert_eq!(server.stats().apps[0].refused_429 > 0, refused);
        let mut alarmed = alarms.lock().unwrap().clone();
        // Whoever is refused hears so for a minute, and sees nothing meanwhile.
        let enough = if refused { 5 } else { 20 };
        alarmed.retain(|alarmed| alarmed.len() > enough && alarmed[0] < 240);
        assert!(
            alarmed.len() >= if refused { 2 } else { 1 },
            "{per_second}: {alarms:?}"
        );
    }
}

/// Holds: one bridge alone never does, with storms, lulls and Agora's own trouble.
#[tokio::test(start_paused = true)]
async fn one_bridge_alone() {
    let storms = Load {
        pattern: Pattern::Storm {
            every_ms: 20_000,
            lasting_ms: 3_000,
            times: 8.0,
        },
        ..load(500.0)
    };
    let lulls = Load {
        pattern: Pattern::OnOff {
            on_ms: 700,
            off_ms: 1_900,
        },
        ..load(1_500.0)
    };
    let trouble = Faults {
        status: 0.05,
        statuses: vec![500, 502, 503],
        cut: 0.05,
        closed: 0.05,
        delay_ms: [0, 400],
        ..Faults::default()
    };
    for (load, faults) in [
        (load(900.0), Faults::default()),
        (storms, Faults::default()),
        (lulls, trouble.clone()),
        (load(300.0), trouble),
    ] {
        let server = server(load, faults);
        let is_seen = |observed: &Observed| observed.second_poller || observed.holes;
        let seen = bridge(server.clone(), 10, 0, 80, is_seen).await;
        assert!(seen.is_empty(), "{seen:?}");
        assert!(server.ledger().handed_out() > 5_000);
    }
}

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use super::*;
use crate::status::health::Delivery;

/// A bridge of two App IDs, all well.
fn well() -> Snapshot {
    let ring = |app: &str, stream: &str| Ring {
        app: app.to_owned(),
        region: "x".to_owned(),
        stream: stream.to_owned(),
        events_per_second: 500.0,
        last_poll_age_seconds: Some(0.3),
        silence: Duration::from_millis(300),
        ..Ring::default()
    };
    let app = |name: &str| App {
        name: name.to_owned(),
        ..App::default()
    };
    Snapshot {
        at: "2026-11-24T12:05:04Z".parse().unwrap(),
        uptime_seconds: 3600.0,
        apps: vec![app("a"), app("b")],
        rings: vec![
            ring("a", "user"),
            ring("a", "channel"),
            ring("b", "user"),
            ring("b", "channel"),
        ],
        journal: Journal {
            bytes: 1 << 20,
            used_bytes: 1 << 20,
            max_bytes: 4 << 30,
            free_disk_bytes: Some(100 << 30),
            min_free_disk_bytes: 256 << 20,
            ..Journal::default()
        },
        sinks: vec![
            sink("kafka", "Kafka"),
            sink("events", "the sink events (NATS)"),
        ],
        ..Snapshot::default()
    }
}

fn sink(name: &str, title: &str) -> Sink {
    let outlet = |app: &str| Outlet {
        app: app.to_owned(),
        ..Outlet::default()
    };
    Sink {
        name: name.to_owned(),
        title: title.to_owned(),
        pending_events: 300,
        pending_bytes: 9000,
        outlets: vec![outlet("a"), outlet("b")],
        ..Sink::default()
    }
}

/// The ring has not answered for so many seconds, or never.
fn silent(ring: &mut Ring, seconds: u64, has_answered: bool) {
    ring.silence = Duration::from_secs(seconds);
    ring.health = Health::of_ring(ring.silence, has_answered);
    ring.is_new = !has_answered;
    ring.last_poll_age_seconds = has_answered.then_some(seconds as f64);
}

fn said(change: impl FnOnce(&mut Snapshot)) -> Vec<(Level, String)> {
    let mut now = well();
    change(&mut now);
    let said = findings(&now).into_iter();
    said.map(|finding| (finding.level, finding.text)).collect()
}

fn first(change: impl FnOnce(&mut Snapshot)) -> (Level, String) {
    said(change).swap_remove(0)
}

/// Why the bridge is not ready.
fn reasons(change: impl FnOnce(&mut Snapshot)) -> Vec<NotReady> {
    let mut now = well();
    change(&mut now);
    let findings = findings(&now).into_iter();
    findings.flat_map(|finding| finding.not_ready).collect()
}

/// Holds: a healthy bridge says one thing; what may have been lost long ago is said too, and does not alarm.
#[test]
fn all_is_well() {
    let good = (Level::Good, "Nothing is lost; everything flows.".to_owned());
    assert_eq!(said(|_| {}), [good]);
    let long_ago = said(|now| now.apps[0].possibly_lost_ever = 4000);
    assert_eq!(long_ago.len(), 2);
    assert!(
        long_ago
            .iter()
            .any(|(level, text)| *level == Level::Note && text.contains("up to 4,000 events"))
    );
}

/// Holds: a sink that takes records and is minutes behind is named as that, and is not called well.
#[test]
fn a_sink_is_behind() {
    let behind = said(|now| {
        let kafka = &mut now.sinks[0];
        kafka.oldest_pending_age_seconds = Some(200.0);
        kafka.health = Health::of_backlog(Duration::from_secs(200));
        kafka.waiting_seconds = Some(0.4);
    });
    let expected = "Kafka is behind: it takes records, and the oldest that waits has waited for 3 min. 300 events \
                    wait for it in the journal; polling goes on, and nothing is lost.";
    assert_eq!(behind, [(Level::Late, expected.to_owned())]);
    assert_eq!(Health::of_backlog(Duration::from_secs(60)), Health::Up);
}

/// Holds: a sink that is down is named, with since when, why, how much waits, for how long there is room, and that
/// polling goes on and nothing is lost, where that is so.
#[test]
fn a_sink_is_down() {
    let down = |now: &mut Snapshot| {
        let kafka = &mut now.sinks[0];
        kafka.health = Health::Down;
        kafka.waiting_seconds = Some(120.0);
        kafka.why = Some("all brokers are down".to_owned());
        (kafka.pending_events, kafka.pending_bytes) = (12_345, 12_345 * 30);
    };
    let expected = "Kafka is down since 12:03:04 UTC (2 min): all brokers are down. 12,345 events wait for it in \
                    the journal; polling goes on, and nothing is lost. At this rate the journal has room for about \
                    19 h.";
    assert_eq!(first(down), (Level::Down, expected.to_owned()));

    let late = first(|now| {
        let nats = &mut now.sinks[1];
        nats.health = Health::Late;
        nats.waiting_seconds = Some(4.2);
        nats.apps = vec!["a".to_owned()];
    });
    let expected = "The sink events (NATS) seems to be down (for a): it has confirmed nothing since 12:04:59 UTC \
                    (4 s). 300 events wait for it in the journal; polling goes on, and nothing is lost.";
    assert_eq!(late, (Level::Late, expected.to_owned()));

    // What is not so is not said.
    let stopped = said(|now| {
        down(now);
        now.apps[1].stopped_seconds = Some(65.0);
    });
    assert_eq!(stopped[0].0, Level::Losing);
    assert!(
        stopped[0]
            .1
            .contains("polling of b has stopped since 12:03:59 UTC (65 s)")
    );
    assert!(
        stopped.iter().all(|(_, text)| !text.contains("goes on")),
        "{stopped:?}"
    );
    let losing = said(|now| {
        down(now);
        now.rings[3].overflows_recently = 1;
    });
    assert_eq!(losing[0].0, Level::Lost);
    assert!(
        losing[1].1.contains("in the journal; polling goes on."),
        "{losing:?}"
    );
    let silent = said(|now| {
        down(now);
        silent(&mut now.rings[3], 3600, false);
    });
    assert!(
        silent.iter().all(|(_, text)| !text.contains("goes on")),
        "{silent:?}"
    );
}

/// Holds: a paused App ID is named, with since when; its rings alarm nobody; and nothing is said of polling in general
/// that is not so of it.
#[test]
fn a_paused_app_is_named() {
    let pause = |now: &mut Snapshot, app: &str, seconds| {
        let paused = now.apps.iter_mut().find(|known| known.name == app);
        let paused = paused.unwrap();
        (paused.paused, paused.paused_seconds) = (true, seconds);
        for ring in now.rings.iter_mut().filter(|ring| ring.app == app) {
            ring.paused = true;
            silent(ring, 500, true);
        }
    };
    let one = said(|now| pause(now, "b", Some(120.0)));
    let expected = "Polling of b is paused since 12:03:04 UTC (2 min), as its configuration says. Meanwhile Agora \
                    keeps 2,000 events of a ring, and overwrites the oldest.";
    let flows = (Level::Good, "Everything else flows.".to_owned());
    assert_eq!(one, [(Level::Note, expected.to_owned()), flows]);
    let both = said(|now| {
        pause(now, "a", None);
        pause(now, "b", Some(1.0));
    });
    assert_eq!(both.len(), 2, "{both:?}");
    assert!(
        both[0]
            .1
            .contains("Polling of a is paused and was when the bridge started"),
        "{both:?}"
    );
    let down = |now: &mut Snapshot| {
        now.sinks[0].health = Health::Down;
        now.sinks[0].waiting_seconds = Some(60.0);
    };
    let outage = first(|now| {
        down(now);
        pause(now, "b", None);
    });
    assert_eq!(outage.0, Level::Down);
    assert!(
        outage
            .1
            .contains("; polling of a goes on, and nothing of that is lost."),
        "{outage:?}"
    );
    let silent = said(|now| {
        down(now);
        pause(now, "a", None);
        pause(now, "b", None);
    });
    assert!(
        silent.iter().all(|(_, text)| !text.contains("goes on")),
        "{silent:?}"
    );
}

/// Holds: why requests fail is said with what fails, at the start and later.
#[test]
fn why_requests_fail_is_said() {
    let refused = |now: &mut Snapshot, age, has_answered| {
        for ring in &mut now.rings {
            silent(ring, age, has_answered);
            ring.failure = Some("Agora answers 401 (unauthorized): bad key.".to_owned());
        }
    };
    let why = "The last request failed: Agora answers 401 (unauthorized): bad key.";
    let begins = first(|now| {
        now.uptime_seconds = 3.0;
        refused(now, 3, false);
    });
    let expected = format!("Polling begins: 4 of 4 rings have not answered yet. {why}");
    assert_eq!(begins, (Level::Late, expected));
    let later = first(|now| refused(now, 45, true));
    assert_eq!(later.0, Level::Losing);
    assert!(later.1.ends_with(why), "{later:?}");
}

/// Holds: after a pause rings have their time to answer again, and alarm nobody meanwhile.
#[test]
fn polling_that_goes_on_is_no_alarm() {
    let goes_on = |now: &mut Snapshot| {
        silent(&mut now.rings[0], 2, false);
        now.rings[0].is_new = false;
    };
    let expected = "Polling begins: 1 of 4 rings have not answered yet.";
    assert_eq!(first(goes_on), (Level::Note, expected.to_owned()));
    assert_eq!(reasons(goes_on), []);
}

/// Holds: what makes the bridge not ready is named for each ring, App ID and sink by itself, with what was said of it;
/// what only looks bad leaves it ready.
#[test]
fn what_makes_it_not_ready_is_named() {
    let of = |app: &str, sink: Option<&str>, reason: &str| NotReady {
        app: app.to_owned(),
        sink: sink.map(str::to_owned),
        reason: reason.to_owned(),
    };
    let rings = reasons(|now| {
        silent(&mut now.rings[0], 3, false);
        silent(&mut now.rings[3], 45, true);
        now.rings[3].failure = Some("no route to host".to_owned());
        silent(&mut now.rings[2], 50, true);
        now.apps[1].stopped_seconds = Some(50.4);
        now.journal.failing = true;
        now.is_stopping = true;
    });
    let expected = [
        of("", None, "the journal cannot be written"),
        of(
            "b",
            None,
            "polling has waited 50 s for room in the journal: it cannot be written",
        ),
        of("b", None, "x user: no successful poll for 50 s"),
        of(
            "b",
            None,
            "x channel: no successful poll for 45 s: no route to host",
        ),
        of(
            "",
            None,
            "the bridge is stopping: it sends no further request",
        ),
        of("a", None, "x user: not polled yet"),
    ];
    assert_eq!(rings, expected);

    let sinks = |waiting: f64, trouble: Option<Trouble>, said: Option<&str>| {
        reasons(|now| {
            let kafka = &mut now.sinks[0];
            let delivery = &mut kafka.outlets[1].delivery;
            delivery.waiting = Some(Duration::from_secs_f64(waiting));
            delivery.trouble = trouble;
            kafka.health = delivery.health();
            kafka.client.said = said.map(str::to_owned);
        })
    };
    let failed = || Some(Trouble::Failed("refused".to_owned()));
    assert_eq!(sinks(9.0, failed(), None), []);
    // How the last attempt ended is the last word; before the first has, the client's is.
    let said = Some("all brokers are down");
    for (trouble, why) in [(failed(), "refused"), (None, "all brokers are down")] {
        let waited = format!("a batch has waited 11 s for its confirmation: {why}");
        let expected = [of("b", Some("kafka"), &waited)];
        assert_eq!(sinks(11.0, trouble, said), expected);
    }
    let held = Some(Trouble::Held("no rights".to_owned()));
    assert_eq!(
        sinks(0.1, held, None),
        [of("b", Some("kafka"), "held: no rights")]
    );

    let paused = reasons(|now| {
        now.apps[1].paused = true;
        now.apps[1].stopped_seconds = Some(50.0);
        now.rings[2].paused = true;
        now.rings[3].paused = true;
        silent(&mut now.rings[3], 500, true);
        now.rings[0].possibly_lost_recently = 1000;
        now.journal.used_bytes = now.journal.max_bytes;
    });
    assert_eq!(paused, []);
}

/// Holds: the page calls down what makes the bridge not ready, at every moment, and nothing else; a client that reaches no
/// broker calls nothing down by itself.
#[test]
fn what_is_down_is_what_is_not_ready() {
    for waiting in [0.1, 1.6, 9.9, 10.1] {
        for trouble in [
            None,
            Some(Trouble::Failed("refused".to_owned())),
            Some(Trouble::Held("no rights".to_owned())),
        ] {
            for up in [true, false] {
                let mut now = well();
                let kafka = &mut now.sinks[0];
                kafka.client.up = up;
                kafka.waiting_seconds = Some(waiting);
                let delivery = Delivery {
                    waiting: Some(Duration::from_secs_f64(waiting)),
                    trouble: trouble.clone(),
                };
                let of_client = Health::of_client(&kafka.client);
                kafka.health = delivery.health().max(of_client);
                kafka.outlets[1].delivery = delivery;
                let found = findings(&now);
                let is_down = found.iter().any(|one| one.level == Level::Down);
                let is_ready = found.iter().all(|one| one.not_ready.is_empty());
                assert_eq!(is_down, !is_ready, "{found:?}");
            }
        }
    }
    let idle = said(|now| {
        now.sinks[0].client.up = false;
        now.sinks[0].health = Health::of_client(&now.sinks[0].client);
    });
    assert_eq!(idle[0].0, Level::Late);
    let expected = "Kafka seems to be down: its client reaches no broker.";
    assert!(idle[0].1.starts_with(expected), "{idle:?}");
}

/// What befalls a bridge.
type Change = fn(&mut Snapshot);

/// Holds: whatever loses events comes first and says so, and what is over is not said to go on.
#[test]
fn losses_come_first() {
    let losses: [(Change, &str); 9] = [
        (
            |now| now.journal.failing = true,
            "the journal cannot be written",
        ),
        (
            |now| now.apps[0].stopped_seconds = Some(1.0),
            "polling of a has stopped",
        ),
        (
            |now| now.apps[1].second_poller = true,
            "someone else seems to read those of b",
        ),
        (
            |now| silent(&mut now.rings[2], 45, true),
            "polling of b x user has not succeeded since 12:04:19 UTC (45 s)",
        ),
        (
            |now| {
                for ring in &mut now.rings {
                    silent(ring, 3600, false);
                }
            },
            "polling of every ring has not succeeded",
        ),
        (
            |now| now.rings[0].possibly_lost_recently = 1000,
            "up to 1,000 events in the last 5 minutes, of a x user",
        ),
        (
            |now| now.rings[1].overflows_recently = 1,
            "a x channel was full in the last 5 minutes, and Agora may have overwritten events, how many cannot be \
             told",
        ),
        (
            |now| {
                for ring in &mut now.rings[..2] {
                    ring.overflows_recently = 1;
                }
            },
            " were full in the last 5 minutes",
        ),
        (
            |now| now.sinks[0].skipped_recently = 1,
            "lost for Kafka: 1 event in the last 5 minutes, skipped",
        ),
    ];
    for (change, expected) in losses {
        let said = said(|now| {
            now.sinks[1].health = Health::Down;
            change(now);
        });
        // What is over is told as that.
        let level = match expected.contains("in the last 5 minutes") {
            true => Level::Lost,
            false => Level::Losing,
        };
        assert_eq!(said[0].0, level, "{expected}: {said:?}");
        let is_told_as_now = said[0].1.contains("are being lost");
        assert!(level == Level::Losing || !is_told_as_now, "{said:?}");
        assert!(said[0].1.contains(expected), "{expected}: {said:?}");
        assert!(
            said.iter()
                .all(|(_, text)| !text.contains("nothing is lost")),
            "{said:?}"
        );
    }
}

/// Holds: want of room is said before it stops polling.
#[test]
fn little_room_is_said() {
    let full = first(|now| now.journal.used_bytes = now.journal.max_bytes / 100 * 90 + 100);
    assert!(
        full.1.contains("90 % full (journal.max_entries);"),
        "{full:?}"
    );
    let large = first(|now| {
        now.journal.used_bytes = now.journal.max_bytes / 100 * 90 + 100;
        now.journal.bytes = now.journal.used_bytes / 8 * 7;
    });
    assert!(large.1.contains("90 % full;"), "{large:?}");
    let disk = first(|now| now.journal.free_disk_bytes = Some(300 << 20));
    assert_eq!(disk.0, Level::Late);
}

/// Holds: what stops polling is named by the bound that is reached, on the page and in readiness: the disk, the size, or
/// the number of entries.
#[test]
fn the_bound_of_a_full_journal_is_named() {
    let stopped = |journal: Journal| {
        let mut now = well();
        now.journal = journal;
        now.apps[0].stopped_seconds = Some(5.0);
        let finding = findings(&now).swap_remove(0);
        let reason = finding.not_ready[0].reason.clone();
        (finding.text, reason)
    };
    let mut empty_disk = well().journal;
    empty_disk.free_disk_bytes = Some(0);
    let mut large = well().journal;
    (large.used_bytes, large.bytes) = (large.max_bytes, large.max_bytes);
    let mut shared = well().journal;
    (shared.used_bytes, shared.bytes) = (shared.max_bytes / 2, shared.max_bytes / 2);
    let mut many = large.clone();
    many.bytes = many.max_bytes / 4;
    for (journal, says) in [
        (
            empty_disk,
            "the disk has 0 B free, and journal.min_free_bytes leaves 256.0 MiB",
        ),
        (shared, "the App ID's part of journal.max_bytes is used"),
        (large, "100 % of journal.max_bytes is used"),
        (many, "100 % of journal.max_entries is used"),
    ] {
        let (text, reason) = stopped(journal);
        assert!(text.contains(says), "{text}");
        assert!(reason.ends_with(says) || reason.contains(says), "{reason}");
    }
}

/// Holds: what a crash may have cost is said for as long as it is recent, and nothing says meanwhile that none was lost.
#[test]
fn a_crash_is_a_recent_loss() {
    let mut now = well();
    now.apps[0].possibly_lost_ever = 8_000;
    now.apps[0].crash_lost_recently = 8_000;
    let told = texts(&now);
    assert_eq!(findings(&now)[0].level, Level::Lost);
    assert!(
        told[0].contains("up to 8,000 events of a, as the last process died"),
        "{told:?}"
    );
    let all = told.join("\n");
    assert!(
        !all.contains("none in the last") && !all.contains("Nothing is lost"),
        "{all}"
    );
    // After several deaths in a row each number is said with its time, and that of the rings is the same.
    now.apps[0].possibly_lost_ever = 24_000;
    for ring in &mut now.rings[..2] {
        (ring.possibly_lost_recently, ring.crash_lost_recently) = (4_000, 4_000);
    }
    let told = texts(&now);
    let expected = "up to 8,000 events of a, as the last process died while it polled, counted by this start within the last 5 \
                    minutes; up to 24,000 events since the journal was made.";
    assert!(told[0].ends_with(expected), "{told:?}");
    assert!(
        !told.join("\n").contains("did not arrive whole"),
        "{told:?}"
    );
    now.rings[0].possibly_lost_recently = 5_000;
    let told = texts(&now);
    assert!(
        told[0].contains("up to 1,000 events in the last 5 minutes, of a x user"),
        "{told:?}"
    );
    for ring in &mut now.rings {
        (ring.possibly_lost_recently, ring.crash_lost_recently) = (0, 0);
    }
    now.apps[0].crash_lost_recently = 0;
    assert!(
        texts(&now)
            .join("\n")
            .contains("none in the last 5 minutes")
    );
}

/// Holds: a sink that left the configuration is said with what waits for it, when the journal will be full, and what to
/// do; and that everything flows is not said.
#[test]
fn a_removed_sink_is_said() {
    let mut now = well();
    now.removed_sinks = vec![RemovedSink {
        name: "old".to_owned(),
        app: None,
        pending_events: 67_000,
        pending_bytes: 67_000 * 400,
        oldest_pending_age_seconds: Some(60.0),
    }];
    let all = texts(&now).join("\n");
    for says in [
        "67,000 events",
        "full in about",
        "journal forget --sink old",
    ] {
        assert!(all.contains(says), "{all}");
    }
    assert!(!all.contains("everything flows"), "{all}");
}

/// Holds: a sink that cannot begin makes the bridge not ready, though nothing waits for it, and says what is missing once.
#[test]
fn a_sink_that_cannot_begin_is_not_ready() {
    let mut now = well();
    let sink = &mut now.sinks[0];
    (sink.health, sink.client.up, sink.client.begun) = (Health::Down, false, false);
    sink.why = Some("open /mnt/x: No such file or directory".to_owned());
    let finding = findings(&now).swap_remove(0);
    assert!(finding.text.contains("/mnt/x"), "{}", finding.text);
    let reasons: Vec<&str> = finding.not_ready.iter().map(|not| &*not.reason).collect();
    assert_eq!(
        reasons,
        ["it cannot begin: open /mnt/x: No such file or directory"]
    );
}

fn texts(now: &Snapshot) -> Vec<String> {
    findings(now)
        .into_iter()
        .map(|finding| finding.text)
        .collect()
}

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use rtm_sim::{AppStats, Fate, PageMissing, RingStats, Stream};

use super::*;

/// Pages of one ring, deleted at these times.
fn ledger(deleted_at: &[u64]) -> Ledger {
    let page = |(serial, at): (usize, &u64)| LedgerPage {
        app_id: "a".into(),
        region: "r".into(),
        stream: Stream::User,
        request_id: format!("{serial}"),
        serial: serial as u64,
        deleted_at_ms: *at,
        at_ms: Some(*at),
        status: Some(200),
        events: Arc::new(vec!["{}".into(); 10]),
        first_event_at: 0,
        fate: Fate::Whole,
        finished_at_ms: Some(*at),
    };
    Ledger {
        pages: deleted_at.iter().enumerate().map(page).collect(),
        rings: Vec::new(),
    }
}

fn missing(serial: u64, missing: u64) -> Findings {
    Findings {
        missing_count: missing,
        pages_missing: vec![PageMissing {
            app_id: "a".into(),
            region: "r".into(),
            stream: Stream::User,
            serial,
            last: false,
            required: 10,
            missing,
            finished_at_ms: Some(0),
        }],
        ..Findings::default()
    }
}

/// Holds: a kill excuses the last page of a ring before it, whole, and nothing else; and only if it is counted.
#[test]
fn a_kill_excuses_the_last_page_of_a_ring() {
    let ledger = ledger(&[1_000, 5_000, 9_900, 12_000]);
    let kills = [Kill { at_ms: 10_000 }];
    let broken = |serial, events, counted| {
        ledger_kept("s", &missing(serial, events), &ledger, &kills, counted).join("; ")
    };
    assert_eq!(broken(2, 10, 1_000.0), "");
    assert!(broken(2, 10, 9.0).contains("only 9 counted"));
    assert!(
        broken(2, 4, 1_000.0).contains("4 of 10"),
        "a part of a page"
    );
    assert!(broken(1, 10, 1_000.0).contains("page 1"), "not the last");
    assert!(broken(3, 10, 1_000.0).contains("page 3"), "after the kill");
    let without = ledger_kept("s", &missing(2, 10), &ledger, &[], 1_000.0);
    assert_eq!(without.len(), 1, "no kill");
}

/// Holds: loss at the source that is not counted, dead letters of clear events, and what is not clean, are broken
/// promises.
#[test]
fn every_kind_of_trouble_is_told() {
    let ledger = ledger(&[]);
    let broken = |findings: Findings| ledger_kept("s", &findings, &ledger, &[], 5.0).len();
    assert_eq!(broken(Findings::default()), 0);
    let lost = |lost_at_source| Findings {
        lost_at_source,
        ..Findings::default()
    };
    assert_eq!((broken(lost(5)), broken(lost(6))), (0, 1));
    assert_eq!(
        broken(Findings {
            dead_lettered_sound: 1,
            ..Findings::default()
        }),
        1
    );
    assert_eq!(
        broken(Findings {
            out_of_order_count: 1,
            ..Findings::default()
        }),
        1
    );
    let app = |max_in_second, refused_429| AppStats {
        max_in_second,
        refused_429,
        ..AppStats::default()
    };
    let rate = |app| {
        rate_kept(&SimStats {
            apps: vec![app],
            ..SimStats::default()
        })
        .len()
    };
    assert_eq!(
        (rate(app(10, 0)), rate(app(11, 0)), rate(app(11, 1))),
        (0, 1, 2)
    );
}

/// Holds: events may be overwritten only where polling was kept from happening, and then it is said.
#[test]
fn overwriting_is_told() {
    let stats = SimStats {
        rings: vec![RingStats {
            app_id: "a".into(),
            region: "r".into(),
            stream: Stream::User,
            generated: 5,
            overwritten: 5,
            handed_out: 0,
            cut: 0,
            unsent: 0,
            waiting: 0,
            pages: 0,
        }],
        ..SimStats::default()
    };
    let metrics = |suspected, stopped| {
        let text = format!(
            "rtm_bridge_overflow_suspected_total{{app=\"main\"}} {suspected}\n\
             rtm_bridge_polling_stopped_seconds_total{{app=\"main\"}} {stopped}\n"
        );
        Metrics::parse(&text).unwrap()
    };
    let count = |history: &History, metrics: &Metrics| {
        overwriting_told(&stats, history, metrics).unwrap().len()
    };
    let permitted = History {
        may_overwrite: true,
        ..History::default()
    };
    assert_eq!(count(&permitted, &metrics(1, 0)), 0);
    assert_eq!(count(&permitted, &metrics(0, 0)), 1);
    assert_eq!(count(&History::default(), &metrics(1, 0)), 1);
    let full = History {
        may_overwrite: true,
        disk_filled: true,
        ..History::default()
    };
    assert_eq!(
        (count(&full, &metrics(1, 0)), count(&full, &metrics(1, 2))),
        (1, 0)
    );
}

/// Holds: the secret is found in the forms in which it is written and sent.
#[test]
fn a_secret_is_found() {
    use base64::Engine as _;
    let sent = base64::engine::general_purpose::STANDARD.encode("demo-key:demo-secret");
    assert!(tells_secret(&format!("Authorization: Basic {sent}")));
    assert!(tells_secret("secret=demo-secret"));
    assert!(!tells_secret("secret=[REDACTED]"));
}

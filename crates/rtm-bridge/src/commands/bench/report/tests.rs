#![allow(clippy::unwrap_used)]

use super::*;

fn held(missing: u64) -> Held {
    let arrived = |ages: &[i64]| ages.iter().map(|age| Arrived { at: *age, ms: 0 }).collect();
    Held {
        sink: "s".to_owned(),
        findings: rtm_sim::Findings {
            missing_count: missing,
            ..rtm_sim::Findings::default()
        },
        arrived: [("a".to_owned(), arrived(&[5, 1, 3]))].into(),
    }
}

/// Of a bench of ten seconds at `rate` that handed out and lost so many events, with so many requests.
fn report(rate: f64, events: u64, lost: u64, requests: u64, held: &[Held]) -> Report {
    let args = BenchArgs {
        rate,
        time: Duration::from_secs(1),
        regions: 1,
        apps: 1,
        kafka: None,
        nats: None,
        config: None,
        json: true,
        keep: false,
    };
    let stats = SimStats {
        rings: vec![rtm_sim::RingStats {
            app_id: "a".into(),
            region: "r".into(),
            stream: rtm_sim::Stream::User,
            generated: events,
            overwritten: lost,
            handed_out: events,
            cut: 0,
            unsent: 0,
            waiting: 0,
            pages: 1,
        }],
        apps: vec![rtm_sim::AppStats {
            requests,
            ..rtm_sim::AppStats::default()
        }],
        ..SimStats::default()
    };
    let used = Usage {
        user: 2.0,
        system: 1.0,
        written: 5_000_000,
        ..Usage::default()
    };
    let took = Duration::from_secs(10);
    Report::new(&args, took, &used, &stats, held, 3_000_000)
}

/// Holds: what is missing or wrong in one sink is not clean, and neither is a bench without events.
#[test]
fn clean_is_every_sink() {
    let good = report(10.0, 1_000_000, 0, 100, &[held(0), held(0)]);
    assert!(good.clean && good.to_string().ends_with("\nnothing missing"));
    assert_eq!(good.cpu_seconds_per_million_events, Some(3.0));
    assert_eq!(good.written_bytes_per_event, 5.0);
    assert_eq!(good.journal_bytes_per_event, 2.0);
    assert_eq!(good.events_per_second, 100_000.0);
    let ages = Ages {
        p50: 3,
        p99: 5,
        max: 5,
    };
    assert_eq!(good.sinks[0].age_ms, Some(ages));
    let bad = report(10.0, 1_000_000, 0, 100, &[held(0), held(1)]);
    assert!(!bad.clean && bad.to_string().contains("SOMETHING IS MISSING"));
    assert!(!report(10.0, 0, 0, 100, &[held(0)]).clean);
}

/// Holds: what was lost at the ring is the last word, with the reason, and not clean, whatever the sinks hold.
#[test]
fn what_is_lost_at_the_ring_is_the_last_word() {
    let last = |report: &Report| report.to_string().lines().last().unwrap().to_owned();
    let beyond = report(15_000.0, 60_000, 30_000, 100, &[held(0)]);
    assert!(!beyond.clean);
    assert!(last(&beyond).contains("30000 of 90000 events (33.3 %)"));
    assert!(last(&beyond).contains("what the API gives"));
    assert!(!beyond.to_string().contains("nothing missing\n"));
    let slow = report(9_000.0, 60_000, 1, 100, &[held(1)]);
    assert!(!slow.clean && last(&slow).contains("what this machine takes"));
    assert!(slow.to_string().contains("SOMETHING IS MISSING"));
}

/// Holds: where polling is all that costs, CPU is told in cores, and not by events.
#[test]
fn the_cost_of_polling_is_not_divided_by_events() {
    for (events, requests) in [(0, 100), (9_999, 1), (12_000, 60_000)] {
        let report = report(10.0, events, 0, requests, &[held(0)]);
        assert_eq!(report.cpu_seconds_per_million_events, None);
        let text = report.to_string();
        assert!(!text.contains("per million") && text.contains("CPU cores"));
        assert!(!text.contains("context switches"));
        assert_eq!(text.contains("written to disk"), events > 0);
    }
}

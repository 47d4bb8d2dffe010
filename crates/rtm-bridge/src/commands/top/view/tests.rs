#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::time::{Instant, SystemTime};

use super::*;

/// Name, whether it is up, events that wait, and when it last confirmed.
const SINKS: [(&str, u32, u32, f64); 2] = [("kafka", 0, 4560, 0.0), ("nats", 1, 0, 4999.9)];

fn app_name(index: usize) -> String {
    match index {
        0 => "main".to_owned(),
        index => format!("app{index}"),
    }
}

/// Metrics of a bridge of so many App IDs and regions, `polls` polls into its life; anything else that is to be so.
fn metrics(apps: usize, regions: usize, polls: u32, more: &str) -> String {
    let mut text = String::from(
        "process_start_time_seconds 1000\nrtm_bridge_build_info{commit=\"c\",version=\"0.1.0\"} 1\n",
    );
    for app in 0..apps {
        let app = app_name(app);
        for region in 0..regions {
            for stream in ["user", "channel"] {
                let of = format!("app=\"{app}\",region=\"r{region}\",stream=\"{stream}\"");
                let _ = writeln!(
                    text,
                    "rtm_bridge_events_fetched_total{{{of}}} {}",
                    100 * polls
                );
                let _ = writeln!(
                    text,
                    "rtm_bridge_last_successful_poll_timestamp_seconds{{{of}}} 4999.7"
                );
                let _ = writeln!(
                    text,
                    "rtm_bridge_polls_total{{outcome=\"page\",{of}}} {polls}"
                );
                let _ = writeln!(text, "rtm_bridge_full_pages_total{{{of}}} 0");
            }
        }
        let _ = writeln!(
            text,
            "rtm_bridge_request_budget_per_second{{app=\"{app}\"}} 10"
        );
        let _ = writeln!(
            text,
            "rtm_bridge_requests_unused_total{{app=\"{app}\"}} {polls}"
        );
        for (sink, up, pending, confirmed) in SINKS {
            let of = format!("app=\"{app}\",sink=\"{sink}\"");
            let _ = writeln!(text, "rtm_bridge_journal_pending_events{{{of}}} {pending}");
            let _ = writeln!(
                text,
                "rtm_bridge_journal_oldest_pending_age_seconds{{{of}}} {}",
                pending / 100
            );
            let _ = writeln!(
                text,
                "rtm_bridge_last_confirmation_timestamp_seconds{{{of}}} {confirmed}"
            );
            let _ = writeln!(
                text,
                "rtm_bridge_records_confirmed_total{{{of}}} {}",
                u32::from(up == 1) * 400 * polls
            );
        }
    }
    for (sink, up, ..) in SINKS {
        let _ = writeln!(text, "rtm_bridge_sink_up{{sink=\"{sink}\"}} {up}");
    }
    let _ = writeln!(
        text,
        "rtm_bridge_journal_bytes 3006477107\nrtm_bridge_journal_used_bytes 3006477107\nrtm_bridge_journal_limit_bytes 4294967296"
    );
    let _ = writeln!(text, "rtm_bridge_journal_free_disk_bytes 10737418240");
    let _ = writeln!(
        text,
        "rtm_bridge_journal_commit_duration_seconds_sum {}",
        f64::from(polls) * 0.002
    );
    let _ = writeln!(
        text,
        "rtm_bridge_journal_commit_duration_seconds_count {polls}"
    );
    text + more
}

fn page(regions: usize, more: &str, width: usize, height: usize) -> Vec<Line> {
    page_of(1, regions, more, width, height)
}

/// The page of a bridge between its 10th and its 30th poll of each ring, ten seconds apart.
fn page_of(apps: usize, regions: usize, more: &str, width: usize, height: usize) -> Vec<Line> {
    let clock = SystemTime::UNIX_EPOCH + Duration::from_secs(5000);
    let at = Instant::now();
    let before = Sample::parse(&metrics(apps, regions, 10, more), at, clock).unwrap();
    let later = at + Duration::from_secs(10);
    let now = Sample::parse(&metrics(apps, regions, 30, more), later, clock).unwrap();
    let seen = Seen {
        url: "http://127.0.0.1:9464",
        now: Some(&now),
        before: Some(&before),
        away: None,
    };
    lines(&seen, width, height)
}

fn text(page: &[Line]) -> String {
    page.iter()
        .map(|line| line.text().trim_end().to_owned() + "\n")
        .collect()
}

const TROUBLE: &str = "rtm_bridge_events_possibly_lost_total{app=\"main\",reason=\"cut\",region=\"r1\",stream=\"user\"} 2000\n\
    rtm_bridge_overflow_suspected_total{app=\"main\",region=\"r1\",stream=\"user\"} 2\n\
    rtm_bridge_overflow_events_estimated_total{app=\"main\",region=\"r1\",stream=\"user\"} 345\n\
    rtm_bridge_records_dead_lettered_total{app=\"main\",reason=\"other\",sink=\"kafka\"} 7\n\
    rtm_bridge_polling_stopped{app=\"main\"} 1\nrtm_bridge_journal_failing 1\nrtm_bridge_second_poller_suspected{app=\"main\"} 1\n";

/// Holds: a page of 80 × 24, losses first, then what is stuck.
#[test]
fn a_terminal_of_80_by_24() {
    insta::assert_snapshot!(text(&page(2, "", 80, 24)), @r"
    rtm-bridge 0.1.0 at http://127.0.0.1:9464, up 67 min                     q quits
    NOTHING LOST, as far as can be told; no dead letters
    kafka is down; what it misses waits in the journal

    SINK                             up   waiting    oldest  records/s   confirmed
    main > kafka                   DOWN      4560       45s        0.0       never
    main > nats                     yes         0      0.0s      800.0    0.1s ago

    JOURNAL [#######...] 70.0 % 2.8 GiB of 4.0 GiB; free 10.0 GiB, sync 2.0 ms

    REQUESTS A SECOND                limit    used  unused   refused      429s
    main                                10     8.0     2.0         0         0

    RING                            events/s   age   gap    events  full  maybe lost
    main r0 user                       200.0  0.3s  0.5s      3000     0           0
    main r0 channel                    200.0  0.3s  0.5s      3000     0           0
    main r1 user                       200.0  0.3s  0.5s      3000     0           0
    main r1 channel                    200.0  0.3s  0.5s      3000     0           0
    ");
    insta::assert_snapshot!(text(&page(2, TROUBLE, 80, 24)), @r"
    rtm-bridge 0.1.0 at http://127.0.0.1:9464, up 67 min                     q quits
    LOST: at most 2000 events at the source (cut 2000)
    LOST: rings were full 2 times (about 345 events)
    7 records went to dead letters
    the journal cannot be written; polling waits
    main: polling is stopped, the journal has no room for it
    kafka is down; what it misses waits in the journal (and 1 more)

    SINK                             up   waiting    oldest  records/s   confirmed
    main > kafka                   DOWN      4560       45s        0.0       never
    main > nats                     yes         0      0.0s      800.0    0.1s ago

    JOURNAL [#######...] 70.0 % 2.8 GiB of 4.0 GiB; free 10.0 GiB, sync 2.0 ms

    REQUESTS A SECOND                limit    used  unused   refused      429s
    main                                10     8.0     2.0         0         0

    RING                            events/s   age   gap    events  full  maybe lost
    main r1 user                       200.0  0.3s  0.5s      3000     0        2000
    main r0 user                       200.0  0.3s  0.5s      3000     0           0
    main r0 channel                    200.0  0.3s  0.5s      3000     0           0
    main r1 channel                    200.0  0.3s  0.5s      3000     0           0
    ");
}

/// Holds: where there is little room every section is still seen, each sink with whether it is up and what waits for it,
/// and the list of rings is what is shortened; also with more App IDs than there are lines.
#[test]
fn every_section_is_seen_with_little_room() {
    insta::assert_snapshot!(text(&page(8, TROUBLE, 60, 20)), @r"
    rtm-bridge 0.1.0 at http://127.0.0.1:9464, up 67 min
    LOST: at most 2000 events at the source (cut 2000)
    LOST: rings were full 2 times (about 345 events)
    7 records went to dead letters
    the journal cannot be written; polling waits
    main: polling is stopped, the journal has no room for it
    kafka is down; what it misses waits in the journal (and 1 mo
    SINK                      up   waiting    oldest   confirmed
    main > kafka            DOWN      4560       45s       never
    main > nats              yes         0      0.0s    0.1s ago
    JOURNAL 70.0 % of 4.0 GiB; free 10.0 GiB, sync 2.0 ms
    REQUESTS A SECOND         limit    used   refused      429s
    main                         10    32.0         0         0
    RING                     events/s   age   gap  maybe lost
    main r1 user                200.0  0.3s  0.5s        2000
    main r0 user                200.0  0.3s  0.5s           0
    main r0 channel             200.0  0.3s  0.5s           0
    main r1 channel             200.0  0.3s  0.5s           0
    main r2 user                200.0  0.3s  0.5s           0
    … and 11 more
    ");
    for (apps, regions) in [(1, 1), (1, 8), (4, 1), (4, 8), (40, 8)] {
        for (width, height) in [(80, 24), (60, 20), (200, 50)] {
            let page = text(&page_of(apps, regions, TROUBLE, width, height));
            let of = format!("{apps} x {regions} in {width} x {height}:\n{page}");
            let rows: Vec<&str> = page.lines().collect();
            for section in ["SINK", "JOURNAL", "REQUESTS", "RING"] {
                let at = rows.iter().position(|row| row.starts_with(section));
                let at = at.unwrap_or_else(|| panic!("no {section}, {of}"));
                // The journal's line says all; below the others is at least one row.
                let row = rows.get(at + 1).is_some_and(|row| !row.is_empty());
                assert!(section == "JOURNAL" || row, "nothing of {section}, {of}");
            }
            let down = rows.iter().find(|row| row.contains("> kafka"));
            let down = down.unwrap_or_else(|| panic!("no sink, {of}"));
            assert!(down.contains("DOWN") && down.contains("4560"), "{of}");
            let shown = rows
                .iter()
                .filter(|row| row.contains(" user ") || row.contains(" channel "));
            let more = rows.last().and_then(|row| {
                let (_, rest) = row.split_once("… and ")?;
                rest.strip_suffix(" more")?.parse::<usize>().ok()
            });
            let all = 2 * apps * regions;
            assert_eq!(shown.count() + more.unwrap_or(0), all, "{of}");
        }
    }
    // With room for all, nothing is left out, and names are whole.
    let much = text(&page_of(1, 8, "", 200, 50));
    assert!(!much.contains('…'), "{much}");
}

/// Holds: an App ID that is paused is said to be, and its rings alarm nobody.
#[test]
fn a_paused_app_alarms_nobody() {
    let quiet = "rtm_bridge_last_successful_poll_timestamp_seconds{app=\"main\",region=\"old\",stream=\"user\"} 2000\n\
                 rtm_bridge_events_fetched_total{app=\"main\",region=\"old\",stream=\"user\"} 7\n";
    let silent = text(&page(1, quiet, 80, 24));
    assert!(
        silent.contains("main old user: no successful poll for 50 min"),
        "{silent}"
    );
    let paused = format!("{quiet}rtm_bridge_app_paused{{app=\"main\"}} 1\n");
    let page = text(&page(1, &paused, 80, 24));
    assert!(
        page.contains("paused, as the configuration says: main"),
        "{page}"
    );
    assert!(!page.contains("no successful poll"), "{page}");
    let ring = page.lines().find(|line| line.starts_with("main old user"));
    assert!(ring.is_some_and(|ring| ring.contains(" off ")), "{page}");
}

/// Holds: whatever the size and however much there is, nothing is wider or higher than the terminal, and nothing panics;
/// with room for little the losses are what stays, and what is left out is counted.
#[test]
fn everything_fits_every_terminal() {
    for regions in [0, 1, 8, 100] {
        for (width, height) in [(80, 24), (200, 60), (40, 10), (10, 3), (1, 1), (0, 0)] {
            for more in ["", TROUBLE] {
                let page = page(regions, more, width, height);
                assert!(page.len() <= height, "{regions} in {width} x {height}");
                let widest = page.iter().map(|line| line.text().chars().count()).max();
                assert!(
                    widest.unwrap_or(0) <= width,
                    "{regions} in {width} x {height}"
                );
            }
        }
    }
    let many = text(&page(100, TROUBLE, 80, 24));
    assert!(
        many.lines()
            .nth(1)
            .unwrap()
            .starts_with("LOST: at most 2000 events at the source (cut 2000)"),
        "{many}"
    );
    assert!(many.contains("… and 19"), "{many}");
    assert!(
        many.contains("SINK") && many.contains("main > kafka") && many.contains("main > nats"),
        "{many}"
    );
    // The ring that lost something is one of the few that are shown.
    assert!(many.contains("main r1 user"), "{many}");
}

/// Holds: a bridge that does not answer is said to, with what was last known; and so is one that never has.
#[test]
fn a_bridge_that_is_away_is_said_to_be() {
    let away = Some((Duration::from_secs(12), "connection refused"));
    let nothing = Seen {
        url: "http://h:1",
        now: None,
        before: None,
        away,
    };
    let page = text(&lines(&nothing, 80, 24));
    assert!(
        page.contains("NO ANSWER for 12 s: connection refused; trying again"),
        "{page}"
    );
    let clock = SystemTime::UNIX_EPOCH + Duration::from_secs(5000);
    let known = Sample::parse(&metrics(1, 1, 1, ""), Instant::now(), clock).unwrap();
    let seen = Seen {
        now: Some(&known),
        before: Some(&known),
        ..nothing
    };
    let page = text(&lines(&seen, 80, 24));
    assert!(
        page.contains("NO ANSWER") && page.contains("main > kafka"),
        "{page}"
    );
    // One sample has no rates.
    assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
}

/// Holds: what is wrong is red, and what is well is not.
#[test]
fn colours_say_what_is_wrong() {
    let style_of = |page: &[Line], what: &str| {
        let spans = page.iter().flat_map(|line| line.spans().to_vec());
        spans
            .into_iter()
            .find(|(_, text)| text.contains(what))
            .unwrap()
            .0
    };
    let well = page(2, "", 80, 24);
    assert_eq!(style_of(&well, "NOTHING LOST"), Style::Good);
    assert_eq!(style_of(&well, "DOWN"), Style::Bad);
    let ill = page(2, TROUBLE, 80, 24);
    for bad in [
        "LOST: at most",
        "LOST: rings",
        "cannot be written",
        "polling is stopped",
    ] {
        assert_eq!(style_of(&ill, bad), Style::Bad, "{bad}");
    }
}

#![allow(clippy::unwrap_used)]

use super::*;
use rtm_engine::status::report::{Budget, Report, VERSION};
use rtm_engine::status::snapshot::Journal;

/// Name, how it is, events that wait, and how long ago it last confirmed.
const SINKS: [(&str, Health, u64, Option<f64>); 2] = [
    ("kafka", Health::Down, 4560, None),
    ("nats", Health::Up, 0, Some(0.1)),
];

fn app_name(index: usize) -> String {
    match index {
        0 => "main".to_owned(),
        index => format!("app{index}"),
    }
}

/// A bridge of so many App IDs and regions, `polls` polls into its life, of which it says `findings`.
fn status(apps: usize, regions: usize, polls: u64, findings: &[(Level, &str)]) -> Status {
    let names = || (0..apps).map(app_name);
    let ring = |app: &str, region: usize, stream: &str| Ring {
        app: app.to_owned(),
        region: format!("r{region}"),
        stream: stream.to_owned(),
        events_per_second: 200.0,
        last_poll_age_seconds: Some(0.3),
        last_gap_seconds: Some(0.5),
        events: 100 * polls,
        ..Ring::default()
    };
    let rings = |app: String| {
        let streams = (0..regions).flat_map(|region| [(region, "user"), (region, "channel")]);
        let rings = streams.map(|(region, stream)| ring(&app, region, stream));
        rings.collect::<Vec<_>>()
    };
    let sink = |(name, health, pending, confirmed): (&str, Health, u64, Option<f64>)| {
        let outlet = |app| Outlet {
            app,
            health,
            pending_events: pending,
            oldest_pending_age_seconds: Some((pending / 100) as f64),
            last_confirmation_age_seconds: confirmed,
            confirmed: u64::from(health == Health::Up) * 400 * polls,
            ..Outlet::default()
        };
        Sink {
            name: name.to_owned(),
            outlets: names().map(outlet).collect(),
            ..Sink::default()
        }
    };
    let app = |name| App {
        name,
        requests_per_second: 10,
        requests: (polls * regions as u64) * 2,
        requests_unused: polls,
        ..App::default()
    };
    let findings = findings.iter().map(|(level, text)| Finding {
        level: *level,
        text: (*text).to_owned(),
        not_ready: Vec::new(),
    });
    Status {
        version: "0.1.0".to_owned(),
        report: Report {
            v: VERSION,
            findings: findings.collect(),
            now: Snapshot {
                uptime_seconds: 4010.0 + polls as f64 / 2.0,
                apps: names().map(app).collect(),
                rings: names().flat_map(rings).collect(),
                journal: Journal {
                    used_bytes: 3_006_477_107,
                    max_bytes: 4 << 30,
                    free_disk_bytes: Some(10 << 30),
                    syncs: polls,
                    syncs_seconds: polls as f64 * 0.002,
                    ..Journal::default()
                },
                sinks: SINKS.map(sink).to_vec(),
                ..Snapshot::default()
            },
            budget: Budget::default(),
        },
    }
}

/// How a bridge is, and what else becomes of it.
type Trouble = fn(&mut Status);

const WELL: Trouble = |_| {};

fn page(regions: usize, trouble: Trouble, width: u16, height: u16) -> Buffer {
    page_of(1, regions, trouble, width, height)
}

/// The page of a bridge between its 10th and its 30th poll of each ring, ten seconds apart.
fn page_of(apps: usize, regions: usize, trouble: Trouble, width: u16, height: u16) -> Buffer {
    let down = [(Level::Down, DOWN)];
    let before = status(apps, regions, 10, &down);
    let mut now = status(apps, regions, 30, &down);
    trouble(&mut now);
    let seen = Seen {
        url: "http://127.0.0.1:9464",
        known: Some((&before, &now)),
        away: None,
    };
    drawn(&seen, width, height)
}

fn drawn(seen: &Seen<'_>, width: u16, height: u16) -> Buffer {
    let mut page = Buffer::empty(Rect::new(0, 0, width, height));
    seen.render(page.area, &mut page);
    page
}

const DOWN: &str = "Kafka is down since 12:03:04 UTC (45 s): all brokers are down. 4,560 events wait for it in the \
                    journal; polling goes on, and nothing is lost.";

const TROUBLE: Trouble = |status| {
    let now = &mut status.report.now;
    if let Some(ring) = now.rings.get_mut(2) {
        (ring.possibly_lost_ever, ring.overflows, ring.full_pages) = (2000, 2, 5);
    }
    (
        now.apps[0].possibly_lost_ever,
        now.sinks[0].outlets[0].dead_lettered,
    ) = (2000, 7);
    // The same events, in the other sinks.
    for sink in now.sinks.iter_mut().skip(1) {
        sink.outlets[0].dead_lettered = 6;
    }
    let text = "Events are being lost: the journal cannot be written, so polling waits, and Agora overwrites its \
                oldest events.";
    let losing = Finding {
        level: Level::Losing,
        text: text.to_owned(),
        not_ready: Vec::new(),
    };
    status.report.findings.insert(0, losing);
};

/// Holds: a page of 80 × 24, what is wrong first, in the bridge's words.
#[test]
fn a_terminal_of_80_by_24() {
    insta::assert_snapshot!(text(&page(2, WELL, 80, 24)), @r"
    rtm-bridge 0.1.0 at http://127.0.0.1:9464, up 67 min  q quits
    Kafka is down since 12:03:04 UTC (45 s): all brokers are down. 4,560 events wait
      for it in the journal; polling goes on, and nothing is lost.
    possibly lost 0, given up 0, dead letters 0, rings full 0

    SINK                            up oldest  waiting   confirmed records/s
    main > kafka                  DOWN    45s     4560       never       0.0
    main > nats                    yes   0.0s        0    0.1s ago     800.0

    JOURNAL 70.0 % of 4.0 GiB; free 10.0 GiB, sync 2.0 ms [#######...]

    REQUESTS/S                   limit   used  refused        429s    unused
    main                            10    8.0        0           0       2.0

    RING                           age    gap events/s  maybe lost    events    full
    main r0 user                  0.3s   0.5s    200.0           0      3000       0
    main r0 channel               0.3s   0.5s    200.0           0      3000       0
    main r1 user                  0.3s   0.5s    200.0           0      3000       0
    main r1 channel               0.3s   0.5s    200.0           0      3000       0
    ");
    insta::assert_snapshot!(text(&page(2, TROUBLE, 80, 24)), @r"
    rtm-bridge 0.1.0 at http://127.0.0.1:9464, up 67 min  q quits
    Events are being lost: the journal cannot be written, so polling waits, and
      Agora overwrites its oldest events.
    Kafka is down since 12:03:04 UTC (45 s): all brokers are down. 4,560 events wait
      for it in the journal; polling goes on, and nothing is lost.
    possibly lost 2000, given up 0, dead letters 7, rings full 2

    SINK                            up oldest  waiting   confirmed records/s
    main > kafka                  DOWN    45s     4560       never       0.0
    main > nats                    yes   0.0s        0    0.1s ago     800.0

    JOURNAL 70.0 % of 4.0 GiB; free 10.0 GiB, sync 2.0 ms [#######...]

    REQUESTS/S                   limit   used  refused        429s    unused
    main                            10    8.0        0           0       2.0

    RING                           age    gap events/s  maybe lost    events    full
    main r1 user                  0.3s   0.5s    200.0        2000      3000       5
    main r0 user                  0.3s   0.5s    200.0           0      3000       0
    main r0 channel               0.3s   0.5s    200.0           0      3000       0
    main r1 channel               0.3s   0.5s    200.0           0      3000       0
    ");
}

/// Holds: where there is little room every section is still seen, each sink with whether it is up and what waits for it,
/// and the list of rings is what is shortened; also with more App IDs than there are lines.
#[test]
fn every_section_is_seen_with_little_room() {
    insta::assert_snapshot!(text(&page(8, TROUBLE, 60, 20)), @r"
    rtm-bridge 0.1.0 at http://127.0.0.1:9464, up 67 min  q quit
    Events are being lost: the journal cannot be written, so
      polling waits, and Agora overwrites its oldest events.
    Kafka is down since 12:03:04 UTC (45 s): all brokers are
      down. 4,560 events wait for it in the journal; polling
      goes on, and nothing is lost.
    possibly lost 2000, given up 0, dead letters 7, rings full 2
    SINK                          up oldest  waiting   confirmed
    main > kafka                DOWN    45s     4560       never
    main > nats                  yes   0.0s        0    0.1s ago
    JOURNAL 70.0 % of 4.0 GiB; free 10.0 GiB, sync 2.0 ms [#####
    REQUESTS/S                 limit   used  refused        429s
    main                          10   32.0        0           0
    RING                         age    gap events/s  maybe lost
    main r1 user                0.3s   0.5s    200.0        2000
    main r0 user                0.3s   0.5s    200.0           0
    main r0 channel             0.3s   0.5s    200.0           0
    main r1 channel             0.3s   0.5s    200.0           0
    main r2 user                0.3s   0.5s    200.0           0
    … and 11 more
    ");
    for (apps, regions) in [(1, 1), (1, 8), (4, 1), (4, 8), (40, 8)] {
        for (width, height) in [(80, 24), (60, 20), (200, 50)] {
            let page = text(&page_of(apps, regions, TROUBLE, width, height));
            let of = format!("{apps} x {regions} in {width} x {height}:\n{page}");
            let rows: Vec<&str> = page.trim_end().lines().collect();
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
    let much = text(&page_of(1, 8, WELL, 200, 50));
    assert!(!much.contains('…'), "{much}");
}

/// Holds: a narrow terminal has fewer figures, each of them whole, and the end of names that are too long.
#[test]
fn a_narrow_terminal_has_fewer_figures() {
    let long: Trouble = |status| {
        let rings = status.report.now.rings.iter_mut();
        rings.for_each(|ring| ring.app = "an-app-with-a-name".to_owned());
    };
    insta::assert_snapshot!(text(&page(1, long, 40, 15)), @r"
    rtm-bridge 0.1.0 at http://127.0.0.1:946
    Kafka is down since 12:03:04 UTC (45 s):
      all brokers are down. 4,560 events
      wait for it in the journal; polling
      goes on, and nothing is lost.
    possibly lost 0, given up 0, dead letter
    SINK                  up oldest  waiting
    main > kafka        DOWN    45s     4560
    main > nats          yes   0.0s        0
    JOURNAL 70.0 % of 4.0 GiB; free 10.0 GiB
    REQUESTS/S         limit   used  refused
    main                  10    4.0        0
    RING                 age    gap events/s
    …-a-name r0 user    0.3s   0.5s    200.0
    …name r0 channel    0.3s   0.5s    200.0
    ");
}

/// Holds: the rings of a paused App ID are shown as off, and those that are down come first.
#[test]
fn rings_that_need_somebody_come_first() {
    let silent: Trouble = |status| {
        let ring = &mut status.report.now.rings[3];
        ring.health = Health::Down;
        ring.last_poll_age_seconds = Some(3000.0);
    };
    let first_ring = |page: &str| {
        let rings = page.lines().skip_while(|line| !line.starts_with("RING"));
        rings.skip(1).map(str::to_owned).next().unwrap()
    };
    let silent_page = text(&page(2, silent, 80, 24));
    let ring = first_ring(&silent_page);
    assert!(
        ring.starts_with("main r1 channel") && ring.contains(" 50m "),
        "{silent_page}"
    );
    let paused: Trouble = |status| {
        let now = &mut status.report.now;
        now.rings[3].health = Health::Down;
        now.rings.iter_mut().for_each(|ring| ring.paused = true);
    };
    let paused_page = text(&page(2, paused, 80, 24));
    let ring = first_ring(&paused_page);
    assert!(
        ring.starts_with("main r0 user") && ring.contains(" off "),
        "{paused_page}"
    );
}

/// Holds: what another process says has no control characters when it gets to the terminal.
#[test]
fn nothing_read_moves_the_cursor() {
    let hostile: Trouble = |status| {
        status.version = "0\u{1b}[2J".to_owned();
        status.report.now.apps[0].name = "ma\u{1b}in".to_owned();
        status.report.findings[0].text = "a\u{7}b\u{1b}[31m c".to_owned();
    };
    let page = text(&page(1, hostile, 80, 24)).replace('\n', "");
    assert!(!page.contains(char::is_control), "{page:?}");
    assert!(page.contains("ab[31m c") && page.contains("main"), "{page}");
}

/// Holds: whatever the size and however much there is, the page begins at its beginning, and nothing panics; with room for
/// little the losses are what stays, and what is left out is counted.
#[test]
fn everything_fits_every_terminal() {
    for regions in [0, 1, 8, 100] {
        for (width, height) in [(80, 24), (200, 60), (40, 10), (10, 3), (1, 1), (0, 0)] {
            for trouble in [WELL, TROUBLE] {
                let page = text(&page(regions, trouble, width, height));
                let of = format!("{regions} in {width} x {height}:\n{page}");
                assert_eq!(page.lines().count(), usize::from(height), "{of}");
                let title = "rtm-bridge".chars().take(width.into()).collect::<String>();
                assert!(page.starts_with(&title), "{of}");
            }
        }
    }
    let many = text(&page(100, TROUBLE, 80, 24));
    assert!(
        many.lines()
            .nth(1)
            .unwrap()
            .starts_with("Events are being lost: the journal cannot be written"),
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
        known: None,
        away,
    };
    let page = text(&drawn(&nothing, 80, 24));
    assert!(
        page.contains("NO ANSWER for 12 s: connection refused; trying again"),
        "{page}"
    );
    let known = status(
        1,
        1,
        1,
        &[(Level::Good, "Nothing is lost; everything flows.")],
    );
    let seen = Seen {
        known: Some((&known, &known)),
        ..nothing
    };
    let page = text(&drawn(&seen, 80, 24));
    assert!(
        page.contains("NO ANSWER") && page.contains("main > kafka"),
        "{page}"
    );
    assert!(!page.contains("everything flows"), "{page}");
    // One sample has no rates.
    assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
}

/// Holds: what is wrong is red, and what is well is not.
#[test]
fn colours_say_what_is_wrong() {
    let style_of = |page: &Buffer, what: &str| {
        let text = text(page);
        let mut rows = text.lines().zip(0..);
        let at = rows.find_map(|(row, y)| Some((row.find(what)? as u16, y)));
        let cell = &page[at.unwrap()];
        (cell.fg, cell.modifier)
    };
    let levels = page(
        2,
        |status| {
            let of = |level, text: &str| Finding {
                level,
                text: text.to_owned(),
                not_ready: Vec::new(),
            };
            status.report.findings = vec![
                of(Level::Losing, "losing"),
                of(Level::Lost, "lost"),
                of(Level::Late, "late"),
                of(Level::Note, "note"),
                of(Level::Good, "good"),
            ];
        },
        80,
        24,
    );
    for (text, style) in [
        ("losing", BAD),
        ("lost", BAD),
        ("late", DOUBTFUL),
        ("note", PLAIN),
        ("good", GOOD),
        ("DOWN", BAD),
        ("yes", GOOD),
    ] {
        let style = (style.fg.unwrap_or_default(), style.add_modifier);
        assert_eq!(style_of(&levels, text), style, "{text}");
    }
}

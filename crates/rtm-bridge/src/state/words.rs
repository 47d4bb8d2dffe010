//! What goes on, in words, worst first: the first thing that the status page says.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::pipeline::POLL_AGE;
use super::report::{App, Health, Journal, Report, RingReport, SinkReport};

/// A batch that has waited this long with nothing confirmed is worth a word; a broker takes milliseconds. Sooner than the
/// bridge calls the sink down, since who looks at the page wants to know now.
pub(super) const LATE: Duration = Duration::from_millis(1500);

/// How full the journal must be to be worth a word, in percent.
const NEARLY_FULL: u64 = 80;

/// Pending events from which their size says how fast the journal fills.
const ENOUGH_TO_ESTIMATE: u64 = 1000;

/// One sentence or a few, and how bad it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) level: Level,
    pub(super) text: String,
}

/// Worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// Events are being lost, or were within the last minutes.
    Losing,
    /// Something does not work, and costs no events yet.
    Down,
    /// Something may not work soon.
    Late,
    /// Good to know.
    Note,
    /// All is well.
    Good,
}

pub(super) fn starting() -> Finding {
    finding(
        Level::Note,
        "The bridge is starting: it opens its journal and connects.",
    )
}

/// What is to be said, worst first; never nothing.
pub(super) fn findings(report: &Report) -> Vec<Finding> {
    let mut findings = losses(report);
    let is_losing = !findings.is_empty();
    for sink in &report.sinks {
        findings.extend(of_sink(report, sink, is_losing));
    }
    findings.extend(nearly_full(report));
    let not_yet: Vec<_> = polled(report)
        .filter(|ring| ring.last_poll_age_seconds.is_none())
        .collect();
    if !not_yet.is_empty() && !is_losing {
        let why = last_failure(&not_yet);
        let level = match why {
            None => Level::Note,
            Some(_) => Level::Late,
        };
        findings.push(finding(
            level,
            format!(
                "Polling begins: {} of {} rings have not answered yet.{}",
                not_yet.len(),
                polled(report).count(),
                why.unwrap_or_default()
            ),
        ));
    }
    let is_polled = |app: &App| !app.paused;
    if findings.is_empty() && report.apps.iter().any(is_polled) {
        let text = match report.apps.iter().all(is_polled) {
            true => "Nothing is lost; everything flows.",
            false => "Everything else flows.",
        };
        findings.push(finding(Level::Good, text));
    }
    findings.extend(paused(report));
    let ever: u64 = report.apps.iter().map(|app| app.possibly_lost_ever).sum();
    if ever > 0 && !is_losing {
        findings.push(finding(
            Level::Note,
            format!(
                "Since the journal was made up to {} may have been lost at the source, none in the last 5 minutes.",
                events(ever)
            ),
        ));
    }
    // Of one level, in the order in which they were found.
    findings.sort_by_key(|finding| finding.level);
    findings
}

fn finding(level: Level, text: impl Into<String>) -> Finding {
    Finding {
        level,
        text: text.into(),
    }
}

fn losses(report: &Report) -> Vec<Finding> {
    let mut losses = Vec::new();
    let mut lose = |text: String| losses.push(finding(Level::Losing, text));
    if report.journal.failing {
        lose(
            "Events are being lost: the journal cannot be written, so polling waits, and Agora overwrites its oldest events."
                .to_owned(),
        );
    }
    let stopped = report
        .apps
        .iter()
        .filter_map(|app| Some((app.name.as_str(), app.stopped_seconds?)));
    let stopped: Vec<_> = stopped.collect();
    if let Some(seconds) = stopped.iter().map(|(_, seconds)| *seconds).reduce(f64::max) {
        let apps = stopped.iter().map(|(app, _)| *app);
        lose(format!(
            "Events are being lost: polling of {} has stopped {}, for want of room in the journal{}, and Agora overwrites \
             its oldest events.",
            names(apps),
            since(report.at, seconds),
            bound(&report.journal)
        ));
    }
    let second: Vec<&App> = report.apps.iter().filter(|app| app.second_poller).collect();
    if !second.is_empty() {
        lose(format!(
            "Events are being lost: someone else seems to read those of {}. Run one bridge for each App ID.",
            names(second.iter().map(|app| app.name.as_str()))
        ));
    }
    let is_excused = |ring: &&RingReport| !stopped.iter().any(|(app, _)| *app == ring.app);
    let stale = polled(report).filter(|ring| is_stale(report, ring));
    let stale: Vec<_> = stale.filter(is_excused).collect();
    if let Some(longest) = stale.iter().map(|ring| age(report, ring)).reduce(f64::max) {
        lose(format!(
            "Events may be lost soon: polling of {} has not succeeded {}, and Agora keeps 2,000 events of a ring.{}",
            rings(report, &stale),
            since(report.at, longest),
            last_failure(&stale).unwrap_or_default()
        ));
    }
    let doubtful: Vec<_> = report
        .rings
        .iter()
        .filter(|ring| ring.possibly_lost_recently > 0)
        .collect();
    if !doubtful.is_empty() {
        let sum = doubtful
            .iter()
            .map(|ring| ring.possibly_lost_recently)
            .sum();
        lose(format!(
            "Events may have been lost: up to {} in the last 5 minutes, of {}, in responses that did not arrive whole.",
            events(sum),
            rings(report, &doubtful)
        ));
    }
    let full: Vec<_> = report
        .rings
        .iter()
        .filter(|ring| ring.overflows_recently > 0)
        .collect();
    if !full.is_empty() {
        let sum: u64 = full.iter().map(|ring| ring.overwritten_recently).sum();
        let how_many = match sum {
            0 => "how many cannot be told".to_owned(),
            sum => format!("some {} by estimate", events(sum)),
        };
        lose(format!(
            "Events may have been lost: {} was full in the last 5 minutes, and Agora may have overwritten events, \
             {how_many}.",
            rings(report, &full)
        ));
    }
    for sink in report.sinks.iter().filter(|sink| sink.skipped_recently > 0) {
        lose(format!(
            "Events are being lost for {}: {} were skipped because the journal is full, as its when_full says.",
            sink.title,
            events(sink.skipped_recently)
        ));
    }
    losses
}

fn of_sink(report: &Report, sink: &SinkReport, is_losing: bool) -> Option<Finding> {
    let since = sink
        .waiting_seconds
        .map(|seconds| since(report.at, seconds));
    let apps = match &sink.apps[..] {
        [] => String::new(),
        apps => format!(" (for {})", names(apps.iter().map(String::as_str))),
    };
    let title = capital(&sink.title);
    let (level, what) = match (sink.health, since) {
        (Health::Up, _) => return None,
        (Health::Late, since) => (
            Level::Late,
            format!(
                "{title} seems to be down{apps}: it has confirmed nothing {}.",
                since.unwrap_or_default()
            ),
        ),
        (Health::Down, None) => (
            Level::Down,
            format!("{title} is down: its client reaches no broker."),
        ),
        (Health::Down, Some(since)) => {
            let why = match &sink.why {
                Some(why) => why.trim_end_matches('.'),
                None => "it has confirmed nothing since then",
            };
            (
                Level::Down,
                format!("{title} is down{apps} {since}: {why}."),
            )
        }
    };
    let wait = match sink.pending_events {
        0 => "Nothing waits for it".to_owned(),
        1 => "1 event waits for it in the journal".to_owned(),
        pending => format!("{} wait for it in the journal", events(pending)),
    };
    let going_on: Vec<_> = report.apps.iter().filter(|app| !app.paused).collect();
    let calm = rtm_planted::bug("bridge-page-always-calm");
    let polling = if !is_polling(report) && !calm {
        String::new()
    } else if is_losing && !calm {
        // What is lost, and whether it still is, the findings before this one say.
        "; polling goes on".to_owned()
    } else if going_on.len() == report.apps.len() {
        "; polling goes on, and nothing is lost".to_owned()
    } else {
        let apps = names(going_on.iter().map(|app| app.name.as_str()));
        format!("; polling of {apps} goes on, and nothing of that is lost")
    };
    // A short silence says nothing of the rate yet.
    let room = match room_left(report, sink) {
        Some(seconds) if level == Level::Down && !is_losing => format!(
            " At this rate the journal has room for about {}.",
            duration(seconds)
        ),
        _ => String::new(),
    };
    Some(finding(level, format!("{what} {wait}{polling}.{room}")))
}

/// How long the journal has room for if events go on to arrive as now and wait for `sink`.
fn room_left(report: &Report, sink: &SinkReport) -> Option<f64> {
    let rate: f64 = report.rings.iter().map(|ring| ring.events_per_second).sum();
    if sink.pending_events < ENOUGH_TO_ESTIMATE || rate < 1.0 {
        return None;
    }
    let journal = &report.journal;
    let mut room = journal.max_bytes.saturating_sub(journal.used_bytes);
    if let Some(free) = journal.free_disk_bytes {
        room = room.min(free.saturating_sub(journal.min_free_disk_bytes));
    }
    // What waits is most of what counts as used, and may count as more than it takes.
    let pending_bytes = match journal.used_bytes {
        used if used > journal.bytes => used.max(sink.pending_bytes),
        _ => sink.pending_bytes,
    };
    let bytes_each = pending_bytes as f64 / sink.pending_events as f64;
    Some(room as f64 / (rate * bytes_each.max(1.0)))
}

/// What bounds the journal, where it is not the size of its files.
fn bound(journal: &Journal) -> &'static str {
    if journal.used_bytes > journal.bytes.saturating_mul(3) / 2 {
        " (journal.max_entries)"
    } else {
        ""
    }
}

fn nearly_full(report: &Report) -> Option<Finding> {
    let journal = &report.journal;
    if report.apps.iter().any(|app| app.stopped_seconds.is_some()) {
        // That is said.
        return None;
    }
    let percent = journal.used_bytes.saturating_mul(100) / journal.max_bytes.max(1);
    if percent >= NEARLY_FULL {
        return Some(finding(
            Level::Late,
            format!(
                "The journal is {percent} % full{}; when it is full, polling stops and events are lost.",
                bound(journal)
            ),
        ));
    }
    let free = journal.free_disk_bytes?;
    (free < journal.min_free_disk_bytes.saturating_mul(2)).then(|| {
        finding(
            Level::Late,
            "The disk is nearly full; when only journal.min_free_bytes are left, polling stops and events are lost.",
        )
    })
}

/// What the configuration says not to poll. That is nobody's fault, and no news to whoever wrote it; whoever did not must
/// not look for its events in vain.
fn paused(report: &Report) -> Vec<Finding> {
    let paused = report.apps.iter().filter(|app| app.paused);
    let found = paused.map(|app| {
        let since = match app.paused_seconds {
            Some(seconds) => since(report.at, seconds),
            None => "and was when the bridge started".to_owned(),
        };
        let text = format!(
            "Polling of {} is paused {since}, as its configuration says. Meanwhile Agora keeps 2,000 events of a ring, and \
             overwrites the oldest.",
            app.name
        );
        finding(Level::Note, text)
    });
    found.collect()
}

/// The rings that are not left alone.
fn polled(report: &Report) -> impl Iterator<Item = &RingReport> {
    report.rings.iter().filter(|ring| !ring.paused)
}

/// Why requests fail, where that is known: of the ring that is worst off.
fn last_failure(rings: &[&RingReport]) -> Option<String> {
    let age = |ring: &RingReport| ring.last_poll_age_seconds.unwrap_or(f64::INFINITY);
    let failed = rings.iter().filter(|ring| ring.failure.is_some());
    let worst = failed.max_by(|a, b| age(a).total_cmp(&age(b)))?;
    let why = worst.failure.as_deref()?.trim_end_matches('.');
    Some(format!(" The last request failed: {why}."))
}

/// Whether each ring that is to be polled is, and there are any.
fn is_polling(report: &Report) -> bool {
    let answered =
        |ring: &RingReport| ring.last_poll_age_seconds.is_some() && !is_stale(report, ring);
    let has_stopped =
        report.journal.failing || report.apps.iter().any(|app| app.stopped_seconds.is_some());
    !has_stopped && polled(report).next().is_some() && polled(report).all(answered)
}

fn is_stale(report: &Report, ring: &RingReport) -> bool {
    age(report, ring) > POLL_AGE.as_secs_f64()
}

fn age(report: &Report, ring: &RingReport) -> f64 {
    ring.last_poll_age_seconds.unwrap_or(report.uptime_seconds)
}

/// With a capital letter, as a sentence begins.
fn capital(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

/// Up to three of them.
fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.collect();
    match &names[..] {
        [name] => (*name).to_owned(),
        [first, second] => format!("{first} and {second}"),
        [first, second, third] => format!("{first}, {second} and {third}"),
        [first, second, rest @ ..] => format!("{first}, {second} and {} more", rest.len()),
        [] => String::new(),
    }
}

fn rings(report: &Report, rings: &[&RingReport]) -> String {
    if rings.len() == report.rings.len() && rings.len() > 3 {
        return "every ring".to_owned();
    }
    let name = |ring: &&RingReport| format!("{} {} {}", ring.app, ring.region, ring.stream);
    let each: Vec<_> = rings.iter().map(name).collect();
    names(each.iter().map(String::as_str))
}

/// "since 12:03:04 UTC (2 min)".
fn since(at: Timestamp, seconds: f64) -> String {
    let ago = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    let then = at.checked_sub(ago).unwrap_or(at);
    let format = if seconds < 12.0 * 3600.0 {
        "%H:%M:%S"
    } else {
        "%Y-%m-%d %H:%M"
    };
    format!(
        "since {} UTC ({})",
        then.strftime(format),
        duration(seconds)
    )
}

fn duration(seconds: f64) -> String {
    let whole = seconds as u64;
    match whole {
        0..120 => format!("{whole} s"),
        120..7200 => format!("{} min", whole / 60),
        7200..172_800 => format!("{} h", whole / 3600),
        _ => format!("{} days", grouped(whole / 86_400)),
    }
}

fn events(count: u64) -> String {
    match count {
        1 => "1 event".to_owned(),
        count => format!("{} events", grouped(count)),
    }
}

/// With commas between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// A bridge of two App IDs, all well.
    fn well() -> Report {
        let ring = |app: &str, stream| RingReport {
            app: app.to_owned(),
            region: "x".to_owned(),
            stream,
            paused: false,
            events_per_second: 500.0,
            polls_per_second: 2.5,
            last_poll_age_seconds: Some(0.3),
            failure: None,
            last_gap_seconds: Some(0.4),
            longest_gap_seconds: 0.5,
            possibly_lost_recently: 0,
            overflows_recently: 0,
            overwritten_recently: 0,
            possibly_lost_ever: 0,
        };
        let app = |name: &str| App {
            name: name.to_owned(),
            requests_per_second: 10,
            paused: false,
            paused_seconds: None,
            stopped_seconds: None,
            second_poller: false,
            possibly_lost_ever: 0,
        };
        Report {
            at: "2026-11-24T12:05:04Z".parse().unwrap(),
            uptime_seconds: 3600.0,
            findings: Vec::new(),
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
                failing: false,
            },
            sinks: vec![
                sink("kafka", "Kafka"),
                sink("events", "the sink events (NATS)"),
            ],
            ..Report::empty()
        }
    }

    fn sink(name: &str, title: &str) -> SinkReport {
        SinkReport {
            name: name.to_owned(),
            kind: "",
            title: title.to_owned(),
            health: Health::Up,
            waiting_since: None,
            waiting_seconds: None,
            why: None,
            apps: Vec::new(),
            pending_events: 300,
            pending_bytes: 9000,
            oldest_pending_age_seconds: None,
            last_confirmation: None,
            last_confirmation_age_seconds: None,
            skipped_recently: 0,
        }
    }

    fn said(change: impl FnOnce(&mut Report)) -> Vec<(Level, String)> {
        let mut report = well();
        change(&mut report);
        let said = findings(&report).into_iter();
        said.map(|finding| (finding.level, finding.text)).collect()
    }

    fn first(change: impl FnOnce(&mut Report)) -> (Level, String) {
        said(change).swap_remove(0)
    }

    /// Holds: a healthy bridge says one thing; what may have been lost long ago is said too, and does not alarm.
    #[test]
    fn all_is_well() {
        let good = (Level::Good, "Nothing is lost; everything flows.".to_owned());
        assert_eq!(said(|_| {}), [good]);
        let long_ago = said(|report| report.apps[0].possibly_lost_ever = 4000);
        assert_eq!(long_ago.len(), 2);
        assert!(
            long_ago
                .iter()
                .any(|(level, text)| *level == Level::Note && text.contains("up to 4,000 events"))
        );
    }

    /// Holds: a sink that is down is named, with since when, why, how much waits, for how long there is room, and that
    /// polling goes on and nothing is lost, where that is so.
    #[test]
    fn a_sink_is_down() {
        let down = |report: &mut Report| {
            let kafka = &mut report.sinks[0];
            kafka.health = Health::Down;
            kafka.waiting_seconds = Some(120.0);
            kafka.why = Some("all brokers are down".to_owned());
            (kafka.pending_events, kafka.pending_bytes) = (12_345, 12_345 * 30);
        };
        let expected = "Kafka is down since 12:03:04 UTC (2 min): all brokers are down. 12,345 events wait for it in \
                        the journal; polling goes on, and nothing is lost. At this rate the journal has room for about \
                        19 h.";
        assert_eq!(first(down), (Level::Down, expected.to_owned()));

        let late = first(|report| {
            let nats = &mut report.sinks[1];
            nats.health = Health::Late;
            nats.waiting_seconds = Some(4.2);
            nats.apps = vec!["a".to_owned()];
        });
        let expected = "The sink events (NATS) seems to be down (for a): it has confirmed nothing since 12:04:59 UTC \
                        (4 s). 300 events wait for it in the journal; polling goes on, and nothing is lost.";
        assert_eq!(late, (Level::Late, expected.to_owned()));

        // What is not so is not said.
        let stopped = said(|report| {
            down(report);
            report.apps[1].stopped_seconds = Some(65.0);
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
        let losing = said(|report| {
            down(report);
            report.rings[3].overflows_recently = 1;
        });
        assert_eq!(losing[0].0, Level::Losing);
        assert!(
            losing[1].1.contains("in the journal; polling goes on."),
            "{losing:?}"
        );
        let silent = said(|report| {
            down(report);
            report.rings[3].last_poll_age_seconds = None;
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
        let pause = |report: &mut Report, app: &str, seconds| {
            let paused = report.apps.iter_mut().find(|known| known.name == app);
            let paused = paused.unwrap();
            (paused.paused, paused.paused_seconds) = (true, seconds);
            for ring in report.rings.iter_mut().filter(|ring| ring.app == app) {
                (ring.paused, ring.last_poll_age_seconds) = (true, Some(500.0));
            }
        };
        let one = said(|report| pause(report, "b", Some(120.0)));
        let expected = "Polling of b is paused since 12:03:04 UTC (2 min), as its configuration says. Meanwhile Agora \
                        keeps 2,000 events of a ring, and overwrites the oldest.";
        let flows = (Level::Good, "Everything else flows.".to_owned());
        assert_eq!(one, [(Level::Note, expected.to_owned()), flows]);
        let both = said(|report| {
            pause(report, "a", None);
            pause(report, "b", Some(1.0));
        });
        assert_eq!(both.len(), 2, "{both:?}");
        assert!(
            both[0]
                .1
                .contains("Polling of a is paused and was when the bridge started"),
            "{both:?}"
        );
        let down = |report: &mut Report| {
            report.sinks[0].health = Health::Down;
            report.sinks[0].waiting_seconds = Some(60.0);
        };
        let outage = first(|report| {
            down(report);
            pause(report, "b", None);
        });
        assert_eq!(outage.0, Level::Down);
        assert!(
            outage
                .1
                .contains("; polling of a goes on, and nothing of that is lost."),
            "{outage:?}"
        );
        let silent = said(|report| {
            down(report);
            pause(report, "a", None);
            pause(report, "b", None);
        });
        assert!(
            silent.iter().all(|(_, text)| !text.contains("goes on")),
            "{silent:?}"
        );
    }

    /// Holds: why requests fail is said with what fails, at the start and later.
    #[test]
    fn why_requests_fail_is_said() {
        let refused = |report: &mut Report, age| {
            for ring in &mut report.rings {
                ring.last_poll_age_seconds = age;
                ring.failure = Some("Agora answers 401 (unauthorized): bad key.".to_owned());
            }
        };
        let why = "The last request failed: Agora answers 401 (unauthorized): bad key.";
        let begins = first(|report| {
            report.uptime_seconds = 3.0;
            refused(report, None);
        });
        let expected = format!("Polling begins: 4 of 4 rings have not answered yet. {why}");
        assert_eq!(begins, (Level::Late, expected));
        let later = first(|report| refused(report, Some(45.0)));
        assert_eq!(later.0, Level::Losing);
        assert!(later.1.ends_with(why), "{later:?}");
    }

    /// What befalls a bridge.
    type Change = fn(&mut Report);

    /// Holds: whatever loses events comes first and says so.
    #[test]
    fn losses_come_first() {
        let losses: [(Change, &str); 8] = [
            (
                |report| report.journal.failing = true,
                "the journal cannot be written",
            ),
            (
                |report| report.apps[0].stopped_seconds = Some(1.0),
                "polling of a has stopped",
            ),
            (
                |report| report.apps[1].second_poller = true,
                "someone else seems to read those of b",
            ),
            (
                |report| report.rings[2].last_poll_age_seconds = Some(45.0),
                "polling of b x user has not succeeded since 12:04:19 UTC (45 s)",
            ),
            (
                |report| {
                    for ring in &mut report.rings {
                        ring.last_poll_age_seconds = None;
                    }
                },
                "polling of every ring has not succeeded",
            ),
            (
                |report| report.rings[0].possibly_lost_recently = 1000,
                "up to 1,000 events in the last 5 minutes, of a x user",
            ),
            (
                |report| report.rings[1].overflows_recently = 1,
                "a x channel was full in the last 5 minutes, and Agora may have overwritten events, how many cannot be \
                 told",
            ),
            (
                |report| report.sinks[0].skipped_recently = 1,
                "lost for Kafka: 1 event",
            ),
        ];
        for (change, expected) in losses {
            let said = said(|report| {
                report.sinks[1].health = Health::Down;
                change(report);
            });
            assert_eq!(said[0].0, Level::Losing, "{expected}: {said:?}");
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
        let full =
            first(|report| report.journal.used_bytes = report.journal.max_bytes / 100 * 90 + 100);
        assert!(
            full.1.contains("90 % full (journal.max_entries);"),
            "{full:?}"
        );
        let large = first(|report| {
            report.journal.used_bytes = report.journal.max_bytes / 100 * 90 + 100;
            report.journal.bytes = report.journal.used_bytes / 8 * 7;
        });
        assert!(large.1.contains("90 % full;"), "{large:?}");
        let disk = first(|report| report.journal.free_disk_bytes = Some(300 << 20));
        assert_eq!(disk.0, Level::Late);
    }

    /// Holds: numbers are read as people write them.
    #[test]
    fn numbers() {
        let all = [0, 999, 1000, 12_345, 1_234_567].map(grouped);
        assert_eq!(all, ["0", "999", "1,000", "12,345", "1,234,567"]);
        let all = [0.4, 119.0, 120.0, 7200.0, 172_800.0].map(duration);
        assert_eq!(all, ["0 s", "119 s", "2 min", "2 h", "2 days"]);
    }
}

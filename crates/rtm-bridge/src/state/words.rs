//! What goes on, in words, worst first: the page, `top`, the status line of systemd and readiness say it from here.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::health::{
    BOUND_BY_ENTRIES, ENOUGH_TO_ESTIMATE, FAST_ENOUGH_TO_ESTIMATE, Health, NEARLY_FULL_DISK,
    NEARLY_FULL_PERCENT, Trouble,
};
use super::snapshot::{App, Journal, Outlet, Ring, Sink, Snapshot, before};

/// One sentence or a few, and how bad it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What it says.
    pub text: String,
    /// What of it makes the bridge not ready, one thing each.
    #[serde(skip)]
    pub not_ready: Vec<NotReady>,
}

/// Worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
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

/// A reason not to be ready.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct NotReady {
    /// The app; empty where it is all of them.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub app: String,
    /// The sink, if it is one that is behind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sink: Option<String>,
    /// What is wrong.
    pub reason: String,
}

impl Finding {
    fn new(level: Level, text: impl Into<String>) -> Finding {
        Finding {
            level,
            text: text.into(),
            not_ready: Vec::new(),
        }
    }

    fn not_ready(mut self, reasons: impl IntoIterator<Item = NotReady>) -> Finding {
        self.not_ready.extend(reasons);
        self
    }
}

impl NotReady {
    /// For a reason that concerns every app.
    fn all(reason: &str) -> NotReady {
        NotReady {
            reason: reason.to_owned(),
            ..NotReady::default()
        }
    }
}

/// What is said before the bridge runs.
#[must_use]
pub fn starting() -> Finding {
    let text = "The bridge is starting: it opens its journal and connects.";
    Finding::new(Level::Note, text).not_ready([NotReady::all("starting")])
}

/// What is to be said, worst first; never nothing.
#[must_use]
pub fn findings(now: &Snapshot) -> Vec<Finding> {
    let mut findings = losses(now);
    let is_losing = !findings.is_empty();
    if now.is_stopping {
        let text = "the bridge is stopping: it sends no further request";
        findings.push(
            Finding::new(Level::Note, format!("{}.", capital(text)))
                .not_ready([NotReady::all(text)]),
        );
    }
    for sink in &now.sinks {
        findings.extend(of_sink(now, sink, is_losing));
    }
    findings.extend(nearly_full(now));
    findings.extend(not_yet_polled(now));
    let is_polled = |app: &App| !app.paused;
    if findings.is_empty() && now.apps.iter().any(is_polled) {
        let text = match now.apps.iter().all(is_polled) {
            true => "Nothing is lost; everything flows.",
            false => "Everything else flows.",
        };
        findings.push(Finding::new(Level::Good, text));
    }
    findings.extend(paused(now));
    let ever: u64 = now.apps.iter().map(|app| app.possibly_lost_ever).sum();
    if ever > 0 && !is_losing {
        findings.push(Finding::new(
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

fn losses(now: &Snapshot) -> Vec<Finding> {
    let mut losses = Vec::new();
    let lose = |text: String| Finding::new(Level::Losing, text);
    if now.journal.failing {
        let text = "Events are being lost: the journal cannot be written, so polling waits, and Agora overwrites its oldest events.";
        let reason = NotReady::all("the journal cannot be written");
        losses.push(lose(text.to_owned()).not_ready([reason]));
    }
    losses.extend(not_polled(now));
    let second: Vec<&App> = now.apps.iter().filter(|app| app.second_poller).collect();
    if !second.is_empty() {
        losses.push(lose(format!(
            "Events are being lost: someone else seems to read those of {}. Run one bridge for each App ID.",
            names(second.iter().map(|app| app.name.as_str()))
        )));
    }
    let recently = |of: fn(&Ring) -> u64| -> (Vec<&Ring>, u64) {
        let rings = now.rings.iter().filter(move |ring| of(ring) > 0);
        (rings.clone().collect(), rings.map(of).sum())
    };
    let (doubtful, sum) = recently(|ring| ring.possibly_lost_recently);
    if !doubtful.is_empty() {
        losses.push(lose(format!(
            "Events may have been lost: up to {} in the last 5 minutes, of {}, in responses that did not arrive whole.",
            events(sum),
            rings(now, &doubtful)
        )));
    }
    let (full, _) = recently(|ring| ring.overflows_recently);
    if !full.is_empty() {
        let how_many = match full.iter().map(|ring| ring.overwritten_recently).sum() {
            0 => "how many cannot be told".to_owned(),
            sum => format!("some {} by estimate", events(sum)),
        };
        losses.push(lose(format!(
            "Events may have been lost: {} was full in the last 5 minutes, and Agora may have overwritten events, \
             {how_many}.",
            rings(now, &full)
        )));
    }
    for sink in now.sinks.iter().filter(|sink| sink.skipped_recently > 0) {
        losses.push(lose(format!(
            "Events are being lost for {}: {} were skipped because the journal is full, as its when_full says.",
            sink.title,
            events(sink.skipped_recently)
        )));
    }
    losses
}

/// What is not polled, for want of room in the journal or because requests fail.
fn not_polled(now: &Snapshot) -> Vec<Finding> {
    let mut findings = Vec::new();
    let stopped: Vec<(&App, f64)> = stopped(now).collect();
    let of_stopped = |ring: &Ring| stopped.iter().any(|(app, _)| app.name == ring.app);
    let down = polled(now).filter(|ring| ring.health == Health::Down);
    let (excused, silent): (Vec<&Ring>, Vec<&Ring>) = down.partition(|ring| of_stopped(ring));
    if let Some(longest) = stopped.iter().map(|(_, seconds)| *seconds).reduce(f64::max) {
        let text = format!(
            "Events are being lost: polling of {} has stopped {}, for want of room in the journal{}, and Agora overwrites \
             its oldest events.",
            names(stopped.iter().map(|(app, _)| app.name.as_str())),
            since(now.at, longest),
            bound(&now.journal)
        );
        let waits = stopped.iter().map(|(app, seconds)| NotReady {
            app: app.name.clone(),
            sink: None,
            reason: format!(
                "polling has waited {} s for room in the journal",
                *seconds as u64
            ),
        });
        let reasons = waits.chain(excused.into_iter().map(ring_not_ready));
        findings.push(Finding::new(Level::Losing, text).not_ready(reasons));
    }
    if let Some(longest) = silent.iter().map(|ring| ring.silence).max() {
        let text = format!(
            "Events may be lost soon: polling of {} has not succeeded {}, and Agora keeps 2,000 events of a ring.{}",
            rings(now, &silent),
            since(now.at, longest.as_secs_f64()),
            last_failure(&silent).unwrap_or_default()
        );
        let reasons = silent.into_iter().map(ring_not_ready);
        findings.push(Finding::new(Level::Losing, text).not_ready(reasons));
    }
    findings
}

/// Rings that have not answered yet, and may soon.
fn not_yet_polled(now: &Snapshot) -> Option<Finding> {
    let not_yet = polled(now).filter(|ring| ring.health == Health::Late);
    let not_yet: Vec<&Ring> = not_yet.collect();
    if not_yet.is_empty() {
        return None;
    }
    let why = last_failure(&not_yet);
    let level = match why {
        None => Level::Note,
        Some(_) => Level::Late,
    };
    let text = format!(
        "Polling begins: {} of {} rings have not answered yet.{}",
        not_yet.len(),
        polled(now).count(),
        why.unwrap_or_default()
    );
    // After a pause a ring that answered before it has its time to answer again.
    let new = not_yet.into_iter().filter(|ring| ring.is_new);
    Some(Finding::new(level, text).not_ready(new.map(ring_not_ready)))
}

fn ring_not_ready(ring: &Ring) -> NotReady {
    let what = match ring.health {
        Health::Down => format!("no successful poll for {} s", ring.silence.as_secs()),
        _ => "not polled yet".to_owned(),
    };
    let why = ring.failure.as_ref().map(|why| format!(": {why}"));
    let why = why.filter(|_| !rtm_planted::bug("bridge-not-ready-without-why"));
    NotReady {
        app: ring.app.clone(),
        sink: None,
        reason: format!(
            "{} {}: {what}{}",
            ring.region,
            ring.stream,
            why.unwrap_or_default()
        ),
    }
}

fn of_sink(now: &Snapshot, sink: &Sink, is_losing: bool) -> Option<Finding> {
    let since = sink.waiting_seconds.map(|seconds| since(now.at, seconds));
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
    let going_on: Vec<_> = now.apps.iter().filter(|app| !app.paused).collect();
    let calm = rtm_planted::bug("bridge-page-always-calm");
    let polling = if !is_polling(now) && !calm {
        String::new()
    } else if is_losing && !calm {
        // What is lost, and whether it still is, the findings before this one say.
        "; polling goes on".to_owned()
    } else if going_on.len() == now.apps.len() {
        "; polling goes on, and nothing is lost".to_owned()
    } else {
        let apps = names(going_on.iter().map(|app| app.name.as_str()));
        format!("; polling of {apps} goes on, and nothing of that is lost")
    };
    // A short silence says nothing of the rate yet.
    let room = match room_left(now, sink) {
        Some(seconds) if level == Level::Down && !is_losing => format!(
            " At this rate the journal has room for about {}.",
            duration(seconds)
        ),
        _ => String::new(),
    };
    let reasons = sink.outlets.iter();
    let reasons = reasons.filter_map(|outlet| outlet_not_ready(sink, outlet));
    Some(Finding::new(level, format!("{what} {wait}{polling}.{room}")).not_ready(reasons))
}

fn outlet_not_ready(sink: &Sink, outlet: &Outlet) -> Option<NotReady> {
    let delivery = &outlet.delivery;
    if !delivery.is_overdue() {
        return None;
    }
    let mut reason = match (&delivery.trouble, delivery.waiting) {
        (Some(Trouble::Held(why)), _) => format!("held: {why}"),
        (trouble, waiting) => {
            let waited = waiting.unwrap_or_default().as_secs();
            let why = trouble
                .as_ref()
                .map(|trouble| format!(": {}", trouble.why()));
            let why = why.unwrap_or_default();
            format!("a batch has waited {waited} s for its confirmation{why}")
        }
    };
    if let Some(said) = &sink.client.said {
        reason = format!("{reason}: {said}");
    }
    Some(NotReady {
        app: outlet.app.clone(),
        sink: Some(sink.name.clone()),
        reason,
    })
}

/// How long the journal has room for if events go on to arrive as now and wait for `sink`.
fn room_left(now: &Snapshot, sink: &Sink) -> Option<f64> {
    let rate: f64 = now.rings.iter().map(|ring| ring.events_per_second).sum();
    if sink.pending_events < ENOUGH_TO_ESTIMATE || rate < FAST_ENOUGH_TO_ESTIMATE {
        return None;
    }
    let journal = &now.journal;
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
    if journal.used_bytes as f64 > journal.bytes as f64 * BOUND_BY_ENTRIES {
        " (journal.max_entries)"
    } else {
        ""
    }
}

fn nearly_full(now: &Snapshot) -> Option<Finding> {
    let journal = &now.journal;
    if stopped(now).next().is_some() {
        // That is said.
        return None;
    }
    let percent = journal.used_bytes.saturating_mul(100) / journal.max_bytes.max(1);
    if percent >= NEARLY_FULL_PERCENT {
        return Some(Finding::new(
            Level::Late,
            format!(
                "The journal is {percent} % full{}; when it is full, polling stops and events are lost.",
                bound(journal)
            ),
        ));
    }
    let is_little =
        journal.free_disk_bytes? < journal.min_free_disk_bytes.saturating_mul(NEARLY_FULL_DISK);
    is_little.then(|| {
        Finding::new(
            Level::Late,
            "The disk is nearly full; when only journal.min_free_bytes are left, polling stops and events are lost.",
        )
    })
}

/// What the configuration says not to poll. That is nobody's fault, and no news to whoever wrote it; whoever did not must
/// not look for its events in vain.
fn paused(now: &Snapshot) -> impl Iterator<Item = Finding> {
    let paused = now.apps.iter().filter(|app| app.paused);
    paused.map(|app| {
        let since = match app.paused_seconds {
            Some(seconds) => since(now.at, seconds),
            None => "and was when the bridge started".to_owned(),
        };
        let text = format!(
            "Polling of {} is paused {since}, as its configuration says. Meanwhile Agora keeps 2,000 events of a ring, and \
             overwrites the oldest.",
            app.name
        );
        Finding::new(Level::Note, text)
    })
}

/// The rings that are not left alone.
fn polled(now: &Snapshot) -> impl Iterator<Item = &Ring> {
    now.rings.iter().filter(|ring| !ring.paused)
}

/// The App IDs whose polling waits for room in the journal, and for how many seconds it has.
fn stopped(now: &Snapshot) -> impl Iterator<Item = (&App, f64)> {
    let polled = now.apps.iter().filter(|app| !app.paused);
    polled.filter_map(|app| Some((app, app.stopped_seconds?)))
}

/// Why requests fail, where that is known: of the ring that is worst off.
fn last_failure(rings: &[&Ring]) -> Option<String> {
    let failed = rings.iter().filter(|ring| ring.failure.is_some());
    let worst = failed.max_by_key(|ring| ring.silence)?;
    let why = worst.failure.as_deref()?.trim_end_matches('.');
    Some(format!(" The last request failed: {why}."))
}

/// Whether each ring that is to be polled is, and there are any.
fn is_polling(now: &Snapshot) -> bool {
    let has_stopped = now.is_stopping || now.journal.failing || stopped(now).next().is_some();
    !has_stopped
        && polled(now).next().is_some()
        && polled(now).all(|ring| ring.health == Health::Up)
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

fn rings(now: &Snapshot, rings: &[&Ring]) -> String {
    if rings.len() == now.rings.len() && rings.len() > 3 {
        return "every ring".to_owned();
    }
    let name = |ring: &&Ring| format!("{} {} {}", ring.app, ring.region, ring.stream);
    let each: Vec<_> = rings.iter().map(name).collect();
    names(each.iter().map(String::as_str))
}

/// "since 12:03:04 UTC (2 min)".
fn since(at: Timestamp, seconds: f64) -> String {
    let then = before(at, seconds).unwrap_or(at);
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

    use std::time::Duration;

    use super::*;

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
        assert_eq!(losing[0].0, Level::Losing);
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
            of("b", None, "polling has waited 50 s for room in the journal"),
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
        let waited = "a batch has waited 11 s for its confirmation: refused: all brokers are down";
        let said = Some("all brokers are down");
        assert_eq!(
            sinks(11.0, failed(), said),
            [of("b", Some("kafka"), waited)]
        );
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

    /// What befalls a bridge.
    type Change = fn(&mut Snapshot);

    /// Holds: whatever loses events comes first and says so.
    #[test]
    fn losses_come_first() {
        let losses: [(Change, &str); 8] = [
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
                |now| now.sinks[0].skipped_recently = 1,
                "lost for Kafka: 1 event",
            ),
        ];
        for (change, expected) in losses {
            let said = said(|now| {
                now.sinks[1].health = Health::Down;
                change(now);
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

    /// Holds: numbers are read as people write them.
    #[test]
    fn numbers() {
        let all = [0, 999, 1000, 12_345, 1_234_567].map(grouped);
        assert_eq!(all, ["0", "999", "1,000", "12,345", "1,234,567"]);
        let all = [0.4, 119.0, 120.0, 7200.0, 172_800.0].map(duration);
        assert_eq!(all, ["0 s", "119 s", "2 min", "2 h", "2 days"]);
    }
}

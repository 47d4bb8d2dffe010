//! What goes on, in words, worst first: the page, `top`, the status line of systemd and readiness say it from here.

use serde::{Deserialize, Serialize};

use super::health::{
    ENOUGH_TO_ESTIMATE, FAST_ENOUGH_TO_ESTIMATE, Health, LATE, NEARLY_FULL_DISK,
    NEARLY_FULL_PERCENT, Trouble,
};
use super::phrases::{capital, duration, events, names, since, verb};
use super::room::Room;
use super::snapshot::{App, Journal, Outlet, RemovedSink, Ring, Sink, Snapshot};

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
    /// Events are being lost, or will be soon.
    Losing,
    /// Events were lost within the last minutes, or may have been.
    Lost,
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
pub fn starting() -> Finding {
    let text = "The bridge is starting: it opens its journal and connects.";
    Finding::new(Level::Note, text).not_ready([NotReady::all("starting")])
}

/// What is to be said, worst first; never nothing.
pub fn findings(now: &Snapshot) -> Vec<Finding> {
    let mut findings = losses(now);
    let is_losing = !findings.is_empty();
    if now.is_stopping {
        let reason = NotReady::all("the bridge is stopping: it sends no further request");
        let text = format!("{}.", capital(&reason.reason));
        findings.push(Finding::new(Level::Note, text).not_ready([reason]));
    }
    for sink in &now.sinks {
        findings.extend(of_sink(now, sink, is_losing));
    }
    let removed = now.removed_sinks.iter();
    findings.extend(removed.map(|sink| of_removed(now, sink)));
    if let Some(why) = &now.journal.unreadable {
        let reason = NotReady::all(&format!("the journal cannot be read: {why}"));
        let text = format!(
            "Events wait in the journal: its {why}. They are kept, and published once it can be read."
        );
        findings.push(Finding::new(Level::Down, text).not_ready([reason]));
    }
    findings.extend(nearly_full(now));
    findings.extend(config_refused(now));
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
        let text = format!(
            "Since the journal was made up to {} may have been lost at the source, none in the last 5 minutes.",
            events(ever)
        );
        findings.push(Finding::new(Level::Note, text));
    }
    // Of one level, in the order in which they were found.
    findings.sort_by_key(|finding| finding.level);
    findings
}

fn losses(now: &Snapshot) -> Vec<Finding> {
    let mut losses = Vec::new();
    let lose = |text: String| Finding::new(Level::Losing, text);
    // What is over is not said to go on: the rings of a start are full once.
    let lost = |text: String| Finding::new(Level::Lost, text);
    if now.journal.failing {
        let text = "Events are being lost: the journal cannot be written, so polling waits, and Agora overwrites its oldest events.";
        let reason = NotReady::all("the journal cannot be written");
        losses.push(lose(text.to_owned()).not_ready([reason]));
    }
    losses.extend(not_polled(now));
    let second = now.apps.iter().filter(|app| app.second_poller);
    let second: Vec<&str> = second.map(|app| app.name.as_str()).collect();
    if !second.is_empty() {
        losses.push(lose(format!(
            "Events are being lost: someone else seems to read those of {}. Run one bridge for each App ID.",
            names(&second)
        )));
    }
    let recently = |of: fn(&Ring) -> u64| -> Vec<&Ring> {
        now.rings.iter().filter(|ring| of(ring) > 0).collect()
    };
    let in_doubt = |ring: &Ring| {
        ring.possibly_lost_recently
            .saturating_sub(ring.crash_lost_recently)
    };
    let doubtful = recently(in_doubt);
    if !doubtful.is_empty() {
        let most = doubtful.iter().map(|ring| in_doubt(ring));
        losses.push(lost(format!(
            "Events may have been lost: up to {} in the last 5 minutes, of {}, in responses that did not arrive whole.",
            events(most.sum()),
            rings(now, &doubtful)
        )));
    }
    let crashed = now.apps.iter().filter(|app| app.crash_lost_recently > 0);
    let crashed: Vec<&App> = crashed.collect();
    if !crashed.is_empty() {
        let apps: Vec<&str> = crashed.iter().map(|app| app.name.as_str()).collect();
        let most: u64 = crashed.iter().map(|app| app.crash_lost_recently).sum();
        // With what the deaths of the processes before it may have cost.
        let ever: u64 = crashed.iter().map(|app| app.possibly_lost_ever).sum();
        let ever = match ever > most {
            true => format!("; up to {} since the journal was made", events(ever)),
            false => String::new(),
        };
        losses.push(lost(format!(
            "Events may have been lost: up to {} of {}, as the last process died while it polled, counted by this start \
             within the last 5 minutes{ever}.",
            events(most),
            names(&apps)
        )));
    }
    let full = recently(|ring| ring.overflows_recently);
    if !full.is_empty() {
        let how_many = match full.iter().map(|ring| ring.overwritten_recently).sum() {
            0 => "how many cannot be told".to_owned(),
            sum => format!("some {} by estimate", events(sum)),
        };
        losses.push(lost(format!(
            "Events may have been lost: {} {} full in the last 5 minutes, and Agora may have overwritten events, \
             {how_many}.",
            rings(now, &full),
            verb(full.len() as u64, "was", "were")
        )));
    }
    for sink in now.sinks.iter().filter(|sink| sink.skipped_recently > 0) {
        losses.push(lost(format!(
            "Events were lost for {}: {} in the last 5 minutes, skipped because the journal was full, as its when_full says.",
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
        let apps: Vec<&str> = stopped.iter().map(|(app, _)| app.name.as_str()).collect();
        let why = room(&now.journal).why_full();
        let text = format!(
            "Events are being lost: polling of {} has stopped {}, for want of room in the journal ({why}), and Agora overwrites \
             its oldest events.",
            names(&apps),
            since(now.at, longest)
        );
        let waits = stopped.iter().map(|(app, seconds)| NotReady {
            app: app.name.clone(),
            sink: None,
            reason: format!(
                "polling has waited {} s for room in the journal: {why}",
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
    let title = capital(&sink.title);
    let since = sink.waiting_seconds.map(|seconds| since(now.at, seconds));
    let since = since.unwrap_or_default();
    let why = sink.why.as_deref();
    let why = why.map_or("it has confirmed nothing since then", |why| {
        why.trim_end_matches('.')
    });
    let apps = match &sink.apps[..] {
        [] => String::new(),
        apps => format!(" (for {})", names(apps)),
    };
    let (level, what) = match sink.health {
        Health::Up => return None,
        Health::Late if is_behind(sink) => (
            Level::Late,
            format!(
                "{title} is behind{apps}: it takes records, and the oldest that waits has waited for {}.",
                duration(sink.oldest_pending_age_seconds.unwrap_or_default())
            ),
        ),
        Health::Late if since.is_empty() => (
            Level::Late,
            format!("{title} seems to be down: its client reaches no broker."),
        ),
        Health::Late if sink.why.is_some() => (
            Level::Late,
            format!("{title} seems to be down{apps} {since}: {why}."),
        ),
        Health::Late => (
            Level::Late,
            format!("{title} seems to be down{apps}: it has confirmed nothing {since}."),
        ),
        Health::Down if !sink.client.begun => (
            Level::Down,
            format!("{title} is down, and cannot begin: {why}."),
        ),
        Health::Down => (
            Level::Down,
            format!("{title} is down{apps} {since}: {why}."),
        ),
    };
    let wait = match sink.pending_events {
        0 => "Nothing waits for it".to_owned(),
        1 => "1 event waits for it in the journal".to_owned(),
        pending => {
            let wait = verb(pending, "waits", "wait");
            format!("{} {wait} for it in the journal", events(pending))
        }
    };
    let going_on = now.apps.iter().filter(|app| !app.paused);
    let going_on: Vec<&str> = going_on.map(|app| app.name.as_str()).collect();
    let polling = if !is_polling(now) {
        String::new()
    } else if is_losing {
        // What is lost, and whether it still is, the findings before this one say.
        "; polling goes on".to_owned()
    } else if going_on.len() == now.apps.len() {
        "; polling goes on, and nothing is lost".to_owned()
    } else {
        let apps = names(&going_on);
        format!("; polling of {apps} goes on, and nothing of that is lost")
    };
    // A short silence says nothing of the rate yet.
    let waiting = Waiting {
        events: sink.pending_events,
        bytes: sink.pending_bytes,
    };
    let room = room_left(now, &waiting).filter(|_| level == Level::Down && !is_losing);
    let room = room.map(duration);
    let room = room.map(|room| format!(" At this rate the journal has room for about {room}."));
    let text = format!("{what} {wait}{polling}.{}", room.unwrap_or_default());
    if !sink.client.begun {
        let reason = NotReady {
            sink: Some(sink.name.clone()),
            reason: format!("it cannot begin: {why}"),
            ..NotReady::default()
        };
        return Some(Finding::new(level, text).not_ready([reason]));
    }
    let reasons = sink.outlets.iter();
    let reasons = reasons.filter_map(|outlet| outlet_not_ready(sink, outlet));
    Some(Finding::new(level, text).not_ready(reasons))
}

/// Whether a sink is late for what waits behind its batch, and not for the batch.
fn is_behind(sink: &Sink) -> bool {
    let waiting = sink.waiting_seconds.unwrap_or_default();
    sink.client.up && sink.why.is_none() && waiting < LATE.as_secs_f64()
}

/// A sink that is in the configuration no more, and that the journal keeps events for.
fn of_removed(now: &Snapshot, sink: &RemovedSink) -> Finding {
    let waiting = Waiting {
        events: sink.pending_events,
        bytes: sink.pending_bytes,
    };
    let room = room_left(now, &waiting).map(duration);
    let full = room.map_or_else(
        || " When it is full, polling stops.".to_owned(),
        |room| format!(" At this rate it is full in about {room}, and then polling stops."),
    );
    let (name, events) = (&sink.name, events(sink.pending_events));
    let (what, back, of) = match &sink.app {
        None => (
            "is not in the configuration".to_owned(),
            "Put the sink back".to_owned(),
            String::new(),
        ),
        Some(app) => (
            format!("takes nothing of {app} any more"),
            format!("Put {app} back into its apps"),
            format!(" --app {app}"),
        ),
    };
    let text = format!(
        "The sink {name} {what}, and the journal keeps {events} for it, and what comes.{full} {back} to publish them; or stop \
         the bridge, and let go of them with `rtm-bridge journal forget --sink {name}{of}`."
    );
    Finding::new(Level::Late, text)
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
    if let (None, Some(said)) = (&delivery.trouble, &sink.client.said) {
        reason = format!("{reason}: {said}");
    }
    Some(NotReady {
        app: outlet.app.clone(),
        sink: Some(sink.name.clone()),
        reason,
    })
}

/// What waits for a sink.
struct Waiting {
    events: u64,
    bytes: u64,
}

/// How long the journal has room for if events go on to arrive as now and wait with these.
fn room_left(now: &Snapshot, waiting: &Waiting) -> Option<f64> {
    let rate: f64 = now.rings.iter().map(|ring| ring.events_per_second).sum();
    if waiting.events < ENOUGH_TO_ESTIMATE || rate < FAST_ENOUGH_TO_ESTIMATE {
        return None;
    }
    let journal = &now.journal;
    let mut room = journal.max_bytes.saturating_sub(journal.used_bytes);
    if let Some(free) = journal.free_disk_bytes {
        room = room.min(free.saturating_sub(journal.min_free_disk_bytes));
    }
    // What waits is most of what counts as used, and may count as more than it takes.
    let pending_bytes = match journal.used_bytes {
        used if used > journal.bytes => used.max(waiting.bytes),
        _ => waiting.bytes,
    };
    let bytes_each = pending_bytes as f64 / waiting.events as f64;
    Some(room as f64 / (rate * bytes_each.max(1.0)))
}

/// What bounds the journal, where it is not the size of its files.
fn bound(journal: &Journal) -> &'static str {
    if room(journal).is_bound_by_entries() {
        " (journal.max_entries)"
    } else {
        ""
    }
}

fn room(journal: &Journal) -> Room {
    Room {
        bytes: journal.bytes,
        used_bytes: journal.used_bytes,
        max_bytes: journal.max_bytes,
        free_disk_bytes: journal.free_disk_bytes,
        min_free_disk_bytes: journal.min_free_disk_bytes,
        failing: journal.failing,
    }
}

fn nearly_full(now: &Snapshot) -> Option<Finding> {
    let journal = &now.journal;
    if stopped(now).next().is_some() {
        // That is said.
        return None;
    }
    let percent = journal.used_bytes.saturating_mul(100) / journal.max_bytes.max(1);
    let little = journal.min_free_disk_bytes.saturating_mul(NEARLY_FULL_DISK);
    let text = if percent >= NEARLY_FULL_PERCENT {
        let bound = bound(journal);
        format!(
            "The journal is {percent} % full{bound}; when it is full, polling stops and events are lost."
        )
    } else if journal.free_disk_bytes.is_some_and(|free| free < little) {
        "The disk is nearly full; when only journal.min_free_bytes are left, polling stops and events are lost."
            .to_owned()
    } else {
        return None;
    };
    Some(Finding::new(Level::Late, text))
}

/// What runs is not what the files say. Data flows all the same.
fn config_refused(now: &Snapshot) -> Option<Finding> {
    let seconds = now.config_refused_seconds?;
    let problem = now.config_problems.first();
    let problem = problem.map(|problem| problem.trim_end_matches('.'));
    let more = match now.config_problems.len() {
        0 | 1 => String::new(),
        all => format!(" (and {} more)", all - 1),
    };
    let text = format!(
        "The configuration was refused {}, and the one before it runs: {}{more}. A restart would fail, or take what is \
         refused now.",
        since(now.at, seconds),
        problem.unwrap_or("the log says why"),
    );
    Some(Finding::new(Level::Late, text))
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

fn rings(now: &Snapshot, rings: &[&Ring]) -> String {
    if rings.len() == now.rings.len() && rings.len() > 3 {
        return "every ring".to_owned();
    }
    let name = |ring: &&Ring| format!("{} {} {}", ring.app, ring.region, ring.stream);
    let each: Vec<_> = rings.iter().map(name).collect();
    names(&each)
}

#[cfg(test)]
mod tests;

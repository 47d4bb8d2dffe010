//! From two samples to lines of a page. Pure.

use std::time::Duration;

use bytesize::ByteSize;

use super::sample::Sample;

/// A ring that was not polled for so long is stuck, as for `/readyz`.
const STALE_SECONDS: f64 = 30.0;

/// A sink that has confirmed nothing for so long, while something waits, is stuck, as for `/readyz`.
const SILENT_SECONDS: f64 = 10.0;

/// Alarms that are shown at the top.
const ALARMS: usize = 3;

/// How wide the name of a row is, within these bounds: what the columns leave.
const NAME: (usize, usize) = (10, 40);

/// Rows that a section has, if it has them, before lines are spent on space between sections.
const ROWS: usize = 4;

/// A narrower terminal shows fewer columns, so that rings are still told apart.
const WIDE: usize = 80;

/// A heading, as wide as its column, and whether the column stays where the terminal is narrow.
type Column = (&'static str, bool);

const RING_COLUMNS: [Column; 6] = [
    ("  events/s", true),
    ("   age", true),
    ("   gap", true),
    ("    events", false),
    ("  full", false),
    ("  maybe lost", true),
];
const REQUEST_COLUMNS: [Column; 5] = [
    ("   limit", true),
    ("    used", true),
    ("  unused", false),
    ("   refused", true),
    ("      429s", true),
];
const SINK_COLUMNS: [Column; 5] = [
    ("   up", true),
    ("   waiting", true),
    ("    oldest", true),
    ("  records/s", false),
    ("   confirmed", true),
];

/// How text looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Heading,
    Faint,
    Good,
    Doubtful,
    Bad,
}

/// One line of the page.
#[derive(Debug, Default, Clone)]
pub(super) struct Line(Vec<(Style, String)>);

impl Line {
    fn of(style: Style, text: impl Into<String>) -> Line {
        Line(vec![(style, text.into())])
    }

    fn and(mut self, style: Style, text: impl Into<String>) -> Line {
        self.0.push((style, text.into()));
        self
    }

    pub(super) fn spans(&self) -> &[(Style, String)] {
        &self.0
    }

    pub(super) fn text(&self) -> String {
        self.0.iter().map(|(_, text)| text.as_str()).collect()
    }

    /// No wider than this many columns.
    fn cut(mut self, width: usize) -> Line {
        let mut left = width;
        for (_, text) in &mut self.0 {
            if text.chars().count() > left {
                *text = text.chars().take(left).collect();
            }
            left -= text.chars().count();
        }
        self
    }
}

/// What there is to show.
pub(super) struct Seen<'a> {
    pub(super) url: &'a str,
    /// The last sample.
    pub(super) now: Option<&'a Sample>,
    /// The one that rates are since; the same as the last where there is no other.
    pub(super) before: Option<&'a Sample>,
    /// How long nobody has answered, and why.
    pub(super) away: Option<(Duration, &'a str)>,
}

/// The page, at most so wide and so high. What does not fit is counted.
pub(super) fn lines(seen: &Seen<'_>, width: usize, height: usize) -> Vec<Line> {
    let mut page = vec![title(seen, width)];
    if let Some((since, why)) = seen.away {
        let text = format!(
            "NO ANSWER for {}: {why}; trying again",
            seconds(since.as_secs_f64())
        );
        page.push(Line::of(Style::Bad, text));
    }
    if let (Some(now), Some(before)) = (seen.now, seen.before) {
        let rates = Rates::new(now, before);
        // An old answer says nothing of now.
        if seen.away.is_none() {
            page.extend(losses(now));
        }
        page.extend(alarms(now));
        page.extend(paused(now));
        let layout = Layout::of(width);
        let sections = [
            outlets(&rates, layout),
            budgets(&rates, layout),
            rings(&rates, layout),
        ];
        let wanted = sections.each_ref().map(Vec::len);
        // Three headings and the journal's line.
        let room = height.saturating_sub(page.len() + 4);
        let few: usize = wanted.iter().map(|rows| *rows.min(&ROWS)).sum();
        let spaces = if room >= few + 4 { 4 } else { 0 };
        let space = || (spaces > 0).then(Line::default);
        let rows = share(room - spaces, wanted);
        let [sinks, apps, rings] = sections;
        // What matters most in an outage comes first: what does not fit is at the end.
        page.extend(space());
        page.push(layout.heading("SINK", &SINK_COLUMNS));
        page.extend(fit(sinks, rows[0]));
        page.extend(space());
        page.push(journal(&rates, layout));
        page.extend(space());
        page.push(layout.heading("REQUESTS A SECOND", &REQUEST_COLUMNS));
        page.extend(fit(apps, rows[1]));
        page.extend(space());
        page.push(layout.heading("RING", &RING_COLUMNS));
        page.extend(fit(rings, rows[2]));
    }
    page.truncate(height);
    page.into_iter().map(|line| line.cut(width)).collect()
}

/// Where the columns are.
#[derive(Debug, Clone, Copy)]
struct Layout {
    name: usize,
    is_wide: bool,
}

impl Layout {
    fn of(width: usize) -> Layout {
        let is_wide = width >= WIDE;
        let columns = |columns: &[Column]| -> usize {
            let shown = columns.iter().filter(|(_, stays)| is_wide || *stays);
            shown.map(|(heading, _)| heading.len()).sum()
        };
        let widest = columns(&RING_COLUMNS)
            .max(columns(&REQUEST_COLUMNS))
            .max(columns(&SINK_COLUMNS));
        Layout {
            name: width.saturating_sub(widest).clamp(NAME.0, NAME.1),
            is_wide,
        }
    }

    fn heading(self, name: &str, columns: &[Column]) -> Line {
        let mut text = format!("{name:<width$}", width = self.name);
        for (heading, _) in columns.iter().filter(|(_, stays)| self.is_wide || *stays) {
            text.push_str(heading);
        }
        Line::of(Style::Heading, text)
    }

    /// A name and its values, each in the column of its heading.
    fn cells<const N: usize>(
        self,
        name: &str,
        columns: [Column; N],
        values: [(Style, String); N],
    ) -> Line {
        let name = short(name, self.name - 1);
        let mut line = Line::of(Style::Plain, format!("{name:<width$}", width = self.name));
        for ((heading, stays), (style, value)) in columns.iter().zip(values) {
            if self.is_wide || *stays {
                line = line.and(style, format!("{value:>width$}", width = heading.len()));
            }
        }
        line
    }
}

/// How many rows each gets: as many as it has, up to half of what those before it left, and the last one all of that, so
/// that something of each is seen; then what is left over, the first ones first.
fn share(room: usize, wanted: [usize; 3]) -> [usize; 3] {
    let mut left = room;
    let mut given = [0; 3];
    if rtm_planted::bug("bridge-top-sinks-cut") {
        return [room.saturating_sub(wanted[2]), 1, wanted[2]];
    }
    for ((given, wanted), parts) in given.iter_mut().zip(wanted).zip([2, 2, 1]) {
        *given = wanted.min(left.div_ceil(parts));
        left -= *given;
    }
    for (given, wanted) in given.iter_mut().zip(wanted) {
        let more = (wanted - *given).min(left);
        *given += more;
        left -= more;
    }
    given
}

/// The rows that fit, the last one counting the others.
fn fit(mut rows: Vec<Line>, room: usize) -> Vec<Line> {
    if room == 0 {
        return Vec::new();
    }
    if rows.len() > room {
        let shown = room.saturating_sub(1);
        let more = rows.len() - shown;
        rows.truncate(shown);
        rows.push(Line::of(Style::Faint, format!("… and {more} more")));
    }
    rows
}

fn title(seen: &Seen<'_>, width: usize) -> Line {
    let version = seen.now.and_then(|now| now.all("build_info", &[]).next());
    let version = version.map_or("", |build| build.label("version"));
    let up = seen.now.filter(|now| now.started > 0.0);
    let up = up.map_or_else(String::new, |now| {
        format!(", up {}", seconds(now.unix - now.started))
    });
    let left = format!("rtm-bridge {version} at {}{up}", seen.url);
    let space = width.saturating_sub(left.chars().count());
    let line = Line::of(Style::Heading, left);
    match space {
        0..9 => line,
        _ => line.and(Style::Faint, format!("{:>space$}", "q quits")),
    }
}

/// Am I losing data?
fn losses(now: &Sample) -> Vec<Line> {
    let sum = |name, labels: &[(&str, &str)]| now.sum(name, labels).unwrap_or_default();
    let mut found = Vec::new();
    let possibly = sum("events_possibly_lost_total", &[]);
    if possibly > 0.0 {
        let reasons = ["crash", "timeout", "cut", "status"];
        let of = |reason: &str| sum("events_possibly_lost_total", &[("reason", reason)]);
        let counts = reasons.iter().map(|reason| (reason, of(reason)));
        let counts = counts.filter(|(_, events)| *events > 0.0);
        let counts: Vec<String> = counts
            .map(|(reason, events)| format!("{reason} {}", count(events)))
            .collect();
        found.push(format!(
            "at most {} events at the source ({})",
            count(possibly),
            counts.join(", ")
        ));
    }
    let overflows = sum("overflow_suspected_total", &[]);
    if overflows > 0.0 {
        let estimate = sum("overflow_events_estimated_total", &[]);
        let events = match estimate > 0.0 {
            true => format!("about {} events", count(estimate)),
            false => "how many events cannot be told".to_owned(),
        };
        let times = count(overflows);
        found.push(format!("rings were full {times} times ({events})"));
    }
    for (reason, what) in [
        ("skipped", "given up because the journal was full"),
        ("damaged", "lost by the journal's disk"),
        ("poison", "that crashed the process"),
    ] {
        let events = sum("records_dropped_total", &[("reason", reason)]);
        if events > 0.0 {
            found.push(format!("{} records {what}", count(events)));
        }
    }
    let letters = sum("records_dead_lettered_total", &[]);
    let letters = match letters > 0.0 {
        true => Line::of(
            Style::Doubtful,
            format!("{} records went to dead letters", count(letters)),
        ),
        false => Line::of(Style::Faint, "no dead letters"),
    };
    let on = |name| now.all(name, &[]).any(|series| series.value > 0.0);
    if found.is_empty() && (on("journal_failing") || on("polling_stopped")) {
        let what = "BEING LOST: polling waits, and Agora overwrites";
        return vec![Line::of(Style::Bad, what), letters];
    }
    if found.is_empty() {
        let mut line = Line::of(Style::Good, "NOTHING LOST, as far as can be told; ");
        line.0.extend(letters.0);
        return vec![line];
    }
    let mut lines: Vec<Line> = found
        .into_iter()
        .map(|what| Line::of(Style::Bad, format!("LOST: {what}")))
        .collect();
    lines.push(letters);
    lines
}

/// What is stuck, in words, the worst first.
fn alarms(now: &Sample) -> Vec<Line> {
    let on = |name| now.all(name, &[]).filter(|series| series.value > 0.0);
    let mut found = Vec::new();
    found.extend(
        on("journal_failing").map(|_| "the journal cannot be written; polling waits".to_owned()),
    );
    found.extend(on("polling_stopped").map(|app| {
        format!(
            "{}: polling is stopped, the journal has no room for it",
            app.label("app")
        )
    }));
    for ring in now.all("last_successful_poll_timestamp_seconds", &[]) {
        if is_paused(now, ring.label("app")) {
            continue;
        }
        let age = now.unix - ring.value.max(now.started);
        if age > STALE_SECONDS {
            let name = ring_name(
                ring.label("app"),
                ring.label("region"),
                ring.label("stream"),
            );
            found.push(format!("{name}: no successful poll for {}", seconds(age)));
        }
    }
    for sink in now.all("sink_up", &[]).filter(|sink| sink.value == 0.0) {
        found.push(format!(
            "{} is down; what it misses waits in the journal",
            sink.label("sink")
        ));
    }
    found.extend(on("second_poller_suspected").map(|app| {
        format!(
            "{}: somebody else seems to read these events",
            app.label("app")
        )
    }));
    let more = found.len().saturating_sub(ALARMS);
    found.truncate(ALARMS);
    if let Some(last) = found.last_mut().filter(|_| more > 0) {
        *last = format!("{last} (and {more} more)");
    }
    found
        .into_iter()
        .map(|what| Line::of(Style::Bad, what))
        .collect()
}

/// What the configuration leaves alone.
fn paused(now: &Sample) -> Option<Line> {
    let apps = now.all("app_paused", &[]).filter(|app| app.value > 0.0);
    let apps: Vec<&str> = apps.map(|app| app.label("app")).collect();
    let text = || format!("paused, as the configuration says: {}", apps.join(", "));
    (!apps.is_empty()).then(|| Line::of(Style::Doubtful, text()))
}

fn is_paused(now: &Sample, app: &str) -> bool {
    now.sum("app_paused", &[("app", app)])
        .is_some_and(|paused| paused > 0.0)
}

/// Two samples, and what happened between them.
struct Rates<'a> {
    now: &'a Sample,
    before: &'a Sample,
    seconds: f64,
}

impl<'a> Rates<'a> {
    fn new(now: &'a Sample, before: &'a Sample) -> Rates<'a> {
        Rates {
            now,
            before,
            seconds: now.at.saturating_duration_since(before.at).as_secs_f64(),
        }
    }

    fn now(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.now.sum(name, labels).unwrap_or_default()
    }

    /// Of a counter, a second; none before there are two samples.
    fn rate(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let grown = self.now.sum(name, labels)? - self.before.sum(name, labels)?;
        (self.seconds > 0.0 && grown >= 0.0).then_some(grown / self.seconds)
    }
}

fn rings(rates: &Rates<'_>, layout: Layout) -> Vec<Line> {
    let mut rows: Vec<(bool, f64, Line)> = Vec::new();
    for ring in rates.now.all("events_fetched_total", &[]) {
        let (app, region, stream) = (
            ring.label("app"),
            ring.label("region"),
            ring.label("stream"),
        );
        let of = [("app", app), ("region", region), ("stream", stream)];
        let polled = rates.now("last_successful_poll_timestamp_seconds", &of);
        let age = (polled > 0.0).then(|| (rates.now.unix - polled).max(0.0));
        let gap = rates.rate("polls_total", &of).filter(|polls| *polls > 0.0);
        let lost = rates.now("events_possibly_lost_total", &of);
        let full = rates.now("full_pages_total", &of);
        let is_paused = is_paused(rates.now, app);
        let stale = !is_paused && age.is_none_or(|age| age > STALE_SECONDS);
        let age = match age {
            _ if is_paused => "off".to_owned(),
            age => age.map_or("-".to_owned(), brief),
        };
        let line = layout.cells(
            &ring_name(app, region, stream),
            RING_COLUMNS,
            [
                (
                    Style::Plain,
                    optional(rates.rate("events_fetched_total", &of)),
                ),
                (style(stale, Style::Bad), age),
                (
                    Style::Plain,
                    gap.map_or("-".to_owned(), |polls| brief(1.0 / polls)),
                ),
                (Style::Plain, count(ring.value)),
                (style(full > 0.0, Style::Doubtful), count(full)),
                (style(lost > 0.0, Style::Bad), count(lost)),
            ],
        );
        rows.push((stale, lost, line));
    }
    // Where not all fit, those that need somebody are to be seen.
    rows.sort_by(|one, other| other.0.cmp(&one.0).then(other.1.total_cmp(&one.1)));
    rows.into_iter().map(|(_, _, line)| line).collect()
}

fn budgets(rates: &Rates<'_>, layout: Layout) -> Vec<Line> {
    let mut rows = Vec::new();
    for app in rates.now.all("request_budget_per_second", &[]) {
        let name = app.label("app");
        let of = [("app", name)];
        let refused = rates.now("polls_total", &[("app", name), ("outcome", "refused")]);
        let limited = rates.now("rate_limited_total", &of);
        let line = layout.cells(
            name,
            REQUEST_COLUMNS,
            [
                (Style::Plain, count(app.value)),
                (Style::Plain, optional(rates.rate("polls_total", &of))),
                (
                    Style::Faint,
                    optional(rates.rate("requests_unused_total", &of)),
                ),
                (style(refused > 0.0, Style::Doubtful), count(refused)),
                (style(limited > 0.0, Style::Doubtful), count(limited)),
            ],
        );
        rows.push(line);
    }
    rows
}

fn journal(rates: &Rates<'_>, layout: Layout) -> Line {
    let bytes = rates.now("journal_bytes", &[]);
    let used = rates.now("journal_used_bytes", &[]);
    let limit = rates.now("journal_limit_bytes", &[]);
    let fill = if limit > 0.0 { used / limit } else { 0.0 };
    // What is full of small responses has little on the disk.
    let by = if used > 1.5 * bytes {
        " by entries"
    } else {
        ""
    };
    let bars = (fill * 10.0).round().clamp(0.0, 10.0) as usize;
    let how = match fill {
        _ if fill >= 0.8 => Style::Bad,
        _ if fill >= 0.5 => Style::Doubtful,
        _ => Style::Plain,
    };
    let syncs = rates.rate("journal_commit_duration_seconds_count", &[]);
    let time = rates.rate("journal_commit_duration_seconds_sum", &[]);
    let sync = match (time, syncs) {
        (Some(time), Some(syncs)) if syncs > 0.0 => {
            format!(", sync {:.1} ms", 1000.0 * time / syncs)
        }
        _ => String::new(),
    };
    let (bar, used) = match layout.is_wide {
        true => (
            format!("[{}{}] ", "#".repeat(bars), ".".repeat(10 - bars)),
            format!(" {}", ByteSize(bytes as u64)),
        ),
        false => (String::new(), String::new()),
    };
    Line::of(Style::Heading, "JOURNAL ")
        .and(how, format!("{bar}{:.1} %{by}", 100.0 * fill))
        .and(
            Style::Plain,
            format!(
                "{used} of {}; free {}{sync}",
                ByteSize(limit as u64),
                ByteSize(rates.now("journal_free_disk_bytes", &[]) as u64)
            ),
        )
}

fn outlets(rates: &Rates<'_>, layout: Layout) -> Vec<Line> {
    let mut rows = Vec::new();
    for outlet in rates.now.all("journal_pending_events", &[]) {
        let (app, sink) = (outlet.label("app"), outlet.label("sink"));
        let of = [("app", app), ("sink", sink)];
        let up = rates.now("sink_up", &[("sink", sink)]) > 0.0;
        let oldest = rates.now("journal_oldest_pending_age_seconds", &of);
        let confirmed = rates.now("last_confirmation_timestamp_seconds", &of);
        let ago = (confirmed > 0.0).then(|| (rates.now.unix - confirmed).max(0.0));
        let silent = outlet.value > 0.0 && oldest > SILENT_SECONDS;
        let (word, how) = if up {
            ("yes", Style::Good)
        } else {
            ("DOWN", Style::Bad)
        };
        let line = layout.cells(
            &format!("{app} > {sink}"),
            SINK_COLUMNS,
            [
                (how, word.to_owned()),
                (style(silent, Style::Bad), count(outlet.value)),
                (style(silent, Style::Bad), brief(oldest)),
                (
                    Style::Plain,
                    optional(rates.rate("records_confirmed_total", &of)),
                ),
                (
                    Style::Plain,
                    ago.map_or("never".to_owned(), |ago| format!("{} ago", brief(ago))),
                ),
            ],
        );
        rows.push((!up || silent, line));
    }
    rows.sort_by_key(|(stuck, _)| !stuck);
    rows.into_iter().map(|(_, line)| line).collect()
}

fn style(is: bool, then: Style) -> Style {
    if is { then } else { Style::Plain }
}

fn ring_name(app: &str, region: &str, stream: &str) -> String {
    format!("{app} {region} {stream}")
}

/// At most so many characters; the end is what tells rings apart.
fn short(text: &str, columns: usize) -> String {
    let long = text.chars().count().saturating_sub(columns);
    match long {
        0 => text.to_owned(),
        long => text
            .chars()
            .skip(long + 1)
            .fold("…".to_owned(), |mut text, c| {
                text.push(c);
                text
            }),
    }
}

fn optional(rate: Option<f64>) -> String {
    rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}"))
}

fn count(value: f64) -> String {
    match value {
        _ if value < 1e7 => format!("{value:.0}"),
        _ if value < 1e9 => format!("{:.1}M", value / 1e6),
        _ => format!("{:.2}G", value / 1e9),
    }
}

/// A time in at most five characters.
fn brief(value: f64) -> String {
    match value {
        _ if value < 9.95 => format!("{value:.1}s"),
        _ if value < 600.0 => format!("{value:.0}s"),
        _ if value < 36_000.0 => format!("{:.0}m", value / 60.0),
        _ => format!("{:.0}h", value / 3600.0),
    }
}

/// A time as people say it.
fn seconds(value: f64) -> String {
    match value {
        _ if value < 120.0 => format!("{value:.0} s"),
        _ if value < 7200.0 => format!("{:.0} min", value / 60.0),
        _ if value < 172_800.0 => format!("{:.1} h", value / 3600.0),
        _ => format!("{:.0} days", value / 86_400.0),
    }
}

#[cfg(test)]
#[path = "view/tests.rs"]
mod tests;

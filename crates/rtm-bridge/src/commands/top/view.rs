//! From what a bridge says of itself to lines of a page. Pure: what is wrong, the bridge has decided.

use std::cmp::Reverse;
use std::time::Duration;

use bytesize::ByteSize;

use super::status::Status;
use rtm_engine::status::health::Health;
use rtm_engine::status::phrases::duration;
use rtm_engine::status::snapshot::{App, Outlet, Ring, Sink, Snapshot};
use rtm_engine::status::words::{Finding, Level};

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

/// The part of the page that findings may have, and lines that they always have.
const FINDINGS: (usize, usize) = (3, 2);

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
    fn of(style: Style, text: impl AsRef<str>) -> Line {
        Line::default().and(style, text)
    }

    /// Adds a text. Control characters are not what a terminal is given: the text comes from another process.
    fn and(mut self, style: Style, text: impl AsRef<str>) -> Line {
        self.0
            .push((style, text.as_ref().replace(char::is_control, "?")));
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
    /// What the bridge said last.
    pub(super) now: Option<&'a Status>,
    /// What rates are since; the same as the last where there is no other.
    pub(super) before: Option<&'a Status>,
    /// How long nobody has answered, and why.
    pub(super) away: Option<(Duration, &'a str)>,
}

/// The page, at most so wide and so high. What does not fit is counted.
pub(super) fn lines(seen: &Seen<'_>, width: usize, height: usize) -> Vec<Line> {
    let mut page = vec![title(seen, width)];
    if let Some((since, why)) = seen.away {
        let text = format!(
            "NO ANSWER for {}: {why}; trying again",
            duration(since.as_secs_f64())
        );
        page.push(Line::of(Style::Bad, text));
    }
    if let (Some(now), Some(before)) = (seen.now, seen.before) {
        // An old answer says nothing of now.
        if seen.away.is_none() {
            let room = (height / FINDINGS.0).max(FINDINGS.1);
            page.extend(fit(findings(&now.report.findings, width), room));
        }
        let (now, before) = (&now.report.now, &before.report.now);
        page.push(totals(now));
        let rates = Rates { now, before };
        let layout = Layout::of(width);
        let sections = [
            outlets(&rates, layout),
            budgets(&rates, layout),
            rings(now, layout),
        ];
        let wanted = sections.each_ref().map(Vec::len);
        // Three headings and the journal's line.
        let room = height.saturating_sub(page.len() + 4);
        let few: usize = wanted.iter().map(|rows| *rows.min(&ROWS)).sum();
        let is_roomy = room >= few + 4;
        let rows = share(if is_roomy { room - 4 } else { room }, wanted);
        let [sinks, apps, rings] = sections;
        // What matters most in an outage comes first: what does not fit is at the end.
        for (heading, rows) in [
            (layout.heading("SINK", &SINK_COLUMNS), fit(sinks, rows[0])),
            (journal(&rates, layout), Vec::new()),
            (
                layout.heading("REQUESTS A SECOND", &REQUEST_COLUMNS),
                fit(apps, rows[1]),
            ),
            (layout.heading("RING", &RING_COLUMNS), fit(rings, rows[2])),
        ] {
            page.extend(is_roomy.then(Line::default));
            page.push(heading);
            page.extend(rows);
        }
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
    let version = seen.now.map_or("", |now| &now.version);
    let up = seen.now.map(|now| duration(now.report.now.uptime_seconds));
    let up = up.map_or_else(String::new, |up| format!(", up {up}"));
    let left = format!("rtm-bridge {version} at {}{up}", seen.url);
    let space = width.saturating_sub(left.chars().count());
    let line = Line::of(Style::Heading, left);
    match space {
        0..9 => line,
        _ => line.and(Style::Faint, format!("{:>space$}", "q quits")),
    }
}

/// What goes on, word for word, broken where the page ends.
fn findings(findings: &[Finding], width: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    for finding in findings {
        let style = match finding.level {
            Level::Losing | Level::Down => Style::Bad,
            Level::Late => Style::Doubtful,
            Level::Note => Style::Plain,
            Level::Good => Style::Good,
        };
        let mut line = String::new();
        for word in finding.text.split_whitespace() {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
                lines.push(Line::of(style, std::mem::take(&mut line)));
                line.push(' ');
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(Line::of(style, line));
    }
    lines
}

/// What has become of events since the journal was made, and of rings since the start.
fn totals(now: &Snapshot) -> Line {
    let outlets = || now.sinks.iter().flat_map(|sink| &sink.outlets);
    let lost = now.apps.iter().map(|app| app.possibly_lost_ever).sum();
    let given_up = outlets().map(|outlet| outlet.given_up).sum();
    let dead_letters = outlets().map(|outlet| outlet.dead_lettered).sum();
    let full = now.rings.iter().map(|ring| ring.overflows).sum();
    let text = [
        ("possibly lost", lost),
        ("given up", given_up),
        ("dead letters", dead_letters),
        ("rings full", full),
    ];
    let text = text.map(|(what, events)| format!("{what} {}", count(events)));
    let how = match lost + given_up + dead_letters + full {
        0 => Style::Faint,
        _ => Style::Doubtful,
    };
    Line::of(how, text.join(", "))
}

/// What goes on, and what rates are since.
struct Rates<'a> {
    now: &'a Snapshot,
    before: &'a Snapshot,
}

impl Rates<'_> {
    /// A second; none where there is nothing before.
    fn rate(&self, now: u64, before: u64) -> String {
        match self.now.uptime_seconds - self.before.uptime_seconds {
            seconds if seconds > 0.0 => {
                format!("{:.1}", now.saturating_sub(before) as f64 / seconds)
            }
            _ => "-".to_owned(),
        }
    }

    fn outlet_before(&self, sink: &str, app: &str) -> Option<&Outlet> {
        let sinks = self.before.sinks.iter().filter(|known| known.name == sink);
        let mut outlets = sinks.flat_map(|sink| &sink.outlets);
        outlets.find(|outlet| outlet.app == app)
    }
}

fn outlets(rates: &Rates<'_>, layout: Layout) -> Vec<Line> {
    let sinks = rates.now.sinks.iter();
    let outlets = sinks.flat_map(|sink| sink.outlets.iter().map(move |outlet| (sink, outlet)));
    let mut outlets: Vec<_> = outlets.collect();
    // Where not all fit, those that need somebody are to be seen.
    outlets.sort_by_key(|&(_, outlet)| (Reverse(outlet.health), &outlet.app));
    let row = |(sink, outlet): (&Sink, &Outlet)| {
        let (word, how) = match outlet.health {
            Health::Up => ("yes", Style::Good),
            Health::Late => ("late", Style::Doubtful),
            Health::Down => ("DOWN", Style::Bad),
        };
        let ill = style(outlet.health != Health::Up, how);
        let before = rates
            .outlet_before(&sink.name, &outlet.app)
            .unwrap_or(outlet);
        let oldest = outlet.oldest_pending_age_seconds.unwrap_or_default();
        let confirmed = outlet.last_confirmation_age_seconds;
        let confirmed = confirmed.map(|age| format!("{} ago", brief(age)));
        layout.cells(
            &format!("{} > {}", outlet.app, sink.name),
            SINK_COLUMNS,
            [
                (how, word.to_owned()),
                (ill, count(outlet.pending_events)),
                (ill, brief(oldest)),
                (Style::Plain, rates.rate(outlet.confirmed, before.confirmed)),
                (Style::Plain, confirmed.unwrap_or("never".to_owned())),
            ],
        )
    };
    outlets.into_iter().map(row).collect()
}

fn journal(rates: &Rates<'_>, layout: Layout) -> Line {
    let (now, before) = (&rates.now.journal, &rates.before.journal);
    let fill = now.used_bytes as f64 / now.max_bytes.max(1) as f64;
    let bars = (fill * 10.0).round().clamp(0.0, 10.0) as usize;
    let sync = match now.syncs.saturating_sub(before.syncs) {
        0 => String::new(),
        syncs => {
            let seconds = now.syncs_seconds - before.syncs_seconds;
            format!(", sync {:.1} ms", 1000.0 * seconds / syncs as f64)
        }
    };
    let (bar, used) = match layout.is_wide {
        true => (
            format!("[{:.<10}] ", "#".repeat(bars)),
            format!(" {}", ByteSize(now.used_bytes)),
        ),
        false => (String::new(), String::new()),
    };
    let text = format!(
        "{bar}{:.1} %{used} of {}; free {}{sync}",
        100.0 * fill,
        ByteSize(now.max_bytes),
        ByteSize(now.free_disk_bytes.unwrap_or_default())
    );
    Line::of(Style::Heading, "JOURNAL ").and(Style::Plain, text)
}

fn budgets(rates: &Rates<'_>, layout: Layout) -> Vec<Line> {
    let row = |app: &App| {
        let mut before = rates.before.apps.iter();
        let before = before.find(|before| before.name == app.name).unwrap_or(app);
        let (refused, limited) = (app.requests_refused, app.requests_rate_limited);
        layout.cells(
            &app.name,
            REQUEST_COLUMNS,
            [
                (Style::Plain, app.requests_per_second.to_string()),
                (Style::Plain, rates.rate(app.requests, before.requests)),
                (
                    Style::Faint,
                    rates.rate(app.requests_unused, before.requests_unused),
                ),
                (style(refused > 0, Style::Doubtful), count(refused)),
                (style(limited > 0, Style::Doubtful), count(limited)),
            ],
        )
    };
    rates.now.apps.iter().map(row).collect()
}

fn rings(now: &Snapshot, layout: Layout) -> Vec<Line> {
    let mut rings: Vec<&Ring> = now.rings.iter().collect();
    // Where not all fit, those that need somebody are to be seen.
    let ill = |ring: &Ring| !ring.paused && ring.health == Health::Down;
    rings.sort_by_key(|ring| Reverse((ill(ring), ring.possibly_lost_ever)));
    let row = |ring: &Ring| {
        let age = match ring.last_poll_age_seconds {
            _ if ring.paused => "off".to_owned(),
            age => age.map_or("-".to_owned(), brief),
        };
        let gap = ring.last_gap_seconds.map_or("-".to_owned(), brief);
        let (full, lost) = (ring.full_pages, ring.possibly_lost_ever);
        layout.cells(
            &format!("{} {} {}", ring.app, ring.region, ring.stream),
            RING_COLUMNS,
            [
                (Style::Plain, format!("{:.1}", ring.events_per_second)),
                (style(ill(ring), Style::Bad), age),
                (Style::Plain, gap),
                (Style::Plain, count(ring.events)),
                (style(full > 0, Style::Doubtful), count(full)),
                (style(lost > 0, Style::Bad), count(lost)),
            ],
        )
    };
    rings.into_iter().map(row).collect()
}

fn style(is: bool, then: Style) -> Style {
    if is { then } else { Style::Plain }
}

/// At most so many characters; the end is what tells rings apart.
fn short(text: &str, columns: usize) -> String {
    match text.chars().count().saturating_sub(columns) {
        0 => text.to_owned(),
        long => format!("…{}", text.chars().skip(long + 1).collect::<String>()),
    }
}

fn count(value: u64) -> String {
    match value {
        0..10_000_000 => value.to_string(),
        10_000_000..1_000_000_000 => format!("{:.1}M", value as f64 / 1e6),
        _ => format!("{:.2}G", value as f64 / 1e9),
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

#[cfg(test)]
#[path = "view/tests.rs"]
mod tests;

//! From what a bridge says of itself to a page. Pure: what is wrong, the bridge has decided.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use bytesize::ByteSize;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Row, Table, Widget};

use super::status::Status;
use rtm_engine::status::health::Health;
use rtm_engine::status::phrases::duration;
use rtm_engine::status::snapshot::{App, Outlet, Ring, Sink, Snapshot};
use rtm_engine::status::words::{Finding, Level};

/// How wide the name of a row is, within these bounds: what its figures leave. Rings are told apart by it, so that a
/// narrow terminal shows fewer figures, each of them whole.
const NAME: (u16, u16) = (16, 40);

/// How wide the figures of a row are: all sections have the same columns, and what matters most in the first ones.
const FIGURES: [u16; 6] = [7, 7, 9, 12, 10, 8];
const SINK_COLUMNS: [&str; 6] = ["up", "oldest", "waiting", "confirmed", "records/s", ""];
const REQUEST_COLUMNS: [&str; 6] = ["limit", "used", "refused", "429s", "unused", ""];
const RING_COLUMNS: [&str; 6] = ["age", "gap", "events/s", "maybe lost", "events", "full"];

/// How wide plain output is.
const PLAIN_WIDTH: u16 = 80;

/// Rows that a section has, if it has them, before lines are spent on space between sections.
const ROWS: usize = 4;

/// The part of the page that findings may have, and lines that they always have.
const FINDINGS: (usize, usize) = (3, 2);

const PLAIN: Style = Style::new();
const FAINT: Style = Style::new().add_modifier(Modifier::DIM);
const GOOD: Style = Style::new().fg(Color::Green);
const DOUBTFUL: Style = Style::new().fg(Color::Yellow);
const BAD: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);

/// What there is to show.
pub(super) struct Seen<'a> {
    pub(super) url: &'a str,
    /// What rates are since, and what the bridge said last; the same where there is no other.
    pub(super) known: Option<(&'a Status, &'a Status)>,
    /// How long nobody has answered, and why.
    pub(super) away: Option<(Duration, &'a str)>,
}

impl Widget for &Seen<'_> {
    fn render(self, area: Rect, buffer: &mut Buffer) {
        table(rows(self, area.width, area.height.into()), area.width).render(area, buffer);
    }
}

/// The whole page, without a terminal.
pub(super) fn plain(seen: &Seen<'_>) -> String {
    let rows = rows(seen, PLAIN_WIDTH, usize::MAX);
    let height = rows.len().try_into().unwrap_or(u16::MAX);
    let mut buffer = Buffer::empty(Rect::new(0, 0, PLAIN_WIDTH, height));
    table(rows, PLAIN_WIDTH).render(buffer.area, &mut buffer);
    text(&buffer)
}

fn text(buffer: &Buffer) -> String {
    let rows = buffer.content.chunks(buffer.area.width.max(1).into());
    let rows = rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>());
    rows.map(|row| row.trim_end().to_owned() + "\n").collect()
}

/// The last column has what the others leave, which only rows of one cell use.
fn table(rows: Vec<Row<'static>>, width: u16) -> Table<'static> {
    let mut widths = Constraint::from_lengths(widths(width));
    widths.push(Constraint::Fill(1));
    Table::new(rows, widths).column_spacing(0)
}

/// Of a name, and of the figures for which there is room.
fn widths(width: u16) -> Vec<u16> {
    let mut widths = vec![width];
    for figure in FIGURES {
        if widths[0] < NAME.0 + figure {
            break;
        }
        widths[0] -= figure;
        widths.push(figure);
    }
    widths[0] = widths[0].min(NAME.1);
    widths
}

/// The page. What does not fit is counted.
fn rows(seen: &Seen<'_>, width: u16, height: usize) -> Vec<Row<'static>> {
    let mut page = vec![title(seen)];
    if let Some((since, why)) = seen.away {
        let since = duration(since.as_secs_f64());
        let text = format!("NO ANSWER for {since}: {why}; trying again");
        page.push(whole(Span::styled(text, BAD)));
    }
    let Some((before, now)) = seen.known else {
        return page;
    };
    // An old answer says nothing of now.
    if seen.away.is_none() {
        let room = (height / FINDINGS.0).max(FINDINGS.1);
        page.extend(fit(findings(&now.report.findings, width), room));
    }
    let (before, now) = (&before.report.now, &now.report.now);
    page.push(totals(now));
    let known = Known { before, now, width };
    let sections = [known.outlets(), known.budgets(), known.rings()];
    // Three headings and the journal's line.
    let mut room = height.saturating_sub(page.len() + 4);
    let few: usize = sections.iter().map(|rows| rows.len().min(ROWS)).sum();
    let is_roomy = room >= few + 4;
    room -= if is_roomy { 4 } else { 0 };
    let [sinks, apps, rings] = share(room, sections);
    // What matters most in an outage comes first: what does not fit is at the end.
    for (heading, rows) in [
        (known.row("SINK", SINK_COLUMNS).bold(), sinks),
        (known.journal(), Vec::new()),
        (known.row("REQUESTS/S", REQUEST_COLUMNS).bold(), apps),
        (known.row("RING", RING_COLUMNS).bold(), rings),
    ] {
        page.extend(is_roomy.then(|| whole("")));
        page.push(heading);
        page.extend(rows);
    }
    page
}

/// Each section has the rows that it wants, or half of what those before it left and whatever those after it do not want,
/// so that something of each is seen.
fn share(mut room: usize, sections: [Vec<Row<'static>>; 3]) -> [Vec<Row<'static>>; 3] {
    let mut later: usize = sections.iter().map(Vec::len).sum();
    sections.map(|rows| {
        later -= rows.len();
        let rows = fit(rows, room - later.min(room / 2));
        room -= rows.len();
        rows
    })
}

/// The rows that fit, the last one counting the others.
fn fit(mut rows: Vec<Row<'static>>, room: usize) -> Vec<Row<'static>> {
    if rows.len() > room && room > 0 {
        let more = rows.len() - (room - 1);
        rows.truncate(room - 1);
        rows.push(whole(Span::styled(format!("… and {more} more"), FAINT)));
    }
    rows.truncate(room);
    rows
}

/// A row of one cell.
fn whole(line: impl Into<Line<'static>>) -> Row<'static> {
    Row::new([Cell::new(line.into()).column_span(u16::MAX)])
}

fn title(seen: &Seen<'_>) -> Row<'static> {
    let title = match seen.known {
        Some((_, now)) => {
            let up = duration(now.report.now.uptime_seconds);
            format!("rtm-bridge {} at {}, up {up}", now.version, seen.url)
        }
        None => format!("rtm-bridge at {}", seen.url),
    };
    whole(Line::from(vec![title.bold(), "  q quits".dim()]))
}

/// What goes on, word for word, broken where the page ends.
fn findings(findings: &[Finding], width: u16) -> Vec<Row<'static>> {
    let options = textwrap::Options::new(width.into()).subsequent_indent("  ");
    let rows = findings.iter().flat_map(|finding| {
        let style = match finding.level {
            Level::Losing | Level::Lost | Level::Down => BAD,
            Level::Late => DOUBTFUL,
            Level::Note => PLAIN,
            Level::Good => GOOD,
        };
        let lines = textwrap::wrap(&finding.text, &options).into_iter();
        lines.map(move |line| whole(Span::styled(line.into_owned(), style)))
    });
    rows.collect()
}

/// What has become of events since the journal was made, and of rings since the start.
fn totals(now: &Snapshot) -> Row<'static> {
    let lost = now.apps.iter().map(|app| app.possibly_lost_ever).sum();
    let given_up = most_of_a_sink(now, |outlet| outlet.given_up);
    let dead_letters = most_of_a_sink(now, |outlet| outlet.dead_lettered);
    let full = now.rings.iter().map(|ring| ring.overflows).sum();
    let text = [
        ("possibly lost", lost),
        ("given up", given_up),
        ("dead letters", dead_letters),
        ("rings full", full),
    ];
    let text = text.map(|(what, events)| format!("{what} {}", count(events)));
    let how = match lost + given_up + dead_letters + full {
        0 => FAINT,
        _ => DOUBTFUL,
    };
    whole(Span::styled(text.join(", "), how))
}

/// The sum over all App IDs of what the sink with the most has of each: what becomes of an event in two sinks is one event's.
fn most_of_a_sink(now: &Snapshot, of: impl Fn(&Outlet) -> u64) -> u64 {
    let mut most: BTreeMap<&str, u64> = BTreeMap::new();
    for outlet in now.sinks.iter().flat_map(|sink| &sink.outlets) {
        let app = most.entry(&outlet.app).or_default();
        *app = of(outlet).max(*app);
    }
    most.values().sum()
}

/// What rates are since, and what goes on, for a page of this width.
struct Known<'a> {
    before: &'a Snapshot,
    now: &'a Snapshot,
    width: u16,
}

impl Known<'_> {
    /// A name and its figures. The end of a name is what tells rings apart.
    fn row<S: Into<Span<'static>>>(&self, text: &str, figures: [S; 6]) -> Row<'static> {
        let widths = widths(self.width);
        let columns = usize::from(widths[0]).saturating_sub(1);
        let text = match text.chars().count().saturating_sub(columns) {
            0 => text.to_owned(),
            long => format!("…{}", text.chars().skip(long + 1).collect::<String>()),
        };
        let figures = figures.map(|figure| figure.into().into_right_aligned_line());
        let cells = [Line::raw(text)].into_iter().chain(figures);
        cells.take(widths.len()).collect()
    }

    /// A second; none where there is nothing before.
    fn rate(&self, now: u64, before: u64) -> String {
        match self.now.uptime_seconds - self.before.uptime_seconds {
            seconds if seconds > 0.0 => {
                format!("{:.1}", now.saturating_sub(before) as f64 / seconds)
            }
            _ => "-".to_owned(),
        }
    }

    fn outlets(&self) -> Vec<Row<'static>> {
        let known = outlets_of(self.before);
        let mut outlets = outlets_of(self.now);
        // Where not all fit, those that need somebody are to be seen.
        outlets.sort_by_key(|&(_, outlet)| (Reverse(outlet.health), &outlet.app));
        let row = |(sink, outlet): (&Sink, &Outlet)| {
            let (word, how) = match outlet.health {
                Health::Up => ("yes", GOOD),
                Health::Late => ("late", DOUBTFUL),
                Health::Down => ("DOWN", BAD),
            };
            let ill = style(outlet.health != Health::Up, how);
            let is_same = |(before, way): &&(&Sink, &Outlet)| {
                before.name == sink.name && way.app == outlet.app
            };
            let before = known.iter().find(is_same).map_or(outlet, |(_, way)| way);
            let oldest = outlet.oldest_pending_age_seconds.unwrap_or_default();
            let confirmed = outlet.last_confirmation_age_seconds;
            let confirmed = confirmed.map(|age| format!("{} ago", brief(age)));
            self.row(
                &format!("{} > {}", outlet.app, sink.name),
                [
                    Span::styled(word, how),
                    Span::styled(brief(oldest), ill),
                    Span::styled(count(outlet.pending_events), ill),
                    confirmed.unwrap_or("never".to_owned()).into(),
                    self.rate(outlet.confirmed, before.confirmed).into(),
                    "".into(),
                ],
            )
        };
        outlets.into_iter().map(row).collect()
    }

    fn journal(&self) -> Row<'static> {
        let (now, before) = (&self.now.journal, &self.before.journal);
        let fill = now.used_bytes as f64 / now.max_bytes.max(1) as f64;
        let bars = (fill * 10.0).round().clamp(0.0, 10.0) as usize;
        let sync = match now.syncs.saturating_sub(before.syncs) {
            0 => String::new(),
            syncs => {
                let seconds = now.syncs_seconds - before.syncs_seconds;
                format!(", sync {:.1} ms", 1000.0 * seconds / syncs as f64)
            }
        };
        let text = format!(
            "{:.1} % of {}; free {}{sync} [{:.<10}]",
            100.0 * fill,
            ByteSize(now.max_bytes),
            ByteSize(now.free_disk_bytes.unwrap_or_default()),
            "#".repeat(bars)
        );
        whole(Line::from(vec!["JOURNAL ".bold(), text.into()]))
    }

    fn budgets(&self) -> Vec<Row<'static>> {
        let row = |app: &App| {
            let mut before = self.before.apps.iter();
            let before = before.find(|before| before.name == app.name).unwrap_or(app);
            let (refused, limited) = (app.requests_refused, app.requests_rate_limited);
            let unused = self.rate(app.requests_unused, before.requests_unused);
            self.row(
                &app.name,
                [
                    app.requests_per_second.to_string().into(),
                    self.rate(app.requests, before.requests).into(),
                    Span::styled(count(refused), style(refused > 0, DOUBTFUL)),
                    Span::styled(count(limited), style(limited > 0, DOUBTFUL)),
                    unused.dim(),
                    "".into(),
                ],
            )
        };
        self.now.apps.iter().map(row).collect()
    }

    fn rings(&self) -> Vec<Row<'static>> {
        let mut rings: Vec<&Ring> = self.now.rings.iter().collect();
        // Where not all fit, those that need somebody are to be seen.
        let ill = |ring: &Ring| !ring.paused && ring.health == Health::Down;
        rings.sort_by_key(|ring| Reverse((ill(ring), ring.possibly_lost_ever)));
        let row = |ring: &Ring| {
            let age = match ring.last_poll_age_seconds {
                _ if ring.paused => "off".to_owned(),
                age => age.map_or("-".to_owned(), brief),
            };
            let (full, lost) = (ring.full_pages, ring.possibly_lost_ever);
            self.row(
                &format!("{} {} {}", ring.app, ring.region, ring.stream),
                [
                    Span::styled(age, style(ill(ring), BAD)),
                    ring.last_gap_seconds.map_or("-".to_owned(), brief).into(),
                    format!("{:.1}", ring.events_per_second).into(),
                    Span::styled(count(lost), style(lost > 0, BAD)),
                    count(ring.events).into(),
                    Span::styled(count(full), style(full > 0, DOUBTFUL)),
                ],
            )
        };
        rings.into_iter().map(row).collect()
    }
}

fn outlets_of(snapshot: &Snapshot) -> Vec<(&Sink, &Outlet)> {
    let sinks = snapshot.sinks.iter();
    let outlets = sinks.flat_map(|sink| sink.outlets.iter().map(move |outlet| (sink, outlet)));
    outlets.collect()
}

fn style(is: bool, then: Style) -> Style {
    if is { then } else { PLAIN }
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

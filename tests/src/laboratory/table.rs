//! The table, for the documentation and for a terminal.

use std::fmt::Write as _;

use super::{MEASURED_FROM, Measured, ROUND_TRIP, SECONDS, SEEDS};

const HEAD: [&str; 7] = [
    "arrivals",
    "schedule",
    "mean age, s",
    "p99, s",
    "lost",
    "at least",
    "regret",
];

/// For the documentation, with what it needs to be understood.
pub(super) fn markdown(measured: &[Measured]) -> String {
    let mut text = format!(
        "<!-- Made by `cargo run -p rtm-tests --bin laboratory`. -->\n\
         Eight rings and ten requests a second, {SECONDS} s in simulated time, round trips of {} to {} ms, {SEEDS} seeds.\n\
         Ages are those of the events that arrive after the first {MEASURED_FROM} s, from arrival to read, as medians of the seeds; \
         in brackets the bound of the mean.\n\
         An event that is lost has no age, so a schedule that loses many looks young.\n\
         What is lost is the mean of the seeds, and that of the worst seed in brackets; what no schedule can save is next to it, \
         and regret is the difference, as a part of all arrivals.\n\
         *Even*, *proportional* and *square root* are told the average rates; ours is told nothing.\n\n",
        ROUND_TRIP.0, ROUND_TRIP.1,
    );
    let _ = writeln!(text, "| {} |", HEAD.join(" | "));
    let _ = writeln!(text, "|---|---|---:|---:|---:|---:|---:|");
    for row in rows(measured) {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    text
}

/// In columns.
pub(super) fn text(measured: &[Measured]) -> String {
    let rows: Vec<[String; 7]> = std::iter::once(HEAD.map(str::to_owned))
        .chain(rows(measured))
        .collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max();
    let widths: Vec<usize> = (0..HEAD.len())
        .map(|column| width(column).unwrap_or_default())
        .collect();
    let mut text = String::new();
    for row in &rows {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ = match column {
                0 | 1 => write!(text, "{cell:<width$}  "),
                _ => write!(text, "{cell:>width$}  "),
            };
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

fn rows(measured: &[Measured]) -> impl Iterator<Item = [String; 7]> {
    let mut before = "";
    measured.iter().map(move |one| {
        let pattern = if one.pattern == before {
            ""
        } else {
            one.pattern
        };
        before = one.pattern;
        let bound = one
            .least_age
            .map_or(String::new(), |least| format!(" ({least:.3})"));
        [
            pattern.to_owned(),
            one.policy.name().to_owned(),
            format!("{:.3}{bound}", one.mean_age),
            format!("{:.2}", one.p99_age),
            format!("{:.0} ({})", one.lost, one.most_lost),
            format!("{:.0}", one.least_lost),
            format!("{:.1} %", one.regret() * 100.0),
        ]
    })
}

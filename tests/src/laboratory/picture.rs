//! The picture: for each pattern a bar for each schedule, of its mean age and of its losses.
//!
//! One grey for all text that is readable on white and on black, since the picture does not know where it is shown.

use std::fmt::Write as _;

use super::{Measured, Policy};

const INK: &str = "#767676";

const WIDTH: f64 = 920.0;
/// Where the bars of the two panels begin, and how long the longest may be.
const PANELS: [(f64, f64); 2] = [(240.0, 290.0), (590.0, 290.0)];
const TOP: f64 = 74.0;
const BAR: f64 = 8.0;
const GAP: f64 = 14.0;

fn colour(policy: Policy) -> &'static str {
    match policy {
        Policy::Even => "#9aa5b1",
        Policy::Proportional => "#d9a441",
        Policy::SquareRoot => "#4a90c4",
        Policy::Shipped(_) => "#d1495b",
    }
}

/// What one panel shows.
struct Panel {
    title: &'static str,
    most: f64,
    steps: usize,
    value: fn(&Measured) -> f64,
    bound: fn(&Measured) -> Option<f64>,
    label: fn(f64) -> String,
}

pub(super) fn svg(measured: &[Measured]) -> String {
    let panels = [
        Panel {
            title: "mean age, s",
            most: 0.7,
            steps: 7,
            value: |one| one.mean_age,
            bound: |one| one.least_age,
            label: |value| format!("{value:.1}"),
        },
        Panel {
            title: "lost, % of all",
            most: 80.0,
            steps: 8,
            value: |one| 100.0 * one.lost / one.arrived,
            bound: |one| Some(100.0 * one.least_lost / one.arrived),
            label: |value| format!("{value:.0}"),
        },
    ];
    let groups: Vec<&[Measured]> = measured
        .chunk_by(|one, next| one.pattern == next.pattern)
        .collect();
    let group = BAR * Policy::ALL.len() as f64 + GAP;
    let bottom = TOP + group * groups.len() as f64;
    let height = bottom + 30.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" role=\"img\" \
         font-family=\"system-ui, sans-serif\" font-size=\"12\" fill=\"{INK}\">\n\
         <title>Mean age and losses of four schedules</title>\n"
    );
    legend(&mut svg);
    for (panel, place) in panels.iter().zip(PANELS) {
        axis(&mut svg, panel, place, bottom);
    }
    for (number, group_of) in groups.iter().enumerate() {
        let top = TOP + group * number as f64;
        let middle = top + BAR * 2.0 + 4.0;
        let name = group_of[0].pattern;
        let _ = writeln!(svg, "<text x=\"8\" y=\"{middle:.1}\">{name}</text>");
        for (panel, place) in panels.iter().zip(PANELS) {
            bars(&mut svg, panel, place, top, group_of);
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn legend(svg: &mut String) {
    let mut x = 8.0;
    for policy in Policy::ALL {
        let (colour, name) = (colour(policy), policy.name());
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"12\" width=\"12\" height=\"12\" fill=\"{colour}\"/><text x=\"{:.1}\" y=\"22\">{name}</text>",
            x + 18.0
        );
        x += 40.0 + 7.0 * name.len() as f64;
    }
    let _ = writeln!(
        svg,
        "<line x1=\"{x:.1}\" y1=\"11\" x2=\"{x:.1}\" y2=\"25\" stroke=\"{INK}\" stroke-width=\"2\"/>\
         <text x=\"{:.1}\" y=\"22\">no schedule can be below</text>",
        x + 8.0
    );
}

fn axis(svg: &mut String, panel: &Panel, (left, length): (f64, f64), bottom: f64) {
    let _ = writeln!(
        svg,
        "<text x=\"{left}\" y=\"48\" font-weight=\"bold\">{}</text>",
        panel.title
    );
    for step in 0..=panel.steps {
        let part = step as f64 / panel.steps as f64;
        let x = left + length * part;
        let label = (panel.label)(panel.most * part);
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" y1=\"{:.1}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\" stroke=\"{INK}\" stroke-opacity=\"0.25\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
            TOP - 8.0,
            bottom + 16.0
        );
    }
}

fn bars(
    svg: &mut String,
    panel: &Panel,
    (left, length): (f64, f64),
    top: f64,
    measured: &[Measured],
) {
    let long = |value: f64| (value / panel.most).min(1.0) * length;
    for (number, one) in measured.iter().enumerate() {
        let y = top + BAR * number as f64;
        // What is nothing at all is seen to be a bar all the same.
        let long = long((panel.value)(one)).max(1.0);
        let _ = writeln!(
            svg,
            "<rect x=\"{left}\" y=\"{y:.1}\" width=\"{long:.1}\" height=\"{:.1}\" fill=\"{}\"/>",
            BAR - 1.5,
            colour(one.policy)
        );
    }
    let bound = measured.first().and_then(panel.bound);
    if let Some(bound) = bound.filter(|bound| *bound > 0.0) {
        let x = left + long(bound);
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" y1=\"{:.1}\" x2=\"{x:.1}\" y2=\"{:.1}\" stroke=\"{INK}\" stroke-width=\"2\"/>",
            top - 3.0,
            top + BAR * measured.len() as f64 + 1.5
        );
    }
}

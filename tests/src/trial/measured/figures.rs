//! Figures, their bounds, and the table of several runs: what is judged is the median, and what must never happen is
//! judged in each run.

use std::fmt;

/// What a figure must be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// It is told and not judged.
    None,
    /// The median of the runs is at most this.
    AtMost(f64),
    /// The median of the runs is at least this.
    AtLeast(f64),
    /// It is at most this in every run.
    Never(f64),
}

/// One figure of one run.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// What it is, with its unit.
    pub name: String,
    /// Its value; not a number where it could not be measured, which keeps no bound.
    pub value: f64,
    /// What it must be. A bound that depends on the run may differ from run to run.
    pub bound: Bound,
}

impl Figure {
    /// A figure that is only told.
    pub fn told(name: impl Into<String>, value: f64) -> Figure {
        Figure {
            name: name.into(),
            value,
            bound: Bound::None,
        }
    }

    /// A figure whose median is at most `most`.
    pub fn at_most(name: impl Into<String>, value: f64, most: f64) -> Figure {
        Figure {
            bound: Bound::AtMost(most),
            ..Figure::told(name, value)
        }
    }

    /// A figure whose median is at least `least`.
    pub fn at_least(name: impl Into<String>, value: f64, least: f64) -> Figure {
        Figure {
            bound: Bound::AtLeast(least),
            ..Figure::told(name, value)
        }
    }

    /// A figure that is at most `most` in every run.
    pub fn never_over(name: impl Into<String>, value: f64, most: f64) -> Figure {
        Figure {
            bound: Bound::Never(most),
            ..Figure::told(name, value)
        }
    }
}

/// One run: its figures, and the promises that it broke whatever the figures say.
#[derive(Debug, Clone, Default)]
pub struct Run {
    /// In the order of the table.
    pub figures: Vec<Figure>,
    /// In words.
    pub broken: Vec<String>,
}

/// The runs of one trial, one figure a line.
#[derive(Debug, Clone, Default)]
pub struct Table {
    runs: Vec<Run>,
}

/// One line of the table.
#[derive(Debug, PartialEq)]
struct Line<'t> {
    name: &'t str,
    values: Vec<f64>,
    median: f64,
    bound: Bound,
    kept: Option<bool>,
}

impl Table {
    /// Adds a run.
    pub fn add(&mut self, run: Run) {
        self.runs.push(run);
    }

    /// Whether there was a run, no run broke a promise, and every bound was kept.
    #[must_use]
    pub fn kept(&self) -> bool {
        !self.runs.is_empty()
            && self.runs.iter().all(|run| run.broken.is_empty())
            && self.lines().iter().all(|line| line.kept != Some(false))
    }

    fn lines(&self) -> Vec<Line<'_>> {
        let mut names: Vec<&str> = Vec::new();
        for figure in self.runs.iter().flat_map(|run| &run.figures) {
            if !names.contains(&figure.name.as_str()) {
                names.push(&figure.name);
            }
        }
        names.into_iter().map(|name| self.line(name)).collect()
    }

    fn line<'t>(&'t self, name: &'t str) -> Line<'t> {
        let figures = || {
            let all = self.runs.iter().flat_map(|run| &run.figures);
            all.filter(move |figure| figure.name == name)
        };
        let values: Vec<f64> = figures().map(|figure| figure.value).collect();
        let of_bounds =
            |of: fn(Bound) -> Option<f64>| median(figures().filter_map(|figure| of(figure.bound)));
        let middle = median(values.iter().copied());
        let first = figures().next().map_or(Bound::None, |figure| figure.bound);
        let (bound, kept) = match first {
            Bound::None => (Bound::None, None),
            Bound::AtMost(_) => {
                let most = of_bounds(|bound| match bound {
                    Bound::AtMost(most) => Some(most),
                    _ => None,
                });
                (Bound::AtMost(most), Some(middle <= most))
            }
            Bound::AtLeast(_) => {
                let least = of_bounds(|bound| match bound {
                    Bound::AtLeast(least) => Some(least),
                    _ => None,
                });
                (Bound::AtLeast(least), Some(middle >= least))
            }
            Bound::Never(most) => {
                let all = values.iter().all(|value| *value <= most);
                (Bound::Never(most), Some(all))
            }
        };
        Line {
            name,
            median: middle,
            bound,
            // A run that did not come to its figure keeps no bound.
            kept: kept.map(|kept| kept && values.len() == self.runs.len()),
            values,
        }
    }
}

/// The middle of them; of an even number the mean of the two in the middle. Not a number if one is none.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    if sorted.is_empty() || sorted.iter().any(|value| value.is_nan()) {
        return f64::NAN;
    }
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[half]
    } else {
        f64::midpoint(sorted[half - 1], sorted[half])
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bound::None => Ok(()),
            Bound::AtMost(most) => write!(f, "≤ {}", short(*most)),
            Bound::AtLeast(least) => write!(f, "≥ {}", short(*least)),
            Bound::Never(most) => write!(f, "never over {}", short(*most)),
        }
    }
}

/// With as many decimals as say something.
fn short(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 100.0 || size.fract() == 0.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 0.1 => 2,
        _ => 4,
    };
    format!("{value:.decimals$}")
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.lines();
        let width = lines
            .iter()
            .map(|line| line.name.chars().count())
            .max()
            .unwrap_or(0);
        writeln!(
            f,
            "{:<width$}  {:>10}  {:<16} {:<7} each run",
            "", "median", "bound", ""
        )?;
        for line in &lines {
            let verdict = match line.kept {
                None => "",
                Some(true) => "kept",
                Some(false) => "MISSED",
            };
            let values: Vec<String> = line.values.iter().map(|value| short(*value)).collect();
            writeln!(
                f,
                "{:<width$}  {:>10}  {:<16} {verdict:<7} {}",
                line.name,
                short(line.median),
                line.bound.to_string(),
                values.join(" ")
            )?;
        }
        for (index, run) in self.runs.iter().enumerate() {
            for broken in &run.broken {
                writeln!(f, "run {}: BROKEN: {broken}", index + 1)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(runs: &[Figure]) -> Table {
        let mut table = Table::default();
        for figure in runs {
            table.add(Run {
                figures: vec![figure.clone()],
                broken: Vec::new(),
            });
        }
        table
    }

    /// Holds: a bound on the median forgives a run and not the middle one, in either direction; what must never happen
    /// forgives none; and what could not be measured keeps no bound.
    #[test]
    fn bounds_can_be_missed() {
        let at_most = |values: &[f64]| {
            let runs: Vec<Figure> = values
                .iter()
                .map(|value| Figure::at_most("a", *value, 110.0))
                .collect();
            table(&runs).kept()
        };
        assert!(at_most(&[110.0]) && at_most(&[100.0, 500.0, 109.0]));
        assert!(!at_most(&[110.1]) && !at_most(&[100.0, 500.0, 111.0]));
        assert!(!at_most(&[f64::NAN]) && !at_most(&[1.0, f64::NAN, 2.0]));
        let at_least = |values: &[f64]| {
            let runs: Vec<Figure> = values
                .iter()
                .map(|value| Figure::at_least("a", *value, 150.0))
                .collect();
            table(&runs).kept()
        };
        assert!(at_least(&[150.0, 10.0, 160.0]) && !at_least(&[149.0]));
        let never = |values: &[f64]| {
            let runs: Vec<Figure> = values
                .iter()
                .map(|value| Figure::never_over("a", *value, 10.0))
                .collect();
            table(&runs).kept()
        };
        assert!(never(&[10.0, 9.0]) && !never(&[1.0, 1.0, 11.0]));
        assert!(table(&[Figure::told("a", f64::NAN)]).kept());
    }

    /// Holds: a bound that differs from run to run is its median; a run without the figure, a broken promise and no run
    /// at all are not kept.
    #[test]
    fn what_is_missing_is_missed() {
        let runs = [
            Figure::at_most("a", 120.0, 110.0),
            Figure::at_most("a", 120.0, 130.0),
            Figure::at_most("a", 120.0, 125.0),
        ];
        assert!(table(&runs).kept());
        let mut partly = table(&runs);
        partly.add(Run::default());
        assert!(!partly.kept());
        let mut broken = table(&runs);
        broken.runs[1].broken.push("a promise".to_owned());
        assert!(!broken.kept() && broken.to_string().contains("run 2: BROKEN: a promise"));
        assert!(!Table::default().kept());
    }

    #[test]
    fn the_table_says_each_run_and_the_verdict() {
        let text = table(&[
            Figure::at_most("age, ms", 105.0, 110.0),
            Figure::at_most("age, ms", 140.5, 110.0),
            Figure::at_most("age, ms", 104.25, 110.0),
        ])
        .to_string();
        let line = text.lines().nth(1).unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(
            words,
            ["age,", "ms", "105", "≤", "110", "kept", "105", "140", "104"]
        );
    }

    #[test]
    fn medians() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
        assert!(median(std::iter::empty()).is_nan());
    }
}

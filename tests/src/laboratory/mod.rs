//! Schedules side by side, against bounds that nothing can beat, in simulated time.
//!
//! `cargo run -p rtm-tests --bin laboratory` prints the table, and writes it with its picture into the documentation of
//! [`rtm_source::Schedule`].

mod bounds;
mod pattern;
mod picture;
mod policy;
mod table;
mod world;

use std::time::Duration;

use pattern::{MEASURED_FROM, Pattern, SECONDS};
pub use policy::Policy;
use world::{Conditions, Run};

/// So many runs of each.
pub const SEEDS: u64 = 5;

/// The documentation's files, relative to the workspace: the table and the picture.
pub const FILES: [&str; 2] = [
    "crates/rtm-source/doc/policies.md",
    "crates/rtm-source/doc/policies.svg",
];

/// A round trip within a continent, in milliseconds.
const ROUND_TRIP: (u64, u64) = (30, 50);

/// One policy against one pattern.
#[derive(Debug, Clone)]
pub struct Measured {
    /// The pattern.
    pub pattern: &'static str,
    /// The policy.
    pub policy: Policy,
    /// In seconds, the median of the seeds.
    pub mean_age: f64,
    /// The same.
    pub p99_age: f64,
    /// No policy has a lower mean age; there if the rates are steady.
    pub least_age: Option<f64>,
    /// Arrived, the mean of the seeds.
    pub arrived: f64,
    /// Overwritten, the mean of the seeds.
    pub lost: f64,
    /// With the worst seed.
    pub most_lost: usize,
    /// No policy loses fewer, the mean of the seeds.
    pub least_lost: f64,
}

impl Measured {
    /// What was lost beyond the least, of all that arrived.
    #[must_use]
    pub fn regret(&self) -> f64 {
        (self.lost - self.least_lost) / self.arrived
    }
}

/// Everything that the documentation shows.
#[must_use]
pub fn measure() -> Vec<Measured> {
    let seeds: Vec<Vec<Pattern>> = (0..SEEDS).map(pattern::all).collect();
    let patterns = 0..seeds[0].len();
    patterns
        .flat_map(|number| {
            let patterns: Vec<&Pattern> = seeds.iter().map(|all| &all[number]).collect();
            measure_pattern(&patterns)
        })
        .collect()
}

/// The files of the documentation, in the order of [`FILES`].
#[must_use]
pub fn files(measured: &[Measured]) -> [String; 2] {
    [table::markdown(measured), picture::svg(measured)]
}

/// The table for a terminal.
#[must_use]
pub fn table(measured: &[Measured]) -> String {
    table::text(measured)
}

/// One pattern, as it is with each seed.
fn measure_pattern(patterns: &[&Pattern]) -> Vec<Measured> {
    let millis = Duration::from_millis;
    let mut all: Vec<Vec<Run>> = vec![Vec::new(); Policy::ALL.len()];
    let (mut arrived, mut least_lost) = (0, 0);
    let mut rates = Vec::new();
    for (seed, pattern) in (0..).zip(patterns) {
        let mut random = fastrand::Rng::with_seed(seed);
        let arrivals: Vec<Vec<Duration>> = (pattern.rings.iter())
            .map(|rates| pattern::arrivals(rates, SECONDS, &mut random))
            .collect();
        rates = arrivals
            .iter()
            .map(|ring| ring.len() as f64 / SECONDS)
            .collect();
        arrived += arrivals.iter().map(Vec::len).sum::<usize>();
        least_lost += bounds::lost(&arrivals);
        let conditions = Conditions {
            lasting: Duration::from_secs_f64(SECONDS),
            measured_from: Duration::from_secs_f64(MEASURED_FROM),
            round_trip: (millis(ROUND_TRIP.0), millis(ROUND_TRIP.1)),
            seed,
        };
        for (policy, runs) in Policy::ALL.iter().zip(&mut all) {
            let usual = millis(ROUND_TRIP.0 + ROUND_TRIP.1) / 2;
            let mut scheduler = policy.start(&rates, usual, seed);
            runs.push(world::run(&mut scheduler, &arrivals, conditions));
        }
    }
    let seeds = patterns.len() as f64;
    let steady = patterns.iter().all(|pattern| pattern.steady);
    (Policy::ALL.into_iter().zip(all))
        .map(|(policy, mut runs)| Measured {
            pattern: patterns[0].name,
            policy,
            mean_age: median(runs.iter().map(Run::mean_age)),
            p99_age: median(runs.iter_mut().map(|run| run.age(0.99))),
            least_age: steady.then(|| bounds::mean_age(&rates)),
            arrived: arrived as f64 / seeds,
            lost: runs.iter().map(Run::all_lost).sum::<usize>() as f64 / seeds,
            most_lost: runs.iter().map(Run::all_lost).max().unwrap_or_default(),
            least_lost: least_lost as f64 / seeds,
        })
        .collect()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

impl Run {
    /// In seconds.
    fn mean_age(&self) -> f64 {
        let sum: f64 = self.ages.iter().map(Duration::as_secs_f64).sum();
        sum / self.ages.len().max(1) as f64
    }

    /// A quantile, in seconds.
    fn age(&mut self, quantile: f64) -> f64 {
        if self.ages.is_empty() {
            return 0.0;
        }
        let rank = ((self.ages.len() - 1) as f64 * quantile) as usize;
        self.ages.select_nth_unstable(rank).1.as_secs_f64()
    }

    /// Of all rings.
    fn all_lost(&self) -> usize {
        self.lost.iter().sum()
    }
}

#[cfg(test)]
mod tests;

//! When events arrive: rates that change, and events that come independently at them.

use std::time::Duration;

/// Rates of rings over time.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    /// A few words.
    pub(super) name: &'static str,
    /// What comes to each ring.
    pub(super) rings: Vec<Rates>,
    /// Whether the rates never change, so that there is a bound for the mean age.
    pub(super) steady: bool,
}

/// The rate of one ring over time: steps of a moment, in seconds, and the events per second from then on.
pub(super) type Rates = Vec<(f64, f64)>;

/// How long a run is, in seconds.
pub(super) const SECONDS: f64 = 120.0;

/// What is measured comes after the start, when the schedules that learn have learnt.
pub(super) const MEASURED_FROM: f64 = 20.0;

/// When a storm begins, in seconds, give or take a second by the seed.
const STORM_AT: f64 = 60.0;

/// Rings, where nothing else is said.
const RINGS: usize = 8;

/// Those of the documentation. `seed` shifts the storms, so that polls meet them in no fixed phase.
#[must_use]
pub(super) fn all(seed: u64) -> Vec<Pattern> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut storm = |name, rate: f64, lasting: f64| {
        let at = STORM_AT + random.f64();
        let mut rings = vec![vec![(0.0, 50.0)]; RINGS];
        rings[2] = vec![(0.0, 50.0), (at, rate), (at + lasting, 50.0)];
        Pattern {
            name,
            rings,
            steady: false,
        }
    };
    let steady = |name, rates: Vec<f64>| Pattern {
        name,
        rings: rates.into_iter().map(|rate| vec![(0.0, rate)]).collect(),
        steady: true,
    };
    let hot = |hot: f64, cold: f64| {
        let mut rates = vec![cold; RINGS];
        rates[0] = hot;
        rates
    };
    let on_off = (0..RINGS).map(|ring| {
        let from = ring as f64 * 2.5;
        let cycles = (0..6).flat_map(|cycle| {
            let on = from + f64::from(cycle) * 20.0;
            [(on, 400.0), (on + 5.0, 0.0)]
        });
        std::iter::once((0.0, 0.0)).chain(cycles).collect()
    });
    let over = |ring| match ring {
        0 | 3 => vec![(0.0, 50.0), (STORM_AT, 7_500.0), (STORM_AT + 20.0, 50.0)],
        _ => vec![(0.0, 50.0)],
    };
    vec![
        steady("steady, 50/s each", vec![50.0; RINGS]),
        steady(
            "Zipf, 400/s in all",
            (1..=RINGS).map(|rank| 147.2 / rank as f64).collect(),
        ),
        steady("100:1, 400/s and 4/s", hot(400.0, 4.0)),
        steady("one hot ring, 3,000/s and 50/s", hot(3_000.0, 50.0)),
        Pattern {
            name: "on 5 s at 400/s, off 15 s",
            rings: on_off.collect(),
            steady: false,
        },
        storm("storm of 10,000 in 5 s", 2_000.0, 5.0),
        storm("storm of 20,000 in 5 s", 4_000.0, 5.0),
        storm("storm of 50,000 in 30 s", 50_000.0 / 30.0, 30.0),
        Pattern {
            name: "two rings at 7,500/s for 20 s",
            rings: (0..RINGS).map(over).collect(),
            steady: false,
        },
    ]
}

/// When the events of one ring arrive, the earliest first: a Poisson process.
#[must_use]
pub(super) fn arrivals(rates: &Rates, seconds: f64, random: &mut fastrand::Rng) -> Vec<Duration> {
    let mut arrivals = Vec::new();
    let ends = rates.iter().skip(1).map(|(at, _)| *at).chain([seconds]);
    for (&(from, rate), until) in rates.iter().zip(ends) {
        let until = until.min(seconds);
        // 1 - f64() is never zero, so no gap is infinite unless the rate is zero.
        let mut gap = || -(1.0 - random.f64()).ln() / rate;
        let mut at = from + gap();
        while at < until {
            arrivals.push(Duration::from_micros((at * 1e6) as u64));
            at += gap();
        }
    }
    arrivals
}

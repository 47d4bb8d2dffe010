//! What the documentation shows is what is measured, and the shipped schedule keeps its promises against random
//! patterns: hundreds, or as many as `PROPTEST_CASES` says.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use proptest::prelude::*;
use proptest::strategy::ValueTree;

use super::*;

/// No ring waits longer than twice the longest interval that the schedule may give it while others drain: 5 s, or four
/// times an even share.
fn longest_gap(rings: usize, round_trip: Duration) -> Duration {
    let even = (world::SLOT_RESTS + round_trip) * rings as u32 / 10;
    2 * Duration::from_secs(5).max(4 * even) + round_trip
}

/// Holds: the table and the picture of the documentation are what the command makes, and what they are there to show:
/// a storm of 10,000 in 5 s loses nothing, one of 20,000 less than a tenth, and with rings at 100:1 events are less than
/// half as old as with even shares.
#[test]
fn the_documentation_shows_what_is_measured() {
    let measured = measure();
    for (file, text) in FILES.iter().zip(files(&measured)) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
        let committed = std::fs::read_to_string(path).unwrap();
        assert!(
            committed == text,
            "{file} is not what `cargo run -p rtm-tests --bin laboratory` makes:\n{}",
            table(&measured)
        );
    }
    let find = |pattern: &str, policy| {
        let mut found = measured.iter();
        found
            .find(|one| one.pattern.starts_with(pattern) && one.policy == policy)
            .unwrap()
    };
    let ours = |pattern| find(pattern, Policy::Shipped(1));
    assert_eq!(ours("storm of 10,000").most_lost, 0);
    assert!(ours("storm of 20,000").regret() < 0.1);
    assert_eq!(ours("storm of 50,000").most_lost, 0);
    let even = find("100:1", Policy::Even).mean_age;
    assert!(ours("100:1").mean_age < 0.5 * even);
    for one in measured.iter().filter(|one| one.policy != Policy::Even) {
        let even = find(one.pattern, Policy::Even);
        if matches!(one.policy, Policy::Shipped(_)) {
            assert!(one.lost <= even.lost, "{one:?}");
            assert!(one.mean_age < even.mean_age * 1.01, "{one:?}");
        }
        let bound = one.least_age.unwrap_or_default();
        assert!(
            one.mean_age >= bound && one.lost >= one.least_lost,
            "{one:?}"
        );
    }
}

/// Holds: the bounds are those of the papers, by hand.
#[test]
fn bounds_by_hand() {
    assert!((bounds::mean_age(&[7.0; 4]) - 0.2).abs() < 1e-9, "k/20");
    let skewed = bounds::mean_age(&[100.0, 1.0]);
    assert!((skewed - 121.0 / 2_020.0).abs() < 1e-9, "{skewed}");
    let [free, bound] = [0.0, 4.0].map(|least| mean_age_above(&[100.0, 1.0], 10.0, least));
    assert!(
        (free - skewed).abs() < 1e-6 && (bound - 0.5 * (100.0 / 6.0 + 0.25) / 101.0).abs() < 1e-6
    );
    // 50,000 at once into two rings, of which one holds 2,000 and ten pages are fetched in the burst.
    let at_once = vec![Duration::from_secs(1); 50_000];
    assert_eq!(bounds::lost(&[at_once.clone(), Vec::new()]), 38_000);
    // The same over five seconds: 50 more pages.
    let spread: Vec<Duration> = (0..100_000)
        .map(|i| Duration::from_micros(i * 50))
        .collect();
    let lost = bounds::lost(&[spread, Vec::new()]);
    assert!((37_990..38_010).contains(&lost), "{lost}");
    assert_eq!(bounds::lost(&[at_once[..12_000].to_vec()]), 0);
}

/// Rings, each with a rate and perhaps a storm.
#[derive(Debug, Clone)]
struct Scenario {
    rates: Vec<f64>,
    /// Of which ring, when, how many in a second, for how long.
    storms: Vec<(usize, f64, f64, f64)>,
    round_trip: (u64, u64),
    in_flight_per_ring: usize,
    seed: u64,
}

const LASTING: f64 = 30.0;

/// With so many storms at most, so many requests in flight for each ring, and round trips of twice `slow_ms` at most.
fn scenario(storms: usize, most_in_flight: usize, slow_ms: u64) -> impl Strategy<Value = Scenario> {
    // Rates from one in ten seconds to 300 a second, by magnitude.
    let rate = (-1.0..2.5f64).prop_map(|magnitude| 10.0_f64.powf(magnitude));
    let rates = prop::collection::vec(rate, 1..=16);
    let storm = (0..16usize, 5.0..25.0f64, 500.0..8_000.0f64, 0.5..8.0f64);
    let storms = prop::collection::vec(storm, 0..=storms);
    let round_trip = (2..slow_ms, 0..slow_ms);
    let rest = (round_trip, 1..=most_in_flight, any::<u64>());
    (rates, storms, rest).prop_map(|(rates, storms, (round_trip, in_flight_per_ring, seed))| {
        Scenario {
            rates,
            storms,
            round_trip: (round_trip.0, round_trip.0 + round_trip.1),
            in_flight_per_ring,
            seed,
        }
    })
}

impl Scenario {
    fn arrivals(&self) -> Vec<Vec<Duration>> {
        let mut random = fastrand::Rng::with_seed(self.seed);
        let mut rings: Vec<Vec<Duration>> = (self.rates.iter())
            .map(|rate| pattern::arrivals(&vec![(0.0, *rate)], LASTING, &mut random))
            .collect();
        for (ring, at, rate, lasting) in &self.storms {
            let storm = vec![(*at, *rate), (at + lasting, 0.0)];
            let ring = ring % rings.len();
            rings[ring].extend(pattern::arrivals(&storm, LASTING, &mut random));
            rings[ring].sort_unstable();
        }
        rings
    }

    fn run(&self, policy: Policy, arrivals: &[Vec<Duration>]) -> Run {
        let millis = Duration::from_millis;
        let usual = millis(self.round_trip.0 + self.round_trip.1) / 2;
        let mut scheduler = policy.start(&self.rates, usual, self.seed);
        let conditions = Conditions {
            lasting: Duration::from_secs_f64(LASTING),
            measured_from: Duration::from_secs_f64(LASTING / 3.0),
            round_trip: (millis(self.round_trip.0), millis(self.round_trip.1)),
            seed: self.seed,
        };
        world::run(&mut scheduler, arrivals, conditions)
    }
}

/// So many patterns, or as many as `PROPTEST_CASES` says.
fn cases(usually: u32) -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(usually),
    }
}

proptest! {
    #![proptest_config(cases(300))]

    /// Holds, whatever arrives and however long answers take: no ring starves, the far end never sees more than ten
    /// requests in a second, and no ring has more requests in flight than it ever may.
    #[test]
    fn nobody_starves_and_the_limit_holds(scenario in scenario(3, 4, 150)) {
        let arrivals = scenario.arrivals();
        let run = scenario.run(Policy::Shipped(scenario.in_flight_per_ring), &arrivals);
        prop_assert!(run.most_in_a_second <= world::SLOTS, "{}", run.most_in_a_second);
        let longest = longest_gap(arrivals.len(), Duration::from_millis(scenario.round_trip.1));
        for (ring, gap) in run.longest_gap.iter().enumerate() {
            prop_assert!(*gap <= longest, "ring {ring} waits {gap:?} of {longest:?}");
        }
        let most = run.most_in_flight.iter().max().copied().unwrap_or_default();
        prop_assert!(most <= scenario.in_flight_per_ring, "{most}");
    }
}

/// Holds: over random storms the shipped schedule loses at most a third of what even shares lose, beyond what nothing can
/// save, and in no pattern a tenth of all events more than even shares do.
#[test]
fn regret_over_random_storms() {
    let (mut ours, mut even, mut least, mut worst) = (0, 0, 0, (f64::NEG_INFINITY, None));
    let mut arrived = 0;
    check(&cases(150), &scenario(3, 1, 100), |scenario| {
        let arrivals = scenario.arrivals();
        let all: usize = arrivals.iter().map(Vec::len).sum();
        let bound = bounds::lost(&arrivals);
        let lost = scenario.run(Policy::Shipped(1), &arrivals).all_lost();
        let lost_evenly = scenario.run(Policy::Even, &arrivals).all_lost();
        prop_assert!(
            lost >= bound && lost_evenly >= bound,
            "the bound is none: {}",
            bound
        );
        let more = (lost as f64 - lost_evenly as f64) / all as f64;
        if more > worst.0 {
            worst = (more, Some(scenario));
        }
        (ours, even, least, arrived) = (
            ours + lost,
            even + lost_evenly,
            least + bound,
            arrived + all,
        );
        Ok(())
    });
    println!(
        "of {arrived}: {ours} lost, {even} with even shares, {least} at least; worst: {worst:?}"
    );
    assert!(ours - least < (even - least) / 3);
    assert!(worst.0 < 0.1);
}

/// Holds: two rings of one rate are polled evenly, whatever chance does to their counts: half of the events are read
/// within 100 ms and nearly all within 200, plus the round trip.
#[test]
fn two_even_rings_stay_even() {
    let scenario = Scenario {
        rates: vec![1_000.0; 2],
        storms: Vec::new(),
        round_trip: (4, 10),
        in_flight_per_ring: 1,
        seed: 5,
    };
    let mut run = scenario.run(Policy::Shipped(1), &scenario.arrivals());
    let [median, p99] = [0.5, 0.99].map(|quantile| run.age(quantile));
    println!("{median} s, {p99} s");
    assert!(median < 0.103 && p99 < 0.206, "{median}, {p99}");
}

/// Holds: a ring that overflows whatever is done takes nothing from the others that they need: rings that come close to
/// overflowing themselves lose nothing, and the hot one gets what is left.
#[test]
fn a_storm_costs_the_others_nothing() {
    let scenario = Scenario {
        rates: vec![700.0, 400.0, 50.0, 50.0, 5.0, 5.0, 0.5, 0.5],
        storms: vec![(7, 10.0, 12_000.0, 15.0)],
        round_trip: (20, 40),
        in_flight_per_ring: 1,
        seed: 1,
    };
    let arrivals = scenario.arrivals();
    let run = scenario.run(Policy::Shipped(1), &arrivals);
    assert_eq!(run.lost[..7], [0; 7], "{:?}", run.lost);
    let fetched = (arrivals[7].len() - run.lost[7]) as f64 / 15.0;
    println!("{fetched} events per second of the hot ring");
    // The others need 1.1 polls per second by their rates, and the rest of the ten is for the storm.
    assert!(fetched > 6_500.0, "{fetched}");
}

/// The lowest mean age if each ring gets `least` polls per second at the very least, and all together `budget`.
fn mean_age_above(rates: &[f64], budget: f64, least: f64) -> f64 {
    let shares = |per_root: f64| {
        rates
            .iter()
            .map(move |rate| (rate.sqrt() * per_root).max(least))
    };
    let (mut low, mut high) = (0.0, 1e6);
    for _ in 0..200 {
        let middle = (low + high) / 2.0;
        if shares(middle).sum::<f64>() > budget {
            high = middle;
        } else {
            low = middle;
        }
    }
    let aged = rates
        .iter()
        .zip(shares(low))
        .map(|(rate, share)| rate / share);
    aged.sum::<f64>() / 2.0 / rates.iter().sum::<f64>()
}

/// Holds: at steady rates the mean age is close to the best that is possible with every ring's longest interval, and not above that of even shares, but for chance. As long
/// as the round trip is shorter than the time between two slots: a ring has one request in flight.
#[test]
fn mean_age_over_random_rates() {
    let (mut ratios, mut worst) = (Vec::new(), (0.0, None));
    let mut against_even = Vec::new();
    check(&cases(150), &scenario(0, 1, 45), |scenario| {
        let arrivals = scenario.arrivals();
        if arrivals.iter().map(Vec::len).sum::<usize>() < 1_000 {
            return Ok(());
        }
        let slower = 1.0 + (scenario.round_trip.0 + scenario.round_trip.1) as f64 / 2_000.0;
        let budget = world::SLOTS as f64 / slower;
        let even = scenario.rates.len() as f64 / budget;
        let bound = mean_age_above(&scenario.rates, budget, 1.0 / (2.0 * even).max(1.0));
        let age = scenario.run(Policy::Shipped(1), &arrivals).mean_age();
        let evenly = scenario.run(Policy::Even, &arrivals).mean_age();
        ratios.push(age / bound);
        against_even.push(age / evenly);
        if age / bound > worst.0 {
            worst = (age / bound, Some(scenario));
        }
        Ok(())
    });
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let most = against_even.iter().copied().fold(0.0, f64::max);
    println!(
        "{} times the bound, {} of even, {most} at most; worst: {worst:?}",
        mean(&ratios),
        mean(&against_even)
    );
    assert!(mean(&ratios) < 1.1);
    assert!(worst.0 < 1.35);
    assert!(mean(&against_even) < 0.8 && most < 1.1);
}

/// Runs `test` for so many scenarios, and panics with the one that fails.
fn check(
    config: &ProptestConfig,
    scenarios: &impl Strategy<Value = Scenario>,
    mut test: impl FnMut(Scenario) -> Result<(), TestCaseError>,
) {
    let mut runner = proptest::test_runner::TestRunner::new_with_rng(
        config.clone(),
        proptest::test_runner::TestRng::deterministic_rng(config.rng_algorithm),
    );
    for _ in 0..config.cases {
        let scenario = scenarios.new_tree(&mut runner).unwrap().current();
        if let Err(error) = test(scenario.clone()) {
            panic!("{error}: {scenario:?}");
        }
    }
}

//! Eight rings: a storm on one of them, and rings that are not alike.
//!
//! How *regret* is counted. A storm's window Δ is from its first event to its last. Arrivals are the events that all k
//! rings got in Δ, the storm's among them. Lost are the events that rings overwrote from the beginning of Δ until every
//! ring was empty again, so that what the storm costs after its end counts as well. With F requests a second, whatever the
//! policy, at least `arrivals − 1000·(F·Δ + 1) − 2000·k` of them are lost, or none; what is lost beyond that is regret,
//! as a share of the arrivals.
//!
//! How *mean age* is compared. An event's age at the fetch is by the simulator's clock, from its arrival to the deletion
//! of its page. Even shares poll each of k rings every k/F seconds, so that the mean age is half of that, k/20 s: without
//! a round trip, which makes the comparison strict. No shares do better than (Σ√λ)² / (2·F·Σλ).

use std::time::Duration;

use anyhow::Result;
use rtm_sim::{Load, SimStats, Stream};

use super::ages::{self, Ages};
use super::feeder::{Fed, Feeder};
use super::{Figure, Run, conclude, of};
use crate::trial::places::{REGIONS, app_id};
use crate::trial::{Brokers, Rig, Setup};

/// Requests a second.
const F: f64 = 10.0;

/// Rings.
const K: f64 = 8.0;

/// Events a second of each ring that is quiet.
const QUIET: f64 = 50.0;

/// What of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Storm {
    /// 10,000 events in 5 s on one ring: none is lost.
    TenThousand,
    /// 20,000 events in 5 s on one ring: the regret is small.
    TwentyThousand,
    /// One ring has a hundred times what each of the others has: mean age.
    Uneven,
}

impl Storm {
    /// All of it.
    pub const ALL: [Storm; 3] = [Storm::TenThousand, Storm::TwentyThousand, Storm::Uneven];
}

/// Runs one of them, with the quiet load for `time` before it (or all along, where there is no storm).
///
/// # Errors
///
/// When the trial cannot be run.
pub async fn storms(brokers: &mut Brokers, which: Storm, time: Duration) -> Result<Run> {
    match which {
        Storm::TenThousand => Box::pin(storm(brokers, 10_000, time)).await,
        Storm::TwentyThousand => Box::pin(storm(brokers, 20_000, time)).await,
        Storm::Uneven => Box::pin(uneven(brokers, time)).await,
    }
}

async fn eight_rings(brokers: &mut Brokers) -> Result<Rig<'_>> {
    let setup = Setup {
        regions: 4,
        ..Setup::default()
    };
    let mut rig = Box::pin(Rig::start(brokers, &setup)).await?;
    // It is judged here.
    rig.history.may_overwrite = true;
    Ok(rig)
}

fn ring(number: usize, rate: f64) -> Fed {
    Fed {
        app_id: app_id(0),
        region: REGIONS[number / 2].to_owned(),
        stream: Stream::ALL[number % 2],
        rate,
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures")]
async fn storm(brokers: &mut Brokers, events: u64, time: Duration) -> Result<Run> {
    const LASTS: f64 = 5.0;
    let rig = eight_rings(brokers).await?;
    rig.load(&Load {
        events_per_second: QUIET * K,
        ..Load::default()
    })
    .await?;
    tokio::time::sleep(time).await;
    let before = rig.stats().await?;
    let hot = ring(1, events as f64 / LASTS);
    let feeder = Feeder::start(&rig.http, &rig.simulator.url, vec![hot], events);
    let put = feeder.finish(false).await?;
    let after = rig.stats().await?;
    let until = jiff::Timestamp::now().as_millisecond().unsigned_abs();
    // What the storm has left is there to be overwritten until it is read.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let report = Box::pin(rig.finish()).await?;
    let delta = put.took.as_secs_f64();
    let arrivals = generated(&after) - generated(&before);
    let lost = overwritten(&report.stats) - overwritten(&before);
    let share = regret(lost, arrivals, delta) / arrivals;
    let name = |name: &str| of(&format!("{events} in 5 s"), name);
    let (most_lost, regret) = if events > 10_000 {
        (
            Figure::told(name("lost at the rings"), lost),
            Figure::at_most(name("regret, %"), 100.0 * share, 10.0),
        )
    } else {
        (
            Figure::never_over(name("lost at the rings"), lost, 0.0),
            Figure::told(name("regret, %"), 100.0 * share),
        )
    };
    let figures = vec![
        most_lost,
        regret,
        Figure::told(name("window, s"), delta),
        Figure::told(name("arrivals in it"), arrivals),
        Figure::told(
            name("largest gap of a ring up to its end, ms"),
            ages::gaps(&report.ledger, |page| page.deleted_at_ms <= until).at(1.0),
        ),
    ];
    conclude(figures, &report)
}

#[expect(clippy::cast_precision_loss, reason = "figures")]
fn generated(stats: &SimStats) -> f64 {
    stats.rings.iter().map(|ring| ring.generated as f64).sum()
}

#[expect(clippy::cast_precision_loss, reason = "figures")]
fn overwritten(stats: &SimStats) -> f64 {
    stats.rings.iter().map(|ring| ring.overwritten as f64).sum()
}

/// What was lost beyond what had to be.
fn regret(lost: f64, arrivals: f64, delta: f64) -> f64 {
    let must = (arrivals - 1_000.0 * (F * delta + 1.0) - 2_000.0 * K).max(0.0);
    (lost - must).max(0.0)
}

/// One ring of 500 events a second, seven of 5.
async fn uneven(brokers: &mut Brokers, time: Duration) -> Result<Run> {
    let rates: Vec<f64> = (0..8).map(|n| if n == 3 { 500.0 } else { 5.0 }).collect();
    let rig = eight_rings(brokers).await?;
    // Events of the first seconds find a schedule that knows no rates yet.
    let fed = rates.iter().enumerate().map(|(n, rate)| ring(n, *rate));
    let feeder = Feeder::start(&rig.http, &rig.simulator.url, fed.collect(), u64::MAX);
    tokio::time::sleep(LEARNING).await;
    let from = jiff::Timestamp::now().as_millisecond().unsigned_abs();
    tokio::time::sleep(time).await;
    feeder.finish(true).await?;
    let report = Box::pin(rig.finish()).await?;
    let fetched = ages::at_fetch(&report.ledger, |page| page.deleted_at_ms >= from);
    conclude(mean_age(&fetched, &rates), &report)
}

/// How long the schedule has to learn the rates.
const LEARNING: Duration = Duration::from_secs(10);

fn mean_age(fetched: &Ages, rates: &[f64]) -> Vec<Figure> {
    let even = 1_000.0 * K / (2.0 * F);
    let roots: f64 = rates.iter().map(|rate| rate.sqrt()).sum();
    let best = 1_000.0 * roots * roots / (2.0 * F * rates.iter().sum::<f64>());
    let below = 100.0 * (1.0 - fetched.mean() / even);
    let name = |name: &str| of("100:1", name);
    vec![
        Figure::at_least(name("mean age at fetch below even shares, %"), below, 50.0),
        Figure::told(name("mean age at fetch, ms"), fetched.mean()),
        Figure::told(name("of even shares, ms"), even),
        Figure::told(name("of the best shares, ms"), best),
        Figure::told(name("age at fetch p99, ms"), fetched.at(0.99)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trial::measured::Table;

    /// Holds: nothing is regretted that had to be lost, and all that had not.
    #[test]
    fn regret_is_what_need_not_have_been_lost() {
        // 22,000 in 5 s: 51,000 can be fetched, and 16,000 kept.
        assert_eq!(regret(0.0, 22_000.0, 5.0), 0.0);
        assert_eq!(regret(2_200.0, 22_000.0, 5.0), 2_200.0);
        // 100,000 in 5 s: 33,000 must be lost.
        assert_eq!(regret(33_000.0, 100_000.0, 5.0), 0.0);
        assert_eq!(regret(40_000.0, 100_000.0, 5.0), 7_000.0);
    }

    /// Holds: even shares miss the bound on mean age, and the best shares keep it.
    #[test]
    fn even_shares_miss_the_bound() {
        let mut rates = [5.0; 8];
        rates[3] = 500.0;
        let kept = |mean: i64| {
            let mut table = Table::default();
            let fetched: Ages = [mean].into_iter().collect();
            table.add(Run {
                figures: mean_age(&fetched, &rates),
                broken: Vec::new(),
            });
            table.kept()
        };
        assert!(!kept(400), "even shares");
        assert!(!kept(201) && kept(200));
        let best = mean_age(&Ages::default(), &rates)[3].value;
        assert!((best - 135.0).abs() < 1.0 && kept(140), "{best}");
    }
}

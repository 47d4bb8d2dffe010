//! Random trials: a seed decides the load, the faults and their times; what the machine does in between it does not.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;
use fastrand::Rng;
use rtm_sim::{Load, Pattern};

use super::brokers::Brokers;
use super::faults::{Fault, Target};
use super::places::{DiskSetup, Setup};
use super::report::Report;
use super::rig::Rig;

/// How long a request of a random trial may take: stalls are to end within the trial.
const REQUEST_DEADLINE: Duration = Duration::from_secs(3);

/// What a seed leads to.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Whether a pair of faults was asked for.
    pub pairs: bool,
    /// What the trial is made of.
    pub setup: Setup,
    /// What arrives.
    pub load: Load,
    /// What goes wrong, and when after the load has begun.
    pub faults: Vec<Timed>,
}

/// A fault and its time.
#[derive(Debug, Clone)]
pub struct Timed {
    /// What.
    pub fault: Fault,
    /// When it begins.
    pub from: Duration,
    /// When it ends.
    pub to: Duration,
}

impl Plan {
    /// The plan of `seed`. Where `disks` says that none can be mounted, `kill -9` takes the place of a full disk, and
    /// all else is the same.
    #[must_use]
    pub fn draw(seed: u64, pairs: bool, disks: bool) -> Plan {
        let mut rng = Rng::with_seed(seed);
        let regions = rng.usize(1..=3);
        let load = load(&mut rng, regions);
        let mut faults: Vec<Timed> = Vec::new();
        while faults.len() < if pairs { 2 } else { 1 } {
            let mut fault = Fault::draw(&mut rng);
            if fault == Fault::DiskFull && !disks {
                fault = Fault::Killed;
            }
            let new = |known: &Timed| known.fault.target() != fault.target();
            if faults.iter().all(new) {
                let from = Duration::from_millis(rng.u64(700..2_500));
                let to = from + Duration::from_millis(rng.u64(1_200..4_000));
                faults.push(Timed { fault, from, to });
            }
        }
        let has = |target| faults.iter().any(|timed| timed.fault.target() == target);
        let min_free_mib = if rng.bool() { 0 } else { 8 };
        Plan {
            seed,
            pairs,
            setup: Setup {
                seed,
                regions,
                wire: has(Target::Wire),
                disk: has(Target::Disk).then_some(DiskSetup {
                    mib: 96,
                    min_free_mib,
                }),
                request_deadline: REQUEST_DEADLINE,
                ..Setup::default()
            },
            load,
            faults,
        }
    }

    /// Runs it.
    ///
    /// # Errors
    ///
    /// When it cannot be run to its end: a fault cannot be made, or not everything arrives.
    pub async fn run(&self, brokers: &mut Brokers) -> Result<Report> {
        let mut rig = Box::pin(Rig::start(brokers, &self.setup)).await?;
        rig.load(&self.load).await?;
        let began = Instant::now();
        let mut moments: Vec<(Duration, bool, &Fault)> = Vec::new();
        for timed in &self.faults {
            moments.push((timed.from, true, &timed.fault));
            moments.push((timed.to, false, &timed.fault));
        }
        moments.sort_by_key(|(at, ..)| *at);
        let alone = self.faults.len() == 1;
        for (at, begins, fault) in moments {
            tokio::time::sleep_until((began + at).into()).await;
            if begins {
                Box::pin(fault.begin(&mut rig, &self.load, alone)).await?;
            } else {
                Box::pin(fault.end(&mut rig, &self.load)).await?;
            }
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        Box::pin(rig.finish()).await
    }

    /// The command that runs it again.
    #[must_use]
    pub fn command(&self) -> String {
        let pairs = if self.pairs { " --pairs" } else { "" };
        format!(
            "cargo run -p rtm-tests --bin trial -- random --seed {}{pairs}",
            self.seed
        )
    }
}

/// Rates that a ring could hold for some seconds without being read.
fn load(rng: &mut Rng, regions: usize) -> Load {
    let pattern = match rng.u8(..4) {
        0 => Pattern::Storm {
            every_ms: 3_000,
            lasting_ms: 600,
            times: 3.0,
        },
        1 => Pattern::OnOff {
            on_ms: 700,
            off_ms: 300,
        },
        _ => Pattern::Steady,
    };
    let copies = if regions > 1 && rng.bool() { 0.2 } else { 0.0 };
    Load {
        pattern,
        events_per_second: rng.u32(200..=600).into(),
        users: rng.u32(50..5_000),
        channels: rng.u32(5..200),
        copies,
        odd: if rng.u8(..3) == 0 { 0.02 } else { 0.0 },
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed {}: {} region{}, {}/s",
            self.seed,
            self.setup.regions,
            if self.setup.regions == 1 { "" } else { "s" },
            self.load.events_per_second
        )?;
        for timed in &self.faults {
            write!(
                f,
                "; {} from {:.1} to {:.1} s",
                timed.fault,
                timed.from.as_secs_f64(),
                timed.to.as_secs_f64()
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Holds: a seed says all; pairs concern different things; every kind of fault comes up; and a machine without disks
    /// changes nothing else.
    #[test]
    fn plans_are_drawn_from_their_seeds() {
        let mut kinds: Vec<String> = Vec::new();
        for seed in 0..400 {
            let plan = Plan::draw(seed, true, true);
            assert_eq!(plan.to_string(), Plan::draw(seed, true, true).to_string());
            assert_eq!(plan.faults.len(), 2);
            assert_ne!(plan.faults[0].fault.target(), plan.faults[1].fault.target());
            assert!(plan.load.check().is_ok());
            for timed in &plan.faults {
                let name = format!("{:?}", timed.fault);
                kinds.push(name.split(['(', ' ']).next().unwrap_or("").to_owned());
                if let Fault::Source(faults) = &timed.fault {
                    assert!(faults.check().is_ok(), "{faults:?}");
                }
            }
            if plan.setup.disk.is_none() {
                let without = Plan::draw(seed, true, false);
                assert_eq!(plan.to_string(), without.to_string());
            }
        }
        kinds.sort();
        kinds.dedup();
        assert_eq!(kinds.len(), 10, "{kinds:?}");
    }
}

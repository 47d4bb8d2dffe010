//! What a seed makes of a run.

use std::time::Duration;

use fastrand::Rng;
use rtm_sim::{Faults, Load, Pattern};

use super::source::Network;

/// Names of the regions, of which a run has the first few.
const REGIONS: [&str; 3] = ["eu", "us", "ap"];

/// Everything that is decided before a run begins.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Decides all that is not decided here.
    pub seed: u64,
    /// The regions that are polled.
    pub regions: Vec<&'static str>,
    /// What arrives while there is trouble.
    pub load: Load,
    /// How long the trouble lasts.
    pub trouble: Duration,
    /// What the network does meanwhile.
    pub network: Network,
    /// What Agora does meanwhile.
    pub faults: Faults,
    /// Whether copies are dropped.
    pub drops_copies: bool,
    /// Whether the sinks fail, lose answers, are slow and go away.
    pub sinks_fail: bool,
    /// The share of records that the first sink refuses.
    pub refused: f64,
    /// Whether calls to the disk fail, in stretches.
    pub disk_fails: bool,
    /// How often the bridge ends and starts again, and how.
    pub ends: Vec<End>,
    /// How often the wall clock is moved, by up to an hour either way.
    pub clock_jumps: usize,
    /// A record that kills the process whenever it is published to the first sink.
    pub poison: bool,
    /// The last sink may skip what it cannot take when the journal is full.
    pub skips: bool,
    /// The bound on the journal, in bytes.
    pub journal_bytes: u64,
    /// Whether the disk cannot read what it has.
    pub reads: Reads,
    /// How long the disk takes at most for what it is asked together, in milliseconds.
    pub slow_ms: u64,
    /// The size of the journal's segments, in bytes.
    pub segment_bytes: u64,
    /// Records that one call to the sinks may hold, which store them once and only once then.
    pub exact: Option<usize>,
    /// How often, in a step of the trouble, the sinks go back behind what they have confirmed.
    pub goes_back: f64,
    /// What of the journal is kept in memory, in bytes: with 0 everything is read from the disk.
    pub tail_bytes: usize,
}

/// How reading the disk goes, for whichever reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// Well.
    Work,
    /// It fails in stretches.
    FailForATime,
    /// It fails until the process ends, for longer than any patience.
    FailForEver,
}

/// A way in which the bridge ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// `kill -9`: what was written is there.
    Kill,
    /// A power loss: what was not synced may be gone.
    PowerLoss,
    /// SIGTERM.
    Stop,
}

impl Plan {
    /// Reading that fails for ever does so for longer than half a minute; and where the disk is slow, every write is a
    /// segment's last, which frees it as soon as it may.
    fn consistent(mut self) -> Plan {
        if self.slow_ms > 8 {
            self.segment_bytes = 512;
        }
        // What is held is given up for the room of a disk that fails. Of an entry that is published record by record, since
        // one of them crashes the process, only a progress tells which are lost.
        if self.disk_fails || (self.poison && self.exact.is_none()) {
            self.goes_back = 0.0;
        }
        if self.reads == Reads::FailForEver {
            self.trouble += Duration::from_secs(35);
        }
        self
    }

    /// The plan of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Plan {
        let mut rng = Rng::with_seed(seed);
        let some = |rng: &mut Rng, likely: f64, most: f64| {
            if rng.f64() < likely {
                rng.f64() * most
            } else {
                0.0
            }
        };
        let regions = REGIONS[..rng.usize(1..=REGIONS.len())].to_vec();
        let storm = rng.f64() < 0.15;
        let load = Load {
            pattern: if storm {
                Pattern::Storm {
                    every_ms: 6_000,
                    lasting_ms: 2_000,
                    times: 20.0,
                }
            } else {
                Pattern::Steady
            },
            events_per_second: 20.0 + rng.f64() * 80.0,
            users: 50,
            channels: 10,
            copies: if regions.len() > 1 {
                some(&mut rng, 0.6, 0.5)
            } else {
                0.0
            },
            odd: some(&mut rng, 0.3, 0.05),
        };
        let delay = [Duration::ZERO, Duration::from_millis(rng.u64(0..300))];
        let ends = (0..rng.usize(0..4)).map(|_| match rng.u8(0..3) {
            0 => End::Kill,
            1 => End::PowerLoss,
            _ => End::Stop,
        });
        let ends: Vec<End> = ends.collect();
        Plan {
            seed,
            load,
            trouble: Duration::from_millis(rng.u64(6_000..16_000)),
            network: Network {
                delay,
                unconnected: some(&mut rng, 0.3, 0.1),
                reset: some(&mut rng, 0.3, 0.1),
                cut: some(&mut rng, 0.3, 0.1),
                stall: some(&mut rng, 0.1, 0.02),
                silence: some(&mut rng, 0.1, 0.02),
            },
            faults: Faults {
                status: some(&mut rng, 0.3, 0.1),
                cut: some(&mut rng, 0.3, 0.1),
                failed_result: some(&mut rng, 0.2, 0.05),
                closed: some(&mut rng, 0.2, 0.05),
                html: some(&mut rng, 0.2, 0.05),
                delay_ms: [0, rng.u64(0..200)],
                ..Faults::default()
            },
            drops_copies: regions.len() > 1 && rng.bool(),
            regions,
            sinks_fail: rng.f64() < 0.6,
            refused: some(&mut rng, 0.2, 0.05),
            disk_fails: rng.f64() < 0.3,
            ends,
            clock_jumps: if rng.f64() < 0.2 { rng.usize(1..4) } else { 0 },
            poison: rng.f64() < 0.05,
            skips: false,
            journal_bytes: 256 << 20,
            reads: match rng.u8(0..20) {
                0 => Reads::FailForEver,
                1..6 => Reads::FailForATime,
                _ => Reads::Work,
            },
            // Commits come while a slow disk writes, and crashes before they are durable.
            slow_ms: if rng.u8(0..3) == 0 { 200 } else { 8 },
            segment_bytes: if rng.bool() { 64 << 10 } else { 2 << 10 },
            tail_bytes: if rng.bool() { 8 << 20 } else { 0 },
            goes_back: {
                let mut rng = Rng::with_seed(seed ^ 0xbac0);
                some(&mut rng, 0.3, 0.1)
            },
            exact: {
                // Chance of its own, so that a seed still is what it was.
                let mut rng = Rng::with_seed(seed ^ 0xe0_0e);
                let records = 1 << rng.usize(0..10);
                rng.bool().then_some(records)
            },
        }
        .consistent()
    }
}

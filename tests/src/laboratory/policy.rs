//! What is compared: schedules that know the rates and never change their mind, and the one that is shipped.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rtm_source::{Next, Outcome, Region, Ring, Schedule, ScheduleOptions, Stream, Turn};

use super::world::SLOT_RESTS;

/// How polls are shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Each ring gets as many.
    Even,
    /// In proportion to the average rate of the run, which it is told.
    Proportional,
    /// In proportion to its square root.
    SquareRoot,
    /// [`rtm_source::Schedule`], which is told nothing, with so many requests in flight for each ring.
    Shipped(usize),
}

impl Policy {
    /// Those of the documentation.
    pub const ALL: [Policy; 4] = [
        Policy::Even,
        Policy::Proportional,
        Policy::SquareRoot,
        Policy::Shipped(1),
    ];

    /// As in the table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Policy::Even => "even",
            Policy::Proportional => "proportional",
            Policy::SquareRoot => "square root",
            Policy::Shipped(_) => "ours",
        }
    }

    /// Ready to poll, told the average `rates` and the round trip.
    #[must_use]
    pub(super) fn start(self, rates: &[f64], round_trip: Duration, seed: u64) -> Scheduler {
        let shares = |share: fn(f64) -> f64| {
            Scheduler::Fixed(Fixed {
                shares: rates.iter().map(|rate| share(*rate)).collect(),
                polled: vec![None; rates.len()],
                in_flight: vec![false; rates.len()],
                interval: (SLOT_RESTS + round_trip) / 10,
                paced_until: Duration::ZERO,
            })
        };
        match self {
            Policy::Even => shares(|_| 1.0),
            Policy::Proportional => shares(|rate| rate),
            Policy::SquareRoot => shares(f64::sqrt),
            Policy::Shipped(in_flight_per_ring) => {
                let rings = rings(rates.len());
                let options = ScheduleOptions {
                    in_flight_per_ring,
                    ..ScheduleOptions::default()
                };
                Scheduler::Shipped {
                    schedule: Box::new(Schedule::new(rings.clone(), options, seed)),
                    rings,
                    origin: Instant::now(),
                }
            }
        }
    }
}

/// A policy at work. Times are since the start.
pub(super) enum Scheduler {
    /// Told the rates.
    Fixed(Fixed),
    /// The shipped one.
    Shipped {
        /// It.
        schedule: Box<Schedule>,
        /// Its rings, by number.
        rings: Vec<Ring>,
        /// Its time is this plus ours.
        origin: Instant,
    },
}

/// The ring that has waited for the most of its own intervals comes next, at an even pace.
pub(super) struct Fixed {
    shares: Vec<f64>,
    polled: Vec<Option<Duration>>,
    in_flight: Vec<bool>,
    interval: Duration,
    paced_until: Duration,
}

/// What [`Scheduler::observe`] wants back.
pub(super) enum Started {
    /// The ring's number.
    Fixed(usize),
    /// A turn.
    Shipped(Turn),
}

impl Scheduler {
    /// The number of the ring to poll, or when to ask again.
    pub(super) fn next(&mut self, now: Duration) -> Result<usize, Duration> {
        match self {
            Scheduler::Fixed(fixed) => fixed.next(now),
            Scheduler::Shipped {
                schedule,
                rings,
                origin,
            } => match schedule.next(*origin + now) {
                Next::Wait(until) => Err(until - *origin),
                Next::Poll(polled) => Ok(rings
                    .iter()
                    .position(|ring| *ring == polled)
                    .unwrap_or_default()),
            },
        }
    }

    /// A request is sent.
    pub(super) fn started(&mut self, ring: usize, now: Duration) -> Started {
        match self {
            Scheduler::Fixed(fixed) => {
                fixed.polled[ring] = Some(now);
                fixed.in_flight[ring] = true;
                fixed.paced_until =
                    (fixed.paced_until + fixed.interval).max(now + fixed.interval * 9 / 10);
                Started::Fixed(ring)
            }
            Scheduler::Shipped {
                schedule,
                rings,
                origin,
            } => Started::Shipped(schedule.started(&rings[ring], *origin + now)),
        }
    }

    /// It has ended.
    pub(super) fn observe(&mut self, started: Started, now: Duration, outcome: &Outcome) {
        match (self, started) {
            (Scheduler::Fixed(fixed), Started::Fixed(ring)) => fixed.in_flight[ring] = false,
            (
                Scheduler::Shipped {
                    schedule, origin, ..
                },
                Started::Shipped(turn),
            ) => _ = schedule.observe(turn, *origin + now, outcome),
            _ => unreachable!("a scheduler observes what it started"),
        }
    }
}

impl Fixed {
    fn next(&self, now: Duration) -> Result<usize, Duration> {
        if now < self.paced_until {
            return Err(self.paced_until);
        }
        let waited = |ring: usize| {
            let age = |at| now.saturating_sub(at).as_secs_f64() * self.shares[ring];
            self.polled[ring].map_or(f64::INFINITY, age)
        };
        (0..self.shares.len())
            .filter(|ring| !self.in_flight[*ring])
            .reduce(|best, ring| {
                if waited(ring) > waited(best) {
                    ring
                } else {
                    best
                }
            })
            .ok_or(now + self.interval)
    }
}

/// Two for each region.
fn rings(count: usize) -> Vec<Ring> {
    let region = |i: usize| {
        let region = Region::new(&format!("r{}", i / 2), "https://127.0.0.1", false);
        Arc::new(region.unwrap_or_else(|error| unreachable!("{error}")))
    };
    (0..count)
        .map(|i| Ring {
            region: region(i),
            stream: Stream::ALL[i % 2],
        })
        .collect()
}

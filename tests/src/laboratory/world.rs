//! One run in simulated time: rings that keep 2,000 events, a network, the limiter's slots, and a policy.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use rtm_sim::RateWindow;
use rtm_source::{MAX_PAGE_EVENTS, MAX_RING_EVENTS, Outcome};

use super::policy::{Scheduler, Started};

/// Requests per second.
pub(super) const SLOTS: usize = 10;

/// How long the limiter lets a slot rest once its request is answered.
pub(super) const SLOT_RESTS: Duration = Duration::from_millis(1_001);

/// How late a timer is: tokio's rounds up to its next millisecond.
const TIMER_LATE: Duration = Duration::from_micros(500);

/// Where a run takes place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Conditions {
    /// How long it is.
    pub(super) lasting: Duration,
    /// What arrives earlier does not count for the ages.
    pub(super) measured_from: Duration,
    /// A round trip at least and at most; each half of it is somewhere between the halves.
    pub(super) round_trip: (Duration, Duration),
    /// For the network.
    pub(super) seed: u64,
}

/// What came of a run.
#[derive(Debug, Clone, Default)]
pub(super) struct Run {
    /// From its arrival to its read at the far end, of each event that was read, in no order.
    pub(super) ages: Vec<Duration>,
    /// How many were overwritten, of each ring.
    pub(super) lost: Vec<usize>,
    /// The longest time between two reads of each ring, start and end of the run included.
    pub(super) longest_gap: Vec<Duration>,
    /// The most requests that reached the far end in one sliding second.
    pub(super) most_in_a_second: usize,
    /// The most requests in flight at once, of each ring.
    pub(super) most_in_flight: Vec<usize>,
}

/// A ring: the events between the two have arrived, and are neither read nor overwritten.
struct RingModel<'a> {
    arrivals: &'a [Duration],
    oldest: usize,
    newest: usize,
    read_at: Duration,
}

/// What happens at some time, and orders by it alone, then by age.
struct Due<T> {
    at: Duration,
    number: u64,
    what: T,
}

impl<T> PartialEq for Due<T> {
    fn eq(&self, other: &Due<T>) -> bool {
        self.cmp(other).is_eq()
    }
}
impl<T> Eq for Due<T> {}
impl<T> PartialOrd for Due<T> {
    fn partial_cmp(&self, other: &Due<T>) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Due<T> {
    fn cmp(&self, other: &Due<T>) -> std::cmp::Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

enum Event {
    /// A request reaches the far end.
    Read(usize, Started),
    /// Its answer is here.
    Answer(usize, Started, Outcome),
}

/// Runs `scheduler` against `arrivals`.
pub(super) fn run(
    scheduler: &mut Scheduler,
    arrivals: &[Vec<Duration>],
    conditions: Conditions,
) -> Run {
    let mut random = fastrand::Rng::with_seed(conditions.seed);
    let (least, most) = conditions.round_trip;
    let mut half = || {
        let micros = least.as_micros() as u64..=most.as_micros() as u64;
        Duration::from_micros(random.u64(micros) / 2)
    };
    let count = arrivals.len();
    let mut rings: Vec<RingModel> = arrivals.iter().map(|all| RingModel::new(all)).collect();
    let mut run = Run {
        lost: vec![0; count],
        longest_gap: vec![Duration::ZERO; count],
        most_in_flight: vec![0; count],
        ..Run::default()
    };
    let mut in_flight = vec![0; count];
    let mut judge = RateWindow::new(SLOTS, Duration::from_secs(1));
    let mut slots = BinaryHeap::from(vec![Reverse(Duration::ZERO); SLOTS]);
    let mut events: BinaryHeap<Due<Event>> = BinaryHeap::new();
    let (mut now, mut number) = (Duration::ZERO, 0);
    while now < conditions.lasting {
        if let Some(due) = events.pop_if_due(now) {
            let (at, event) = (due.at, due.what);
            number += 1;
            match event {
                Event::Read(ring, started) => {
                    judge.admit(at);
                    let outcome = rings[ring].read(ring, at, conditions.measured_from, &mut run);
                    events.push(Due {
                        at: at + half(),
                        number,
                        what: Event::Answer(ring, started, outcome),
                    });
                }
                Event::Answer(ring, started, outcome) => {
                    in_flight[ring] -= 1;
                    slots.push(Reverse(at + SLOT_RESTS));
                    scheduler.observe(started, at, &outcome);
                }
            }
            continue;
        }
        // A poll takes its slot first, as the bridge does, and then asks whose turn it is.
        let wake = match slots.peek().copied() {
            None => conditions.lasting,
            Some(Reverse(free)) if free > now => free + TIMER_LATE,
            Some(_) => match scheduler.next(now) {
                Err(until) => until.max(now) + TIMER_LATE,
                Ok(ring) => {
                    slots.pop();
                    in_flight[ring] += 1;
                    run.most_in_flight[ring] = run.most_in_flight[ring].max(in_flight[ring]);
                    number += 1;
                    events.push(Due {
                        at: now + half(),
                        number,
                        what: Event::Read(ring, scheduler.started(ring, now)),
                    });
                    continue;
                }
            },
        };
        now = events.peek().map_or(wake, |due| due.at.min(wake));
    }
    for (ring, model) in rings.iter_mut().enumerate() {
        model.arrive(conditions.lasting, &mut run.lost[ring]);
        let gap = conditions.lasting.saturating_sub(model.read_at);
        run.longest_gap[ring] = run.longest_gap[ring].max(gap);
    }
    run.most_in_a_second = judge.max_in_window();
    run
}

trait PopIfDue<T> {
    fn pop_if_due(&mut self, now: Duration) -> Option<T>;
}

impl PopIfDue<Due<Event>> for BinaryHeap<Due<Event>> {
    fn pop_if_due(&mut self, now: Duration) -> Option<Due<Event>> {
        if self.peek()?.at <= now {
            self.pop()
        } else {
            None
        }
    }
}

impl RingModel<'_> {
    fn new(arrivals: &[Duration]) -> RingModel<'_> {
        RingModel {
            arrivals,
            oldest: 0,
            newest: 0,
            read_at: Duration::ZERO,
        }
    }

    fn arrive(&mut self, now: Duration, lost: &mut usize) {
        while self.arrivals.get(self.newest).is_some_and(|at| *at <= now) {
            self.newest += 1;
        }
        let kept_from = self.newest.saturating_sub(MAX_RING_EVENTS);
        *lost += kept_from.saturating_sub(self.oldest);
        self.oldest = self.oldest.max(kept_from);
    }

    fn read(
        &mut self,
        ring: usize,
        now: Duration,
        measured_from: Duration,
        run: &mut Run,
    ) -> Outcome {
        self.arrive(now, &mut run.lost[ring]);
        run.longest_gap[ring] = run.longest_gap[ring].max(now.saturating_sub(self.read_at));
        self.read_at = now;
        let page = &self.arrivals[self.oldest..self.newest.min(self.oldest + MAX_PAGE_EVENTS)];
        self.oldest += page.len();
        let measured = page.iter().filter(|at| **at >= measured_from);
        run.ages.extend(measured.map(|at| now - *at));
        let ms = |at: &Duration| at.as_millis() as i64;
        Outcome::Page {
            count: page.len(),
            full: page.len() >= MAX_PAGE_EVENTS,
            span: page.first().map(ms).zip(page.last().map(ms)),
        }
    }
}

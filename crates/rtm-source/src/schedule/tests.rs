//! With a fake clock, and with the real limiter's slots where the two must work together.
#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::limiter::Slots;
use crate::{Region, Stream};

const EMPTY: Outcome = Outcome::Page {
    count: 0,
    full: false,
    span: None,
};
const SOME: Outcome = Outcome::Page {
    count: 7,
    full: false,
    span: None,
};
const FULL: Outcome = Outcome::Page {
    count: 1000,
    full: true,
    span: None,
};
const IN_DOUBT: Outcome = Outcome::InDoubt { retry_after: None };

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn rings(count: usize) -> Vec<Ring> {
    (0..count)
        .map(|i| Ring {
            region: Arc::new(
                Region::new(&format!("r{}", i / 2), "https://127.0.0.1", false).unwrap(),
            ),
            stream: Stream::ALL[i % 2],
        })
        .collect()
}

fn schedule(count: usize) -> (Vec<Ring>, Schedule) {
    let rings = rings(count);
    (
        rings.clone(),
        Schedule::new(rings, ScheduleOptions::default(), 7),
    )
}

/// A schedule, the limiter's slots and a far end that answers, all on one fake clock.
struct World {
    rings: Vec<Ring>,
    schedule: Schedule,
    slots: Slots,
    origin: Instant,
    now: Duration,
    /// Answers on their way: when, and what they are.
    answers: Vec<(Duration, Turn, Outcome)>,
    /// Polls so far: when, and which ring.
    polls: Vec<(Duration, Ring)>,
    observed: Vec<(Ring, Observed)>,
    /// Whose last page was full.
    full: HashSet<Ring>,
    in_flight_per_ring: usize,
}

impl World {
    fn new(count: usize, options: ScheduleOptions) -> World {
        let rings = rings(count);
        World {
            slots: Slots::new(options.requests_per_second, Duration::ZERO),
            in_flight_per_ring: options.in_flight_per_ring,
            full: HashSet::new(),
            schedule: Schedule::new(rings.clone(), options, 7),
            rings,
            origin: Instant::now(),
            now: Duration::ZERO,
            answers: Vec::new(),
            polls: Vec::new(),
            observed: Vec::new(),
        }
    }

    /// Polls until `until`, each round trip and outcome as `far_end` says, with a timer that is up to a millisecond
    /// late, as tokio's is. Returns the polls of that time.
    fn run(
        &mut self,
        until: Duration,
        mut far_end: impl FnMut(&Ring) -> (Duration, Outcome),
    ) -> Vec<(Duration, Ring)> {
        let first = self.polls.len();
        while self.now < until {
            let due = self.answers.iter().position(|(at, ..)| *at <= self.now);
            if let Some(due) = due {
                let (_, turn, outcome) = self.answers.swap_remove(due);
                self.slots.give_back(self.now + REST);
                let ring = turn.ring().clone();
                match outcome {
                    Outcome::Page { full: true, .. } => _ = self.full.insert(ring.clone()),
                    Outcome::Page { .. } => _ = self.full.remove(&ring),
                    _ => {}
                }
                let observed = self
                    .schedule
                    .observe(turn, self.origin + self.now, &outcome);
                self.observed.push((ring, observed));
                continue;
            }
            let wake = match self.schedule.next(self.origin + self.now) {
                Next::Wait(at) => {
                    assert!(at > self.origin + self.now, "a wait that is over");
                    assert!(at <= self.origin + self.now + LONGEST_WAIT);
                    (at - self.origin).max(self.now + Duration::from_micros(1))
                        + Duration::from_micros(700)
                }
                Next::Poll(ring) => match self.slots.take(self.now) {
                    Ok(()) => {
                        let others = self
                            .answers
                            .iter()
                            .filter(|(_, turn, _)| *turn.ring() == ring);
                        let drains = self.full.contains(&ring);
                        let most = if drains { self.in_flight_per_ring } else { 1 };
                        assert!(
                            others.count() < most,
                            "{most} are in flight, drains: {drains}"
                        );
                        let turn = self.schedule.started(&ring, self.origin + self.now);
                        let (round_trip, outcome) = far_end(&ring);
                        self.answers.push((self.now + round_trip, turn, outcome));
                        self.polls.push((self.now, ring));
                        continue;
                    }
                    Err(free) => free.unwrap_or(self.now + LONGEST_WAIT),
                },
            };
            let answer = self.answers.iter().map(|(at, ..)| *at).min();
            self.now = answer.map_or(wake, |at| at.min(wake));
        }
        self.polls[first..].to_vec()
    }
}

/// A request that ends as soon as it is sent.
fn polled(schedule: &mut Schedule, ring: &Ring, now: Instant, outcome: &Outcome) -> Observed {
    let turn = schedule.started(ring, now);
    schedule.observe(turn, now, outcome)
}

fn gaps(polls: &[(Duration, Ring)], ring: Option<&Ring>) -> Vec<Duration> {
    let times: Vec<Duration> = polls
        .iter()
        .filter(|(_, polled)| ring.is_none_or(|ring| ring == polled))
        .map(|(at, _)| *at)
        .collect();
    times.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

/// What an event waits for the next poll, on average, if events come evenly.
fn mean_age(gaps: &[Duration]) -> f64 {
    let square: f64 = gaps.iter().map(|gap| gap.as_secs_f64().powi(2)).sum();
    square / 2.0 / gaps.iter().map(Duration::as_secs_f64).sum::<f64>()
}

/// Each ring gets an even share of all that the limiter gives, evenly spaced: an event waits k/20 s on average, times
/// one plus the round trip.
#[test]
fn rings_share_the_whole_budget_evenly() {
    for (count, round_trip) in [(1, 3), (2, 3), (2, 80), (4, 30), (10, 150)] {
        let mut world = World::new(count, ScheduleOptions::default());
        world.run(Duration::from_secs(5), |_| (ms(round_trip), SOME));
        let polls = world.run(Duration::from_secs(65), |_| (ms(round_trip), SOME));
        let cycle = 1.0 + round_trip as f64 / 1000.0;
        let possible = 600.0 / cycle;
        assert!(
            polls.len() as f64 > possible * 0.985,
            "{count} rings, {round_trip} ms: {} of {possible}",
            polls.len()
        );
        let shortest = gaps(&polls, None).into_iter().min().unwrap();
        assert!(
            shortest.as_secs_f64() > cycle / 10.0 * 0.9,
            "{count} rings, {round_trip} ms: a gap of {shortest:?}"
        );
        for ring in &world.rings {
            let age = mean_age(&gaps(&polls, Some(ring)));
            let floor = count as f64 / 20.0 * cycle;
            assert!(
                age < floor * 1.03,
                "{count} rings, {round_trip} ms: {age} against {floor}"
            );
        }
    }
}

/// With round trips that vary, polls stay apart and the budget is still used.
#[test]
fn varying_round_trips_leave_the_spacing_even() {
    let mut random = fastrand::Rng::with_seed(3);
    let mut world = World::new(2, ScheduleOptions::default());
    let polls = world.run(Duration::from_secs(120), |_| (ms(random.u64(5..100)), SOME));
    let possible = 1200.0 / 1.0525;
    assert!(
        polls.len() as f64 > possible * 0.97,
        "{} of {possible}",
        polls.len()
    );
    let shortest = gaps(&polls, None).into_iter().min().unwrap();
    assert!(shortest > ms(50), "{shortest:?}");
    for ring in &world.rings {
        let age = mean_age(&gaps(&polls, Some(ring)));
        assert!(age < 0.115, "{age}");
    }
}

/// After a pause, with all slots free, there is no burst, and no rhythm of bursts for ever.
#[test]
fn a_pause_does_not_end_in_a_burst() {
    let mut world = World::new(2, ScheduleOptions::default());
    world.run(Duration::from_secs(3), |_| (ms(5), SOME));
    world.now += Duration::from_secs(4);
    let polls = world.run(Duration::from_secs(20), |_| (ms(5), SOME));
    let gaps = gaps(&polls, None);
    assert!(gaps.iter().all(|gap| *gap >= ms(50)), "{gaps:?}");
    assert!(
        gaps[2..].iter().all(|gap| *gap > ms(90) && *gap < ms(110)),
        "{gaps:?}"
    );
}

/// Holds: more is waiting in a full ring, so it gets all that the others can spare, half of all polls or more; and the
/// others slip no further than a storm lets them, or four times their even share, give or take half.
#[test]
fn a_full_ring_gets_what_the_others_can_spare() {
    for (count, spare) in [(2, 0.87), (6, 0.78), (16, 0.58), (64, 0.48)] {
        let mut world = World::new(count, ScheduleOptions::default());
        let full = world.rings[1].clone();
        world.run(Duration::from_secs(10), |_| (ms(5), SOME));
        let polls = world.run(Duration::from_secs(90), |ring| {
            (ms(5), if *ring == full { FULL } else { SOME })
        });
        let longest = LONGEST_INTERVAL_IN_A_STORM.max(count as f64 * 0.4 * 1.006);
        let worst = gaps(&polls, Some(&full)).into_iter().max().unwrap();
        assert!(
            worst <= ms(320),
            "{count} rings: the full one waits {worst:?}"
        );
        for ring in world.rings.iter().filter(|ring| **ring != full) {
            let worst = gaps(&polls, Some(ring)).into_iter().max().unwrap();
            assert!(
                worst.as_secs_f64() <= longest * 1.5,
                "{count} rings: {ring} waits {worst:?}"
            );
        }
        // The other stream of the region is watched more closely.
        let other = gaps(&polls, Some(&world.rings[0])).into_iter().max();
        assert!(other.unwrap().as_secs_f64() <= longest / WATCHED_TIMES * 1.6);
        let polled =
            polls.iter().filter(|(_, ring)| *ring == full).count() as f64 / polls.len() as f64;
        assert!(polled > spare, "{count} rings: {polled} of the polls");
    }
}

/// A full page is polled again at the next moment that the pace allows.
#[test]
fn a_full_page_is_polled_again_at_once() {
    let mut world = World::new(2, ScheduleOptions::default());
    world.run(Duration::from_secs(2), |_| (ms(5), SOME));
    let mut turned_full = None;
    let polls = world.run(Duration::from_secs(3), |ring| {
        let turned = turned_full.get_or_insert_with(|| ring.clone());
        (ms(5), if ring == turned { FULL } else { SOME })
    });
    assert_eq!(polls[0].1, polls[1].1);
    assert!(polls[1].0 - polls[0].0 < ms(110));
}

/// Holds: where the round trip is longer than the time between two slots, a ring that drains gets four fifths of what the
/// limiter allows once several of its requests may be in flight, and no other ring ever has two.
#[test]
fn several_in_flight_drain_a_ring_at_the_limit() {
    let drained = |count, in_flight_per_ring, round_trip: u64| {
        let options = ScheduleOptions {
            in_flight_per_ring,
            ..ScheduleOptions::default()
        };
        let mut world = World::new(count, options);
        let full = world.rings[0].clone();
        let mut random = fastrand::Rng::with_seed(5);
        let mut far_end = |ring: &Ring| {
            let took = ms(random.u64(round_trip * 9 / 10..=round_trip * 11 / 10));
            (took, if *ring == full { FULL } else { SOME })
        };
        world.run(Duration::from_secs(10), &mut far_end);
        let polls = world.run(Duration::from_secs(70), &mut far_end);
        let drained = polls.iter().filter(|(_, ring)| *ring == full).count() as f64 / 60.0;
        drained * (1.001 + round_trip as f64 / 1_000.0) / 10.0
    };
    for (count, round_trip) in [(1, 200), (2, 200), (1, 400)] {
        let [one, most] = [1, 4].map(|most| drained(count, most, round_trip));
        println!("{count} rings, {round_trip} ms: {one:.3} of the limit, {most:.3} with several");
        assert!(one < 0.65, "{count} rings, {round_trip} ms: {one}");
        assert!(most > 0.8, "{count} rings, {round_trip} ms: {most}");
    }
}

/// Holds: pages that overlap and end out of order make no full page of none, no gap of none and no hole of none.
#[test]
fn pages_that_end_out_of_order_raise_no_alarm() {
    let options = ScheduleOptions {
        in_flight_per_ring: 4,
        ..ScheduleOptions::default()
    };
    let rings = rings(1);
    let mut schedule = Schedule::new(rings.clone(), options, 7);
    let mut random = fastrand::Rng::with_seed(11);
    let start = Instant::now();
    let mut at = start;
    // Ten events a millisecond in bursts of 3,000, drained by requests that overlap, after and before calm.
    let mut first = 0;
    for _ in 0..400 {
        let counts = [1_000, 1_000, 1_000, random.usize(20..400)];
        for calm in 0..5 {
            at += ms(100);
            let page = Outcome::Page {
                count: 100,
                full: false,
                span: Some((first, first + 99)),
            };
            first += 100;
            let observed = polled(&mut schedule, &rings[0], at, &page);
            assert!(calm == 0 || observed.overflow.is_none(), "{observed:?}");
        }
        let mut pages: Vec<(Turn, Outcome)> = counts
            .map(|count| {
                at += ms(100);
                let span = Some((first, first + count as i64 / 10 - 1));
                first += count as i64 / 10;
                let page = Outcome::Page {
                    count,
                    full: count >= 1_000,
                    span,
                };
                (schedule.started(&rings[0], at), page)
            })
            .into();
        random.shuffle(&mut pages);
        for (turn, page) in pages {
            at += ms(10);
            let observed = schedule.observe(turn, at, &page);
            let lost = observed
                .overflow
                .map_or(0, |overflow| overflow.estimated_lost);
            assert!(lost == 0 && !observed.second_poller, "{observed:?}");
        }
    }
}

/// Holds: a full page that ends late does not make a ring drain that a later request found empty.
#[test]
fn old_news_drain_nothing() {
    let options = ScheduleOptions {
        in_flight_per_ring: 4,
        ..ScheduleOptions::default()
    };
    let rings = rings(1);
    let mut schedule = Schedule::new(rings.clone(), options, 7);
    let now = Instant::now();
    polled(&mut schedule, &rings[0], now, &FULL);
    let late = schedule.started(&rings[0], now);
    polled(&mut schedule, &rings[0], now, &SOME);
    let _in_flight = schedule.started(&rings[0], now);
    schedule.observe(late, now + ms(1_000), &FULL);
    let Next::Wait(_) = schedule.next(now + ms(2_000)) else {
        panic!("two in flight, and nothing to drain");
    };
}

#[test]
fn two_full_pages_in_a_row_suggest_an_overflow() {
    let (rings, mut schedule) = schedule(2);
    let now = Instant::now();
    let mut observe = |ring: usize, outcome| {
        polled(&mut schedule, &rings[ring], now, &outcome).overflow_suspected
    };
    assert!(!observe(0, FULL));
    assert!(!observe(1, FULL), "of another ring");
    assert!(observe(0, FULL));
    assert!(observe(0, FULL));
    assert!(!observe(0, SOME));
    assert!(!observe(0, FULL));
}

/// Holds: what the gap before the first full page cost is told with the second.
#[test]
fn an_overflow_tells_what_it_cost_at_least() {
    let (rings, mut schedule) = schedule(1);
    let start = Instant::now();
    let mut poll = |at: u64, count, first, last| {
        let page = Outcome::Page {
            count,
            full: count >= 1000,
            span: Some((first, last)),
        };
        polled(&mut schedule, &rings[0], start + ms(at), &page)
    };
    // One event a millisecond; then nobody polls for five seconds.
    for at in (100..=1_000).step_by(100) {
        let observed = poll(at, 100, at as i64 - 99, at as i64);
        assert!(observed.overflow.is_none() && !observed.second_poller);
    }
    assert_eq!(poll(6_000, 1000, 4_001, 5_000).overflow, None);
    let observed = poll(6_100, 1000, 5_001, 6_000);
    assert!(observed.overflow_suspected);
    let lost = observed.overflow.unwrap().estimated_lost;
    assert!((2_990..=3_010).contains(&lost), "{lost}");
    let none = Some(Overflow { estimated_lost: 0 });
    assert_eq!(poll(6_200, 1000, 6_001, 6_100).overflow, none, "told once");
}

#[test]
fn backoff_doubles_with_jitter_up_to_its_limit_and_ends_with_a_page() {
    let options = ScheduleOptions::default();
    for outcome in [IN_DOUBT, Outcome::NotSent] {
        let (rings, mut schedule) = schedule(1);
        let now = Instant::now();
        let mut backoffs = Vec::new();
        for i in 0..40 {
            let observed = polled(&mut schedule, &rings[0], now, &outcome);
            let backoff = observed.backoff.unwrap();
            let nominal = options
                .backoff_min
                .saturating_mul(1 << i.min(10))
                .min(options.backoff_max);
            assert!(
                backoff >= nominal / 2 && backoff <= nominal,
                "{i}: {backoff:?}"
            );
            assert!(!observed.alarm && observed.hold.is_none());
            backoffs.push(backoff);
        }
        backoffs[10..].sort();
        backoffs.dedup();
        assert!(backoffs.len() > 30, "jitter: {backoffs:?}");
        polled(&mut schedule, &rings[0], now, &EMPTY);
        let first = polled(&mut schedule, &rings[0], now, &outcome)
            .backoff
            .unwrap();
        assert!(first <= options.backoff_min);
    }
}

#[test]
fn a_failing_ring_leaves_its_share_to_the_others() {
    let mut world = World::new(2, ScheduleOptions::default());
    let dead = world.rings[0].clone();
    let polls = world.run(Duration::from_secs(30), |ring| {
        (ms(5), if *ring == dead { IN_DOUBT } else { SOME })
    });
    let dead = polls.iter().filter(|(_, ring)| *ring == dead).count();
    assert!((6..20).contains(&dead), "{dead}");
    assert!(polls.len() > 290, "{}", polls.len());
}

/// Holds: after a page in doubt its siblings, and no others, come next, at the usual pace, once each.
#[test]
fn the_siblings_of_a_page_in_doubt_come_next() {
    let mut world = World::new(8, ScheduleOptions::default());
    world.run(Duration::from_secs(5), |_| (ms(5), SOME));
    let lost = world.rings[2].clone();
    let mut doubted = false;
    let polls = world.run(Duration::from_secs(8), |ring| {
        let doubt = *ring == lost && !doubted;
        doubted |= doubt;
        (ms(5), if doubt { IN_DOUBT } else { SOME })
    });
    let at = polls.iter().position(|(_, ring)| *ring == lost).unwrap();
    let mut next: Vec<String> = polls[at + 1..at + 4]
        .iter()
        .map(|(_, ring)| ring.to_string())
        .collect();
    next.sort();
    assert_eq!(next, ["r0/user", "r2/user", "r3/user"]);
    assert!(
        polls[at + 4..at + 7]
            .iter()
            .all(|(_, ring)| ring.stream == Stream::Channel)
    );
    let gaps = gaps(&polls, None);
    assert!(gaps.iter().all(|gap| *gap > ms(90)), "{gaps:?}");
}

/// Holds: an idle pace does not keep the siblings waiting, and a single region has none.
#[test]
fn siblings_do_not_wait_for_an_idle_pace() {
    let options = ScheduleOptions {
        idle_interval: Some(Duration::from_secs(60)),
        ..ScheduleOptions::default()
    };
    for (count, waits) in [(2, ms(20_000)), (4, ms(0))] {
        let mut world = World::new(count, options.clone());
        world.run(Duration::from_secs(120), |_| (ms(5), EMPTY));
        let polls = world.run(Duration::from_secs(300), |_| (ms(5), IN_DOUBT));
        let gap = polls[1].0 - polls[0].0;
        assert!(gap >= waits && gap < waits + ms(20_000), "{count}: {gap:?}");
        assert_eq!(polls[0].1.stream == polls[1].1.stream, count == 4);
    }
}

/// Holds: doubt without end about one stream starves the other of none of its even share.
#[test]
fn doubt_without_end_starves_nobody() {
    let options = ScheduleOptions {
        backoff_min: ms(1),
        backoff_max: ms(1),
        ..ScheduleOptions::default()
    };
    let mut world = World::new(8, options);
    world.run(Duration::from_secs(5), |_| (ms(5), SOME));
    let polls = world.run(Duration::from_secs(60), |ring| match ring.stream {
        Stream::User => (ms(5), IN_DOUBT),
        Stream::Channel => (ms(5), SOME),
    });
    for ring in world
        .rings
        .iter()
        .filter(|ring| ring.stream == Stream::Channel)
    {
        let worst = gaps(&polls, Some(ring)).into_iter().max().unwrap();
        assert!(worst <= ms(800) * 5 / 2, "{ring} waits {worst:?}");
    }
    assert!(gaps(&polls, None).iter().all(|gap| *gap > ms(90)));
}

/// Credentials, App ID or URL: an alarm, slow retries, and never an end of them.
#[test]
fn what_only_people_can_mend_is_retried_slowly_and_alarms() {
    for status in [400, 401, 403, 404, 413, 415, 302] {
        let refused = Outcome::Refused {
            status,
            retry_after: None,
        };
        let mut world = World::new(2, ScheduleOptions::default());
        let polls = world.run(Duration::from_secs(600), |_| (ms(5), refused));
        assert!(
            (40..120).contains(&polls.len()),
            "{status}: {}",
            polls.len()
        );
        assert!(polls.last().unwrap().0 > Duration::from_secs(570));
        assert!(
            gaps(&polls, Some(&world.rings[0]))
                .iter()
                .all(|gap| *gap >= ms(500))
        );
        assert!(world.observed.iter().all(|(_, observed)| observed.alarm));
    }
}

/// Holds: what was refused is tried as soon as somebody may have mended it, once; and one success frees all that was
/// refused. A ring that fails for other reasons goes on waiting.
#[test]
fn what_people_have_mended_is_tried_at_once() {
    let refused = Outcome::Refused {
        status: 401,
        retry_after: None,
    };
    let (rings, mut schedule) = schedule(4);
    let now = Instant::now();
    let due = |schedule: &mut Schedule, at| matches!(schedule.next(at), Next::Poll(_));
    assert!(!schedule.is_alarmed());
    for _ in 0..8 {
        for ring in &rings[..3] {
            assert!(polled(&mut schedule, ring, now, &refused).alarm);
        }
        polled(&mut schedule, &rings[3], now, &IN_DOUBT);
    }
    assert!(schedule.is_alarmed());
    let soon = now + ms(200);
    assert!(!due(&mut schedule, soon));
    schedule.try_again();
    let Next::Poll(first) = schedule.next(soon) else {
        panic!("nothing is tried");
    };
    assert_ne!(first, rings[3]);
    // In vain: it waits as long as before.
    let observed = polled(&mut schedule, &first, soon, &refused);
    assert!(observed.backoff.unwrap() >= Duration::from_secs(15));
    let mut others = rings[..3].iter().filter(|ring| **ring != first);
    let (second, third) = (others.next().unwrap(), others.next().unwrap());
    polled(&mut schedule, third, soon, &refused);
    // Mended: all but the one that fails by itself.
    polled(&mut schedule, second, soon, &EMPTY);
    let mut at = soon;
    let mut tried = Vec::new();
    for _ in 0..3 {
        at += ms(400);
        let Next::Poll(ring) = schedule.next(at) else {
            panic!("not all are tried: {tried:?}");
        };
        polled(&mut schedule, &ring, at, &EMPTY);
        tried.push(ring);
    }
    assert!(tried.contains(&first) && tried.contains(third));
    assert!(!tried.contains(&rings[3]) && !schedule.is_alarmed());
}

#[test]
fn a_429_holds_every_ring() {
    let (rings, mut schedule) = schedule(4);
    let now = Instant::now();
    let refused = Outcome::Refused {
        status: 429,
        retry_after: Some(Duration::from_secs(7)),
    };
    let observed = polled(&mut schedule, &rings[0], now, &refused);
    let hold = observed.hold.unwrap();
    assert!(
        hold >= Duration::from_secs(7) && hold < Duration::from_secs(8),
        "{hold:?}"
    );
    assert!(!observed.alarm && observed.backoff.is_none());
    for i in 0..7 {
        let at = now + Duration::from_secs(i);
        assert!(matches!(schedule.next(at), Next::Wait(_)), "{i}");
    }
    assert!(matches!(schedule.next(now + hold), Next::Poll(_)));

    // Without being told how long: a second at least, and longer each time.
    let untold = Outcome::Refused {
        status: 429,
        retry_after: None,
    };
    let holds: Vec<Duration> = (0..20)
        .map(|_| polled(&mut schedule, &rings[0], now, &untold).hold.unwrap())
        .collect();
    assert!(
        holds.iter().all(|hold| *hold >= Duration::from_secs(1)),
        "{holds:?}"
    );
    assert!(
        holds[19] >= ms(2_500) && holds[19] <= Duration::from_secs(5),
        "{holds:?}"
    );
}

#[test]
fn retry_after_is_waited_out_and_capped() {
    let (rings, mut schedule) = schedule(1);
    let now = Instant::now();
    let asks = [
        (Duration::ZERO, Duration::ZERO, ms(250)),
        (
            Duration::from_secs(20),
            Duration::from_secs(20),
            Duration::from_secs(22),
        ),
        (
            Duration::MAX,
            Duration::from_secs(60),
            Duration::from_secs(66),
        ),
    ];
    for (asked, least, most) in asks {
        let outcomes = [
            Outcome::InDoubt {
                retry_after: Some(asked),
            },
            Outcome::Refused {
                status: 429,
                retry_after: Some(asked),
            },
        ];
        for outcome in outcomes {
            polled(&mut schedule, &rings[0], now, &SOME);
            let observed = polled(&mut schedule, &rings[0], now, &outcome);
            let waits = observed.backoff.or(observed.hold).unwrap();
            assert!(
                waits >= least && waits <= most.max(REST),
                "{asked:?}: {waits:?}"
            );
        }
    }
}

#[test]
fn an_idle_bridge_slows_down_only_if_asked_and_wakes_at_once() {
    let mut world = World::new(2, ScheduleOptions::default());
    assert!(world.run(Duration::from_secs(60), |_| (ms(5), EMPTY)).len() > 580);

    let options = ScheduleOptions {
        idle_interval: Some(Duration::from_secs(1)),
        ..ScheduleOptions::default()
    };
    let mut world = World::new(2, options);
    world.run(Duration::from_secs(9), |_| (ms(5), EMPTY));
    assert!(world.polls.len() > 85, "{}", world.polls.len());
    world.run(Duration::from_secs(20), |_| (ms(5), EMPTY));
    let idle = world.run(Duration::from_secs(40), |_| (ms(5), EMPTY));
    assert!((38..=42).contains(&idle.len()), "{}", idle.len());
    let busy = world.run(Duration::from_secs(41), |_| (ms(5), SOME));
    let busy_gaps = gaps(&busy, None);
    assert!(busy_gaps.iter().all(|gap| *gap < ms(110)), "{busy_gaps:?}");
}

#[test]
fn a_caller_that_asks_twice_hears_the_same() {
    let (rings, mut schedule) = schedule(3);
    let now = Instant::now();
    assert_eq!(schedule.next(now), Next::Poll(rings[0].clone()));
    assert_eq!(schedule.next(now), Next::Poll(rings[0].clone()));
    let _turn = schedule.started(&rings[0], now);
    let Next::Wait(at) = schedule.next(now) else {
        panic!("paced");
    };
    assert_eq!(schedule.next(at), Next::Poll(rings[1].clone()));
    // Nothing but in flight: asked again within a second.
    let (rings, mut schedule) = self::schedule(1);
    let _turn = schedule.started(&rings[0], now);
    assert_eq!(schedule.next(now + ms(500)), Next::Wait(now + ms(1_500)));
    assert_eq!(
        Schedule::new(Vec::new(), ScheduleOptions::default(), 0).next(now),
        Next::Wait(now + ms(1_000))
    );
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let retry_after = prop::option::of((0..100_000u64).prop_map(ms));
    prop_oneof![
        6 => Just(SOME),
        3 => (0..9_000i64, 0..100i64).prop_map(|(first, length)| Outcome::Page {
            count: 1000,
            full: true,
            span: Some((first, first + length)),
        }),
        3 => Just(EMPTY),
        1 => Just(Outcome::NotSent),
        1 => retry_after.clone().prop_map(|retry_after| Outcome::InDoubt { retry_after }),
        1 => (prop::sample::select(vec![400, 401, 404, 429]), retry_after)
            .prop_map(|(status, retry_after)| Outcome::Refused { status, retry_after }),
    ]
}

proptest! {
    /// Whatever comes back, no ring has two requests in flight, none is polled while it backs off or all are held, no
    /// two polls are closer than half the pace, and once the far end is well again every ring is polled.
    #[test]
    fn keeps_its_promises(
        count in 1..7usize,
        script in prop::collection::vec((0..500u64, outcome()), 1..60),
    ) {
        let mut world = World::new(count, ScheduleOptions::default());
        let mut script = script.into_iter();
        // Long enough for any script, with every wait that it may ask for.
        let mut end = Duration::ZERO;
        while script.len() > 0 {
            end += Duration::from_secs(10);
            world.run(end, |_| script.next().map_or((ms(5), SOME), |(round_trip, outcome)| (ms(round_trip), outcome)));
        }
        end += Duration::from_secs(67);
        world.run(end, |_| (ms(5), SOME));
        let polls = world.run(end + Duration::from_secs(2), |_| (ms(5), SOME));
        for ring in &world.rings {
            prop_assert!(polls.iter().any(|(_, polled)| polled == ring), "{} is starved", ring);
        }
        prop_assert!(gaps(&world.polls, None).iter().all(|gap| *gap >= REST / 20));
    }

    /// A ring in backoff, and all rings in a hold, are left alone for exactly as long as was said.
    #[test]
    fn leaves_alone_for_as_long_as_it_says(outcomes in prop::collection::vec(outcome(), 1..40)) {
        let (rings, mut schedule) = schedule(1);
        let mut now = Instant::now();
        for outcome in outcomes {
            loop {
                match schedule.next(now) {
                    Next::Poll(_) => break,
                    Next::Wait(at) => now = at,
                }
            }
            let observed = polled(&mut schedule, &rings[0], now, &outcome);
            if let Some(wait) = observed.backoff.or(observed.hold) {
                let just_before = now + wait - Duration::from_nanos(1);
                prop_assert!(matches!(schedule.next(just_before), Next::Wait(_)));
                let pace = REST / 10;
                prop_assert!(matches!(schedule.next(now + wait.max(pace)), Next::Poll(_)));
            }
        }
    }
}

fn refused(status: u16, retry_after: Option<u64>) -> Outcome {
    Outcome::Refused {
        status,
        retry_after: retry_after.map(Duration::from_secs),
    }
}

/// When the schedule, asked again and again from `now` on, first names this ring, at most a minute later.
fn first_poll(schedule: &mut Schedule, ring: &Ring, now: Instant) -> Option<Duration> {
    (0..6_000).map(|n| ms(n * 10)).find(|after| {
        let next = schedule.next(now + *after);
        let Next::Poll(named) = next else {
            return false;
        };
        let turn = schedule.started(&named, now + *after);
        _ = schedule.observe(turn, now + *after, &EMPTY);
        named == *ring
    })
}

/// Holds: another plan, with other rings in another order, undoes neither a hold after a 429 nor a `Retry-After`, also where
/// the answer comes after the plan; and what waits for a person is tried again, unless the far end asked for patience.
#[test]
fn another_plan_undoes_no_hold_and_no_retry_after() {
    let now = Instant::now();
    let (rings, _) = schedule(8);
    let (kept, later) = (
        rings[..4].to_vec(),
        vec![rings[3].clone(), rings[6].clone(), rings[1].clone()],
    );
    let begun = || Schedule::new(kept.clone(), ScheduleOptions::default(), 7);
    let plan = ScheduleOptions {
        requests_per_second: 5,
        ..ScheduleOptions::default()
    };
    // (the outcome, how long ring 1 and ring 6, which is new, wait at least)
    for (outcome, asked, new) in [
        (refused(429, Some(20)), 20, 20),
        (refused(429, None), 1, 1),
        (
            Outcome::InDoubt {
                retry_after: Some(Duration::from_secs(30)),
            },
            30,
            0,
        ),
        (refused(403, Some(40)), 40, 0),
        (refused(401, None), 0, 0),
    ] {
        for before in [true, false] {
            for (ring, at_least) in [(&rings[1], asked), (&rings[6], new)] {
                let mut schedule = begun();
                let turn = schedule.started(&rings[1], now);
                if before {
                    _ = schedule.observe(turn, now, &outcome);
                    schedule.renew(later.clone(), plan.clone());
                } else {
                    schedule.renew(later.clone(), plan.clone());
                    _ = schedule.observe(turn, now, &outcome);
                }
                let polled = first_poll(&mut schedule, ring, now).unwrap();
                assert!(
                    polled >= Duration::from_secs(at_least),
                    "{outcome:?}: {polled:?}"
                );
                // Where it is not asked for it does not wait, but for the pace and a backoff that a plan need not undo.
                if at_least == 0 && before {
                    assert!(polled < Duration::from_secs(1), "{outcome:?}: {polled:?}");
                }
            }
        }
    }
    // Of a ring that has left, what holds for all does so all the same.
    let mut schedule = begun();
    let turn = schedule.started(&rings[0], now);
    schedule.renew(later, plan);
    _ = schedule.observe(turn, now, &refused(429, Some(20)));
    assert!(first_poll(&mut schedule, &rings[1], now).unwrap() >= Duration::from_secs(20));
    // A panic neither.
    let mut schedule = begun();
    let turn = schedule.started(&rings[0], now);
    _ = schedule.observe(turn, now, &refused(429, Some(20)));
    schedule.start_anew();
    assert!(first_poll(&mut schedule, &rings[1], now).unwrap() >= Duration::from_secs(20));
}

/// Holds: a ring with a request in flight is not polled because of another plan; and a ring that left and came back is not
/// disturbed by the end of a request from before.
#[test]
fn another_plan_knows_what_is_in_flight() {
    let now = Instant::now();
    let (rings, mut schedule) = schedule(2);
    let turn = schedule.started(&rings[0], now);
    schedule.renew(
        vec![rings[1].clone(), rings[0].clone()],
        ScheduleOptions::default(),
    );
    assert_eq!(first_poll(&mut schedule, &rings[0], now), None);
    schedule.renew(vec![rings[1].clone()], ScheduleOptions::default());
    schedule.renew(rings.clone(), ScheduleOptions::default());
    let now = now + Duration::from_secs(70);
    let again = schedule.started(&rings[0], now);
    _ = schedule.observe(turn, now, &EMPTY);
    assert_eq!(
        first_poll(&mut schedule, &rings[0], now),
        None,
        "two in flight"
    );
    _ = schedule.observe(again, now + Duration::from_secs(60), &EMPTY);
    let now = now + Duration::from_secs(61);
    assert!(first_poll(&mut schedule, &rings[0], now).is_some());
}

/// Holds: what a response in doubt may have cost is estimated by the ring's rate and the time since it was empty, is at most a
/// page, and 0 where nothing is known.
#[test]
fn what_a_doubt_may_have_cost_is_estimated() {
    let origin = Instant::now();
    let (rings, mut schedule) = schedule(2);
    let mut request = |at: u64, outcome: &Outcome| {
        let at = origin + ms(at);
        let turn = schedule.started(&rings[0], at);
        schedule.observe(turn, at + ms(30), outcome).estimated_lost
    };
    assert_eq!(request(0, &IN_DOUBT), 0, "nothing is known");
    // 70 events a second.
    for poll in 1..=200 {
        assert_eq!(request(poll * 100, &SOME), 0);
    }
    for (at, expected) in [(20_200, 14), (22_200, 140), (22_300, 7), (62_300, 1_000)] {
        let estimated = request(at, &IN_DOUBT);
        assert!(
            estimated.abs_diff(expected) <= expected / 20 + 1,
            "{at}: {estimated}"
        );
    }
    // More is waiting than a page.
    request(62_400, &FULL);
    assert_eq!(request(62_500, &IN_DOUBT), 1_000);
}

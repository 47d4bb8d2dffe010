//! Judged by the simulator's `RateWindow`, which shares no code with the limiter and looks at arrivals at the server.
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;

use proptest::prelude::*;
use rtm_sim::RateWindow;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const LIMIT: usize = 10;
/// When the simulated client gives up.
const DEADLINE: Duration = Duration::from_secs(2);

/// What can be put in the limiter's place.
trait Candidate {
    fn take(&mut self, now: Duration) -> Result<(), Option<Duration>>;
    fn observed(&mut self, now: Duration);
    fn timed_out(&mut self, now: Duration);
}

impl Candidate for Slots {
    fn take(&mut self, now: Duration) -> Result<(), Option<Duration>> {
        Slots::take(self, now)
    }
    fn observed(&mut self, now: Duration) {
        self.give_back(now + REST);
    }
    fn timed_out(&mut self, now: Duration) {
        self.give_back(now + REST + GRACE);
    }
}

/// The textbook limiter: ten tokens, and ten more a second.
struct TokenBucket {
    tokens: f64,
    filled: Duration,
}

impl Candidate for TokenBucket {
    fn take(&mut self, now: Duration) -> Result<(), Option<Duration>> {
        let limit = LIMIT as f64;
        self.tokens = (self.tokens + (now - self.filled).as_secs_f64() * limit).min(limit);
        self.filled = now;
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        let missing = Duration::from_secs_f64((1.0 - self.tokens) / limit);
        Err(Some(now + missing.max(Duration::from_millis(1))))
    }
    fn observed(&mut self, _now: Duration) {}
    fn timed_out(&mut self, _now: Duration) {}
}

/// A sliding window, exact, but over the times of sending.
#[derive(Default)]
struct SendWindow {
    sent: VecDeque<Duration>,
}

impl Candidate for SendWindow {
    fn take(&mut self, now: Duration) -> Result<(), Option<Duration>> {
        if self.sent.len() == LIMIT {
            let free = self.sent[0] + REST;
            if free > now {
                return Err(Some(free));
            }
            self.sent.pop_front();
        }
        self.sent.push_back(now);
        Ok(())
    }
    fn observed(&mut self, _now: Duration) {}
    fn timed_out(&mut self, _now: Duration) {}
}

/// A request's fate: how long the caller waits before it asks, and the network's delays in both directions.
#[derive(Debug, Clone, Copy)]
struct Trip {
    think: Duration,
    up: Duration,
    down: Duration,
}

fn delay() -> impl Strategy<Value = Duration> {
    // Mostly quick, sometimes terrible, with a mass at exactly zero, where windows touch.
    prop_oneof![
        3 => Just(0),
        6 => 0..20_000u64,
        2 => 0..400_000u64,
        1 => 0..3_000_000u64,
    ]
    .prop_map(Duration::from_micros)
}

fn trips() -> impl Strategy<Value = Vec<Trip>> {
    let think = prop_oneof![6 => Just(0), 1 => 0..1_500_000u64].prop_map(Duration::from_micros);
    let trip = (think, delay(), delay()).prop_map(|(think, up, down)| Trip { think, up, down });
    prop::collection::vec(trip, 1..150)
}

enum Happens {
    Arrives,
    Answered,
    TimedOut,
}

/// Sends every trip as soon as the limiter lets it, on a fake clock, and returns the most that the server saw in a
/// second.
///
/// `make` makes a limiter that starts at a given time. Before the trip numbered `killed` the process dies and starts
/// again at once: its answers are gone, while what it had sent goes on arriving for 250 ms.
fn most_in_a_second<C: Candidate>(
    make: impl Fn(Duration) -> C,
    trips: &[Trip],
    killed: Option<usize>,
) -> usize {
    let mut limiter = make(Duration::ZERO);
    let mut judge = RateWindow::new(LIMIT, SECOND);
    let mut pending: Vec<(Duration, Happens)> = Vec::new();
    let mut now = Duration::ZERO;
    for (i, trip) in trips.iter().enumerate() {
        if killed == Some(i) {
            pending.retain(|(_, happens)| matches!(happens, Happens::Arrives));
            for (at, _) in &mut pending {
                *at = (*at).min(now + Duration::from_millis(250));
            }
            limiter = make(now + Duration::from_millis(1_250));
        }
        let mut wake = Some(now + trip.think);
        loop {
            let first = (0..pending.len()).min_by_key(|i| pending[*i].0);
            match (
                first.filter(|i| wake.is_none_or(|wake| pending[*i].0 <= wake)),
                wake,
            ) {
                (Some(first), _) => {
                    let (at, happens) = pending.remove(first);
                    now = at;
                    match happens {
                        Happens::Arrives => {
                            judge.admit(now);
                        }
                        Happens::Answered => limiter.observed(now),
                        Happens::TimedOut => limiter.timed_out(now),
                    }
                    // A slot that came back may be what we wait for.
                    wake = wake.or(Some(now));
                }
                (None, Some(at)) => {
                    now = at;
                    match limiter.take(now) {
                        Ok(()) => break,
                        Err(free) => wake = free,
                    }
                }
                (None, None) => panic!("all slots are out, and nothing will bring one back"),
            }
        }
        pending.push((now + trip.up, Happens::Arrives));
        if trip.up + trip.down <= DEADLINE {
            pending.push((now + trip.up + trip.down, Happens::Answered));
        } else {
            pending.push((now + DEADLINE, Happens::TimedOut));
        }
    }
    pending.retain(|(_, happens)| matches!(happens, Happens::Arrives));
    pending.sort_by_key(|(at, _)| *at);
    for (at, _) in pending {
        judge.admit(at);
    }
    judge.max_in_window()
}

fn ours(start_after: Duration) -> Slots {
    Slots::new(LIMIT, start_after)
}

proptest! {
    /// Whatever the delays in either direction, and across a kill, the server sees at most ten requests in any second.
    #[test]
    fn the_server_never_sees_more_than_the_limit(trips in trips(), killed in prop::option::of(0..150usize)) {
        let seen = most_in_a_second(ours, &trips, killed);
        prop_assert!(seen <= LIMIT, "{} in a second", seen);
    }
}

/// The judge can tell: the same harness catches the limiters that look at send times.
#[test]
fn limiters_of_send_times_are_caught() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let (mut bucket, mut window) = (0, 0);
    for _ in 0..50 {
        let trips = trips().new_tree(&mut runner).unwrap().current();
        let make = |start_after| TokenBucket {
            tokens: LIMIT as f64,
            filled: start_after,
        };
        bucket = bucket.max(most_in_a_second(make, &trips, None));
        window = window.max(most_in_a_second(|_| SendWindow::default(), &trips, None));
    }
    assert!(
        bucket >= LIMIT + 4,
        "a token bucket lets more through than {bucket}"
    );
    assert!(
        window > LIMIT,
        "a window of send times lets more through than {window}"
    );
}

/// With no delay the whole budget is used: ten a second, but for the millisecond of margin.
#[test]
fn the_whole_budget_is_used() {
    let trip = Trip {
        think: Duration::ZERO,
        up: Duration::ZERO,
        down: Duration::ZERO,
    };
    assert_eq!(most_in_a_second(ours, &[trip; 101], None), LIMIT);
    let (mut slots, mut now, mut sent) = (ours(Duration::ZERO), Duration::ZERO, 0);
    while now < SECOND * 100 {
        match slots.take(now) {
            Ok(()) => {
                slots.observed(now);
                sent += 1;
            }
            Err(free) => now = free.unwrap(),
        }
    }
    assert_eq!(sent, 1_000);
}

#[tokio::test(start_paused = true)]
async fn a_used_slot_rests_for_a_second_from_its_answer() {
    let limiter = Limiter::new(1, Duration::ZERO);
    let start = Instant::now();
    let in_flight = limiter.slot().await.send();
    tokio::time::advance(Duration::from_millis(700)).await;
    in_flight.observed();
    assert_eq!(limiter.stats().cooling, 1);
    drop(limiter.slot().await);
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(700) + REST, "{took:?}");
    assert!(took < Duration::from_millis(710) + REST, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn timed_out_and_abandoned_requests_hold_their_slot_for_longer() {
    for abandon in [false, true] {
        let limiter = Limiter::new(1, Duration::ZERO);
        let in_flight = limiter.slot().await.send();
        let start = Instant::now();
        if abandon {
            drop(in_flight);
        } else {
            in_flight.timed_out();
        }
        drop(limiter.slot().await);
        assert!(start.elapsed() >= REST + GRACE, "{:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn an_unused_slot_is_free_at_once() {
    let limiter = Limiter::new(1, Duration::ZERO);
    let start = Instant::now();
    let slot = limiter.slot().await;
    // Somebody is already waiting, without a time to wake at.
    let next = tokio::spawn({
        let limiter = limiter.clone();
        async move { drop(limiter.slot().await) }
    });
    tokio::task::yield_now().await;
    assert_eq!((limiter.stats().in_use, limiter.stats().waiting), (1, 1));
    drop(slot);
    // The clock is paused, so a wake-up that is missed shows at once, and not as a test that hangs.
    let woken = tokio::time::timeout(SECOND, next).await;
    woken.expect("nobody woke the caller").unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(limiter.stats().used, 0);
}

#[tokio::test(start_paused = true)]
async fn the_start_is_held() {
    let limiter = Limiter::new(2, Duration::from_millis(1_250));
    let start = Instant::now();
    assert_eq!(limiter.stats().cooling, 2);
    let _slots = (limiter.slot().await, limiter.slot().await);
    assert!(start.elapsed() >= Duration::from_millis(1_250));
    assert!(start.elapsed() < Duration::from_millis(1_260));
    assert_eq!(limiter.stats().waited, start.elapsed());
}

/// First come first served, and one who gives up takes nothing along.
#[tokio::test(start_paused = true)]
async fn callers_are_served_in_order() {
    let limiter = Limiter::new(1, Duration::from_secs(1));
    let (tx, mut rx) = tokio::sync::mpsc::unbounded_channel();
    let mut callers = Vec::new();
    for i in 0..5 {
        let (limiter, tx) = (limiter.clone(), tx.clone());
        callers.push(tokio::spawn(async move {
            let slot = limiter.slot().await.send();
            tx.send(i).unwrap();
            slot.observed();
        }));
        tokio::task::yield_now().await;
    }
    assert_eq!(limiter.stats().waiting, 5);
    callers[0].abort();
    callers[2].abort();
    for expected in [1, 3, 4] {
        let served = tokio::time::timeout(SECOND * 10, rx.recv()).await;
        assert_eq!(served, Ok(Some(expected)));
    }
    assert_eq!(limiter.stats().waiting, 0);
    assert_eq!(limiter.stats().used, 3);
}

/// The asynchronous part, judged like the pure one: many callers, random delays, one clock.
#[tokio::test(start_paused = true)]
async fn many_callers_stay_within_the_limit() {
    let limiter = Limiter::new(LIMIT, Duration::ZERO);
    let origin = Instant::now();
    let arrivals = Arc::new(Mutex::new(Vec::new()));
    let mut callers = tokio::task::JoinSet::new();
    for seed in 0..30 {
        let (limiter, arrivals) = (limiter.clone(), Arc::clone(&arrivals));
        callers.spawn(async move {
            let mut random = fastrand::Rng::with_seed(seed);
            for _ in 0..20 {
                let slot = limiter.slot().await;
                if random.u8(..) < 40 {
                    continue;
                }
                let in_flight = slot.send();
                tokio::time::sleep(Duration::from_millis(random.u64(0..300))).await;
                arrivals.lock().unwrap().push(origin.elapsed());
                tokio::time::sleep(Duration::from_millis(random.u64(0..300))).await;
                in_flight.observed();
            }
        });
    }
    let all = tokio::time::timeout(SECOND * 600, callers.join_all()).await;
    assert!(all.is_ok(), "a caller was never served");
    let mut judge = RateWindow::new(LIMIT, SECOND);
    let arrivals = arrivals.lock().unwrap();
    assert!(arrivals.len() > 400, "{}", arrivals.len());
    assert!(arrivals.iter().all(|at| judge.admit(*at)));
}

proptest! {
    /// Holds: however often the number of slots changes, no second has more requests than the greatest of the numbers.
    #[test]
    fn a_limiter_that_is_resized_forgets_nothing(
        steps in prop::collection::vec((1_usize..=LIMIT, 0_u64..400), 1..60),
    ) {
        let mut slots = Slots::new(LIMIT, Duration::ZERO);
        let mut window = RateWindow::new(LIMIT, SECOND);
        let (mut count, mut now) = (LIMIT, Duration::ZERO);
        for (next, pause) in steps {
            while Candidate::take(&mut slots, now).is_ok() {
                // Answered at once, which is the most that can be had of a slot.
                prop_assert!(window.admit(now), "{} slots at {now:?}", count);
                slots.observed(now);
            }
            slots.resize(count, next, now);
            count = next;
            now += Duration::from_millis(pause);
        }
    }
}

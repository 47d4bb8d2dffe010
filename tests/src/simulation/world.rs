//! One run: the parts, the trouble, the quiet, and the end.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fastrand::Rng;
use rtm_engine::copies::CopyRule;
use rtm_engine::plan::{AppPlan, BoxError, Parts, Plan as BridgePlan, Plans, RunError, SinkPlan};
use rtm_engine::status::State;
use rtm_engine::status::metrics::Metrics;
use rtm_engine::supervisor;
use rtm_journal::sim::{Op, READ_ERRORS, SimDisk};
use rtm_journal::{Driver, Epoch, Journal, Options};
use rtm_record::{KeyBy, Routes, STATIC, Template};
use rtm_sim::{Clock, Faults, InProcess, SimApp, SimAuth, SimConfig, Stream};
use rtm_sink::AnySink;
use rustix::io::Errno;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::Report;
use super::check::{self, Seen};
use super::plan::{End, Plan, Reads};
use super::sink::{Mood, SimulatedSink};
use super::source::{Network, SimulatedSource};
use crate::bridge::Metrics as Samples;

/// The App ID and its name.
pub(super) const APP_ID: &str = "0a1b";
pub(super) const APP: &str = "main";
/// The sinks' names.
pub(super) const SINKS: [&str; 2] = ["one", "two"];
/// The topic of dead letters.
pub(super) const DEAD_LETTERS: &str = "dead_letters";
/// The user of the event that kills the process.
const POISON: &str = "poisoned-user";
/// What time it is when a run begins: 2026-11-24.
pub(super) const BEGIN_MS: u64 = 1_795_478_400_000;
/// How long everything may take to arrive once the trouble is over, in simulated time: backoffs of half a minute, and a
/// stalled request before.
const QUIET: Duration = Duration::from_secs(240);
/// For how long what the sinks confirm is held, and how far they go back at most.
const HELD: Duration = Duration::from_secs(5);
const BACK: Duration = Duration::from_secs(4);
/// How long a new event may take after that.
const LIVELY: Duration = Duration::from_secs(10);

/// What outlives a bridge.
struct World<'p> {
    plan: &'p Plan,
    rng: Rng,
    server: InProcess,
    sinks: Vec<SimulatedSink>,
    disk: Arc<SimDisk>,
    /// How wrong our wall clock is, in milliseconds.
    wall_error_ms: Arc<AtomicI64>,
    network: Network,
    slow_ms: u64,
    /// The disk of this process will never be read again.
    reads_fail: bool,
    crashes: u32,
    lives: u64,
    /// When each bridge crashed, in simulated milliseconds since the Unix epoch.
    crashed_at_ms: Vec<u64>,
}

/// One process.
struct Life {
    bridge: JoinHandle<Result<(), RunError>>,
    driver: JoinHandle<()>,
    stop: CancellationToken,
    state: Arc<OnceLock<Arc<State>>>,
}

pub(super) async fn run(plan: &Plan) -> Report {
    let mut world = World::new(plan);
    let life = world.trouble().await;
    let (life, mut broken) = world.quiet(life).await;
    let metrics = life
        .state
        .get()
        .map(|state| state.render_metrics())
        .unwrap_or_default();
    broken.extend(world.stop(life).await);
    match Samples::parse(&metrics) {
        Ok(samples) => check::report(
            plan,
            &Seen {
                ledger: world.server.ledger(),
                stats: world.server.stats(),
                sinks: world.sinks.iter().map(SimulatedSink::stored).collect(),
                samples,
                crashes: world.crashes,
                crashed_at_ms: world.crashed_at_ms,
            },
            broken,
        ),
        Err(error) => Report {
            broken: vec![format!("no metrics: {error}")],
            ..Report::default()
        },
    }
}

impl<'p> World<'p> {
    fn new(plan: &'p Plan) -> World<'p> {
        let mut rng = Rng::with_seed(plan.seed ^ 0x5eed);
        let clock = Clock::simulated(BEGIN_MS);
        let config = SimConfig {
            seed: plan.seed,
            apps: vec![SimApp {
                app_id: APP_ID.to_owned(),
                auth: SimAuth::Open,
            }],
            regions: plan.regions.iter().map(|name| (*name).to_owned()).collect(),
            load: plan.load.clone(),
            faults: plan.faults.clone(),
            ..SimConfig::default()
        };
        let server = InProcess::new(&config, clock).expect("the plan's load makes sense");
        let mood = |rng: &mut Rng, first: bool| Mood {
            fails: if plan.sinks_fail { 0.2 } else { 0.0 },
            slow: Duration::from_millis(rng.u64(1..80)),
            refused: if first { plan.refused } else { 0.0 },
            poison: (first && plan.poison).then_some(POISON),
            exact: plan.exact,
            goes_back: plan.goes_back > 0.0,
            rng: Rng::with_seed(rng.u64(..)),
            ..Mood::default()
        };
        let sinks = vec![
            SimulatedSink::new(mood(&mut rng, true)),
            SimulatedSink::new(mood(&mut rng, false)),
        ];
        World {
            plan,
            server,
            sinks,
            disk: SimDisk::new(plan.seed),
            wall_error_ms: Arc::default(),
            network: plan.network.clone(),
            slow_ms: plan.slow_ms,
            reads_fail: false,
            crashes: 0,
            lives: 0,
            crashed_at_ms: Vec::new(),
            rng,
        }
    }

    /// Starts a process on what the last one left.
    fn start(&mut self) -> Life {
        self.lives += 1;
        self.reads_fail = false;
        let wall = {
            let (clock, error) = (self.server.clock().clone(), Arc::clone(&self.wall_error_ms));
            move || {
                clock
                    .unix_ms()
                    .saturating_add_signed(error.load(Ordering::Relaxed))
            }
        };
        self.sinks.iter().for_each(SimulatedSink::begin);
        let epoch = Epoch(self.plan.seed << 8 | self.lives);
        let options = Options {
            max_bytes: self.plan.journal_bytes,
            segment_bytes: self.plan.segment_bytes,
            tail_bytes: self.plan.tail_bytes,
            ..Options::default()
        };
        let (journal, driver) = journal(&self.disk, wall.clone(), options, epoch);
        let driver = tokio::spawn(drive(driver, self.rng.u64(0..self.slow_ms)));
        let source = SimulatedSource::new(
            self.server.clone(),
            APP_ID,
            &self.plan.regions,
            self.network.clone(),
            self.rng.u64(..),
        )
        .expect("the regions' names are names")
        .with_wall_clock(move || {
            let ms = i64::try_from(wall()).unwrap_or(i64::MAX);
            jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX)
        });
        let parts = SimulatedParts {
            source: Mutex::new(Some(source)),
            sinks: self.sinks.clone(),
        };
        let stop = CancellationToken::new();
        let state = Arc::new(OnceLock::new());
        let bridge = {
            let metrics = Arc::new(Metrics::new("1", "c"));
            let plan = bridge_plan(self.plan);
            let (stop, slot) = (stop.clone(), Arc::clone(&state));
            tokio::spawn(async move {
                let started = move |state| drop(slot.set(state));
                let plans = Plans::none();
                supervisor::run(parts, journal, metrics, plan, plans, started, stop).await
            })
        };
        Life {
            bridge,
            driver,
            stop,
            state,
        }
    }

    /// Everything that goes wrong, and the life that is left.
    async fn trouble(&mut self) -> Life {
        let mut life = self.start();
        let end = Instant::now() + self.plan.trouble;
        let mut ends: Vec<(Instant, End)> = self
            .plan
            .ends
            .iter()
            .map(|how| {
                (
                    Instant::now() + self.plan.trouble.mul_f64(self.rng.f64()),
                    *how,
                )
            })
            .collect();
        ends.sort_by_key(|(at, _)| *at);
        let mut ends = ends.into_iter().peekable();
        let mut jumps = self.plan.clock_jumps;
        let mut pushed = false;
        while Instant::now() < end {
            let step = Duration::from_millis(self.rng.u64(50..500));
            let next = ends
                .peek()
                .map_or(end, |(at, _)| *at)
                .min(Instant::now() + step);
            let poisoned = self.sinks[0].clone();
            tokio::select! {
                biased;
                () = poisoned.poisoned() => {
                    life = self.crash(life, End::Kill).await;
                    continue;
                }
                () = tokio::time::sleep_until(next) => {}
            }
            if ends.peek().is_some_and(|(at, _)| *at <= Instant::now())
                && let Some((_, how)) = ends.next()
            {
                life = if how == End::Stop {
                    let broken = self.stop(life).await;
                    assert!(broken.is_empty() || self.plan.disk_fails, "{broken:?}");
                    if !broken.is_empty() {
                        // What waits for a disk that fails is not given up: somebody has to kill it.
                        self.crashes += 1;
                        self.crashed_at_ms.push(self.server.clock().unix_ms());
                    }
                    self.start()
                } else {
                    self.crash(life, how).await
                };
            }
            self.meddle(&mut jumps);
            if self.plan.poison && !pushed {
                pushed = true;
                let event = format!(r#"{{"user_id":"{POISON}","type":"Login","ms":{BEGIN_MS}}}"#);
                self.server
                    .push(APP_ID, self.plan.regions[0], Stream::User, &[&event]);
            }
        }
        life
    }

    /// Small trouble: sinks that go away and come back, a disk that fails for a while, a wall clock that is moved.
    fn meddle(&mut self, jumps: &mut usize) {
        if self.plan.sinks_fail {
            for sink in &self.sinks {
                let away = self.rng.f64() < 0.2;
                sink.change(|mood| mood.away = away);
            }
        }
        for sink in &self.sinks {
            if self.plan.goes_back > 0.0 && self.rng.f64() < self.plan.goes_back {
                sink.go_back(BACK);
            }
        }
        self.meddle_with_disk();
        if *jumps > 0 && self.rng.f64() < 0.2 {
            *jumps -= 1;
            let hour = 3_600_000;
            self.wall_error_ms
                .store(self.rng.i64(-hour..=hour), Ordering::Relaxed);
        }
    }

    fn meddle_with_disk(&mut self) {
        if self.reads_fail {
            return;
        }
        let fails_to_write = self.plan.disk_fails && self.rng.f64() < 0.3;
        let fails_to_read = match self.plan.reads {
            Reads::Work => false,
            Reads::FailForATime => self.rng.f64() < 0.3,
            // It begins with some of the process's own entries.
            Reads::FailForEver => self.rng.f64() < 0.1,
        };
        if !fails_to_write && !fails_to_read {
            self.disk.heal();
            return;
        }
        self.reads_fail = fails_to_read && self.plan.reads == Reads::FailForEver;
        let mut errors = READ_ERRORS.to_vec();
        // A segment that fails for ever with EIO, and no other, is lost in the end.
        errors.retain(|error| !self.reads_fail || *error != Errno::IO);
        let error = self.rng.choice(errors).expect("there are errors");
        let every = self.rng.u32(1..3);
        let mut rng = Rng::with_seed(self.rng.u64(..));
        let share = self.rng.f64();
        self.disk.fail(move |op, segment| match op {
            Op::Read => (fails_to_read && segment % every == 0).then(|| error.into()),
            Op::List => None,
            _ if !fails_to_write || rng.f64() >= share => None,
            _ if rng.bool() => Some(std::io::Error::from(std::io::ErrorKind::StorageFull)),
            _ => Some(std::io::ErrorKind::Other.into()),
        });
    }

    /// Ends a process as nobody wants it to end, and starts the next.
    async fn crash(&mut self, life: Life, how: End) -> Life {
        self.crashes += 1;
        self.crashed_at_ms.push(self.server.clock().unix_ms());
        life.driver.abort();
        life.bridge.abort();
        let _ = life.driver.await;
        let _ = life.bridge.await;
        drop(life.state);
        // What it had spawned goes with it.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        self.disk = match how {
            End::PowerLoss => self.disk.after_random_power_loss(),
            End::Kill | End::Stop => self.disk.after_kill(),
        };
        sleep(Duration::from_millis(self.rng.u64(0..300))).await;
        self.start()
    }

    /// No more trouble: everything must arrive, and so must something new.
    async fn quiet(&mut self, mut life: Life) -> (Life, Vec<String>) {
        self.server.set_faults(Faults::default());
        self.server.stop_generating();
        self.disk.heal();
        for sink in &self.sinks {
            sink.change(|mood| {
                mood.away = false;
                mood.fails = 0.0;
            });
        }
        // The network belongs to the source, and that to a process.
        self.network = Network::default();
        self.slow_ms = 8;
        let broken = self.stop(life).await;
        if !broken.is_empty() {
            return (self.start(), broken);
        }
        life = self.start();
        let poisoned = self.sinks[0].clone();
        let deadline = Instant::now() + QUIET;
        while !self.is_quiet(&life) {
            if Instant::now() > deadline {
                return (
                    life,
                    vec![format!("not everything arrives within {QUIET:?}")],
                );
            }
            tokio::select! {
                biased;
                () = poisoned.poisoned() => life = self.crash(life, End::Kill).await,
                () = sleep(Duration::from_millis(200)) => {}
            }
        }
        let before: Vec<usize> = self.sinks.iter().map(SimulatedSink::len).collect();
        let event = format!(
            r#"{{"user_id":"new","type":"Login","ms":{}}}"#,
            BEGIN_MS + 7
        );
        self.server
            .push(APP_ID, self.plan.regions[0], Stream::User, &[&event]);
        let deadline = Instant::now() + LIVELY;
        let arrived = |sinks: &[SimulatedSink]| {
            let mut both = sinks.iter().zip(&before);
            both.all(|(sink, before)| sink.len() > *before)
        };
        while !(arrived(&self.sinks) && self.is_quiet(&life)) {
            if Instant::now() > deadline {
                return (
                    life,
                    vec![format!("a new event does not arrive within {LIVELY:?}")],
                );
            }
            sleep(Duration::from_millis(50)).await;
        }
        (life, Vec::new())
    }

    fn is_quiet(&self, life: &Life) -> bool {
        let waiting: u64 = self
            .server
            .stats()
            .rings
            .iter()
            .map(|ring| ring.waiting)
            .sum();
        let Some(state) = life.state.get() else {
            return false;
        };
        let stats = state.journal.stats();
        let readers = stats.lanes.iter().flat_map(|lane| &lane.readers);
        let pending: u64 = readers
            .filter(|reader| SINKS.contains(&reader.name.as_str()))
            .map(|reader| reader.pending_entries)
            .sum();
        waiting == 0 && pending == 0
    }

    /// SIGTERM: it must end by itself, with success.
    async fn stop(&mut self, life: Life) -> Vec<String> {
        life.stop.cancel();
        // A request may take its whole deadline, and the sinks theirs.
        let mut bridge = life.bridge;
        let ended = tokio::time::timeout(Duration::from_secs(60), &mut bridge).await;
        bridge.abort();
        life.driver.abort();
        let _ = life.driver.await;
        // The page cache is the machine's, not the process's.
        self.disk = self.disk.after_kill();
        match ended {
            Ok(Ok(Ok(()))) => Vec::new(),
            Ok(Ok(Err(error))) => vec![format!("the bridge ended with {error}")],
            Ok(Err(panic)) => vec![format!("the bridge panicked: {panic}")],
            Err(_) => vec!["the bridge does not end".to_owned()],
        }
    }
}

/// Opens the journal of a simulated disk, as `options` say of its sizes. `wall` is the time of day.
pub(super) fn journal(
    disk: &Arc<SimDisk>,
    wall: impl Fn() -> u64 + Send + Sync + 'static,
    options: Options,
    epoch: Epoch,
) -> (Journal, Driver) {
    let clock = move || -> SystemTime { UNIX_EPOCH + Duration::from_millis(wall()) };
    let options = Options {
        min_free_bytes: 0,
        clock: Some(Arc::new(clock)),
        monotonic: Some(Arc::new(|| Instant::now().into_std())),
        epoch: Some(epoch),
        ..options
    };
    Journal::open_driven(Arc::clone(disk), options).expect("every crash opens again")
}

/// The journal's writer, whose disk takes up to `slow_ms` for everything it is asked to do together.
pub(super) async fn drive(mut driver: Driver, slow_ms: u64) {
    loop {
        let until = driver.step();
        match until {
            Some(at) => tokio::select! {
                // Both may be ready, and one seed is one run.
                biased;
                () = driver.woken() => {}
                () = tokio::time::sleep_until(at.into()) => {}
            },
            None => driver.woken().await,
        }
        sleep(Duration::from_millis(slow_ms)).await;
    }
}

/// What the bridge is to do.
fn bridge_plan(plan: &Plan) -> BridgePlan<SimulatedParts> {
    let routes = routes();
    let sink = |index: usize| SinkPlan {
        name: SINKS[index].to_owned(),
        kind: "simulated",
        title: format!("the sink {}", SINKS[index]),
        routes: routes.clone(),
        hold: if plan.goes_back > 0.0 {
            HELD
        } else {
            Duration::ZERO
        },
        skips_when_full: index == 1 && plan.skips,
        apps: None,
        streams: rtm_source::Stream::ALL.to_vec(),
        client: index,
    };
    BridgePlan {
        apps: vec![AppPlan {
            name: APP.to_owned(),
            app_id: APP_ID.to_owned(),
            paused: false,
            requests_per_second: 10,
            copy_rule: (plan.regions.len() > 1).then_some(CopyRule {
                window: Duration::from_secs(60),
                drops: plan.drops_copies,
            }),
            source: (),
        }],
        sinks: (0..SINKS.len()).map(sink).collect(),
        drain_deadline: Duration::from_secs(10),
    }
}

/// Where records go in a simulation.
pub(super) fn routes() -> Routes {
    let template = |text| Template::parse(text, STATIC).expect("a constant");
    Routes {
        topic: template("{stream}_events"),
        dead_letters: template(DEAD_LETTERS),
        key: KeyBy::Auto,
        headers: false,
    }
}

/// One process's source and sinks, of which the sinks outlive it.
struct SimulatedParts {
    /// Taken by the one App ID.
    source: Mutex<Option<SimulatedSource>>,
    sinks: Vec<SimulatedSink>,
}

impl Parts for SimulatedParts {
    type Source = SimulatedSource;
    type SourceSpec = ();
    /// Which of the sinks.
    type ClientSpec = usize;

    async fn source(&self, (): &()) -> Result<SimulatedSource, BoxError> {
        let source = self
            .source
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        source.ok_or_else(|| "there is one App ID".into())
    }

    async fn client(&self, _: &str, index: &usize) -> Result<AnySink, BoxError> {
        Ok(AnySink::new(Arc::new(self.sinks[*index].clone())))
    }

    fn is_same_client(&self, old: &usize, new: &usize) -> bool {
        old == new
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::changing::bulky_page;
    use super::super::plan::Plan;
    use super::*;

    /// Fills the journal while the second sink is away, and says how many events wait at Agora, how many reached the first
    /// sink, and how many the second one skipped.
    async fn fill(skips: bool, exact: Option<usize>, is_down: bool) -> (u64, usize, u64) {
        let mut plan = Plan::of(0);
        plan = Plan {
            regions: vec!["eu"],
            network: Network::default(),
            faults: Faults::default(),
            load: rtm_sim::Load {
                events_per_second: 0.0,
                ..plan.load
            },
            drops_copies: false,
            sinks_fail: false,
            refused: 0.0,
            disk_fails: false,
            poison: false,
            skips,
            // What is held takes no room.
            goes_back: 1.0,
            journal_bytes: 24 << 20,
            exact,
            ..plan
        };
        let mut world = World::new(&plan);
        let life = world.start();
        world.sinks[1].change(|mood| mood.away = !is_down);
        let mut rng = Rng::with_seed(1);
        for page in 0..24 {
            // Once it has published, it asks for a call, and not for where it is.
            world.sinks[1].change(|mood| mood.down = is_down && page > 0);
            let page = bulky_page(&mut rng);
            let events: Vec<&str> = page.iter().map(String::as_str).collect();
            world.server.push(APP_ID, "eu", Stream::User, &events);
            sleep(Duration::from_secs(2)).await;
        }
        let waiting = world
            .server
            .stats()
            .rings
            .iter()
            .map(|ring| ring.waiting)
            .sum();
        let first = world.sinks[0].len();
        world.sinks[1].change(|mood| (mood.away, mood.down) = (false, false));
        let deadline = Instant::now() + QUIET;
        while !world.is_quiet(&life) {
            assert!(Instant::now() < deadline, "it does not become quiet");
            sleep(Duration::from_millis(200)).await;
        }
        let samples = Samples::parse(&life.state.get().unwrap().render_metrics()).unwrap();
        let of = |name: &str| samples.sum(name, &[("sink", SINKS[1])]).unwrap();
        let skipped = samples
            .sum(
                "rtm_bridge_records_dropped_total",
                &[("sink", SINKS[1]), ("reason", "skipped")],
            )
            .unwrap();
        assert_eq!(
            of("rtm_bridge_events_stored_total"),
            of("rtm_bridge_records_confirmed_total") + skipped
        );
        assert_eq!(world.stop(life).await, Vec::<String>::new());
        let stored = world.sinks[1].stored();
        let ids: std::collections::HashSet<_> = stored.iter().map(|record| record.id).collect();
        assert!(exact.is_none() || ids.len() == stored.len(), "some twice");
        (waiting, first, skipped as u64)
    }

    /// Holds: an entry is kept until every cursor is durably behind it, so that a crash finds what its cursors point to,
    /// though sinks confirm while a slow disk writes, and each write frees a segment.
    #[test]
    fn a_crash_finds_what_its_cursors_point_to() {
        for seed in 1..=20 {
            let plan = Plan {
                trouble: Duration::from_secs(16),
                ends: vec![End::PowerLoss; 20],
                slow_ms: 200,
                segment_bytes: 512,
                disk_fails: false,
                poison: false,
                reads: Reads::Work,
                ..Plan::of(seed)
            };
            let report = super::super::run_plan(&plan);
            assert_eq!(report.broken, Vec::<String>::new(), "seed {seed}");
        }
    }

    fn paused<T>(run: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(run)
    }

    /// Holds: a full journal stops the polling, and nothing that is stored is given up; where the sink that lags may skip,
    /// polling goes on, the other sink has everything, and what was given up is counted.
    #[test]
    fn a_full_journal_stops_or_skips() {
        // A call hangs, or fails at once: where records are stored once, its outcome is asked for then.
        for (exact, is_down) in [(None, false), (Some(500), false), (Some(500), true)] {
            let (waiting, first, skipped) = paused(fill(false, exact, is_down));
            assert!(waiting > 0, "polling stops");
            assert!(first < 24 * 900);
            assert_eq!(skipped, 0);
            let (waiting, first, skipped) = paused(fill(true, exact, is_down));
            assert_eq!(waiting, 0, "polling goes on");
            assert_eq!(first, 24 * 900);
            assert!(skipped > 0, "something was skipped");
        }
    }
}

//! A bridge in simulated time whose plan changes while it runs, and what tests of that ask: any number of App IDs and sinks,
//! events that are numbered in their rings, and the plan that the test proposes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use rtm_engine::plan::{AppPlan, BoxError, Parts, Plan, Planner, Plans, RunError, SinkPlan};
use rtm_engine::status::State;
use rtm_engine::status::metrics::Metrics;
use rtm_engine::supervisor;
use rtm_journal::sim::SimDisk;
use rtm_journal::{Epoch, Options};
use rtm_sim::{Clock, InProcess, Load, SimApp, SimAuth, SimConfig, Stream};
use rtm_sink::{AnySink, Record};
use rtm_source::{Fetch, FetchError, Page, Ring, Slot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::sink::{Mood, SimulatedSink};
use super::source::{Network, SimulatedSource};
use super::world::{BEGIN_MS, drive, journal, routes};
use crate::bridge::Metrics as Samples;

/// The regions that there are.
pub const REGIONS: [&str; 2] = ["eu", "us"];

/// How often a condition is looked at, in simulated time.
const LOOK: Duration = Duration::from_millis(20);

/// How long a bridge may take to end: a request may take its whole deadline, and the sinks theirs.
const SHUTDOWN: Duration = Duration::from_secs(60);

/// What the plan of a changing bridge is.
pub type ChangingPlan = Plan<Changing>;
/// An App ID of it.
pub type App = AppPlan<Polled>;
/// A sink of it. Its client is told by a number: another number is another client, of the same store.
pub type Into = SinkPlan<u32>;

/// A bridge, and what outlives it.
pub struct ChangingBridge {
    /// Agora.
    pub server: InProcess,
    /// The most bytes of the journal.
    pub journal_bytes: u64,
    disk: Arc<SimDisk>,
    sinks: Sinks,
    /// How many events each ring was given.
    given: BTreeMap<RingName, u64>,
    lives: u64,
    life: Option<Life>,
}

/// App ID, region and stream.
type RingName = (String, String, String);

/// One process.
struct Life {
    bridge: JoinHandle<Result<(), RunError>>,
    driver: JoinHandle<()>,
    stop: CancellationToken,
    planner: Planner<Changing>,
    state: Arc<State>,
}

/// An App ID of this name, which reads the first region over a network that fails never.
#[must_use]
pub fn app(app_id: &str, name: &str) -> App {
    AppPlan {
        name: name.to_owned(),
        app_id: app_id.to_owned(),
        paused: false,
        requests_per_second: 10,
        copy_rule: None,
        source: Polled {
            app_id: app_id.to_owned(),
            regions: REGIONS[..1].to_vec(),
            network: Network::default(),
            panics: Panics::default(),
        },
    }
}

/// [`app`] whose requests take between `least` and `most` milliseconds in each direction.
#[must_use]
pub fn slow_app(app_id: &str, name: &str, least: u64, most: u64) -> App {
    let mut app = app(app_id, name);
    app.source.network.delay = [Duration::from_millis(least), Duration::from_millis(most)];
    app
}

/// A sink that takes everything, with the `client`-th of its clients.
#[must_use]
pub fn sink(name: &str, client: u32) -> Into {
    SinkPlan {
        name: name.to_owned(),
        kind: "simulated",
        title: format!("the sink {name}"),
        routes: routes(),
        hold: Duration::ZERO,
        skips_when_full: false,
        apps: None,
        streams: rtm_source::Stream::ALL.to_vec(),
        client,
    }
}

/// A plan. Sinks that end have two seconds.
#[must_use]
pub fn plan(apps: &[App], sinks: &[Into]) -> ChangingPlan {
    Plan {
        apps: apps.to_vec(),
        sinks: sinks.to_vec(),
        drain_deadline: Duration::from_secs(2),
    }
}

impl ChangingBridge {
    /// The world of these App IDs, in which no bridge runs yet.
    ///
    /// # Panics
    ///
    /// When the simulator cannot be made.
    #[must_use]
    pub fn new(app_ids: &[&str]) -> ChangingBridge {
        fastrand::seed(1);
        let apps = app_ids.iter().map(|app_id| SimApp {
            app_id: (*app_id).to_owned(),
            auth: SimAuth::Open,
        });
        let config = SimConfig {
            apps: apps.collect(),
            regions: REGIONS.map(str::to_owned).to_vec(),
            load: Load {
                events_per_second: 0.0,
                ..Load::default()
            },
            ..SimConfig::default()
        };
        let server = InProcess::new(&config, Clock::simulated(BEGIN_MS));
        ChangingBridge {
            server: server.expect("the configuration makes sense"),
            journal_bytes: 256 << 20,
            disk: SimDisk::new(1),
            sinks: Sinks::default(),
            given: BTreeMap::new(),
            lives: 0,
            life: None,
        }
    }

    /// A world in which a bridge runs by this plan.
    pub async fn running(app_ids: &[&str], plan: ChangingPlan) -> ChangingBridge {
        let mut bridge = ChangingBridge::new(app_ids);
        bridge.start(plan).await;
        bridge
    }

    /// Starts a process on what the last one left.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub async fn start(&mut self, plan: ChangingPlan) {
        self.lives += 1;
        let clock = self.server.clock().clone();
        let options = Options {
            max_bytes: self.journal_bytes,
            segment_bytes: 64 << 10,
            ..Options::default()
        };
        let (journal, driver) = journal(
            &self.disk,
            move || clock.unix_ms(),
            options,
            Epoch(self.lives),
        );
        let driver = tokio::spawn(drive(driver, 1));
        let parts = Changing {
            server: self.server.clone(),
            sinks: self.sinks.clone(),
        };
        let (planner, plans) = Plans::channel();
        let stop = CancellationToken::new();
        let slot = Arc::new(OnceLock::new());
        let bridge = tokio::spawn({
            let (slot, stop) = (Arc::clone(&slot), stop.clone());
            let metrics = Arc::new(Metrics::new("1", "c"));
            let started = move |state| drop(slot.set(state));
            supervisor::run(parts, journal, metrics, plan, plans, started, stop)
        });
        let deadline = Instant::now() + Duration::from_secs(5);
        let state = loop {
            if let Some(state) = slot.get() {
                break Arc::clone(state);
            }
            assert!(
                Instant::now() < deadline && !bridge.is_finished(),
                "the bridge does not start"
            );
            sleep(LOOK).await;
        };
        self.life = Some(Life {
            bridge,
            driver,
            stop,
            planner,
            state,
        });
    }

    /// Ends the process as SIGTERM does.
    ///
    /// # Panics
    ///
    /// When none runs, or it does not end well.
    pub async fn stop(&mut self) {
        let life = self.life.take().expect("a bridge runs");
        life.stop.cancel();
        let ended = tokio::time::timeout(SHUTDOWN, life.bridge).await;
        life.driver.abort();
        let _ = life.driver.await;
        self.disk = self.disk.after_kill();
        let ended = ended.expect("the bridge ends in time");
        ended
            .expect("the bridge does not panic")
            .expect("the bridge ends well");
    }

    /// Ends the process's journal, as a bug in it would, and says how the process ends.
    ///
    /// # Panics
    ///
    /// When none runs, or it does not end.
    pub async fn lose_journal(&mut self) -> Result<(), RunError> {
        let life = self.life.take().expect("a bridge runs");
        life.driver.abort();
        let _ = life.driver.await;
        let ended = tokio::time::timeout(SHUTDOWN, life.bridge).await;
        let ended = ended.expect("the bridge ends in time");
        self.disk = self.disk.after_kill();
        ended.expect("the bridge does not panic")
    }

    /// Proposes a plan.
    ///
    /// # Errors
    ///
    /// As [`Planner::propose`].
    pub async fn propose(&self, plan: ChangingPlan) -> Result<(), RunError> {
        self.life().planner.propose(plan).await
    }

    /// Has the bridge take a plan.
    ///
    /// # Panics
    ///
    /// When it does not.
    pub async fn take(&self, plan: ChangingPlan) {
        self.propose(plan).await.expect("the plan is taken");
    }

    fn life(&self) -> &Life {
        self.life.as_ref().expect("a bridge runs")
    }

    /// The state of the bridge that runs.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.life().state
    }

    /// A client of the sink of this name, whether it is made already or not.
    #[must_use]
    pub fn client(&self, sink: &str, client: u32) -> SimulatedSink {
        self.sinks.client(sink, client)
    }

    /// Gives a ring of the first region `count` more events, numbered.
    pub fn give(&mut self, app_id: &str, stream: Stream, count: u64) {
        let ring = (
            app_id.to_owned(),
            REGIONS[0].to_owned(),
            stream.as_str().to_owned(),
        );
        let given = self.given.entry(ring).or_default();
        let numbers = *given..*given + count;
        let events: Vec<String> = numbers.map(|number| event(stream, number)).collect();
        *given += count;
        self.push(app_id, REGIONS[0], stream, &events);
    }

    /// Puts events into a ring, which are not counted as [`given`](Self::give).
    pub fn push(&self, app_id: &str, region: &str, stream: Stream, events: &[String]) {
        let events: Vec<&str> = events.iter().map(String::as_str).collect();
        self.server.push(app_id, region, stream, &events);
    }

    /// Waits until a condition holds.
    ///
    /// # Panics
    ///
    /// When it does not within `deadline` of simulated time.
    pub async fn until(
        &self,
        what: &str,
        deadline: Duration,
        mut holds: impl FnMut(&Self) -> bool,
    ) {
        let end = Instant::now() + deadline;
        while !holds(self) {
            assert!(Instant::now() < end, "not within {deadline:?}: {what}");
            sleep(LOOK).await;
        }
    }

    /// Events of an App ID that wait at Agora.
    #[must_use]
    pub fn waiting(&self, app_id: &str) -> u64 {
        let rings = self.server.stats().rings.into_iter();
        let own = rings.filter(|ring| ring.app_id == app_id);
        own.map(|ring| ring.waiting).sum()
    }

    /// Events in the journal that a sink has not had of an App ID.
    #[must_use]
    pub fn pending(&self, app_id: &str, sink: &str) -> u64 {
        let stats = self.state().journal.stats();
        let lanes = stats.lanes.iter();
        let readers = lanes
            .filter(|lane| lane.name.as_str() == app_id)
            .flat_map(|lane| &lane.readers);
        readers
            .filter(|reader| reader.name.as_str() == sink)
            .map(|reader| reader.pending_count)
            .sum()
    }

    /// The metrics now.
    ///
    /// # Panics
    ///
    /// When they are none.
    #[must_use]
    pub fn metrics(&self) -> Samples {
        Samples::parse(&self.state().render_metrics()).expect("metrics")
    }

    /// The sum of the series of this name and these labels; none where there is no such series.
    #[must_use]
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.metrics().sum(name, labels).ok()
    }

    /// The names and labels of all series.
    #[must_use]
    pub fn series(&self) -> BTreeSet<String> {
        let metrics = self.metrics();
        metrics
            .iter()
            .map(|(series, _)| series.to_owned())
            .collect()
    }

    /// What `/readyz` says.
    ///
    /// # Panics
    ///
    /// When it cannot be written.
    #[must_use]
    pub fn readiness(&self) -> String {
        serde_json::to_string(&self.state().readiness()).expect("it can be written")
    }

    /// What the status page says, each finding a line.
    #[must_use]
    pub fn findings(&self) -> String {
        let findings = self.state().report(None).findings.into_iter();
        let texts: Vec<String> = findings.map(|finding| finding.text).collect();
        texts.join("\n")
    }

    /// How many records a sink holds.
    #[must_use]
    pub fn stored(&self, sink: &str) -> usize {
        self.client(sink, 0).len()
    }

    /// What is wrong with what a sink holds of the events that rings were [given](Self::give): but for those that still wait
    /// at Agora they are to be there once each, in the order of their rings.
    #[must_use]
    pub fn wrong(&self, sink: &str) -> Vec<String> {
        let mut held = numbers(&self.client(sink, 0).stored());
        let mut wrong = Vec::new();
        let rings = self.server.stats().rings;
        for (ring, given) in &self.given {
            let own = rings.iter().find(|other| {
                (&other.app_id, &other.region, other.stream.as_str()) == (&ring.0, &ring.1, &ring.2)
            });
            let given = given - own.map_or(0, |own| own.waiting);
            let held = held.remove(ring).unwrap_or_default();
            let distinct: BTreeSet<u64> = held.iter().copied().collect();
            let missing = given.saturating_sub(distinct.len() as u64);
            let doubled = held.len() - distinct.len();
            let swapped = held.windows(2).filter(|pair| pair[0] > pair[1]).count();
            if missing > 0 || doubled > 0 || swapped > 0 {
                wrong.push(format!(
                    "{sink}: of {given} events of {ring:?} {missing} are missing, {doubled} doubled, {swapped} out of order"
                ));
            }
        }
        wrong
    }

    /// Whether a sink holds so many events of an App ID as its rings were given, or more.
    #[must_use]
    pub fn has_all(&self, sink: &str, app_id: &str) -> bool {
        let mut own = self.given.iter().filter(|(ring, _)| ring.0 == app_id);
        if (self.stored(sink) as u64) < own.clone().map(|(_, given)| given).sum() {
            return false;
        }
        let held = numbers(&self.client(sink, 0).stored());
        own.all(|(ring, given)| {
            held.get(ring)
                .is_some_and(|held| held.len() as u64 >= *given)
        })
    }

    /// Every App ID that had more requests in a second than Agora allows.
    #[must_use]
    pub fn too_fast(&self) -> Vec<String> {
        let apps = self.server.stats().apps.into_iter();
        let fast = apps.filter(|app| app.max_in_second > 10 || app.refused_429 > 0);
        fast.map(|app| format!("{app:?}")).collect()
    }
}

/// The `number`-th event of a ring.
#[must_use]
pub fn event(stream: Stream, number: u64) -> String {
    let (ms, user) = (BEGIN_MS + number, number % 97);
    match stream {
        Stream::User => format!(r#"{{"user_id":"u{user}","type":"Login","ms":{ms}}}"#),
        Stream::Channel => {
            format!(r#"{{"group_id":"g","user_id":"u{user}","type":"Join","ms":{ms}}}"#)
        }
    }
}

/// Events that nothing compresses, a page of nearly 2 MiB.
pub fn bulky_page(rng: &mut Rng) -> Vec<String> {
    let event = |_| {
        let noise = std::iter::repeat_with(|| rng.alphanumeric());
        let noise: String = noise.take(1_900).collect();
        format!(r#"{{"user_id":"u","type":"Login","ms":{BEGIN_MS},"noise":"{noise}"}}"#)
    };
    (0..900).map(event).collect()
}

/// The numbers of all events, by ring, in the order in which they are stored.
fn numbers(records: &[Record]) -> BTreeMap<RingName, Vec<u64>> {
    #[derive(serde::Deserialize)]
    struct Numbered {
        ms: u64,
    }
    let mut numbers: BTreeMap<RingName, Vec<u64>> = BTreeMap::new();
    for record in records {
        let Ok(envelope) = rtm_sim::parse_envelope(&record.payload) else {
            continue;
        };
        let Ok(Numbered { ms }) = serde_json::from_str(envelope.event.get()) else {
            continue;
        };
        let ring = (
            envelope.app_id.to_string(),
            envelope.region.to_string(),
            envelope.stream.to_string(),
        );
        numbers.entry(ring).or_default().push(ms - BEGIN_MS);
    }
    numbers
}

/// The clients of all sinks, each made when it is first asked for. Those of one sink share its store.
#[derive(Clone, Default)]
struct Sinks(Arc<Mutex<BTreeMap<(String, u32), SimulatedSink>>>);

impl Sinks {
    fn client(&self, name: &str, client: u32) -> SimulatedSink {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = clients
            .entry((name.to_owned(), 0))
            .or_insert_with(|| SimulatedSink::new(Mood::default()))
            .clone();
        let own = clients.entry((name.to_owned(), client));
        own.or_insert_with(|| first.another()).clone()
    }
}

/// Makes the sources and sinks of a changing bridge.
pub struct Changing {
    server: InProcess,
    sinks: Sinks,
}

/// What a source is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Polled {
    /// The App ID.
    pub app_id: String,
    /// Its regions.
    pub regions: Vec<&'static str>,
    /// The network on the way there.
    pub network: Network,
    /// Where it is to panic.
    pub panics: Panics,
}

impl Parts for Changing {
    type Source = ChangingSource;
    type SourceSpec = Polled;
    type ClientSpec = u32;

    async fn source(&self, spec: &Polled) -> Result<ChangingSource, BoxError> {
        let source = SimulatedSource::new(
            self.server.clone(),
            &spec.app_id,
            &spec.regions,
            spec.network.clone(),
            1,
        )?;
        Ok(ChangingSource {
            source,
            panics: spec.panics.clone(),
            made_in: tokio::task::try_id(),
        })
    }

    async fn client(&self, name: &str, client: &u32) -> Result<AnySink, BoxError> {
        Ok(AnySink::new(Arc::new(self.sinks.client(name, *client))))
    }

    fn is_same_client(&self, old: &u32, new: &u32) -> bool {
        old == new
    }
}

/// A source that panics when it is told to.
#[derive(Debug)]
pub struct ChangingSource {
    source: SimulatedSource,
    panics: Panics,
    /// The supervisor's task, in which it does not panic.
    made_in: Option<tokio::task::Id>,
}

/// Tells a source to panic, once. Clones are one.
#[derive(Debug, Clone, Default)]
pub struct Panics(Arc<AtomicU8>);

/// Nothing is asked for, or it has happened.
const NOWHERE: u8 = 0;
const IN_RINGS: u8 = 1;
const IN_CREDENTIALS: u8 = 2;
/// The panic has happened, and the credentials are new.
const CREDENTIALS_ARE_NEW: u8 = 3;

impl PartialEq for Panics {
    fn eq(&self, other: &Panics) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Panics {
    /// When a polling loop next asks for the rings.
    pub fn in_rings(&self) {
        self.0.store(IN_RINGS, Ordering::Relaxed);
    }

    /// When a polling loop next asks whether the credentials have changed. The next time after that they have.
    pub fn in_credentials(&self) {
        self.0.store(IN_CREDENTIALS, Ordering::Relaxed);
    }

    /// Whether it has still to happen.
    #[must_use]
    pub fn is_to_come(&self) -> bool {
        [IN_RINGS, IN_CREDENTIALS].contains(&self.0.load(Ordering::Relaxed))
    }

    fn happens(&self, place: u8, then: u8) -> bool {
        let order = Ordering::Relaxed;
        self.0.compare_exchange(place, then, order, order).is_ok()
    }
}

impl Fetch for ChangingSource {
    fn rings(&self) -> &[Ring] {
        let task = tokio::task::try_id();
        let is_polling = task.is_some() && task != self.made_in;
        assert!(
            !is_polling || !self.panics.happens(IN_RINGS, NOWHERE),
            "the source panics when it is asked for its rings"
        );
        self.source.rings()
    }

    fn credentials_changed(&self) -> bool {
        assert!(
            !self.panics.happens(IN_CREDENTIALS, CREDENTIALS_ARE_NEW),
            "the source panics when it is asked for its credentials"
        );
        self.panics.happens(CREDENTIALS_ARE_NEW, NOWHERE)
    }

    async fn fetch(&self, ring: &Ring, slot: Slot) -> Result<Page, FetchError> {
        self.source.fetch(ring, slot).await
    }
}

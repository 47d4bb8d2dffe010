//! Agora over a network that is simulated: the shipped limiter and verdicts, the simulator's server, and between them
//! delays, resets, cuts and silence, as a seed decides.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use jiff::Timestamp;
use reqwest::header::{HeaderName, HeaderValue};
use rtm_engine::page::MAX_PAGE_BYTES;
use rtm_sim::{Exchange, InProcess, WireEnd};
use rtm_source::{
    BoxError, Ending, Fetch, FetchError, HeaderMap, NoResponse, Page, Region, RegionError,
    Response, Ring, Slot, Stream,
};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

/// The time a request has, as in [`rtm_source::SourceOptions::deadline`].
const DEADLINE: Duration = Duration::from_secs(30);

/// The most headers that the real client takes, and about the most bytes.
const MAX_HEADERS: usize = 1_000;
const MAX_HEADER_BYTES: usize = 400 << 10;

/// How long after the deadline a request may still arrive: a closed connection's last packets, well within the grace
/// that the limiter gives them.
const STRAGGLES: Duration = Duration::from_secs(4);

/// What the network does. Shares are of all requests, 0 to 1, and exclude each other. Default: nothing, without delay.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Network {
    /// The least and the most that a packet takes, drawn anew for each direction.
    pub delay: [Duration; 2],
    /// The share whose connection fails: not sent.
    pub unconnected: f64,
    /// The share whose connection is reset before the headers; half of them before the request arrives, half after it
    /// was answered.
    pub reset: f64,
    /// The share whose connection is reset in the middle of the body.
    pub cut: f64,
    /// The share whose body stops in the middle until the deadline.
    pub stall: f64,
    /// The share that hears nothing until the deadline: a third never arrives, a third arrives after it, and of a third
    /// the answer is lost.
    pub silence: f64,
}

/// [`Fetch`] on [`InProcess`] over a simulated [`Network`].
///
/// All its chance comes from one generator, in the order of the calls: on one thread with paused time the same seed
/// gives the same pages. Its credentials are none, so the App ID has to be open.
pub struct SimulatedSource {
    server: InProcess,
    rings: Vec<Ring>,
    app_id: String,
    network: Mutex<Network>,
    chance: Mutex<Rng>,
    wall: Box<dyn Fn() -> Timestamp + Send + Sync>,
}

/// One request's way, decided before it sets out.
struct Trip {
    up: Duration,
    down: Duration,
    fate: Fate,
    /// Where in the body it ends early, as a share.
    at: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Arrives,
    Unconnected,
    ResetBefore,
    ResetAfter,
    Cut,
    Stall,
    Swallowed,
    Late,
    Unheard,
}

impl SimulatedSource {
    /// Reads both streams of `regions` of an App ID at `server`.
    ///
    /// # Errors
    ///
    /// [`RegionError`] for a name that a region cannot have.
    pub fn new(
        server: InProcess,
        app_id: &str,
        regions: &[&str],
        network: Network,
        seed: u64,
    ) -> Result<SimulatedSource, RegionError> {
        let mut rings = Vec::new();
        for name in regions {
            let region = Arc::new(Region::new(
                name,
                &format!("http://127.0.0.1/{name}"),
                false,
            )?);
            rings.extend(Stream::ALL.map(|stream| Ring {
                region: Arc::clone(&region),
                stream,
            }));
        }
        let clock = server.clock().clone();
        let wall =
            move || Timestamp::from_millisecond(clock.unix_ms() as i64).unwrap_or(Timestamp::MAX);
        Ok(SimulatedSource {
            server,
            rings,
            app_id: app_id.to_owned(),
            network: Mutex::new(network),
            chance: Mutex::new(Rng::with_seed(seed)),
            wall: Box::new(wall),
        })
    }

    /// Takes the time of day of its pages from `wall`, which may be wrong. Without this it is the server's.
    #[must_use]
    pub fn with_wall_clock(
        self,
        wall: impl Fn() -> Timestamp + Send + Sync + 'static,
    ) -> SimulatedSource {
        SimulatedSource {
            wall: Box::new(wall),
            ..self
        }
    }

    /// What the network does to requests from now on.
    pub fn set_network(&self, network: Network) {
        *lock(&self.network) = network;
    }

    /// Nothing of this depends on what becomes of the request, so that one that differs changes no other.
    fn trip(&self) -> Trip {
        let network = lock(&self.network).clone();
        let mut chance = lock(&self.chance);
        let [least, most] = network.delay.map(|delay| delay.as_micros() as u64);
        let delay = |chance: &mut Rng| Duration::from_micros(chance.u64(least..=most.max(least)));
        let (up, down) = (delay(&mut chance), delay(&mut chance));
        let (roll, pick, at) = (chance.f64(), chance.usize(..6), chance.f64());
        let fates = [
            (network.unconnected, Fate::Unconnected),
            (
                network.reset,
                [Fate::ResetBefore, Fate::ResetAfter][pick % 2],
            ),
            (network.cut, Fate::Cut),
            (network.stall, Fate::Stall),
            (
                network.silence,
                [Fate::Swallowed, Fate::Late, Fate::Unheard][pick % 3],
            ),
        ];
        let mut sum = 0.0;
        let fate = fates.into_iter().find(|(share, _)| {
            sum += share;
            roll < sum
        });
        Trip {
            up,
            down,
            fate: fate.map_or(Fate::Arrives, |(_, fate)| fate),
            at,
        }
    }

    async fn exchange(&self, ring: &Ring, trip: Trip) -> Result<Page, FetchError> {
        let failed = |why, said: &str| {
            let source: BoxError = said.into();
            Err(FetchError::no_response(why, Some(source)))
        };
        let deadline = Instant::now() + DEADLINE;
        match trip.fate {
            Fate::Unconnected => {
                sleep(trip.up).await;
                return failed(NoResponse::Connect, "simulated: connection refused");
            }
            Fate::ResetBefore => {
                sleep(trip.up).await;
                return failed(
                    NoResponse::Reset,
                    "simulated: reset before the request arrived",
                );
            }
            Fate::Swallowed => {
                sleep_until(deadline).await;
                return failed(NoResponse::Timeout, "simulated: the request was swallowed");
            }
            _ => {}
        }
        let (server, path) = (self.server.clone(), self.path(ring));
        let arrives = match trip.fate {
            Fate::Late => deadline + STRAGGLES.mul_f64(trip.at),
            _ => Instant::now() + trip.up,
        };
        // The server goes on whatever becomes of the client.
        let serving = tokio::spawn(async move {
            sleep_until(arrives).await;
            server.get(&path, &[]).await
        });
        let answered = async {
            let exchange = serving.await;
            if trip.fate == Fate::Unheard {
                std::future::pending::<()>().await;
            }
            sleep(trip.down).await;
            exchange
        };
        let exchange = match timeout_at(deadline, answered).await {
            Err(_) => return failed(NoResponse::Timeout, "simulated: no response"),
            Ok(Err(panic)) => return failed(NoResponse::Reset, &panic.to_string()),
            Ok(Ok(exchange)) => exchange,
        };
        if trip.fate == Fate::ResetAfter || exchange.status().is_none() {
            return failed(NoResponse::Reset, "simulated: reset before the headers");
        }
        let cut = matches!(trip.fate, Fate::Cut | Fate::Stall)
            .then(|| (exchange.body().len() as f64 * trip.at) as usize);
        let cut = cut.or((exchange.end() == WireEnd::Reset)
            .then(|| (exchange.body().len() as f64 * trip.at) as usize));
        // A real client refuses so many, and so long ones.
        let (many, long) = exchange
            .headers()
            .fold((0, 0), |(many, long), (name, value)| {
                (many + 1, long + name.len() + value.len())
            });
        if many > MAX_HEADERS || long > MAX_HEADER_BYTES {
            return failed(NoResponse::Reset, "simulated: the headers are refused");
        }
        let (mut cut, mut stalls) = (cut, trip.fate == Fate::Stall);
        if let Some(drip) = exchange.drip() {
            let time = deadline.saturating_duration_since(Instant::now());
            if drip > time && cut.is_none() {
                let share = time.as_secs_f64() / drip.as_secs_f64();
                (cut, stalls) = (Some((exchange.body().len() as f64 * share) as usize), true);
            } else if cut.is_none() {
                sleep(drip).await;
            }
        }
        let response = receive(exchange, cut, stalls);
        if matches!(response.ending, Ending::TimedOut) {
            sleep_until(deadline).await;
        }
        response.unpacked(MAX_PAGE_BYTES).judge(ring, (self.wall)())
    }

    fn path(&self, ring: &Ring) -> String {
        let (region, stream) = (ring.region.name(), ring.stream);
        let app_id = &self.app_id;
        format!("/{region}/dev/v2/project/{app_id}/rtm/vendor/{stream}_events")
    }
}

impl Fetch for SimulatedSource {
    fn rings(&self) -> &[Ring] {
        &self.rings
    }

    async fn fetch(&self, ring: &Ring, slot: Slot) -> Result<Page, FetchError> {
        let trip = self.trip();
        slot.using(self.exchange(ring, trip)).await
    }
}

impl fmt::Debug for SimulatedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedSource")
            .field("rings", &self.rings)
            .field("network", &*lock(&self.network))
            .finish_non_exhaustive()
    }
}

/// What a client makes of the response, of which the network lets `cut` bytes of the body through.
fn receive(exchange: Exchange, cut: Option<usize>, stalls: bool) -> Response {
    let mut headers = HeaderMap::new();
    for (name, value) in exchange.headers() {
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name.as_bytes()),
            HeaderValue::from_str(value),
        ) {
            headers.append(name, value);
        }
    }
    let length = exchange.body().len();
    let got = cut.unwrap_or(length).min(MAX_PAGE_BYTES);
    let ending = match (cut, exchange.end()) {
        (Some(_), _) if stalls => Ending::TimedOut,
        (Some(_), _) => Ending::Broken("simulated: reset in the body".into()),
        _ if got < length => Ending::TooLarge,
        (None, WireEnd::Stalled) => Ending::TimedOut,
        (None, WireEnd::Whole | WireEnd::Closed | WireEnd::Reset) => Ending::Closed,
    };
    let response = Response {
        status: exchange.status().unwrap_or_default(),
        headers,
        body: Bytes::copy_from_slice(&exchange.body()[..got]),
        ending,
    };
    exchange.received(got);
    response
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rtm_sim::{
        Clock, Fate as PageFate, Faults, Load, SimApp, SimAuth, SimConfig, SimStats, Simulator,
    };
    use rtm_source::{Auth, FetchErrorKind, Limiter, Secret, Source, SourceOptions};

    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    fn config(seed: u64, events_per_second: f64, faults: &Faults) -> SimConfig {
        SimConfig {
            seed,
            apps: vec![SimApp {
                app_id: "app".into(),
                auth: SimAuth::Open,
            }],
            regions: vec!["eu".into(), "us".into()],
            load: Load {
                events_per_second,
                odd: 0.1,
                ..Load::default()
            },
            faults: faults.clone(),
            ..SimConfig::default()
        }
    }

    fn all_faults() -> Faults {
        Faults {
            status: 0.1,
            cut: 0.1,
            failed_result: 0.1,
            closed: 0.1,
            html: 0.1,
            gzip: 0.1,
            bomb: 0.05,
            huge_bytes: 4 << 20,
            headers: 0.05,
            ..Faults::default()
        }
    }

    /// All that a fetch came to, the times of day aside.
    fn told(fetched: &Result<Page, FetchError>) -> String {
        let page = |page: &Page| {
            (
                page.status,
                page.request_id.clone(),
                page.body.clone(),
                page.complete,
                page.count,
            )
        };
        match fetched {
            Ok(fetched) => format!("{:?}", page(fetched)),
            Err(error) => {
                let kept = error.partial.as_deref().map(page);
                let waits = error.retry_after.is_some();
                let lost = error.possibly_lost();
                format!("{error} {waits} {lost} {:?} {kept:?}", error.request_ids)
            }
        }
    }

    async fn run(seed: u64) -> (Vec<String>, Vec<Timestamp>) {
        let faults = Faults {
            delay_ms: [0, 40],
            ..all_faults()
        };
        let clock = Clock::simulated(NOW_MS);
        let server = InProcess::new(&config(seed, 900.0, &faults), clock).unwrap();
        let network = Network {
            delay: [Duration::from_millis(1), Duration::from_millis(200)],
            unconnected: 0.05,
            reset: 0.1,
            cut: 0.1,
            stall: 0.05,
            silence: 0.1,
        };
        let source = SimulatedSource::new(server.clone(), "app", &["eu", "us"], network, seed);
        let source = Arc::new(source.unwrap());
        let limiter = Limiter::new(10, Duration::ZERO);
        let mut polls = tokio::task::JoinSet::new();
        for at in 0..4 {
            let (source, limiter) = (Arc::clone(&source), limiter.clone());
            polls.spawn(async move {
                let ring = source.rings()[at].clone();
                let mut told_all = Vec::new();
                for _ in 0..60 {
                    let fetched = source.fetch(&ring, limiter.slot().await).await;
                    let at = fetched.as_ref().ok().map(|page| page.fetched_at);
                    told_all.push((told(&fetched), at));
                }
                told_all
            });
        }
        let all: Vec<_> = polls.join_all().await.into_iter().flatten().collect();
        let stats = server.stats();
        assert_eq!(stats.apps[0].refused_429, 0, "eleven in a second");
        assert!(stats.apps[0].requests > 150);
        for ring in stats.rings {
            assert_eq!(
                ring.generated,
                ring.overwritten + ring.handed_out + ring.waiting
            );
            assert!(ring.generated > 1_000);
        }
        let fates = server.ledger().pages.into_iter().map(|page| page.fate);
        assert!(
            fates
                .into_iter()
                .any(|fate| matches!(fate, PageFate::Cut { .. }))
        );
        let (told, at): (Vec<_>, Vec<_>) = all.into_iter().unzip();
        (told, at.into_iter().flatten().collect())
    }

    /// Holds: one seed gives the same pages, at the same simulated times, twice; another gives others. Every fault of
    /// the network and of the server came up.
    #[test]
    fn the_seed_decides_everything() {
        let run = |seed| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap();
            runtime.block_on(run(seed))
        };
        let first = run(1);
        assert_eq!(first, run(1));
        assert_ne!(first, run(2));
        for part in [
            "(connect)",
            "(reset)",
            "(cut)",
            "(timeout)",
            "(timeout), status 200",
            "(status)",
            "(failed)",
            "(unexpected)",
        ] {
            assert!(
                first.0.iter().any(|told| told.contains(part)),
                "{part} never came"
            );
        }
        assert!(first.1.iter().all(|at| at.as_millisecond() > NOW_MS as i64));
    }

    /// Holds: over a perfect network the simulation and the real client over TCP get the same, to the byte and to the
    /// verdict, from servers of one seed.
    #[tokio::test]
    async fn agrees_with_tcp() {
        let mut failures = 0;
        for seed in 1..=12 {
            let config = config(seed, 0.0, &all_faults());
            let tcp = Simulator::start(config.clone()).await.unwrap();
            let server = InProcess::new(&config, Clock::system()).unwrap();
            let region = Region::new("eu", &tcp.base_url("eu"), false).unwrap();
            let auth = Auth::AgoraToken {
                token: Secret::Inline("unused".to_owned().into()),
            };
            let real = Source::new(SourceOptions::new("app", auth, vec![region])).unwrap();
            let simulated =
                SimulatedSource::new(server.clone(), "app", &["eu"], Network::default(), 1)
                    .unwrap();
            let limiter = Limiter::new(100, Duration::ZERO);
            for request in 0..10 {
                let events: Vec<String> = (0..request * 40)
                    .map(|n| format!(r#"{{"user_id":"u{n}","type":"Login","ms":{n}}}"#))
                    .collect();
                let events: Vec<&str> = events.iter().map(String::as_str).collect();
                tcp.push("app", "eu", rtm_sim::Stream::User, &events);
                server.push("app", "eu", rtm_sim::Stream::User, &events);
                let expected = real.fetch(&real.rings()[0], limiter.slot().await).await;
                let got = simulated
                    .fetch(&simulated.rings()[0], limiter.slot().await)
                    .await;
                assert_eq!(
                    told(&got),
                    told(&expected),
                    "seed {seed}, request {request}"
                );
                failures += usize::from(got.is_err());
            }
            // How many requests fall into one second is the wall clock's to say: they are asked one after the other.
            let timeless = |mut stats: SimStats| {
                stats.apps.iter_mut().for_each(|app| app.max_in_second = 0);
                stats
            };
            assert_eq!(timeless(server.stats()), timeless(tcp.stats()));
            tcp.shutdown().await;
        }
        assert!((30..100).contains(&failures), "{failures}");
    }

    /// Holds: what the network cuts is in the ledger as cut, to the byte, and never counted below the truth.
    #[tokio::test(start_paused = true)]
    async fn the_ledger_knows_what_arrived() {
        for (network, reason) in [
            (
                Network {
                    cut: 1.0,
                    ..Network::default()
                },
                "cut",
            ),
            (
                Network {
                    stall: 1.0,
                    ..Network::default()
                },
                "timeout",
            ),
            (
                Network {
                    reset: 1.0,
                    ..Network::default()
                },
                "reset",
            ),
            (
                Network {
                    silence: 1.0,
                    ..Network::default()
                },
                "timeout",
            ),
        ] {
            let clock = Clock::simulated(NOW_MS);
            let server = InProcess::new(&config(5, 0.0, &Faults::default()), clock).unwrap();
            let source = SimulatedSource::new(server.clone(), "app", &["eu"], network, 7).unwrap();
            let limiter = Limiter::new(10, Duration::ZERO);
            let (mut gone, mut possibly, mut kept) = (0, 0, 0);
            for _ in 0..20 {
                let event = r#"{"user_id":"u","type":"Login","ms":1}"#;
                server.push("app", "eu", rtm_sim::Stream::User, &[event; 50]);
                let ring = &source.rings()[0];
                let error = source.fetch(ring, limiter.slot().await).await.unwrap_err();
                assert_eq!(
                    (error.kind, error.reason),
                    (FetchErrorKind::InDoubt, reason)
                );
                possibly += error.possibly_lost();
                kept += error.saved() as u64;
            }
            // The stragglers.
            sleep(STRAGGLES).await;
            for page in server.ledger().pages {
                let PageFate::Cut {
                    whole_events_sent,
                    bytes_sent,
                } = page.fate
                else {
                    panic!("{:?}", page.fate);
                };
                assert!(bytes_sent == 0 || page.finished_at_ms.is_some());
                gone += (page.events.len() - whole_events_sent) as u64;
            }
            let handed_out = server.ledger().handed_out();
            assert_eq!(handed_out, gone + kept, "{reason}");
            assert!(
                gone > 0 && gone <= possibly,
                "{reason}: {gone} of {possibly}"
            );
        }
    }
}

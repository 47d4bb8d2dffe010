//! The simulated server's state: App IDs, their rings, their judges and the ledger.
//!
//! Each App ID has one lock, held for as long as moving a page takes and never across an await: App IDs are
//! independent accounts here too.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;

use crate::clock::Clock;
use crate::config::{Faults, Load, SimApp, SimAuth, SimConfig};
use crate::generate::{self, Generator};
use crate::ledger::{self, AppStats, Fate, Ledger, LedgerPage, RingStats, SimStats, Stream};
use crate::rate::RateWindow;
use crate::ring::Ring;

/// The requests in any sliding second for each App ID. Source: Agora's RESTful event API, "10 requests per second".
pub const REQUESTS_PER_SECOND: usize = 10;

/// The longest time whose arrivals are made up for after a pause of the process, so that it does not return with a
/// flood that nothing real would send.
const LONGEST_TICK: Duration = Duration::from_secs(1);

/// The steps in which events arrive by a simulated clock, so that they do not depend on when anyone looks.
const STEP: Duration = Duration::from_millis(5);

/// The simulated Agora: its App IDs, their rings, and its limit of requests.
#[derive(Debug)]
pub(crate) struct Agora {
    seed: u64,
    clock: Clock,
    regions: Vec<String>,
    apps: Vec<App>,
    request_ids: AtomicU64,
    generating: AtomicBool,
    load: Mutex<CurrentLoad>,
    faults: Mutex<Arc<Faults>>,
}

/// One App ID.
#[derive(Debug)]
pub(crate) struct App {
    app_id: String,
    auth: Mutex<Arc<SimAuth>>,
    state: Mutex<AppState>,
}

#[derive(Debug)]
struct AppState {
    window: RateWindow,
    stats: AppStats,
    generator: Generator,
    /// Two for each region, in the order of [`Stream::ALL`].
    rings: Vec<Ring>,
    /// What is known of each ring beside its events.
    books: Vec<Book>,
}

/// A ring's part of the ledger.
#[derive(Debug, Default)]
struct Book {
    requests: u64,
    pages: Vec<LedgerPage>,
}

#[derive(Debug, Clone)]
struct CurrentLoad {
    load: Arc<Load>,
    since: Duration,
    last_tick: Duration,
}

/// Names a ring: an App ID and one of its region's two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RingId {
    pub(crate) app: usize,
    pub(crate) ring: usize,
}

/// A request that has been counted.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// Whether it is within the limit.
    pub(crate) admitted: bool,
    /// Decides everything about this request. It depends on the seed, the ring and how many requests the ring had, so
    /// that what other rings do changes nothing.
    pub(crate) rng: Rng,
}

/// A read that is about to happen: what must be known of its response to write it into the ledger.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) request_id: String,
    pub(crate) status: Option<u16>,
    /// Where in the body the first event will stand.
    pub(crate) first_event_at: usize,
}

/// Names a page in the ledger.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageId {
    ring: RingId,
    serial: usize,
}

/// The ring that was asked for does not exist.
#[derive(Debug, thiserror::Error)]
#[error("there is no ring of App ID {app_id:?} in region {region:?}")]
pub struct UnknownRing {
    app_id: String,
    region: String,
}

impl Agora {
    pub(crate) fn new(config: &SimConfig, clock: Clock) -> Agora {
        let now = clock.monotonic();
        let apps = config.apps.iter().enumerate().map(|(index, app)| {
            let seed = mix(config.seed, index as u64);
            App::new(app, seed, &config.load, config.regions.len())
        });
        Agora {
            seed: config.seed,
            clock,
            regions: config.regions.clone(),
            apps: apps.collect(),
            request_ids: AtomicU64::new(0),
            generating: AtomicBool::new(true),
            load: Mutex::new(CurrentLoad {
                load: Arc::new(config.load.clone()),
                since: now,
                last_tick: now,
            }),
            faults: Mutex::new(Arc::new(config.faults.clone())),
        }
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Lets arrive what is due since the last call, all of it now: for a clock that is the system's, at regular times.
    pub(crate) fn tick(&self) {
        let now = self.clock.monotonic();
        let (load, due) = {
            let mut current = lock(&self.load);
            let elapsed = now.saturating_sub(current.last_tick).min(LONGEST_TICK);
            current.last_tick = now;
            (Arc::clone(&current.load), current.due(now, elapsed))
        };
        self.arrive_events(due, self.clock.unix_ms(), &load);
    }

    /// By a simulated clock: lets arrive what is due since the last call, each at its time, in steps.
    pub(crate) fn catch_up(&self) {
        if !self.clock.is_simulated() {
            return;
        }
        let now = self.clock.monotonic();
        loop {
            let (load, due, at) = {
                let mut current = lock(&self.load);
                let at = current.last_tick + STEP;
                if at > now {
                    return;
                }
                current.last_tick = at;
                (Arc::clone(&current.load), current.due(at, STEP), at)
            };
            self.arrive_events(due, self.clock.unix_ms_at(at), &load);
        }
    }

    fn arrive_events(&self, due: f64, ms: u64, load: &Load) {
        if !self.generating.load(Ordering::Relaxed) {
            return;
        }
        for app in &self.apps {
            let state = &mut *lock(&app.state);
            state.generator.arrive(due, ms, load, &mut state.rings);
        }
    }

    /// Counts a request at `ring` against the limit of its App ID, as it arrives.
    pub(crate) fn arrive(&self, ring: RingId) -> Arrival {
        let mut state = lock(&self.apps[ring.app].state);
        // Under the lock, so that requests are judged in the order of their times.
        let admitted = state.window.admit(self.clock.monotonic());
        state.stats.requests += 1;
        state.stats.refused_429 += u64::from(!admitted);
        let book = &mut state.books[ring.ring];
        book.requests += 1;
        let seed = mix(
            mix(self.seed, ((ring.app as u64) << 32) | ring.ring as u64),
            book.requests,
        );
        Arrival {
            admitted,
            rng: Rng::with_seed(seed),
        }
    }

    /// Reads `ring`: deletes up to a page of events and enters them in the ledger, in one step. `None` if it is empty.
    ///
    /// `fate` is asked what will become of the response, given the events that it would carry.
    pub(crate) fn read(
        &self,
        ring: RingId,
        reading: &Reading,
        fate: impl FnOnce(&[Box<str>]) -> Fate,
    ) -> Option<(PageId, Arc<Vec<Box<str>>>)> {
        self.catch_up();
        let app = &self.apps[ring.app];
        let mut state = lock(&app.state);
        let events = state.rings[ring.ring].take();
        if events.is_empty() {
            return None;
        }
        let fate = fate(&events);
        let events = Arc::new(events);
        let (region, stream) = self.place(ring.ring);
        let pages = &mut state.books[ring.ring].pages;
        let serial = pages.len();
        pages.push(LedgerPage {
            app_id: app.app_id.clone(),
            region,
            stream,
            request_id: reading.request_id.clone(),
            serial: serial as u64,
            deleted_at_ms: self.clock.unix_ms(),
            at_ms: None,
            status: reading.status,
            events: Arc::clone(&events),
            first_event_at: reading.first_event_at,
            fate,
            finished_at_ms: None,
        });
        Some((PageId { ring, serial }, events))
    }

    /// Notes that the response that carries `page` begins.
    pub(crate) fn begun(&self, page: PageId) {
        self.with_page(page, |page| page.at_ms = Some(self.clock.unix_ms()));
    }

    /// Notes that all that was to be sent of the response has been handed to the socket.
    pub(crate) fn finished(&self, page: PageId) {
        self.with_page(page, |page| {
            page.finished_at_ms = Some(self.clock.unix_ms());
        });
    }

    /// Notes that the client went away when the socket had taken `bytes` of the body.
    pub(crate) fn broken_off(&self, page: PageId, bytes: usize) {
        self.with_page(page, |page| {
            if page.fate != Fate::Unsent {
                page.fate = ledger::cut(&page.events, page.first_event_at, bytes);
            }
        });
    }

    fn with_page(&self, page: PageId, change: impl FnOnce(&mut LedgerPage)) {
        let mut state = lock(&self.apps[page.ring.app].state);
        change(&mut state.books[page.ring.ring].pages[page.serial]);
    }

    /// Counts a request that met a fault.
    pub(crate) fn note_fault(&self, ring: RingId) {
        lock(&self.apps[ring.app].state).stats.faults += 1;
    }

    /// Counts a request with wrong credentials.
    pub(crate) fn note_unauthorized(&self, ring: RingId) {
        lock(&self.apps[ring.app].state).stats.unauthorized += 1;
    }

    /// An id that no other request has.
    pub(crate) fn request_id(&self) -> String {
        generate::request_id(self.seed, self.request_ids.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn auth(&self, ring: RingId) -> Arc<SimAuth> {
        Arc::clone(&lock(&self.apps[ring.app].auth))
    }

    /// Every App ID, and the credentials that it takes.
    pub(crate) fn accounts(&self) -> Vec<(&str, Arc<SimAuth>)> {
        let apps = self.apps.iter();
        apps.map(|app| (app.app_id.as_str(), Arc::clone(&lock(&app.auth))))
            .collect()
    }

    /// Whether there is such an App ID.
    pub(crate) fn set_auth(&self, app_id: &str, auth: SimAuth) -> bool {
        let Some(app) = self.find_app(app_id) else {
            return false;
        };
        *lock(&self.apps[app].auth) = Arc::new(auth);
        true
    }

    pub(crate) fn find_app(&self, app_id: &str) -> Option<usize> {
        self.apps.iter().position(|app| app.app_id == app_id)
    }

    pub(crate) fn find_region(&self, region: &str) -> Option<usize> {
        self.regions.iter().position(|known| known == region)
    }

    /// Puts `events` into a ring as they are.
    pub(crate) fn push<'a>(
        &self,
        app_id: &str,
        region: &str,
        stream: Stream,
        events: impl Iterator<Item = &'a str>,
    ) -> Result<(), UnknownRing> {
        let (Some(app), Some(region)) = (self.find_app(app_id), self.find_region(region)) else {
            return Err(UnknownRing {
                app_id: app_id.to_owned(),
                region: region.to_owned(),
            });
        };
        self.catch_up();
        let ring = &mut lock(&self.apps[app].state).rings[ring_index(region, stream)];
        events.for_each(|event| ring.push(event.into()));
        Ok(())
    }

    pub(crate) fn stop_generating(&self) {
        self.catch_up();
        self.generating.store(false, Ordering::Relaxed);
    }

    /// Events arrive as `load` says from now on, even if they had been stopped.
    pub(crate) fn set_load(&self, load: Load) {
        self.catch_up();
        for app in &self.apps {
            lock(&app.state).generator.adapt(&load);
        }
        let now = self.clock.monotonic();
        *lock(&self.load) = CurrentLoad {
            load: Arc::new(load),
            since: now,
            last_tick: now,
        };
        self.generating.store(true, Ordering::Relaxed);
    }

    pub(crate) fn faults(&self) -> Arc<Faults> {
        Arc::clone(&lock(&self.faults))
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        *lock(&self.faults) = Arc::new(faults);
    }

    pub(crate) fn stats(&self) -> SimStats {
        self.catch_up();
        let mut stats = SimStats {
            generating: self.generating.load(Ordering::Relaxed),
            ..SimStats::default()
        };
        for app in &self.apps {
            let state = lock(&app.state);
            stats.apps.push(AppStats {
                max_in_second: state.window.max_in_window() as u64,
                ..state.stats.clone()
            });
            stats.rings.extend(self.ring_stats(app, &state));
        }
        stats
    }

    /// A snapshot. Events are shared and not copied, so that it holds up no request.
    pub(crate) fn ledger(&self) -> Ledger {
        self.catch_up();
        let mut ledger = Ledger::default();
        for app in &self.apps {
            let state = lock(&app.state);
            let pages = state.books.iter().flat_map(|book| &book.pages);
            ledger.pages.extend(pages.cloned());
            ledger.rings.extend(self.ring_stats(app, &state));
        }
        ledger
    }

    fn ring_stats(&self, app: &App, state: &AppState) -> Vec<RingStats> {
        let both = state.rings.iter().zip(&state.books).enumerate();
        both.map(|(index, (ring, book))| {
            let (region, stream) = self.place(index);
            let mut stats = RingStats {
                app_id: app.app_id.clone(),
                region,
                stream,
                generated: ring.generated(),
                overwritten: ring.overwritten(),
                handed_out: 0,
                cut: 0,
                unsent: 0,
                waiting: ring.waiting(),
                pages: book.pages.len() as u64,
            };
            for page in &book.pages {
                let events = page.events.len() as u64;
                stats.handed_out += events;
                match page.fate {
                    Fate::Whole => {}
                    Fate::Cut {
                        whole_events_sent, ..
                    } => stats.cut += events - whole_events_sent as u64,
                    Fate::Unsent => stats.unsent += events,
                }
            }
            stats
        })
        .collect()
    }

    fn place(&self, ring: usize) -> (String, Stream) {
        let streams = Stream::ALL.len();
        (
            self.regions[ring / streams].clone(),
            Stream::ALL[ring % streams],
        )
    }
}

impl CurrentLoad {
    /// How many events arrive in the `elapsed` before `now`.
    fn due(&self, now: Duration, elapsed: Duration) -> f64 {
        let times = self.load.pattern.times(now.saturating_sub(self.since));
        self.load.events_per_second * times * elapsed.as_secs_f64()
    }
}

impl App {
    fn new(config: &SimApp, seed: u64, load: &Load, regions: usize) -> App {
        let rings = regions * Stream::ALL.len();
        App {
            app_id: config.app_id.clone(),
            auth: Mutex::new(Arc::new(config.auth.clone())),
            state: Mutex::new(AppState {
                window: RateWindow::new(REQUESTS_PER_SECOND, Duration::from_secs(1)),
                stats: AppStats {
                    app_id: config.app_id.clone(),
                    ..AppStats::default()
                },
                generator: Generator::new(seed, load),
                rings: (0..rings).map(|_| Ring::default()).collect(),
                books: (0..rings).map(|_| Book::default()).collect(),
            }),
        }
    }
}

/// Where a region's ring stands among those of its App ID.
pub(crate) fn ring_index(region: usize, stream: Stream) -> usize {
    region * Stream::ALL.len() + stream as usize
}

/// A seed made of two, so that neighbouring ones have nothing in common.
fn mix(seed: u64, number: u64) -> u64 {
    Rng::with_seed(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).u64(..)
}

/// A panic elsewhere leaves counts at worst one short, which beats hiding the panic behind another.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

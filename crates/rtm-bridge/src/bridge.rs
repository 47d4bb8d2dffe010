//! The data path, top to bottom: run, poll, publish, deliver.
//!
//! ```text
//! Agora ──GET──> poll ──page──> journal (durable) ──> publish: decode → tag → route ──deliver──> Kafka
//!                                    one cursor per                (one loop per sink)         ──> NATS
//!                                    App ID and sink                                           ──> stdout, file
//! ```
//!
//! Invariants, and where they are kept:
//!
//! - Never read what cannot be stored: a [`Ticket`] holds the journal's [`Reservation`], and [`fetch`] takes a ticket.
//! - Bytes before meaning: [`fetch`] appends the body as it came; [`publish`] is the first to decode it.
//! - A slow or dead broker never slows polling: [`poll`] and [`publish`] meet only at the journal.
//! - A cursor moves only over what the broker confirmed: [`publish`] commits after [`deliver`] returns.
//! - A GET in flight is ended by its deadline only: [`poll`] waits for its tasks, shutdown included.

use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::BackoffBuilder;
use rtm_journal::{Entry, Lane, ReadError, Reader, Reservation};
use rtm_sink::{Outcome, PublishError, PublishErrorKind, Reason, Record, Sink};
use rtm_source::{FetchError, FetchErrorKind, Limiter, Next, Page, Ring, Schedule, Slot, Source};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, error, info, info_span, warn};

use crate::assemble::{self, Assembled, Client, RunError};
use crate::config::Config;
use crate::entry;
use crate::metrics::{Metrics, RingMetrics, SinkMetrics};
use crate::record::Router;
use crate::state::{PipelineState, SinkState, State};

/// Room in the journal that a page may need: the source cuts bodies at 2 MiB.
const ROOM_FOR_A_PAGE: usize = MAX_PAGE_BYTES + entry::OVERHEAD;

/// Where the source cuts a body. A legal page with every id escaped is under 1 MiB.
pub const MAX_PAGE_BYTES: usize = 2 << 20;

/// Records in one batch at most: eight full pages, which a broker confirms in some tens of milliseconds.
const MAX_BATCH_RECORDS: usize = 8_000;

/// Bytes of payload in one batch at most, give or take one page.
const MAX_BATCH_BYTES: usize = 4 << 20;

/// Backoff between attempts at an unavailable broker: first, and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Pause between attempts at a broker that refuses us: someone has to act first.
const HOLD: Duration = Duration::from_secs(5);

/// How often the loss of room in the journal is said again.
const STOPPED_LOG_INTERVAL: Duration = Duration::from_secs(30);

/// What a batch is while `deliver` works on it.
struct Batch {
    entries: Vec<Entry>,
    records: Vec<Record>,
    details: Vec<Detail>,
}

/// What is known of a record beside what the sink is given.
#[derive(Clone)]
struct Detail {
    /// Index of the journal entry it came from.
    entry: usize,
    /// The event's `ms`.
    ms: Option<i64>,
    /// Why it is a dead letter, if it is one.
    dead: Option<&'static str>,
    /// How often the broker refused it.
    refusals: u32,
}

/// Polls every App ID of `config` and publishes to every sink, until `stop`.
///
/// Then polling stops, requests in flight finish and are stored, the sinks get `shutdown_deadline`, and the journal is
/// closed. What is not published waits in it. `started` is given the state once everything runs.
///
/// # Errors
///
/// [`RunError`] when the journal, a source or a sink cannot be made. Nothing that happens later ends the bridge.
pub async fn run(
    config: &Config,
    started: impl FnOnce(Arc<State>),
    stop: CancellationToken,
) -> Result<(), RunError> {
    let metrics = Arc::new(Metrics::new(config));
    let Assembled {
        journal,
        pipelines,
        clients,
        orphans,
    } = assemble::assemble(config, &metrics).await?;
    let state = Arc::new(State::new(
        config,
        journal.clone(),
        Arc::clone(&metrics),
        &pipelines,
        &clients,
    ));
    let drain = CancellationToken::new();
    let mut polls = JoinSet::new();
    let mut publishes = JoinSet::new();
    let lanes = pipelines
        .iter()
        .map(|pipeline| (pipeline.app.as_str(), &pipeline.lane));
    for (app, lane) in lanes.chain(orphans.iter().map(|(app, lane)| (app.as_str(), lane))) {
        for client in &clients {
            let reader = assemble::reader(lane, client.name())?;
            let outlet = Outlet {
                reader,
                router: client.router(),
                metrics: metrics.sink(app, client.name()),
                all_metrics: Arc::clone(&metrics),
                state: state.sink(app, client.name()),
            };
            let span = info_span!("publish", app, sink = client.name());
            match client {
                Client::Kafka(_, _, sink) => publishes
                    .spawn(publish(outlet, Arc::clone(sink), drain.clone()).instrument(span)),
                Client::Nats(_, _, sink) => publishes
                    .spawn(publish(outlet, Arc::clone(sink), drain.clone()).instrument(span)),
                Client::File(_, _, sink) => publishes
                    .spawn(publish(outlet, Arc::clone(sink), drain.clone()).instrument(span)),
            };
        }
    }
    for pipeline in pipelines {
        let span = info_span!("poll", app = pipeline.app);
        let state = state.pipeline(&pipeline.app);
        polls.spawn(poll(Arc::new(pipeline), state, stop.clone()).instrument(span));
    }
    started(Arc::clone(&state));

    stop.cancelled().await;
    info!("stopping: no further request is sent; waiting for those in flight");
    join_all(&mut polls).await;
    info!(deadline = ?config.shutdown_deadline, "every response is stored; publishing what waits");
    drain.cancel();
    let all_published = tokio::time::timeout(config.shutdown_deadline, join_all(&mut publishes))
        .await
        .is_ok();
    if !all_published {
        warn!(
            "the shutdown deadline has passed; what is not yet published waits in the journal for the next start"
        );
        publishes.shutdown().await;
    }
    for client in clients {
        client.close().await;
    }
    journal.close().await.map_err(RunError::Close)?;
    info!(all_published, "stopped");
    Ok(())
}

/// Waits for every task. A panic is a bug: it is logged and the other tasks go on.
async fn join_all(tasks: &mut JoinSet<()>) {
    while let Some(joined) = tasks.join_next().await {
        if let Err(panic) = joined {
            error!(error = %panic, "a task ended unexpectedly; please report this");
        }
    }
}

/// One App ID: what polling it needs.
pub struct Pipeline {
    /// Its name.
    pub app: String,
    /// Its App ID.
    pub app_id: String,
    /// Its rings at Agora.
    pub source: Source,
    /// Its request budget.
    pub limiter: Limiter,
    /// Whose turn it is.
    pub schedule: std::sync::Mutex<Schedule>,
    /// Its part of the journal.
    pub lane: Lane,
    /// Every metric.
    pub metrics: Arc<Metrics>,
}

/// The right to send one request: room for its page, and a slot of the rate limit. In this order, since a slot that
/// waits for room would be a slot unused.
struct Ticket {
    reservation: Reservation,
    slot: Slot,
}

/// Polls one App ID's rings until `stop`, then lets the requests in flight finish.
async fn poll(pipeline: Arc<Pipeline>, state: Arc<PipelineState>, stop: CancellationToken) {
    mark(&pipeline, true).await;
    let mut in_flight: JoinSet<(Ring, rtm_source::Outcome)> = JoinSet::new();
    let mut ticket: Option<Ticket> = None;
    loop {
        let wait_until = match &ticket {
            None => None,
            Some(_) => match next(&pipeline) {
                Next::Poll(ring) => {
                    if let Some(ticket) = ticket.take() {
                        started(&pipeline, &ring);
                        state.sent();
                        in_flight.spawn(
                            fetch(Arc::clone(&pipeline), Arc::clone(&state), ring, ticket)
                                .in_current_span(),
                        );
                    }
                    continue;
                }
                Next::Wait(until) => Some(until),
            },
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(done) = in_flight.join_next() => observe(&pipeline, done),
            taken = take_ticket(&pipeline, &state), if ticket.is_none() => ticket = Some(taken),
            () = sleep_until(wait_until), if wait_until.is_some() => {}
        }
    }
    drop(ticket);
    while let Some(done) = in_flight.join_next().await {
        observe(&pipeline, done);
    }
    mark(&pipeline, false).await;
}

/// Says durably that rings are being polled: what a crash may cost is counted at the next start.
async fn mark(pipeline: &Pipeline, polling: bool) {
    let mark = polling.then(|| assemble::polling_mark(&pipeline.app, pipeline.source.rings()));
    if let Err(error) = pipeline.lane.set_mark(mark).await {
        error!(
            error = crate::chain(&error),
            "the journal did not take the mark of polling"
        );
    }
}

fn next(pipeline: &Pipeline) -> Next {
    crate::lock(&pipeline.schedule).next(Instant::now())
}

fn started(pipeline: &Pipeline, ring: &Ring) {
    crate::lock(&pipeline.schedule).started(ring, Instant::now());
}

async fn sleep_until(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until.into()).await,
        None => std::future::pending().await,
    }
}

/// Waits for room in the journal, loudly, and then for a slot. Cancel-safe: both are given back.
async fn take_ticket(pipeline: &Pipeline, state: &PipelineState) -> Ticket {
    let reservation = match pipeline.lane.try_reserve(ROOM_FOR_A_PAGE) {
        Some(reservation) => reservation,
        None => wait_for_room(pipeline, state).await,
    };
    state.polling_resumed();
    let waiting = Instant::now();
    let slot = pipeline.limiter.slot().await;
    pipeline
        .metrics
        .rate_limit_waited(&pipeline.app, waiting.elapsed());
    Ticket { reservation, slot }
}

async fn wait_for_room(pipeline: &Pipeline, state: &PipelineState) -> Reservation {
    let reserve = pipeline.lane.reserve(ROOM_FOR_A_PAGE);
    tokio::pin!(reserve);
    loop {
        if state.polling_stopped(STOPPED_LOG_INTERVAL) {
            error!(
                "polling has stopped: the journal has no room for this App ID, and Agora overwrites events from now on; \
                 free disk space, raise journal.max_bytes, or repair the sink that lags"
            );
        }
        if let Ok(reservation) = tokio::time::timeout(Duration::from_secs(1), &mut reserve).await {
            info!("polling goes on: the journal has room again");
            return reservation;
        }
    }
}

/// One request: send, receive, make durable. Runs in a task of its own, so that nothing cancels it.
async fn fetch(
    pipeline: Arc<Pipeline>,
    state: Arc<PipelineState>,
    ring: Ring,
    ticket: Ticket,
) -> (Ring, rtm_source::Outcome) {
    let Ticket { reservation, slot } = ticket;
    let metrics = state.ring(&ring);
    let sent = Instant::now();
    let fetched = pipeline.source.fetch(&ring, slot).await;
    metrics.poll_duration.observe(sent.elapsed().as_secs_f64());
    let outcome = rtm_source::Outcome::of(&fetched);
    let page = match fetched {
        Ok(page) => {
            metrics.polled(if page.count == 0 { "empty" } else { "page" });
            // A complete page without events says nothing that anyone could want later.
            (page.count > 0).then_some(page)
        }
        Err(error) => failed(&pipeline, &ring, &metrics, error),
    };
    if let Some(page) = page {
        let entry = entry::encode(&pipeline.app, &pipeline.app_id, &page);
        let count = u32::try_from(page.count).unwrap_or(u32::MAX);
        match reservation.append(&entry, count).await {
            Ok(_) => {
                metrics.events_fetched.inc_by(page.count as u64);
                state.arrived(&ring, &page);
            }
            Err(error) => {
                metrics.in_doubt("crash", page.count as u64);
                error!(
                    error = crate::chain(&error),
                    events = page.count,
                    "a page could not be stored: its events are lost"
                );
            }
        }
    }
    (ring, outcome)
}

/// Counts and logs a failed request, and gives back the bytes that did arrive.
fn failed(
    pipeline: &Pipeline,
    ring: &Ring,
    metrics: &RingMetrics,
    error: FetchError,
) -> Option<Page> {
    metrics.polled(error.kind.as_str());
    if error.status == Some(429) {
        pipeline.metrics.rate_limited(&pipeline.app);
    }
    let possibly_lost = error.possibly_lost();
    if error.kind == FetchErrorKind::InDoubt {
        metrics.in_doubt(loss_reason(error.reason), possibly_lost);
    }
    warn!(
        region = ring.region.name(),
        stream = ring.stream.as_str(),
        error = crate::chain(&error),
        possibly_lost,
        request_id = error
            .request_ids
            .as_ref()
            .and_then(|ids| ids.request.as_deref()),
        resource_id = error
            .request_ids
            .as_ref()
            .and_then(|ids| ids.resource.as_deref()),
        "a request failed"
    );
    error.partial.map(|page| *page)
}

/// The loss metric's label for a source's reason.
fn loss_reason(reason: &str) -> &'static str {
    match reason {
        "timeout" => "timeout",
        "cut" | "reset" | "too_large" => "cut",
        _ => "status",
    }
}

/// Tells the schedule how a request ended.
fn observe(pipeline: &Pipeline, done: Result<(Ring, rtm_source::Outcome), tokio::task::JoinError>) {
    let (ring, outcome) = match done {
        Ok(done) => done,
        Err(panic) => {
            error!(error = %panic, "a request's task ended unexpectedly; please report this");
            return;
        }
    };
    let observed = crate::lock(&pipeline.schedule).observe(&ring, Instant::now(), &outcome);
    let metrics = pipeline
        .metrics
        .ring(&pipeline.app, ring.region.name(), ring.stream.as_str());
    let (region, stream) = (ring.region.name(), ring.stream.as_str());
    if matches!(outcome, rtm_source::Outcome::Page { full: true, .. }) {
        metrics.full_pages.inc();
    }
    if observed.overflow_suspected {
        metrics.overflow_suspected.inc();
        warn!(
            region,
            stream,
            "two full pages in a row: the ring was full, and Agora may have overwritten events"
        );
    }
    if observed.alarm {
        error!(
            region,
            stream,
            ?outcome,
            "Agora refuses this App ID, its credentials or the URL; polling goes on slowly"
        );
    }
    if let Some(hold) = observed.hold {
        warn!(
            ?hold,
            "Agora says that the App ID's requests are too many; holding all of its rings. Does someone else use it?"
        );
    }
    if let Some(backoff) = observed.backoff {
        debug!(region, stream, ?backoff, "backing off");
    }
}

/// One lane's way out to one sink.
struct Outlet {
    reader: Reader,
    router: Router,
    metrics: SinkMetrics,
    all_metrics: Arc<Metrics>,
    state: Arc<SinkState>,
}

/// Publishes one lane to one sink, until `drain` and nothing waits.
async fn publish<S: Sink>(mut outlet: Outlet, sink: Arc<S>, drain: CancellationToken) {
    loop {
        let first = tokio::select! {
            biased;
            entry = outlet.reader.next() => entry,
            () = drain.cancelled() => return,
        };
        let Some(batch) = gather(&mut outlet, first) else {
            continue;
        };
        let through = batch.entries.last().map(|entry| entry.position);
        deliver(&mut outlet, sink.as_ref(), batch).await;
        if let Some(through) = through {
            outlet.reader.commit(through);
        }
    }
}

/// A batch of all that waits, up to the bounds: batches grow when a sink lags.
fn gather(outlet: &mut Outlet, first: Result<Entry, ReadError>) -> Option<Batch> {
    let mut batch = Batch {
        entries: Vec::new(),
        records: Vec::new(),
        details: Vec::new(),
    };
    let mut bytes = 0;
    let mut read = first;
    loop {
        match read {
            Ok(entry) => bytes += add(outlet, &mut batch, entry),
            Err(error) => {
                outlet.all_metrics.journal_damaged();
                error!(
                    error = crate::chain(&error),
                    "an entry of the journal cannot be read: its events are lost for this sink"
                );
            }
        }
        if batch.records.len() >= MAX_BATCH_RECORDS || bytes >= MAX_BATCH_BYTES {
            break;
        }
        read = match outlet.reader.try_next() {
            Ok(Some(entry)) => Ok(entry),
            Ok(None) => break,
            Err(error) => Err(error),
        };
    }
    (!batch.entries.is_empty()).then_some(batch)
}

/// Adds an entry's records to a batch; says how many bytes they are.
fn add(outlet: &mut Outlet, batch: &mut Batch, entry: Entry) -> usize {
    let index = batch.entries.len();
    let mut bytes = 0;
    match outlet.router.page(&entry) {
        Ok(page) => {
            bytes = page.records.iter().map(|record| record.payload.len()).sum();
            for (ms, dead) in page.times.into_iter().zip(page.rejects) {
                batch.details.push(Detail {
                    entry: index,
                    ms,
                    dead,
                    refusals: 0,
                });
            }
            batch.records.extend(page.records);
        }
        Err(error) => {
            let (record, dead) = outlet.router.unreadable(&entry, &error);
            batch.records.push(record);
            batch.details.push(Detail {
                entry: index,
                ms: None,
                dead: Some(dead),
                refusals: 0,
            });
        }
    }
    batch.entries.push(entry);
    bytes
}

/// Publishes a batch until every record is confirmed, as an event or as a dead letter. Three kinds of error, three
/// actions; a record of unknown outcome is published again, in order and under the same id.
async fn deliver<S: Sink>(outlet: &mut Outlet, sink: &S, mut batch: Batch) {
    let mut backoff = backoff();
    outlet.state.publishing();
    while !batch.records.is_empty() {
        let began = Instant::now();
        outlet.metrics.batch.observe(batch.records.len() as f64);
        let published = sink.publish(&batch.records).await;
        outlet
            .metrics
            .publish_duration
            .observe(began.elapsed().as_secs_f64());
        let error = match published {
            Ok(()) => {
                confirm(outlet, &batch.details);
                break;
            }
            Err(error) => error,
        };
        let progressed = settle(outlet, &mut batch, &error);
        if batch.records.is_empty() {
            break;
        }
        outlet.metrics.retried.inc_by(batch.records.len() as u64);
        if progressed {
            backoff = self::backoff();
        }
        let held = batch.details.iter().any(|detail| detail.refusals > 2);
        match error.kind {
            PublishErrorKind::Rejected if !held => {}
            PublishErrorKind::Unavailable => {
                let pause = backoff.next().unwrap_or(BACKOFF.1);
                outlet.state.unavailable(&crate::chain(&error), pause);
                tokio::time::sleep(pause).await;
            }
            PublishErrorKind::Misconfigured | PublishErrorKind::Rejected => {
                outlet.state.held(&crate::chain(&error), HOLD);
                tokio::time::sleep(HOLD).await;
            }
        }
    }
    outlet.state.published();
}

fn backoff() -> backon::ExponentialBackoff {
    backon::ExponentialBuilder::default()
        .with_min_delay(BACKOFF.0)
        .with_max_delay(BACKOFF.1)
        .with_jitter()
        .without_max_times()
        .build()
}

/// Counts what a failed publish did confirm, turns what it rejected into dead letters, and keeps the rest, in order.
/// Says whether anything was settled.
fn settle(outlet: &mut Outlet, batch: &mut Batch, error: &PublishError) -> bool {
    let mut records = Vec::with_capacity(batch.records.len());
    let mut details = Vec::with_capacity(batch.records.len());
    let mut confirmed = Vec::new();
    let mut rejected = false;
    let outcomes = error
        .outcomes
        .iter()
        .map(Some)
        .chain(std::iter::repeat(None));
    for ((record, mut detail), outcome) in batch
        .records
        .drain(..)
        .zip(batch.details.drain(..))
        .zip(outcomes)
    {
        match outcome {
            Some(Outcome::Confirmed) => confirmed.push(detail),
            Some(Outcome::Rejected(why)) => {
                rejected = true;
                let record = refuse(outlet, &batch.entries, record, &mut detail, why);
                records.push(record);
                details.push(detail);
            }
            Some(Outcome::Unknown) | None => {
                records.push(record);
                details.push(detail);
            }
        }
    }
    confirm(outlet, &confirmed);
    batch.records = records;
    batch.details = details;
    rejected || !confirmed.is_empty()
}

/// The dead letter of a rejected record; the truncated one of a rejected dead letter; then it stays, and is held.
fn refuse(
    outlet: &mut Outlet,
    entries: &[Entry],
    record: Record,
    detail: &mut Detail,
    why: &Reason,
) -> Record {
    detail.refusals += 1;
    warn!(id = %record.id, reason = why.code, message = why.message, refusals = detail.refusals, "the broker refuses a record");
    let was_dead = detail.dead.is_some();
    detail.dead.get_or_insert(why.code);
    if detail.refusals > 2 {
        return record;
    }
    outlet
        .router
        .refused(&entries[detail.entry], &record, why, was_dead)
        .unwrap_or(record)
}

/// Counts confirmed records.
fn confirm(outlet: &Outlet, confirmed: &[Detail]) {
    if confirmed.is_empty() {
        return;
    }
    let now = jiff::Timestamp::now().as_millisecond();
    let mut events = 0;
    for detail in confirmed {
        match detail.dead {
            Some(reason) => outlet.metrics.dead_lettered(reason),
            None => {
                events += 1;
                if let Some(ms) = detail.ms {
                    outlet
                        .metrics
                        .event_age
                        .observe(now.saturating_sub(ms).max(0) as f64 / 1000.0);
                }
            }
        }
    }
    outlet.metrics.confirmed.inc_by(events);
    outlet.metrics.confirmed_now();
    outlet.state.confirmed();
}

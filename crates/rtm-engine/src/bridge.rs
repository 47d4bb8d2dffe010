//! The data path, top to bottom: poll, publish, deliver. [`crate::supervisor`] keeps its loops running.
//!
//! ```text
//! Agora ──GET──> poll ──page──> journal (durable) ──> publish: decode → tag → route ──deliver──> Kafka
//!                                    one cursor per                (one loop per               ──> NATS
//!                                    App ID and sink                App ID and sink)           ──> stdout, file
//! ```
//!
//! Invariants, and where they are kept:
//!
//! - Never read what cannot be stored: a [`Ticket`] holds the journal's [`Reservation`], and [`fetch`] takes a ticket.
//! - Order: pages of a ring that was asked several times at once are put back into order by [`crate::order`].
//! - Bytes before meaning: [`fetch`] appends the body as it came; [`publish`] is the first to decode it.
//! - A slow or dead broker never slows polling: [`poll`] and [`publish`] meet only at the journal.
//! - A cursor moves only over what the broker confirmed: [`publish`] commits after [`deliver`] returns.
//! - A GET in flight is ended by its deadline only: [`poll`] waits for its tasks, shutdown included.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use backon::BackoffBuilder;
use futures::FutureExt;
use rtm_journal::{Entry, Position, ReadError, Reservation};
use rtm_record::{SLICE, entry, id_of, instead};
use rtm_sink::{
    Outcome, Progress, PublishError, PublishErrorKind, Reason, Record, RecordId, Sink, Timestamp,
};
use rtm_source::{Fetch, FetchError, FetchErrorKind, Next, Observed, Page, Ring, Slot, Turn};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tracing::field::debug;
use tracing::{Instrument, error, info, warn};

use crate::batch::{self, Batch, Detail, Part, WHOLE};
use crate::chain;
use crate::exact::Found;
use crate::lock::lock;
use crate::losses::PAGE;
use crate::order::{Group, READ_PAUSE, Request};
use crate::outlet::{Ending, Outlet, OutletPlan, SkipWatch};
use crate::page::ROOM_FOR_A_PAGE;
use crate::pipeline::Pipeline;
use crate::poison::{self, Steps};
use crate::sink::RunningSink;
use crate::status::phrases::names;
use crate::status::pipeline::PipelineState;
use crate::status::sink::SinkState;
use crate::tally::Tally;

/// Backoff between attempts at an unavailable broker: first, and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Pause between attempts at a broker that refuses us: someone has to act first.
const HOLD: Duration = Duration::from_secs(5);

/// Groups of entries without a record for the sink in one batch at most. Reading them waits for nothing, and meanwhile every
/// other loop of the thread stands still.
const MAX_GROUPS_WITHOUT: usize = 64;

/// Pause after a panic, so that one that comes again at once does not fill the log.
const AFTER_PANIC: Duration = Duration::from_millis(100);

/// A call that takes so long is worth a line in the log, and again every so often: some clients wait for their broker as
/// long as it takes, and say nothing.
const SILENCE: Duration = Duration::from_secs(10);

/// How often it is seen, at the end of an outlet, whether waiting for its sink is of use.
const STUCK_LOOK: Duration = Duration::from_millis(100);

/// How often an odd response is told again, where equal ones follow.
const ODD_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// How often it is told again that someone else may read.
const HOLES_LOG_INTERVAL: Duration = Duration::from_secs(3_600);

/// What a polling loop is to do: poll so, or end once the requests in flight are stored.
pub(crate) type Polling<F> = Option<Arc<Pipeline<F>>>;

/// The right to send one request: room for its page, and a slot of the rate limit. In this order, since a slot that
/// waits for room would be a slot unused.
struct Ticket {
    reservation: Reservation,
    slot: Slot,
}

/// Polls one App ID's rings as `pipelines` say, until they say that it ends, then lets the requests in flight finish.
///
/// A request that is in flight while another plan comes finishes as it began: its page is stored, its slot of the limit
/// rests, and what polls on has both before it. A panic in here begins the loop again, and cancels no request.
pub(crate) async fn poll<F: Fetch>(
    mut pipelines: watch::Receiver<Polling<F>>,
    state: Arc<PipelineState>,
) {
    let first = pipelines.borrow_and_update().clone();
    let Some(mut pipeline) = first else { return };
    pipeline.schedule();
    let mut in_flight = JoinSet::new();
    let mut panicked = false;
    loop {
        let polling = async {
            if panicked {
                // Each request stores its page by itself. What the schedule knew of them may be wrong.
                while in_flight.join_next().await.is_some() {}
                pipeline.account.losses.end().await;
                lock(&pipeline.account.schedule).start_anew();
            }
            poll_until_told(&mut pipelines, &mut pipeline, &mut in_flight, &state).await;
        };
        if AssertUnwindSafe(polling).catch_unwind().await.is_ok() {
            return;
        }
        error!("polling has panicked, and begins again; please report this");
        tokio::time::sleep(AFTER_PANIC).await;
        panicked = true;
    }
}

async fn poll_until_told<F: Fetch>(
    pipelines: &mut watch::Receiver<Polling<F>>,
    pipeline: &mut Arc<Pipeline<F>>,
    in_flight: &mut JoinSet<Exchanged<F>>,
    state: &Arc<PipelineState>,
) {
    let mut ticket: Option<Ticket> = None;
    // Whether the mark says that rings are being polled.
    let mut is_marked = false;
    loop {
        if pipeline.is_paused {
            ticket = None;
            if is_marked && in_flight.is_empty() {
                pipeline.account.losses.end().await;
                is_marked = false;
            }
        } else if !is_marked {
            // Before the first request, so that a crash after it is known of.
            is_marked = true;
            tokio::select! {
                // First, so that it has begun: its mark is stored even if it is not waited for.
                biased;
                () = begin(pipeline, state) => {}
                () = ending(pipelines.clone()) => {
                    // Not waited for either. Nothing was sent, so that a stop now is no crash.
                    _ = pipeline.account.losses.end().now_or_never();
                    is_marked = false;
                    break;
                }
            }
        }
        // A ticket is asked for when a request is due: earlier, its slot would be one more thing to wake up for.
        let wait_until = if pipeline.is_paused {
            None
        } else {
            match next(pipeline) {
                Next::Wait(until) => Some(until),
                Next::Poll(ring) => {
                    if let Some(ticket) = ticket.take() {
                        let turn = started(pipeline, &ring);
                        state.sent();
                        in_flight.spawn(
                            fetch(Arc::clone(pipeline), Arc::clone(state), turn, ticket)
                                .in_current_span(),
                        );
                        continue;
                    }
                    None
                }
            }
        };
        if wait_until.is_some() || pipeline.is_paused {
            // No room is waited for.
            state.polling_resumed();
        }
        tokio::select! {
            biased;
            Ok(()) = pipelines.changed() => {
                let polling = pipelines.borrow_and_update().clone();
                let Some(renewed) = polling else { break };
                if !Arc::ptr_eq(pipeline, &renewed) {
                    renew(pipeline, &renewed, state, is_marked).await;
                    *pipeline = renewed;
                }
            }
            Some(done) = in_flight.join_next() => observe(state, done),
            taken = take_ticket(pipeline, state), if wait_until.is_none() && !pipeline.is_paused => {
                ticket = Some(taken);
            }
            () = sleep_until(wait_until), if wait_until.is_some() => {}
        }
    }
    drop(ticket);
    state.polling_resumed();
    while let Some(done) = in_flight.join_next().await {
        observe(state, done);
    }
    if is_marked {
        pipeline.account.losses.end().await;
    }
}

/// Returns when the loop is to end.
async fn ending<F>(mut pipelines: watch::Receiver<Polling<F>>) {
    if pipelines.wait_for(Option::is_none).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// What a request's task ends with: whose it was, and how it went.
struct Exchanged<F> {
    pipeline: Arc<Pipeline<F>>,
    turn: Turn,
    ended: Ended,
}

/// How a request went.
struct Ended {
    outcome: rtm_source::Outcome,
    error: Option<FetchError>,
    /// Where something is stored that could not be read, and becomes a dead letter; and what it is like.
    unread: Option<(Position, u64)>,
}

/// Takes over another pipeline of the same App ID. Rings that are new are marked first.
async fn renew<F: Fetch>(
    old: &Pipeline<F>,
    renewed: &Pipeline<F>,
    state: &PipelineState,
    is_marked: bool,
) {
    let (old, new) = (old.source.rings(), renewed.source.rings());
    let added: Vec<Ring> = new
        .iter()
        .filter(|ring| !old.contains(ring))
        .cloned()
        .collect();
    if is_marked {
        renewed.account.losses.also(&added).await;
    }
    renewed.schedule();
    state.renew(renewed);
}

/// Says durably that rings are being polled, and counts what the last process may have cost if it died.
async fn begin<F: Fetch>(pipeline: &Pipeline<F>, state: &PipelineState) {
    let (rings, losses) = (pipeline.source.rings(), &pipeline.account.losses);
    let died = losses.begin(&pipeline.name, rings, state.metrics()).await;
    if let Some(crash) = died {
        warn!(
            possibly_lost = crash.events(),
            "the last process died while it polled: requests that were in flight may have cost events"
        );
        state.crashed(crash);
    }
}

fn next<F: Fetch>(pipeline: &Pipeline<F>) -> Next {
    let mut schedule = lock(&pipeline.account.schedule);
    // What was refused waits for long, and rings fill meanwhile.
    if schedule.is_alarmed() && pipeline.source.credentials_changed() {
        info!("the credentials have changed: trying again at once");
        schedule.try_again();
    }
    schedule.next(now())
}

fn started<F>(pipeline: &Pipeline<F>, ring: &Ring) -> Turn {
    lock(&pipeline.account.schedule).started(ring, now())
}

/// Tokio's time, which tests can own.
fn now() -> std::time::Instant {
    Instant::now().into_std()
}

async fn sleep_until(until: Option<std::time::Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until.into()).await,
        None => std::future::pending().await,
    }
}

/// Waits for room in the journal, loudly, and then for a slot. Cancel-safe: both are given back.
async fn take_ticket<F: Fetch>(pipeline: &Pipeline<F>, state: &PipelineState) -> Ticket {
    let reservation = match pipeline.account.lane.try_reserve(ROOM_FOR_A_PAGE) {
        Some(reservation) => reservation,
        None => wait_for_room(pipeline, state).await,
    };
    state.polling_resumed();
    let waiting = Instant::now();
    let slot = pipeline.account.limiter.slot().await;
    state
        .metrics()
        .rate_limit_waited(&pipeline.name, waiting.elapsed());
    Ticket { reservation, slot }
}

async fn wait_for_room<F: Fetch>(pipeline: &Pipeline<F>, state: &PipelineState) -> Reservation {
    let reserve = pipeline.account.lane.reserve(ROOM_FOR_A_PAGE);
    tokio::pin!(reserve);
    loop {
        if state.polling_stopped() {
            error!(
                why = state.why_full(),
                "polling has stopped: the journal has no room for this App ID, and Agora overwrites events from now on; \
                 repair the sink that lags, free disk space, or raise journal.max_bytes (journal.max_entries, where responses \
                 are small)"
            );
        }
        if let Ok(reservation) = tokio::time::timeout(Duration::from_secs(1), &mut reserve).await {
            info!("polling goes on: the journal has room again");
            return reservation;
        }
    }
}

/// One request: send, receive, make durable. Runs in a task of its own, so that nothing cancels it, and ends whatever
/// happens, so that the ring is polled again.
async fn fetch<F: Fetch>(
    pipeline: Arc<Pipeline<F>>,
    state: Arc<PipelineState>,
    turn: Turn,
    ticket: Ticket,
) -> Exchanged<F> {
    let ring = turn.ring();
    let exchange = AssertUnwindSafe(exchange(&pipeline, &state, ring, ticket));
    let ended = match exchange.catch_unwind().await {
        Ok(ended) => ended,
        Err(_) => {
            error!(
                region = ring.region.name(),
                stream = ring.stream.as_str(),
                "a request has panicked, and its page may be lost; please report this"
            );
            lost(&pipeline, &state, ring, "crash", PAGE).await;
            Ended {
                outcome: rtm_source::Outcome::InDoubt { retry_after: None },
                error: None,
                unread: None,
            }
        }
    };
    Exchanged {
        pipeline,
        turn,
        ended,
    }
}

async fn exchange<F: Fetch>(
    pipeline: &Pipeline<F>,
    state: &PipelineState,
    ring: &Ring,
    ticket: Ticket,
) -> Ended {
    let Ticket { reservation, slot } = ticket;
    let metrics = state.ring(ring);
    // Until the page is stored, or is known not to come.
    let request = pipeline.account.requests.begin(ring);
    // A crash may cost the page of each request in flight.
    let requests = request.in_flight() as u64;
    pipeline.account.losses.in_flight(ring, requests).await;
    let sent = Instant::now();
    let fetched = pipeline.source.fetch(ring, slot).await;
    metrics.poll_duration.observe(sent.elapsed().as_secs_f64());
    let outcome = rtm_source::Outcome::of(&fetched);
    let mut failure = None;
    let (page, possibly_lost) = match fetched {
        Ok(page) => {
            state.polled(ring, if page.count == 0 { "empty" } else { "page" });
            let (region, stream, status) = (ring.region.name(), ring.stream.as_str(), page.status);
            if status != 200 && state.is_news(ring, "status", ODD_LOG_INTERVAL) {
                warn!(
                    region,
                    stream, status, "a whole page comes with an odd status, and is taken"
                );
            }
            // A complete page without events says nothing that anyone could want later.
            ((page.count > 0).then_some(page), None)
        }
        Err(error) => {
            failed(pipeline, state, ring, &error);
            let possibly_lost = (error.kind == FetchErrorKind::InDoubt)
                .then(|| (loss_reason(error.reason), error.possibly_lost()));
            let partial = error.partial.as_deref().cloned();
            failure = Some(error);
            (partial, possibly_lost)
        }
    };
    let mut unread = None;
    if let Some(page) = page {
        let stored = store(pipeline, state, &request, ring, reservation, &page).await;
        let position = stored.filter(|_| page.unread);
        unread = position.map(|position| (position, page.likeness()));
    }
    if let Some((reason, events)) = possibly_lost {
        lost(pipeline, state, ring, reason, events).await;
    }
    Ended {
        outcome,
        error: failure,
        unread,
    }
}

/// Makes a page durable, and says where it is.
async fn store<F: Fetch>(
    pipeline: &Pipeline<F>,
    state: &PipelineState,
    request: &Request,
    ring: &Ring,
    reservation: Reservation,
    page: &Page,
) -> Option<Position> {
    let overlap = request.overlap(page.first_ms);
    let entry = entry::encode(&pipeline.name, &pipeline.app_id, page, overlap.as_ref());
    let count = u32::try_from(page.count).unwrap_or(u32::MAX);
    match reservation.append(entry, count).await {
        Ok(position) => {
            state.ring(ring).events_fetched.inc_by(page.count as u64);
            state.arrived(ring, page);
            Some(position)
        }
        Err(error) => {
            error!(
                error = chain(&error),
                events = page.count,
                "a page could not be stored: its events are lost"
            );
            state.ring(ring).lost_estimated.inc_by(page.count as u64);
            lost(pipeline, state, ring, "crash", page.count as u64).await;
            None
        }
    }
}

/// Counts what a request may have cost, durably.
async fn lost<F: Fetch>(
    pipeline: &Pipeline<F>,
    state: &PipelineState,
    ring: &Ring,
    reason: &'static str,
    events: u64,
) {
    state.ring(ring).in_doubt(reason, events);
    state.lost(ring, events);
    pipeline.account.losses.count(ring, reason, events).await;
}

/// Counts a failed request, and remembers why it failed. [`observe`] logs it, with what comes of it.
fn failed<F: Fetch>(
    pipeline: &Pipeline<F>,
    state: &PipelineState,
    ring: &Ring,
    error: &FetchError,
) {
    state.polled(ring, error.kind.as_str());
    if error.status == Some(429) {
        state.metrics().rate_limited(&pipeline.name);
    }
    if matches!(error.status, Some(401 | 403)) {
        state.metrics().credentials_refused(&pipeline.name);
    }
    state.failed(ring, error);
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
fn observe<F>(state: &PipelineState, done: Result<Exchanged<F>, JoinError>) {
    let Exchanged {
        pipeline,
        turn,
        ended,
    } = match done {
        Ok(done) => done,
        Err(panic) => {
            error!(error = %panic, "a request's task ended unexpectedly; please report this");
            return;
        }
    };
    let (ring, outcome, error) = (turn.ring().clone(), ended.outcome, ended.error);
    let observed = lock(&pipeline.account.schedule).observe(turn, now(), &outcome);
    let metrics = state.ring(&ring);
    let (region, stream) = (ring.region.name(), ring.stream.as_str());
    if matches!(outcome, rtm_source::Outcome::Page { full: true, .. }) {
        metrics.full_pages.inc();
    }
    if observed.overflow_suspected {
        let estimated_lost = observed
            .overflow
            .map_or(0, |overflow| overflow.estimated_lost);
        metrics.overflow_suspected.inc();
        metrics.overflow_estimated.inc_by(estimated_lost);
        state.overflowed(&ring, estimated_lost);
        warn!(
            region,
            stream,
            estimated_lost,
            "two full pages in a row: the ring was full, and Agora may have overwritten events"
        );
    }
    if state
        .metrics()
        .second_poller(&pipeline.name, observed.second_poller)
    {
        error!(
            "someone else seems to read this App ID's events, which are lost to us: run one bridge for each App ID"
        );
    }
    if observed.holes && state.is_news(&ring, "holes", HOLES_LOG_INTERVAL) {
        warn!(
            region,
            stream,
            "events begin long after those of the page before: they come in bunches, or someone else reads this App ID's \
             events, and then a second bridge polls it"
        );
    }
    let saved = error.as_ref().map_or(0, FetchError::saved) as u64;
    (metrics.lost_estimated).inc_by(observed.estimated_lost.saturating_sub(saved));
    let reason = error.as_ref().map_or("status", |error| error.reason);
    if let Some((position, likeness)) = ended.unread {
        // Whoever gives such a response gives one at every poll.
        if loss_reason(reason) == "status" && !state.is_news(&ring, likeness, ODD_LOG_INTERVAL) {
            return;
        }
        warn!(
            region,
            stream,
            %position,
            "part of a response could not be read as events: it is kept in the journal, and goes to the dead letters"
        );
    }
    if let Some(error) = error {
        // A request that is not sent costs nothing by itself, and the next one fails like it.
        let times = match error.kind {
            FetchErrorKind::NotSent => state.unsent(&ring, &error),
            _ => Some(1),
        };
        if let Some(times) = times {
            log_failure(&ring, &error, &observed, times);
        }
    }
}

/// A failed request and what comes of it, in one line; how often it has failed like this since that was last said.
fn log_failure(ring: &Ring, error: &FetchError, observed: &Observed, times: u64) {
    let ids = error.request_ids.as_ref();
    let request_id = ids.and_then(|ids| ids.request.as_deref());
    let resource_id = ids.and_then(|ids| ids.resource.as_deref());
    let (region, stream) = (ring.region.name(), ring.stream.as_str());
    let possibly_lost = error.possibly_lost();
    let backoff = observed.hold.or(observed.backoff).map(debug);
    let what = match observed.hold {
        None => "a request failed",
        Some(_) => {
            "Agora says that the App ID's requests are too many; holding all of its rings. Does someone else use it?"
        }
    };
    let error = chain(error);
    if observed.alarm {
        error!(
            region,
            stream,
            error,
            request_id,
            resource_id,
            backoff,
            "Agora refuses this App ID, its credentials or the URL; polling goes on slowly"
        );
        return;
    }
    warn!(
        region,
        stream, error, times, possibly_lost, request_id, resource_id, backoff, "{what}"
    );
}

/// Publishes one lane to one sink, until its plan says that it ends and nothing waits, or is waited for.
pub(crate) async fn publish_until_ended(outlet: Outlet, crashed: bool) {
    let patience = patience(
        outlet.plans.clone(),
        Arc::clone(&outlet.state),
        outlet.sink.clone(),
    );
    tokio::select! {
        biased;
        () = publish(outlet, crashed) => {}
        why = patience => warn!("{why}: what is not yet published waits in the journal"),
    }
}

/// Returns when an outlet that ends has no more time, or waits for a sink that takes nothing anyway; says which.
async fn patience(
    mut plans: watch::Receiver<OutletPlan>,
    state: Arc<SinkState>,
    sink: RunningSink,
) -> &'static str {
    loop {
        let ending = plans.borrow_and_update().ending;
        tokio::select! {
            biased;
            changed = plans.changed() => if changed.is_err() {
                std::future::pending::<()>().await;
            },
            () = at(ending) => return "the time to publish the rest is over",
            () = tokio::time::sleep(STUCK_LOOK), if matches!(ending, Ending::By(_) | Ending::AtOnce(_)) => {
                if state.is_stuck(sink.health().up) {
                    return "the sink takes nothing";
                }
            }
        }
    }
}

async fn at(ending: Ending) {
    match ending {
        Ending::By(at) | Ending::AtOnce(at) => tokio::time::sleep_until(at).await,
        Ending::Never | Ending::WhenEmpty => std::future::pending().await,
    }
}

/// Publishes one lane to one sink, until its plan says that it ends and nothing waits. `crashed` says that the last process
/// died.
///
/// A panic in here is a crash of this loop alone: it starts again at its cursor.
async fn publish(mut outlet: Outlet, mut crashed: bool) {
    let sink = outlet.sink.clone();
    loop {
        let publishing = async {
            outlet.begin(crashed).await;
            publish_all(&mut outlet, sink.client()).await;
        };
        let ended = AssertUnwindSafe(publishing).catch_unwind().await;
        if ended.is_ok() {
            outlet.end().await;
            return;
        }
        error!("publishing has panicked, and starts again at its cursor; please report this");
        tokio::time::sleep(AFTER_PANIC).await;
        crashed = true;
    }
}

pub(crate) async fn publish_all<S: Sink>(outlet: &mut Outlet, sink: &S) {
    let mut plans = outlet.plans.clone();
    loop {
        let is_ending = outlet.is_ending();
        if matches!(outlet.plan.ending, Ending::AtOnce(_)) {
            return;
        }
        if outlet.is_in_doubt() {
            recall(outlet, sink).await;
        }
        let moved = outlet.moved();
        let first = tokio::select! {
            biased;
            Ok(()) = plans.changed() => {
                outlet.renew().await;
                continue;
            }
            () = moved => continue,
            group = outlet.next() => group,
            () = std::future::ready(()), if is_ending => return,
        };
        match first {
            Err(ReadError::Closed) => return,
            // It is read again.
            Ok(_) if outlet.is_unsure() => recall(outlet, sink).await,
            // The journal says so, for as long as it takes.
            Err(ReadError::Io { .. }) => tokio::time::sleep(READ_PAUSE).await,
            Ok(group) if outlet.is_poisoned() => publish_by_steps(outlet, sink, group).await,
            first => {
                let (mut batch, large) = gather(outlet, first);
                let is_empty = batch.records.is_empty();
                if deliver(outlet, sink, &mut batch).await == Delivered::Elsewhere {
                    outlet.go_back().await;
                    continue;
                }
                outlet.commit(&batch);
                if let Some(group) = large {
                    publish_in_slices(outlet, sink, group).await;
                } else if is_empty {
                    // Nothing was waited for, and other loops share the thread.
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}

/// Publishes entries of which one is suspected of crashing the process: see [`poison`].
pub(crate) async fn publish_by_steps<S: Sink>(outlet: &mut Outlet, sink: &S, group: Group) {
    let mut steps = Steps::new(group);
    let routes = outlet.plan.routes.clone();
    while let Some(mut batch) = steps.next(outlet).await {
        if outlet.plan.routes != routes {
            // A step may have been prepared before another was given new ones.
            outlet.reroute(&mut batch);
        }
        if deliver(outlet, sink, &mut batch).await == Delivered::Elsewhere {
            // What is noted was not tried.
            outlet.disarm().await;
            return outlet.go_back().await;
        }
        outlet.settle_part(&batch);
    }
}

/// Publishes entries of which one has more records than one batch should hold: a slice at a time. The cursor moves once all
/// are settled, and with it the counts.
async fn publish_in_slices<S: Sink>(outlet: &mut Outlet, sink: &S, group: Group) {
    let mut all = Batch::default();
    let mut entries = group.into_iter().peekable();
    while let Some(entry) = entries.next() {
        let mut from = 0;
        loop {
            let mut batch = Batch::default();
            let more = match &entry {
                Ok(entry) => {
                    let most = outlet.slice_of(entry);
                    let last = outlet.add(&mut batch, entry, from, most);
                    if last.is_some() || entries.peek().is_some() {
                        batch.part = Some(Part::of(entry, last.unwrap_or(WHOLE)));
                    }
                    from += most;
                    last.is_some()
                }
                Err(error) => {
                    outlet.damaged(&mut all, error);
                    false
                }
            };
            if let Ok(entry) = &entry {
                all.reach(entry);
            }
            if batch.part.is_none() {
                // The last: the cursor moves over all of them.
                (batch.through, batch.newest) = (all.through, all.newest);
                batch.settled.add(&std::mem::take(&mut all.settled));
            }
            if deliver(outlet, sink, &mut batch).await == Delivered::Elsewhere {
                return outlet.go_back().await;
            }
            match batch.part {
                Some(_) if outlet.exact().is_some() => outlet.settle_part(&batch),
                _ => all.settled.add(&batch.settled),
            }
            if !more {
                break;
            }
        }
    }
    outlet.commit(&all);
}

/// A batch of all that waits, up to the bounds, of which one is for all batches of the sink: batches grow when it lags. With
/// the group that follows it, if that is to be published in slices.
fn gather(outlet: &mut Outlet, first: Result<Group, ReadError>) -> (Batch, Option<Group>) {
    let mut batch = Batch::default();
    let mut read = first;
    let mut groups_without = 0;
    loop {
        let records = batch.records.len();
        let group = match read {
            Ok(group) if is_large(&group, outlet.most_records()) => {
                batch.keep_room(0);
                return (batch, Some(group));
            }
            Ok(group) if batch.records.len() + count(&group) > outlet.most_records() => {
                batch.keep_room(0);
                outlet.put_back(group);
                return (batch, None);
            }
            Ok(group) => group,
            Err(error) => vec![Err(error)],
        };
        for entry in group {
            match entry {
                Ok(entry) => _ = outlet.add(&mut batch, &entry, 0, SLICE),
                Err(error) => outlet.damaged(&mut batch, &error),
            }
        }
        batch.keep_room(batch.records.len() - records);
        groups_without += usize::from(batch.records.len() == records);
        if batch.is_full()
            || groups_without == MAX_GROUPS_WITHOUT
            || !batch.has_room(outlet.sink.spare())
        {
            return (batch, None);
        }
        read = match outlet.try_next() {
            Ok(Some(group)) => Ok(group),
            Err(error) if !matches!(error, ReadError::Io { .. }) => Err(error),
            // That was all; or the next cannot be read now, and what was read goes out first.
            Ok(None) | Err(_) => {
                batch.keep_room(0);
                return (batch, None);
            }
        };
    }
}

/// Whether a group has more records than one batch may have, or an entry more than a slice, and so more than any page of
/// Agora's.
fn is_large(group: &Group, most: usize) -> bool {
    let mut entries = group.iter().flatten();
    entries.any(|entry| entry.count as usize > SLICE) || count(group) > most
}

/// The records of a group at most.
fn count(group: &Group) -> usize {
    let entries = group.iter().flatten();
    entries.map(|entry| entry.count as usize).sum()
}

/// Publishes a batch until every record is confirmed, as an event or as a dead letter. Three kinds of error, three
/// actions; a record of unknown outcome is published again, in order and under the same id. What waits while the plan gets
/// other routes takes them, also what is of unknown outcome: it may then be in the old place as well.
///
/// To a sink that stores records once and only once, all records of the batch are given together, with the progress that
/// they bring; a call of unknown outcome is looked for before anything else is published.
async fn deliver<S: Sink>(outlet: &mut Outlet, sink: &S, batch: &mut Batch) -> Delivered {
    let mut backoff = backoff();
    let mut skip_watch = outlet.skip_watch();
    outlet.state.publishing();
    // The first so many were given to the sink before.
    let mut known = 0;
    // The progress of a call whose outcome is unknown.
    let mut in_doubt = None;
    while !batch.records.is_empty() || std::mem::take(&mut batch.owes_progress) {
        if let Some(tried) = in_doubt.take() {
            match find(outlet, sink, tried, batch, &mut skip_watch).await {
                Found::NotStored => {}
                Found::Stored => break,
                Found::Elsewhere => return Delivered::Elsewhere,
            }
        }
        if outlet.is_in_doubt() {
            return Delivered::Elsewhere;
        }
        if outlet.has_new_routes() {
            outlet.reroute(batch);
            info!(
                topics = batch.topics().join(", "),
                records = batch.records.len(),
                "what waits for the sink goes where the new configuration says"
            );
        }
        if outlet.is_too_large(batch) && outlet.divide(batch.records.len()) {
            return Delivered::Elsewhere;
        }
        // A place that takes nothing shows with one record that it does again.
        let progress = outlet.progress(batch);
        let is_asked = progress.is_none()
            && batch.details[0].dead.is_none()
            && outlet.takes_nothing(&batch.records[0]);
        let given = if is_asked { 1 } else { batch.records.len() };
        let began = Instant::now();
        outlet.metrics.batch.observe(given as f64);
        outlet.metrics.retried.inc_by(known.min(given) as u64);
        known = known.max(given);
        let call = (&batch.records[..given], progress.as_ref());
        let published = attempt(outlet, sink, call, &mut skip_watch).await;
        outlet
            .metrics
            .publish_duration
            .observe(began.elapsed().as_secs_f64());
        let error = match published {
            Attempt::Ended(Ok(())) => {
                settle(outlet, batch, given, &[]);
                known -= given;
                batch.owes_progress = false;
                if let Some((exact, progress)) = outlet.exact().zip(progress) {
                    exact.stored(progress);
                }
                continue;
            }
            Attempt::Ended(Err(error)) => error,
            Attempt::Rerouted => {
                in_doubt = progress;
                continue;
            }
            Attempt::Skipped => {
                skip(outlet, batch);
                break;
            }
        };
        if progress.is_some() && error.is_of_the_whole() && outlet.divide(given) {
            return Delivered::Elsewhere;
        }
        let before = batch.records.len();
        let settled = settle(outlet, batch, 0, &error.outcomes);
        known -= before - batch.records.len();
        if batch.records.is_empty() {
            break;
        }
        if settled.progressed {
            backoff = self::backoff();
        }
        let why = why(&error, settled.held, batch);
        let is_rejected = error.kind == PublishErrorKind::Rejected && !error.is_of_the_whole();
        let pause = match error.kind {
            PublishErrorKind::Rejected if is_rejected && settled.held.is_none() => continue,
            PublishErrorKind::Unavailable => {
                let pause = backoff.next().unwrap_or(BACKOFF.1);
                outlet.state.unavailable(&why, pause);
                pause
            }
            PublishErrorKind::Misconfigured | PublishErrorKind::Rejected => {
                outlet.state.held(&why, HOLD);
                HOLD
            }
        };
        outlet.disarm().await;
        tokio::select! {
            biased;
            () = tokio::time::sleep(pause) => {}
            () = outlet.new_routes() => {}
            () = skip_watch.must_skip() => {
                skip(outlet, batch);
                break;
            }
        }
        in_doubt = progress.filter(|_| !is_rejected);
    }
    outlet.state.published();
    Delivered::Here
}

/// Where a batch left its lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Delivered {
    /// All of it is settled.
    Here,
    /// The broker may know more of the lane, or less, than was thought: it is to be asked, and the batch to be made anew.
    Elsewhere,
}

/// Finds out what became of a call whose outcome is unknown, for as long as it takes. Of what was stored the batch is
/// settled.
async fn find<S: Sink>(
    outlet: &mut Outlet,
    sink: &S,
    tried: Progress,
    batch: &mut Batch,
    skip_watch: &mut SkipWatch,
) -> Found {
    let mut backoff = backoff();
    outlet.metrics.in_doubt.inc();
    loop {
        let asking = async {
            let torn = sink.torn().await?;
            Ok::<_, PublishError>((sink.recall(&tried.key).await?, torn))
        };
        let found = tokio::select! {
            biased;
            found = asking => found,
            () = skip_watch.must_skip() => {
                skip(outlet, batch);
                return Found::Stored;
            }
        };
        let judged = found.map(|(found, torn)| {
            let found = outlet.judge_call(&tried, found);
            // Of a call that is not stored the power may have left some.
            let ids = torn.iter().filter_map(|payload| id_of(payload));
            let ids: HashSet<RecordId> = ids.collect();
            match found {
                Found::NotStored if batch.has_any(&ids) => Found::Elsewhere,
                found => found,
            }
        });
        let pause = match judged {
            Ok(Found::Stored) => {
                settle(outlet, batch, batch.records.len(), &[]);
                if let Some(exact) = outlet.exact() {
                    exact.stored(tried);
                }
                return Found::Stored;
            }
            Ok(found) => return found,
            Err(error) => wait_for(outlet, &error, &mut backoff),
        };
        tokio::select! {
            biased;
            () = tokio::time::sleep(pause) => {}
            () = skip_watch.must_skip() => {
                skip(outlet, batch);
                return Found::Stored;
            }
        }
    }
}

/// Notes why the sink cannot be asked, and says when it is asked again.
fn wait_for(
    outlet: &Outlet,
    error: &PublishError,
    backoff: &mut backon::ExponentialBackoff,
) -> Duration {
    if error.kind == PublishErrorKind::Unavailable {
        let pause = backoff.next().unwrap_or(BACKOFF.1);
        outlet.state.unavailable(&chain(error), pause);
        return pause;
    }
    outlet.state.held(&chain(error), HOLD);
    HOLD
}

/// Asks the broker how far the lane is published, and whether it has lost some of that, for as long as it takes, unless
/// another plan comes or the journal is full.
async fn recall<S: Sink>(outlet: &mut Outlet, sink: &S) {
    let key = outlet.exact().map(|exact| exact.key().clone());
    let mut plans = outlet.plans.clone();
    let mut backoff = backoff();
    let mut skip_watch = outlet.skip_watch();
    outlet.state.publishing();
    loop {
        let asking = async {
            if let Some(why) = outlet.why_not_exactly() {
                outlet.state.held(why, HOLD);
                outlet.show_fence();
                tokio::time::sleep(HOLD).await;
                return None;
            }
            let asked = async {
                let torn = sink.torn().await?;
                // What goes back while the broker answers is looked at another time.
                let ground = outlet.ground();
                let known = match &key {
                    Some(key) => sink.recall(key).await?,
                    None => None,
                };
                Ok::<_, PublishError>((known, ground, torn))
            };
            match asked.await {
                Ok(known) => return Some(known),
                Err(error) => {
                    let pause = wait_for(outlet, &error, &mut backoff);
                    tokio::time::sleep(pause).await;
                }
            }
            None
        };
        tokio::select! {
            biased;
            known = asking => if let Some((known, ground, torn)) = known {
                let torn = torn.iter().filter_map(|payload| id_of(payload)).collect();
                outlet.resume(known, ground, torn).await;
                break;
            },
            Ok(()) = plans.changed() => return,
            () = skip_watch.must_skip() => skip_next(outlet),
        }
    }
    outlet.state.published();
}

/// Gives up the next entries, as the configuration says, so that polling can go on.
fn skip_next(outlet: &mut Outlet) {
    let Ok(Some(group)) = outlet.try_next() else {
        return;
    };
    let mut batch = Batch::default();
    for entry in &group {
        match entry {
            Ok(entry) => {
                batch.settled.drop_events("skipped", entry.count.into());
                batch.reach(entry);
            }
            Err(error) => outlet.damaged(&mut batch, error),
        }
    }
    outlet.state.skipped(count(&group) as u64);
    outlet.commit(&batch);
}

/// Why a batch waits, and for which topics.
fn why(error: &PublishError, held: Option<&str>, batch: &Batch) -> String {
    let topics = names(&batch.topics());
    let held = held.map(|held| format!("{held}; "));
    let held = held.unwrap_or_default();
    format!("{} ({held}what waits is for {topics})", chain(error))
}

enum Attempt {
    Ended(Result<(), PublishError>),
    /// It has said nothing for long, and there are other routes.
    Rerouted,
    /// The journal is full, and this sink may lose events.
    Skipped,
}

/// One call of `publish`, which may wait for its broker as long as it likes.
async fn attempt<S: Sink>(
    outlet: &mut Outlet,
    sink: &S,
    (records, progress): (&[Record], Option<&Progress>),
    skip_watch: &mut SkipWatch,
) -> Attempt {
    let publishing = async {
        match progress {
            Some(progress) => sink.publish_exactly(records, progress).await,
            None => sink.publish(records).await,
        }
    };
    tokio::pin!(publishing);
    let mut silence = tokio::time::interval_at(Instant::now() + SILENCE, SILENCE);
    loop {
        tokio::select! {
            biased;
            ended = &mut publishing => return Attempt::Ended(ended),
            _ = silence.tick() => {
                outlet.state.silent(outlet.sink.health().said.as_deref());
                if outlet.has_new_routes() {
                    return Attempt::Rerouted;
                }
            }
            () = tokio::time::sleep(poison::HARMLESS), if outlet.is_armed() => {
                outlet.disarm().await;
            }
            () = skip_watch.must_skip() => return Attempt::Skipped,
        }
    }
}

fn backoff() -> backon::ExponentialBackoff {
    backon::ExponentialBuilder::default()
        .with_min_delay(BACKOFF.0)
        .with_max_delay(BACKOFF.1)
        .with_jitter()
        .without_max_times()
        .build()
}

/// Gives up what is left of a batch, as the configuration says, so that polling can go on.
fn skip(outlet: &mut Outlet, batch: &mut Batch) {
    if let Some(exact) = outlet.exact() {
        // A call may be on its way.
        exact.suspect();
    }
    let events = batch.unsettled();
    batch.settled.drop_events("skipped", events);
    batch.records.clear();
    batch.details.clear();
    outlet.state.skipped(events);
}

/// What a call of `publish` leads to, whose records are not all settled.
struct Settled {
    /// Something was confirmed, or is a dead letter now.
    progressed: bool,
    /// Why what was refused is kept as it is.
    held: Option<&'static str>,
}

/// Counts what a publish did confirm, turns what it rejected into dead letters, and keeps the rest, in order. The first
/// `confirmed` records are confirmed; of those after them `outcomes` tells.
fn settle(
    outlet: &mut Outlet,
    batch: &mut Batch,
    confirmed: usize,
    outcomes: &[Outcome],
) -> Settled {
    let outcomes = std::iter::repeat_n(&Outcome::Confirmed, confirmed).chain(outcomes);
    judge_places(outlet, batch, outcomes.clone());
    let outcomes = outcomes.chain(std::iter::repeat(&Outcome::Unknown));
    let (mut records, mut details, mut confirmed) = (Vec::new(), Vec::new(), Vec::new());
    let mut settled = Settled {
        progressed: false,
        held: None,
    };
    for ((record, mut detail), outcome) in batch
        .records
        .drain(..)
        .zip(batch.details.drain(..))
        .zip(outcomes)
    {
        match outcome {
            Outcome::Confirmed => confirmed.push(detail),
            Outcome::Rejected(why) => {
                let refused = refuse(outlet, &batch.entries, record, &mut detail, why);
                settled.progressed |= refused.held.is_none();
                settled.held = settled.held.or(refused.held);
                records.push(refused.record);
                details.push(detail);
            }
            Outcome::Unknown => {
                records.push(record);
                details.push(detail);
            }
        }
    }
    settled.progressed |= !confirmed.is_empty();
    confirm(outlet, &mut batch.settled, &confirmed);
    batch.records = records;
    batch.details = details;
    settled
}

/// Counts how many events each place has refused one after the other. A place that has taken an event in the same call
/// begins a new row, wherever in the batch that event stands.
fn judge_places<'a>(
    outlet: &mut Outlet,
    batch: &Batch,
    outcomes: impl Iterator<Item = &'a Outcome> + Clone,
) {
    let all = batch.records.iter().zip(&batch.details);
    let events = all
        .zip(outcomes)
        .filter(|((_, detail), _)| detail.dead.is_none());
    for ((record, _), outcome) in events.clone() {
        if let Outcome::Rejected(why) = outcome {
            outlet.refused(record, why);
        }
    }
    for ((record, _), outcome) in events {
        if *outcome == Outcome::Confirmed {
            outlet.accepted(record);
        }
    }
}

/// A record that was refused: what takes its place, or why it is kept.
struct Refused {
    record: Record,
    held: Option<&'static str>,
}

/// The dead letter of a rejected event, unless its place takes nothing and the event is not to blame itself. What takes the
/// place of a dead letter that is to blame itself, unless nothing can. What is kept is held, and tried again as it was before
/// it was cut.
fn refuse(
    outlet: &mut Outlet,
    entries: &[Entry],
    record: Record,
    detail: &mut Detail,
    why: &Reason,
) -> Refused {
    if detail.dead.is_some() {
        let is_too_large = why.code == Reason::TOO_LARGE;
        let now = Timestamp(jiff::Timestamp::now().as_millisecond());
        // Where its size is not to blame, a cut would cost bytes for nothing.
        let Some(other) = instead(&record, why, now) else {
            let record = detail.uncut.take().map_or(record, |uncut| *uncut);
            let held = match is_too_large {
                true => "it refuses even a dead letter without bytes",
                false => "it refuses a dead letter, and neither its size nor its time is to blame",
            };
            return Refused {
                record,
                held: Some(held),
            };
        };
        if (detail.uncut.is_none() || !is_too_large)
            && let Some(times) = outlet.said_cut.due(1)
        {
            let what = match is_too_large {
                true => "a dead letter is refused, and is cut until it fits",
                false => "a dead letter is refused for its time, and gets that of now",
            };
            warn!(times, id = %record.id, topic = %record.topic, reason = why.code, message = why.message, "{what}");
        }
        if is_too_large {
            detail.uncut.get_or_insert_with(|| Box::new(record));
        }
        return Refused {
            record: other,
            held: None,
        };
    }
    if !outlet.is_own_fault(why) && outlet.takes_nothing(&record) {
        let held = Some("it refuses one record after the other and takes none");
        return Refused { record, held };
    }
    if let Some(times) = outlet.said_refused.due(1) {
        warn!(times, id = %record.id, topic = %record.topic, reason = why.code, message = why.message, "a record is refused, and goes to the dead letters");
    }
    detail.dead = Some(why.code);
    let letter = outlet.router.refused(&entries[detail.entry], &record, why);
    Refused {
        record: letter.unwrap_or(record),
        held: None,
    }
}

/// Counts confirmed records.
fn confirm(outlet: &Outlet, settled: &mut Tally, confirmed: &[Detail]) {
    if confirmed.is_empty() {
        return;
    }
    batch::count(confirmed, settled);
    let now = jiff::Timestamp::now().as_millisecond();
    // Shared with all others once, not for every record.
    let ages = outlet.metrics.event_age.local();
    let events = confirmed.iter().filter(|detail| detail.dead.is_none());
    for ms in events.filter_map(|detail| detail.ms) {
        ages.observe(now.saturating_sub(ms).max(0) as f64 / 1000.0);
    }
    ages.flush();
    outlet.metrics.confirmed_now();
    outlet.state.confirmed();
}

#[cfg(test)]
mod tests;

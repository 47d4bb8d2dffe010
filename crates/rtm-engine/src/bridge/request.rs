//! One request: what it needs, its page made durable, and what comes of it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use rtm_journal::{Position, Reservation};
use rtm_record::entry;
use rtm_source::{Fetch, FetchError, FetchErrorKind, Observed, Outcome, Page, Ring, Slot, Turn};
use tokio::task::JoinError;
use tokio::time::Instant;
use tracing::field::debug;
use tracing::{error, info, warn};

use crate::chain;
use crate::lock::lock;
use crate::losses::PAGE;
use crate::order::Request;
use crate::page::ROOM_FOR_A_PAGE;
use crate::pipeline::Pipeline;
use crate::status::pipeline::PipelineState;

/// How often an odd response is told again, where equal ones follow.
const ODD_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// How often it is told again that someone else may read.
const HOLES_LOG_INTERVAL: Duration = Duration::from_secs(3_600);

/// The right to send one request: room for its page, and a slot of the rate limit. In this order, since a slot that
/// waits for room would be a slot unused.
pub(super) struct Ticket {
    reservation: Reservation,
    slot: Slot,
}

/// Waits for room in the journal, loudly, and then for a slot. Cancel-safe: both are given back.
pub(super) async fn take_ticket<F: Fetch>(pipeline: &Pipeline<F>, state: &PipelineState) -> Ticket {
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
pub(super) async fn fetch<F: Fetch>(
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
                outcome: Outcome::InDoubt { retry_after: None },
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

/// What a request's task ends with: whose it was, and how it went.
pub(super) struct Exchanged<F> {
    pipeline: Arc<Pipeline<F>>,
    turn: Turn,
    ended: Ended,
}

/// How a request went.
struct Ended {
    outcome: Outcome,
    error: Option<FetchError>,
    /// Where something is stored that could not be read, and becomes a dead letter; and what it is like.
    unread: Option<(Position, u64)>,
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
    let outcome = Outcome::of(&fetched);
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
pub(super) fn observe<F>(state: &PipelineState, done: Result<Exchanged<F>, JoinError>) {
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
    if matches!(outcome, Outcome::Page { full: true, .. }) {
        metrics.full_pages.inc();
    }
    tell(&pipeline, state, &ring, &observed);
    let saved = error.as_ref().map_or(0, FetchError::saved) as u64;
    (metrics.lost_estimated).inc_by(observed.estimated_lost.saturating_sub(saved));
    let reason = error.as_ref().map_or("status", |error| error.reason);
    if let Some((position, likeness)) = ended.unread {
        // Whoever gives such a response gives one at every poll.
        if loss_reason(reason) == "status" && !state.is_news(&ring, likeness, ODD_LOG_INTERVAL) {
            return;
        }
        warn!(
            region = ring.region.name(),
            stream = ring.stream.as_str(),
            %position,
            "part of a response could not be read as events: it is kept in the journal, and goes to the dead letters"
        );
    }
    if let Some(error) = error {
        log_failure(&ring, &error, &observed);
    }
}

/// Counts and logs what the schedule has seen: events that were overwritten, and someone else who reads.
fn tell<F>(pipeline: &Pipeline<F>, state: &PipelineState, ring: &Ring, observed: &Observed) {
    let metrics = state.ring(ring);
    let (region, stream) = (ring.region.name(), ring.stream.as_str());
    if observed.overflow_suspected {
        let estimated_lost = observed
            .overflow
            .map_or(0, |overflow| overflow.estimated_lost);
        metrics.overflow_suspected.inc();
        metrics.overflow_estimated.inc_by(estimated_lost);
        state.overflowed(ring, estimated_lost);
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
    if observed.holes && state.is_news(ring, "holes", HOLES_LOG_INTERVAL) {
        warn!(
            region,
            stream,
            "events begin long after those of the page before: they come in bunches, or someone else reads this App ID's \
             events, and then a second bridge polls it"
        );
    }
}

/// A failed request and what comes of it, in one line.
fn log_failure(ring: &Ring, error: &FetchError, observed: &Observed) {
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
        stream, error, possibly_lost, request_id, resource_id, backoff, "{what}"
    );
}

/// Tokio's time, which tests can own.
pub(super) fn now() -> std::time::Instant {
    Instant::now().into_std()
}

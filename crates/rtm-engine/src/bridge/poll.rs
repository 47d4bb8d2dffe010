//! The loop of one App ID: which request is sent, and when.

use std::sync::Arc;

use futures::FutureExt;
use rtm_source::{Fetch, Next, Ring, Turn};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{Instrument, info, warn};

use super::panic::has_ended;
use super::request::{Exchanged, Ticket, fetch, now, observe, take_ticket};
use crate::lock::lock;
use crate::pipeline::Pipeline;
use crate::status::pipeline::PipelineState;

/// What a polling loop is to do: poll so, or end once the requests in flight are stored.
pub(crate) type Polling<F> = Option<Arc<Pipeline<F>>>;

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
        if has_ended(polling, "polling has panicked, and begins again").await {
            return;
        }
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
    if let Some(possibly_lost) = died {
        state.crashed(possibly_lost);
        warn!(
            possibly_lost,
            "the last process died while it polled: requests that were in flight may have cost events"
        );
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

async fn sleep_until(until: Option<std::time::Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;

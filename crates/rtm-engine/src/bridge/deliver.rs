//! A batch, published until every record is confirmed.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use rtm_sink::{PublishError, PublishErrorKind, Record, Sink};
use tokio::time::Instant;
use tracing::info;

use super::settle::settle;
use crate::batch::Batch;
use crate::chain;
use crate::outlet::{Outlet, SkipWatch};
use crate::poison;
use crate::status::phrases::names;

/// Backoff between attempts at an unavailable broker: first, and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Pause between attempts at a broker that refuses us: someone has to act first.
const HOLD: Duration = Duration::from_secs(5);

/// A call that takes so long is worth a line in the log, and again every so often: some clients wait for their broker as
/// long as it takes, and say nothing.
const SILENCE: Duration = Duration::from_secs(10);

/// Publishes a batch until every record is confirmed, as an event or as a dead letter. Three kinds of error, three
/// actions; a record of unknown outcome is published again, in order and under the same id. What waits while the plan gets
/// other routes takes them, also what is of unknown outcome: it may then be in the old place as well.
pub(super) async fn deliver<S: Sink>(outlet: &mut Outlet, sink: &S, batch: &mut Batch) {
    let mut backoff = backoff();
    let mut skip_watch = outlet.skip_watch();
    outlet.state.publishing();
    // The first so many were given to the sink before.
    let mut known = 0;
    while !batch.records.is_empty() {
        if outlet.has_new_routes() {
            outlet.reroute(batch);
            info!(
                topics = batch.topics().join(", "),
                records = batch.records.len(),
                "what waits for the sink goes where the new configuration says"
            );
        }
        // A place that takes nothing shows with one record that it does again.
        let is_asked = batch.details[0].dead.is_none() && outlet.takes_nothing(&batch.records[0]);
        let given = if is_asked { 1 } else { batch.records.len() };
        let began = Instant::now();
        outlet.metrics.batch.observe(given as f64);
        outlet.metrics.retried.inc_by(known.min(given) as u64);
        known = known.max(given);
        let published = attempt(outlet, sink, &batch.records[..given], &mut skip_watch).await;
        outlet
            .metrics
            .publish_duration
            .observe(began.elapsed().as_secs_f64());
        let error = match published {
            Attempt::Ended(Ok(())) => {
                settle(outlet, batch, given, &[]);
                known -= given;
                continue;
            }
            Attempt::Ended(Err(error)) => error,
            Attempt::Rerouted => continue,
            Attempt::Skipped => {
                skip(outlet, batch);
                break;
            }
        };
        let before = batch.records.len();
        let settled = settle(outlet, batch, 0, &error.outcomes);
        known -= before - batch.records.len();
        if batch.records.is_empty() {
            break;
        }
        if settled.progressed {
            backoff = self::backoff();
        }
        let Some(pause) = pause(outlet, batch, &error, settled.held, &mut backoff) else {
            continue;
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
    }
    outlet.state.published();
}

/// How long what is left of a batch waits, which is told; none where all that was refused is a dead letter now.
fn pause(
    outlet: &Outlet,
    batch: &Batch,
    error: &PublishError,
    held: Option<&str>,
    backoff: &mut ExponentialBackoff,
) -> Option<Duration> {
    let why = why(error, held, batch);
    match error.kind {
        PublishErrorKind::Rejected if held.is_none() => None,
        PublishErrorKind::Unavailable => {
            let pause = backoff.next().unwrap_or(BACKOFF.1);
            outlet.state.unavailable(&why, pause);
            Some(pause)
        }
        PublishErrorKind::Misconfigured | PublishErrorKind::Rejected => {
            outlet.state.held(&why, HOLD);
            Some(HOLD)
        }
    }
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
    records: &[Record],
    skip_watch: &mut SkipWatch,
) -> Attempt {
    let publishing = sink.publish(records);
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

fn backoff() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(BACKOFF.0)
        .with_max_delay(BACKOFF.1)
        .with_jitter()
        .without_max_times()
        .build()
}

/// Gives up what is left of a batch, as the configuration says, so that polling can go on.
fn skip(outlet: &Outlet, batch: &mut Batch) {
    let events = batch.unsettled();
    batch.settled.drop_events("skipped", events);
    batch.records.clear();
    batch.details.clear();
    outlet.state.skipped(events);
}

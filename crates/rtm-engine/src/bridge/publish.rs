//! The loop of one App ID and sink: from the journal to batches, and the cursor behind them.

use std::sync::Arc;
use std::time::Duration;

use rtm_journal::{Entry, ReadError};
use rtm_record::SLICE;
use rtm_sink::Sink;
use tokio::sync::watch;
use tracing::warn;

use super::deliver::deliver;
use super::panic::has_ended;
use crate::batch::Batch;
use crate::order::{Group, READ_PAUSE};
use crate::outlet::{Ending, Outlet, OutletPlan};
use crate::poison::Steps;
use crate::sink::RunningSink;
use crate::status::sink::SinkState;

/// Groups of entries without a record for the sink in one batch at most. Reading them waits for nothing, and meanwhile every
/// other loop of the thread stands still.
const MAX_GROUPS_WITHOUT: usize = 64;

/// How often it is seen, at the end of an outlet, whether waiting for its sink is of use.
const STUCK_LOOK: Duration = Duration::from_millis(100);

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
        let told = "publishing has panicked, and starts again at its cursor";
        if has_ended(publishing, told).await {
            outlet.end().await;
            return;
        }
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
        let first = tokio::select! {
            biased;
            Ok(()) = plans.changed() => {
                outlet.renew().await;
                continue;
            }
            group = outlet.next() => group,
            () = std::future::ready(()), if is_ending => return,
        };
        match first {
            Err(ReadError::Closed) => return,
            // The journal says so, for as long as it takes.
            Err(ReadError::Io { .. }) => tokio::time::sleep(READ_PAUSE).await,
            Ok(group) if outlet.is_poisoned() => publish_by_steps(outlet, sink, group).await,
            first => {
                let (mut batch, large) = gather(outlet, first);
                let is_empty = batch.records.is_empty();
                deliver(outlet, sink, &mut batch).await;
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

/// Publishes entries of which one is suspected of crashing the process: see [`crate::poison`].
pub(crate) async fn publish_by_steps<S: Sink>(outlet: &mut Outlet, sink: &S, group: Group) {
    let mut steps = Steps::new(group);
    let routes = outlet.plan.routes.clone();
    while let Some(mut batch) = steps.next(outlet).await {
        if outlet.plan.routes != routes {
            // A step may have been prepared before another was given new ones.
            outlet.reroute(&mut batch);
        }
        deliver(outlet, sink, &mut batch).await;
        outlet.tally.add(&batch.settled);
    }
}

/// Publishes entries of which one has more records than memory should hold: a slice at a time. The cursor moves once all
/// are settled, and with it the counts.
async fn publish_in_slices<S: Sink>(outlet: &mut Outlet, sink: &S, group: Group) {
    let mut all = Batch::default();
    for entry in group {
        for from in (0..).step_by(SLICE) {
            let mut batch = Batch::default();
            let more = match &entry {
                Ok(entry) => outlet.add(&mut batch, entry, from),
                Err(error) => {
                    outlet.damaged(&mut batch, error);
                    false
                }
            };
            deliver(outlet, sink, &mut batch).await;
            all.settled.add(&batch.settled);
            all.through = all.through.max(batch.through);
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
            Ok(group) if group.iter().flatten().any(is_large) => {
                batch.keep_room(0);
                return (batch, Some(group));
            }
            Ok(group) => group,
            Err(error) => vec![Err(error)],
        };
        for entry in group {
            match entry {
                Ok(entry) => _ = outlet.add(&mut batch, &entry, 0),
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

/// Whether an entry has more records than a slice, and so more than any page of Agora's.
fn is_large(entry: &Entry) -> bool {
    entry.count as usize > SLICE
}

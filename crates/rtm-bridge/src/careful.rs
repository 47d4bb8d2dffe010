//! Publishing an entry that is suspected of crashing the process: step by step, each noted durably before it is tried.
//!
//! Three crashes in a row without progress of a cursor lead here. What the last process had noted when it crashed is the
//! culprit: an entry whose decoding crashes becomes one dead letter, a record whose publishing crashes becomes a dead
//! letter by itself, and what crashes even as a dead letter is dropped, counted. A step that waits for its broker for
//! [`HARMLESS`] has not crashed anything, so that a bridge that is killed in an outage blames nobody.

use std::time::Duration;

use rtm_journal::Entry;
use rtm_sink::{Reason, Sink};
use tracing::error;

use crate::bridge::deliver;
use crate::outlet::{Batch, Outlet, unreadable};
use crate::record::Made;
use crate::tally::Step;

/// What waits so long for its broker does not crash us.
pub(crate) const HARMLESS: Duration = Duration::from_secs(2);

/// The reason of what crashed us, as a label.
const POISON: &str = "poison";

/// Publishes one entry and moves the cursor over it.
pub(crate) async fn publish_entry<S: Sink>(outlet: &mut Outlet, sink: &S, entry: Entry) {
    let trying = outlet
        .tally
        .trying
        .filter(|trying| trying.position == entry.position.0);
    let crashed = trying
        .filter(|trying| trying.armed)
        .map(|trying| trying.step);
    // What was settled before is counted already.
    let reached = match trying.map(|trying| trying.step) {
        Some(Step::Record(index) | Step::DeadLetter(index)) => Some(index),
        // Decoded again, whatever was known: an outage has disarmed what was noted, and a crash needs a culprit.
        Some(Step::Decode | Step::Whole) | None => None,
    };
    let end = Batch::of(&entry);
    match crashed {
        Some(Step::Whole) => {
            error!(position = %entry.position, events = entry.count, "an entry crashes even as a dead letter: it is dropped");
            outlet.tally.drop_events(POISON, u64::from(entry.count));
        }
        Some(Step::Decode) => {
            whole(
                outlet,
                sink,
                &entry,
                &poison("decoding this entry crashed the bridge"),
            )
            .await;
        }
        _ => {
            if reached.is_none() {
                outlet.note(entry.position, Step::Decode).await;
            }
            match outlet.router.page(&entry) {
                Ok(mut page) => {
                    outlet.judge(&mut page, entry.position);
                    records(
                        outlet,
                        sink,
                        &entry,
                        page.made,
                        reached.unwrap_or(0),
                        crashed,
                    )
                    .await;
                }
                Err(error) => whole(outlet, sink, &entry, &unreadable(&error)).await,
            }
        }
    }
    outlet.commit(&end);
}

/// Each record by itself, from the one on that the last process had come to.
async fn records<S: Sink>(
    outlet: &mut Outlet,
    sink: &S,
    entry: &Entry,
    made: Vec<Made>,
    from: u32,
    crashed: Option<Step>,
) {
    for (index, mut made) in (0u32..).zip(made).skip(from as usize) {
        if made.is_dropped {
            outlet.tally.drop_events("copy", 1);
            continue;
        }
        match crashed {
            Some(Step::DeadLetter(culprit)) if culprit == index => {
                error!(id = %made.record.id, "a record crashes even as a dead letter: it is dropped");
                outlet.tally.drop_events(POISON, 1);
                continue;
            }
            Some(Step::Record(culprit)) if culprit == index => {
                error!(id = %made.record.id, "publishing this record crashed the bridge: it goes to the dead letters");
                let why = poison("publishing this record crashed the bridge");
                if let Ok(letter) = outlet.router.refused(entry, &made.record, &why, false) {
                    made.record = letter;
                }
                made.dead = Some(POISON);
                outlet.note(entry.position, Step::DeadLetter(index)).await;
            }
            _ => outlet.note(entry.position, Step::Record(index)).await,
        }
        let mut batch = Batch::of(entry);
        batch.push(made, 1);
        deliver(outlet, sink, &mut batch).await;
        outlet.tally.add(&batch.settled);
    }
}

async fn whole<S: Sink>(outlet: &mut Outlet, sink: &S, entry: &Entry, why: &Reason) {
    outlet.note(entry.position, Step::Whole).await;
    let mut batch = Batch::of(entry);
    outlet.add_whole(&mut batch, why);
    deliver(outlet, sink, &mut batch).await;
    outlet.tally.add(&batch.settled);
}

fn poison(message: &str) -> Reason {
    Reason {
        code: POISON,
        message: message.to_owned(),
    }
}

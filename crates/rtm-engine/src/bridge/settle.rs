//! What a call of `publish` makes of each record of a batch: confirmed, refused, unknown.

use rtm_journal::Entry;
use rtm_record::smaller;
use rtm_sink::{Outcome, Reason, Record};
use tracing::warn;

use crate::batch::{Batch, Detail};
use crate::outlet::Outlet;
use crate::tally::{self, Tally};

/// What a call of `publish` leads to, whose records are not all settled.
pub(super) struct Settled {
    /// Something was confirmed, or is a dead letter now.
    pub(super) progressed: bool,
    /// Why what was refused is kept as it is.
    pub(super) held: Option<&'static str>,
}

/// Counts what a publish did confirm, turns what it rejected into dead letters, and keeps the rest, in order. The first
/// `confirmed` records are confirmed; of those after them `outcomes` tells.
pub(super) fn settle(
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

/// The dead letter of a rejected event, unless its place takes nothing and the event is not to blame itself. A smaller one of
/// a dead letter that is too large, unless it is as small as can be. What is kept is held, and tried again as it was before
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
        // Where its size is not to blame, a cut would cost bytes for nothing.
        let cut = is_too_large.then(|| smaller(&record)).flatten();
        let Some(cut) = cut else {
            let record = detail.uncut.take().map_or(record, |uncut| *uncut);
            let held = match is_too_large {
                true => "it refuses even a dead letter without bytes",
                false => "it refuses a dead letter, and not for its size",
            };
            return Refused {
                record,
                held: Some(held),
            };
        };
        if detail.uncut.is_none() {
            warn!(id = %record.id, topic = %record.topic, reason = why.code, message = why.message, "a dead letter is refused, and is cut until it fits");
        }
        detail.uncut.get_or_insert_with(|| Box::new(record));
        return Refused {
            record: cut,
            held: None,
        };
    }
    if !outlet.is_own_fault(why) && outlet.takes_nothing(&record) {
        let held = Some("it refuses one record after the other and takes none");
        return Refused { record, held };
    }
    warn!(id = %record.id, topic = %record.topic, reason = why.code, message = why.message, "a record is refused, and goes to the dead letters");
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
    let now = jiff::Timestamp::now().as_millisecond();
    // Shared with all others once, not for every record.
    let ages = outlet.metrics.event_age.local();
    for detail in confirmed {
        match detail.dead {
            Some(reason) => settled.dead_letter(tally::dead_letter_reason(reason), detail.events),
            None => {
                settled.confirmed += detail.events;
                if let Some(ms) = detail.ms {
                    ages.observe(now.saturating_sub(ms).max(0) as f64 / 1000.0);
                }
            }
        }
    }
    ages.flush();
    outlet.metrics.confirmed_now();
    outlet.state.confirmed();
}

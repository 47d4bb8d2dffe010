//! What the death of a journal's last process may have cost at the source, while no start has counted it.

use rtm_engine::PossiblyLost;
use rtm_journal::Inspection;

use super::process::counted;

/// Events that the death of the last process may have cost at the source, and that no start has counted yet.
pub(super) fn uncounted(found: &Inspection) -> u64 {
    if found.in_use {
        return 0;
    }
    let marks = found.lanes.iter().filter_map(|lane| lane.mark.as_ref());
    marks
        .map(|mark| PossiblyLost::of_mark(mark).uncounted)
        .sum()
}

/// The same in words, where there are any.
pub(super) fn said_of_death(found: &Inspection) -> Option<String> {
    let uncounted = Some(uncounted(found)).filter(|events| *events > 0)?;
    let events = counted(uncounted, "event", "events");
    Some(format!(
        "the last process died while it polled: up to {events} may have been lost at the source, which the next start on \
         this journal counts; of a journal that is set aside nobody counts them"
    ))
}

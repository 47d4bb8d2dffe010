//! What no policy can beat.

use std::time::Duration;

use rtm_source::{MAX_PAGE_EVENTS, MAX_RING_EVENTS};

use super::world::SLOTS;

/// The mean age at fetch cannot be lower, in seconds, at steady `rates`: (Σ√λ)² / (2FΣλ).
#[must_use]
pub(super) fn mean_age(rates: &[f64]) -> f64 {
    let roots: f64 = rates.iter().map(|rate| rate.sqrt()).sum();
    roots * roots / (2.0 * SLOTS as f64 * rates.iter().sum::<f64>())
}

/// So many events are overwritten whatever is polled: the most, over all windows of time and over each ring and all of
/// them together, of what arrives less what the polls of the window can fetch and the rings can keep.
///
/// A window of Δ seconds has F·(Δ + 1) polls at most, in bursts; a policy that spaces them evenly has F·Δ + 1.
#[must_use]
pub(super) fn lost(arrivals: &[Vec<Duration>]) -> usize {
    let mut all: Vec<Duration> = arrivals.iter().flatten().copied().collect();
    all.sort_unstable();
    let each = arrivals.iter().map(|one| lost_of(one, 1)).max();
    each.unwrap_or_default().max(lost_of(&all, arrivals.len()))
}

/// The largest sum over all windows, by the best one that ends at each event.
fn lost_of(arrivals: &[Duration], rings: usize) -> usize {
    let per_second = (MAX_PAGE_EVENTS * SLOTS) as f64;
    let kept = (MAX_RING_EVENTS * rings) as f64 + per_second;
    let (mut best, mut here, mut before) = (0.0_f64, 0.0_f64, Duration::ZERO);
    for at in arrivals {
        let fetched = (*at - before).as_secs_f64() * per_second;
        here = (here - fetched).max(0.0) + 1.0;
        best = best.max(here);
        before = *at;
    }
    (best - kept).max(0.0) as usize
}

//! One App ID's polling: its parts, and how another plan takes them over.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rtm_journal::{Epoch, Lane};
use rtm_source::{Fetch, Limiter, MOST_IN_FLIGHT_PER_RING, Schedule, ScheduleOptions};

use crate::lock::lock;
use crate::losses::Losses;
use crate::order::InFlightRequests;
use crate::plan::AppPlan;

/// A predecessor may just have used the budget: how long no request is sent after taking the journal's lock.
const START_AFTER: Duration = Duration::from_secs(1);

/// As [`START_AFTER`], when the predecessor died: its last requests may still be under way. The limit holds if they arrive
/// within the 250 ms that this is longer. What arrives later may be one request too many, which Agora answers with 429; a
/// longer wait would cost events, for a busy ring overwrites its oldest meanwhile.
const START_AFTER_UNCLEAN: Duration = Duration::from_millis(1250);

/// What polling an App ID needs, as one plan has it. Another plan makes another pipeline, which shares what must outlive a
/// plan: the limiter, and with it what Agora counts; the mark of what may be lost; the requests in flight.
pub(crate) struct Pipeline<F> {
    /// The label in metrics and tags.
    pub(crate) name: String,
    pub(crate) app_id: String,
    pub(crate) is_paused: bool,
    pub(crate) requests_per_second: u32,
    /// Its rings at Agora.
    pub(crate) source: F,
    /// What outlives a plan.
    pub(crate) account: Account,
}

/// What belongs to an App ID for as long as the process lives, whether it is polled at the moment or not.
#[derive(Clone)]
pub(crate) struct Account {
    /// Its part of the journal.
    pub(crate) lane: Lane,
    /// Its request budget.
    pub(crate) limiter: Limiter,
    /// Whose turn it is, and what Agora asked for: a plan does not make that undone.
    pub(crate) schedule: Arc<Mutex<Schedule>>,
    /// What may have been lost at the source.
    pub(crate) losses: Arc<Losses>,
    /// Its requests in flight.
    pub(crate) requests: Arc<InFlightRequests>,
}

impl Account {
    /// Of an App ID that this process has not polled yet. The first request waits until what a predecessor may have sent
    /// counts no more at Agora, and for `spread` on top. `epoch` is for the jitter of backoffs.
    pub(crate) fn new(
        lane: Lane,
        requests_per_second: u32,
        after_crash: bool,
        spread: Duration,
        epoch: Epoch,
    ) -> Account {
        let start_after = if after_crash {
            START_AFTER_UNCLEAN
        } else {
            START_AFTER
        };
        Account {
            limiter: Limiter::new(requests_per_second as usize, start_after + spread),
            schedule: Arc::new(Mutex::new(Schedule::new(
                Vec::new(),
                ScheduleOptions::default(),
                epoch.0,
            ))),
            losses: Arc::new(Losses::read(lane.clone())),
            requests: Arc::default(),
            lane,
        }
    }
}

impl<F: Fetch> Pipeline<F> {
    /// As `plan` has it.
    pub(crate) fn new<S>(plan: &AppPlan<S>, source: F, account: Account) -> Pipeline<F> {
        Pipeline {
            name: plan.name.clone(),
            app_id: plan.app_id.clone(),
            is_paused: plan.paused,
            requests_per_second: plan.requests_per_second,
            source,
            account,
        }
    }

    /// Has the schedule go on with the rings and the budget of this pipeline.
    pub(crate) fn schedule(&self) {
        let options = ScheduleOptions {
            requests_per_second: self.requests_per_second as usize,
            in_flight_per_ring: MOST_IN_FLIGHT_PER_RING,
            ..ScheduleOptions::default()
        };
        lock(&self.account.schedule).renew(self.source.rings().to_vec(), options);
    }

    /// Has the limiter give as many slots as this pipeline may use.
    pub(crate) fn resize(&self) {
        let slots = self.requests_per_second as usize;
        if self.account.limiter.stats().slots != slots {
            self.account.limiter.resize(slots);
        }
    }
}

#[cfg(test)]
mod tests;

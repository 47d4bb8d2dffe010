use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rdkafka::error::RDKafkaErrorCode;
use tokio::sync::Notify;

/// How many bits of a message's integer are the record's index; the others are the attempt's number.
///
/// librdkafka carries one integer per message and hands it back with the report: no allocation. 40 bits of numbers last
/// for 35 years of a thousand attempts a second.
const INDEX_BITS: u32 = 24;

/// Every so many-th report is timed and told, and the last of an attempt. A sender that waits for room in librdkafka's
/// queue looks by itself, too.
const EVERY: u64 = 64;

/// The most records that one attempt may have.
pub(crate) const MAX_RECORDS: usize = 1 << INDEX_BITS;

const _: () = assert!(
    usize::BITS == 64,
    "an attempt's number and an index share one pointer-sized integer"
);

/// Where delivery reports meet the calls that wait for them.
///
/// An attempt is one sending of some records of one call. Reports carry the number of theirs, which is never used again,
/// so that the late reports of an attempt that was given up can confirm nothing else.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    state: Mutex<State>,
    /// Told with reports: there may be room in librdkafka's queue.
    room: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the newest attempt.
    newest: usize,
    reported: u64,
    /// A few boards: one for each call in progress.
    attempts: Vec<Board>,
    calls: usize,
    progress: Progress,
}

/// What [`Reports`] knows of how publishing goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Since when something waits and nothing was confirmed.
    pub(crate) waiting_since: Option<Instant>,
    pub(crate) last_confirmation: Option<Instant>,
    pub(crate) confirmed: u64,
}

/// One attempt's results.
#[derive(Debug)]
struct Board {
    number: usize,
    slots: Vec<Slot>,
    pending: usize,
    changed: Arc<Notify>,
}

/// What is known of one record of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    /// Given to librdkafka, or about to be.
    Pending,
    /// librdkafka never had it.
    NotSent,
    Confirmed,
    /// librdkafka refused to take it.
    NotTaken(RDKafkaErrorCode),
    /// librdkafka reported that it failed.
    Failed(RDKafkaErrorCode),
}

impl Reports {
    /// Counts a call as waiting for confirmations, until the guard is dropped.
    pub(crate) fn call(&self) -> Call<'_> {
        let mut state = self.lock();
        if state.calls == 0 {
            state.progress.waiting_since = Some(Instant::now());
        }
        state.calls += 1;
        Call {
            reports: self,
            newest: AtomicUsize::new(0),
        }
    }

    fn attempt(&self, count: usize) -> Attempt<'_> {
        debug_assert!(count <= MAX_RECORDS);
        let changed = Arc::new(Notify::new());
        let mut state = self.lock();
        state.newest += 1;
        let number = state.newest;
        state.attempts.push(Board {
            number,
            slots: vec![Slot::Pending; count],
            pending: count,
            changed: Arc::clone(&changed),
        });
        Attempt {
            reports: self,
            number,
            changed,
        }
    }

    /// Takes in librdkafka's report on the message that carried `opaque`.
    pub(crate) fn report(&self, opaque: usize, failure: Option<RDKafkaErrorCode>) {
        let mut state = self.lock();
        let slot = failure.map_or(Slot::Confirmed, Slot::Failed);
        let settled = state.settle(opaque >> INDEX_BITS, opaque & (MAX_RECORDS - 1), slot);
        state.reported += 1;
        // Reports come by hundreds at once, and the clock and the waiters cost more than all else here.
        let is_told = settled.is_some() || state.reported.is_multiple_of(EVERY);
        if failure.is_none() {
            let progress = &mut state.progress;
            progress.confirmed += 1;
            if is_told {
                let now = Instant::now();
                progress.last_confirmation = Some(now);
                progress.waiting_since = progress.waiting_since.map(|_| now);
            }
        }
        // A call that is woken takes the lock at once.
        drop(state);
        if let Some(settled) = settled {
            settled.notify_one();
        }
        if is_told {
            self.room.notify_waiters();
        }
    }

    /// Wakes all calls, because their producer has failed.
    pub(crate) fn wake(&self) {
        for board in &self.lock().attempts {
            board.changed.notify_one();
        }
        self.room.notify_waiters();
    }

    /// Returns with one of the next reports, whosever it is.
    pub(crate) async fn next(&self) {
        self.room.notified().await;
    }

    pub(crate) fn progress(&self) -> Progress {
        self.lock().progress
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Gives what to notify if that was the last pending record of its attempt.
    fn settle(&mut self, number: usize, index: usize, slot: Slot) -> Option<Arc<Notify>> {
        // The board is absent where the call was dropped, or gave the attempt up.
        let board = self
            .attempts
            .iter_mut()
            .find(|board| board.number == number)?;
        let pending = board.slots.get_mut(index)?;
        if *pending != Slot::Pending {
            return None;
        }
        *pending = slot;
        board.pending -= 1;
        (board.pending == 0).then(|| Arc::clone(&board.changed))
    }
}

/// A call in progress.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    reports: &'a Reports,
    /// The number of its newest attempt.
    newest: AtomicUsize,
}

/// Where a call stands: as long as it is equal, nothing has become of any of the call's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    attempt: usize,
    pending: usize,
}

impl Standing {
    /// Whether records of the call have no report yet.
    pub(crate) fn is_waiting(self) -> bool {
        self.pending > 0
    }
}

impl Call<'_> {
    /// Starts an attempt with `count` records, all pending.
    pub(crate) fn attempt(&self, count: usize) -> Attempt<'_> {
        let attempt = self.reports.attempt(count);
        self.newest.store(attempt.number, Ordering::Relaxed);
        attempt
    }

    pub(crate) fn standing(&self) -> Standing {
        let number = self.newest.load(Ordering::Relaxed);
        let state = self.reports.lock();
        let board = state.attempts.iter().find(|board| board.number == number);
        Standing {
            attempt: number,
            pending: board.map_or(0, |board| board.pending),
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let mut state = self.reports.lock();
        state.calls -= 1;
        if state.calls == 0 {
            state.progress.waiting_since = None;
        }
    }
}

/// An attempt in progress. Reports that come after it is dropped are ignored.
#[derive(Debug)]
pub(crate) struct Attempt<'a> {
    reports: &'a Reports,
    number: usize,
    changed: Arc<Notify>,
}

impl Attempt<'_> {
    /// What the message of the record at `index` is to carry.
    pub(crate) fn opaque(&self, index: usize) -> usize {
        self.number << INDEX_BITS | index
    }

    /// Settles a record that librdkafka did not take.
    pub(crate) fn settle(&self, index: usize, slot: Slot) {
        let settled = self.reports.lock().settle(self.number, index, slot);
        if let Some(settled) = settled {
            settled.notify_one();
        }
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.board(|board| board.pending == 0)
    }

    /// Returns when every record is settled, or earlier, after [`Reports::wake`].
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Ends the attempt with what is known of each record.
    pub(crate) fn into_slots(self) -> Vec<Slot> {
        self.board(|board| std::mem::take(&mut board.slots))
    }

    fn board<T>(&self, f: impl FnOnce(&mut Board) -> T) -> T {
        let mut state = self.reports.lock();
        let board = state
            .attempts
            .iter_mut()
            .find(|board| board.number == self.number);
        f(board.expect("an attempt is listed until it is dropped"))
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.reports
            .lock()
            .attempts
            .retain(|board| board.number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Holds: late reports of an attempt that was given up confirm nothing of the next.
    #[tokio::test]
    async fn late_reports_confirm_nothing_else() {
        let reports = Reports::default();
        let given_up = reports.attempt(3);
        let late: Vec<usize> = (0..3).map(|index| given_up.opaque(index)).collect();
        reports.report(late[0], None);
        drop(given_up);

        let next = reports.attempt(3);
        for &opaque in &late {
            reports.report(opaque, None);
        }
        assert!(!next.is_settled());
        reports.report(next.opaque(1), None);
        assert_eq!(
            next.into_slots(),
            [Slot::Pending, Slot::Confirmed, Slot::Pending]
        );
    }

    /// Holds: attempts at the same time get their own reports, whatever their order, and each report counts once.
    #[tokio::test]
    async fn reports_reach_their_own_attempt() {
        let reports = Reports::default();
        let one = reports.attempt(2);
        let two = reports.attempt(2);
        let failure = RDKafkaErrorCode::MessageSizeTooLarge;
        reports.report(two.opaque(1), Some(failure));
        reports.report(one.opaque(1), None);
        reports.report(one.opaque(1), Some(failure));
        assert!(!one.is_settled());
        reports.report(one.opaque(0), None);
        one.changed().await;
        assert_eq!(one.into_slots(), [Slot::Confirmed, Slot::Confirmed]);
        two.settle(0, Slot::NotSent);
        two.changed().await;
        assert_eq!(two.into_slots(), [Slot::NotSent, Slot::Failed(failure)]);
    }

    /// Holds: waiting is measured from the last confirmation, and only while somebody waits.
    #[test]
    fn waiting_counts_from_the_last_confirmation() {
        let reports = Reports::default();
        assert_eq!(reports.progress().waiting_since, None);
        let call = reports.call();
        let since = reports.progress().waiting_since.unwrap();
        let other = reports.call();
        assert_eq!(reports.progress().waiting_since, Some(since));
        let attempt = reports.attempt(2);
        reports.report(attempt.opaque(0), Some(RDKafkaErrorCode::PurgeQueue));
        assert_eq!(reports.progress().waiting_since, Some(since));
        reports.report(attempt.opaque(1), None);
        let progress = reports.progress();
        assert!(progress.last_confirmation.is_some());
        assert!(progress.waiting_since.unwrap() >= since);
        assert_eq!(progress.waiting_since, progress.last_confirmation);
        assert_eq!(progress.confirmed, 1);
        drop((call, attempt));
        assert!(reports.progress().waiting_since.is_some());
        drop(other);
        assert_eq!(reports.progress().waiting_since, None);
    }
}

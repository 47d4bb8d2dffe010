//! Copies of one event that were read from two regions.
//!
//! Agora: "If you have pulled events from one geographical region, you may get the same events when you pull from a
//! different geographical region." Copies have one event key. So have true repeats, two equal events of *one* region,
//! and those are two events. Both are told apart by counting: the n-th occurrence of a key in one region is a copy if
//! some other region has already given n of them.
//!
//! Occurrences belong together as long as less than the window lies between one and the next. What has begun is known
//! from its beginning, so whether an event is a copy depends on nothing but the entries before it in its lane, in their
//! order. A sink that starts anew reads again what lies within two windows before its cursor (the
//! [`horizon`](Copies::horizon) says from where on); what may have begun even before that is not judged, and published.
//! The first of two copies is in the same journal and before the second one's, and a cursor passes neither before it is
//! settled: an event is never dropped in both copies.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use rtm_journal::{Entry, Lane, Position, ReadError, Reader};
use rtm_record::{EventKey, Prepared, PreparedPage, Router};

use crate::lanes::{self, Lagging, LaneError};
use crate::order::READ_PAUSE;

/// How copies of an App ID's events are found, and what becomes of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyRule {
    /// How far apart the fetches of two copies may be.
    pub window: Duration,
    /// Whether copies are dropped. Otherwise they are published and counted.
    pub drops: bool,
}

/// Finds the copies among what one lane gives one sink.
pub(crate) struct CopyFilter {
    copies: Copies,
    /// A cursor that lags behind the sink's by two windows, and so keeps the entries to know copies again after a restart.
    /// None where copies are published: then they are only counted, and a restart may forget.
    lagging: Option<Reader>,
    /// Whether copies are dropped.
    drops: bool,
}

impl CopyFilter {
    /// As `rule` says. With copies dropped it opens the lagging cursor, which can be open once.
    pub(crate) fn open(rule: CopyRule, lane: &Lane, sink: &str) -> Result<CopyFilter, LaneError> {
        let lagging = if rule.drops {
            Some(lanes::lagging_reader(lane, sink, Lagging::Copies)?)
        } else {
            None
        };
        Ok(CopyFilter {
            lagging,
            ..CopyFilter::without_cursor(rule)
        })
    }

    /// As `rule` says, of entries that are given once more, in the lane's order: what may have begun before the first of
    /// them is no copy, unless `is_begin` says that nothing lies before it.
    pub(crate) fn of_again(rule: CopyRule, is_begin: bool) -> CopyFilter {
        let mut filter = CopyFilter::without_cursor(rule);
        filter.copies.recall(is_begin);
        filter
    }

    fn without_cursor(rule: CopyRule) -> CopyFilter {
        let window_ms = i64::try_from(rule.window.as_millis()).unwrap_or(i64::MAX);
        CopyFilter {
            copies: Copies::new(window_ms),
            lagging: None,
            drops: rule.drops,
        }
    }

    /// Takes note of an entry of which nothing is published.
    pub(crate) fn note(&mut self, entry: &Entry) {
        recall(&mut self.copies, entry);
    }

    /// Begins the entry at `position`, which was fetched at `fetched_ms`. Each entry is begun once, in the lane's order,
    /// and before its first event is asked for.
    pub(crate) fn begin(&mut self, fetched_ms: i64, position: Position) {
        self.copies.entry(fetched_ms, position);
    }

    /// Says whether the next event of the entry is a copy, and marks it where copies are dropped.
    pub(crate) fn judge(&mut self, region: &str, prepared: &mut Prepared) -> bool {
        let is_copy = prepared
            .event_key
            .is_some_and(|key| self.copies.is_copy(key, region));
        prepared.is_dropped = is_copy && self.drops;
        is_copy
    }

    /// As [`begin`](Self::begin) and then [`judge`](Self::judge) for each event of a page; says how many are copies.
    pub(crate) fn judge_page(&mut self, page: &mut PreparedPage, position: Position) -> u64 {
        if page.prepared.is_empty() {
            return 0;
        }
        self.begin(page.fetched_ms, position);
        let mut copies = 0;
        for prepared in &mut page.prepared {
            copies += u64::from(self.judge(&page.region, prepared));
        }
        copies
    }

    /// Lets go of the entries that are not needed any more to know copies again.
    pub(crate) fn follow(&mut self) {
        let horizon = self.copies.horizon();
        if let Some(reader) = &mut self.lagging {
            reader.skip_to(horizon);
            reader.commit(horizon);
        }
    }

    /// Forgets everything, and reads again what copies may follow: the entries up to `through`, the sink's cursor.
    pub(crate) async fn remember(&mut self, through: Position) {
        let Some(reader) = &mut self.lagging else {
            return;
        };
        reader.rewind();
        self.copies.recall(reader.committed() == Position(0));
        let mut read = reader.committed();
        while read < through {
            match reader.try_next() {
                Ok(Some(entry)) => {
                    read = entry.position;
                    if entry.position <= through {
                        recall(&mut self.copies, &entry);
                    }
                }
                Ok(None) => break,
                Err(ReadError::Damaged { position, .. }) => read = position,
                // Who remembered only a part would take an event for a copy that is none.
                Err(ReadError::Io { .. }) => tokio::time::sleep(READ_PAUSE).await,
                Err(ReadError::Closed) => break,
            }
            tokio::task::yield_now().await;
        }
    }
}

fn recall(copies: &mut Copies, entry: &Entry) {
    let Ok((region, fetched_ms, keys)) = Router::keys(entry) else {
        return;
    };
    copies.entry(fetched_ms, entry.position);
    for key in keys {
        copies.is_copy(key, &region);
    }
}

/// Keys remembered at the most, some 30 MiB of memory. Past that the oldest are forgotten first, and their copies are
/// published: at 2,000 events a second this is two minutes.
const MOST: usize = 1 << 18;

/// What was seen within the window.
#[derive(Debug)]
struct Copies {
    window_ms: i64,
    regions: Vec<String>,
    seen: HashMap<EventKey, Seen>,
    /// Each occurrence within the window, in the order of the lane.
    occurrences: VecDeque<(i64, EventKey)>,
    /// Each entry within two windows.
    entries: VecDeque<(i64, Position)>,
    /// Of what is read again, what is seen before this may have begun before the horizon.
    certain_from_ms: i64,
    /// The last entry before those.
    horizon: Position,
    /// The latest fetch time seen: it does not go back when a clock does.
    now_ms: i64,
}

/// What was seen of a key. There are as many as events in the window, so it is small.
#[derive(Debug, Default)]
struct Seen {
    /// Occurrences in the region that gave the first one.
    first: Count,
    /// Those in other regions: mostly there are none.
    #[expect(
        clippy::box_collection,
        reason = "a third of the size of an empty list"
    )]
    others: Option<Box<Vec<Count>>>,
    /// Occurrences that are still within the window.
    remembered: u32,
    /// It may have begun before anything that we know of.
    uncertain: bool,
}

/// Occurrences in one region since the first.
#[derive(Debug, Default, Clone, Copy)]
struct Count {
    region: u16,
    occurrences: u32,
}

impl Seen {
    /// Counts an occurrence in a region. Says whether another region has given as many.
    fn count(&mut self, region: u16) -> bool {
        let Seen { first, others, .. } = self;
        if first.occurrences == 0 {
            first.region = region;
        }
        let known =
            std::iter::once(first).chain(others.iter_mut().flat_map(|others| others.iter_mut()));
        let (mut own, mut most) = (0, 0);
        for count in known {
            if count.region == region {
                count.occurrences += 1;
                own = count.occurrences;
            } else {
                most = most.max(count.occurrences);
            }
        }
        if own == 0 {
            own = 1;
            let others = others.get_or_insert_default();
            others.push(Count {
                region,
                occurrences: 1,
            });
        }
        own <= most
    }
}

impl Copies {
    /// Remembers for `window_ms` of fetch time, in milliseconds.
    fn new(window_ms: i64) -> Copies {
        Copies {
            window_ms,
            regions: Vec::new(),
            seen: HashMap::new(),
            occurrences: VecDeque::new(),
            entries: VecDeque::new(),
            certain_from_ms: i64::MIN,
            horizon: Position(0),
            now_ms: i64::MIN,
        }
    }

    /// Forgets everything, to be told again what lies behind the horizon. `is_begin` says that nothing lies before it.
    fn recall(&mut self, is_begin: bool) {
        *self = Copies::new(self.window_ms);
        if !is_begin {
            self.certain_from_ms = i64::MAX;
        }
    }

    /// An entry begins, that was fetched at `fetched_ms`. Each is told once, in the order of the lane.
    fn entry(&mut self, fetched_ms: i64, position: Position) {
        self.now_ms = self.now_ms.max(fetched_ms);
        if self.certain_from_ms == i64::MAX {
            self.certain_from_ms = self.now_ms.saturating_add(self.window_ms);
        }
        self.entries.push_back((self.now_ms, position));
        let needed = self.now_ms.saturating_sub(self.window_ms.saturating_mul(2));
        while let Some((_, passed)) = self.entries.front().filter(|(at_ms, _)| *at_ms < needed) {
            self.horizon = *passed;
            self.entries.pop_front();
        }
        let since = self.now_ms.saturating_sub(self.window_ms);
        while let Some((at_ms, key)) = self.occurrences.front()
            && *at_ms < since
        {
            let key = *key;
            self.forget(key);
        }
    }

    /// Whether this event of the entry is a copy of one that another region gave before.
    fn is_copy(&mut self, key: EventKey, region: &str) -> bool {
        if self.occurrences.len() >= MOST
            && let Some((_, oldest)) = self.occurrences.front()
        {
            let oldest = *oldest;
            self.forget(oldest);
        }
        // A table whose room was all used once, and is half free by now, would double.
        if self.seen.len() == self.seen.capacity() {
            let seen = std::mem::take(&mut self.seen);
            self.seen = HashMap::with_capacity(seen.len() + seen.len() / 4);
            self.seen.extend(seen);
        }
        let region = self.region(region);
        let uncertain = self.now_ms < self.certain_from_ms;
        let seen = self.seen.entry(key).or_insert_with(|| Seen {
            uncertain,
            ..Seen::default()
        });
        seen.remembered += 1;
        let is_copy = seen.count(region) && !seen.uncertain;
        self.occurrences.push_back((self.now_ms, key));
        is_copy
    }

    /// The last entry that need not be read again: all before two windows ago.
    fn horizon(&self) -> Position {
        self.horizon
    }

    /// The oldest occurrence of `key` leaves.
    fn forget(&mut self, key: EventKey) {
        self.occurrences.pop_front();
        if let Some(seen) = self.seen.get_mut(&key) {
            seen.remembered -= 1;
            if seen.remembered == 0 {
                self.seen.remove(&key);
            }
        }
    }

    fn region(&mut self, name: &str) -> u16 {
        let known = self.regions.iter().position(|known| known == name);
        let index = known.unwrap_or_else(|| {
            self.regions.push(name.to_owned());
            self.regions.len() - 1
        });
        u16::try_from(index).unwrap_or(u16::MAX)
    }
}

#[cfg(test)]
mod tests;

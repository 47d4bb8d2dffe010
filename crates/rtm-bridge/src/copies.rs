//! Copies of one event that were read from two regions.
//!
//! Agora: "If you have pulled events from one geographical region, you may get the same events when you pull from a
//! different geographical region." Copies have one event key. So have true repeats, two equal events of *one* region,
//! and those are two events. Both are told apart by counting: the n-th occurrence of a key in one region is a copy if
//! some other region has already given n of them.
//!
//! Whether an event is a copy depends on nothing but the entries before it in its lane, in their order. So a sink that
//! starts anew comes to the same answers, once it has read again what lies within the window before its cursor; the
//! [`horizon`](Copies::horizon) says from where on. The first of two copies is in the same journal and before the
//! second one's, and a cursor passes neither before it is settled: an event is never dropped in both copies.

use std::collections::{HashMap, VecDeque};

use rtm_journal::Position;

/// The first 128 bits of the hash that is equal for copies: see [`crate::record`].
pub type EventKey = [u8; 16];

/// Keys remembered at the most, some 30 MiB of memory. Past that the oldest are forgotten first, and their copies are
/// published: at 2,000 events a second this is two minutes.
const MOST: usize = 1 << 18;

/// What was seen within the window.
#[derive(Debug)]
pub struct Copies {
    window_ms: i64,
    regions: Vec<String>,
    seen: HashMap<EventKey, Seen>,
    /// Each occurrence, in the order of the lane.
    occurrences: VecDeque<Occurrence>,
    /// The latest fetch time seen: it does not go back when a clock does.
    now_ms: i64,
}

#[derive(Debug, Default)]
struct Seen {
    /// Region, and occurrences in it. One or two, almost always.
    counts: Vec<(u16, u32)>,
    /// Occurrences that are still within the window.
    remembered: u32,
}

#[derive(Debug)]
struct Occurrence {
    at_ms: i64,
    position: Position,
    key: EventKey,
}

impl Copies {
    /// Remembers for `window_ms` of fetch time, in milliseconds.
    #[must_use]
    pub fn new(window_ms: i64) -> Copies {
        Copies {
            window_ms,
            regions: Vec::new(),
            seen: HashMap::new(),
            occurrences: VecDeque::new(),
            now_ms: i64::MIN,
        }
    }

    /// Whether this event is a copy of one that another region gave before. To be asked once for each event, in the
    /// order of the lane.
    pub fn is_copy(
        &mut self,
        key: EventKey,
        region: &str,
        fetched_ms: i64,
        position: Position,
    ) -> bool {
        self.now_ms = self.now_ms.max(fetched_ms);
        self.forget();
        let region = self.region(region);
        let seen = self.seen.entry(key).or_default();
        seen.remembered += 1;
        let others = seen
            .counts
            .iter()
            .filter(|(other, _)| *other != region)
            .map(|(_, count)| *count)
            .max()
            .unwrap_or(0);
        let own = match seen.counts.iter_mut().find(|(known, _)| *known == region) {
            Some((_, count)) => {
                *count += 1;
                *count
            }
            None => {
                seen.counts.push((region, 1));
                1
            }
        };
        self.occurrences.push_back(Occurrence {
            at_ms: self.now_ms,
            position,
            key,
        });
        own <= others
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Copies::new(self.window_ms);
    }

    /// The last entry that need not be read again to know what is known now; `through`, the cursor, if all is forgotten.
    #[must_use]
    pub fn horizon(&self, through: Position) -> Position {
        self.occurrences.front().map_or(through, |oldest| {
            Position(oldest.position.0.saturating_sub(1)).min(through)
        })
    }

    fn forget(&mut self) {
        let since = self.now_ms.saturating_sub(self.window_ms);
        while let Some(oldest) = self.occurrences.front()
            && (oldest.at_ms < since || self.occurrences.len() >= MOST)
        {
            let key = oldest.key;
            self.occurrences.pop_front();
            if let Some(seen) = self.seen.get_mut(&key) {
                seen.remembered -= 1;
                if seen.remembered == 0 {
                    self.seen.remove(&key);
                }
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(n: u8) -> EventKey {
        [n; 16]
    }

    #[test]
    fn a_copy_from_another_region_is_one_and_a_repeat_is_not() {
        let mut copies = Copies::new(60_000);
        let mut ask = |n, region, at| copies.is_copy(key(n), region, at, Position(1));
        assert!(!ask(1, "eu", 0));
        assert!(!ask(1, "eu", 1), "a true repeat");
        assert!(ask(1, "us", 2), "the copy of the first");
        assert!(ask(1, "us", 3), "the copy of the second");
        assert!(!ask(1, "us", 4), "a third in one region is an event");
        assert!(ask(1, "eu", 5), "and this is its copy");
        assert!(!ask(2, "us", 6), "another key");
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        let mut copies = Copies::new(1_000);
        assert!(!copies.is_copy(key(1), "eu", 0, Position(5)));
        assert_eq!(copies.horizon(Position(9)), Position(4));
        assert!(copies.is_copy(key(1), "us", 1_000, Position(6)));
        assert!(!copies.is_copy(key(2), "us", 1_001, Position(7)));
        assert_eq!(copies.horizon(Position(9)), Position(5));
        assert!(
            !copies.is_copy(key(1), "eu", 9_000, Position(8)),
            "the window has passed"
        );
        // A clock that goes back brings nothing back, and forgets nothing early.
        assert!(copies.is_copy(key(1), "us", 0, Position(9)));
    }

    #[test]
    fn memory_is_bounded() {
        let mut copies = Copies::new(i64::MAX);
        for n in 0..(MOST as u64 + 1_000) {
            let mut key = [0; 16];
            key[..8].copy_from_slice(&n.to_le_bytes());
            assert!(!copies.is_copy(key, "eu", 0, Position(n)));
        }
        assert!(copies.occurrences.len() <= MOST && copies.seen.len() <= MOST);
    }

    proptest! {
        /// Holds: of each key as many are published as the region with the most of them gave; and one that starts anew
        /// anywhere, with what lies behind the horizon read again, comes to the same answers.
        #[test]
        fn what_is_published_is_what_happened(
            events in prop::collection::vec((0u8..4, 0usize..3), 1..120),
            restart in 0usize..120,
        ) {
            const REGIONS: [&str; 3] = ["eu", "us", "ap"];
            let answer = |copies: &mut Copies, at: usize| {
                let (n, region) = events[at];
                copies.is_copy(key(n), REGIONS[region], 10 * at as i64, Position(at as u64 + 1))
            };
            let mut copies = Copies::new(300);
            let mut answers = Vec::new();
            let mut horizon = Position(0);
            for at in 0..events.len() {
                if at == restart {
                    horizon = copies.horizon(Position(at as u64));
                }
                answers.push(answer(&mut copies, at));
            }
            if restart < events.len() {
                let mut anew = Copies::new(300);
                for (at, before) in answers.iter().enumerate().skip(horizon.0 as usize) {
                    let again = answer(&mut anew, at);
                    if at >= restart {
                        prop_assert_eq!(again, *before, "event {}", at);
                    }
                }
            }
            let mut unbounded = Copies::new(i64::MAX);
            let mut published = [0; 4];
            let mut given = [[0; 3]; 4];
            for (at, (n, region)) in events.iter().enumerate() {
                given[usize::from(*n)][*region] += 1;
                published[usize::from(*n)] += u32::from(!answer(&mut unbounded, at));
            }
            for n in 0..4 {
                prop_assert_eq!(published[n], given[n].iter().copied().max().unwrap_or(0));
            }
        }
    }
}

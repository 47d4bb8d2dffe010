use super::*;
use proptest::prelude::*;

fn key(n: u8) -> EventKey {
    [n; 16]
}

/// One event in an entry of its own.
fn ask(copies: &mut Copies, n: u8, region: &str, at_ms: i64, position: u64) -> bool {
    copies.entry(at_ms, Position(position));
    copies.is_copy(key(n), region)
}

#[test]
fn a_copy_from_another_region_is_one_and_a_repeat_is_not() {
    let mut copies = Copies::new(60_000);
    let mut ask = |n, region, at| ask(&mut copies, n, region, at, 1);
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
    assert!(!ask(&mut copies, 1, "eu", 0, 5));
    assert_eq!(copies.horizon(), Position(0));
    assert!(ask(&mut copies, 1, "us", 1_000, 6));
    assert!(
        !ask(&mut copies, 1, "us", 2_001, 7),
        "the window has passed"
    );
    assert_eq!(copies.horizon(), Position(5));
    // A clock that goes back brings nothing back, and forgets nothing early.
    assert!(ask(&mut copies, 1, "eu", 0, 8));
}

#[test]
fn memory_is_bounded() {
    let mut copies = Copies::new(i64::MAX / 4);
    for n in 0..(MOST as u64 + 1_000) {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&n.to_le_bytes());
        assert!(!copies.is_copy(key, "eu"));
    }
    assert!(copies.occurrences.len() <= MOST && copies.seen.len() <= MOST);
}

/// Holds: what is remembered takes the room of what is within the window, however much has come and gone.
#[test]
fn what_has_gone_takes_no_room() {
    let mut copies = Copies::new(1_000);
    for n in 0..50_000_u64 {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&n.to_le_bytes());
        copies.entry(n as i64, Position(n + 1));
        assert!(!copies.is_copy(key, "eu"));
    }
    assert_eq!(copies.seen.len(), 1_001);
    // A table of 2,048 places, of which seven in eight are used.
    assert!(
        copies.seen.capacity() <= 1_792,
        "{}",
        copies.seen.capacity()
    );
}

proptest! {
    /// Holds: of each key as many are published as the region with the most of them gave.
    #[test]
    fn what_is_published_is_what_happened(events in prop::collection::vec((0u8..4, 0usize..3), 1..120)) {
        let mut copies = Copies::new(1_000_000);
        let mut published = [0; 4];
        let mut given = [[0; 3]; 4];
        for (at, (n, region)) in events.iter().enumerate() {
            given[usize::from(*n)][*region] += 1;
            published[usize::from(*n)] += u32::from(!ask(&mut copies, *n, REGIONS[*region], at as i64, at as u64 + 1));
        }
        for n in 0..4 {
            prop_assert_eq!(published[n], given[n].iter().copied().max().unwrap_or(0));
        }
    }

    /// Holds: one that starts anew anywhere, with what lies behind the horizon read again, drops nothing that it
    /// would not have dropped; and where no key goes on for a window, it drops all the same.
    #[test]
    fn a_restart_drops_nothing_more(
        events in prop::collection::vec((0u8..40, 0usize..3, 0i64..40), 1..200),
        restart in 0usize..200,
    ) {
        const WINDOW: i64 = 300;
        let mut copies = Copies::new(WINDOW);
        let (mut at_ms, mut times, mut before, mut horizon) = (0, Vec::new(), Vec::new(), Position(0));
        for (at, (n, region, gap)) in events.iter().enumerate() {
            at_ms += gap;
            times.push(at_ms);
            before.push(ask(&mut copies, *n, REGIONS[*region], at_ms, at as u64 + 1));
            if at <= restart {
                horizon = horizon.max(copies.horizon());
            }
        }
        let mut anew = Copies::new(WINDOW);
        anew.recall(horizon == Position(0));
        for at in horizon.0 as usize..events.len() {
            let (n, region, _) = events[at];
            let again = ask(&mut anew, n, REGIONS[region], times[at], at as u64 + 1);
            if at > restart {
                prop_assert!(!again || before[at], "event {} is dropped by the restart", at);
                let certain_from = times[horizon.0 as usize] + WINDOW;
                let early = |other: &usize| events[*other].0 == n && times[*other] < certain_from;
                if horizon == Position(0) || !(0..at).any(|other| early(&other)) {
                    prop_assert_eq!(again, before[at], "event {}", at);
                }
            }
        }
    }
}

const REGIONS: [&str; 3] = ["eu", "us", "ap"];

//! Who sits, and who has to go.

use super::*;

/// Holds: with few descriptors there are few seats, and always some.
#[test]
fn descriptors_bound_the_seats() {
    for (descriptors, waiting, answered) in [
        (None, 56, 8),
        (Some(1_048_576), 56, 8),
        (Some(200), 44, 6),
        (Some(20), 7, 1),
    ] {
        let (waits, answers) = Seats::for_descriptors(descriptors);
        assert_eq!((waits.most, answers.most), (waiting, answered));
    }
}

/// Holds: who has sat longest goes first, and a seat that was left is free.
#[test]
fn who_has_sat_longest_goes_first() {
    let seats = Seats::new(2);
    let tokens: Vec<CancellationToken> = (0..4).map(|_| CancellationToken::new()).collect();
    let gone = || -> Vec<bool> { tokens.iter().map(CancellationToken::is_cancelled).collect() };
    let mut sitting: Vec<Seat> = Vec::new();
    for token in &tokens[..3] {
        sitting.push(seats.take(token.clone()));
    }
    assert_eq!(gone(), [true, false, false, false]);
    drop(sitting.remove(1));
    sitting.push(seats.take(tokens[3].clone()));
    assert_eq!(gone(), [true, false, false, false]);
    seats.free_one();
    assert_eq!(gone(), [true, false, true, false]);
}

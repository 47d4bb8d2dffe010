//! Who sits, and who has to go.

use super::*;

/// Holds: with few descriptors there are few connections, and always some.
#[test]
fn descriptors_bound_the_connections() {
    assert_eq!(most(None), (64, 8));
    assert_eq!(most(Some(1_048_576)), (64, 8));
    assert_eq!(most(Some(200)), (50, 6));
    assert_eq!(most(Some(20)), (8, 1));
}

/// Holds: who has sat longest goes first, and a seat that was left is free.
#[test]
fn who_has_sat_longest_goes_first() {
    let seats = Arc::new(Seats::default());
    let tokens: Vec<CancellationToken> = (0..4).map(|_| CancellationToken::new()).collect();
    let gone = || -> Vec<bool> { tokens.iter().map(CancellationToken::is_cancelled).collect() };
    let mut sitting: Vec<Seat> = Vec::new();
    for token in &tokens[..3] {
        sitting.push(seats.take_of(2, token.clone()));
    }
    assert_eq!(gone(), [true, false, false, false]);
    drop(sitting.remove(1));
    sitting.push(seats.take_of(2, tokens[3].clone()));
    assert_eq!(gone(), [true, false, false, false]);
    seats.take_back();
    assert_eq!(gone(), [true, false, true, false]);
    assert!(seats.first().is_some());
    drop(sitting);
    assert_eq!(seats.first(), None);
}

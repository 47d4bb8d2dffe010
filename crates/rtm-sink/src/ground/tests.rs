use super::*;

fn seen(store: u64, kept: u64) -> Ground {
    let mut ground = Ground::default();
    assert!(
        !ground.look(Ground::default(), store, kept),
        "the first look"
    );
    ground
}

/// Holds: a store has gone back if it is another one, or ends before what it had acknowledged; and not because it is
/// ahead, or because the answer was under way while more was acknowledged.
#[test]
fn a_look_tells_what_has_gone_back() {
    let mut ground = seen(7, 100);
    assert_eq!((ground.kept, ground.last, ground.back), (100, 100, 1));
    let since = ground;
    assert!(!ground.acknowledge(since, 101, 120));
    // Asked before, answered after.
    assert!(!ground.look(since, 7, 100));
    assert_eq!((ground.kept, ground.last, ground.back), (100, 120, 1));
    assert!(!ground.look(ground, 7, 120) && !ground.look(ground, 7, 500));
    assert!(ground.look(ground, 7, 119));
    assert_eq!((ground.kept, ground.last, ground.back), (119, 119, 2));
    // It is told once.
    assert!(!ground.look(ground, 7, 119));
    // And again, before anything else is acknowledged.
    assert!(ground.look(ground, 7, 100));
    assert!(ground.look(ground, 8, 900));
    assert_eq!((ground.store, ground.kept, ground.back), (8, 900, 4));
}

/// Holds: a number that comes again tells, where no look came in time; and late answers of before tell nothing.
#[test]
fn a_number_that_comes_again_tells() {
    let mut ground = seen(7, 0);
    let since = ground;
    assert!(!ground.acknowledge(since, 1, 10));
    // Two calls at once.
    assert!(!ground.acknowledge(since, 5, 6));
    let since = ground;
    assert!(ground.acknowledge(since, 10, 12));
    assert_eq!((ground.kept, ground.last, ground.back), (9, 12, 2));
    assert!(!ground.acknowledge(since, 11, 13), "the same is told twice");
    // Which store it is tells the next look, and that is no news.
    assert!(!ground.look(ground, 9, 12));
    assert_eq!((ground.store, ground.back), (9, 2));
}

/// Holds: where the broker does not tell, nothing has gone back.
#[test]
fn what_is_not_told_has_not_gone_back() {
    let mut ground = Ground::default();
    ground.is_untold();
    assert_eq!((ground.store, ground.back), (0, 1));
    assert!(!ground.look(ground, 7, 3));
    assert_eq!((ground.store, ground.back), (7, 1));
}

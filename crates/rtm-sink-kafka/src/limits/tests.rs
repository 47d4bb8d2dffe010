use rtm_sink::conformance::record;

use super::*;

/// Holds: a length takes as many bytes as Kafka's format says, at every edge.
#[test]
fn lengths_take_as_many_bytes_as_they_do() {
    for (length, bytes) in [
        (0, 1),
        (63, 1),
        (64, 2),
        (8191, 2),
        (8192, 3),
        (1_048_575, 3),
        (1_048_576, 4),
    ] {
        assert_eq!(varint(length), bytes, "{length}");
    }
}

/// Holds: what a topic says itself replaces what was learned, also where that was less; and what was learned only falls.
#[test]
fn a_topic_that_tells_its_limit_knows_best() {
    let limits = Limits::default();
    let topic = Topic::from("t");
    let small = record(&topic, 0);
    assert_eq!(limits.least(), None);
    limits.batch_is_refused(&topic, 500);
    limits.batch_is_refused(&topic, 900);
    limits.record_is_refused(&small);
    assert_eq!(limits.least(), Some(500));
    assert_eq!(limits.of_records()[&topic], alone(&small) - 1);
    assert!(limits.stale(std::slice::from_ref(&small)).is_empty());
    limits.is_told(&topic, Some(700));
    assert_eq!(
        (limits.least(), limits.of_records()[&topic]),
        (Some(700), 700)
    );
    limits.is_told(&topic, None);
    assert!(limits.of_records().is_empty(), "it is tried again");
    assert_eq!(limits.least(), Some(700));
}

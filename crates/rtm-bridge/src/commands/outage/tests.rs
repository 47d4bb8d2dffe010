use super::*;

/// What an entry of so many events took on the disk, compressed, by measurement: see [`ENTRY_BYTES`].
const MEASURED: [(f64, f64); 8] = [
    (1.226, 322.4),
    (5.543, 496.5),
    (55.04, 1940.4),
    (221.1, 6154.3),
    (834.2, 19534.5),
    (5.0, 490.0),
    (50.0, 1925.0),
    (200.0, 6167.0),
];

/// Holds: what is assumed is never less than what was measured, and not twice as much.
#[test]
fn the_assumption_is_careful_and_not_wasteful() {
    for (events, bytes) in MEASURED {
        let assumed = ENTRY_BYTES + EVENT_BYTES * events;
        assert!(
            assumed >= bytes && assumed < 1.5 * bytes,
            "{events}: {assumed} for {bytes}"
        );
    }
}

#[test]
fn lengths_are_said_as_people_say_them() {
    let said = [30.0, 600.0, 21_600.0, 864_000.0].map(words);
    assert_eq!(said, ["30 s", "10 min", "6.0 h", "10.0 days"]);
}

//! Segments of any bytes at all. `fuzz/fuzz_targets/journal_open.rs` is the same for hours.

use proptest::prelude::*;

use crate::sim::open_anything;

fn frame() -> impl Strategy<Value = Vec<u8>> {
    let body = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..40),
        // Changes that begin well: a lane `a` with anything behind, a reader of it.
        proptest::collection::vec(any::<u8>(), 0..60)
            .prop_map(|rest| [&[1, 1, b'a'], &rest[..]].concat()),
        proptest::collection::vec(any::<u8>(), 0..60).prop_map(|rest| [
            &[2, 1, b'a', 1, b'r'],
            &rest[..]
        ]
        .concat()),
    ];
    (any::<u8>(), 0..20u8, any::<u8>(), body).prop_map(|(kind, position, count, body)| {
        [&[kind, position, count, body.len() as u8], &body[..]].concat()
    })
}

fn segment() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..300),
        (any::<u8>(), proptest::collection::vec(frame(), 0..12))
            .prop_map(|(how, frames)| { [&[how | 2], &frames.concat()[..]].concat() }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Holds: whatever the bytes of its segments, a journal opens, gives what can be read in order, takes an entry and
    /// has it after a power loss; of another version it is left alone.
    #[test]
    fn anything_opens(segments in proptest::collection::vec(segment(), 0..4)) {
        open_anything(&segments.join(&0xfe));
    }
}

use super::*;

#[test]
fn the_largest_tally_is_read_back_and_fits_the_journal() {
    let mut tally = Tally {
        confirmed: u64::MAX / 4,
        stalls: u32::MAX,
        trying: Some(Trying {
            position: u64::MAX,
            step: Step::DeadLetter(u32::MAX),
            armed: false,
        }),
        mark: Some(Mark {
            process: u64::MAX,
            store: u64::MAX,
            last: u64::MAX,
            settled: Some(u64::MAX),
            is_back: true,
        }),
        ..Tally::default()
    };
    for reason in DEAD_LETTER_REASONS {
        tally.dead_letter(reason, 10_000_000_000);
    }
    for reason in DROP_REASONS {
        tally.drop_events(reason, 10_000_000_000);
    }
    let bytes = tally.encode();
    assert_eq!(Tally::decode(&bytes), tally);
    assert!(
        bytes.len() <= rtm_journal::MAX_TALLY_BYTES,
        "{} bytes",
        bytes.len()
    );
    assert_eq!(Tally::decode(b""), Tally::default());
}

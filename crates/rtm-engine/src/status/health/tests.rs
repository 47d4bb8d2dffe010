use super::*;

/// Holds: a ring is down 30 s after it last answered, or after its polling began.
#[test]
fn a_ring_that_does_not_answer_is_down() {
    let of = |seconds, has_answered| Health::of_ring(Duration::from_secs(seconds), has_answered);
    assert_eq!(
        [of(0, true), of(29, true), of(31, true)],
        [Health::Up, Health::Up, Health::Down]
    );
    assert_eq!([of(0, false), of(31, false)], [Health::Late, Health::Down]);
}

/// Holds: a batch is late after 1.5 s without a confirmation, or at once where an attempt fails, and down after 10 s; where
/// someone must mend something it is down at once; at the end of the process two seconds of either are enough. What is down
/// is what makes the bridge not ready.
#[test]
fn a_batch_that_waits_is_late_and_then_overdue() {
    let held = || Some(Trouble::Held("no rights".to_owned()));
    let failed = || Some(Trouble::Failed("refused".to_owned()));
    for (waiting, trouble, health, is_overdue, is_stuck) in [
        (None, None, Health::Up, false, [false, false]),
        (Some(1.4), None, Health::Up, false, [false, false]),
        (Some(1.6), None, Health::Late, false, [false, false]),
        (Some(2.5), None, Health::Late, false, [false, true]),
        (Some(10.1), None, Health::Down, true, [false, true]),
        (Some(0.1), failed(), Health::Late, false, [false, false]),
        (Some(2.5), failed(), Health::Late, false, [true, true]),
        (Some(10.1), failed(), Health::Down, true, [true, true]),
        (Some(0.1), held(), Health::Down, true, [false, false]),
    ] {
        let waiting = waiting.map(Duration::from_secs_f64);
        let delivery = Delivery { waiting, trouble };
        assert_eq!(delivery.health(), health, "{delivery:?}");
        assert_eq!(delivery.is_overdue(), is_overdue, "{delivery:?}");
        let stuck = [true, false].map(|is_up| delivery.is_stuck(is_up));
        assert_eq!(stuck, is_stuck, "{delivery:?}");
    }
}

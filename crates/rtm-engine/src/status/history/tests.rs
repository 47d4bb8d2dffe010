use super::*;

fn after(started: Instant, seconds: f64) -> Instant {
    started + Duration::from_secs_f64(seconds)
}

/// Holds: each request is in the second it ended in, and seconds without requests are empty, however many.
#[test]
fn a_request_is_in_its_second() {
    let started = Instant::now();
    let mut history = History::new(started);
    for (at, outcome) in [
        (0.1, "page"),
        (0.2, "page"),
        (3.5, "page"),
        (3.9, "in_doubt"),
        (4.9, "page"),
    ] {
        if outcome == "in_doubt" {
            history.lost(1000, after(started, at));
        }
        history.polled(outcome, after(started, at));
    }
    let seen: Vec<_> = history.seconds(after(started, 4.99)).collect();
    let counts =
        |outcome: usize| -> Vec<u16> { seen.iter().map(|second| second.polls[outcome]).collect() };
    assert_eq!(counts(0), [2, 0, 0, 1, 1]);
    assert_eq!(counts(4), [0, 0, 0, 1, 0]);
    assert_eq!(seen[3].lost, 1000);
    assert_eq!(seen[3].gap_ms, 3300);
    assert_eq!(seen[4].gap_ms, 1400);

    // At the end of the buffer's first round the oldest second is still there, and then no more.
    let polls = |history: &mut History, at: usize| -> (usize, u32) {
        let seconds: Vec<_> = history.seconds(after(started, at as f64)).collect();
        let polls = seconds.iter().flat_map(|second| second.polls);
        (seconds.len(), polls.map(u32::from).sum())
    };
    assert_eq!(polls(&mut history, SECONDS - 1), (SECONDS, 5));
    assert_eq!(polls(&mut history, SECONDS), (SECONDS, 3));
    assert_eq!(polls(&mut history, SECONDS + 4), (SECONDS, 0));
    assert_eq!(polls(&mut history, 5 * SECONDS), (SECONDS, 0));
}

/// Holds: age and gap are those of polls that succeeded.
#[test]
fn failures_do_not_end_a_gap() {
    let started = Instant::now();
    let mut history = History::new(started);
    assert_eq!((history.age(started), history.gap()), (None, None));
    history.polled("empty", after(started, 1.0));
    history.polled("refused", after(started, 2.0));
    history.polled("not_sent", after(started, 3.0));
    assert_eq!(
        history.age(after(started, 4.0)),
        Some(Duration::from_secs(3))
    );
    history.polled("page", after(started, 4.5));
    assert_eq!(history.gap(), Some(Duration::from_millis(3500)));
}

use rtm_sink::{Record, RecordId, Timestamp, Topic};

use super::*;
use crate::batch::{Detail, Part};

const LIMITS: ExactLimits = ExactLimits {
    records: 10,
    bytes: 1000,
};

fn key() -> ProgressKey {
    ProgressKey {
        journal: 0xab,
        sink: "nats".into(),
        lane: "0a1b".into(),
    }
}

fn exact(process: u64) -> Exact {
    let mut exact = Exact::new(key(), Epoch(process), LIMITS, Arc::default());
    exact.resume(None, None, Position(0), &[]);
    exact
}

/// Holds: the key names journal and lane, and what is stored has the documented form.
#[test]
fn what_is_stored_has_the_documented_form() {
    assert_eq!(
        key().to_string(),
        "000000000000000000000000000000ab.nats.0a1b"
    );
    let mut batch = batch_of(7, 3);
    batch.part = Some(Part {
        position: Position(7),
        epoch: Epoch(0xe),
        to: 42,
    });
    let tally = Tally {
        confirmed: 5,
        ..Tally::default()
    };
    let progress = exact(0xff).progress(Position(6), &tally, &batch);
    assert_eq!(
        std::str::from_utf8(&progress.value).unwrap(),
        r#"{"v":1,"process":"00000000000000ff","through":6,"epoch":"0000000000000000","open":[[7,"000000000000000e",42,{"c":3}]],"tally":{"c":5}}"#
    );
    assert!(Told::parse(br#"{"v":2}"#).is_none());
    assert!(Told::parse(b"?").is_none());
}

fn batch_of(position: u64, records: u64) -> Batch {
    let mut batch = Batch::default();
    batch.through = Some(Position(position));
    batch.newest = Some((Position(position), Epoch(0xe)));
    for n in 0..records {
        batch.details.push(Detail {
            entry: 0,
            ms: None,
            dead: None,
            uncut: None,
            events: 1,
        });
        batch.records.push(Record {
            id: RecordId {
                epoch: 0xe,
                position,
                offset: u32::try_from(n).unwrap(),
            },
            topic: Topic::from("t"),
            key: None,
            timestamp: Timestamp(0),
            headers: Vec::new(),
            payload: Bytes::new(),
        });
    }
    batch
}

fn told(through: u64, epoch: u64) -> Told {
    Told {
        v: VERSION,
        process: 1,
        through,
        epoch,
        open: Vec::new(),
        tally: Tally::default(),
    }
}

fn waiting(entries: &[(u64, u64)]) -> Vec<Waiting> {
    let entry = |(position, epoch): &(u64, u64)| Waiting {
        position: Position(*position),
        // 0 is a damaged one.
        epoch: (*epoch > 0).then_some(Epoch(*epoch)),
        events: 10,
    };
    entries.iter().map(entry).collect()
}

/// Holds: what counts as published is known by epoch, and not by position alone.
#[test]
fn resuming_goes_by_epoch() {
    let shared = |told: &Told, entries: &[(u64, u64)]| {
        let shared = told.shared(&waiting(entries));
        (shared.through.map(|at| at.0), shared.events, shared.is_all)
    };
    // The usual crash: the cursor was not durable yet.
    let usual = [(5, 1), (6, 1), (7, 2), (8, 2), (9, 2)];
    assert_eq!(shared(&told(8, 2), &usual), (Some(8), 40, true));
    // A restored journal: what it shares with the lost one, and nothing that came since.
    assert_eq!(
        shared(&told(8, 1), &[(5, 1), (6, 1), (7, 3), (8, 3)]),
        (Some(6), 20, false)
    );
    assert_eq!(
        shared(&told(8, 2), &[(5, 3), (6, 3), (7, 3), (8, 3)]),
        (None, 0, false)
    );
    // A journal of which nothing waits.
    assert_eq!(shared(&told(8, 2), &[]), (None, 0, false));
    // A damaged entry does not say whose it is.
    assert_eq!(
        shared(&told(8, 2), &[(7, 2), (8, 0), (9, 2)]),
        (Some(8), 20, true)
    );
    assert_eq!(shared(&told(8, 2), &[(7, 0), (8, 3)]), (None, 0, false));
}

/// Holds: what was tried is known again; what was before it may be tried again; whatever else there is has another process
/// published since, and the older one of two publishes no more.
#[test]
fn what_is_found_is_judged() {
    let mut one = exact(1);
    let first = one.progress(Position(0), &Tally::default(), &batch_of(1, 1));
    assert_eq!(one.judge(&first, None), Found::NotStored);
    assert_eq!(one.judge(&first, Some(first.value.clone())), Found::Stored);
    one.stored(first.clone());
    let second = one.progress(Position(1), &Tally::default(), &batch_of(2, 1));
    assert_eq!(
        one.judge(&second, Some(first.value.clone())),
        Found::NotStored
    );
    assert!(!one.is_fenced());

    // A copy that has not published yet takes what it finds.
    let mut other = exact(2);
    let own = other.progress(Position(0), &Tally::default(), &batch_of(1, 1));
    assert_eq!(
        other.judge(&own, Some(first.value.clone())),
        Found::Elsewhere
    );
    assert!(!other.is_fenced());
    other.stored(own.clone());
    let mut gone_back = exact(1);
    gone_back.stored(gone_back.progress(Position(4), &Tally::default(), &batch_of(5, 1)));
    assert_eq!(
        gone_back.judge(&second, Some(own.value.clone())),
        Found::Elsewhere
    );
    assert!(!gone_back.is_fenced(), "the broker has gone back");
    assert_eq!(one.judge(&second, Some(own.value)), Found::Elsewhere);
    assert!(one.is_fenced());
}

/// Holds: an entry of which a part is settled goes on behind that part, if it is the same entry.
#[test]
fn a_part_is_not_published_again() {
    let mut before = exact(1);
    let mut part = batch_of(3, 2);
    part.part = Some(Part {
        position: Position(3),
        epoch: Epoch(0xe),
        to: 100,
    });
    let progress = before.progress(Position(2), &Tally::default(), &part);
    let told = Told::parse(&progress.value).unwrap();
    assert_eq!(told.last(), Position(3));
    let id = |offset| RecordId {
        epoch: 0xe,
        position: 3,
        offset,
    };
    for (entries, is_same) in [([(3, 0xe)], true), ([(3, 0xf)], false), ([(4, 0xe)], false)] {
        let mut after = Exact::new(key(), Epoch(2), LIMITS, Arc::default());
        after.resume(
            Some(progress.value.clone()),
            Some(&told),
            Position(2),
            &waiting(&entries),
        );
        assert_eq!(after.has(id(100)), is_same);
        assert!(!after.has(id(101)));
        let counted = after.commit(Position(3), Some(Epoch(0xe)));
        assert_eq!(counted.confirmed, if is_same { 2 } else { 0 });
        assert!(!after.has(id(100)), "the cursor is behind it");
    }
    before.settle_part(part.part.unwrap(), &part.settled);
    assert!(before.has(id(100)));
}

/// Holds: of two processes the older one is the older one for as long as it runs, also with another client of the sink, and
/// also where no publish of its own has failed.
#[test]
fn a_new_client_of_the_sink_ends_no_fence() {
    let past = Arc::new(Mutex::new(Past::default()));
    let client = || {
        let mut exact = Exact::new(key(), Epoch(1), LIMITS, Arc::clone(&past));
        exact.resume(None, None, Position(0), &[]);
        exact
    };
    let mut first = client();
    let own = first.progress(Position(4), &Tally::default(), &batch_of(5, 1));
    first.stored(own.clone());
    assert!(!client().meets_another(&Told::parse(&own.value).unwrap()));
    let other = exact(2);
    let older = other.progress(Position(3), &Tally::default(), &batch_of(4, 1));
    let older = Told::parse(&older.value).unwrap();
    assert!(!client().meets_another(&older), "the broker has gone back");
    let newer = other.progress(Position(5), &Tally::default(), &batch_of(6, 1));
    let newer = Told::parse(&newer.value).unwrap();
    assert!(!other.meets_another(&newer) && !other.is_fenced());
    assert!(client().meets_another(&newer));
    assert!(client().is_fenced() && first.is_fenced());
}

/// Holds: what is settled of an entry counts with that entry, whichever come before it, and only while it is here.
#[test]
fn each_part_counts_with_its_entry() {
    let part = |position, records| {
        let mut batch = batch_of(position, records);
        batch.part = Some(Part {
            position: Position(position),
            epoch: Epoch(0xe),
            to: 100,
        });
        batch
    };
    let mut before = exact(1);
    for (position, records) in [(4, 2), (5, 30)] {
        let part = part(position, records);
        let mut settled = Tally::default();
        part.count(&mut settled);
        before.settle_part(part.part.unwrap(), &settled);
    }
    // The entry before them comes by itself.
    let progress = before.progress(Position(2), &Tally::default(), &batch_of(3, 7));
    let told = Told::parse(&progress.value).unwrap();
    assert_eq!((told.through, told.tally().settled()), (3, 7));
    assert_eq!(before.commit(Position(3), None).settled(), 0);
    assert_eq!(before.commit(Position(5), None).settled(), 32);

    // The disk has lost one of them.
    let mut after = Exact::new(key(), Epoch(2), LIMITS, Arc::default());
    let here = waiting(&[(4, 0xe), (5, 0)]);
    after.resume(Some(progress.value), Some(&told), Position(3), &here);
    assert_eq!(after.commit(Position(5), None).settled(), 2);
}

/// Holds: a call that is refused as a whole is halved down to one record, and grows again.
#[test]
fn a_refused_whole_is_divided() {
    let mut exact = exact(1);
    let mut sizes = Vec::new();
    let mut size = exact.records();
    while exact.divide(size) {
        size = exact.records();
        sizes.push(size);
    }
    assert_eq!(sizes, [5, 2, 1]);
    for _ in 0..4 * CALM {
        let progress = exact.progress(Position(0), &Tally::default(), &batch_of(1, 1));
        exact.stored(progress);
    }
    assert_eq!(exact.records(), 10);
}

use rtm_sink::{RecordId, Timestamp, Topic};

use super::*;

const LIMITS: Limits = Limits {
    records: 100,
    max_payload: 1 << 20,
};

/// So many records of each entry, all of one key.
fn entries(counts: &[usize]) -> Vec<Record> {
    let record = |position: usize, offset: usize| Record {
        id: RecordId {
            epoch: 1,
            position: position as u64,
            offset: u32::try_from(offset).unwrap(),
        },
        topic: Topic::from("rtm.a"),
        key: Some(Bytes::from_static(b"user")),
        timestamp: Timestamp(0),
        headers: Vec::new(),
        payload: Bytes::from_static(b"{}"),
    };
    let counts = counts.iter().enumerate();
    counts
        .flat_map(|(position, count)| (0..*count).map(move |offset| record(position, offset)))
        .collect()
}

fn parts(records: &[Record], limits: Limits) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut next = 0;
    while next < records.len() {
        let part = next_part(records, next, limits);
        let (Part::Batch(range) | Part::Singly(range) | Part::Window(range)) = &part;
        assert_eq!(range.start, next);
        assert!(range.end > next);
        next = range.end;
        parts.push(part);
    }
    parts
}

/// Holds: a batch is one entry's, as much of it as it may hold.
#[test]
fn batches_are_cut_at_entries() {
    use Part::{Batch, Singly};
    assert_eq!(
        parts(&entries(&[30, 2, 3, 8, 101]), LIMITS),
        [
            Batch(0..30),
            Singly(30..32),
            Singly(32..35),
            Batch(35..43),
            Batch(43..143),
            Singly(143..144),
        ]
    );
    let narrow = Limits {
        records: 4,
        ..LIMITS
    };
    assert_eq!(
        parts(&entries(&[9]), narrow),
        [Singly(0..4), Singly(4..8), Singly(8..9)]
    );
}

/// Holds: small entries go together, singly, as long as that takes few round trips; large ones are batches.
#[test]
fn small_entries_of_many_keys_go_together() {
    use Part::{Batch, Singly};
    let limits = Limits {
        records: 1000,
        ..LIMITS
    };
    let keyed = |counts: &[usize], keys: usize| {
        let mut records = entries(counts);
        for (n, record) in records.iter_mut().enumerate() {
            record.key = Some(format!("user-{}", n % keys).into());
        }
        records
    };
    assert_eq!(
        parts(&keyed(&[7; 200], 1000), limits),
        [Singly(0..994), Singly(994..1400)]
    );
    assert_eq!(
        parts(&keyed(&[100, 249, 250, 20, 300], 1000), limits),
        [
            Singly(0..349),
            Batch(349..599),
            Singly(599..619),
            Batch(619..919)
        ]
    );
    assert_eq!(
        parts(&keyed(&[30, 30, 30], 15), limits),
        [Singly(0..60), Singly(60..90)]
    );
    assert_eq!(parts(&keyed(&[100], 10), limits), [Batch(0..100)]);
    let mut without = keyed(&[200], 10);
    for record in &mut without {
        record.key = None;
    }
    assert_eq!(parts(&without, limits), [Singly(0..200)]);
}

/// Holds: what the server would refuse is kept out of batches, and a batch has a bound in bytes.
#[test]
fn what_fits_in_no_batch_is_published_singly() {
    let with = |change: fn(&mut Record)| {
        let mut records = entries(&[20]);
        change(&mut records[5]);
        parts(&records, LIMITS)
    };
    for change in [
        |record: &mut Record| record.topic = Topic::from("a b"),
        |record: &mut Record| {
            record.headers = vec![("Nats-TTL".into(), Bytes::from_static(b"1s"))];
        },
        |record: &mut Record| record.payload = vec![b' '; 1 << 20].into(),
        |record: &mut Record| {
            record.headers = vec![("a".into(), vec![b'\n'; 400_000].into())];
        },
    ] {
        assert_eq!(with(change), [Part::Singly(0..20)]);
    }
    let mut large = entries(&[40]);
    for record in &mut large {
        record.payload = vec![b' '; 500_000].into();
    }
    assert_eq!(
        parts(&large, LIMITS),
        [Part::Batch(0..16), Part::Batch(16..32), Part::Batch(32..40)]
    );
}

/// Holds: the last record commits, and every so often another one asks for an answer.
#[test]
fn places_in_a_batch() {
    let mut records = entries(&[10]);
    records[3].payload = vec![b' '; BYTES_PER_ANSWER].into();
    let mut batch = Batch::new(0..10, "id".to_owned());
    let places = records.iter().enumerate();
    let places: Vec<Place> = places.map(|(n, record)| batch.place(n, record)).collect();
    let which = |of: fn(&Place) -> bool| -> Vec<usize> {
        let found = places.iter().filter(|place| of(place));
        found.map(|place| place.sequence).collect()
    };
    assert_eq!(which(|place| place.commits), [10]);
    assert_eq!(which(|place| place.answered), [4, 10]);
}

/// Holds: a smaller limit of the server's is understood, and never one that is none.
#[test]
fn refusals_of_batches() {
    let refused = |err_code, description: &str| {
        let refusal = Refusal {
            code: 400,
            err_code,
            description: description.to_owned(),
        };
        refusal.of_batch(100)
    };
    let text = "atomic publish batch is too large: 25";
    assert_eq!(refused(10199, text), Refused::TooLarge(25));
    assert_eq!(refused(10199, "too large"), Refused::TooLarge(50));
    assert_eq!(refused(10174, "x"), Refused::Disabled);
    assert_eq!(refused(10176, "x"), Refused::Whole);
    let batching = Batching::new(true, 1);
    assert!(batching.shrink(25) && !batching.shrink(25) && !batching.shrink(26));
    assert_eq!(batching.limits(10).unwrap().records, 10);
    assert!(batching.disable() && !batching.disable() && batching.limits(10).is_none());
    assert!(!batching.shrink(10) && batching.limits(10).is_none());
    batching.allow(true);
    assert_eq!(batching.limits(100).unwrap().records, 10);
    batching.allow(false);
    assert!(batching.limits(10).is_none());
    let never = Batching::new(false, 1);
    never.allow(true);
    assert!(never.limits(10).is_none());
}

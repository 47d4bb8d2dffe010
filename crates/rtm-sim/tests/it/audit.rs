//! Every mistake that an audit is there to catch, planted one at a time into what a faultless bridge would have stored.

use std::sync::Arc;

use proptest::prelude::*;
use rtm_sim::{Fate, Findings, Ledger, LedgerPage, Observed, Stream};

/// A record that owns what an [`Observed`] borrows.
#[derive(Debug, Clone)]
struct Record {
    partition: i32,
    app_id: String,
    region: String,
    stream: String,
    request_id: String,
    id: String,
    key: Option<Vec<u8>>,
    event: Vec<u8>,
    dead_letter: bool,
}

const FIRST_AT: usize = 50;

/// Two rings with two pages each, ten events on a page; users and channels come again and again.
fn ledger() -> Ledger {
    let mut pages = Vec::new();
    for stream in Stream::ALL {
        for serial in 0..2 {
            let events = (0..10).map(|n| match stream {
                Stream::User => {
                    format!(r#"{{"user_id":"u{}","type":"Login","ms":1}}"#, n % 3).into()
                }
                // The same text over and over: events need not be unique.
                Stream::Channel => r#"{"group_id":7,"user_id":"u","type":"Join","ms":1}"#.into(),
            });
            pages.push(LedgerPage {
                app_id: "a".into(),
                region: "r".into(),
                stream,
                request_id: format!("{}{serial}", stream.as_str()),
                serial,
                deleted_at_ms: 1,
                at_ms: Some(1),
                status: Some(200),
                events: Arc::new(events.collect()),
                first_event_at: FIRST_AT,
                fate: Fate::Whole,
                finished_at_ms: Some(2),
            });
        }
    }
    Ledger {
        pages,
        rings: Vec::new(),
    }
}

/// What a faultless bridge stores: keys of the user stream over two partitions, those of the channel stream in one.
fn stored(ledger: &Ledger) -> Vec<Record> {
    let mut records = Vec::new();
    for (position, page) in ledger.pages.iter().enumerate() {
        for (event, span) in page.events.iter().zip(page.spans()) {
            let value: serde_json::Value = serde_json::from_str(event).unwrap();
            let key = match page.stream {
                Stream::User => value["user_id"].as_str().unwrap().to_owned(),
                Stream::Channel => value["group_id"].to_string(),
            };
            records.push(Record {
                partition: i32::from(key == "u1"),
                app_id: page.app_id.clone(),
                region: page.region.clone(),
                stream: page.stream.as_str().to_owned(),
                request_id: page.request_id.clone(),
                id: format!("00000000000000ab.{position}.{}", span.start),
                key: Some(key.into_bytes()),
                event: event.as_bytes().to_vec(),
                dead_letter: false,
            });
        }
    }
    records
}

fn audit(ledger: &Ledger, records: &[Record]) -> Findings {
    let observed = records.iter().enumerate().map(|(order, record)| Observed {
        sink_order: order as u64,
        partition: record.partition,
        app_id: &record.app_id,
        region: &record.region,
        stream: &record.stream,
        request_id: &record.request_id,
        id: &record.id,
        key: record.key.as_deref(),
        event: &record.event,
        dead_letter: record.dead_letter,
    });
    rtm_sim::audit(ledger, observed)
}

/// Audits what is stored after `mistake`.
fn after(mistake: impl FnOnce(&mut Vec<Record>)) -> Findings {
    let ledger = ledger();
    let mut records = stored(&ledger);
    mistake(&mut records);
    audit(&ledger, &records)
}

/// The findings if nothing at all is wrong.
fn faultless() -> Findings {
    Findings {
        handed_out: 40,
        required: 40,
        seen_distinct: 40,
        ..Findings::default()
    }
}

/// Asserts that `found` says what `expected` says, and has an example of it.
fn assert_found(found: &Findings, expected: &Findings) {
    assert!(!found.clean());
    assert!(!found.examples.is_empty() || found.split_key_count > 0);
    let without_words = Findings {
        examples: Vec::new(),
        pages_missing: Vec::new(),
        ..found.clone()
    };
    assert_eq!(without_words, *expected);
}

#[test]
fn a_faultless_bridge_is_clean() {
    let found = after(|_| {});
    assert!(found.clean() && found.nothing_missing());
    assert_eq!(found, faultless());
    assert!(found.to_string().ends_with("nothing missing"));
}

#[test]
fn duplicates_are_tolerated() {
    let found = after(|records| {
        let again = records[3..17].to_vec();
        records.splice(17..17, again);
    });
    assert!(found.clean());
    assert_eq!(
        found,
        Findings {
            duplicates: 14,
            ..faultless()
        }
    );
}

#[test]
fn finds_a_missing_event() {
    // In the middle of a page of equal texts, where only its place tells it from its neighbours.
    let found = after(|records| drop(records.remove(25)));
    assert!(!found.nothing_missing());
    let [page] = &found.pages_missing[..] else {
        panic!("{found:?}")
    };
    assert_eq!(
        (page.stream, page.serial, page.last),
        (Stream::Channel, 0, false)
    );
    assert_eq!(
        (page.required, page.missing, page.finished_at_ms),
        (10, 1, Some(2))
    );
    assert!(
        found
            .to_string()
            .contains("MISSING                    1  in 1 pages")
    );
    assert_found(
        &found,
        &Findings {
            missing_count: 1,
            seen_distinct: 39,
            ..faultless()
        },
    );
}

#[test]
fn finds_a_missing_page_and_that_it_is_the_last() {
    let found = after(|records| drop(records.drain(10..20)));
    let [page] = &found.pages_missing[..] else {
        panic!("{found:?}")
    };
    assert_eq!(
        (page.stream, page.serial, page.last, page.missing),
        (Stream::User, 1, true, 10)
    );
    assert_found(
        &found,
        &Findings {
            missing_count: 10,
            seen_distinct: 30,
            ..faultless()
        },
    );
}

#[test]
fn finds_an_invented_event() {
    let invented: [fn(&mut Record); 4] = [
        |record| record.request_id = "nobody's".into(),
        |record| record.id = format!("00000000000000ab.1.{}", FIRST_AT + 1),
        |record| record.id = "00000000000000ab.1".into(),
        |record| record.id.push_str(".5"),
    ];
    for change in invented {
        let found = after(|records| {
            let mut record = records[12].clone();
            change(&mut record);
            records.push(record);
        });
        assert_found(
            &found,
            &Findings {
                invented_count: 1,
                ..faultless()
            },
        );
    }
}

#[test]
fn finds_an_altered_byte() {
    let found = after(|records| records[30].event[10] ^= 1);
    assert_found(
        &found,
        &Findings {
            altered_count: 1,
            ..faultless()
        },
    );
    let found = after(|records| records[30].event.truncate(9));
    assert_found(
        &found,
        &Findings {
            altered_count: 1,
            ..faultless()
        },
    );
}

#[test]
fn finds_two_events_exchanged_for_each_other() {
    // Each is there, under the id of the other.
    let found = after(|records| {
        let (first, second) = (records[0].event.clone(), records[1].event.clone());
        (records[0].event, records[1].event) = (second, first);
    });
    assert_found(
        &found,
        &Findings {
            altered_count: 2,
            ..faultless()
        },
    );
}

#[test]
fn finds_wrong_tags() {
    let wrong: [fn(&mut Record); 3] = [
        |record| record.region = "q".into(),
        |record| record.app_id = "b".into(),
        |record| record.stream = "channel".into(),
    ];
    for change in wrong {
        let found = after(|records| change(&mut records[5]));
        assert_found(
            &found,
            &Findings {
                mistagged_count: 1,
                ..faultless()
            },
        );
    }
}

#[test]
fn finds_a_wrong_key() {
    let found = after(|records| records[5].key = Some(b"u9".to_vec()));
    assert_found(
        &found,
        &Findings {
            miskeyed_count: 1,
            ..faultless()
        },
    );
    assert!(after(|records| records[5].key = None).clean());
}

#[test]
fn finds_a_second_identity() {
    let found = after(|records| {
        let mut again = records[39].clone();
        again.id = again.id.replace("ab.", "ac.");
        records.push(again);
    });
    assert_found(
        &found,
        &Findings {
            reidentified_count: 1,
            duplicates: 1,
            ..faultless()
        },
    );
}

#[test]
fn finds_a_wrong_order() {
    // Records 0 and 3 are of one user, 1 and 4 of another.
    let found = after(|records| records.swap(0, 3));
    assert_found(
        &found,
        &Findings {
            out_of_order_count: 1,
            ..faultless()
        },
    );
    // Across pages too.
    let found = after(|records| records[20..].rotate_left(10));
    assert_found(
        &found,
        &Findings {
            out_of_order_count: 10,
            ..faultless()
        },
    );
    // Events of different keys are in no order, and neither are the partitions.
    assert!(after(|records| records.swap(0, 1)).clean());
    assert!(after(|records| records.sort_by_key(|record| record.partition)).clean());
}

/// A first occurrence is what counts: one that is late is not excused by its duplicates being in order.
#[test]
fn a_late_first_occurrence_is_out_of_order() {
    let found = after(|records| {
        let early = records.remove(20);
        records.splice(24..24, [early]);
        let again = records[20..25].to_vec();
        records.extend(again);
    });
    assert_eq!((found.out_of_order_count, found.duplicates), (4, 5));
}

#[test]
fn finds_a_key_in_two_partitions() {
    let found = after(|records| records[6].partition = 5);
    assert_found(
        &found,
        &Findings {
            split_key_count: 1,
            ..faultless()
        },
    );
}

#[test]
fn dead_letters_count_as_delivered_and_are_counted() {
    let found = after(|records| {
        records[8].dead_letter = true;
        records[8].key = None;
        let letter = records.remove(8);
        records.push(letter);
    });
    assert!(found.clean());
    let counted = Findings {
        dead_lettered: 1,
        dead_lettered_sound: 1,
        ..faultless()
    };
    assert_eq!(found, counted);

    let mut ledger = ledger();
    ledger.pages[0].events = Arc::new(vec!["42".into()]);
    let mut records = stored(&self::ledger());
    records.drain(1..10);
    records[0].event = b"42".to_vec();
    records[0].dead_letter = true;
    let found = audit(&ledger, &records);
    assert!(found.clean(), "{found}");
    assert_eq!((found.dead_lettered, found.dead_lettered_sound), (1, 0));
}

#[test]
fn a_cut_asks_for_what_was_sent_and_allows_no_more() {
    let mut ledger = ledger();
    let records = stored(&ledger);
    let third_ends = ledger.pages[0].spans().nth(2).unwrap().end;
    ledger.pages[0].fate = Fate::Cut {
        bytes_sent: third_ends,
        whole_events_sent: 3,
    };
    let kept = |keep: usize| {
        let mut kept = records.clone();
        kept.drain(keep..10);
        audit(&ledger, &kept)
    };
    let found = kept(3);
    assert!(found.clean());
    let counts = (
        found.required,
        found.seen_distinct,
        found.lost_at_source,
        found.cut_whole_delivered,
    );
    assert_eq!(counts, (33, 33, 7, 3));
    assert_eq!(kept(2).missing_count, 1);
    assert_eq!(kept(4).invented_count, 1);
}

#[test]
fn an_unfinished_or_unsent_response_asks_for_nothing() {
    let mut ledger = ledger();
    let records = stored(&ledger);
    ledger.pages[3].finished_at_ms = None;
    let found = audit(&ledger, &records[..30]);
    assert!(found.clean());
    assert_eq!(
        (found.required, found.lost_at_source, found.unsent_events),
        (30, 10, 0)
    );
    assert_eq!(audit(&ledger, &records).lost_at_source, 0);

    ledger.pages[3].fate = Fate::Unsent;
    let found = audit(&ledger, &records[..30]);
    assert!(found.clean());
    assert_eq!((found.lost_at_source, found.unsent_events), (10, 10));
    assert_eq!(audit(&ledger, &records).invented_count, 10);
}

proptest! {
    /// Whatever is dropped, repeated and moved: what is missing is what was dropped, and it is clean exactly if nothing
    /// was dropped and no key's first occurrences moved.
    #[test]
    fn agrees_with_a_naive_audit(
        drops in prop::collection::vec(0usize..40, 0..3),
        repeats in prop::collection::vec((0usize..40, 0usize..40), 0..4),
        swaps in prop::collection::vec((0usize..40, 0usize..40), 0..3),
    ) {
        let ledger = ledger();
        let mut records: Vec<(usize, Record)> = stored(&ledger).into_iter().enumerate().collect();
        for (from, to) in repeats {
            let record = records[from % records.len()].clone();
            records.insert(to % records.len(), record);
        }
        for (one, other) in swaps {
            let count = records.len();
            records.swap(one % count, other % count);
        }
        records.retain(|(number, _)| !drops.contains(number));

        // An event is late if one of its ring and key that came before it stands after it.
        let mut late = 0;
        let firsts = |number: usize| records.iter().position(|(other, _)| *other == number);
        let all = stored(&ledger);
        for later in 0..40 {
            let ring_and_key = |number: usize| (&all[number].stream, &all[number].key);
            let Some(place) = firsts(later) else { continue };
            let overtaken = (0..later)
                .filter(|earlier| ring_and_key(*earlier) == ring_and_key(later))
                .filter_map(firsts)
                .any(|earlier| earlier > place);
            late += u64::from(overtaken);
        }
        let missing = (0..40).filter(|number| firsts(*number).is_none()).count() as u64;
        let records: Vec<Record> = records.iter().map(|(_, record)| record.clone()).collect();
        let found = audit(&ledger, &records);
        prop_assert_eq!(found.missing_count, missing);
        prop_assert_eq!(found.out_of_order_count, late);
        prop_assert_eq!(found.seen_distinct + found.duplicates, records.len() as u64);
        prop_assert_eq!(found.clean(), missing == 0 && late == 0);
    }
}

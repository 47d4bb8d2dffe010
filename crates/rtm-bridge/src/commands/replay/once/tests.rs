//! A drain into a sink that fails as told.

use std::sync::Mutex;

use rtm_engine::drain::Waiting;
use rtm_journal::Position;
use rtm_record::SLICE;
use rtm_sink::MemorySink;

use super::super::deliver::tests::{page_of, router};
use super::*;
use crate::lock;

/// A sink that fails as told.
#[derive(Default)]
struct Failing {
    stored: Option<MemorySink>,
    /// So many calls are taken, and those after them are not.
    taken: Mutex<usize>,
    /// The answer of each call is lost: it is stored.
    loses_answers: bool,
    /// Records in a call that is not refused as a whole.
    most: Option<usize>,
    /// What is refused: payloads with this text, unless they are dead letters.
    refused: Option<&'static str>,
}

impl Sink for Failing {
    async fn publish(&self, _: &[Record]) -> Result<(), PublishError> {
        unreachable!("records are to be stored once")
    }

    fn exact(&self) -> Option<ExactLimits> {
        self.stored.as_ref()?.exact()
    }

    async fn publish_exactly(
        &self,
        records: &[Record],
        progress: &Progress,
    ) -> Result<(), PublishError> {
        let unknown = |kind, why: &str| PublishError::unknown(kind, records.len(), why);
        if self.most.is_some_and(|most| records.len() > most) {
            return Err(unknown(PublishErrorKind::Rejected, "too many"));
        }
        let is_refused = |record: &Record| {
            let text = String::from_utf8_lossy(&record.payload);
            record.topic.as_str() == "events" && self.refused.is_some_and(|one| text.contains(one))
        };
        if records.iter().any(is_refused) {
            let outcomes = records.iter().map(|record| match is_refused(record) {
                true => Outcome::Rejected(Reason {
                    code: "policy",
                    message: "no".to_owned(),
                }),
                false => Outcome::Unknown,
            });
            return Err(PublishError {
                kind: PublishErrorKind::Rejected,
                outcomes: outcomes.collect(),
                source: "refused".into(),
            });
        }
        {
            let mut taken = lock(&self.taken);
            let Some(left) = taken.checked_sub(1) else {
                return Err(unknown(PublishErrorKind::Misconfigured, "no more"));
            };
            *taken = left;
        }
        let stored = self.stored.as_ref().unwrap();
        stored.publish_exactly(records, progress).await?;
        match self.loses_answers {
            true => Err(unknown(PublishErrorKind::Unavailable, "the answer is lost")),
            false => Ok(()),
        }
    }

    async fn recall(&self, key: &ProgressKey) -> Result<Option<Bytes>, PublishError> {
        self.stored.as_ref().unwrap().recall(key).await
    }
}

fn failing(stored: &MemorySink) -> Failing {
    Failing {
        stored: Some(stored.another()),
        taken: Mutex::new(usize::MAX),
        ..Failing::default()
    }
}

fn page(events: usize) -> Entry {
    let event = |number| format!(r#"{{"user_id":"u-{number}","type":"Login","ms":1}}"#);
    page_of(&Vec::from_iter((0..events).map(event)))
}

/// One run of a drain of one entry.
async fn drain(sink: Failing, entry: &Entry) -> anyhow::Result<Counts> {
    let sink = AnySink::new(Arc::new(sink));
    let mut lanes = begin(&sink, entry).await;
    publish(&mut lanes, &sink, entry).await
}

async fn begin(sink: &AnySink, entry: &Entry) -> Lanes {
    let key = ProgressKey {
        journal: 7,
        sink: "kafka".into(),
        lane: "0a1b".into(),
    };
    let limits = sink.exact().unwrap();
    let cursor = (Position(entry.position.0 - 1), Tally::default());
    let mut lane = Drain::new(key, Epoch(fastrand::u64(1..)), limits, cursor);
    let waiting = Waiting {
        position: entry.position,
        epoch: Some(entry.epoch),
        events: entry.count.into(),
    };
    let known = recall(sink, lane.key()).await.unwrap();
    assert_eq!(lane.resume(known, &[waiting]).unwrap(), 0);
    Lanes {
        limits,
        by_name: HashMap::from([("0a1b".into(), lane)]),
    }
}

async fn publish(lanes: &mut Lanes, sink: &AnySink, entry: &Entry) -> anyhow::Result<Counts> {
    let mut router = router();
    let mut counts = Counts::default();
    for from in (0..).step_by(SLICE) {
        let slice = router.page(entry, from..from + SLICE)?.prepared;
        let is_last = slice.len() < SLICE;
        let with = (sink, &mut router, None);
        counts.add(lanes.slice(with, ("0a1b", entry), slice, is_last).await?);
        if is_last {
            break;
        }
    }
    Ok(counts)
}

/// Holds: each event is stored once, in order, whether it became a dead letter or not.
fn assert_once(stored: &MemorySink, events: usize) {
    let offsets: Vec<u32> = stored.records().iter().map(|one| one.id.offset).collect();
    assert!(
        offsets.is_sorted_by(|one, other| one < other),
        "{offsets:?}"
    );
    assert_eq!(offsets.len(), events);
}

/// Holds: a drain that ends anywhere, and is run again, stores each event once, and says how many were there; a page that has
/// exactly as many events as a slice too.
#[tokio::test]
async fn a_drain_that_is_run_again_goes_on_where_it_was() {
    for events in [1, 700, SLICE, SLICE + 600] {
        for taken in 0..6 {
            let stored = MemorySink::exact();
            let entry = page(events);
            let mut first = failing(&stored);
            first.taken = Mutex::new(taken);
            let ended = drain(first, &entry).await;
            let there = stored.records().len();
            assert!(ended.is_ok() || there < events || events == SLICE);
            let all = drain(failing(&stored), &entry).await.unwrap();
            assert_eq!(
                (all.events, all.there),
                ((events - there) as u64, there as u64)
            );
            assert_once(&stored, events);
            let again = drain(failing(&stored), &entry).await.unwrap();
            assert_eq!((again.events, again.there), (0, events as u64));
            assert_once(&stored, events);
        }
    }
}

/// Holds: so is one whose answers are lost, one whose calls are refused as a whole when they are large, and one with records
/// that are refused.
#[tokio::test(start_paused = true)]
async fn a_sink_that_fails_stores_each_event_once() {
    let stored = MemorySink::exact();
    let lossy = Failing {
        loses_answers: true,
        most: Some(100),
        refused: Some("u-77\""),
        ..failing(&stored)
    };
    let counts = drain(lossy, &page(1_200)).await.unwrap();
    let expected = Counts {
        events: 1_199,
        dead_letters: 1,
        there: 0,
    };
    assert_eq!(counts, expected);
    assert_once(&stored, 1_200);
    let dead = &stored.records()[77];
    assert_eq!(dead.topic.as_str(), "dead");
}

/// Holds: where somebody else publishes the same journal, the drain ends, and stores nothing twice.
#[tokio::test(start_paused = true)]
async fn another_process_ends_the_drain() {
    let stored = MemorySink::exact();
    let entry = page(1_200);
    let sink = AnySink::new(Arc::new(failing(&stored)));
    let mut lanes = begin(&sink, &entry).await;
    drain(failing(&stored), &entry).await.unwrap();
    let ended = publish(&mut lanes, &sink, &entry).await;
    let error = crate::chain(ended.unwrap_err().as_ref());
    assert!(
        error.contains("does another process publish it?"),
        "{error}"
    );
    assert_once(&stored, 1_200);
}

//! The suite that every sink runs: what [`Sink`]'s contract promises, case by case.
//!
//! A sink's test implements [`Rig`] and calls [`run`], which returns what the rig could not do. The test compares that
//! with what it expects, so that no case is left out unnoticed. A failed case panics, and standard error names it.
//!
//! [`Faulty`] is the other half: a sink around any sink that fails as told, for tests of whatever publishes.

use std::collections::HashMap;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    Headers, Outcome, PublishError, PublishErrorKind, Record, RecordId, Sink, Timestamp, Topic,
};

pub mod exact;
mod faults;

pub use faults::{Fault, Faulty};

/// How long any one step may take on a slow machine: a publish after an outage, or reading a topic back.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How long a broker is away. The sink must not confirm anything meanwhile.
const AWAY: Duration = Duration::from_secs(3);

/// What the suite needs of a sink's test.
pub trait Rig {
    /// The sink to test.
    type Sink: Sink;

    /// Makes a sink, connected as far as it connects by itself. Called once for each case.
    fn sink(&self) -> impl Future<Output = Self::Sink>;

    /// As [`sink`](Self::sink), one that stores records once and only once; `None` where there is no such sink.
    fn exact(&self) -> impl Future<Output = Option<Self::Sink>> {
        async { None }
    }

    /// A topic that holds nothing, ready for records. `case` is unique in a run, and made of `[a-z_]`.
    fn topic(&self, case: &str) -> impl Future<Output = Topic>;

    /// Everything stored under a topic at the time of the call, in an order in which that of each key shows.
    fn stored(&self, topic: &Topic) -> impl Future<Output = Vec<Stored>>;

    /// A record for `topic` that the broker refuses for good, and by itself; `None` if there are none such.
    fn refused(&self, topic: &Topic) -> Option<Record> {
        let _ = topic;
        None
    }

    /// Takes the broker away, so that nothing can be stored until [`bring_back`](Self::bring_back); `None` if the rig
    /// cannot.
    fn take_away(&self) -> impl Future<Output = Option<()>> {
        async { None }
    }

    /// Brings the broker back. Returns when it is on its way; it may not answer yet.
    fn bring_back(&self) -> impl Future<Output = ()> {
        async {}
    }

    /// What the broker promises beyond the contract.
    fn carries(&self) -> Carries {
        Carries::default()
    }
}

/// What [`Rig::stored`] found. `None` where the broker does not store such a thing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stored {
    /// What the broker's deduplication works by.
    pub id: Option<String>,
    /// The key, empty or not.
    pub key: Option<Bytes>,
    /// The timestamp that the record was published with.
    pub timestamp: Option<Timestamp>,
    /// The record's headers, without what the sink adds.
    pub headers: Option<Headers>,
    /// The document.
    pub payload: Bytes,
}

/// What differs between brokers that all keep the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Carries {
    /// The order per key of first occurrences is kept through failures of the broker too.
    pub order_after_failure: bool,
    /// A record published again soon after is not stored again.
    pub deduplicated: bool,
}

/// Runs every case, one after the other, and returns the names of those that the rig cannot do.
///
/// # Panics
///
/// When the sink breaks its contract.
pub async fn run<R: Rig>(rig: &R) -> Vec<&'static str> {
    let mut left_out = Vec::new();
    let mut done = |name: &'static str, ran: Option<()>| {
        eprintln!(
            "conformance: {name}: {}",
            if ran.is_some() { "ok" } else { "LEFT OUT" }
        );
        if ran.is_none() {
            left_out.push(name);
        }
    };
    // Boxed: each case holds batches and sinks, and one future of them all would be large.
    macro_rules! case {
        ($name:literal, $case:ident) => {
            eprintln!("conformance: {}", $name);
            done($name, Box::pin($case(rig)).await);
        };
    }
    case!("an empty batch", empty_batch);
    case!("a record's parts", parts);
    case!("a thousand records in a batch", thousand_in_a_batch);
    case!("order per key over many batches", order_per_key);
    case!("calls at the same time", calls_at_the_same_time);
    case!("the answer is lost", lost_answer);
    case!("a call is dropped", dropped_call);
    case!("a record is refused", refused_record);
    case!("a refused record is made smaller", smaller_record);
    case!("the broker is away", broker_away);
    case!("the sink is closed", closed_sink);
    left_out
}

/// Holds: nothing to publish is at once confirmed, and nothing is stored.
async fn empty_batch<R: Rig>(rig: &R) -> Option<()> {
    let sink = rig.sink().await;
    let topic = rig.topic("empty_batch").await;
    confirm(&sink, &[]).await;
    // Something after it, because a rig may not be able to read a topic that never held anything.
    let record = record(&topic, 0);
    confirm(&sink, std::slice::from_ref(&record)).await;
    assert_eq!(ids(&patient(rig.stored(&topic)).await), ids_of(&[record]));
    Some(())
}

/// Holds: what is stored is what was published, hostile text included.
async fn parts<R: Rig>(rig: &R) -> Option<()> {
    let sink = rig.sink().await;
    let topic = rig.topic("parts").await;
    let mut records: Vec<Record> = (0..5).map(|n| record(&topic, n)).collect();
    records[0].key = None;
    records[1].key = Some(Bytes::from_static(b"\0\xff\r\n. * >\xe2\x80\xae"));
    records[2].headers = vec![
        ("rtm-region".into(), "eu-west-1".into()),
        ("rtm-empty".into(), Bytes::new()),
    ];
    records[3].timestamp.0 -= 3_600_000;
    let text = r#""a\u0000b\r\nc\u202e d . * > \ud83d\ude00 é""#;
    records[4].payload = document(&topic, records[4].id, text);
    confirm(&sink, &records).await;
    // Whatever a sink does to a header that its broker cannot carry, the record arrives.
    let mut hostile = record(&topic, 5);
    hostile.headers = vec![(
        "rtm-user".into(),
        Bytes::from_static(b"a\r\nX-Injected: 1\0\xff"),
    )];
    confirm(&sink, std::slice::from_ref(&hostile)).await;
    records.push(hostile);

    let stored = patient(rig.stored(&topic)).await;
    assert_eq!(stored.len(), records.len());
    for (n, record) in records.iter().enumerate() {
        let stored = stored
            .iter()
            .find(|stored| stored.payload == record.payload)
            .unwrap_or_else(|| panic!("payload {n} is not among those stored"));
        let id = record.id.to_string();
        assert_eq!(stored.id.as_ref().unwrap_or(&id), &id, "id {n}");
        let key = record.key.clone().unwrap_or_default();
        assert_eq!(stored.key.as_ref().unwrap_or(&key), &key, "key {n}");
        let timestamp = stored.timestamp.unwrap_or(record.timestamp);
        assert_eq!(timestamp, record.timestamp, "timestamp {n}");
        if n != 5 {
            // Not every broker keeps the order of headers of different names.
            let sorted = |mut headers: Headers| {
                headers.sort();
                headers
            };
            let headers = stored.headers.clone().map(sorted);
            assert!(
                headers.is_none_or(|headers| headers == sorted(record.headers.clone())),
                "headers {n}"
            );
        }
    }
    Some(())
}

/// Holds: a batch as large as a page is stored once, in order per key.
async fn thousand_in_a_batch<R: Rig>(rig: &R) -> Option<()> {
    let sink = rig.sink().await;
    let topic = rig.topic("thousand_in_a_batch").await;
    let records = records(&topic, 1000);
    confirm(&sink, &records).await;
    let stored = patient(rig.stored(&topic)).await;
    assert_eq!(stored.len(), records.len(), "each is stored once");
    assert_in_order(&stored, &records);
    Some(())
}

/// Holds: the order of each key is that of the calls, and within a call that of the batch; two topics do not mix.
async fn order_per_key<R: Rig>(rig: &R) -> Option<()> {
    let sink = rig.sink().await;
    let topics = [rig.topic("order_one").await, rig.topic("order_two").await];
    let mut published: [Vec<Record>; 2] = Default::default();
    for _ in 0..20 {
        let mut batch = records(&topics[0], 250);
        for record in batch.iter_mut().skip(1).step_by(3) {
            *record = Record {
                key: record.key.clone(),
                ..self::record(&topics[1], 0)
            };
        }
        confirm(&sink, &batch).await;
        for record in batch {
            published[usize::from(record.topic == topics[1])].push(record);
        }
    }
    for (topic, published) in topics.iter().zip(&published) {
        let stored = patient(rig.stored(topic)).await;
        assert_eq!(stored.len(), published.len());
        assert_in_order(&stored, published);
    }
    Some(())
}

/// Holds: calls at the same time, of different keys, are each confirmed for themselves.
async fn calls_at_the_same_time<R: Rig>(rig: &R) -> Option<()> {
    let sink = rig.sink().await;
    let topic = rig.topic("calls_at_the_same_time").await;
    let [a, b, c] = ["a", "b", "c"].map(|key| {
        let mut batch = records(&topic, 300);
        let keyed = |record: &mut Record| record.key = Some(key.into());
        batch.iter_mut().for_each(keyed);
        batch
    });
    tokio::join!(confirm(&sink, &a), confirm(&sink, &b), confirm(&sink, &c));
    let stored = patient(rig.stored(&topic)).await;
    assert_eq!(stored.len(), 900);
    assert_in_order(&stored, &[a, b, c].concat());
    Some(())
}

/// Holds: records that were stored though their call failed are published again, and the copies are recognisable.
async fn lost_answer<R: Rig>(rig: &R) -> Option<()> {
    let sink = Faulty::new(rig.sink().await);
    let topic = rig.topic("lost_answer").await;
    let records = records(&topic, 100);
    sink.next(Fault::LoseAnswer);
    sink.next(Fault::StopAfter(30));
    assert_eq!(converge(&sink, &records).await, vec![]);
    let stored = patient(rig.stored(&topic)).await;
    assert_in_order(&stored, &records);
    let copies = if rig.carries().deduplicated { 1 } else { 2 };
    assert_eq!(stored.len(), copies * records.len());
    let mut payloads: HashMap<String, Bytes> = HashMap::new();
    for stored in &stored {
        let first = payloads
            .entry(id_in(&stored.payload))
            .or_insert(stored.payload.clone());
        assert_eq!(*first, stored.payload, "a copy has the bytes of the first");
    }
    Some(())
}

/// Holds: whatever a dropped call left in flight, a later call confirms its own records and no others.
async fn dropped_call<R: Rig>(rig: &R) -> Option<()> {
    let sink = rig.sink().await;
    let topic = rig.topic("dropped_call").await;
    let mut kept = Vec::new();
    for round in 0..20 {
        // From not polled at all to nearly done: the moment matters, and nobody knows the right one.
        let cut = Duration::from_micros(if round == 0 { 0 } else { 100 << (round / 2) });
        let dropped = records(&topic, 200);
        let _ = timeout(cut, sink.publish(&dropped)).await;
        let mut batch = records(&topic, 200);
        // A late report that confirms it would show at once. Now and then only, as brokers take long over it.
        let refused = (round % 5 == 4).then(|| rig.refused(&topic)).flatten();
        batch.extend(refused.clone());
        let rejected = converge(&sink, &batch).await;
        assert_eq!(
            rejected,
            refused
                .map(|record| record.id)
                .into_iter()
                .collect::<Vec<_>>()
        );
        batch.truncate(200);
        let stored = ids(&patient(rig.stored(&topic)).await);
        for record in &batch {
            assert!(
                stored.contains(&record.id.to_string()),
                "confirmed and not stored"
            );
        }
        kept.append(&mut batch);
    }
    assert_in_order(&patient(rig.stored(&topic)).await, &kept);
    Some(())
}

/// Holds: a record that is refused for good is told apart from its neighbours, which arrive.
async fn refused_record<R: Rig>(rig: &R) -> Option<()> {
    let topic = rig.topic("refused_record").await;
    let refused = [rig.refused(&topic)?, rig.refused(&topic)?];
    let sink = rig.sink().await;
    let records = records(&topic, 1000);
    let mut batch = records.clone();
    batch.insert(900, refused[1].clone());
    batch.insert(500, refused[0].clone());
    assert_eq!(
        converge(&sink, &batch).await,
        [refused[0].id, refused[1].id]
    );
    let stored = patient(rig.stored(&topic)).await;
    assert_complete(&stored, &records);
    assert_eq!(
        stored
            .iter()
            .find(|stored| stored.payload == refused[0].payload),
        None
    );
    // Alone it says so at once, and its kind tells the caller to go on.
    let error = refuse(&sink, &refused[0]).await;
    assert_eq!(error.kind, PublishErrorKind::Rejected);
    Some(())
}

/// Holds: what was refused is taken once it is smaller, under the same id, and is stored once: so a dead letter is cut until
/// it fits.
async fn smaller_record<R: Rig>(rig: &R) -> Option<()> {
    let topic = rig.topic("smaller_record").await;
    let refused = rig.refused(&topic)?;
    let sink = rig.sink().await;
    refuse(&sink, &refused).await;
    let smaller = Record {
        key: None,
        headers: Headers::new(),
        payload: document(&topic, refused.id, r#""""#),
        ..refused
    };
    confirm(&sink, std::slice::from_ref(&smaller)).await;
    let stored = patient(rig.stored(&topic)).await;
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0].payload, smaller.payload);
    Some(())
}

/// Holds: nothing is confirmed while the broker is away, and once it is back everything can be published.
async fn broker_away<R: Rig>(rig: &R) -> Option<()> {
    let sink = rig.sink().await;
    let topic = rig.topic("broker_away").await;
    let before = records(&topic, 100);
    confirm(&sink, &before).await;

    rig.take_away().await?;
    let records = records(&topic, 300);
    // In two batches, the first of which is given up: its late reports meet the second.
    let (dropped, pending) = records.split_at(100);
    let start = Instant::now();
    while start.elapsed() < AWAY {
        let publish = sink.publish(if start.elapsed() < AWAY / 3 {
            dropped
        } else {
            pending
        });
        match timeout(AWAY / 3, publish).await {
            Ok(Ok(())) => panic!("confirmed while the broker is away"),
            Ok(Err(error)) => {
                assert_eq!(error.kind, PublishErrorKind::Unavailable, "{error:?}");
                assert!(
                    error
                        .outcomes
                        .iter()
                        .all(|outcome| *outcome == Outcome::Unknown)
                );
                sleep(AWAY / 30).await;
            }
            Err(_) => (),
        }
    }
    rig.bring_back().await;

    assert_eq!(converge(&sink, &records).await, vec![]);
    let stored = patient(rig.stored(&topic)).await;
    let records = [before, records].concat();
    if rig.carries().order_after_failure {
        assert_in_order(&stored, &records);
    } else {
        assert_complete(&stored, &records);
    }
    Some(())
}

/// Holds: a sink that works says that it is up; closing takes back nothing, ends in time and may come twice; and what is
/// published afterwards is stored if it is confirmed, and unknown if it is not.
async fn closed_sink<R: Rig>(rig: &R) -> Option<()> {
    let sink = rig.sink().await;
    let topic = rig.topic("closed_sink").await;
    let mut kept = records(&topic, 100);
    assert_eq!(converge(&sink, &kept).await, vec![]);
    assert!(sink.health().up, "{:?}", sink.health());
    patient(sink.close()).await;
    patient(sink.close()).await;
    let late = records(&topic, 10);
    match patient(sink.publish(&late)).await {
        Ok(()) => kept.extend(late),
        Err(error) => {
            assert_eq!(error.kind, PublishErrorKind::Unavailable, "{error:?}");
            assert_eq!(error.outcomes, vec![Outcome::Unknown; late.len()]);
        }
    }
    let _ = sink.health();
    assert_in_order(&patient(rig.stored(&topic)).await, &kept);
    Some(())
}

/// A record as the bridge makes them, small, with an id that no other has. Keys repeat: there are seven.
#[must_use]
pub fn record(topic: &Topic, n: u64) -> Record {
    /// Records of one page of the journal, and so of one entry.
    const PAGE: u64 = 100;
    static NEXT: AtomicU64 = AtomicU64::new(0);
    static EPOCH: OnceLock<u64> = OnceLock::new();
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    let id = RecordId {
        // Random: a broker that outlives the run remembers ids.
        epoch: *EPOCH.get_or_init(|| RandomState::new().hash_one(0)),
        position: next / PAGE,
        offset: u32::try_from(next % PAGE).unwrap_or_default(),
    };
    Record {
        id,
        topic: topic.clone(),
        key: Some(if n.is_multiple_of(7) {
            // An empty id is one too.
            Bytes::new()
        } else {
            format!("user-{}", n % 7).into()
        }),
        timestamp: now(),
        headers: Headers::new(),
        payload: document(topic, id, "\"plain\""),
    }
}

/// Of today: Kafka removes what is older than its retention, by the record's own timestamp.
fn now() -> Timestamp {
    let since_1970 = UNIX_EPOCH.elapsed().unwrap_or_default();
    Timestamp(i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX))
}

/// So many of them, for one topic.
#[must_use]
pub fn records(topic: &Topic, count: u64) -> Vec<Record> {
    (0..count).map(|n| record(topic, n)).collect()
}

/// The payload names its id and topic, as the bridge's does.
fn document(topic: &Topic, id: RecordId, text: &str) -> Bytes {
    format!(r#"{{"id":"{id}","topic":"{topic}","text":{text}}}"#).into()
}

/// Publishes until every record is confirmed or rejected, as the bridge does. Returns the rejected ones, in order.
///
/// # Panics
///
/// When it takes longer than [`PATIENCE`], or when an error's outcomes make no sense.
pub async fn converge<S: Sink>(sink: &S, records: &[Record]) -> Vec<RecordId> {
    let mut rejected = Vec::new();
    let mut left = records.to_vec();
    let converged = timeout(PATIENCE, async {
        while let Err(error) = sink.publish(&left).await {
            assert_eq!(
                error.outcomes.len(),
                left.len(),
                "one outcome for each record"
            );
            let confirmed = |outcome: &Outcome| *outcome == Outcome::Confirmed;
            assert!(
                !error.outcomes.iter().all(confirmed),
                "an error, but all is confirmed"
            );
            let mut outcomes = error.outcomes.iter();
            left.retain(|record| match outcomes.next() {
                Some(Outcome::Confirmed) => false,
                Some(Outcome::Rejected(_)) => {
                    rejected.push(record.id);
                    false
                }
                Some(Outcome::Unknown) | None => true,
            });
            if left.is_empty() {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
    });
    assert!(converged.await.is_ok(), "not published in time");
    rejected.sort_unstable();
    rejected
}

/// One call, which confirms all of them.
async fn confirm<S: Sink>(sink: &S, records: &[Record]) {
    let published = patient(sink.publish(records)).await;
    published.expect("confirmed");
}

/// One call, which refuses the record for good.
async fn refuse<S: Sink>(sink: &S, record: &Record) -> PublishError {
    let published = patient(sink.publish(std::slice::from_ref(record))).await;
    let error = published.expect_err("refused");
    let outcomes = &error.outcomes;
    assert!(
        matches!(outcomes[..], [Outcome::Rejected(_)]),
        "{outcomes:?}"
    );
    error
}

async fn patient<T>(step: impl Future<Output = T>) -> T {
    timeout(PATIENCE, step).await.expect("in time")
}

fn ids(stored: &[Stored]) -> Vec<String> {
    stored.iter().map(|stored| id_in(&stored.payload)).collect()
}

fn ids_of(records: &[Record]) -> Vec<String> {
    records.iter().map(|record| record.id.to_string()).collect()
}

/// The id that a consumer sees.
fn id_in(payload: &Bytes) -> String {
    let document: serde_json::Value = serde_json::from_slice(payload).expect("a JSON document");
    document["id"].as_str().expect("an id").to_owned()
}

/// Each record is there, with its bytes, once or more often.
fn assert_complete(stored: &[Stored], records: &[Record]) {
    let payloads: HashMap<String, &Bytes> = stored
        .iter()
        .map(|stored| (id_in(&stored.payload), &stored.payload))
        .collect();
    for record in records {
        let stored = payloads.get(&record.id.to_string());
        assert_eq!(
            stored,
            Some(&&record.payload),
            "{} is not stored as it was published",
            record.id
        );
    }
}

/// Each record is there, and the first occurrences of each key are in the order of `records`.
///
/// Whatever else is stored (a dropped call's records) does not count.
///
/// # Panics
///
/// When it is not so.
pub fn assert_in_order(stored: &[Stored], records: &[Record]) {
    assert_complete(stored, records);
    let mut first: HashMap<String, usize> = HashMap::new();
    for (n, id) in ids(stored).into_iter().enumerate() {
        first.entry(id).or_insert(n);
    }
    let mut last: HashMap<&Bytes, (usize, RecordId)> = HashMap::new();
    for record in records {
        let place = first[&record.id.to_string()];
        let Some(key) = &record.key else { continue };
        if let Some((before, id)) = last.insert(key, (place, record.id)) {
            assert!(before < place, "{id} comes before {} in its key", record.id);
        }
    }
}

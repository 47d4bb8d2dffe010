//! The NATS sink at a real server: the suite that every sink runs, and each outcome.
#![allow(clippy::unwrap_used)]

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy};
use bytes::Bytes;
use futures::StreamExt;
use rtm_sink::conformance::{self, Carries, Rig, Stored, converge, record, records};
use rtm_sink::{
    Outcome, Progress, ProgressKey, PublishError, PublishErrorKind, Record, Sink, Topic,
};
use rtm_sink_nats::{CheckError, NatsOptions, NatsSink, PublishFailure, StreamSpec};
use rtm_tests::brokers::{self, Nats, NatsRecord};
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::task::block_in_place;
use tokio::time::timeout;

use super::nats_proxy::Proxy;

/// For what must happen, on a machine that compiles at the same time.
pub(super) const SOON: Duration = Duration::from_secs(30);

/// For what must not happen: how long to see it not happen.
pub(super) const SHORT: Duration = Duration::from_millis(700);

/// How the sink publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// In atomic batches: all that the harness makes takes them.
    Batches,
    /// Each record for itself.
    Single,
}

/// Runs tests that take a [`Mode`] in both.
macro_rules! both_modes {
    ($($name:ident),* $(,)?) => {
        $(mod $name {
            #[tokio::test]
            async fn batches() {
                super::$name(crate::nats_sink::Mode::Batches).await;
            }

            #[tokio::test]
            async fn single() {
                super::$name(crate::nats_sink::Mode::Single).await;
            }
        })*
    };
}
pub(super) use both_modes;

pub(super) fn options(nats: &Nats, jetstream: &str, mode: Mode) -> NatsOptions {
    NatsOptions {
        atomic_batches: mode == Mode::Batches,
        ..NatsOptions::new(vec![nats.url().to_owned()], jetstream)
    }
}

/// As [`options`], through a proxy, and soon given up.
pub(super) fn through(proxy: &Proxy, nats: &Nats, jetstream: &str, mode: Mode) -> NatsOptions {
    NatsOptions {
        servers: vec![proxy.url()],
        ack_timeout: SHORT,
        ..options(nats, jetstream, mode)
    }
}

pub(super) async fn sink(nats: &Nats, jetstream: &str, mode: Mode) -> NatsSink {
    NatsSink::connect(options(nats, jetstream, mode))
        .await
        .unwrap()
}

/// A sink that soon gives up, for what is not acknowledged.
pub(super) async fn hasty_sink(nats: &Nats, jetstream: &str, mode: Mode) -> NatsSink {
    let options = NatsOptions {
        ack_timeout: SHORT,
        ..options(nats, jetstream, mode)
    };
    NatsSink::connect(options).await.unwrap()
}

pub(super) async fn create(nats: &Nats, config: Config) {
    let jetstream = nats.jetstream().await.unwrap();
    jetstream.create_stream(config).await.unwrap();
}

/// A JetStream stream of its own for a test, which takes atomic batches and stores `<name>.>`.
pub(super) async fn own_jetstream(nats: &Nats, config: Config) -> String {
    let name = brokers::unique("sink");
    let subjects = vec![format!("{name}.>")];
    create(
        nats,
        Config {
            name: name.clone(),
            subjects,
            allow_atomic_publish: true,
            ..config
        },
    )
    .await;
    name
}

pub(super) fn topic(jetstream: &str, rest: &str) -> Topic {
    Topic::from(format!("{jetstream}.{rest}"))
}

/// So many records of one journal entry, which is what a batch is made of.
pub(super) fn page(topic: &Topic, count: u32) -> Vec<Record> {
    let mut page = records(topic, count.into());
    // The harness's own entries end where they end; no number of theirs is as high.
    let first = page[0].id;
    let position = (1 << 40) + first.position * 1000 + u64::from(first.offset);
    for (record, offset) in page.iter_mut().zip(0..) {
        record.id.position = position;
        record.id.offset = offset;
    }
    page
}

pub(super) async fn publish(sink: &NatsSink, records: &[Record]) -> Result<(), PublishError> {
    timeout(SOON, sink.publish(records))
        .await
        .expect("publish returns")
}

pub(super) async fn failed(sink: &NatsSink, records: &[Record]) -> (PublishError, String) {
    let error = publish(sink, records).await.expect_err("not confirmed");
    assert_eq!(error.outcomes.len(), records.len());
    let said = error.source.to_string();
    (error, said)
}

pub(super) fn failure(error: &PublishError) -> &PublishFailure {
    error
        .source
        .downcast_ref()
        .expect("the source is a failure")
}

pub(super) fn id_of(stored: &NatsRecord) -> String {
    let header = |(name, value): &(String, String)| (name == "Nats-Msg-Id").then(|| value.clone());
    stored.headers.iter().find_map(header).unwrap_or_default()
}

/// Stored once each, and in this order.
pub(super) async fn assert_stored(nats: &Nats, jetstream: &str, records: &[Record]) {
    let stored = nats.read_all(jetstream).await.unwrap();
    let stored: Vec<String> = stored.iter().map(id_of).collect();
    let expected: Vec<String> = records.iter().map(|record| record.id.to_string()).collect();
    let first_wrong = stored.iter().zip(&expected).position(|(a, b)| a != b);
    assert!(
        stored == expected,
        "{} stored, {} expected, first wrong: {first_wrong:?}",
        stored.len(),
        expected.len()
    );
}

/// Stored once each, and those of each key in this order.
pub(super) async fn assert_stored_by_key(nats: &Nats, jetstream: &str, records: &[Record]) {
    let stored = nats.read_all(jetstream).await.unwrap();
    let places: HashMap<String, u64> = stored
        .iter()
        .map(|stored| (id_of(stored), stored.sequence))
        .collect();
    assert_eq!(places.len(), stored.len(), "each once");
    assert_eq!(stored.len(), records.len());
    let mut last: HashMap<&Option<Bytes>, u64> = HashMap::new();
    for record in records {
        let place = places.get(&record.id.to_string());
        let place = *place.unwrap_or_else(|| panic!("{} is not stored", record.id));
        let before = last.insert(&record.key, place).unwrap_or(0);
        assert!(before < place, "{} is out of order", record.id);
    }
}

/// A server that the suite takes away and brings back.
struct NatsRig {
    server: Mutex<Nats>,
    url: String,
    mode: Mode,
    /// Whether records that are stored once and only once have ids for the server.
    has_message_ids: bool,
}

const SUITE: &str = "CONFORMANCE";

/// Above [`SUITE`]'s limit and below the server's, so that it is the JetStream stream that refuses.
pub(super) const TOO_LARGE: usize = 20_000;

impl Rig for NatsRig {
    type Sink = NatsSink;

    async fn sink(&self) -> NatsSink {
        let options = NatsOptions {
            atomic_batches: self.mode == Mode::Batches,
            ..NatsOptions::new(vec![self.url.clone()], SUITE)
        };
        NatsSink::connect(options).await.unwrap()
    }

    async fn exact(&self) -> Option<NatsSink> {
        let options = NatsOptions {
            progress_subject: Some("conformance.progress.{journal}.{sink}.{app_id}".to_owned()),
            message_ids: self.has_message_ids,
            ..NatsOptions::new(vec![self.url.clone()], SUITE)
        };
        Some(NatsSink::connect(options).await.unwrap())
    }

    async fn topic(&self, case: &str) -> Topic {
        Topic::from(format!("conformance.{case}"))
    }

    async fn stored(&self, topic: &Topic) -> Vec<Stored> {
        let stored = self.server.lock().await.read_all(SUITE).await.unwrap();
        let of_topic = stored
            .into_iter()
            .filter(|record| record.subject == topic.as_str());
        let stored = |record: NatsRecord| {
            let own = |(name, _): &&(String, String)| !name.starts_with("Nats-");
            let mut headers: Vec<_> = record.headers.iter().filter(own).collect();
            // The library keeps no order of them; that of the suite's two is this.
            headers.sort_by(|a, b| b.cmp(a));
            let header =
                |(name, value): &(String, String)| (name.clone().into(), value.clone().into());
            Stored {
                id: Some(id_of(&record)),
                headers: Some(headers.into_iter().map(header).collect()),
                payload: record.payload,
                ..Stored::default()
            }
        };
        of_topic.map(stored).collect()
    }

    fn refused(&self, topic: &Topic) -> Option<Record> {
        Some(Record {
            payload: Bytes::from(vec![b' '; TOO_LARGE]),
            ..record(topic, 0)
        })
    }

    async fn take_away(&self) -> Option<()> {
        self.server.lock().await.kill().await.unwrap();
        Some(())
    }

    async fn bring_back(&self) {
        let mut server = self.server.lock().await;
        // Not awaited: the compiler cannot tell that the harness's future may change threads (rust-lang/rust#110338).
        block_in_place(|| Handle::current().block_on(server.restart())).unwrap();
    }

    fn carries(&self) -> Carries {
        Carries {
            order_after_failure: true,
            deduplicated: true,
        }
    }
}

/// Holds: the contract, with nothing left out, in atomic batches.
#[tokio::test(flavor = "multi_thread")]
async fn conforms_in_batches() {
    conforms(Mode::Batches).await;
}

/// Holds: the same, each record for itself.
#[tokio::test(flavor = "multi_thread")]
async fn conforms_singly() {
    conforms(Mode::Single).await;
}

/// Holds: what is stored once and only once is so with ids for the server's deduplication, too.
#[tokio::test(flavor = "multi_thread")]
async fn conforms_with_message_ids() {
    let rig = rig(Mode::Batches, true).await;
    assert_eq!(conformance::exact::run(&rig).await, Vec::<&str>::new());
}

async fn conforms(mode: Mode) {
    let rig = rig(mode, false).await;
    assert_eq!(conformance::run(&rig).await, Vec::<&str>::new());
    if mode == Mode::Batches {
        assert_eq!(conformance::exact::run(&rig).await, Vec::<&str>::new());
    }
}

async fn rig(mode: Mode, has_message_ids: bool) -> NatsRig {
    let server = Nats::start_own().await.unwrap();
    let config = Config {
        name: SUITE.to_owned(),
        subjects: vec!["conformance.>".to_owned()],
        max_message_size: 10_000,
        allow_atomic_publish: true,
        ..Config::default()
    };
    create(&server, config).await;
    NatsRig {
        url: server.url().to_owned(),
        server: Mutex::new(server),
        mode,
        has_message_ids,
    }
}

/// The progress of one lane, and a sink that stores records with it.
async fn exact_sink(nats: &Nats, jetstream: &str, message_ids: bool) -> (NatsSink, ProgressKey) {
    let options = NatsOptions {
        progress_subject: Some(format!(
            "{jetstream}.progress.{{journal}}.{{sink}}.{{app_id}}"
        )),
        message_ids,
        ..options(nats, jetstream, Mode::Batches)
    };
    let key = ProgressKey {
        journal: 7,
        sink: "nats".into(),
        lane: "lane".into(),
    };
    let sink = NatsSink::connect(options).await.unwrap();
    assert_eq!(
        timeout(SOON, sink.recall(&key)).await.unwrap().unwrap(),
        None
    );
    (sink, key)
}

async fn store(
    sink: &NatsSink,
    records: &[Record],
    key: &ProgressKey,
    value: &str,
) -> Result<(), PublishError> {
    let progress = Progress {
        key: key.clone(),
        value: Bytes::copy_from_slice(value.as_bytes()),
    };
    let publish = sink.publish_exactly(records, &progress);
    timeout(SOON, publish).await.expect("publish returns")
}

/// What is stored beside the progress.
pub(super) async fn stored_records(nats: &Nats, jetstream: &str) -> Vec<NatsRecord> {
    let mut stored = nats.read_all(jetstream).await.unwrap();
    stored.retain(|one| !one.subject.starts_with(&format!("{jetstream}.progress.")));
    stored
}

/// Holds: of lanes whose calls are stored in one batch each follows its own progress, so that the next batch is not refused.
#[tokio::test]
async fn each_lane_of_a_batch_follows_its_own_progress() {
    let nats = brokers::nats().await;
    let jetstream = own_jetstream(nats, Config::default()).await;
    let (sink, key) = exact_sink(nats, &jetstream, false).await;
    let topic = topic(&jetstream, "events");
    let keys: Vec<ProgressKey> = (0..5)
        .map(|lane| ProgressKey {
            lane: format!("lane-{lane}").into(),
            ..key.clone()
        })
        .collect();
    for key in &keys {
        assert_eq!(sink.recall(key).await.unwrap(), None);
    }
    for round in 0..3 {
        let value = format!("round {round}");
        // More of one lane than of another, so that no two have the same number.
        let calls = (1..).zip(&keys).map(|(records, key)| {
            let (sink, value, records) = (&sink, &value, page(&topic, records));
            async move { store(sink, &records, key, value).await }
        });
        let stored = futures::future::join_all(calls).await;
        assert!(stored.iter().all(Result::is_ok), "{round}: {stored:?}");
    }
    assert_eq!(stored_records(nats, &jetstream).await.len(), 3 * 15);
}

/// Holds: with ids for the server's deduplication a record that it knows, though the progress does not, is not stored again.
/// Nothing of its call is stored before it is alone, and then its progress is.
#[tokio::test]
async fn what_the_server_knows_by_its_id_is_passed_over() {
    let nats = brokers::nats().await;
    let name = own_jetstream(nats, Config::default()).await;
    let records = page(&topic(&name, "a"), 8);
    let before = sink(nats, &name, Mode::Single).await;
    publish(&before, &records[2..4]).await.unwrap();
    let (sink, key) = exact_sink(nats, &name, true).await;
    for part in [&records[..], &records[..4], &records[2..4]] {
        let error = store(&sink, part, &key, "refused").await.unwrap_err();
        assert!(error.is_of_the_whole(), "{error:?}");
        assert_eq!(stored_records(nats, &name).await.len(), 2);
    }
    for (value, part) in [
        ("0", &records[..2]),
        ("2", &records[2..3]),
        ("3", &records[3..4]),
        ("4", &records[4..]),
    ] {
        store(&sink, part, &key, value).await.unwrap();
        let recalled = sink.recall(&key).await.unwrap().unwrap();
        assert_eq!(recalled, value.as_bytes());
    }
    let ids = |records: &[NatsRecord]| records.iter().map(id_of).collect::<HashSet<_>>();
    let stored = stored_records(nats, &name).await;
    let expected: HashSet<String> = records.iter().map(|one| one.id.to_string()).collect();
    assert_eq!((stored.len(), ids(&stored)), (8, expected));
    let all = nats.read_all(&name).await.unwrap();
    let progress = all.iter().filter(|one| one.subject.contains(".progress."));
    assert!(progress.map(id_of).all(|id| id.is_empty()));
}

/// Holds: a JetStream stream that is made anew with other settings is looked at again, as soon as a recall has failed.
#[tokio::test]
async fn what_is_made_anew_is_looked_at_again() {
    let nats = brokers::nats().await;
    let rolls_up = Config {
        allow_rollup: true,
        ..Config::default()
    };
    let name = own_jetstream(nats, rolls_up).await;
    let records = page(&topic(&name, "a"), 3);
    let (sink, key) = exact_sink(nats, &name, false).await;
    store(&sink, &records[..2], &key, "1").await.unwrap();
    let jetstream = nats.jetstream().await.unwrap();
    jetstream.delete_stream(&name).await.unwrap();
    sink.recall(&key).await.unwrap_err();
    nats.create_jetstream(&name, &[&format!("{name}.>")])
        .await
        .unwrap();
    assert_eq!(sink.recall(&key).await.unwrap(), None);
    store(&sink, &records[2..], &key, "2").await.unwrap();
    assert_eq!(nats.read_all(&name).await.unwrap().len(), 2);
}

/// Holds: a record that cannot be sent at all is found by giving it alone; nothing of a call that holds it is stored.
#[tokio::test]
async fn what_cannot_be_sent_is_found_alone() {
    let nats = brokers::nats().await;
    let name = own_jetstream(nats, Config::default()).await;
    let (sink, key) = exact_sink(nats, &name, false).await;
    let mut records = page(&topic(&name, "a"), 3);
    // With the headers that are added to it, it is larger than the server takes.
    records[1].payload = Bytes::from(vec![b' '; (1 << 20) - 50]);
    let error = store(&sink, &records, &key, "all").await.unwrap_err();
    assert!(error.is_of_the_whole(), "{error:?}");
    assert_eq!(nats.read_all(&name).await.unwrap().len(), 0);
    store(&sink, &records[..1], &key, "0").await.unwrap();
    let error = store(&sink, &records[1..2], &key, "1").await.unwrap_err();
    assert!(
        matches!(&error.outcomes[..], [Outcome::Rejected(reason)] if reason.code == "too_large"),
        "{error:?}"
    );
    store(&sink, &records[2..], &key, "2").await.unwrap();
    assert_eq!(stored_records(nats, &name).await.len(), 2);
}

/// Holds: a JetStream stream that is missing or does not store the subject holds the records, says so, and takes them
/// once it does.
async fn nowhere_to_store_is_misconfigured(mode: Mode) {
    let nats = brokers::nats().await;
    let name = brokers::unique("late");
    let records = records(&topic(&name, "a"), 100);
    let sink = sink(nats, &name, mode).await;
    let (error, said) = failed(&sink, &records).await;
    assert_eq!(error.kind, PublishErrorKind::Misconfigured, "{said}");
    assert!(
        matches!(failure(&error), PublishFailure::Missing { .. }),
        "{said}"
    );
    assert!(
        error
            .outcomes
            .iter()
            .all(|outcome| *outcome == Outcome::Unknown)
    );
    assert!(!sink.stats().up);

    nats.create_jetstream(&name, &[&format!("{name}.b")])
        .await
        .unwrap();
    let (error, said) = failed(&sink, &records).await;
    assert_eq!(error.kind, PublishErrorKind::Misconfigured, "{said}");
    assert!(
        matches!(failure(&error), PublishFailure::Unbound { subject, .. } if *subject == format!("{name}.a")),
        "{said}"
    );

    let jetstream = nats.jetstream().await.unwrap();
    let config = Config {
        name: name.clone(),
        subjects: vec![format!("{name}.*")],
        allow_atomic_publish: true,
        ..Config::default()
    };
    jetstream.update_stream(config).await.unwrap();
    assert_eq!(converge(&sink, &records).await, []);
    assert_stored(nats, &name, &records).await;
    assert!(sink.stats().up);
}

/// Holds: a subject that another JetStream stream stores is not published there.
async fn another_jetstream_takes_nothing(mode: Mode) {
    let nats = brokers::nats().await;
    let ours = own_jetstream(nats, Config::default()).await;
    let other = own_jetstream(nats, Config::default()).await;
    let sink = sink(nats, &ours, mode).await;
    let (error, said) = failed(&sink, &records(&topic(&other, "a"), 10)).await;
    assert_eq!(error.kind, PublishErrorKind::Misconfigured, "{said}");
    assert!(
        matches!(failure(&error), PublishFailure::Refused(refusal) if refusal.err_code == 10060),
        "{said}"
    );
    assert_stored(nats, &other, &[]).await;
}

/// Holds: where the options say so, the JetStream stream is made at start and again when it is gone; the record ids
/// are remembered as long as asked.
async fn a_missing_jetstream_is_created(mode: Mode) {
    let nats = brokers::nats().await;
    let name = brokers::unique("created");
    let spec = StreamSpec {
        max_bytes: Some(1 << 20),
        max_age: Some(Duration::from_secs(600)),
        duplicate_window: Duration::from_secs(300),
        ..StreamSpec::new(vec![format!("{name}.>")])
    };
    let options = NatsOptions {
        create_stream: Some(spec),
        ..options(nats, &name, mode)
    };
    let sink = NatsSink::connect(options).await.unwrap();
    let first = records(&topic(&name, "a"), 10);
    publish(&sink, &first)
        .await
        .expect("confirmed at the first attempt");
    let jetstream = nats.jetstream().await.unwrap();
    let config = jetstream
        .get_stream(&name)
        .await
        .unwrap()
        .cached_info()
        .config
        .clone();
    assert_eq!(config.allow_atomic_publish, mode == Mode::Batches);
    assert_eq!(config.duplicate_window, Duration::from_secs(300));
    assert_eq!(config.max_age, Duration::from_secs(600));
    assert_eq!(config.max_bytes, 1 << 20);

    jetstream.delete_stream(&name).await.unwrap();
    let second = records(&topic(&name, "a"), 10);
    assert_eq!(converge(&sink, &second).await, []);
    assert_stored(nats, &name, &second).await;
}

/// Holds: each record that will never be taken is told by its reason, wherever it is found out, and its neighbours are
/// confirmed in the same call.
async fn rejected_records_leave_their_neighbours_alone(mode: Mode) {
    let nats = brokers::nats().await;
    let config = Config {
        max_message_size: 10_000,
        ..Config::default()
    };
    let name = own_jetstream(nats, config).await;
    let sink = sink(nats, &name, mode).await;
    let mut batch = records(&topic(&name, "a"), 300);
    batch[10].payload = Bytes::from(vec![b' '; TOO_LARGE]);
    batch[20].payload = Bytes::from(vec![b' '; 2 << 20]);
    batch[30].topic = topic(&name, "*");
    batch[40].topic = topic(&name, "a b");
    batch[50].topic = Topic::from(format!("{name}.{}", "x".repeat(5000)));
    batch[60].headers = vec![("Nats-Rollup".into(), Bytes::from_static(b"all"))];
    batch[299].topic = topic(&name, "a\r\nPUB b 0");
    let rejected = [
        (10, "too_large"),
        (20, "too_large"),
        (30, "bad_subject"),
        (40, "bad_subject"),
        (50, "bad_subject"),
        (60, "bad_header"),
        (299, "bad_subject"),
    ];
    let (error, said) = failed(&sink, &batch).await;
    assert_eq!(error.kind, PublishErrorKind::Rejected, "{said}");
    for (index, outcome) in error.outcomes.iter().enumerate() {
        match rejected.iter().find(|(rejected, _)| *rejected == index) {
            Some((_, code)) => assert!(
                matches!(outcome, Outcome::Rejected(reason) if reason.code == *code),
                "{index}: {outcome:?}"
            ),
            None => assert_eq!(*outcome, Outcome::Confirmed, "{index}"),
        }
    }
    let stats = sink.stats();
    assert!(
        stats.up && stats.confirmed == 293 && stats.out_of_order == 0,
        "{stats:?}"
    );
    let indices: HashSet<usize> = rejected.iter().map(|(index, _)| *index).collect();
    let kept = batch.iter().enumerate();
    let kept: Vec<Record> = kept
        .filter(|(index, _)| !indices.contains(index))
        .map(|(_, record)| record.clone())
        .collect();
    assert_stored(nats, &name, &kept).await;
}

/// Holds: a full JetStream stream that discards what is new is unavailable; what it took is confirmed, and the rest
/// follows in order once there is room.
async fn a_full_jetstream_is_waited_for(mode: Mode) {
    let nats = brokers::nats().await;
    let config = Config {
        max_messages: 50,
        discard: DiscardPolicy::New,
        ..Config::default()
    };
    let name = own_jetstream(nats, config).await;
    let sink = sink(nats, &name, mode).await;
    let records = records(&topic(&name, "a"), 100);
    let (error, said) = failed(&sink, &records).await;
    assert_eq!(error.kind, PublishErrorKind::Unavailable, "{said}");
    assert!(
        matches!(failure(&error), PublishFailure::Refused(refusal) if refusal.err_code == 10077),
        "{said}"
    );
    assert!(
        error.outcomes[..50]
            .iter()
            .all(|o| *o == Outcome::Confirmed)
    );
    assert!(error.outcomes[50..].iter().all(|o| *o == Outcome::Unknown));
    assert_stored(nats, &name, &records[..50]).await;

    let jetstream = nats.jetstream().await.unwrap();
    let stream = jetstream.get_stream(&name).await.unwrap();
    stream.purge().await.unwrap();
    assert_eq!(converge(&sink, &records[50..]).await, []);
    assert_stored(nats, &name, &records[50..]).await;
}

/// Holds: after the first failure nothing new is sent, so that no more than what was in flight can overtake it. Those
/// of other keys are not out of order.
#[tokio::test]
async fn a_failure_stops_the_sending() {
    let nats = brokers::nats().await;
    let config = Config {
        max_messages_per_subject: 5,
        discard: DiscardPolicy::New,
        discard_new_per_subject: true,
        ..Config::default()
    };
    let name = own_jetstream(nats, config).await;
    let options = NatsOptions {
        in_flight: 32,
        ..options(nats, &name, Mode::Single)
    };
    let sink = NatsSink::connect(options).await.unwrap();
    let mut batch = records(&topic(&name, "full"), 6);
    for n in 0..2000 {
        batch.push(record(&topic(&name, &format!("other-{n}")), n));
    }
    let (error, said) = failed(&sink, &batch).await;
    assert_eq!(error.kind, PublishErrorKind::Unavailable, "{said}");
    let confirmed = |outcomes: &[Outcome]| {
        let confirmed = outcomes.iter().filter(|o| **o == Outcome::Confirmed);
        confirmed.count()
    };
    assert_eq!(confirmed(&error.outcomes[..6]), 5);
    let overtook = confirmed(&error.outcomes[6..]);
    assert!(
        overtook < 200,
        "{overtook} records were sent after the failure"
    );
    assert_eq!(sink.stats().out_of_order, 0);
    assert_eq!(nats.read_all(&name).await.unwrap().len(), 5 + overtook);
}

/// Holds: an answer from whoever listens on the subject confirms nothing, and what is really wrong is found out.
async fn answers_of_others_confirm_nothing(mode: Mode) {
    let nats = brokers::nats().await;
    let name = brokers::unique("foreign");
    let client = async_nats::connect(nats.url()).await.unwrap();
    let mut requests = client.subscribe(format!("{name}.>")).await.unwrap();
    client.flush().await.unwrap();
    let answers = tokio::spawn(async move {
        let texts = ["+OK", "", "{}", r#"{"stream":"OTHER","seq":7}"#];
        let mut texts = texts.iter().cycle();
        while let Some(request) = requests.next().await {
            let text = Bytes::from_static(texts.next().unwrap().as_bytes());
            client.publish(request.reply.unwrap(), text).await.unwrap();
        }
    });
    let sink = hasty_sink(nats, &name, mode).await;
    let (error, said) = failed(&sink, &records(&topic(&name, "a"), 20)).await;
    assert!(
        matches!(failure(&error), PublishFailure::Missing { .. }),
        "{said}"
    );
    assert!(error.outcomes.iter().all(|o| *o == Outcome::Unknown));
    answers.abort();
}

/// Holds: a JetStream stream that acknowledges nothing is told from one that is slow.
async fn a_jetstream_without_acknowledgements_is_misconfigured(mode: Mode) {
    let nats = brokers::nats().await;
    let config = Config {
        no_ack: true,
        ..Config::default()
    };
    let name = own_jetstream(nats, config).await;
    let sink = hasty_sink(nats, &name, mode).await;
    let (error, said) = failed(&sink, &records(&topic(&name, "a"), 3)).await;
    assert_eq!(error.kind, PublishErrorKind::Misconfigured, "{said}");
    assert!(
        matches!(failure(&error), PublishFailure::Unacknowledged(_)),
        "{said}"
    );
    assert!(matches!(
        sink.check(&[], false).await,
        Err(CheckError::Unusable { .. })
    ));
}

/// Holds: a record published again is confirmed, counted as a duplicate, and stored once.
async fn duplicates_count_as_confirmed(mode: Mode) {
    let nats = brokers::nats().await;
    let name = own_jetstream(nats, Config::default()).await;
    let records = records(&topic(&name, "a"), 500);
    let sink = sink(nats, &name, mode).await;
    publish(&sink, &records[..200]).await.unwrap();
    publish(&sink, &records).await.unwrap();
    assert_stored(nats, &name, &records).await;
    let stats = sink.stats();
    assert_eq!((stats.confirmed, stats.duplicates), (700, 200));
    assert_eq!(stats.out_of_order, 0);
}

/// Holds: the window is the sink's, and calls at the same time share it without waiting for each other for ever.
async fn calls_share_a_window_of_one(mode: Mode) {
    let nats = brokers::nats().await;
    let name = own_jetstream(nats, Config::default()).await;
    let options = NatsOptions {
        in_flight: 1,
        ..options(nats, &name, mode)
    };
    let sink = NatsSink::connect(options).await.unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|rest| records(&topic(&name, rest), 60));
    let (a, b, c) = tokio::join!(publish(&sink, &a), publish(&sink, &b), publish(&sink, &c));
    a.and(b).and(c).expect("confirmed");
    assert_eq!(nats.read_all(&name).await.unwrap().len(), 180);
}

/// Holds: `check` finds what would keep records out, and publishes nothing.
#[tokio::test]
async fn check_says_what_is_missing() {
    let nats = brokers::nats().await;
    let name = brokers::unique("check");
    let sink = sink(nats, &name, Mode::Single).await;
    assert!(matches!(
        sink.check(&[], false).await,
        Err(CheckError::Missing { jetstream, .. }) if jetstream == name
    ));
    nats.create_jetstream(&name, &[&format!("{name}.*.user_events")])
        .await
        .unwrap();
    let [good, partly, bad] =
        ["a.user_events", "*.user_events", "*.*_events"].map(|rest| format!("{name}.{rest}"));
    let found = sink.check(&[&good, &partly], false).await.unwrap();
    assert_eq!(found.version, nats.version());
    assert_eq!(found.subjects, [format!("{name}.*.user_events")]);
    assert_eq!(found.duplicate_window, Duration::from_secs(120));
    match sink.check(&[&good, &bad, "elsewhere"], false).await {
        Err(CheckError::Unbound { subjects, .. }) => {
            assert_eq!(subjects, [bad, "elsewhere".to_owned()]);
        }
        other => panic!("{other:?}"),
    }
    assert_stored(nats, &name, &[]).await;
}

both_modes! {
    nowhere_to_store_is_misconfigured,
    another_jetstream_takes_nothing,
    a_missing_jetstream_is_created,
    rejected_records_leave_their_neighbours_alone,
    a_full_jetstream_is_waited_for,
    answers_of_others_confirm_nothing,
    a_jetstream_without_acknowledgements_is_misconfigured,
    duplicates_count_as_confirmed,
    calls_share_a_window_of_one,
}

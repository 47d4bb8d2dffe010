//! The NATS sink and its JetStream stream: full, deleted, forgetful; and what partial failures do to the order.
#![allow(clippy::unwrap_used)]

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy};
use bytes::Bytes;
use rtm_sink::conformance::{converge, records};
use rtm_sink::{Outcome, PublishErrorKind, Record, RecordId, Sink, Topic};
use rtm_sink_nats::{CheckError, NatsOptions, NatsSink, PublishFailure, StreamSpec};
use rtm_tests::brokers::{self, Nats, NatsRecord};
use rtm_tests::wait_for;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::nats_log::Log;
use super::nats_proxy::Proxy;
use super::nats_sink::{
    Mode, SOON, assert_stored, assert_stored_by_key, both_modes, failed, failure, id_of, options,
    own_jetstream, page, publish, sink, through, topic,
};

/// Holds: a full JetStream stream that discards what is old confirms everything and drops the oldest, which no answer
/// tells; so the check tells it beforehand, and the log at the start.
async fn a_full_jetstream_that_discards_what_is_old(mode: Mode) {
    let nats = brokers::nats().await;
    let config = Config {
        max_messages: 50,
        discard: DiscardPolicy::Old,
        ..Config::default()
    };
    let name = own_jetstream(nats, config).await;
    let log = Log::start();
    let sink = sink(nats, &name, mode).await;
    let records = records(&topic(&name, "a"), 120);
    publish(&sink, &records).await.expect("confirmed");
    assert_stored(nats, &name, &records[70..]).await;

    let warning = "past its limit (max_msgs: 50 records) it drops its oldest messages";
    let check = sink.check(&[], false).await.unwrap();
    assert!(check.warnings[0].starts_with(warning), "{check:?}");
    assert_eq!(check.warnings.len(), 1);
    let logged = async || log.text().contains(warning);
    wait_for("the warning in the log", SOON, logged)
        .await
        .unwrap();
}

/// Holds: what is published again after the duplicate window is stored again, under the same id, and behind what is
/// there: consumers can tell, and first occurrences keep their order. The check warns of a short window.
async fn a_duplicate_window_that_has_passed(mode: Mode) {
    let nats = brokers::nats().await;
    let config = Config {
        duplicate_window: Duration::from_millis(200),
        ..Config::default()
    };
    let name = own_jetstream(nats, config).await;
    let sink = sink(nats, &name, mode).await;
    let records = records(&topic(&name, "a"), 10);
    publish(&sink, &records).await.unwrap();
    let stored_twice = async || {
        publish(&sink, &records).await.expect("confirmed");
        let stats = sink.stats();
        stats.confirmed - stats.duplicates >= 20
    };
    wait_for("the window to pass", SOON, stored_twice)
        .await
        .unwrap();
    let stored: Vec<String> = nats
        .read_all(&name)
        .await
        .unwrap()
        .iter()
        .map(id_of)
        .collect();
    let expected: Vec<String> = records.iter().map(|record| record.id.to_string()).collect();
    assert_eq!(stored[..10], expected);
    for id in &expected {
        assert!(stored[10..].contains(id), "{id} was not stored again");
    }
    let check = sink.check(&[], false).await.unwrap();
    assert!(
        check.warnings[0].contains("more than 200 ms later is stored twice"),
        "{check:?}"
    );
}

/// Holds: an account whose storage is used up is waited for like a full JetStream stream: what was taken is confirmed,
/// the rest follows once there is room.
async fn an_account_out_of_storage(mode: Mode) {
    let with = |limit: &str| {
        format!(
            "accounts {{ A {{ jetstream {{ max_file: {limit} }}, users: [ {{ user: u, password: p }} ] }} }}\n\
             no_auth_user: u"
        )
    };
    let mut server = Nats::start_own_with(&with("100KB")).await.unwrap();
    server.create_jetstream("RTM", &["rtm.>"]).await.unwrap();
    let sink = sink(&server, "RTM", mode).await;
    let mut records = page(&Topic::from("rtm.a"), 200);
    for record in &mut records {
        record.payload = Bytes::from(vec![b' '; 2000]);
    }
    let (error, said) = failed(&sink, &records).await;
    assert_eq!(error.kind, PublishErrorKind::Unavailable, "{said}");
    // Of a batch the server stores what there is room for, and answers nothing. It is published again, and known.
    let (error, said) = match mode {
        Mode::Single => (error, said),
        Mode::Batches => {
            assert!(matches!(failure(&error), PublishFailure::Timeout(_)));
            assert!(error.outcomes.iter().all(|o| *o == Outcome::Unknown));
            failed(&sink, &records).await
        }
    };
    assert!(
        matches!(failure(&error), PublishFailure::Refused(_)),
        "{said}"
    );
    let confirmed = error.outcomes.iter().position(|o| *o == Outcome::Unknown);
    let confirmed = confirmed.unwrap();
    assert!((10..100).contains(&confirmed), "{confirmed}");
    assert_stored(&server, "RTM", &records[..confirmed]).await;

    server.kill().await.unwrap();
    server.restart_with(&with("10MB")).await.unwrap();
    assert_eq!(converge(&sink, &records[confirmed..]).await, []);
    assert_stored_by_key(&server, "RTM", &records).await;
    assert_eq!(sink.stats().out_of_order, 0);
}

/// Holds: a sealed JetStream stream holds the records for an alarm, and the check says so too.
async fn a_sealed_jetstream(mode: Mode) {
    let nats = brokers::nats().await;
    let name = own_jetstream(nats, Config::default()).await;
    let sink = sink(nats, &name, mode).await;
    let records = records(&topic(&name, "a"), 20);
    publish(&sink, &records[..10]).await.unwrap();
    let jetstream = nats.jetstream().await.unwrap();
    let sealed = Config {
        name: name.clone(),
        subjects: vec![format!("{name}.>")],
        sealed: true,
        ..Config::default()
    };
    jetstream.update_stream(sealed).await.unwrap();
    let (error, said) = failed(&sink, &records[10..]).await;
    assert_eq!(error.kind, PublishErrorKind::Misconfigured, "{said}");
    assert!(error.outcomes.iter().all(|o| *o == Outcome::Unknown));
    let check = sink.check(&[], false).await;
    assert!(
        matches!(
            check,
            Err(CheckError::Unusable {
                state: "sealed",
                ..
            })
        ),
        "{check:?}"
    );
    assert_stored(nats, &name, &records[..10]).await;
}

/// What a publisher saw of one call.
struct Seen {
    start: Instant,
    end: Instant,
    confirmed: Vec<RecordId>,
    missing: bool,
}

/// Publishes in small batches until all is confirmed, and tells of each call.
async fn publish_all(sink: Arc<NatsSink>, records: Vec<Record>, tell: mpsc::UnboundedSender<Seen>) {
    for batch in records.chunks(100) {
        let mut left = batch.to_vec();
        while !left.is_empty() {
            let start = Instant::now();
            let result = sink.publish(&left).await;
            let missing = result.as_ref().is_err_and(|error| {
                assert_ne!(error.kind, PublishErrorKind::Rejected, "{error:?}");
                matches!(failure(error), PublishFailure::Missing { .. })
            });
            let outcomes = match result {
                Ok(()) => vec![Outcome::Confirmed; left.len()],
                Err(error) => error.outcomes,
            };
            let (confirmed, unknown): (Vec<_>, Vec<_>) = left
                .into_iter()
                .zip(outcomes)
                .partition(|(_, outcome)| *outcome == Outcome::Confirmed);
            left = unknown.into_iter().map(|(record, _)| record).collect();
            tell.send(Seen {
                start,
                end: Instant::now(),
                confirmed: confirmed.iter().map(|(record, _)| record.id).collect(),
                missing,
            })
            .unwrap();
        }
    }
}

/// Holds: a JetStream stream that is deleted under load takes with it what it had confirmed; all else arrives in the
/// next one of its name, be it the operator's, until which the records are held for an alarm, or the sink's own.
async fn a_jetstream_deleted_under_load(mode: Mode) {
    let nats = brokers::nats().await;
    for by_itself in [false, true] {
        let name = own_jetstream(nats, Config::default()).await;
        let spec = StreamSpec::new(vec![format!("{name}.>")]);
        let options = NatsOptions {
            create_stream: by_itself.then_some(spec),
            ..options(nats, &name, mode)
        };
        let sink = Arc::new(NatsSink::connect(options).await.unwrap());
        let records = records(&topic(&name, "a"), 6000);
        let (tell, mut seen) = mpsc::unbounded_channel();
        let publishing = tokio::spawn(publish_all(Arc::clone(&sink), records.clone(), tell));
        let mut calls = Vec::new();
        while calls.len() < 10 {
            calls.push(timeout(SOON, seen.recv()).await.unwrap().unwrap());
        }
        let jetstream = nats.jetstream().await.unwrap();
        let before = Instant::now();
        jetstream.delete_stream(&name).await.unwrap();
        let after = Instant::now();
        if !by_itself {
            while !calls.last().unwrap().missing {
                calls.push(timeout(SOON, seen.recv()).await.unwrap().unwrap());
            }
            assert!(!sink.stats().up);
            nats.create_jetstream(&name, &[&format!("{name}.>")])
                .await
                .unwrap();
        }
        timeout(SOON, publishing).await.unwrap().unwrap();
        while let Some(call) = seen.recv().await {
            calls.push(call);
        }
        assert_eq!(calls.iter().any(|call| call.missing), !by_itself);

        let stored = nats.read_all(&name).await.unwrap();
        let ids: HashSet<String> = stored.iter().map(id_of).collect();
        assert_eq!(ids.len(), stored.len(), "each is stored once");
        for call in &calls {
            for id in &call.confirmed {
                let stored = ids.contains(&id.to_string());
                assert!(stored || call.start < after, "{id} is lost");
                assert!(!stored || call.end > before, "{id} was deleted");
            }
        }
        let confirmed: usize = calls.iter().map(|call| call.confirmed.len()).sum();
        assert_eq!(confirmed, records.len());
        assert_eq!(sink.stats().out_of_order, overtaking(&stored, &records));
    }
}

/// How many of the stored records stand before one of their key that was to come first.
fn overtaking(stored: &[NatsRecord], records: &[Record]) -> u64 {
    let place: HashMap<String, u64> = stored
        .iter()
        .map(|record| (id_of(record), record.sequence))
        .collect();
    let mut last: HashMap<Option<&Bytes>, u64> = HashMap::new();
    let mut count = 0;
    for record in records {
        let Some(place) = place.get(&record.id.to_string()) else {
            continue;
        };
        let last = last.entry(record.key.as_ref()).or_default();
        count += u64::from(place < last);
        *last = (*last).max(*place);
    }
    count
}

/// A JetStream stream that refuses what does not fit.
pub(super) async fn bounded(nats: &Nats, max_bytes: i64) -> (String, Config) {
    let config = Config {
        max_bytes,
        discard: DiscardPolicy::New,
        allow_atomic_publish: true,
        ..Config::default()
    };
    let name = own_jetstream(nats, config.clone()).await;
    let subjects = vec![format!("{name}.>")];
    let config = Config {
        name: name.clone(),
        subjects,
        ..config
    };
    (name, config)
}

pub(super) async fn widen_to(nats: &Nats, config: &Config, max_bytes: i64) {
    let jetstream = nats.jetstream().await.unwrap();
    let config = Config {
        max_bytes,
        ..config.clone()
    };
    jetstream.update_stream(config).await.unwrap();
}

/// Eight records of one key, save the sixth; the fourth is too large for what room there is.
pub(super) fn one_that_does_not_fit(topic: &Topic) -> Vec<Record> {
    let mut records = page(topic, 8);
    for record in &mut records {
        record.key = Some(Bytes::from_static(b"user"));
    }
    records[5].key = Some(Bytes::from_static(b"another"));
    records[3].payload = Bytes::from(vec![b' '; 100_000]);
    records
}

/// Holds: a record that is refused while others are in flight comes to stand behind them, and those of its key, and no
/// others, are counted.
#[tokio::test]
async fn a_refused_record_is_overtaken_by_those_in_flight() {
    let nats = brokers::nats().await;
    let (name, config) = bounded(nats, 50_000).await;
    let sink = sink(nats, &name, Mode::Single).await;
    let mut records = one_that_does_not_fit(&topic(&name, "a"));
    let (error, said) = failed(&sink, &records).await;
    assert_eq!(error.kind, PublishErrorKind::Unavailable, "{said}");
    for (index, outcome) in error.outcomes.iter().enumerate() {
        assert_eq!(*outcome == Outcome::Unknown, index == 3, "{index}");
    }
    assert_eq!(sink.stats().out_of_order, 3);

    widen_to(nats, &config, 1_000_000).await;
    publish(&sink, &records[3..4]).await.expect("it fits");
    let stored = nats.read_all(&name).await.unwrap();
    assert_eq!(overtaking(&stored, &records), 3);
    assert_eq!(sink.stats().out_of_order, 3);
    let last = records.remove(3);
    records.push(last);
    assert_stored(nats, &name, &records).await;
}

/// Holds: the same where the acknowledgements of those in flight were lost, so that it shows only when they are
/// published again.
#[tokio::test]
async fn a_refused_record_is_overtaken_by_those_without_an_answer() {
    let nats = brokers::nats().await;
    let (name, config) = bounded(nats, 50_000).await;
    let proxy = Proxy::start(nats.url()).await;
    let options = through(&proxy, nats, &name, Mode::Single);
    let sink = NatsSink::connect(options).await.unwrap();
    let records = one_that_does_not_fit(&topic(&name, "a"));
    proxy.lose_answers_after(4);
    let (error, said) = failed(&sink, &records).await;
    assert_eq!(error.kind, PublishErrorKind::Unavailable, "{said}");
    for (index, outcome) in error.outcomes.iter().enumerate() {
        assert_eq!(*outcome == Outcome::Unknown, index >= 3, "{index}");
    }
    assert_eq!(sink.stats().out_of_order, 0, "not known yet");

    proxy.lose_nothing();
    widen_to(nats, &config, 1_000_000).await;
    publish(&sink, &records[3..]).await.expect("it fits");
    let stored = nats.read_all(&name).await.unwrap();
    assert_eq!(overtaking(&stored, &records), 3);
    let stats = sink.stats();
    assert_eq!((stats.out_of_order, stats.duplicates), (3, 4));
}

/// Holds: through many partial failures nothing is lost or stored twice, and the records out of order are counted
/// exactly: with atomic batches there are none.
async fn partial_failures_are_counted_exactly(mode: Mode) {
    const ROOM: i64 = 100_000;
    let nats = brokers::nats().await;
    let (name, config) = bounded(nats, ROOM).await;
    let sink = sink(nats, &name, mode).await;
    let mut all = records(&topic(&name, "a"), 600);
    // Sizes from 0 to 8 kB that look random, so that small ones fit where large ones did not.
    for (n, record) in all.iter_mut().enumerate() {
        record.payload = Bytes::from(vec![b' '; n * 7919 % 8000]);
    }
    let mut failures = 0;
    for batch in all.chunks(200) {
        let mut left = batch.to_vec();
        while let Err(error) = publish(&sink, &left).await {
            assert_eq!(error.kind, PublishErrorKind::Unavailable, "{error:?}");
            let mut outcomes = error.outcomes.iter();
            left.retain(|_| *outcomes.next().unwrap() == Outcome::Unknown);
            failures += 1;
            widen_to(nats, &config, ROOM + failures * ROOM / 2).await;
        }
    }
    let stored = nats.read_all(&name).await.unwrap();
    assert_eq!(stored.len(), all.len());
    let overtaking = overtaking(&stored, &all);
    assert!(failures > 10, "{failures}");
    assert_eq!(overtaking > 0, mode == Mode::Single, "{overtaking}");
    assert_eq!(sink.stats().out_of_order, overtaking);
    assert_eq!(converge(&sink, &all).await, [], "all known");
    assert_eq!(sink.stats().out_of_order, overtaking);
}

both_modes! {
    a_full_jetstream_that_discards_what_is_old,
    an_account_out_of_storage,
    a_sealed_jetstream,
    a_jetstream_deleted_under_load,
    partial_failures_are_counted_exactly,
    a_duplicate_window_that_has_passed,
}

//! The NATS sink's atomic batches: what is in one, and every way in which one can fail.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::stream::{Config, DiscardPolicy};
use bytes::Bytes;
use futures::StreamExt;
use rtm_sink::conformance::converge;
use rtm_sink::{Outcome, PublishErrorKind, Record, Topic};
use rtm_sink_nats::{NatsOptions, NatsSink, PublishFailure, Published};
use rtm_tests::brokers::{self, Nats, NatsRecord};
use rtm_tests::wait_for;
use tokio::sync::Mutex;

use super::nats_proxy::Proxy;
use super::nats_sink::{
    Mode, SHORT, SOON, TOO_LARGE, assert_stored, assert_stored_by_key, failed, failure, id_of,
    options, own_jetstream, page, publish, sink, through, topic,
};
use super::nats_streams::{bounded, one_that_does_not_fit, widen_to};

fn header(stored: &NatsRecord, name: &str) -> Option<String> {
    let found = stored.headers.iter().find(|(known, _)| known == name);
    found.map(|(_, value)| value.clone())
}

/// How many stored records came in each batch; those that came in none are not counted.
async fn batches(nats: &Nats, jetstream: &str) -> HashMap<String, Vec<NatsRecord>> {
    let mut batches: HashMap<String, Vec<NatsRecord>> = HashMap::new();
    for stored in nats.read_all(jetstream).await.unwrap() {
        if let Some(batch) = header(&stored, "Nats-Batch-Id") {
            batches.entry(batch).or_default().push(stored);
        }
    }
    batches
}

/// A sink behind a proxy, on a JetStream stream of its own.
async fn behind_proxy() -> (&'static Nats, String, Proxy, NatsSink) {
    let nats = brokers::nats().await;
    let name = own_jetstream(nats, Config::default()).await;
    let proxy = Proxy::start(nats.url()).await;
    let options = through(&proxy, nats, &name, Mode::Batches);
    let sink = NatsSink::connect(options).await.unwrap();
    (nats, name, proxy, sink)
}

/// Holds: each journal entry is a batch of its own, of up to a thousand records, with one acknowledgement; small entries
/// are published singly, unless they have few keys; each key is stored in order.
#[tokio::test]
async fn a_page_is_a_batch() {
    let (nats, name, proxy, sink) = behind_proxy().await;
    let topic = topic(&name, "a");
    // The fifth of them has seven keys.
    let counts = [300, 8, 3, 1000, 100, 1001];
    let pages: Vec<Vec<Record>> = counts.iter().map(|count| page(&topic, *count)).collect();
    // Four batches, and twelve records.
    proxy.lose_answers_after(16);
    publish(&sink, &pages.concat()).await.expect("confirmed");
    assert_eq!(proxy.lost(), 0);
    assert_stored_by_key(nats, &name, &pages.concat()).await;
    let mut sizes = Vec::new();
    for batch in batches(nats, &name).await.values() {
        let entry = |record: &NatsRecord| id_of(record).rsplit_once('.').unwrap().0.to_owned();
        assert!(batch.iter().all(|record| entry(record) == entry(&batch[0])));
        sizes.push(batch.len());
    }
    sizes.sort_unstable();
    assert_eq!(sizes, [100, 300, 1000, 1000]);
    let stats = sink.stats();
    assert_eq!((stats.confirmed, stats.duplicates), (2412, 0));
    assert_eq!(
        sink.check(&[], false).await.unwrap().published,
        Published::Batches
    );
}

/// Holds: where the acknowledgement of a batch is lost, alone or with the connection, nothing of it counts as confirmed;
/// published again it is known, stored once and in order.
#[tokio::test]
async fn a_lost_acknowledgement() {
    let (nats, name, proxy, sink) = behind_proxy().await;
    let topic = topic(&name, "a");
    let (first, second) = (page(&topic, 200), page(&topic, 100));
    let both = [first.clone(), second.clone()].concat();

    proxy.lose_answers_after(1);
    let (error, said) = failed(&sink, &both).await;
    assert_eq!(error.kind, PublishErrorKind::Unavailable, "{said}");
    assert!(
        matches!(failure(&error), PublishFailure::Timeout(_)),
        "{said}"
    );
    assert!(
        error.outcomes[..200]
            .iter()
            .all(|o| *o == Outcome::Confirmed)
    );
    assert!(error.outcomes[200..].iter().all(|o| *o == Outcome::Unknown));
    // It is all there, and still not known to be.
    assert_stored(nats, &name, &both).await;
    proxy.lose_nothing();
    publish(&sink, &second).await.expect("known");
    assert_eq!(sink.stats().duplicates, 100);

    let third = page(&topic, 500);
    proxy.lose_answers_after(0);
    let lost = proxy.lost();
    let ((error, said), ()) = tokio::join!(failed(&sink, &third), async {
        let lost = async || proxy.lost() > lost;
        wait_for("the answer to be lost", SOON, lost).await.unwrap();
        proxy.cut();
    });
    assert!(
        matches!(failure(&error), PublishFailure::Disconnected { .. }),
        "{said}"
    );
    assert!(error.outcomes.iter().all(|o| *o == Outcome::Unknown));
    proxy.lose_nothing();
    assert_eq!(converge(&sink, &third).await, []);
    assert_stored(nats, &name, &[both, third].concat()).await;
    assert_eq!(sink.stats().out_of_order, 0);
}

/// Holds: a batch of which the server knows some records already is stored for the rest, and for the rest only: a
/// refusal says nothing of the others.
#[tokio::test]
async fn known_records_in_a_batch() {
    let nats = brokers::nats().await;
    let name = own_jetstream(nats, Config::default()).await;
    let sink = sink(nats, &name, Mode::Batches).await;
    let page = page(&topic(&name, "a"), 100);
    // What a bridge had published when it ended, of another version, without batches.
    publish(&sink, &page[..5]).await.unwrap();
    publish(&sink, &page).await.expect("confirmed");
    assert_stored_by_key(nats, &name, &page).await;
    let stats = sink.stats();
    assert_eq!((stats.confirmed, stats.duplicates), (105, 5));
    assert_eq!(stats.out_of_order, 0);
}

/// Holds: of a batch that is refused for what one record is, only that one is rejected, wherever it stands, and the others
/// are confirmed in the same call and in order.
#[tokio::test]
async fn a_culprit_is_rejected_alone() {
    let nats = brokers::nats().await;
    let config = Config {
        max_message_size: 10_000,
        ..Config::default()
    };
    let name = own_jetstream(nats, config).await;
    let sink = sink(nats, &name, Mode::Batches).await;
    let mut kept = Vec::new();
    for culprit in [0, 50, 99] {
        let mut page = page(&topic(&name, "a"), 100);
        page[culprit].payload = Bytes::from(vec![b' '; TOO_LARGE]);
        let (error, said) = failed(&sink, &page).await;
        assert_eq!(error.kind, PublishErrorKind::Rejected, "{said}");
        for (index, outcome) in error.outcomes.iter().enumerate() {
            if index == culprit {
                assert!(
                    matches!(outcome, Outcome::Rejected(reason) if reason.code == "too_large"),
                    "{outcome:?}"
                );
            } else {
                assert_eq!(*outcome, Outcome::Confirmed, "{index}");
            }
        }
        page.remove(culprit);
        kept.extend(page);
    }
    assert_stored_by_key(nats, &name, &kept).await;
    assert_eq!(sink.stats().out_of_order, 0);
}

/// Holds: a record that is refused for want of room is not overtaken by those of its key, in contrast to records that
/// are published without batches.
#[tokio::test]
async fn a_refused_record_is_not_overtaken() {
    let nats = brokers::nats().await;
    let (name, config) = bounded(nats, 50_000).await;
    let sink = sink(nats, &name, Mode::Batches).await;
    let records = one_that_does_not_fit(&topic(&name, "a"));
    let (error, said) = failed(&sink, &records).await;
    assert_eq!(error.kind, PublishErrorKind::Unavailable, "{said}");
    for (index, outcome) in error.outcomes.iter().enumerate() {
        // The sixth has a key of its own.
        let confirmed = index < 3 || index == 5;
        assert_eq!(*outcome == Outcome::Confirmed, confirmed, "{index}");
    }
    widen_to(nats, &config, 1_000_000).await;
    let mut left = error.outcomes.iter();
    let mut left_over = records.clone();
    left_over.retain(|_| *left.next().unwrap() == Outcome::Unknown);
    publish(&sink, &left_over).await.expect("it fits");
    assert_stored_by_key(nats, &name, &records).await;
    assert_eq!(sink.stats().out_of_order, 0);
}

/// Holds: a JetStream stream that takes no batches any more, or did not from the start, is published to singly, without a
/// call that fails; one that takes them again is seen within seconds, on the same connection.
#[tokio::test]
async fn batches_switched_off_and_on() {
    let (nats, name, _proxy, sink) = behind_proxy().await;
    let topic = topic(&name, "a");
    let jetstream = nats.jetstream().await.unwrap();
    let allow = async |allow: bool| {
        let config = Config {
            name: name.clone(),
            subjects: vec![format!("{name}.>")],
            allow_atomic_publish: allow,
            ..Config::default()
        };
        jetstream.update_stream(config).await.unwrap();
    };
    let pages: Vec<Vec<Record>> = (0..2).map(|_| page(&topic, 100)).collect();
    publish(&sink, &pages[0]).await.expect("in a batch");
    allow(false).await;
    publish(&sink, &pages[1]).await.expect("singly");
    assert_eq!(
        sink.check(&[], false).await.unwrap().published,
        Published::SinglyByJetstream
    );
    allow(true).await;
    let mut pages = pages[..2].to_vec();
    let again = async || {
        let page = page(&topic, 100);
        publish(&sink, &page).await.expect("confirmed");
        pages.push(page);
        batches(nats, &name).await.len() == 2
    };
    wait_for("another batch", SOON, again).await.unwrap();
    assert_eq!(sink.stats().reconnects, 0);
    assert_stored(nats, &name, &pages.concat()).await;
    let batches = batches(nats, &name).await;
    assert!(batches.values().all(|batch| batch.len() == 100));
}

/// Holds: a server that takes no further batch, because too many were begun and left, is published to singly.
#[tokio::test]
async fn too_many_batches_in_flight() {
    let nats = brokers::nats().await;
    let name = own_jetstream(nats, Config::default()).await;
    let sink = sink(nats, &name, Mode::Batches).await;
    let client = async_nats::connect(nats.url()).await.unwrap();
    // The server forgets what was left after 10 s, by which a busy one may not have come to our page.
    let mut taken = 0;
    let mut pages = Vec::new();
    for attempt in 0..10 {
        for other in 0..60 {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Batch-Id", format!("left-{attempt}-{other}"));
            headers.insert("Nats-Batch-Sequence", "1");
            let subject = format!("{name}.other");
            client
                .publish_with_headers(subject, headers, Bytes::new())
                .await
                .unwrap();
        }
        client.flush().await.unwrap();
        let page = page(&topic(&name, "a"), 100);
        publish(&sink, &page).await.expect("singly");
        pages.extend(page);
        let stored = batches(nats, &name).await.len();
        if stored == taken {
            return assert_stored_by_key(nats, &name, &pages).await;
        }
        taken = stored;
    }
    panic!("the server took every batch");
}

/// Holds: what became of a batch is told by nothing but its own acknowledgement: not by that of a record, which is what a
/// server without batches sends, nor by that of another batch; and a server's smaller limit is kept to.
#[tokio::test]
async fn only_its_own_acknowledgement_confirms_a_batch() {
    let nats = brokers::nats().await;
    let name = brokers::unique("imitated");
    let client = async_nats::connect(nats.url()).await.unwrap();
    let mut requests = client.subscribe(format!("{name}.>")).await.unwrap();
    client.flush().await.unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let answering = tokio::spawn({
        let (name, seen) = (name.clone(), Arc::clone(&seen));
        async move {
            while let Some(request) = requests.next().await {
                let get = |header: &str| {
                    let value = request.headers.as_ref()?.get(header)?;
                    Some(value.as_str().to_owned())
                };
                let sequence = get("Nats-Batch-Sequence").map(|text| text.parse().unwrap());
                seen.lock()
                    .await
                    .push((get("Nats-Msg-Id").unwrap(), sequence));
                let Some(reply) = request.reply.clone() else {
                    continue;
                };
                let answer = |text: String| client.publish(reply.clone(), text.into());
                match sequence {
                    Some(100_u32) => {
                        let error = "atomic publish batch is too large: 50";
                        let error = format!(
                            r#"{{"error":{{"code":400,"err_code":10199,"description":"{error}"}}}}"#
                        );
                        answer(error).await.unwrap();
                    }
                    Some(50) => {
                        let of_another =
                            format!(r#"{{"stream":"{name}","seq":9,"batch":"x","count":50}}"#);
                        answer(of_another).await.unwrap();
                        let batch = get("Nats-Batch-Id").unwrap();
                        let in_part = format!(
                            r#"{{"stream":"{name}","seq":9,"batch":"{batch}","count":49}}"#
                        );
                        answer(in_part).await.unwrap();
                        answer(format!(r#"{{"stream":"{name}","seq":9}}"#))
                            .await
                            .unwrap();
                    }
                    None => answer(format!(r#"{{"stream":"{name}","seq":7}}"#))
                        .await
                        .unwrap(),
                    Some(_) => (),
                }
            }
        }
    });
    let sink = sink(nats, &name, Mode::Batches).await;
    let page = page(&topic(&name, "a"), 100);
    publish(&sink, &page).await.expect("singly, in the end");
    let seen = seen.lock().await;
    let ids: Vec<String> = page.iter().map(|record| record.id.to_string()).collect();
    let sequences: Vec<_> = seen.iter().map(|(_, sequence)| *sequence).collect();
    let counted = |to: u32| (1..=to).map(Some);
    let expected: Vec<_> = counted(100).chain(counted(50)).chain([None; 100]).collect();
    assert_eq!(sequences, expected);
    let singly: Vec<_> = seen[150..].iter().map(|(id, _)| id.clone()).collect();
    assert_eq!(singly, ids);
    answering.abort();
}

/// Holds: a page on a slow line is not taken for a server that is away.
#[tokio::test]
async fn a_large_page_on_a_slow_line() {
    let (nats, name, proxy, sink) = behind_proxy().await;
    let mut page = page(&topic(&name, "a"), 1000);
    for record in &mut page {
        record.payload = Bytes::from(vec![b' '; 2000]);
    }
    proxy.set_rate(10_000);
    let start = std::time::Instant::now();
    publish(&sink, &page).await.expect("slowly");
    assert!(start.elapsed() > 2 * SHORT, "{:?}", start.elapsed());
    assert_stored(nats, &name, &page).await;
    assert_eq!(batches(nats, &name).await.len(), 1);
}

/// Holds: a full JetStream stream holds the rest of a page, and what it took of it is confirmed.
#[tokio::test]
async fn a_page_that_only_half_fits() {
    let nats = brokers::nats().await;
    let config = Config {
        max_messages: 150,
        discard: DiscardPolicy::New,
        ..Config::default()
    };
    let name = own_jetstream(nats, config).await;
    let sink = sink(nats, &name, Mode::Batches).await;
    let topic = topic(&name, "a");
    let (first, second) = (page(&topic, 100), page(&topic, 100));
    let (error, said) = failed(&sink, &[first, second.clone()].concat()).await;
    assert_eq!(error.kind, PublishErrorKind::Unavailable, "{said}");
    let confirmed = error.outcomes.iter().filter(|o| **o == Outcome::Confirmed);
    assert_eq!(confirmed.count(), 150);
    let jetstream = nats.jetstream().await.unwrap();
    let stream = jetstream.get_stream(&name).await.unwrap();
    stream.purge().await.unwrap();
    let mut outcomes = error.outcomes[100..].iter();
    let mut left = second;
    left.retain(|_| *outcomes.next().unwrap() == Outcome::Unknown);
    publish(&sink, &left).await.expect("there is room");
    assert_stored(nats, &name, &left).await;
}

/// Holds: with three copies, whoever leads, each record is stored once and each key in its order, while the leader
/// changes in the middle of batches; nothing is rejected.
#[tokio::test]
async fn order_survives_changes_of_the_leader() {
    const CHANGES: usize = 6;
    let servers = Nats::start_cluster().await.unwrap();
    let config = Config {
        name: "RTM".to_owned(),
        subjects: vec!["rtm.>".to_owned()],
        num_replicas: 3,
        allow_atomic_publish: true,
        ..Config::default()
    };
    let made = async || {
        let jetstream = servers[0].jetstream().await.unwrap();
        jetstream.create_stream(config.clone()).await.is_ok()
    };
    wait_for("the cluster to agree", SOON, made).await.unwrap();
    let options = NatsOptions {
        ack_timeout: Duration::from_secs(2),
        ..options(&servers[0], "RTM", Mode::Batches)
    };
    let sink = Arc::new(NatsSink::connect(options).await.unwrap());
    let topic = Topic::from("rtm.a");
    let pages: Vec<Vec<Record>> = (0..300).map(|_| page(&topic, 100)).collect();
    let publishing = tokio::spawn({
        let (sink, pages) = (Arc::clone(&sink), pages.clone());
        async move {
            for pages in pages.chunks(3) {
                assert_eq!(converge(&*sink, &pages.concat()).await, []);
            }
        }
    });
    let client = async_nats::connect(servers[1].url()).await.unwrap();
    for _ in 0..CHANGES {
        let goal = sink.stats().confirmed + 2000;
        let reached = async || publishing.is_finished() || sink.stats().confirmed >= goal;
        wait_for("some records", 2 * SOON, reached).await.unwrap();
        // Refused while there is no leader, or no other to be one.
        let _ = client
            .request("$JS.API.STREAM.LEADER.STEPDOWN.RTM", Bytes::new())
            .await;
    }
    tokio::time::timeout(3 * SOON, publishing)
        .await
        .expect("ends")
        .unwrap();
    // The last change may have come after the last record.
    let has_leader = async || {
        let jetstream = servers[0].jetstream().await.unwrap();
        jetstream.get_stream("RTM").await.is_ok()
    };
    wait_for("a leader", SOON, has_leader).await.unwrap();
    assert_stored_by_key(&servers[0], "RTM", &pages.concat()).await;
    assert_eq!(sink.stats().out_of_order, 0);
}

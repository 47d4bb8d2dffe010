//! The Kafka sink through faults of a real broker: after each, nothing is lost and the order of each key holds.
#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use rtm_sink::conformance::{PATIENCE, Stored, assert_in_order, converge, records};
use rtm_sink::{Outcome, PublishErrorKind, Record, Sink, Timestamp, Topic};
use rtm_sink_kafka::{KafkaOptions, KafkaSink, TopicSpec};
use rtm_tests::brokers::{self, unique};
use rtm_tests::wait_for;
use tokio::time::{Instant, sleep, timeout};

use super::kafka_sink::{HASTY, options, read, too_large, with};

/// How long a broker is paused: longer than any timeout that would end a call too early.
const PAUSE: Duration = Duration::from_secs(3);

/// What a thread may spend while it waits for [`PAUSE`]: it looks up some 50 times a second.
const IDLE: Duration = Duration::from_millis(500);

/// Holds: a call larger than librdkafka's queue, in records or in bytes, waits for room while the broker is paused, without
/// ending, without spinning, and without losing or reordering anything. So does one whose requests time out meanwhile and
/// are sent again: the broker gets both, and stores one.
#[tokio::test]
async fn a_full_queue_waits_for_a_paused_broker() {
    let mut broker = brokers::mortal_kafka().await;
    let kafka = broker.kafka_mut();
    let limits = [
        ("queue.buffering.max.messages", "100"),
        ("queue.buffering.max.kbytes", "16"),
        ("socket.timeout.ms", "1000"),
    ];
    let mut sinks = Vec::new();
    for limit in limits {
        let topic = Topic::from(unique("full"));
        kafka.create_topic(topic.as_str(), 3, &[]).await.unwrap();
        let sink = KafkaSink::new(with(options(kafka), &[limit])).unwrap();
        sink.publish(&records(&topic, 1)).await.unwrap();
        let batch = records(&topic, 3000);
        sinks.push((sink, topic, batch));
    }
    kafka.pause().await.unwrap();
    let pausing = async {
        for (sink, ..) in &sinks {
            wait_for("a full queue", PATIENCE, async || sink.stats().queued > 50)
                .await
                .unwrap();
        }
        let spent = thread_time();
        sleep(PAUSE).await;
        let spent = thread_time() - spent;
        assert!(spent < IDLE, "{spent:?} of computing while nothing moves");
        for (sink, ..) in &sinks {
            assert_eq!(sink.stats().confirmed, 1, "of a paused broker");
        }
        kafka.resume().await.unwrap();
    };
    let publishing = sinks
        .iter()
        .map(|(sink, _, batch)| timeout(PATIENCE, sink.publish(batch)));
    let (published, ()) = tokio::join!(join_all(publishing), pausing);
    for published in published {
        published.unwrap().unwrap();
    }
    for (sink, topic, batch) in &sinks {
        let stored = read(kafka, topic).await;
        assert_eq!(stored.len(), 3001, "each once");
        assert_in_order(&stored, batch);
        assert_eq!(sink.stats().rebuilds, 0);
    }
}

/// What this thread has computed so far; the test runs on it, and so does publishing.
fn thread_time() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanoseconds = text.split_whitespace().next().unwrap().parse().unwrap();
    Duration::from_nanos(nanoseconds)
}

/// Holds: what only the broker can refuse, for each of its reasons, is rejected by itself and with the reason; its
/// neighbours are stored in order.
#[tokio::test]
async fn the_broker_refuses_records_with_a_reason() {
    let kafka = brokers::secure_kafka().await.kafka();
    let topic = Topic::from(unique("refusing"));
    // Compacted topics take no records without a key. The limit on bytes is the broker's own.
    let settings = [
        ("cleanup.policy", "compact"),
        ("message.timestamp.after.max.ms", "3600000"),
    ];
    kafka
        .create_topic(topic.as_str(), 1, &settings)
        .await
        .unwrap();
    let sink = KafkaSink::new(options(kafka)).unwrap();
    let mut batch = records(&topic, 300);
    batch[50] = too_large(&topic);
    batch[150].key = None;
    batch[250].timestamp = Timestamp(batch[250].timestamp.0 + 86_400_000);
    let error = timeout(PATIENCE, sink.publish(&batch))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.kind, PublishErrorKind::Rejected, "{error:?}");
    let mut rejected = Vec::new();
    for (n, outcome) in error.outcomes.iter().enumerate() {
        match outcome {
            Outcome::Rejected(reason) => rejected.push((n, reason.code)),
            outcome => assert_eq!(*outcome, Outcome::Confirmed, "record {n}"),
        }
    }
    assert_eq!(
        rejected,
        [(50, "too_large"), (150, "invalid"), (250, "timestamp")]
    );
    for (n, _) in rejected.into_iter().rev() {
        batch.remove(n);
    }
    assert_in_order(&read(kafka, &topic).await, &batch);
}

/// Holds: a topic deleted while it is published to holds the call as misconfigured and condemns no record; once it is
/// there again, publishing goes on in order with the first record that was not confirmed.
#[tokio::test]
async fn a_deleted_topic_is_told_and_goes_on() {
    let kafka = brokers::secure_kafka().await.kafka();
    let topic = Topic::from(unique("deleted"));
    kafka.create_topic(topic.as_str(), 3, &[]).await.unwrap();
    let sink = KafkaSink::new(with(options(kafka), &HASTY)).unwrap();
    for _ in 0..10 {
        sink.publish(&records(&topic, 100)).await.unwrap();
    }
    kafka.delete_topic(topic.as_str()).await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    // A broker may confirm a little more before it forgets the topic.
    let held = loop {
        let batch = records(&topic, 100);
        if let Err(error) = sink.publish(&batch).await {
            assert_eq!(error.kind, PublishErrorKind::Misconfigured, "{error:?}");
            let rejected = |o: &Outcome| matches!(o, Outcome::Rejected(_));
            assert!(!error.outcomes.iter().any(rejected), "{error:?}");
            break batch;
        }
        assert!(Instant::now() < deadline, "nobody misses the topic");
    };
    assert!(!sink.stats().up);
    kafka.create_topic(topic.as_str(), 3, &[]).await.unwrap();
    let mut published = held.clone();
    assert_eq!(converge(&sink, &held).await, []);
    for _ in 0..10 {
        let batch = records(&topic, 100);
        assert_eq!(converge(&sink, &batch).await, []);
        published.extend(batch);
    }
    assert_in_order(&read(kafka, &topic).await, &published);
    assert!(sink.stats().up);
}

/// Holds: a sink that creates topics creates one again that was deleted.
#[tokio::test]
async fn a_deleted_topic_is_created_again() {
    let kafka = brokers::secure_kafka().await.kafka();
    let topic = Topic::from(unique("created"));
    let spec = TopicSpec {
        partitions: 3,
        replication: 1,
    };
    let sink = KafkaSink::new(KafkaOptions {
        create_topics: Some(spec),
        ..with(options(kafka), &HASTY)
    })
    .unwrap();
    sink.publish(&records(&topic, 100)).await.unwrap();
    kafka.delete_topic(topic.as_str()).await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    let held = loop {
        let batch = records(&topic, 100);
        if sink.publish(&batch).await.is_err() {
            break batch;
        }
        assert!(Instant::now() < deadline, "nobody misses the topic");
    };
    assert_eq!(converge(&sink, &held).await, []);
    assert_in_order(&read(kafka, &topic).await, &held);
}

/// Holds: a topic deleted and recreated at once, with batches in flight, costs the records of the old topic only; those of
/// the new one are in order, and later ones are all there.
#[tokio::test]
async fn a_recreated_topic_is_in_order() {
    let kafka = brokers::kafka().await;
    let topic = Topic::from(unique("recreated"));
    kafka.create_topic(topic.as_str(), 1, &[]).await.unwrap();
    let small = [("batch.num.messages", "20"), HASTY[0]];
    let sink = KafkaSink::new(with(options(kafka), &small)).unwrap();
    let mut published: Vec<Record> = Vec::new();
    let replacing = async {
        wait_for("some records", PATIENCE, async || {
            sink.stats().confirmed > 1000
        })
        .await
        .unwrap();
        kafka.delete_topic(topic.as_str()).await.unwrap();
        // The broker creates topics by itself, so that it may be there already.
        let _ = kafka.create_topic(topic.as_str(), 1, &[]).await;
        wait_for("records in the new topic", PATIENCE, async || {
            kafka
                .read_all(topic.as_str())
                .await
                .is_ok_and(|stored| !stored.is_empty())
        })
        .await
        .unwrap();
    };
    let mut replacing = std::pin::pin!(replacing);
    let mut later = 0;
    let mut replaced = false;
    while later < 20 {
        let batch = records(&topic, 200);
        tokio::select! {
            rejected = converge(&sink, &batch) => assert_eq!(rejected, []),
            () = &mut replacing, if !replaced => {
                replaced = true;
                // The call was dropped: it counts as any.
                assert_eq!(converge(&sink, &batch).await, []);
            }
        }
        later += usize::from(replaced);
        published.extend(batch);
    }
    let stored = read(kafka, &topic).await;
    let there: HashSet<&Bytes> = stored.iter().map(|stored| &stored.payload).collect();
    let (old, new) = published.split_at(published.len() - 20 * 200);
    let kept = old.iter().filter(|record| there.contains(&record.payload));
    let kept: Vec<Record> = kept.chain(new).cloned().collect();
    assert_in_order(&stored, &kept);
}

/// Holds: a broker that has lost the end of its log makes the producer's state worthless, which is fatal to it; it is
/// rebuilt, that is counted, and publishing goes on in order, without an error.
#[tokio::test]
async fn a_fatal_error_rebuilds_the_producer() {
    let mut broker = brokers::mortal_kafka().await;
    let kafka = broker.kafka_mut();
    let topic = Topic::from(unique("fatal"));
    kafka.create_topic(topic.as_str(), 1, &[]).await.unwrap();
    let sink = KafkaSink::new(options(kafka)).unwrap();
    for _ in 0..10 {
        sink.publish(&records(&topic, 100)).await.unwrap();
    }
    kafka.kill().await.unwrap();
    kafka.lose_from(topic.as_str(), 0, 500).unwrap();
    kafka.restart().await.unwrap();
    assert_eq!(sink.stats().rebuilds, 0);
    let mut published = Vec::new();
    for _ in 0..10 {
        let batch = records(&topic, 100);
        timeout(PATIENCE, sink.publish(&batch))
            .await
            .unwrap()
            .unwrap();
        published.extend(batch);
    }
    let stats = sink.stats();
    assert_eq!((stats.rebuilds, stats.up), (1, true), "{stats:?}");
    let stored: Vec<Stored> = read(kafka, &topic).await;
    assert_eq!(stored.len(), 500 + 1000);
    assert_in_order(&stored, &published);
}

//! Kafka's limits on sizes, which are on whole batches.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use rtm_sim::Simulator;
use rtm_sink::conformance::{PATIENCE, assert_in_order, converge, record};
use rtm_sink::{Record, Topic};
use rtm_sink_kafka::KafkaSink;
use rtm_tests::bridge::Bridge;
use rtm_tests::brokers::{self, Door, SecureKafka, unique};
use rtm_tests::wait_for;

use super::kafka_access::{by, user, write};
use super::kafka_sink::{options, read};
use super::simulated;

/// What a topic takes in a batch: two or three of the small records below.
const LIMIT: &str = "650";

/// A record that does not get smaller by compression.
fn noisy(topic: &Topic, n: u64, bytes: usize) -> Record {
    let mut state = n;
    let noise = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        format!("{:08x}", state >> 32)
    });
    let noise: String = noise.take(bytes / 8).collect();
    let small = record(topic, n);
    let payload = format!(r#"{{"id":"{}","noise":"{noise}"}}"#, small.id);
    Record {
        payload: payload.into(),
        ..small
    }
}

/// Holds: a topic with a small limit costs a producer once where the user may ask for the limit, and some where it is
/// learned. Records that are over it by themselves are refused without one, and all others are stored in order.
#[tokio::test(flavor = "multi_thread")]
async fn a_small_limit_costs_few_producers() {
    let broker = brokers::secure_kafka().await;
    let kafka = broker.kafka();
    let told = KafkaSink::new(options(kafka)).unwrap();
    let limited = by(broker, Door::Sasl, "ca.pem");
    let limited = user(limited, "PLAIN", "limited", SecureKafka::PASSWORD);
    let learned = KafkaSink::new(limited).unwrap();
    for (sink, most, more) in [(told, 1, 0), (learned, 20, 1)] {
        let topic = Topic::from(unique("small"));
        let settings = [("max.message.bytes", LIMIT)];
        kafka
            .create_topic(topic.as_str(), 1, &settings)
            .await
            .unwrap();
        kafka.grant(write("limited", &topic)).await.unwrap();
        let is_large = |n: u64| n % 50 == 20;
        let size = |n: u64| match is_large(n) {
            true => 900,
            false => 80 + n % 25 * 8,
        };
        let batch: Vec<Record> = (0..600)
            .map(|n| noisy(&topic, n, usize::try_from(size(n)).unwrap()))
            .collect();
        let (first, second) = batch.split_at(300);
        // Where the last of these ends a producer, the next call makes another.
        let (first, one) = first.split_at(299);
        let mut refused = converge(&sink, first).await;
        refused.extend(converge(&sink, one).await);
        let rebuilds = sink.stats().rebuilds;
        assert!((1..=most).contains(&rebuilds), "{:?}", sink.stats());
        refused.extend(converge(&sink, second).await);
        // What is learned may be over the limit by less than a record, which only some batches show: half of it is below.
        let after = sink.stats().rebuilds;
        assert!((rebuilds..=rebuilds + more).contains(&after), "{after}");
        let (large, fits): (Vec<_>, Vec<_>) = (0..).zip(batch).partition(|(n, _)| is_large(*n));
        let large: Vec<_> = large.into_iter().map(|(_, record)| record.id).collect();
        assert_eq!(refused, large);
        let fits: Vec<Record> = fits.into_iter().map(|(_, record)| record).collect();
        assert_in_order(&read(kafka, &topic).await, &fits);
    }
}

/// A bridge whose events and dead letters go to one topic that takes so many bytes in a batch.
async fn bridge(dir: &Path, limit: &str) -> (Bridge, Simulator) {
    let kafka = brokers::kafka().await;
    let topic = unique("tiny");
    let settings = [("max.message.bytes", limit)];
    kafka.create_topic(&topic, 1, &settings).await.unwrap();
    let address = kafka.address();
    let sinks = format!(
        "[sinks.kafka]\nbrokers = [\"{address}\"]\ntopic = \"{topic}\"\ndead_letter_topic = \"{topic}\"\n"
    );
    simulated::bridge(dir, 400.0, &sinks).await
}

/// Holds: a bridge whose events are larger than their topic takes, and whose dead letters go there as well, gets on:
/// it stays ready, keeps up and makes one producer anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_keeps_up_with_a_small_limit() {
    let dir = tempfile::tempdir().unwrap();
    let (mut bridge, _simulator) = bridge(dir.path(), "450").await;
    let sum = async |name: &str| {
        let metrics = bridge.metrics().await.ok()?;
        metrics.sum(name, &[("sink", "kafka")]).ok()
    };
    wait_for("dead letters", PATIENCE, async || {
        let dead = sum("rtm_bridge_records_dead_lettered_total").await;
        dead.is_some_and(|dead| dead > 1000.0)
    })
    .await
    .unwrap();
    bridge.ready().await.unwrap().unwrap();
    let age = sum("rtm_bridge_journal_oldest_pending_age_seconds").await;
    assert!(age.unwrap() < 10.0, "{age:?}");
    let rebuilds = sum("rtm_bridge_producer_rebuilds_total").await;
    assert_eq!(rebuilds, Some(1.0));
    let said = bridge.process.output().unwrap();
    for line in ["goes to the dead letters", "is cut until it fits", "ERROR"] {
        let times = said.matches(line).count();
        assert!(times <= 1, "{times} times: {line}");
    }
    assert!(bridge.process.terminate(PATIENCE).await.unwrap().success());
}

/// Holds: where a topic takes not even a dead letter without bytes, readiness says so, with the limit.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_below_any_record_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (mut bridge, _simulator) = bridge(dir.path(), "200").await;
    wait_for("the limit in /readyz", PATIENCE, async || {
        let ready = bridge.ready().await;
        ready.is_ok_and(|ready| {
            ready.is_err_and(|said| said.contains("takes batches of up to 200 bytes"))
        })
    })
    .await
    .unwrap();
    assert!(bridge.process.terminate(PATIENCE).await.unwrap().success());
}

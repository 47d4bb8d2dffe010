//! The Kafka sink against a real broker: the conformance suite, and what only Kafka does.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use rtm_sink::conformance::{self, Carries, PATIENCE, Rig, Stored, converge, record, records};
use rtm_sink::{Outcome, PublishErrorKind, Record, Sink, Timestamp, Topic};
use rtm_sink_kafka::{ExactOptions, KafkaOptions, KafkaSink, TopicSpec, TopicState};
use rtm_tests::brokers::{self, Kafka, KafkaRecord, SecureKafka, unique};
use tokio::sync::{Mutex, MutexGuard, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// 30 s is how long librdkafka waits for a topic that may just have been created.
pub(super) const HASTY: [(&str, &str); 1] = [("topic.metadata.propagation.max.ms", "500")];

/// Compressed bytes that a batch may have in the suite's topics.
const LIMIT: &str = "65536";

pub(super) fn options(kafka: &Kafka) -> KafkaOptions {
    KafkaOptions::new(vec![kafka.address().to_owned()])
}

pub(super) fn with(mut options: KafkaOptions, over: &[(&str, &str)]) -> KafkaOptions {
    let over = over
        .iter()
        .map(|&(name, value)| (name.to_owned(), value.to_owned()));
    options.options.extend(over);
    options
}

/// More than [`LIMIT`] even when compressed, and less than librdkafka's own limit: only the broker can refuse it.
pub(super) fn too_large(topic: &Topic) -> Record {
    let mut state = 1_u64;
    let noise = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        format!("{:08x}", state >> 32)
    });
    let small = record(topic, 0);
    let noise: String = noise.take(30_000).collect();
    let payload = format!(r#"{{"id":"{}","noise":"{noise}"}}"#, small.id);
    Record {
        payload: payload.into(),
        ..small
    }
}

fn stored(record: KafkaRecord) -> Stored {
    let headers = record
        .headers
        .into_iter()
        .map(|(name, value)| (name.into(), value));
    Stored {
        id: None,
        key: Some(record.key.unwrap_or_default()),
        timestamp: Some(Timestamp(record.timestamp)),
        headers: Some(headers.collect()),
        payload: record.payload,
    }
}

/// What a topic holds.
pub(super) async fn read(kafka: &Kafka, topic: &Topic) -> Vec<Stored> {
    let records = kafka.read_all(topic.as_str()).await.unwrap();
    records.into_iter().map(stored).collect()
}

/// A broker that is paused when it is to be away.
struct KafkaRig {
    kafka: Mutex<MutexGuard<'static, SecureKafka>>,
    /// The topic of its progress.
    progress: String,
}

impl Rig for KafkaRig {
    type Sink = KafkaSink;

    async fn sink(&self) -> KafkaSink {
        KafkaSink::new(options(self.kafka.lock().await.kafka())).unwrap()
    }

    async fn exact(&self) -> Option<KafkaSink> {
        let exact = ExactOptions {
            progress_topic: self.progress.clone(),
            transactional_id_prefix: "conformance".to_owned(),
        };
        let options = KafkaOptions {
            exact: Some(exact),
            create_topics: Some(TopicSpec {
                partitions: 1,
                replication: 1,
            }),
            ..options(self.kafka.lock().await.kafka())
        };
        Some(KafkaSink::new(options).unwrap())
    }

    async fn topic(&self, case: &str) -> Topic {
        let name = unique(case);
        let settings = [("max.message.bytes", LIMIT)];
        self.kafka
            .lock()
            .await
            .kafka()
            .create_topic(&name, 3, &settings)
            .await
            .unwrap();
        Topic::from(name)
    }

    async fn stored(&self, topic: &Topic) -> Vec<Stored> {
        read(self.kafka.lock().await.kafka(), topic).await
    }

    fn refused(&self, topic: &Topic) -> Option<Record> {
        Some(too_large(topic))
    }

    async fn take_away(&self) -> Option<()> {
        let mut broker = self.kafka.lock().await;
        broker.kafka_mut().pause().await.unwrap();
        Some(())
    }

    async fn bring_back(&self) {
        let mut broker = self.kafka.lock().await;
        broker.kafka_mut().resume().await.unwrap();
    }

    fn carries(&self) -> Carries {
        Carries {
            order_after_failure: true,
            ..Carries::default()
        }
    }
}

/// Holds: the contract, all of it.
#[tokio::test]
async fn conforms() {
    let rig = KafkaRig {
        kafka: Mutex::new(brokers::mortal_kafka().await),
        progress: unique("progress"),
    };
    assert_eq!(conformance::run(&rig).await, Vec::<&str>::new());
    assert_eq!(conformance::exact::run(&rig).await, Vec::<&str>::new());
}

/// Holds: a broker that is killed and comes back in the middle of publishing costs no record and no order.
#[tokio::test]
async fn a_killed_broker_costs_nothing() {
    let mut broker = brokers::mortal_kafka().await;
    let kafka = broker.kafka_mut();
    let topic = Topic::from(unique("killed"));
    kafka.create_topic(topic.as_str(), 3, &[]).await.unwrap();
    let sink = KafkaSink::new(options(kafka)).unwrap();
    let batches: Vec<Vec<Record>> = (0..200).map(|_| records(&topic, 100)).collect();
    let published = batches.concat();
    let (confirmed, mut half_way) = watch::channel(0);
    let publishing = async {
        for batch in batches {
            assert_eq!(converge(&sink, &batch).await, vec![]);
            confirmed.send_modify(|count| *count += 1);
        }
    };
    let killing = async {
        half_way.wait_for(|count| *count >= 100).await.unwrap();
        kafka.kill().await.unwrap();
        kafka.restart().await.unwrap();
    };
    tokio::join!(publishing, killing);
    conformance::assert_in_order(&read(kafka, &topic).await, &published);
    assert_eq!(sink.stats().confirmed, 20_000);
}

/// Holds: a topic that is missing holds the call as misconfigured, and looking for it does not create it; once it is
/// there, publishing goes on.
#[tokio::test]
async fn a_missing_topic_is_told_and_not_created() {
    // It creates none by itself.
    let kafka = brokers::secure_kafka().await.kafka();
    let topic = Topic::from(unique("missing"));
    let sink = KafkaSink::new(with(options(kafka), &HASTY)).unwrap();
    let records = records(&topic, 10);
    let error = sink.publish(&records).await.unwrap_err();
    assert_eq!(error.kind, PublishErrorKind::Misconfigured, "{error:?}");
    assert_eq!(error.outcomes, vec![Outcome::Unknown; 10]);
    assert!(!sink.stats().up);

    kafka.create_topic(topic.as_str(), 1, &[]).await.unwrap();
    assert_eq!(converge(&sink, &records).await, vec![]);
    assert_eq!(kafka.read_all(topic.as_str()).await.unwrap().len(), 10);
    assert!(sink.stats().up);
}

/// Holds: `check` tells which topics exist and creates none, not even where brokers would; publishing creates what the
/// options say.
#[tokio::test]
async fn topics_are_looked_for_and_created_as_configured() {
    let kafka = brokers::kafka().await;
    let (here, absent) = (unique("here"), unique("absent"));
    kafka.create_topic(&here, 2, &[]).await.unwrap();
    let spec = TopicSpec {
        partitions: 5,
        replication: 1,
    };
    let sink = KafkaSink::new(KafkaOptions {
        create_topics: Some(spec),
        ..options(kafka)
    })
    .unwrap();
    let there = |partitions| TopicState::There {
        partitions,
        trouble: None,
    };
    for _ in 0..2 {
        let reached = sink.check(&[&absent, &here]).await.unwrap();
        assert!(
            reached
                .brokers
                .iter()
                .all(|broker| broker.trouble.is_none())
        );
        let missing = TopicState::Missing { refused: None };
        let states: Vec<TopicState> = reached.topics.into_iter().map(|t| t.state).collect();
        assert_eq!(states, [missing, there(2)]);
    }
    let absent_topic = Topic::from(absent.as_str());
    sink.publish(&records(&absent_topic, 10)).await.unwrap();
    sink.ensure_topics(&[&absent, &here]).await.unwrap();
    let created = sink.check(&[&absent]).await.unwrap();
    assert_eq!(created.topics[0].state, there(5));
}

/// Holds: what is larger than librdkafka itself allows is rejected by itself, and its neighbours are stored in order.
#[tokio::test]
async fn a_record_larger_than_the_client_allows_is_rejected() {
    let kafka = brokers::kafka().await;
    let topic = Topic::from(unique("client-limit"));
    kafka.create_topic(topic.as_str(), 1, &[]).await.unwrap();
    let sink = KafkaSink::new(with(options(kafka), &[("message.max.bytes", "100000")])).unwrap();
    let mut batch = records(&topic, 20);
    batch.insert(10, too_large(&topic));
    let error = sink.publish(&batch).await.unwrap_err();
    assert_eq!(error.kind, PublishErrorKind::Rejected);
    for (n, outcome) in error.outcomes.iter().enumerate() {
        match outcome {
            Outcome::Rejected(reason) => assert_eq!((n, reason.code), (10, "too_large")),
            outcome => assert_eq!(*outcome, Outcome::Confirmed),
        }
    }
    batch.remove(10);
    conformance::assert_in_order(&read(kafka, &topic).await, &batch);
    assert_eq!(sink.stats().rebuilds, 0);
}

/// Holds: around a record that only the broker can refuse, the order of its neighbours is kept, though they fail with it.
#[tokio::test]
async fn the_neighbours_of_a_refused_record_keep_their_order() {
    let kafka = brokers::kafka().await;
    let topic = Topic::from(unique("broker-limit"));
    kafka
        .create_topic(topic.as_str(), 1, &[("max.message.bytes", LIMIT)])
        .await
        .unwrap();
    // Small batches, so that there are some behind the refused one, in flight at the same time.
    let several = [("batch.num.messages", "50"), ("max.in.flight", "5")];
    let sink = KafkaSink::new(with(options(kafka), &several)).unwrap();
    let mut batch = records(&topic, 2000);
    batch.insert(300, too_large(&topic));
    assert_eq!(converge(&sink, &batch).await, [batch[300].id]);
    batch.remove(300);
    conformance::assert_in_order(&read(kafka, &topic).await, &batch);
    let stats = sink.stats();
    assert!(stats.rebuilds > 0 && stats.splits > 0, "{stats:?}");
}

/// Holds: a record of one call is not rejected because librdkafka put it into a batch with another call's refused one.
#[tokio::test]
async fn a_refused_record_condemns_no_other_calls() {
    let kafka = brokers::kafka().await;
    let topic = Topic::from(unique("two-calls"));
    kafka
        .create_topic(topic.as_str(), 1, &[("max.message.bytes", LIMIT)])
        .await
        .unwrap();
    // Long enough for all of them to come together.
    let sink = Arc::new(KafkaSink::new(with(options(kafka), &[("linger.ms", "200")])).unwrap());
    let refused = too_large(&topic);
    let healthy = records(&topic, 5);
    let mut calls = JoinSet::new();
    for record in healthy.iter().chain([&refused]).cloned() {
        let sink = Arc::clone(&sink);
        calls.spawn(async move { converge(&*sink, &[record]).await });
    }
    let rejected: Vec<_> = calls.join_all().await.concat();
    assert_eq!(rejected, [refused.id]);
    assert_eq!(kafka.read_all(topic.as_str()).await.unwrap().len(), 5);
}

/// Holds: a broker that refuses to authenticate us ends the call as misconfigured instead of keeping it waiting for ever,
/// and `check` says so; no error holds the password.
#[tokio::test]
async fn refused_authentication_is_told() {
    let kafka = brokers::kafka().await;
    // The broker has no SASL on this listener, and refuses the handshake.
    let canary = "canary-password";
    let options = with(
        options(kafka),
        &[
            ("security.protocol", "SASL_PLAINTEXT"),
            ("sasl.mechanisms", "PLAIN"),
            ("sasl.username", "bridge"),
            ("sasl.password", canary),
        ],
    );
    let records = records(&Topic::from(unique("credentials")), 10);
    let sink = KafkaSink::new(options.clone()).unwrap();
    let error = timeout(PATIENCE, sink.publish(&records))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.kind, PublishErrorKind::Misconfigured, "{error:?}");
    assert_eq!(error.outcomes, vec![Outcome::Unknown; 10]);
    assert!(!sink.stats().up);
    let check = sink.check(&[]).await.unwrap_err();
    assert!(check.to_string().contains("SASL"), "{check}");
    let said = format!("{error:?} {check:?} {sink:?} {options:?}");
    assert!(!said.contains(canary));
}

//! Why a call waits, and what `check` finds, at real brokers: each reason is known within 15 s, and gone once it is over.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use futures::future::join_all;
use rtm_sink::conformance::{PATIENCE, converge, records};
use rtm_sink::{Record, Sink, Topic};
use rtm_sink_kafka::{KafkaOptions, KafkaSink, TopicSpec, TopicState};
use rtm_tests::brokers::{self, Door, Kafka, Operation, Right, SecureKafka, unique};
use rtm_tests::wait_for;
use tokio::time::{Instant, sleep, timeout};

use super::kafka_sink::{options, with};
use super::simulated;

/// When a reason is to be known; the machine may be busy with other tests.
const KNOWN: Duration = Duration::from_secs(15);

/// What the sink says of a call with these records that waits, or what the call ends with.
async fn reason(sink: &KafkaSink, records: &[Record], word: &str) -> String {
    let end = Instant::now() + KNOWN;
    let publishing = async {
        let error = sink
            .publish(records)
            .await
            .expect_err("nothing to publish to");
        format!("{error}: {}", error.source)
    };
    let watching = async {
        loop {
            let said = sink.health().said.unwrap_or_default();
            if said.contains(word) || Instant::now() > end {
                break said;
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        ended = publishing => ended,
        said = watching => said,
    }
}

async fn trouble(sink: &KafkaSink, topic: &str) -> String {
    let reached = sink.check(&[topic]).await.unwrap();
    match reached.topics[0].state.clone() {
        TopicState::There { trouble, .. } => trouble.unwrap_or_default(),
        TopicState::Missing { refused } => format!("missing: {refused:?}"),
        TopicState::Unanswered => panic!("no answer"),
        TopicState::Refused(why) => why,
    }
}

/// Holds: a partition without a leader, and too few replicas in sync, are named to a call that waits, and by `check`; once
/// the broker is back, the call ends well and nothing is said any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_and_replicas_in_sync_are_asked_for() {
    let [first, mut second] = Kafka::start_pair().await.unwrap();
    let [lone, few] = ["lone", "few"].map(unique);
    first.create_topic_at(&lone, &[2], &[]).await.unwrap();
    let two = [("min.insync.replicas", "2")];
    first.create_topic_at(&few, &[1, 2], &two).await.unwrap();
    let sink = KafkaSink::new(options(&first)).unwrap();
    let batches = [&lone, &few].map(|topic| records(&Topic::from(topic.as_str()), 10));
    for batch in &batches {
        assert_eq!(converge(&sink, batch).await, []);
    }
    for topic in [&lone, &few] {
        assert_eq!(trouble(&sink, topic).await, "");
    }
    second.kill().await.unwrap();
    // Until the controller has seen it.
    let seen = async {
        while trouble(&sink, &lone).await.is_empty() || trouble(&sink, &few).await.is_empty() {
            sleep(Duration::from_millis(200)).await;
        }
    };
    timeout(PATIENCE, seen).await.unwrap();
    let words = [
        "partition 0 has no leader",
        "partition 0 has 1 of 2 replicas in sync, min.insync.replicas is 2",
    ];
    for (topic, word) in [&lone, &few].into_iter().zip(words) {
        let found = trouble(&sink, topic).await;
        assert!(found.contains(word), "{found}");
    }
    let asked = batches.iter().zip(words).map(async |(batch, word)| {
        let sink = KafkaSink::new(options(&first)).unwrap();
        let said = reason(&sink, batch, word).await;
        assert!(said.contains(word), "{said}");
        sink
    });
    let sinks = join_all(asked).await;
    second.restart().await.unwrap();
    for (sink, batch) in sinks.iter().zip(&batches) {
        assert_eq!(converge(sink, batch).await, []);
        assert_eq!(sink.health().said, None);
    }
}

/// Holds: a broker that advertises an address where nobody is reached is named, with that address.
#[tokio::test(flavor = "multi_thread")]
async fn an_advertised_address_is_tried() {
    let nobody = [("advertised.listeners", "PLAINTEXT://127.0.0.1:1")];
    let kafka = Kafka::start_own_with(&nobody).await.unwrap();
    let word = "127.0.0.1:1: no connection: Connection refused";
    let sink = KafkaSink::new(options(&kafka)).unwrap();
    let topic = Topic::from(unique("advertised"));
    let said = reason(&sink, &records(&topic, 10), word).await;
    assert!(said.contains(word), "{said}");
    // librdkafka forgets the address that it began with once it has met the advertised one.
    let found = match sink.check(&[topic.as_str()]).await {
        Ok(reached) => reached.brokers[0].trouble.clone().unwrap_or_default(),
        Err(error) => error.to_string(),
    };
    assert!(found.contains(word), "{found}");
}

/// Holds: a listener that speaks another protocol than `security.protocol` says is told as that, either way round, and so
/// is a name that does not resolve.
#[tokio::test(flavor = "multi_thread")]
async fn the_wrong_protocol_is_told() {
    let broker = brokers::secure_kafka().await;
    let plain = broker.kafka().address().to_owned();
    let ca = broker.file("ca.pem").display().to_string();
    let password = [
        ("sasl.mechanism", "PLAIN"),
        ("sasl.username", SecureKafka::ADMIN),
        ("sasl.password", SecureKafka::PASSWORD),
    ];
    let cases = [
        (
            broker.address(Door::Tls),
            "PLAINTEXT",
            "the listener speaks TLS, security.protocol is PLAINTEXT",
        ),
        (
            broker.address(Door::SaslTls),
            "SASL_PLAINTEXT",
            "the listener speaks TLS, security.protocol is SASL_PLAINTEXT",
        ),
        (
            plain.clone(),
            "SSL",
            "the listener speaks plaintext, security.protocol is SSL",
        ),
        (
            broker.address(Door::Sasl),
            "PLAINTEXT",
            "the listener asks for SASL (",
        ),
        (
            broker.address(Door::SaslTls),
            "SSL",
            "the listener asks for SASL (",
        ),
        (
            plain,
            "SASL_PLAINTEXT",
            "the listener does not authenticate by SASL",
        ),
        (
            "nowhere.invalid:9092".to_owned(),
            "PLAINTEXT",
            "nowhere.invalid:9092: its name does not resolve",
        ),
    ];
    let asked = cases.into_iter().map(async |(address, protocol, word)| {
        let mut over = vec![("security.protocol", protocol)];
        if protocol.starts_with("SASL") {
            over.extend(password);
        }
        if protocol.ends_with("SSL") {
            over.push(("ssl.ca.location", &ca));
        }
        let sink = KafkaSink::new(with(KafkaOptions::new(vec![address]), &over)).unwrap();
        let records = records(&Topic::from(unique("protocol")), 10);
        let said = reason(&sink, &records, word).await;
        assert!(said.contains(word), "{protocol}: {said}");
        let check = sink.check(&[]).await.unwrap_err().to_string();
        assert!(check.contains(word), "{protocol}: {check}");
        assert!(!format!("{said}{check}").contains("canary"));
    });
    join_all(asked).await;
}

/// Holds: with exactly the ACLs that docs/how-to/brokers.md names, `check` finds nothing wrong and records are published;
/// without any one of them both say what is missing.
#[tokio::test(flavor = "multi_thread")]
async fn the_documented_acls_suffice_and_are_needed() {
    const USER: &str = "granted";
    let broker = brokers::secure_kafka().await;
    let kafka = broker.kafka();
    let as_user = |create_topics| {
        let over = [
            ("security.protocol", "SASL_PLAINTEXT"),
            ("sasl.mechanism", "PLAIN"),
            ("sasl.username", USER),
            ("sasl.password", SecureKafka::PASSWORD),
            ("topic.metadata.propagation.max.ms", "1000"),
        ];
        let options = with(KafkaOptions::new(vec![broker.address(Door::Sasl)]), &over);
        KafkaSink::new(KafkaOptions {
            create_topics,
            ..options
        })
        .unwrap()
    };
    let names = ["user", "channel", "dead"].map(|name| unique(&format!("acl-{name}")));
    let may = |name, operation| Right {
        user: USER,
        topic: name,
        operation,
    };
    for name in &names {
        kafka.create_topic(name, 1, &[]).await.unwrap();
        kafka.grant(may(name, Operation::Write)).await.unwrap();
    }
    let sink = as_user(None);
    for name in &names {
        assert_eq!(trouble(&sink, name).await, "");
        let batch = records(&Topic::from(name.as_str()), 10);
        assert_eq!(converge(&sink, &batch).await, []);
    }
    for name in &names {
        kafka.revoke(may(name, Operation::Write)).await.unwrap();
        let sink = as_user(None);
        let found = trouble(&sink, name).await;
        assert!(found.contains("needs an ACL that allows Write"), "{found}");
        let batch = records(&Topic::from(name.as_str()), 10);
        let error = timeout(PATIENCE, sink.publish(&batch)).await.unwrap();
        let source = error.unwrap_err().source.to_string();
        assert!(
            source.contains("needs an ACL that allows Write"),
            "{source}"
        );
        kafka.grant(may(name, Operation::Write)).await.unwrap();
    }

    // `create = true`: who may not create a topic is told so, unless it is there already.
    let spec = Some(TopicSpec {
        partitions: 1,
        replication: 1,
    });
    let absent = unique("acl-absent");
    kafka.grant(may(&absent, Operation::Write)).await.unwrap();
    let sink = as_user(spec);
    let there = records(&Topic::from(names[0].as_str()), 10);
    assert_eq!(converge(&sink, &there).await, []);
    let batch = records(&Topic::from(absent.as_str()), 10);
    let found = trouble(&sink, &absent).await;
    assert!(found.contains("needs an ACL that allows Create"), "{found}");
    let error = timeout(PATIENCE, sink.publish(&batch)).await.unwrap();
    let source = error.unwrap_err().source.to_string();
    assert!(
        source.contains("needs an ACL that allows Create"),
        "{source}"
    );
    kafka.grant(may(&absent, Operation::Create)).await.unwrap();
    assert_eq!(trouble(&sink, &absent).await, "missing: None");
    assert_eq!(converge(&sink, &batch).await, []);
}

/// Holds: a name that collides with another topic's, and a token that nobody gives, are told.
#[tokio::test(flavor = "multi_thread")]
async fn a_colliding_name_and_a_missing_token_are_told() {
    let kafka = brokers::kafka().await;
    let name = unique("collides");
    kafka
        .create_topic(&format!("{name}.a"), 1, &[])
        .await
        .unwrap();
    let sink = KafkaSink::new(options(kafka)).unwrap();
    let batch = records(&Topic::from(format!("{name}_a").as_str()), 10);
    let said = reason(&sink, &batch, "collides with another").await;
    assert!(said.contains("collides with another"), "{said}");

    let broker = brokers::secure_kafka().await;
    let over = [
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "OAUTHBEARER"),
    ];
    let by_token = with(KafkaOptions::new(vec![broker.address(Door::Sasl)]), &over);
    let sink = KafkaSink::new(by_token).unwrap();
    let said = reason(&sink, &batch, "token").await;
    assert!(said.contains("token"), "{said}");
}

/// Holds: the running bridge says within 15 s in `/readyz` and in its log why a batch waits.
#[tokio::test(flavor = "multi_thread")]
async fn the_running_bridge_says_why() {
    let broker = brokers::secure_kafka().await;
    let dir = tempfile::tempdir().unwrap();
    let address = broker.address(Door::Tls);
    let sinks = format!("[sinks.kafka]\nbrokers = [\"{address}\"]\n");
    let (mut bridge, _simulator) = simulated::bridge(dir.path(), 50.0, &sinks).await;
    let why = "the listener speaks TLS, security.protocol is PLAINTEXT";
    // The first batch is there some seconds after the start.
    wait_for("the reason in /readyz", KNOWN + KNOWN / 3, async || {
        let ready = bridge.ready().await;
        ready.is_ok_and(|ready| ready.is_err_and(|said| said.contains(why)))
    })
    .await
    .unwrap();
    wait_for("the reason in the log", KNOWN, async || {
        let said = bridge.process.output();
        said.is_ok_and(|said| {
            let mut lines = said.lines();
            lines.any(|line| line.contains("a batch waits") && line.contains(why))
        })
    })
    .await
    .unwrap();
    assert!(bridge.process.terminate(2 * KNOWN).await.unwrap().success());
}

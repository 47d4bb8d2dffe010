//! The Kafka sink before a broker that asks who it is: every way to say so, every refusal, and putting it right.
#![allow(clippy::unwrap_used)]

use std::error::Error;
use std::fs;
use std::path::Path;

use futures::future::join_all;
use rtm_sink::conformance::{PATIENCE, assert_in_order, converge, records};
use rtm_sink::{Outcome, PublishError, PublishErrorKind, Sink, Topic};
use rtm_sink_kafka::{KafkaOptions, KafkaSink, TopicSpec};
use rtm_tests::brokers::{self, Door, Operation, Right, SecureKafka, unique};
use rtm_tests::wait_for;
use tokio::time::timeout;

use super::kafka_sink::{HASTY, read, with};

const CANARY: &str = SecureKafka::PASSWORD;

/// Options to come in by `door`, trusting the authority in `ca`.
pub(super) fn by(broker: &SecureKafka, door: Door, ca: &str) -> KafkaOptions {
    let protocol = match door {
        Door::Sasl => "SASL_PLAINTEXT",
        Door::SaslTls => "SASL_SSL",
        _ => "SSL",
    };
    let ca = path(&broker.file(ca));
    let over = [("security.protocol", protocol), ("ssl.ca.location", &ca)];
    with(KafkaOptions::new(vec![broker.address(door)]), &over)
}

pub(super) fn user(
    options: KafkaOptions,
    mechanism: &str,
    name: &str,
    password: &str,
) -> KafkaOptions {
    let over = [
        ("sasl.mechanism", mechanism),
        ("sasl.username", name),
        ("sasl.password", password),
    ];
    with(options, &over)
}

fn client(options: KafkaOptions, broker: &SecureKafka, name: &str) -> KafkaOptions {
    let [certificate, key] =
        ["pem", "key"].map(|kind| path(&broker.file(&format!("{name}.{kind}"))));
    let over = [
        ("ssl.certificate.location", certificate.as_str()),
        ("ssl.key.location", &key),
    ];
    with(options, &over)
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

/// An error with its causes, as the bridge logs it.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// The one error that tells to hold and alarm.
fn assert_held(error: &PublishError) {
    assert_eq!(error.kind, PublishErrorKind::Misconfigured, "{error:?}");
    assert!(error.outcomes.iter().all(|o| *o == Outcome::Unknown));
}

/// Holds: over TLS, with a certificate, and with a password by each mechanism, records are published and read back.
#[tokio::test]
async fn everybody_who_may_comes_in() {
    let broker = brokers::secure_kafka().await;
    let admin = SecureKafka::ADMIN;
    let sasl = |door, mechanism| user(by(broker, door, "ca.pem"), mechanism, admin, CANARY);
    let ways = [
        sasl(Door::Sasl, "PLAIN"),
        sasl(Door::Sasl, "SCRAM-SHA-512"),
        sasl(Door::SaslTls, "PLAIN"),
        sasl(Door::SaslTls, "SCRAM-SHA-256"),
        sasl(Door::SaslTls, "SCRAM-SHA-512"),
        by(broker, Door::Tls, "ca.pem"),
        client(by(broker, Door::MutualTls, "ca.pem"), broker, "client"),
    ];
    let publishing = ways.into_iter().map(async |options| {
        let topic = Topic::from(unique("secure"));
        broker
            .kafka()
            .create_topic(topic.as_str(), 1, &[])
            .await
            .unwrap();
        let sink = KafkaSink::new(options).unwrap();
        let batch = records(&topic, 100);
        timeout(PATIENCE, sink.publish(&batch))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(sink.check(&[]).await.unwrap().brokers.len(), 1);
        let stored = read(broker.kafka(), &topic).await;
        assert_eq!(stored.len(), 100);
        assert_in_order(&stored, &batch);
        assert!(!format!("{sink:?}").contains(CANARY));
    });
    join_all(publishing).await;
}

/// Holds: whoever is refused, or refuses the broker, is told so at once, in words that name what is wrong and hold no
/// secret; the records are held.
#[tokio::test]
async fn refusals_are_told() {
    let broker = brokers::secure_kafka().await;
    let wrong = "canary-wrong";
    let admin = SecureKafka::ADMIN;
    let tls = |door| by(broker, door, "ca.pem");
    let sasl = |mechanism, name, password| user(tls(Door::SaslTls), mechanism, name, password);
    let creating = KafkaOptions {
        create_topics: Some(TopicSpec {
            partitions: 1,
            replication: 1,
        }),
        ..sasl("PLAIN", admin, wrong)
    };
    let cases = [
        (
            "a wrong password, met on creating topics",
            creating,
            "Authentication failed",
        ),
        (
            "another authority",
            by(broker, Door::Tls, "other-ca.pem"),
            "authority",
        ),
        ("another host", tls(Door::OtherHost), "not valid for name"),
        (
            "an expired certificate",
            tls(Door::Expired),
            "certificate expired",
        ),
        (
            "a wrong password",
            sasl("PLAIN", admin, wrong),
            "Authentication failed",
        ),
        (
            "a wrong password",
            sasl("SCRAM-SHA-256", admin, wrong),
            "Authentication failed",
        ),
        (
            "a wrong password",
            sasl("SCRAM-SHA-512", admin, wrong),
            "Authentication failed",
        ),
        (
            "an unknown user",
            sasl("SCRAM-SHA-512", "stranger", wrong),
            "Authentication failed",
        ),
        ("no certificate", tls(Door::MutualTls), "asks for one"),
        (
            "a stranger's certificate",
            client(tls(Door::MutualTls), broker, "other-client"),
            "refuses our certificate",
        ),
    ];
    let publishing = cases.into_iter().map(async |(case, options, word)| {
        let sink = KafkaSink::new(options.clone()).unwrap();
        let records = records(&Topic::from(unique("refused")), 10);
        let error = timeout(PATIENCE, sink.publish(&records))
            .await
            .unwrap_or_else(|_| panic!("{case}: waits: {:?}", sink.stats()))
            .unwrap_err();
        assert_held(&error);
        let check = sink.check(&[]).await.unwrap_err();
        // Only `check` asks the broker for its certificate once more.
        let published = match case {
            "another host" | "an expired certificate" => {
                "the broker's certificate is refused: its authority is not trusted, or it is another host's, or it has \
                 expired; `check --connect` tells which"
            }
            _ => word,
        };
        for (text, word) in [(chain(&error), published), (chain(&check), word)] {
            assert!(text.contains(word), "{case}: {text}");
        }
        let stats = sink.stats();
        assert!(!stats.up, "{case}");
        let said = format!("{error:?} {check:?} {sink:?} {options:?} {stats:?}");
        assert!(!said.contains("canary"), "{case}: {said}");
    });
    join_all(publishing).await;
}

pub(super) fn write<'a>(user: &'a str, topic: &'a Topic) -> Right<'a> {
    Right {
        user,
        topic: topic.as_str(),
        operation: Operation::Write,
    }
}

/// Holds: who may do nothing is told so, at the cluster's level (it gets no producer id); a user who may write elsewhere,
/// at the topic's. A right that is taken away while records flow, and given again, costs nothing and no order.
#[tokio::test]
async fn rights_are_needed() {
    let broker = brokers::secure_kafka().await;
    let kafka = broker.kafka();
    let as_user = |name| {
        let options = user(by(broker, Door::Sasl, "ca.pem"), "PLAIN", name, CANARY);
        KafkaSink::new(with(options, &HASTY)).unwrap()
    };
    let [topic, other] = ["rights", "rights-other"].map(|name| Topic::from(unique(name)));
    for topic in [&topic, &other] {
        kafka.create_topic(topic.as_str(), 1, &[]).await.unwrap();
    }

    let denied = format!("topic `{topic}`: TopicAuthorizationFailed");
    let nobody = as_user("nobody");
    let batch = records(&topic, 100);
    let error = timeout(PATIENCE, nobody.publish(&batch)).await.unwrap();
    let error = error.unwrap_err();
    assert_held(&error);
    assert!(chain(&error).contains(&denied), "{}", chain(&error));
    let describe = Right {
        operation: Operation::Describe,
        ..write("nobody", &topic)
    };
    kafka.grant(describe).await.unwrap();
    // librdkafka looks at a topic once a second.
    wait_for("a refusal by the cluster", PATIENCE, async || {
        let error = timeout(PATIENCE, nobody.publish(&batch)).await.unwrap();
        let error = error.unwrap_err();
        assert_held(&error);
        chain(&error).contains("Cluster authorization failed")
    })
    .await
    .unwrap();
    kafka.grant(write("nobody", &topic)).await.unwrap();
    assert_eq!(converge(&nobody, &batch).await, []);
    assert_in_order(&read(kafka, &topic).await, &batch);

    kafka.grant(write("limited", &other)).await.unwrap();
    let limited = as_user("limited");
    let error = timeout(PATIENCE, limited.publish(&batch)).await.unwrap();
    let error = error.unwrap_err();
    assert_held(&error);
    assert!(chain(&error).contains(&denied), "{}", chain(&error));

    let published = records(&other, 2000);
    let flowing = async {
        for batch in published.chunks(100) {
            assert_eq!(converge(&limited, batch).await, []);
        }
    };
    let changing = async {
        let confirmed = |count| {
            let limited = &limited;
            wait_for("confirmations", PATIENCE, async move || {
                limited.stats().confirmed >= count
            })
        };
        confirmed(500).await.unwrap();
        kafka.revoke(write("limited", &other)).await.unwrap();
        wait_for("the alarm", PATIENCE, async || !limited.stats().up)
            .await
            .unwrap();
        kafka.grant(write("limited", &other)).await.unwrap();
    };
    tokio::join!(flowing, changing);
    let stats = limited.stats();
    assert!(stats.up && stats.rebuilds > 0, "{stats:?}");
    assert_in_order(&read(kafka, &other).await, &published);
}

/// Holds: a password and a client's certificate that are put right in their files are used by the next producer, without
/// a restart.
#[tokio::test]
async fn credentials_are_read_again() {
    let broker = brokers::secure_kafka().await;
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    fs::write(file("password"), "canary-wrong\n").unwrap();
    let mut password = user(
        by(broker, Door::SaslTls, "ca.pem"),
        "SCRAM-SHA-512",
        SecureKafka::ADMIN,
        "",
    );
    password.options.remove("sasl.password");
    password
        .option_files
        .insert("sasl.password".into(), file("password"));

    let replace = |name: &str| {
        for kind in ["pem", "key"] {
            fs::copy(broker.file(&format!("{name}.{kind}")), file(kind)).unwrap();
        }
    };
    replace("other-client");
    let [pem, key] = ["pem", "key"].map(|kind| path(&file(kind)));
    let over = [
        ("ssl.certificate.location", pem.as_str()),
        ("ssl.key.location", &key),
    ];
    let certificate = with(by(broker, Door::MutualTls, "ca.pem"), &over);

    let topic = Topic::from(unique("again"));
    broker
        .kafka()
        .create_topic(topic.as_str(), 1, &[])
        .await
        .unwrap();
    let batch = records(&topic, 10);
    let sinks = [password, certificate].map(|options| KafkaSink::new(options).unwrap());
    for sink in &sinks {
        let error = timeout(PATIENCE, sink.publish(&batch)).await.unwrap();
        assert_held(&error.unwrap_err());
    }
    // In the middle of a replacement there may be no file: as bad as a wrong one, and no worse.
    fs::remove_file(file("password")).unwrap();
    let error = sinks[0].publish(&batch).await.unwrap_err();
    assert_held(&error);
    assert!(chain(&error).contains("sasl.password"), "{}", chain(&error));

    fs::write(file("password"), format!("{CANARY}\n")).unwrap();
    replace("client");
    for sink in &sinks {
        assert_eq!(converge(sink, &batch).await, []);
        assert!(!format!("{sink:?}").contains("canary"));
    }
    assert_in_order(&read(broker.kafka(), &topic).await, &batch);
}

/// Holds: a broker whose certificate is no longer trusted, after it was, is told as that and not waited for for ever; with
/// the new authority in its file, publishing goes on in order.
#[tokio::test]
async fn a_new_authority_needs_no_restart() {
    let mut broker = brokers::mortal_kafka().await;
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    fs::copy(broker.file("ca.pem"), &ca).unwrap();
    let often = [
        ("ssl.ca.location", path(&ca)),
        ("statistics.interval.ms", "500".to_owned()),
    ];
    let often: Vec<(&str, &str)> = often.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let sink = KafkaSink::new(with(by(&broker, Door::Tls, "ca.pem"), &often)).unwrap();
    let topic = Topic::from(unique("authority"));
    broker
        .kafka()
        .create_topic(topic.as_str(), 1, &[])
        .await
        .unwrap();
    let mut published = records(&topic, 100);
    sink.publish(&published).await.unwrap();

    broker.kafka_mut().kill().await.unwrap();
    broker.change_authority().unwrap();
    broker.kafka_mut().restart().await.unwrap();
    let batch = records(&topic, 100);
    let error = timeout(PATIENCE, sink.publish(&batch)).await.unwrap();
    assert_held(&error.unwrap_err());
    fs::copy(broker.file("other-ca.pem"), &ca).unwrap();
    assert_eq!(converge(&sink, &batch).await, []);
    published.extend(batch);
    assert_in_order(&read(broker.kafka(), &topic).await, &published);
}

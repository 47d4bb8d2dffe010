//! The harness's own promises: what is stored is read back as it is, and a broker of one's own can be paused, killed
//! and restarted without losing its address or its records.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rtm_tests::brokers::{self, Kafka, Nats};

const SOON: Duration = Duration::from_secs(20);

async fn send(
    kafka: &Kafka,
    topic: &str,
    partition: i32,
    payloads: impl IntoIterator<Item = String>,
) {
    let producer: FutureProducer = kafka
        .client()
        .set("message.timeout.ms", "20000")
        .create()
        .unwrap();
    let sent: Vec<_> = payloads
        .into_iter()
        .map(|payload| {
            let record = FutureRecord::to(topic)
                .partition(partition)
                .key("key")
                .payload(&payload)
                .timestamp(1234);
            producer
                .send_result(record)
                .map_err(|(error, _)| error)
                .unwrap()
        })
        .collect();
    for report in sent {
        report.await.unwrap().unwrap();
    }
}

/// Every field comes back, from every partition, in order, and an empty partition ends the reading as a full one does.
#[tokio::test]
async fn kafka_gives_back_what_it_stored() {
    let kafka = brokers::kafka().await;
    let topic = brokers::unique("round-trip");
    kafka.create_topic(&topic, 3, &[]).await.unwrap();
    assert_eq!(kafka.read_all(&topic).await.unwrap(), []);

    send(kafka, &topic, 2, (0..1000).map(|number| number.to_string())).await;
    let producer: FutureProducer = kafka.client().create().unwrap();
    let headers = OwnedHeaders::new()
        .insert(Header {
            key: "one",
            value: Some("1"),
        })
        .insert(Header {
            key: "none",
            value: None::<&str>,
        })
        .insert(Header {
            key: "one",
            value: Some("again"),
        });
    let tombstone: FutureRecord<'_, str, str> =
        FutureRecord::to(&topic).partition(0).headers(headers);
    producer
        .send_result(tombstone)
        .map_err(|(error, _)| error)
        .unwrap()
        .await
        .unwrap()
        .unwrap();

    let records = kafka.read_all(&topic).await.unwrap();
    assert_eq!(records.len(), 1001);
    assert_eq!(
        (
            records[0].partition,
            records[0].offset,
            records[0].key.as_ref()
        ),
        (0, 0, None)
    );
    assert_eq!(records[0].payload, "");
    let header = |name: &str, value: &'static str| (name.to_owned(), value.into());
    assert_eq!(
        records[0].headers,
        [
            header("one", "1"),
            header("none", ""),
            header("one", "again")
        ]
    );
    for (number, record) in records[1..].iter().enumerate() {
        assert_eq!(
            (record.partition, record.offset),
            (2, i64::try_from(number).unwrap())
        );
        assert_eq!(
            (record.payload.as_ref(), record.key.as_deref()),
            (number.to_string().as_bytes(), Some(&b"key"[..]))
        );
        assert_eq!(record.timestamp, 1234);
    }
    assert!(
        kafka
            .read_all("no-such-topic")
            .await
            .unwrap_err()
            .to_string()
            .contains("no-such-topic")
    );
}

/// A topic's settings are taken: with `LogAppendTime` the producer's timestamp gives way to the broker's.
#[tokio::test]
async fn kafka_topics_have_settings() {
    let kafka = brokers::kafka().await;
    let topic = brokers::unique("append-time");
    kafka
        .create_topic(&topic, 1, &[("message.timestamp.type", "LogAppendTime")])
        .await
        .unwrap();
    send(kafka, &topic, 0, ["now".to_owned()]).await;
    assert!(kafka.read_all(&topic).await.unwrap()[0].timestamp > 1_700_000_000_000);
    assert!(
        kafka.create_topic(&topic, 1, &[]).await.is_err(),
        "there is one already"
    );
    let other = brokers::unique("misspelt");
    assert!(
        kafka
            .create_topic(&other, 1, &[("message.timestamp.typo", "LogAppendTime")])
            .await
            .is_err()
    );
}

/// A partition that ends with a transaction's marker, which is no record, does not keep the reader waiting; what was
/// aborted is not read.
#[tokio::test]
async fn kafka_reads_past_transactions() {
    let kafka = brokers::kafka().await;
    let topic = brokers::unique("transactions");
    kafka.create_topic(&topic, 1, &[]).await.unwrap();
    let id = topic.clone();
    let producer: FutureProducer = kafka.client().set("transactional.id", id).create().unwrap();
    let topic = tokio::task::spawn_blocking(move || {
        producer.init_transactions(SOON).unwrap();
        for commit in [true, false] {
            producer.begin_transaction().unwrap();
            let record = FutureRecord::<str, str>::to(&topic).payload(if commit {
                "committed"
            } else {
                "aborted"
            });
            drop(
                producer
                    .send_result(record)
                    .map_err(|(error, _)| error)
                    .unwrap(),
            );
            producer.flush(SOON).unwrap();
            if commit {
                producer.commit_transaction(SOON).unwrap();
            } else {
                producer.abort_transaction(SOON).unwrap();
            }
        }
        topic
    })
    .await
    .unwrap();
    let started = Instant::now();
    let payloads: Vec<_> = kafka
        .read_all(&topic)
        .await
        .unwrap()
        .into_iter()
        .map(|record| record.payload)
        .collect();
    assert_eq!(payloads, ["committed"]);
    assert!(started.elapsed() < Duration::from_secs(10));
}

/// Every field comes back, in order, and a removed last message does not keep the reader waiting.
#[tokio::test]
async fn nats_gives_back_what_it_stored() {
    let nats = brokers::nats().await;
    let stream = brokers::unique("ROUND-TRIP");
    nats.create_jetstream(&stream, &[&format!("{stream}.>")])
        .await
        .unwrap();
    assert_eq!(nats.read_all(&stream).await.unwrap(), []);

    let jetstream = nats.jetstream().await.unwrap();
    let mut headers = async_nats::HeaderMap::new();
    headers.append("Name", "first");
    headers.append("Name", "second");
    let mut acks = Vec::new();
    for number in 0..1001 {
        let subject = format!("{stream}.{}", number % 2);
        acks.push(
            jetstream
                .publish_with_headers(subject, headers.clone(), number.to_string().into())
                .await
                .unwrap(),
        );
    }
    let mut last = 0;
    for ack in acks {
        last = ack.await.unwrap().sequence;
    }
    jetstream
        .get_stream(&stream)
        .await
        .unwrap()
        .delete_message(last)
        .await
        .unwrap();

    let records = nats.read_all(&stream).await.unwrap();
    assert_eq!(records.len(), 1000);
    for (number, record) in records.iter().enumerate() {
        assert_eq!(record.sequence, u64::try_from(number).unwrap() + 1);
        assert_eq!(record.subject, format!("{stream}.{}", number % 2));
        assert_eq!(record.payload, number.to_string());
        assert_eq!(
            record.headers,
            [
                ("Name".into(), "first".into()),
                ("Name".into(), "second".into())
            ]
        );
        assert!(record.time > 1_700_000_000_000);
    }
    assert!(
        nats.read_all("no-such-stream")
            .await
            .unwrap_err()
            .to_string()
            .contains("no-such-stream")
    );
}

/// Settings given on top of the harness's reach the broker. Paused, it answers nothing; resumed, it goes on. Killed and
/// restarted, it has its address and its records.
#[tokio::test]
async fn own_kafka_is_paused_killed_and_restarted() {
    let mut kafka = Kafka::start_own_with(&[("auto.create.topics.enable", "false")])
        .await
        .unwrap();
    let hasty: FutureProducer = kafka
        .client()
        .set("message.timeout.ms", "500")
        .create()
        .unwrap();
    let record = FutureRecord::<str, str>::to("missing").payload("payload");
    assert!(
        hasty
            .send_result(record)
            .map_err(|(error, _)| error)
            .unwrap()
            .await
            .unwrap()
            .is_err()
    );
    let topic = brokers::unique("own");
    kafka.create_topic(&topic, 1, &[]).await.unwrap();
    send(&kafka, &topic, 0, ["before".to_owned()]).await;

    kafka.pause().await.unwrap();
    let producer: FutureProducer = kafka.client().create().unwrap();
    let record = FutureRecord::<str, str>::to(&topic).payload("during");
    let mut report = producer
        .send_result(record)
        .map_err(|(error, _)| error)
        .unwrap();
    assert!(
        tokio::time::timeout(Duration::from_secs(1), &mut report)
            .await
            .is_err(),
        "a paused broker confirmed"
    );
    kafka.resume().await.unwrap();
    report.await.unwrap().unwrap();

    let address = kafka.address().to_owned();
    kafka.kill().await.unwrap();
    assert!(
        tokio::net::TcpStream::connect(&address).await.is_err(),
        "a killed broker listens"
    );
    assert!(kafka.pause().await.is_err());
    kafka.restart().await.unwrap();
    assert_eq!(kafka.address(), address);
    send(&kafka, &topic, 0, ["after".to_owned()]).await;
    let payloads: Vec<_> = kafka
        .read_all(&topic)
        .await
        .unwrap()
        .into_iter()
        .map(|record| record.payload)
        .collect();
    assert_eq!(payloads, ["before", "during", "after"]);
    assert!(kafka.restart().await.is_err(), "restarted while it runs");
}

/// As for Kafka.
#[tokio::test]
async fn own_nats_is_paused_killed_and_restarted() {
    let mut nats = Nats::start_own().await.unwrap();
    nats.create_jetstream("OWN", &["own"]).await.unwrap();
    let jetstream = nats.jetstream().await.unwrap();
    jetstream
        .publish("own", "before".into())
        .await
        .unwrap()
        .await
        .unwrap();

    nats.pause().await.unwrap();
    let ack = jetstream
        .publish("own", "during".into())
        .await
        .unwrap()
        .into_future();
    tokio::pin!(ack);
    assert!(
        tokio::time::timeout(Duration::from_secs(1), &mut ack)
            .await
            .is_err(),
        "a paused server confirmed"
    );
    nats.resume().await.unwrap();
    ack.await.unwrap();

    let url = nats.url().to_owned();
    nats.kill().await.unwrap();
    assert!(nats.jetstream().await.is_err(), "a killed server accepts");
    nats.restart().await.unwrap();
    assert_eq!(nats.url(), url);
    let again = nats.jetstream().await.unwrap();
    again
        .publish("own", "after".into())
        .await
        .unwrap()
        .await
        .unwrap();
    let payloads: Vec<_> = nats
        .read_all("OWN")
        .await
        .unwrap()
        .into_iter()
        .map(|record| record.payload)
        .collect();
    assert_eq!(payloads, ["before", "during", "after"]);
}

/// Configuration given on top of the harness's reaches the server.
#[tokio::test]
async fn own_nats_takes_configuration() {
    let nats = Nats::start_own_with("authorization { token: \"secret\" }")
        .await
        .unwrap();
    assert!(nats.jetstream().await.is_err(), "no token was asked for");
    let options = async_nats::ConnectOptions::with_token("secret".to_owned());
    options.connect(nats.url()).await.unwrap();
}

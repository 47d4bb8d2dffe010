//! The sink on librdkafka's mock cluster: what a real broker does not do on command. The rest is in the workspace's
//! integration tests.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use rtm_sink::conformance::{PATIENCE, records};
use rtm_sink::{Outcome, PublishErrorKind, Record, Sink, Topic};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use crate::producers::Producers;
use crate::settings::of_topics;
use crate::{KafkaOptions, KafkaSink};

type Cluster = MockCluster<'static, DefaultProducerContext>;

const ALL: i32 = -1;

fn cluster() -> Cluster {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 1, 1).unwrap();
    cluster
}

fn sink(cluster: &Cluster, over: &[(&str, &str)]) -> KafkaSink {
    let mut options = KafkaOptions::new(vec![cluster.bootstrap_servers()]);
    let over = over
        .iter()
        .map(|&(name, value)| (name.to_owned(), value.to_owned()));
    options.options.extend(over);
    KafkaSink::new(options).unwrap()
}

fn batch(count: u64) -> Vec<Record> {
    records(&Topic::from("t"), count)
}

/// Holds: a fatal error of the producer is survived inside the call, which ends well.
#[tokio::test]
async fn a_fatal_error_rebuilds_the_producer() {
    let cluster = cluster();
    let sink = sink(&cluster, &[]);
    sink.publish(&batch(10)).await.unwrap();
    let fatal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    cluster.request_errors(RDKafkaApiKey::Produce, &[fatal]);
    timeout(PATIENCE, sink.publish(&batch(10)))
        .await
        .unwrap()
        .unwrap();
    let stats = sink.stats();
    assert_eq!((stats.rebuilds, stats.confirmed, stats.up), (1, 20, true));
}

/// Holds: what keeps a sink from being made is told by the option's name, and holds neither a secret nor what a file holds.
#[test]
fn a_sink_that_cannot_be_made_tells_no_secret() {
    let dir = std::env::temp_dir();
    let mut options = KafkaOptions::new(vec!["localhost:1".to_owned()]);
    options
        .options
        .insert("security.protocol".into(), "SSL".into());
    options
        .options
        .insert("ssl.key.pem".into(), "canary".into());
    let made = format!("{:?}", KafkaSink::new(options.clone()).unwrap_err());
    assert!(
        made.contains("ssl.key.pem") && !made.contains("canary"),
        "{made}"
    );

    let absent = dir.join("rtm-no-such-file");
    options.option_files.insert("sasl.password".into(), absent);
    let error = KafkaSink::new(options.clone()).unwrap_err();
    let said = format!("{error} {error:?} {options:?}");
    assert!(
        said.contains("read the option `sasl.password` from "),
        "{said}"
    );
    assert!(!said.contains("canary"), "{said}");
}

/// Holds: what passes by itself is waited for within the call, by the same producer. A single real broker is never short of
/// replicas: it asks for no more than there are.
#[tokio::test]
async fn what_passes_is_waited_for() {
    let cluster = cluster();
    let sink = sink(&cluster, &[]);
    sink.publish(&batch(1)).await.unwrap();
    let passing = [
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR,
    ];
    cluster.request_errors(RDKafkaApiKey::Produce, &passing);
    timeout(PATIENCE, sink.publish(&batch(10)))
        .await
        .unwrap()
        .unwrap();
    let stats = sink.stats();
    assert_eq!((stats.rebuilds, stats.confirmed), (0, 11), "{stats:?}");
}

/// Holds: a batch that fails for a moment is stored before those behind it, by a broker that takes any sequence number, as
/// on a new partition.
#[tokio::test]
async fn a_failed_batch_goes_before_later_ones() {
    let (records, stored) = a_batch_fails(&[]).await;
    let published: Vec<Vec<u8>> = records.iter().map(|r| r.payload.to_vec()).collect();
    assert_eq!(stored, published);
}

/// Holds: where several are in flight nevertheless, a batch is not confirmed because a later one was, which is what
/// librdkafka concludes.
#[tokio::test]
async fn a_later_batch_confirms_no_earlier_one() {
    let several = ("max.in.flight", "5");
    let (records, stored) = a_batch_fails(&[several]).await;
    for record in &records {
        let there = stored.contains(&record.payload.to_vec());
        assert!(there, "{} is confirmed and not stored", record.id);
    }
}

/// Publishes some batches, the first of which fails once. What was confirmed, and what is stored.
async fn a_batch_fails(over: &[(&str, &str)]) -> (Vec<Record>, Vec<Vec<u8>>) {
    let cluster = cluster();
    // Each record is a batch.
    let small = [("batch.num.messages", "1"), ("linger.ms", "0")];
    let sink = sink(&cluster, &[&small, over].concat());
    let mut records = batch(1);
    sink.publish(&records).await.unwrap();
    cluster
        .broker_round_trip_time(ALL, Duration::from_millis(100))
        .unwrap();
    let failure = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    cluster.request_errors(RDKafkaApiKey::Produce, &[failure]);
    records.extend(batch(5));
    timeout(PATIENCE, sink.publish(&records[1..]))
        .await
        .unwrap()
        .unwrap();
    let stored = stored(&cluster).await;
    (records, stored)
}

/// The payloads that the cluster has, in order.
async fn stored(cluster: &Cluster) -> Vec<Vec<u8>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("group.id", "tests")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let mut partitions = TopicPartitionList::new();
    partitions
        .add_partition_offset("t", 0, Offset::Beginning)
        .unwrap();
    consumer.assign(&partitions).unwrap();
    let read = move || {
        let mut stored = Vec::new();
        loop {
            match consumer.poll(PATIENCE).unwrap() {
                Ok(message) => stored.push(message.payload().unwrap().to_vec()),
                Err(KafkaError::PartitionEOF(_)) => break,
                Err(_) => (),
            }
        }
        stored
    };
    spawn_blocking(read).await.unwrap()
}

/// Holds: a batch that is refused as a whole, for one that is not among its records any more, condemns none of them.
#[tokio::test]
async fn a_refused_batch_condemns_no_record() {
    let cluster = cluster();
    let sink = sink(&cluster, &[]);
    sink.publish(&batch(1)).await.unwrap();
    let refusal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
    cluster.request_errors(RDKafkaApiKey::Produce, &[refusal]);
    timeout(PATIENCE, sink.publish(&batch(10)))
        .await
        .unwrap()
        .unwrap();
    let stats = sink.stats();
    assert_eq!((stats.splits, stats.confirmed), (1, 11), "{stats:?}");
}

/// Holds: a call whose brokers answer and whose producer sends nothing is told as that, and goes on with a new producer.
#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_is_stuck_is_replaced() {
    let cluster = cluster();
    let linger = std::env::temp_dir().join(format!("rtm-linger-{}", std::process::id()));
    let mut options = KafkaOptions::new(vec![cluster.bootstrap_servers()]);
    options
        .option_files
        .insert("linger.ms".into(), linger.clone());
    // librdkafka sends nothing for a quarter of an hour. The next producer reads the file again.
    std::fs::write(&linger, "900000").unwrap();
    let sink = KafkaSink::new(options).unwrap();
    std::fs::write(&linger, "5").unwrap();
    let records = batch(10);
    let publishing = timeout(2 * PATIENCE, sink.publish(&records));
    let told = async {
        let is_told = async || {
            let said = sink.health().said.unwrap_or_default();
            said.contains("the brokers answer, and say nothing")
        };
        while !is_told().await {
            sleep(Duration::from_millis(100)).await;
        }
    };
    let told = timeout(Duration::from_secs(15), told);
    let (published, told) = tokio::join!(publishing, told);
    published.unwrap().unwrap();
    told.unwrap();
    std::fs::remove_file(&linger).unwrap();
    let stats = sink.stats();
    assert_eq!((stats.rebuilds, stats.confirmed), (1, 10), "{stats:?}");
    assert_eq!(stored(&cluster).await.len(), 10, "each once");
}

/// Holds: that a broker takes connections and says nothing is known before the first line of the log that a call waits, which
/// is written after 10 s.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_broker_is_told_in_time() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let sink = KafkaSink::new(KafkaOptions::new(vec![address.clone()])).unwrap();
    let records = batch(1);
    let waiting = sink.publish(&records);
    let told = async {
        sleep(Duration::from_millis(9500)).await;
        sink.health().said
    };
    let said = tokio::select! {
        _ = waiting => None,
        said = told => said,
    };
    let expected = format!("{address}: it takes connections, and does not answer in 3s");
    assert_eq!(said, Some(expected));
}

/// Holds: the reports of a dropped call, coming late, confirm nothing of the next one.
#[tokio::test]
async fn a_dropped_call_confirms_nothing_of_the_next() {
    let cluster = cluster();
    let sink = sink(&cluster, &[]);
    sink.publish(&batch(1)).await.unwrap();
    cluster
        .broker_round_trip_time(ALL, Duration::from_millis(500))
        .unwrap();
    let dropped = batch(10);
    assert!(
        timeout(Duration::from_millis(100), sink.publish(&dropped))
            .await
            .is_err()
    );
    // The dropped call's request has its answer on the way; the next request is refused.
    let refusal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    cluster.request_errors(RDKafkaApiKey::Produce, &[refusal]);
    let error = timeout(PATIENCE, sink.publish(&batch(10)))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.kind, PublishErrorKind::Misconfigured);
    assert_eq!(error.outcomes, vec![Outcome::Unknown; 10]);
    assert_eq!(
        sink.stats().confirmed,
        11,
        "the dropped call's records were stored all the same"
    );
}

/// Holds: a batch larger than librdkafka's queue goes through it.
#[tokio::test]
async fn a_full_queue_is_waited_for() {
    let cluster = cluster();
    let sink = sink(&cluster, &[("queue.buffering.max.messages", "100")]);
    timeout(PATIENCE, sink.publish(&batch(2000)))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(sink.stats().confirmed, 2000);
}

/// Holds: a call waits while the brokers are away, which shows; it ends well when they are back.
#[tokio::test]
async fn waiting_shows() {
    let cluster = cluster();
    let sink = sink(&cluster, &[]);
    sink.publish(&batch(1)).await.unwrap();
    assert!(sink.stats().up);
    cluster.broker_down(ALL).unwrap();
    let records = batch(10);
    let publishing = sink.publish(&records);
    let watching = async {
        while sink.stats().up {
            sleep(Duration::from_millis(10)).await;
        }
        let stats = sink.stats();
        assert!(
            // Errors of connections may wait beside them.
            stats.waiting_since.is_some() && stats.queued >= 10,
            "{stats:?}"
        );
        cluster.broker_up(ALL).unwrap();
    };
    // Well before a stall of 10 s would show.
    let watching = async { timeout(Duration::from_secs(5), watching).await.unwrap() };
    let (published, ()) = timeout(PATIENCE, async { tokio::join!(publishing, watching) })
        .await
        .unwrap();
    published.unwrap();
    let stats = sink.stats();
    assert!(stats.up && stats.waiting_since.is_none(), "{stats:?}");
}

/// Holds: closing ends a call in progress and the producer, and what comes later is unavailable.
#[tokio::test]
async fn closing_ends_calls_in_progress() {
    let cluster = cluster();
    let sink = sink(&cluster, &[]);
    cluster.broker_down(ALL).unwrap();
    let records = batch(10);
    let closing = async {
        while sink.stats().queued < 10 {
            sleep(Duration::from_millis(1)).await;
        }
        sink.close().await;
    };
    let both = async { tokio::join!(sink.publish(&records), closing).0 };
    let error = timeout(PATIENCE, both).await.unwrap().unwrap_err();
    assert_eq!(error.kind, PublishErrorKind::Unavailable);
    assert_eq!(error.outcomes, vec![Outcome::Unknown; 10]);
    assert_eq!(
        sink.publish(&records).await.unwrap_err().kind,
        PublishErrorKind::Unavailable
    );
}

/// Holds: dropping a sink does not block, whatever it still has queued.
#[tokio::test]
async fn dropping_does_not_block() {
    let cluster = cluster();
    cluster.broker_down(ALL).unwrap();
    let records = batch(10);
    let mut longest = Duration::ZERO;
    // librdkafka's thread looks up every 100 ms, so that a single one may well be lucky.
    for _ in 0..10 {
        let sink = sink(&cluster, &[]);
        assert!(
            timeout(Duration::from_millis(10), sink.publish(&records))
                .await
                .is_err()
        );
        let start = Instant::now();
        drop(sink);
        longest = longest.max(start.elapsed());
    }
    assert!(longest < Duration::from_millis(50), "it took {longest:?}");
}

/// Holds: a client that asks brokers ends aside, also where the call that asked is dropped meanwhile.
#[tokio::test]
async fn dropping_a_question_does_not_block() {
    let cluster = cluster();
    cluster.broker_down(ALL).unwrap();
    let producers = Producers::start(KafkaOptions::new(vec![cluster.bootstrap_servers()])).unwrap();
    let mut longest = Duration::ZERO;
    // librdkafka's thread looks up every 100 ms, so that a single one may well be lucky.
    for _ in 0..10 {
        let admin = producers.admin().await.unwrap();
        let mut asked = Box::pin(async move { of_topics(&admin, &["t".to_owned()]).await });
        assert!(timeout(Duration::ZERO, &mut asked).await.is_err());
        let start = Instant::now();
        drop(asked);
        longest = longest.max(start.elapsed());
    }
    assert!(longest < Duration::from_millis(50), "it took {longest:?}");
}

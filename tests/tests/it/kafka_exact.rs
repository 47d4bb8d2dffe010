//! Kafka stores records once and only once: whatever becomes of commits, partitions, topics and rights.
#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rtm_sink::conformance::{PATIENCE, assert_in_order, records};
use rtm_sink::{ProgressKey, PublishErrorKind, Sink, Topic};
use rtm_sink_kafka::{ExactOptions, KafkaOptions, KafkaSink, TopicSpec};
use rtm_tests::brokers::{
    self, CommitProxy, Door, Fault, Kafka, Operation, Right, SecureKafka, unique,
};
use rtm_tests::wait_for;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::kafka_access::{by, user};
use super::kafka_sink::{options, read};
use super::lanes::{LONG, key, publish_disturbed, recalled, store};

fn exact(progress: &str) -> ExactOptions {
    ExactOptions {
        progress_topic: progress.to_owned(),
        transactional_id_prefix: "exact".to_owned(),
    }
}

fn creating(options: KafkaOptions, progress: &str) -> KafkaOptions {
    KafkaOptions {
        exact: Some(exact(progress)),
        create_topics: Some(TopicSpec {
            partitions: 1,
            replication: 1,
        }),
        ..options
    }
}

/// A sink that creates nothing.
pub(super) fn sink(options: KafkaOptions, progress: &str) -> KafkaSink {
    KafkaSink::new(KafkaOptions {
        exact: Some(exact(progress)),
        ..options
    })
    .unwrap()
}

/// Holds: commits that are lost, late, repeated, or whose answers are, lose no record and store none twice, for readers of what
/// is committed.
#[tokio::test(flavor = "multi_thread")]
async fn commits_that_go_wrong_cost_nothing() {
    let (proxy, kafka) = CommitProxy::before_kafka().await.unwrap();
    let sink = creating(options(&kafka), &unique("progress"));
    let sink = Arc::new(KafkaSink::new(sink).unwrap());
    let topic = Topic::from(unique("commits"));
    kafka.create_topic(topic.as_str(), 3, &[]).await.unwrap();
    let mut count = 0;
    let ways = [
        (None, (25, 30)),
        (Some(Fault::Zombie), (40, 60)),
        (Some(Fault::BeforeTheNext), (20, 4)),
    ];
    for (only, how) in ways {
        if let Some(fault) = only {
            proxy.only(fault);
        }
        let published = publish_disturbed(&proxy, &sink, &topic, how).await;
        let held = read(&kafka, &topic).await;
        count += published.iter().map(Vec::len).sum::<usize>();
        for lane in &published {
            assert_in_order(&held, lane);
        }
        assert_eq!(held.len(), count, "each is stored once");
    }
}

/// Holds: a commit that the broker gets once more, of which the client can know nothing, loses no record: no progress is stored
/// without the records before it.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_comes_again_unseen_loses_nothing() {
    let (proxy, kafka) = CommitProxy::before_kafka().await.unwrap();
    let sink = creating(options(&kafka), &unique("progress"));
    let sink = Arc::new(KafkaSink::new(sink).unwrap());
    let topic = Topic::from(unique("echoes"));
    kafka.create_topic(topic.as_str(), 3, &[]).await.unwrap();
    proxy.only(Fault::Echo);
    let published = publish_disturbed(&proxy, &sink, &topic, (40, 60)).await;
    let held = read(&kafka, &topic).await.into_iter();
    let held: HashSet<Bytes> = held.map(|stored| stored.payload).collect();
    for record in published.iter().flatten() {
        assert!(held.contains(&record.payload), "{}", record.id);
    }
}

/// Holds: progress that another producer's open transaction hides is waited for, and never taken for what is not there.
#[tokio::test(flavor = "multi_thread")]
async fn what_others_have_open_hides_no_progress() {
    let kafka = brokers::kafka().await;
    let [progress, topic] = ["progress", "hidden"].map(unique);
    let compact = [("cleanup.policy", "compact")];
    kafka.create_topic(&progress, 1, &compact).await.unwrap();
    kafka.create_topic(&topic, 1, &[]).await.unwrap();
    let make = || sink(options(kafka), &progress);
    let (topic, key) = (Topic::from(topic), key(0));
    let first = make();
    let mut known = recalled(&first, &key).await;
    let mut other = kafka.client();
    other.set("transactional.id", unique("other"));
    let other: Arc<BaseProducer> = Arc::new(other.create().unwrap());
    let (opened, into) = (Arc::clone(&other), progress.clone());
    spawn_blocking(move || {
        opened.init_transactions(PATIENCE).unwrap();
        opened.begin_transaction().unwrap();
        let record = BaseRecord::<str, str>::to(&into)
            .key("other")
            .payload("open");
        opened.send(record).map_err(|(error, _)| error).unwrap();
        opened.flush(PATIENCE).unwrap();
    })
    .await
    .unwrap();
    store(&first, &key, &mut known, &records(&topic, 3)).await;
    let second = make();
    if let Ok(Ok(found)) = timeout(Duration::from_secs(2), second.recall(&key)).await {
        assert_eq!(found, known);
    }
    spawn_blocking(move || other.commit_transaction(PATIENCE).unwrap())
        .await
        .unwrap();
    assert_eq!(recalled(&second, &key).await, known);
}

/// Holds: a lane whose partition has no leader holds no other lane up for long, and its records are stored once when it has
/// one again.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_without_leader_holds_up_no_other_lane() {
    let mut pair = Kafka::start_pair().await.unwrap();
    let compact = [("cleanup.policy", "compact")];
    let state = "__transaction_state";
    pair[0]
        .create_topic_at(state, &[1], &compact)
        .await
        .unwrap();
    let progress = unique("progress");
    pair[0]
        .create_topic_at(&progress, &[1], &compact)
        .await
        .unwrap();
    let [good, bad] = ["good", "bad"].map(|name| Topic::from(unique(name)));
    for (topic, broker) in [(&good, 1), (&bad, 2)] {
        let name = topic.as_str();
        pair[0].create_topic_at(name, &[broker], &[]).await.unwrap();
    }
    let sink = sink(options(&pair[0]), &progress);
    let mut all = [Vec::new(), Vec::new()];
    let mut known = [None, None];
    for (lane, topic) in [&good, &bad].into_iter().enumerate() {
        assert_eq!(recalled(&sink, &key(lane)).await, None);
        let batch = records(topic, 10);
        store(&sink, &key(lane), &mut known[lane], &batch).await;
        all[lane].extend(batch);
    }
    // A commit is answered before all partitions know of it.
    wait_for("what is committed", PATIENCE, async || {
        read(&pair[0], &bad).await.len() == 10
    })
    .await
    .unwrap();
    pair[1].kill().await.unwrap();
    let waiting = records(&bad, 10);
    let [known_good, known_bad] = &mut known;
    let went = {
        let (good_key, bad_key) = (key(0), key(1));
        let holding = store(&sink, &bad_key, known_bad, &waiting);
        tokio::pin!(holding);
        let going = async {
            let mut went = Vec::new();
            // More than fit between two ends of a call that takes 8 s to fail.
            let mut quick = 0;
            while quick < 100 {
                let batch = records(&good, 10);
                let begin = std::time::Instant::now();
                store(&sink, &good_key, known_good, &batch).await;
                quick = match begin.elapsed() < Duration::from_secs(2) {
                    true => quick + 1,
                    false => 0,
                };
                went.extend(batch);
                sleep(Duration::from_millis(100)).await;
            }
            went
        };
        let went = tokio::select! {
            went = going => went,
            () = &mut holding => panic!("stored without a leader"),
            () = sleep(LONG) => panic!("the other lane is held up"),
        };
        pair[1].restart().await.unwrap();
        timeout(LONG, holding).await.unwrap();
        went
    };
    all[0].extend(went);
    all[1].extend(waiting);
    for (topic, all) in [(&good, &all[0]), (&bad, &all[1])] {
        // A broker that is back does not show at once what is committed.
        let mut held = Vec::new();
        let shown = wait_for("what is committed", PATIENCE, async || {
            held = read(&pair[0], topic).await;
            held.len() >= all.len()
        });
        shown.await.unwrap();
        assert_eq!(held.len(), all.len(), "each is stored once in {topic:?}");
        assert_in_order(&held, all);
    }
}

/// Holds: progress is found where it was before the topic got more partitions, and again where it is stored from then on.
#[tokio::test(flavor = "multi_thread")]
async fn more_partitions_hide_no_progress() {
    let kafka = brokers::kafka().await;
    let [progress, topic] = ["progress", "grown"].map(unique);
    let compact = [("cleanup.policy", "compact")];
    kafka.create_topic(&progress, 1, &compact).await.unwrap();
    kafka.create_topic(&topic, 1, &[]).await.unwrap();
    let make = || sink(options(kafka), &progress);
    let (topic, key) = (Topic::from(topic), key(0));
    let sink = make();
    let mut known = recalled(&sink, &key).await;
    assert_eq!(known, None);
    store(&sink, &key, &mut known, &records(&topic, 3)).await;
    kafka.add_partitions(&progress, 2).await.unwrap();
    wait_for("the new partition", PATIENCE, async || {
        let consumer = kafka.partitions(&progress).await;
        consumer.is_ok_and(|partitions| partitions == 2)
    })
    .await
    .unwrap();
    for _ in 0..2 {
        let sink = make();
        assert_eq!(recalled(&sink, &key).await, known);
        store(&sink, &key, &mut known, &records(&topic, 3)).await;
    }
    assert_eq!(read(kafka, &topic).await.len(), 9);
}

/// Holds: a progress topic that forgets, and one that is missing, hold the sink, in words that say what to do.
#[tokio::test(flavor = "multi_thread")]
async fn a_progress_topic_that_cannot_carry_it_is_told() {
    let kafka = brokers::kafka().await;
    let [missing, forgets] = ["missing", "forgets"].map(unique);
    kafka.create_topic(&forgets, 1, &[]).await.unwrap();
    for (progress, word) in [
        (&missing, "create it with cleanup.policy=compact"),
        (&forgets, "its cleanup.policy is `delete`"),
    ] {
        let sink = sink(options(kafka), progress);
        let error = timeout(PATIENCE, sink.recall(&key(0))).await.unwrap();
        let error = error.unwrap_err();
        assert_eq!(error.kind, PublishErrorKind::Misconfigured, "{error:?}");
        let said = error.source.to_string();
        assert!(
            said.contains(word) && said.contains(progress.as_str()),
            "{said}"
        );
        let reached = sink.check(&[]).await.unwrap();
        let told = reached.exact.unwrap().unwrap_err();
        assert!(told.contains("cleanup.policy"), "{told}");
    }
}

/// Holds: what the documentation calls needed is enough, and each right that is missing is told.
#[tokio::test(flavor = "multi_thread")]
async fn rights_are_told_and_enough() {
    let broker = brokers::secure_kafka().await;
    let kafka = broker.kafka();
    let [progress, topic] = ["progress", "allowed"].map(unique);
    let compact = [("cleanup.policy", "compact")];
    kafka.create_topic(&progress, 1, &compact).await.unwrap();
    kafka.create_topic(&topic, 1, &[]).await.unwrap();
    let who = SecureKafka::OTHERS[2];
    let prefix = unique("rights");
    let make = || {
        let base = by(broker, Door::SaslTls, "ca.pem");
        let base = user(base, "PLAIN", who, SecureKafka::PASSWORD);
        KafkaSink::new(KafkaOptions {
            exact: Some(ExactOptions {
                transactional_id_prefix: prefix.clone(),
                ..exact(&progress)
            }),
            ..base
        })
        .unwrap()
    };
    let told = async |word: &str| {
        wait_for(word, PATIENCE, async || {
            let sink = make();
            let Err(error) = sink.recall(&key(0)).await else {
                return false;
            };
            let said = error.source.to_string();
            error.kind == PublishErrorKind::Misconfigured && said.contains(word)
        })
        .await
        .unwrap();
    };
    // Where there is nothing to be read, nothing is refused.
    let admin = by(broker, Door::SaslTls, "ca.pem");
    let admin = user(admin, "PLAIN", SecureKafka::ADMIN, SecureKafka::PASSWORD);
    let admin = KafkaSink::new(creating(admin, &progress)).unwrap();
    let others = ProgressKey {
        journal: 1,
        ..key(0)
    };
    store(&admin, &others, &mut None, &[]).await;
    told("not authorised").await;
    let grant = async |topic: &str, operation| {
        let right = Right {
            user: who,
            topic,
            operation,
        };
        kafka.grant(right).await.unwrap();
    };
    grant(&progress, Operation::Write).await;
    told("transactional").await;
    kafka.grant_transactions(who, &prefix).await.unwrap();
    told("read the progress topic").await;
    grant(&progress, Operation::Read).await;
    grant(&topic, Operation::Write).await;
    let sink = make();
    let topic = Topic::from(topic);
    let mut known = recalled(&sink, &key(0)).await;
    store(&sink, &key(0), &mut known, &records(&topic, 5)).await;
    assert_eq!(read(kafka, &topic).await.len(), 5);
    let reached = sink.check(&[topic.as_str()]).await.unwrap();
    assert_eq!(reached.exact, Some(Ok("1 partition(s)".to_owned())));
}

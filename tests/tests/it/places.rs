//! Places that take nothing, at real brokers.
#![allow(clippy::unwrap_used)]

use rtm_sink::conformance::{PATIENCE, records};
use rtm_sink::{Outcome, PublishErrorKind, Record, Sink, Topic};
use rtm_sink_kafka::KafkaSink;
use rtm_tests::brokers::{self, unique};
use tokio::time::timeout;

use super::kafka_sink::options;

/// Holds: a topic that refuses every record, as a compacted one does without keys, is told after twenty of a thousand, and
/// not record by record: whoever publishes can stop. What was not tried is of unknown outcome.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_takes_nothing_is_told_soon() {
    let kafka = brokers::kafka().await;
    let name = unique("compacted");
    let settings = [("cleanup.policy", "compact")];
    kafka.create_topic(&name, 1, &settings).await.unwrap();
    let sink = KafkaSink::new(options(kafka)).unwrap();
    let keyless = |record: Record| Record {
        key: None,
        ..record
    };
    let records = records(&Topic::from(name.as_str()), 1000);
    let records: Vec<Record> = records.into_iter().map(keyless).collect();
    let published = timeout(PATIENCE, sink.publish(&records)).await.unwrap();
    let error = published.unwrap_err();
    assert_eq!(error.kind, PublishErrorKind::Rejected);
    let of = |wanted: fn(&Outcome) -> bool| error.outcomes.iter().filter(|one| wanted(one)).count();
    assert_eq!(of(|one| matches!(one, Outcome::Rejected(_))), 20);
    assert_eq!(of(|one| *one == Outcome::Unknown), 980);
}

//! NATS stores records once and only once, whatever becomes of the last message of a batch.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use async_nats::jetstream::stream::Config;
use rtm_sink::conformance::{Stored, assert_in_order};
use rtm_sink_nats::{NatsOptions, NatsSink};
use rtm_tests::brokers::{self, CommitProxy, Fault, NatsRecord};

use super::lanes::publish_disturbed;
use super::nats_sink::{Mode, id_of, options, own_jetstream, stored_records, topic};

/// Holds: batches whose last message is lost, late, repeated, or whose answers are, lose no record, and store none twice; also
/// where it comes on another connection after the batch was published again.
#[tokio::test(flavor = "multi_thread")]
async fn commits_that_go_wrong_cost_nothing() {
    let nats = brokers::nats().await;
    let jetstream = own_jetstream(nats, Config::default()).await;
    let (proxy, url) = CommitProxy::before_nats(nats).await.unwrap();
    let progress = format!("{jetstream}.progress.{{journal}}.{{sink}}.{{app_id}}");
    let sink = NatsSink::connect(NatsOptions {
        servers: vec![url],
        progress_subject: Some(progress),
        ..options(nats, &jetstream, Mode::Batches)
    });
    let sink = Arc::new(sink.await.unwrap());
    let topic = topic(&jetstream, "events");
    let mut count = 0;
    // A connection that was cut is made again after up to 4 s: few are.
    for (only, how) in [(None, (25, 12)), (Some(Fault::Zombie), (40, 8))] {
        if let Some(fault) = only {
            proxy.only(fault);
        }
        let published = publish_disturbed(&proxy, &sink, &topic, how).await;
        let held = stored_records(nats, &jetstream).await;
        let held: Vec<Stored> = held.into_iter().map(stored).collect();
        count += published.iter().map(Vec::len).sum::<usize>();
        for lane in &published {
            assert_in_order(&held, lane);
        }
        assert_eq!(held.len(), count, "each is stored once");
    }
}

fn stored(record: NatsRecord) -> Stored {
    Stored {
        id: Some(id_of(&record)),
        payload: record.payload,
        ..Stored::default()
    }
}

//! One transaction: the records, the progress, and the end.

use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::Producer;
use rtm_sink::{Progress, Record, RecordId, Timestamp, Topic};
use tokio::task::spawn_blocking;

use super::begin::Open;
use crate::producer::Live;
use crate::producers::Producers;
use crate::publish::{Group, send};
use crate::reports::{Call, Slot};

/// How long a commit may take to be answered.
const COMMIT: Duration = Duration::from_secs(10);

/// How long an abort may take, which only spares the next producer a wait.
const ABORT: Duration = Duration::from_secs(1);

/// librdkafka counts a record for a little longer than it takes to report it.
const COUNTED: Duration = Duration::from_micros(200);

/// Why a transaction is not stored for certain.
pub(super) enum Unstored {
    /// What became of the records. The transaction was not ended, and nothing can end it but the next producer.
    Undelivered(Vec<Slot>),
    /// As before, for what became of the progress.
    NoProgress(RDKafkaErrorCode),
    /// The commit may have happened, or may yet.
    Doubt(String),
}

/// Sends all records, then all progress, each once all before it is acknowledged, and commits. Begins the next transaction.
pub(super) async fn transact(
    producers: &Producers,
    open: &Open,
    call: &Call<'_>,
    records: &[Record],
    progress: &[Progress],
    topic: &str,
) -> Result<(), Unstored> {
    let live = &open.live;
    if !records.is_empty() {
        let attempt = call.attempt(records.len());
        let all = Group::of_all(records.len());
        send(producers, live, records, &all, &attempt).await;
        while !attempt.is_settled() && live.failure().is_none() {
            attempt.changed().await;
        }
        let slots = attempt.into_slots();
        if slots.iter().any(|slot| *slot != Slot::Confirmed) {
            return Err(Unstored::Undelivered(slots));
        }
    }
    let attempt = call.attempt(progress.len());
    let topic = Topic::from(topic.to_owned());
    for (index, one) in progress.iter().enumerate() {
        let record = record(&topic, one);
        let sent = live.send(&record, Some(open.partition), attempt.opaque(index));
        if let Err(code) = sent {
            return Err(Unstored::NoProgress(code));
        }
    }
    while !attempt.is_settled() && live.failure().is_none() {
        attempt.changed().await;
    }
    for slot in attempt.into_slots() {
        match slot {
            Slot::Confirmed => {}
            Slot::Failed(code) | Slot::NotTaken(code) => return Err(Unstored::NoProgress(code)),
            Slot::Pending | Slot::NotSent => {
                let code = live.failure().map(|failure| failure.code);
                let code = code.unwrap_or(RDKafkaErrorCode::Unknown);
                return Err(Unstored::NoProgress(code));
            }
        }
    }
    let committed = Arc::clone(live);
    let took = spawn_blocking(move || commit(&committed)).await;
    let took = took.unwrap_or(Err(KafkaError::Canceled));
    let took = took.map_err(|error| Unstored::Doubt(format!("the commit has failed: {error}")))?;
    match took < open.doubt {
        true => Ok(()),
        false => Err(Unstored::Doubt(format!(
            "the commit took {took:?}, in which it may have been sent twice"
        ))),
    }
}

/// Commits, and begins the next transaction. Tells how long the commit took. Blocks.
fn commit(live: &Live) -> Result<Duration, KafkaError> {
    let begin = Instant::now();
    // A commit with anything in flight takes 100 ms.
    while live.queued() > 0 && begin.elapsed() < COMMIT {
        sleep(COUNTED);
    }
    let begin = Instant::now();
    live.producer().commit_transaction(COMMIT)?;
    let took = begin.elapsed();
    if live.producer().begin_transaction().is_err() {
        live.give_up("it begins no transaction");
    }
    Ok(took)
}

/// Ends what is open, which spares the next producer half a second.
pub(super) async fn abort(live: Arc<Live>) {
    let abort = move || {
        // The next producer ends it all the same.
        drop(live.producer().abort_transaction(ABORT));
    };
    drop(spawn_blocking(abort).await);
}

/// The record that stores progress.
fn record(topic: &Topic, progress: &Progress) -> Record {
    Record {
        id: RecordId {
            epoch: 0,
            position: 0,
            offset: 0,
        },
        topic: topic.clone(),
        key: Some(progress.key.to_string().into()),
        timestamp: Timestamp(0),
        headers: Vec::new(),
        payload: progress.value.clone(),
    }
}

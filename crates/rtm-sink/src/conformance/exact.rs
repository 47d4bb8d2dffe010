//! The cases of a sink that stores records once and only once.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::time::{sleep, timeout};

use super::{AWAY, PATIENCE, Rig, assert_in_order, ids, patient, record, records};
use crate::{ExactLimits, Outcome, Progress, ProgressKey, PublishErrorKind, Record, Sink};
use std::time::Duration;

/// Runs every case, one after the other, and returns the names of those that the rig cannot do.
///
/// # Panics
///
/// When the sink breaks its contract.
pub async fn run<R: Rig>(rig: &R) -> Vec<&'static str> {
    let mut left_out = Vec::new();
    macro_rules! case {
        ($name:literal, $case:ident) => {
            eprintln!("conformance: {}", $name);
            if Box::pin($case(rig)).await.is_none() {
                left_out.push($name);
            }
        };
    }
    case!(
        "records and progress are stored in one",
        stored_with_progress
    );
    case!("all of a call is stored or nothing", all_or_nothing);
    case!("two clients publish one lane", two_clients);
    case!("a call is dropped", dropped_call);
    case!("many lanes at the same time", many_lanes);
    case!("the broker is away", broker_away);
    left_out
}

/// A lane that no other case has.
fn key() -> ProgressKey {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let lane = format!("lane-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    ProgressKey {
        journal: u128::from(record(&"epoch".into(), 0).id.epoch) << 64 | 7,
        sink: "sink".into(),
        lane: lane.into(),
    }
}

fn progress(key: &ProgressKey, value: &str) -> Progress {
    Progress {
        key: key.clone(),
        value: Bytes::copy_from_slice(value.as_bytes()),
    }
}

fn limits<S: Sink>(sink: &S) -> ExactLimits {
    sink.exact().expect("it stores records once and only once")
}

async fn recalled<S: Sink>(sink: &S, key: &ProgressKey) -> Option<String> {
    let value = timeout(PATIENCE, async {
        loop {
            match sink.recall(key).await {
                Ok(value) => return value,
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    });
    let value = value.await.expect("the progress is told in time")?;
    Some(String::from_utf8(value.to_vec()).expect("text"))
}

async fn store<S: Sink>(sink: &S, records: &[Record], key: &ProgressKey, value: &str) {
    let stored = patient(sink.publish_exactly(records, &progress(key, value))).await;
    stored.expect("stored");
}

/// Holds: what is confirmed is stored once, in order, and recalled, also from another client, whatever the size of the call.
async fn stored_with_progress<R: Rig>(rig: &R) -> Option<()> {
    let sink = rig.exact().await?;
    let topic = rig.topic("stored_with_progress").await;
    let (key, most) = (key(), limits(&sink).records as u64);
    assert_eq!(recalled(&sink, &key).await, None, "nothing is known of it");
    let mut all = Vec::new();
    for (n, count) in [1, most, 0, most - 1, 7].into_iter().enumerate() {
        let batch = records(&topic, count);
        store(&sink, &batch, &key, &format!("progress {n}")).await;
        all.extend(batch);
        assert_eq!(recalled(&sink, &key).await, Some(format!("progress {n}")));
    }
    let other = rig.exact().await?;
    assert_eq!(recalled(&other, &key).await.as_deref(), Some("progress 4"));
    let stored = patient(rig.stored(&topic)).await;
    assert_eq!(stored.len(), all.len(), "each is stored once");
    assert_in_order(&stored, &all);
    Some(())
}

/// Holds: with one record that is refused nothing is stored, wherever it stands, and the progress stays.
async fn all_or_nothing<R: Rig>(rig: &R) -> Option<()> {
    let topic = rig.topic("all_or_nothing").await;
    rig.refused(&topic)?;
    let sink = rig.exact().await?;
    let key = key();
    recalled(&sink, &key).await;
    store(&sink, &[record(&topic, 0)], &key, "before").await;
    for at in [0, 20, 40] {
        let mut batch = records(&topic, 40);
        batch.insert(at, rig.refused(&topic)?);
        // A broker that does not say which it is is given fewer, as the bridge does.
        let mut part = &batch[..];
        loop {
            let error = patient(sink.publish_exactly(part, &progress(&key, "refused"))).await;
            let error = error.expect_err("one of them is refused");
            assert_eq!(error.kind, PublishErrorKind::Rejected, "{error:?}");
            assert!(!error.outcomes.contains(&Outcome::Confirmed));
            if !error.is_of_the_whole() {
                let rejected: Vec<usize> = (0..part.len())
                    .filter(|index| matches!(error.outcomes[*index], Outcome::Rejected(_)))
                    .collect();
                assert_eq!(rejected.len(), 1, "{error:?}");
                assert_eq!(part[rejected[0]].id, batch[at].id);
                break;
            }
            assert!(part.len() > 1, "one record alone is told apart");
            let (one, other) = part.split_at(part.len() / 2);
            let is_first = one.iter().any(|record| record.id == batch[at].id);
            part = if is_first { one } else { other };
        }
        assert_eq!(recalled(&sink, &key).await.as_deref(), Some("before"));
        assert_eq!(patient(rig.stored(&topic)).await.len(), 1);
    }
    let batch = records(&topic, 40);
    store(&sink, &batch, &key, "after").await;
    assert_eq!(patient(rig.stored(&topic)).await.len(), 41);
    Some(())
}

/// Holds: of two clients that publish one lane the one that publishes later on older knowledge stores nothing, until it has
/// read what the other has published.
async fn two_clients<R: Rig>(rig: &R) -> Option<()> {
    let (old, new) = (rig.exact().await?, rig.exact().await?);
    let topic = rig.topic("two_clients").await;
    let key = key();
    assert_eq!(recalled(&old, &key).await, None);
    store(&old, &[record(&topic, 0)], &key, "old").await;
    assert_eq!(recalled(&new, &key).await.as_deref(), Some("old"));
    store(&new, &[record(&topic, 1)], &key, "new").await;
    let late = patient(old.publish_exactly(&records(&topic, 30), &progress(&key, "late"))).await;
    let error = late.expect_err("it knows less than the broker");
    assert_ne!(error.kind, PublishErrorKind::Rejected, "{error:?}");
    assert_eq!(patient(rig.stored(&topic)).await.len(), 2);
    assert_eq!(recalled(&old, &key).await.as_deref(), Some("new"));
    store(&old, &[record(&topic, 2)], &key, "again").await;
    assert_eq!(patient(rig.stored(&topic)).await.len(), 3);
    Some(())
}

/// Holds: a call that is dropped is stored whole or not at all, and what is recalled says which.
async fn dropped_call<R: Rig>(rig: &R) -> Option<()> {
    let sink = rig.exact().await?;
    let topic = rig.topic("dropped_exact_call").await;
    let key = key();
    recalled(&sink, &key).await;
    let mut all = Vec::new();
    let mut known = "begin".to_owned();
    store(&sink, &[], &key, &known).await;
    for round in 0..20 {
        // From not polled at all to done: the moment matters, and nobody knows the right one.
        let cut = Duration::from_micros(if round == 0 { 0 } else { 50 << (round / 2) });
        let batch = records(&topic, 100);
        let value = format!("round {round}");
        let _ = timeout(cut, sink.publish_exactly(&batch, &progress(&key, &value))).await;
        // What is on its way may come behind what is recalled: then the next call is refused, and it is recalled again.
        loop {
            let found = recalled(&sink, &key).await.expect("some progress");
            if found != value {
                assert_eq!(found, known);
                let again = progress(&key, &value);
                if patient(sink.publish_exactly(&batch, &again)).await.is_err() {
                    continue;
                }
            }
            break;
        }
        known = value;
        all.extend(batch);
    }
    let stored = patient(rig.stored(&topic)).await;
    assert_eq!(stored.len(), all.len(), "each is stored once");
    assert_in_order(&stored, &all);
    Some(())
}

/// Holds: calls of many lanes at the same time are each stored once, and one that is refused harms no other.
async fn many_lanes<R: Rig>(rig: &R) -> Option<()> {
    const LANES: usize = 60;
    let sink = rig.exact().await?;
    let topic = rig.topic("many_lanes").await;
    let keys: Vec<ProgressKey> = (0..LANES).map(|_| key()).collect();
    for key in &keys {
        recalled(&sink, key).await;
    }
    let mut all = Vec::new();
    for round in 0..5 {
        let calls: Vec<(Vec<Record>, Progress)> = keys
            .iter()
            .enumerate()
            .map(|(lane, key)| {
                let mut batch = records(&topic, 20);
                for record in &mut batch {
                    record.key = Some(format!("lane-{lane}").into());
                }
                (batch, progress(key, &format!("round {round}")))
            })
            .collect();
        let refused = rig.refused(&topic);
        let is_refused = |lane: usize| lane == 30 && refused.is_some();
        let mut running = tokio::task::JoinSet::new();
        let sink = std::sync::Arc::new(rig.exact().await?);
        for key in &keys {
            recalled(&*sink, key).await;
        }
        for (lane, (mut batch, progress)) in calls.iter().cloned().enumerate() {
            if let Some(refused) = refused.clone().filter(|_| is_refused(lane)) {
                batch = vec![refused];
            }
            let sink = std::sync::Arc::clone(&sink);
            running.spawn(async move {
                let stored = patient(sink.publish_exactly(&batch, &progress)).await;
                (lane, stored.map_err(|error| error.kind))
            });
        }
        while let Some(done) = running.join_next().await {
            let (lane, stored) = done.expect("no panic");
            match is_refused(lane) {
                true => assert_eq!(stored, Err(PublishErrorKind::Rejected)),
                false => assert_eq!(stored, Ok(()), "lane {lane}"),
            }
        }
        let stored = calls.into_iter().enumerate();
        let stored = stored.filter(|(lane, _)| !is_refused(*lane));
        all.extend(stored.flat_map(|(_, (batch, _))| batch));
    }
    let stored = patient(rig.stored(&topic)).await;
    assert_eq!(stored.len(), all.len(), "each is stored once");
    assert_eq!(ids(&stored).len(), all.len());
    assert_in_order(&stored, &all);
    Some(())
}

/// Holds: nothing is confirmed while the broker is away, and afterwards each record is stored once.
async fn broker_away<R: Rig>(rig: &R) -> Option<()> {
    let sink = rig.exact().await?;
    let topic = rig.topic("broker_away_exactly").await;
    let key = key();
    recalled(&sink, &key).await;
    let before = records(&topic, 50);
    store(&sink, &before, &key, "before").await;
    rig.take_away().await?;
    let batch = records(&topic, 50);
    let while_away = progress(&key, "away");
    let publish = timeout(AWAY, sink.publish_exactly(&batch, &while_away)).await;
    assert!(
        !matches!(publish, Ok(Ok(()))),
        "confirmed while the broker is away"
    );
    rig.bring_back().await;
    let published = timeout(PATIENCE, async {
        loop {
            if recalled(&sink, &key).await.as_deref() == Some("away") {
                return;
            }
            let _ = sink.publish_exactly(&batch, &while_away).await;
        }
    });
    published.await.expect("published in time");
    let all = [before, batch].concat();
    let stored = patient(rig.stored(&topic)).await;
    assert_eq!(stored.len(), all.len(), "each is stored once");
    assert_in_order(&stored, &all);
    Some(())
}

//! Lanes that publish once and only once as the bridge does, while commits go wrong.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rtm_sink::conformance::records;
use rtm_sink::{Progress, ProgressKey, Record, Sink, Topic};
use rtm_tests::brokers::CommitProxy;
use rtm_tests::wait_for;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// How long some hundred commits may take, of which a quarter fail.
pub(super) const LONG: Duration = Duration::from_secs(180);

pub(super) fn key(lane: usize) -> ProgressKey {
    ProgressKey {
        journal: 0xfeed_0000_0000_0000_0000_0000_0000_0003,
        sink: "sink".into(),
        lane: format!("lane-{lane}").into(),
    }
}

pub(super) async fn recalled(sink: &impl Sink, key: &ProgressKey) -> Option<Bytes> {
    let recalling = async {
        loop {
            match sink.recall(key).await {
                Ok(found) => return found,
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    };
    timeout(LONG, recalling).await.unwrap()
}

/// Stores the records as the bridge does: after any error it looks what the broker knows.
pub(super) async fn store(
    sink: &impl Sink,
    key: &ProgressKey,
    known: &mut Option<Bytes>,
    batch: &[Record],
) {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let value: Bytes = NEXT.fetch_add(1, Ordering::Relaxed).to_string().into();
    let progress = Progress {
        key: key.clone(),
        value,
    };
    while sink.publish_exactly(batch, &progress).await.is_err() {
        let found = recalled(sink, key).await;
        if found.as_ref() == Some(&progress.value) {
            break;
        }
        assert_eq!(&found, known, "nobody else publishes");
    }
    *known = Some(progress.value);
}

/// Three lanes publish while commits are disturbed, until `enough` of them were. What was published, by lane.
pub(super) async fn publish_disturbed<S: Sink>(
    proxy: &CommitProxy,
    sink: &Arc<S>,
    topic: &Topic,
    (percent, enough): (u32, u64),
) -> Vec<Vec<Record>> {
    let is_enough = Arc::new(AtomicBool::new(false));
    let mut lanes = JoinSet::new();
    let before = proxy.disturbed();
    proxy.disturb(percent);
    for lane in 0..3 {
        let (sink, topic) = (Arc::clone(sink), topic.clone());
        let is_enough = Arc::clone(&is_enough);
        lanes.spawn(async move {
            let key = key(lane);
            let mut known = recalled(&*sink, &key).await;
            let mut all = Vec::new();
            while !is_enough.load(Ordering::Relaxed) {
                let mut batch = records(&topic, 30);
                for record in &mut batch {
                    record.key = Some(format!("lane-{lane}").into());
                }
                store(&*sink, &key, &mut known, &batch).await;
                all.extend(batch);
            }
            all
        });
    }
    wait_for("many disturbed commits", LONG, async || {
        proxy.disturbed() >= before + enough
    })
    .await
    .unwrap();
    proxy.disturb(0);
    is_enough.store(true, Ordering::Relaxed);
    timeout(LONG, lanes.join_all()).await.unwrap()
}

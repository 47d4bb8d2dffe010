#![allow(clippy::unwrap_used)]

use std::sync::Mutex;

use tokio::sync::Notify;

use super::*;
use crate::{RecordId, Timestamp, Topic};

const LIMITS: ExactLimits = ExactLimits {
    records: 10,
    bytes: 1 << 20,
};

/// Stores what it is told, and notes the lanes of each commit. The lane `bad` spoils whatever it is in.
struct Noting {
    commits: Arc<Mutex<Vec<Vec<String>>>>,
    go: Arc<Notify>,
    alone: PublishErrorKind,
}

impl Commit for Noting {
    async fn commit(
        &mut self,
        records: &[Record],
        progress: &[Progress],
        whose: &[Range<usize>],
    ) -> Result<(), PublishError> {
        assert_eq!(whose.len(), progress.len());
        assert_eq!(whose.last().map_or(0, |last| last.end), records.len());
        self.go.notified().await;
        let lanes: Vec<String> = progress
            .iter()
            .map(|one| one.key.lane.to_string())
            .collect();
        if lanes.iter().any(|lane| lane == "panics") {
            self.go.notify_one();
            panic!("as the test wants");
        }
        let is_bad = lanes.iter().any(|lane| lane == "bad");
        self.commits.lock().unwrap().push(lanes);
        self.go.notify_one();
        match (is_bad, progress.len()) {
            (false, _) => Ok(()),
            (true, 1) => Err(PublishError::unknown(self.alone, records.len(), "alone")),
            (true, _) => {
                let kind = PublishErrorKind::Rejected;
                Err(PublishError::unknown(kind, records.len(), "one of them"))
            }
        }
    }

    async fn recall(&mut self, key: &ProgressKey) -> Result<Option<Bytes>, PublishError> {
        assert_ne!(&*key.lane, "panics");
        Ok(Some(Bytes::from_static(b"known")))
    }

    fn panicked(&mut self) {
        self.commits
            .lock()
            .unwrap()
            .push(vec!["panicked".to_owned()]);
    }
}

fn call(lane: &str, records: usize) -> (Vec<Record>, Progress) {
    let record = Record {
        id: RecordId {
            epoch: 1,
            position: 1,
            offset: 1,
        },
        topic: Topic::from("t"),
        key: None,
        timestamp: Timestamp(0),
        headers: Vec::new(),
        payload: Bytes::new(),
    };
    let progress = Progress {
        key: ProgressKey {
            journal: 1,
            sink: "s".into(),
            lane: lane.into(),
        },
        value: Bytes::new(),
    };
    (vec![record; records], progress)
}

/// What becomes of calls that all wait when the first is let go, and which lanes were stored together.
async fn run(
    calls: &[(&str, usize)],
    alone: PublishErrorKind,
) -> (Vec<Option<PublishErrorKind>>, Vec<Vec<String>>) {
    let (commits, go) = (Arc::default(), Arc::new(Notify::new()));
    let noting = Noting {
        commits: Arc::clone(&commits),
        go: Arc::clone(&go),
        alone,
    };
    let group = Arc::new(GroupCommit::new(noting, LIMITS));
    let mut running = Vec::new();
    for (lane, records) in calls {
        let (records, progress) = call(lane, *records);
        let group = Arc::clone(&group);
        running.push(tokio::spawn(async move {
            let stored = group.publish(&records, &progress).await;
            stored.err().map(|error| {
                assert_eq!(error.outcomes.len(), records.len());
                error.kind
            })
        }));
        // Each is there before the next, and the first is on its way.
        tokio::task::yield_now().await;
    }
    go.notify_one();
    let mut outcomes = Vec::new();
    for one in running {
        outcomes.push(one.await.unwrap());
    }
    let commits = commits.lock().unwrap().clone();
    (outcomes, commits)
}

fn lanes(commits: &[&[&str]]) -> Vec<Vec<String>> {
    let owned = |lanes: &&[&str]| lanes.iter().map(|lane| (*lane).to_owned()).collect();
    commits.iter().map(owned).collect()
}

/// Holds: calls that wait are stored together, as many as one commit may hold, each lane's progress counted.
#[tokio::test]
async fn what_waits_is_stored_together() {
    let calls = [("a", 1), ("b", 4), ("c", 4), ("d", 1)];
    let (outcomes, commits) = run(&calls, PublishErrorKind::Misconfigured).await;
    assert_eq!(outcomes, [None; 4]);
    assert_eq!(commits, lanes(&[&["a"], &["b", "c"], &["d"]]));
}

/// Holds: one lane that is refused, or may not publish, takes nothing from the others.
#[tokio::test]
async fn a_bad_lane_harms_no_other() {
    let calls = [("a", 1), ("b", 1), ("bad", 1), ("c", 1)];
    for alone in [PublishErrorKind::Misconfigured, PublishErrorKind::Rejected] {
        let (outcomes, commits) = run(&calls, alone).await;
        assert_eq!(outcomes, [None, None, Some(alone), None]);
        let apart: [&[&str]; 5] = [&["a"], &["b", "bad", "c"], &["b"], &["bad"], &["c"]];
        assert_eq!(commits, lanes(&apart));
    }
}

/// Holds: once the broker is away, calls that are taken apart do not wait for it one after the other.
#[tokio::test]
async fn a_broker_that_is_away_is_not_waited_for_by_each() {
    let calls = [("a", 1), ("b", 1), ("bad", 1), ("c", 1), ("d", 1)];
    let (outcomes, commits) = run(&calls, PublishErrorKind::Unavailable).await;
    let away = Some(PublishErrorKind::Unavailable);
    assert_eq!(outcomes, [None, None, away, away, away]);
    let apart: [&[&str]; 4] = [&["a"], &["b", "bad", "c", "d"], &["b"], &["bad"]];
    assert_eq!(commits, lanes(&apart));
}

/// Holds: a panic leaves the calls in doubt that it met, and no other; what comes later is stored, and recalled.
#[tokio::test]
async fn a_panic_ends_the_calls_that_it_meets() {
    let calls = [("a", 1), ("b", 1), ("panics", 1), ("c", 8), ("d", 1)];
    let (outcomes, commits) = run(&calls, PublishErrorKind::Rejected).await;
    let in_doubt = Some(PublishErrorKind::Unavailable);
    assert_eq!(outcomes, [None, in_doubt, in_doubt, None, None]);
    let rest: [&[&str]; 3] = [&["a"], &["panicked"], &["c", "d"]];
    assert_eq!(commits, lanes(&rest));

    let noting = Noting {
        commits: Arc::default(),
        go: Arc::default(),
        alone: PublishErrorKind::Rejected,
    };
    let group = GroupCommit::new(noting, LIMITS);
    let key = |lane| call(lane, 0).1.key;
    let error = group.recall(&key("panics")).await.unwrap_err();
    assert_eq!(error.kind, PublishErrorKind::Unavailable);
    assert!(group.recall(&key("a")).await.unwrap().is_some());
}

/// Holds: a call that is dropped before its turn stores nothing, and a recall comes after what was given before it.
#[tokio::test]
async fn a_dropped_call_stores_nothing() {
    let (commits, go) = (Arc::default(), Arc::new(Notify::new()));
    let noting = Noting {
        commits: Arc::clone(&commits),
        go: Arc::clone(&go),
        alone: PublishErrorKind::Unavailable,
    };
    let group = GroupCommit::new(noting, LIMITS);
    let (first, second) = (call("a", 1), call("b", 1));
    let mut one = Box::pin(group.publish(&first.0, &first.1));
    let mut two = Box::pin(group.publish(&second.0, &second.1));
    assert!(futures_poll(&mut one).await && futures_poll(&mut two).await);
    drop(two);
    go.notify_one();
    one.await.unwrap();
    let known = group.recall(&first.1.key).await.unwrap();
    assert_eq!(known.as_deref(), Some(&b"known"[..]));
    assert_eq!(*commits.lock().unwrap(), lanes(&[&["a"]]));
}

/// Polls once, lets the worker run, and says whether it waits.
async fn futures_poll<T>(future: &mut (impl Future<Output = T> + Unpin)) -> bool {
    let waits = std::future::poll_fn(|context| {
        let polled = std::pin::Pin::new(&mut *future).poll(context);
        std::task::Poll::Ready(polled.is_pending())
    });
    let waits = waits.await;
    tokio::task::yield_now().await;
    waits
}

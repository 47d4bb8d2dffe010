//! Polling loops over a journal that is driven by hand, and over sources that answer as told.

use std::sync::Mutex;

use futures::poll as poll_once;
use rtm_journal::sim::SimDisk;
use rtm_journal::{Driver, Journal, LaneName, Options};
use rtm_source::{Region, Stream};

use super::*;
use crate::pipeline::Account;
use crate::plan::AppPlan;
use crate::status::State;
use crate::status::metrics::Metrics;

/// A source that answers every request alike, and notes when they were sent.
#[derive(Clone)]
struct Answering {
    rings: Vec<Ring>,
    status: u16,
    retry_after: Option<Duration>,
    sent: Arc<Mutex<Vec<Instant>>>,
}

impl Fetch for Answering {
    fn rings(&self) -> &[Ring] {
        &self.rings
    }

    async fn fetch(&self, ring: &Ring, slot: Slot) -> Result<Page, FetchError> {
        lock(&self.sent).push(Instant::now());
        slot.using(async {
            let mut headers = rtm_source::HeaderMap::new();
            if let Some(after) = self.retry_after {
                headers.insert("retry-after", after.as_secs().into());
            }
            let response = rtm_source::Response {
                status: self.status,
                headers,
                body: r#"{"result":"success","events":[]}"#.into(),
                ending: rtm_source::Ending::Closed,
            };
            response.judge(ring, jiff::Timestamp::UNIX_EPOCH)
        })
        .await
    }
}

fn source(regions: &[&str], status: u16, retry_after: Option<u64>) -> Answering {
    let rings = regions.iter().flat_map(|region| {
        let region = Arc::new(Region::builtin(region).unwrap());
        Stream::ALL.map(|stream| Ring {
            region: Arc::clone(&region),
            stream,
        })
    });
    Answering {
        rings: rings.collect(),
        status,
        retry_after: retry_after.map(Duration::from_secs),
        sent: Arc::default(),
    }
}

/// A process with one App ID.
struct Life {
    disk: Arc<SimDisk>,
    driver: Driver,
    account: Account,
    state: State,
}

impl Life {
    fn begin(disk: Arc<SimDisk>) -> Life {
        let options = Options {
            min_free_bytes: 0,
            ..Options::default()
        };
        let (journal, driver) = Journal::open_driven(Arc::clone(&disk), options).unwrap();
        let lane = journal.lane(&LaneName::try_from("0a1b").unwrap()).unwrap();
        let account = Account::new(lane, 10, false, Duration::ZERO, journal.epoch());
        let state = State::new(journal, Arc::new(Metrics::new("1", "c")));
        Life {
            disk,
            driver,
            account,
            state,
        }
    }

    fn pipeline(&self, source: Answering) -> Pipeline<Answering> {
        let plan = AppPlan {
            name: "main".to_owned(),
            app_id: "0a1b".to_owned(),
            paused: false,
            requests_per_second: 10,
            copy_rule: None,
            source: (),
        };
        Pipeline::new(&plan, source, self.account.clone())
    }

    /// What the death of the process before has cost, and what all have.
    async fn cost(&mut self) -> (Option<u64>, u64) {
        let metrics = Metrics::new("1", "c");
        let rings = source(&["eu-west-1"], 200, None).rings;
        let begin = self.account.losses.begin("main", &rings, &metrics);
        let crashed = self.driver.run_during(begin).await;
        (
            crashed.map(|crash| crash.events()),
            self.account.losses.ever(),
        )
    }
}

/// Holds: a stop while the first mark is being stored, before any request, is no crash; and what the death of the process
/// before has cost is counted once all the same.
#[tokio::test(start_paused = true)]
async fn a_stop_during_the_first_mark_is_no_crash() {
    for crashed_before in [false, true] {
        let mut life = Life::begin(SimDisk::new(1));
        if crashed_before {
            assert_eq!(life.cost().await, (None, 0));
            life = Life::begin(life.disk.after_kill());
        }
        let pipeline = life.pipeline(source(&["eu-west-1"], 200, None));
        let sent = Arc::clone(&pipeline.source.sent);
        let state = life.state.add_app(&pipeline);
        let (told, pipelines) = watch::channel(Some(Arc::new(pipeline)));
        {
            let mut polling = std::pin::pin!(poll(pipelines, state));
            assert!(poll_once!(&mut polling).is_pending(), "nobody has stored");
            told.send_replace(None);
            assert!(poll_once!(&mut polling).is_ready(), "it waits for the disk");
        }
        life.driver.run();
        assert!(lock(&sent).is_empty());
        let mut next = Life::begin(life.disk.after_kill());
        let cost = if crashed_before { 2 * PAGE } else { 0 };
        assert_eq!(next.cost().await, (None, cost));
    }
}

/// Holds: a reload that renews an App ID's source, and one that removes the App ID and brings it back, undo no hold after a
/// 429.
#[tokio::test(start_paused = true)]
async fn a_reload_undoes_no_hold() {
    for returns in [false, true] {
        let mut life = Life::begin(SimDisk::new(1));
        let first = life.pipeline(source(&["eu-west-1"], 429, Some(30)));
        let second = life.pipeline(source(&["us-east-1", "eu-west-1"], 200, None));
        let (refused, sent) = (
            Arc::clone(&first.source.sent),
            Arc::clone(&second.source.sent),
        );
        let state = life.state.add_app(&first);
        let (told, pipelines) = watch::channel(Some(Arc::new(first)));
        let (second, began) = (Arc::new(second), Instant::now());
        let polling = async {
            if !returns {
                return poll(pipelines, state).await;
            }
            poll(pipelines, Arc::clone(&state)).await;
            state.renew(&second);
            let (_told, pipelines) = watch::channel(Some(Arc::clone(&second)));
            poll(pipelines, state).await;
        };
        let reload = async {
            let polled = |sent: &Mutex<Vec<Instant>>| !lock(sent).is_empty();
            while !polled(&refused) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            told.send_replace((!returns).then(|| Arc::clone(&second)));
            while !polled(&sent) {
                assert!(
                    began.elapsed() < Duration::from_secs(90),
                    "it polls no more"
                );
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let both = async {
            tokio::select! {
                () = polling => panic!("it ends"),
                () = reload => {}
            }
        };
        life.driver.run_during(both).await;
        let held = lock(&sent)[0] - lock(&refused)[0];
        assert!(held >= Duration::from_secs(30), "{returns}: {held:?}");
    }
}

/// Holds: what the death of the last process may have cost is a recent loss from the first request on.
#[tokio::test(start_paused = true)]
async fn a_crash_is_a_recent_loss() {
    let mut life = Life::begin(SimDisk::new(1));
    assert_eq!(life.cost().await, (None, 0));
    let mut life = Life::begin(life.disk.after_kill());
    let pipeline = life.pipeline(source(&["eu-west-1"], 200, None));
    let sent = Arc::clone(&pipeline.source.sent);
    let state = life.state.add_app(&pipeline);
    let (_told, pipelines) = watch::channel(Some(Arc::new(pipeline)));
    let polled = async {
        while lock(&sent).is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let both = async {
        tokio::select! {
            () = poll(pipelines, state) => panic!("it ends"),
            () = polled => {}
        }
    };
    life.driver.run_during(both).await;
    let now = life.state.snapshot();
    assert_eq!(now.apps[0].crash_lost_recently, 2 * PAGE);
    let of_rings = now.rings.iter().map(|ring| ring.possibly_lost_recently);
    assert_eq!(Vec::from_iter(of_rings), [PAGE, PAGE]);
}

/// Holds: that requests of a ring are not sent is said at once, once a minute while they fail alike, with how often, and at
/// once when they fail for another reason. Each ring says it for itself.
#[tokio::test(start_paused = true)]
async fn what_is_not_sent_is_said_once_a_minute() {
    let life = Life::begin(SimDisk::new(1));
    let pipeline = life.pipeline(source(&["eu-west-1"], 200, None));
    let state = life.state.add_app(&pipeline);
    let rings = pipeline.source.rings;
    let error =
        |why: &str| FetchError::no_response(rtm_source::NoResponse::Request, Some(why.into()));
    let (absent, other) = (error("no such file"), error("permission denied"));
    assert_eq!(absent.kind, FetchErrorKind::NotSent);
    assert_eq!(state.unsent(&rings[0], &absent), Some(1));
    assert_eq!(state.unsent(&rings[1], &absent), Some(1));
    for _ in 0..11 {
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(state.unsent(&rings[0], &absent), None);
    }
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(state.unsent(&rings[0], &absent), Some(12));
    assert_eq!(state.unsent(&rings[0], &other), Some(1));
    assert_eq!(state.unsent(&rings[0], &other), None);
}

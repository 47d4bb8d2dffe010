use std::collections::HashSet;
use std::sync::Arc;

use futures::poll;
use rtm_journal::sim::SimDisk;
use rtm_journal::{Driver, Journal, LaneName, Options};
use rtm_record::entry::{self, Tags};
use rtm_record::{KeyBy, Routes, STATIC, Template};
use rtm_sink::{AnySink, Ground, MemorySink, PublishError, Record, Sink};
use rtm_source::Stream;
use tokio::sync::watch;
use tokio::time::timeout;

use super::*;
use crate::bridge::{publish_all, publish_by_steps};
use crate::outlet::{Ending, OutletParts, OutletPlan, Skip};
use crate::sink::RunningSink;
use crate::status::State;
use crate::status::metrics::Metrics;
use crate::tally::Trying;

/// A broker that is away.
struct Away;

impl Sink for Away {
    async fn publish(&self, _: &[Record]) -> Result<(), PublishError> {
        std::future::pending().await
    }
}

/// A process, from its start on what the last one left to its death.
pub(crate) struct Life {
    pub(crate) disk: Arc<SimDisk>,
    pub(crate) driver: Driver,
    lane: rtm_journal::Lane,
    pub(crate) outlet: Outlet,
    pub(crate) state: Arc<State>,
}

impl Life {
    async fn begin(disk: Arc<SimDisk>) -> Life {
        let client = AnySink::new(Arc::new(MemorySink::new()));
        Life::begin_with(disk, client).await
    }

    pub(crate) async fn begin_with(disk: Arc<SimDisk>, client: AnySink) -> Life {
        let options = Options {
            min_free_bytes: 0,
            ..Options::default()
        };
        let (journal, driver) = Journal::open_driven(Arc::clone(&disk), options).unwrap();
        let lane = journal.lane(&LaneName::try_from("0a1b").unwrap()).unwrap();
        let state = Arc::new(State::new(journal, Arc::new(Metrics::new("1", "c"))));
        let route = state.add_route("0a1b", "out", "main");
        let parts = OutletParts {
            lane: lane.clone(),
            sink: RunningSink::new("out", "memory", "the sink out", client),
            requests: Arc::default(),
            state: route,
            status: Arc::clone(&state),
            suspicion: Arc::default(),
        };
        let template = |text| Template::parse(text, STATIC).unwrap();
        let plan = OutletPlan {
            hold: Duration::ZERO,
            owner: "main".to_owned(),
            app: "main".to_owned(),
            routes: Routes {
                topic: template("{stream}_events"),
                dead_letters: template("dead_letters"),
                key: KeyBy::Auto,
                headers: false,
            },
            streams: Stream::ALL.to_vec(),
            copy_rule: None,
            skip: Skip::Never,
            ending: Ending::Never,
        };
        let (_, plans) = watch::channel(plan);
        let mut life = Life {
            disk,
            driver,
            lane,
            outlet: Outlet::open(parts, plans).unwrap(),
            state,
        };
        life.driver.run_during(life.outlet.begin(true)).await;
        life
    }

    /// The broker says that it has nothing of the lane.
    pub(crate) async fn be_told_nothing(&mut self) {
        let told = self.outlet.resume(None, Ground::default(), HashSet::new());
        self.driver.run_during(told).await;
    }

    async fn append(&mut self) {
        let body = r#"{"events":[{"user_id":"u","type":"Login","ms":1}]}"#;
        self.append_page(body, 1).await;
    }

    pub(crate) async fn append_page(&mut self, body: &str, count: u32) {
        let tags = Tags {
            app: "main".into(),
            app_id: "0a1b".into(),
            region: "eu-west-1".into(),
            stream: "user".into(),
            fetched_at: 0,
            status: 200,
            request_id: None,
            complete: true,
        };
        let entry = entry::with_tags(&tags, None, body.as_bytes());
        let lane = self.lane.clone();
        let append = async { lane.reserve(entry.len()).await.append(entry, count).await };
        self.driver.run_during(append).await.unwrap();
    }

    pub(crate) async fn publish(&mut self, sink: &impl Sink) {
        assert!(self.outlet.is_poisoned());
        let group = self.driver.run_during(self.outlet.next()).await.unwrap();
        let publishing = publish_by_steps(&mut self.outlet, sink, group);
        self.driver.run_during(publishing).await;
    }

    /// As far as the first note, which is durable. What comes next crashes the process.
    pub(crate) async fn publish_to_the_first_note(&mut self) {
        assert!(self.outlet.is_poisoned());
        let group = self.driver.run_during(self.outlet.next()).await.unwrap();
        let publishing = std::pin::pin!(publish_by_steps(&mut self.outlet, &Away, group));
        assert!(poll!(publishing).is_pending(), "nothing is noted");
        self.driver.run();
    }

    fn noted(&self) -> Option<(Step, bool)> {
        let noted = self.outlet.tally.trying;
        noted.map(|Trying { step, armed, .. }| (step, armed))
    }

    async fn die(self) -> Life {
        Life::begin(self.disk.after_kill()).await
    }
}

/// Holds: an entry that crashes the process whenever it is decoded becomes a dead letter, also if an outage came
/// between: the process that is killed in it has disarmed what it had noted, so the next one decodes the entry again,
/// and has to be blamed for that crash as the first one was.
#[tokio::test(start_paused = true)]
async fn an_outage_does_not_hide_what_crashes_when_it_is_decoded() {
    let mut life = Life::begin(SimDisk::new(1)).await;
    life.append().await;
    while !life.outlet.is_poisoned() {
        life = life.die().await;
    }
    life.publish_to_the_first_note().await;
    let mut life = life.die().await;
    assert_eq!(life.noted(), Some((Step::Decode, true)));

    let outage = timeout(2 * HARMLESS, life.publish(&Away)).await;
    assert!(outage.is_err(), "nobody is there to confirm");
    let mut life = life.die().await;
    assert_eq!(life.noted(), Some((Step::Whole, false)));

    life.publish_to_the_first_note().await;
    let mut life = life.die().await;
    assert_eq!(life.noted(), Some((Step::Decode, true)));

    let sink = MemorySink::new();
    life.publish(&sink).await;
    assert_eq!(sink.records().len(), 1);
    assert_eq!(life.outlet.tally.dead_lettered.get(POISON), Some(&1));
    assert_eq!(life.outlet.pending(), 0);
}

/// A broker that takes everything, and notes the most records that it was given at once, and how many in all.
#[derive(Default)]
struct Measuring(std::sync::Mutex<(usize, usize)>);

impl Sink for Measuring {
    async fn publish(&self, records: &[Record]) -> Result<(), PublishError> {
        let mut seen = self.0.lock().unwrap();
        *seen = (seen.0.max(records.len()), seen.1 + records.len());
        Ok(())
    }
}

/// Holds: a body of many tiny things that are no events takes no more memory than a slice of them, is published whole,
/// between its neighbours, and counted to the last; also where it is suspected of crashing the process.
#[tokio::test(start_paused = true)]
async fn a_page_of_very_many_records_is_published_in_slices() {
    for (many, poisoned) in [
        (20 * SLICE + 1, false),
        (SLICE, false),
        (2 * SLICE, false),
        (2 * SLICE + 1, true),
    ] {
        let mut life = Life::begin(SimDisk::new(1)).await;
        life.append().await;
        let ones = vec!["1"; many].join(",");
        life.append_page(&format!(r#"{{"events":[{ones}]}}"#), many as u32)
            .await;
        life.append().await;
        let sink = Measuring::default();
        if poisoned {
            while !life.outlet.is_poisoned() {
                life = life.die().await;
            }
            for _ in 0..3 {
                let group = life.driver.run_during(life.outlet.next()).await.unwrap();
                let publishing = publish_by_steps(&mut life.outlet, &sink, group);
                life.driver.run_during(publishing).await;
            }
        } else {
            life.outlet.tally.stalls = 0;
            life.outlet.plan.ending = Ending::WhenEmpty;
            life.driver
                .run_during(publish_all(&mut life.outlet, &sink))
                .await;
        }
        let (most, all) = *sink.0.lock().unwrap();
        assert_eq!(all, many + 2);
        assert!(most <= SLICE + 2, "{most} records at once");
        let tally = &life.outlet.tally;
        assert_eq!(
            tally.dead_lettered.get("not_an_object"),
            Some(&(many as u64))
        );
        assert_eq!((tally.confirmed, life.outlet.pending()), (2, 0));
    }
}

/// A place that takes records of today only.
#[derive(Default)]
struct Strict(MemorySink);

impl Sink for Strict {
    async fn publish(&self, records: &[Record]) -> Result<(), PublishError> {
        let old = records
            .iter()
            .position(|record| record.timestamp.0 < 86_400_000);
        let (taken, refused) = records.split_at(old.unwrap_or(records.len()));
        self.0.publish(taken).await?;
        if refused.is_empty() {
            return Ok(());
        }
        let mut outcomes = vec![rtm_sink::Outcome::Unknown; records.len()];
        outcomes[..taken.len()].fill(rtm_sink::Outcome::Confirmed);
        outcomes[taken.len()] = rtm_sink::Outcome::Rejected(Reason {
            code: Reason::TIMESTAMP,
            message: "of 1970".to_owned(),
        });
        Err(PublishError {
            kind: rtm_sink::PublishErrorKind::Rejected,
            outcomes,
            source: "refused".into(),
        })
    }
}

/// Holds: a record that is refused for its time holds nothing up, though its dead letter is refused for its time too.
#[tokio::test(start_paused = true)]
async fn what_is_refused_for_its_time_holds_nothing_up() {
    let mut life = Life::begin(SimDisk::new(1)).await;
    for _ in 0..2 {
        life.append().await;
    }
    life.outlet.tally.stalls = 0;
    life.outlet.plan.ending = Ending::WhenEmpty;
    let sink = Strict::default();
    let publishing = timeout(2 * HARMLESS, publish_all(&mut life.outlet, &sink));
    let published = life.driver.run_during(publishing).await;
    assert!(published.is_ok(), "it is held");
    assert_eq!(sink.0.records().len(), 2);
    let dead = life.outlet.tally.dead_lettered.get(Reason::TIMESTAMP);
    assert_eq!((dead, life.outlet.pending()), (Some(&2), 0));
}

/// Holds: what an earlier version of the bridge stored with a count that was too small keeps the account: a page of which it
/// understood nothing, and one of which it left the rest.
#[tokio::test(start_paused = true)]
async fn a_page_that_was_counted_too_small_keeps_the_account() {
    for (body, count, dead) in [
        (r#"[{"user_id":"u"}]"#, 0, 0),
        (r#"{"events":[{"user_id":"u"},{"us"#, 1, 0),
        (r#"{"events":[{"user_id":"u"},{"us"#, 2, 1),
    ] {
        let mut life = Life::begin(SimDisk::new(1)).await;
        life.append_page(body, count).await;
        life.outlet.tally.stalls = 0;
        life.outlet.plan.ending = Ending::WhenEmpty;
        let sink = Measuring::default();
        life.driver
            .run_during(publish_all(&mut life.outlet, &sink))
            .await;
        assert_eq!(life.outlet.tally.settled(), u64::from(count), "{body}");
        let letters = life.outlet.tally.dead_lettered.get("unreadable");
        assert_eq!(letters.copied(), Some(dead), "{body}");
        assert_eq!(life.outlet.pending(), 0);
    }
}

/// Holds: the dead letter of an entry whose tags cannot be read goes where those of its lane's App ID go.
#[tokio::test(start_paused = true)]
async fn an_entry_of_another_version_goes_to_its_owners_dead_letters() {
    let mut life = Life::begin(SimDisk::new(1)).await;
    let routes = &mut life.outlet.plan.routes;
    routes.dead_letters = Template::parse("rtm.{app}.{app_id}.dead", STATIC).unwrap();
    life.outlet.router = rtm_record::Router::new(routes.clone());
    let lane = life.lane.clone();
    let append = async { lane.reserve(9).await.append(vec![9; 9], 700).await };
    life.driver.run_during(append).await.unwrap();
    let mut group = life.driver.run_during(life.outlet.next()).await.unwrap();
    let mut batch = Batch::default();
    let entry = group.pop().unwrap().unwrap();
    life.outlet.add(&mut batch, &entry, 0, SLICE);
    assert_eq!(batch.topics(), ["rtm.main.0a1b.dead"]);
    assert_eq!(batch.unsettled(), 700);
}

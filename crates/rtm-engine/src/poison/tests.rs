use std::sync::Arc;

use futures::poll;
use rtm_journal::sim::SimDisk;
use rtm_journal::{Driver, Journal, LaneName, Options};
use rtm_record::entry::{self, Tags};
use rtm_record::{KeyBy, Routes, STATIC, Template};
use rtm_sink::{AnySink, MemorySink, PublishError, Record, Sink};
use rtm_source::Stream;
use tokio::sync::watch;
use tokio::time::timeout;

use super::*;
use crate::bridge::publish_by_steps;
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
struct Life {
    disk: Arc<SimDisk>,
    driver: Driver,
    lane: rtm_journal::Lane,
    outlet: Outlet,
}

impl Life {
    async fn begin(disk: Arc<SimDisk>) -> Life {
        let options = Options {
            min_free_bytes: 0,
            ..Options::default()
        };
        let (journal, driver) = Journal::open_driven(Arc::clone(&disk), options).unwrap();
        let lane = journal.lane(&LaneName::try_from("0a1b").unwrap()).unwrap();
        let state = State::new(journal, Arc::new(Metrics::new("1", "c")));
        let route = state.add_route("0a1b", "out", "main");
        let client = AnySink::new(Arc::new(MemorySink::new()));
        let parts = OutletParts {
            lane: lane.clone(),
            sink: RunningSink::new("out", "memory", "the sink out", client),
            requests: Arc::default(),
            state: route,
            status: Arc::new(state),
            suspicion: Arc::default(),
        };
        let template = |text| Template::parse(text, STATIC).unwrap();
        let plan = OutletPlan {
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
        };
        drive(&mut life.driver, life.outlet.begin(true)).await;
        life
    }

    async fn append(&mut self) {
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
        let body = br#"{"events":[{"user_id":"u","type":"Login","ms":1}]}"#;
        let entry = entry::with_tags(&tags, None, body);
        let lane = self.lane.clone();
        let append = async { lane.reserve(entry.len()).await.append(entry, 1).await };
        drive(&mut self.driver, append).await.unwrap();
    }

    async fn publish(&mut self, sink: &impl Sink) {
        assert!(self.outlet.is_poisoned());
        let group = drive(&mut self.driver, self.outlet.next()).await.unwrap();
        let publishing = publish_by_steps(&mut self.outlet, sink, group);
        drive(&mut self.driver, publishing).await;
    }

    /// As far as the first note, which is durable. What comes next crashes the process.
    async fn publish_to_the_first_note(&mut self) {
        assert!(self.outlet.is_poisoned());
        let group = drive(&mut self.driver, self.outlet.next()).await.unwrap();
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

/// Does `work`, and what the journal has to write for it.
async fn drive<T>(driver: &mut Driver, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        driver.run();
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = driver.woken() => {}
        }
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

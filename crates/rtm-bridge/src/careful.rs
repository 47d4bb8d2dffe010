//! Publishing an entry that is suspected of crashing the process: step by step, each noted durably before it is tried.
//!
//! Three crashes in a row without progress of a cursor lead here. What the last process had noted when it crashed is the
//! culprit: an entry whose decoding crashes becomes one dead letter, a record whose publishing crashes becomes a dead
//! letter by itself, and what crashes even as a dead letter is dropped, counted. A step that waits for its broker for
//! [`HARMLESS`] has not crashed anything, so that a bridge that is killed in an outage blames nobody.

use std::time::Duration;

use rtm_journal::{Entry, ReadError};
use rtm_sink::{Reason, Sink};
use tracing::error;

use crate::bridge::deliver;
use crate::order::Group;
use crate::outlet::{Batch, Outlet, unreadable};
use crate::tally::Step;
use rtm_record::Prepared;

/// What waits so long for its broker does not crash us.
pub(crate) const HARMLESS: Duration = Duration::from_secs(2);

/// The reason of what crashed us, as a label.
const POISON: &str = "poison";

/// Publishes entries one by one, each with the cursor: in the journal's order then, which for pages that overlapped need
/// not be the ring's.
pub(crate) async fn publish<S: Sink>(outlet: &mut Outlet, sink: &S, mut group: Group) {
    let place = |entry: &Result<Entry, ReadError>| match entry {
        Ok(entry) => Some(entry.position),
        Err(ReadError::Damaged { position, .. }) => Some(*position),
        Err(_) => None,
    };
    group.sort_by_key(place);
    for entry in group {
        match entry {
            Ok(entry) => publish_entry(outlet, sink, entry).await,
            Err(error) => {
                let mut batch = Batch::default();
                outlet.unreadable(&mut batch, &error).await;
                outlet.commit(&batch);
            }
        }
    }
}

/// Publishes one entry and moves the cursor over it.
async fn publish_entry<S: Sink>(outlet: &mut Outlet, sink: &S, entry: Entry) {
    let trying = outlet
        .tally
        .trying
        .filter(|trying| trying.position == entry.position.0);
    let crashed = trying
        .filter(|trying| trying.armed)
        .map(|trying| trying.step);
    // What was settled before is counted already.
    let reached = match trying.map(|trying| trying.step) {
        Some(Step::Record(index) | Step::DeadLetter(index)) => Some(index),
        // Decoded again, whatever was known: an outage has disarmed what was noted, and a crash needs a culprit.
        Some(Step::Decode | Step::Whole) | None => None,
    };
    let end = Batch::of(&entry);
    match crashed {
        Some(Step::Whole) => {
            error!(position = %entry.position, events = entry.count, "an entry crashes even as a dead letter: it is dropped");
            outlet.tally.drop_events(POISON, u64::from(entry.count));
        }
        Some(Step::Decode) => {
            whole(
                outlet,
                sink,
                &entry,
                &poison("decoding this entry crashed the bridge"),
            )
            .await;
        }
        _ => {
            let forgets = trying.is_some() && rtm_planted::bug("bridge-suspect-not-armed-again");
            if reached.is_none() && !forgets {
                outlet.note(entry.position, Step::Decode).await;
            }
            match outlet.router.page(&entry) {
                Ok(mut page) => {
                    outlet.judge(&mut page, entry.position);
                    records(
                        outlet,
                        sink,
                        &entry,
                        page.prepared,
                        reached.unwrap_or(0),
                        crashed,
                    )
                    .await;
                }
                Err(error) => whole(outlet, sink, &entry, &unreadable(&error)).await,
            }
        }
    }
    outlet.commit(&end);
}

/// Each record by itself, from the one on that the last process had come to.
async fn records<S: Sink>(
    outlet: &mut Outlet,
    sink: &S,
    entry: &Entry,
    made: Vec<Prepared>,
    from: u32,
    crashed: Option<Step>,
) {
    for (index, mut made) in (0u32..).zip(made).skip(from as usize) {
        if made.is_dropped {
            outlet.tally.drop_events("copy", 1);
            continue;
        }
        match crashed {
            Some(Step::DeadLetter(culprit)) if culprit == index => {
                error!(id = %made.record.id, "a record crashes even as a dead letter: it is dropped");
                outlet.tally.drop_events(POISON, 1);
                continue;
            }
            Some(Step::Record(culprit)) if culprit == index => {
                error!(id = %made.record.id, "publishing this record crashed the bridge: it goes to the dead letters");
                let why = poison("publishing this record crashed the bridge");
                if let Ok(letter) = outlet.router.refused(entry, &made.record, &why, false) {
                    made.record = letter;
                }
                made.dead = Some(POISON);
                outlet.note(entry.position, Step::DeadLetter(index)).await;
            }
            _ => outlet.note(entry.position, Step::Record(index)).await,
        }
        let mut batch = Batch::of(entry);
        batch.push(made, 1);
        deliver(outlet, sink, &mut batch).await;
        outlet.tally.add(&batch.settled);
    }
}

async fn whole<S: Sink>(outlet: &mut Outlet, sink: &S, entry: &Entry, why: &Reason) {
    outlet.note(entry.position, Step::Whole).await;
    let mut batch = Batch::of(entry);
    outlet.add_whole(&mut batch, why);
    deliver(outlet, sink, &mut batch).await;
    outlet.tally.add(&batch.settled);
}

fn poison(message: &str) -> Reason {
    Reason {
        code: POISON,
        message: message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::poll;
    use rtm_journal::sim::SimDisk;
    use rtm_journal::{Driver, Journal, LaneName, Options};
    use rtm_sink::{AnySink, MemorySink, PublishError, Record};
    use rtm_source::Source;
    use tokio::time::timeout;

    use super::*;
    use crate::assemble::{self, Assembled};
    use crate::client::{self, Client};
    use crate::config::Config;
    use crate::metrics::Metrics;
    use crate::state::State;
    use crate::tally::Trying;
    use rtm_record::entry::{self, Tags};

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
        outlet: Outlet,
    }

    impl Life {
        async fn begin(disk: Arc<SimDisk>) -> Life {
            let config = Config::parse(
                "[journal]\ndir = \"/nowhere\"\n[[apps]]\nname = \"main\"\napp_id = \"0a1b\"\n\
                 auth = { basic = { key = \"k\", secret = \"s\" } }\nregions = [\"eu-west-1\"]\n\
                 [sinks.out]\ntype = \"stdout\"\n",
            );
            let config = Arc::new(config.unwrap());
            let options = Options {
                min_free_bytes: 0,
                ..Options::default()
            };
            let (journal, driver) = Journal::open_driven(Arc::clone(&disk), options).unwrap();
            let lane = journal.lane(&LaneName::try_from("0a1b").unwrap()).unwrap();
            let metrics = Arc::new(Metrics::new("1", "c"));
            let assembled = Assembled::<Source> {
                journal,
                pipelines: Vec::new(),
                clients: Vec::new(),
                orphans: Vec::new(),
            };
            let state = State::new(&assembled, metrics);
            let sink = AnySink::new(Arc::new(MemorySink::new()));
            let client = Client::new("out", client::line_routes().unwrap(), sink);
            let outlet = assemble::outlet(&config, &assembled, &state, "main", &lane, &client);
            let mut life = Life {
                disk,
                driver,
                outlet: outlet.unwrap(),
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
            let lane = self.outlet.lane.clone();
            let append = async { lane.reserve(entry.len()).await.append(entry, 1).await };
            drive(&mut self.driver, append).await.unwrap();
        }

        async fn publish(&mut self, sink: &impl Sink) {
            assert!(self.outlet.is_careful());
            let group = drive(&mut self.driver, self.outlet.next()).await.unwrap();
            drive(&mut self.driver, publish(&mut self.outlet, sink, group)).await;
        }

        /// As far as the first note, which is durable. What comes next crashes the process.
        async fn publish_to_the_first_note(&mut self) {
            assert!(self.outlet.is_careful());
            let group = drive(&mut self.driver, self.outlet.next()).await.unwrap();
            let publishing = std::pin::pin!(publish(&mut self.outlet, &Away, group));
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
        while !life.outlet.is_careful() {
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
        assert_eq!(life.outlet.reader.pending().entries, 0);
    }
}

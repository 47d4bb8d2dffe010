//! Once and only once: a transaction stores the records of a group of calls, and behind them the progress of their lanes.
//!
//! librdkafka repeats an `EndTxn` whose answer is lost, and ends its next transaction under the same epoch. A broker that then
//! meets the first request again commits the half of the next transaction that it has so far (KIP-890, librdkafka#5423). Two
//! rules make up for that:
//!
//! - **Progress last.** Progress is sent after every record of its transaction is acknowledged. Whatever a broker commits by
//!   accident, no progress is stored without its records: nothing can be lost.
//! - **A slow commit is in doubt.** A request that was repeated has waited for `retry.backoff.ms` first. A commit that took half
//!   as long counts as one of unknown outcome: the producer is given up, and its successor, whose beginning ends all that came
//!   before, reads what is stored. So nothing is stored twice either.
//!
//! **Fencing.** The id of the transactions is that of the journal and the sink. Whoever begins later ends what earlier ones have
//! open, and the broker refuses them from then on.
//!
//! **Aside.** A call whose records cannot be stored for now, as with a partition without a leader, would hold up all lanes,
//! which share a transaction. Its lane is published by a second producer until it has gone well for a while. A lane changes
//! producers only while it is certain that nothing of it is on its way.

mod begin;
mod refused;
mod transact;

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::error::RDKafkaErrorCode;
use rtm_sink::{
    Commit, ExactLimits, GroupCommit, Progress, ProgressKey, PublishError, PublishErrorKind,
    Record, Topic,
};
use tokio::task::spawn_blocking;
use tracing::debug;

use self::begin::{
    BACKOFF, Beginning, Begun, NotBegun, Open, Owner, Place, ROUND_TRIPS, partition, prefix,
    stopped, transactional_id,
};
use self::refused::{culprits, refuse, undelivered};
use self::transact::{Unstored, abort, transact};
use crate::cause::watch;
use crate::options::{CANCELED, ExactOptions};
use crate::producer::Live;
use crate::producers::Producers;
use crate::progress::{self, Found, Reader, Trouble};
use crate::publish::{Stop, Unpublished, create_topics};
use crate::settings;
use crate::token::Oidc;
use crate::topics::{CheckError, refused, to_create};
use crate::verdict::{Verdict, verdict};

/// How much one exact call of a [`KafkaSink`](crate::KafkaSink) may hold.
pub const EXACT_LIMITS: ExactLimits = ExactLimits {
    records: 16_000,
    bytes: 8 << 20,
};

/// How long a lane aside must have gone well to come back.
const WELL: Duration = Duration::from_secs(60);

/// So many times a call is sent again in smaller batches: each is half of the last, unless the topic tells its limit.
const SMALLER: u32 = 20;

/// Stores calls once and only once.
pub(crate) struct Exact {
    lanes: Arc<Lanes>,
    /// That of all lanes, and that of those aside; made with the first call, which has a runtime.
    groups: OnceLock<[GroupCommit; 2]>,
}

/// What both groups know.
#[derive(Default)]
struct Lanes {
    /// What the broker has of each lane, by its key.
    progress: Mutex<HashMap<String, Bytes>>,
    /// The lanes aside, and when each last failed.
    aside: Mutex<HashMap<ProgressKey, Instant>>,
    /// What each group publishes with.
    lives: Mutex<[Option<Arc<Live>>; 2]>,
}

impl Exact {
    pub(crate) fn new() -> Exact {
        Exact {
            lanes: Arc::default(),
            groups: OnceLock::new(),
        }
    }

    fn group(&self, producers: &Arc<Producers>, key: &ProgressKey) -> &GroupCommit {
        let groups = self.groups.get_or_init(|| {
            [Place::Main, Place::Aside].map(|place| {
                let committer = Committer {
                    producers: Arc::clone(producers),
                    lanes: Arc::clone(&self.lanes),
                    place,
                    open: None,
                    has_fenced: place == Place::Aside,
                    has_begun: false,
                };
                GroupCommit::new(committer, EXACT_LIMITS)
            })
        });
        &groups[self.lanes.place(key) as usize]
    }

    pub(crate) async fn publish(
        &self,
        producers: &Arc<Producers>,
        records: &[Record],
        progress: &Progress,
    ) -> Result<(), PublishError> {
        let group = self.group(producers, &progress.key);
        let published = group.publish(records, progress).await;
        if published.is_ok() {
            self.lanes.went_well(&progress.key);
        }
        published
    }

    pub(crate) async fn recall(
        &self,
        producers: &Arc<Producers>,
        key: &ProgressKey,
    ) -> Result<Option<Bytes>, PublishError> {
        self.group(producers, key).recall(key).await
    }

    /// Records that librdkafka holds.
    pub(crate) fn queued(&self) -> usize {
        let lives = lock(&self.lanes.lives);
        lives.iter().flatten().map(|live| live.queued()).sum()
    }

    /// Ends what is on its way.
    pub(crate) fn close(&self) {
        for live in lock(&self.lanes.lives).iter().flatten() {
            live.fail(RDKafkaErrorCode::DestroyBroker);
        }
    }
}

impl Lanes {
    fn place(&self, key: &ProgressKey) -> Place {
        match lock(&self.aside).contains_key(key) {
            true => Place::Aside,
            false => Place::Main,
        }
    }

    /// The names of the lanes aside.
    fn aside(&self) -> HashSet<String> {
        lock(&self.aside).keys().map(ToString::to_string).collect()
    }

    /// Whether the broker has had progress whose key begins with `prefix`.
    fn knows(&self, prefix: &str) -> bool {
        lock(&self.progress)
            .keys()
            .any(|key| key.starts_with(prefix))
    }

    /// Notes what a producer's beginning has found of the lanes that are its group's, and were when it began, with `before`
    /// aside. What is known of the others is newer: what has been found may be from before their last commit.
    fn take_in(
        &self,
        place: Place,
        before: &HashSet<String>,
        prefix: &str,
        found: HashMap<String, Found>,
    ) {
        let now = self.aside();
        let is_aside = place == Place::Aside;
        let is_ours = |key: &String| [before, &now].iter().all(|it| it.contains(key) == is_aside);
        let mut progress = lock(&self.progress);
        progress.retain(|key, _| !(key.starts_with(prefix) && is_ours(key)));
        let ours = found.into_iter().filter(|(key, _)| is_ours(key));
        progress.extend(ours.map(|(key, found)| (key, Bytes::from(found.value))));
    }

    fn went_well(&self, key: &ProgressKey) {
        let mut aside = lock(&self.aside);
        if aside.get(key).is_some_and(|last| last.elapsed() >= WELL) {
            aside.remove(key);
        }
    }
}

struct Committer {
    producers: Arc<Producers>,
    lanes: Arc<Lanes>,
    place: Place,
    /// None after any doubt.
    open: Option<Open>,
    /// Whether nothing of an earlier process can come to the other group's lanes any more.
    has_fenced: bool,
    /// Whether there was a producer before.
    has_begun: bool,
}

impl Committer {
    fn exact(&self) -> &ExactOptions {
        let exact = self.producers.options.exact.as_ref();
        exact.expect("a committer is made where the options ask for it")
    }

    /// A producer in a transaction, and what is stored known: see [`begin`].
    async fn ready(&mut self, key: &ProgressKey) -> Result<(), Stop> {
        let owner = (key.journal, Arc::clone(&key.sink));
        if let Some(open) = &self.open
            && open.owner == owner
            && open.live.failure().is_none()
        {
            return Ok(());
        }
        self.give_up();
        if self.producers.is_closed() {
            return Err(CheckError::Closed.into());
        }
        if !self.has_fenced {
            self.look_at_policy().await?;
        }
        let before = self.lanes.aside();
        let prefix = prefix(&owner);
        let begun = self.begin_all(&owner).await?;
        // The topic may be another one: brokers make what is missing for whoever asks, and such a topic forgets.
        if begun.found.is_empty() && self.lanes.knows(&prefix) {
            self.look_at_policy().await?;
        }
        self.has_fenced = true;
        if std::mem::replace(&mut self.has_begun, true) {
            self.producers.is_rebuilt();
        }
        self.lanes
            .take_in(self.place, &before, &prefix, begun.found);
        lock(&self.lanes.lives)[self.place as usize] = Some(Arc::clone(&begun.live));
        self.open = Some(Open {
            live: begun.live,
            partition: partition(&owner, begun.partitions),
            partitions: begun.partitions,
            doubt: begun.backoff / 2,
            owner,
            has_read_all: false,
        });
        Ok(())
    }

    /// Begins, and makes the topic first where that is ours to do.
    async fn begin_all(&self, owner: &Owner) -> Result<Begun, Stop> {
        match self.begin(owner).await {
            Err(NotBegun::Missing) => {}
            Err(NotBegun::Stopped(stop)) => return Err(stop),
            Ok(begun) => return Ok(begun),
        }
        self.make_topic().await?;
        match self.begin(owner).await {
            Ok(begun) => Ok(begun),
            Err(NotBegun::Stopped(stop)) => Err(stop),
            Err(NotBegun::Missing) => Err(self.missing("it is not there yet, though it was made")),
        }
    }

    fn missing(&self, why: &str) -> Stop {
        let topic = &self.exact().progress_topic;
        let said = format!("the progress topic `{topic}` is missing: {why}");
        Stop::new(PublishErrorKind::Misconfigured, said)
    }

    async fn make_topic(&self) -> Result<(), Stop> {
        let Some(spec) = self.producers.options.create_topics else {
            return Err(
                self.missing("create it with cleanup.policy=compact, or set `create = true`")
            );
        };
        let Some(admin) = self.producers.admin().await else {
            return Err(self.missing("the brokers cannot be asked to create it"));
        };
        let topic = &self.exact().progress_topic;
        match progress::make(&admin, topic, spec).await {
            Ok(()) => Ok(()),
            Err(code) => Err(self.missing(&to_create(code))),
        }
    }

    async fn begin(&self, owner: &Owner) -> Result<Begun, NotBegun> {
        let exact = self.exact();
        let ids = [Place::Main, Place::Aside].map(|place| transactional_id(exact, owner, place));
        let [main, aside] = ids;
        let (id, other) = match self.place {
            Place::Main => (main, aside),
            Place::Aside => (aside, main),
        };
        let round_trip = self.producers.health.lock().round_trip.unwrap_or_default();
        let beginning = Beginning {
            topic: exact.progress_topic.clone(),
            id,
            other: (!self.has_fenced).then_some(other),
            owner: owner.clone(),
            backoff: BACKOFF.max(round_trip * ROUND_TRIPS),
        };
        let configure = || self.producers.configure();
        let clients = [configure(), configure(), configure(), configure()];
        let begun = spawn_blocking(move || beginning.run(clients)).await;
        let begun = begun.unwrap_or_else(|_| Err(Stop::from(CANCELED).into()));
        begun.map_err(|error| self.explained(error))
    }

    /// Where the brokers cannot be reached, what is known of it by now.
    fn explained(&self, error: NotBegun) -> NotBegun {
        let NotBegun::Stopped(stop) = error else {
            return error;
        };
        let known = self.producers.health.lock();
        let said = known.why().or(known.last_error.clone());
        NotBegun::Stopped(match said {
            Some(said) if stop.kind == PublishErrorKind::Unavailable => {
                Stop::new(stop.kind, format!("{}: {said}", stop.source))
            }
            _ => stop,
        })
    }

    /// A topic that forgets is not used. One that does not say so is.
    async fn look_at_policy(&self) -> Result<(), Stop> {
        if Oidc::is_asked_for(&self.producers.options.options) {
            return Ok(());
        }
        let Some(admin) = self.producers.admin().await else {
            return Ok(());
        };
        let topic = self.exact().progress_topic.clone();
        let settings = settings::of_topics(&admin, std::slice::from_ref(&topic)).await;
        let policy = settings.get(&topic).and_then(|it| it.policy.as_deref());
        match policy.and_then(progress::unfit) {
            None => Ok(()),
            Some(why) => {
                let said = format!("the progress topic `{topic}` cannot be used: {why}");
                Err(Stop::new(PublishErrorKind::Misconfigured, said))
            }
        }
    }

    /// Ends a transaction whose commit was not sent.
    async fn abandon(&mut self, live: Arc<Live>) {
        abort(live).await;
        self.give_up();
    }

    fn give_up(&mut self) {
        self.open = None;
        lock(&self.lanes.lives)[self.place as usize] = None;
    }

    /// None, where a batch was too large, of which the next one will be smaller.
    async fn store(
        &mut self,
        records: &[Record],
        progress: &[Progress],
        whose: &[Range<usize>],
    ) -> Result<Option<()>, PublishError> {
        let Some(first) = progress.first() else {
            return Ok(Some(()));
        };
        let first = first.key.clone();
        self.ready(&first)
            .await
            .map_err(|stop| stop.into_unknown(records.len()))?;
        create_topics(&self.producers, records)
            .await
            .map_err(|stop| stop.into_unknown(records.len()))?;
        let Some(open) = &self.open else {
            return Err(PublishError::unknown(
                PublishErrorKind::Unavailable,
                records.len(),
                "no producer",
            ));
        };
        refuse(&self.producers, &open.live, records)?;
        let call = self.producers.reports.call();
        let stored = tokio::select! {
            biased;
            stored = transact(&self.producers, open, &call, records, progress, &self.exact().progress_topic) => stored,
            never = watch(&self.producers, &call, records) => match never {},
        };
        drop(call);
        match stored {
            Ok(()) => {
                self.note(progress);
                Ok(Some(()))
            }
            Err(Unstored::Undelivered(slots)) => {
                let live = Arc::clone(&open.live);
                let error = undelivered(&self.producers, &live, records, whose, &slots).await;
                let Some(error) = error else {
                    self.abandon(live).await;
                    return Ok(None);
                };
                let culprits = culprits(whose, &slots);
                let is_of_some = culprits.len() < progress.len();
                if progress.len() == 1 || is_of_some && error.kind != PublishErrorKind::Rejected {
                    let keys = culprits.iter().map(|&lane| &progress[lane].key);
                    self.put_aside(keys);
                }
                self.abandon(live).await;
                Err(error)
            }
            Err(Unstored::NoProgress(code)) => {
                let live = Arc::clone(&open.live);
                self.abandon(live).await;
                let topic = Topic::from(self.exact().progress_topic.clone());
                let kind = match verdict(code) {
                    Verdict::Ends(kind) => kind,
                    Verdict::Refused(_) => PublishErrorKind::Misconfigured,
                    Verdict::Again => PublishErrorKind::Unavailable,
                };
                let error = Unpublished {
                    topic,
                    code,
                    why: None,
                };
                Err(PublishError::unknown(kind, records.len(), error))
            }
            Err(Unstored::Doubt(why)) => {
                debug!(why, "a commit is in doubt");
                self.give_up();
                self.resolve(&first, records, progress, why).await.map(Some)
            }
        }
    }

    /// Finds out whether a commit in doubt has happened.
    async fn resolve(
        &mut self,
        first: &ProgressKey,
        records: &[Record],
        progress: &[Progress],
        why: String,
    ) -> Result<(), PublishError> {
        let error = |why| PublishError::unknown(PublishErrorKind::Unavailable, records.len(), why);
        if let Err(stop) = self.ready(first).await {
            return Err(error(format!(
                "{why}; whether it has happened is not known yet: {}",
                stop.source
            )));
        }
        let known = lock(&self.lanes.progress);
        let is_stored = |one: &Progress| known.get(&one.key.to_string()) == Some(&one.value);
        match progress.iter().all(is_stored) {
            true => Ok(()),
            false => Err(error(format!("{why}; it has not happened"))),
        }
    }

    fn note(&self, progress: &[Progress]) {
        let mut known = lock(&self.lanes.progress);
        let stored = progress.iter();
        known.extend(stored.map(|one| (one.key.to_string(), one.value.clone())));
    }

    fn put_aside<'a>(&self, keys: impl Iterator<Item = &'a ProgressKey>) {
        let mut aside = lock(&self.lanes.aside);
        aside.extend(keys.map(|key| (key.clone(), Instant::now())));
    }
}

impl Commit for Committer {
    async fn commit(
        &mut self,
        records: &[Record],
        progress: &[Progress],
        whose: &[Range<usize>],
    ) -> Result<(), PublishError> {
        for _ in 0..SMALLER {
            if self.store(records, progress, whose).await?.is_some() {
                return Ok(());
            }
        }
        let why = "batches are refused for their size, however small they are";
        let kind = PublishErrorKind::Unavailable;
        Err(PublishError::unknown(kind, records.len(), why))
    }

    async fn recall(&mut self, key: &ProgressKey) -> Result<Option<Bytes>, PublishError> {
        self.ready(key).await.map_err(|stop| stop.into_unknown(0))?;
        let name = key.to_string();
        let known = |lanes: &Lanes| lock(&lanes.progress).get(&name).cloned();
        if let Some(value) = known(&self.lanes) {
            return Ok(Some(value));
        }
        self.read_all().await.map_err(|stop| stop.into_unknown(0))?;
        Ok(known(&self.lanes))
    }

    /// A transaction may be open, and some of its records sent.
    fn panicked(&mut self) {
        self.give_up();
    }
}

impl Committer {
    /// Looks into the other partitions, where the progress of a journal was if the topic had fewer.
    async fn read_all(&mut self) -> Result<(), Stop> {
        let Some(open) = self.open.as_mut().filter(|open| !open.has_read_all) else {
            return Ok(());
        };
        let topic = self
            .producers
            .options
            .exact
            .as_ref()
            .map(|exact| exact.progress_topic.clone());
        let topic = topic.unwrap_or_default();
        let prefix = prefix(&open.owner);
        let (own, partitions) = (open.partition, open.partitions);
        let configure = [self.producers.configure(), self.producers.configure()];
        let read = move || -> Result<_, Trouble> {
            let reader = Reader::new(&topic, configure)?;
            let mut newest: HashMap<String, Found> = HashMap::new();
            for partition in (0..partitions).filter(|partition| *partition != own) {
                for (key, found) in reader.read(partition, &prefix)? {
                    let before = newest.get(&key).map(|before| before.stored_ms);
                    if before.is_none_or(|before| before < found.stored_ms) {
                        newest.insert(key, found);
                    }
                }
            }
            Ok(newest)
        };
        let newest = spawn_blocking(read).await;
        let newest = newest.unwrap_or(Err(Trouble::Start(CANCELED)));
        let newest = newest.map_err(|trouble| Stop::from(stopped(trouble, None)))?;
        open.has_read_all = true;
        let mut known = lock(&self.lanes.progress);
        for (key, found) in newest {
            known.entry(key).or_insert_with(|| found.value.into());
        }
        Ok(())
    }
}

/// Whether records can be stored once and only once, and if so, in how many partitions the progress is. Publishes nothing; the
/// brokers keep an id of transactions for some days.
pub(crate) async fn check(producers: &Arc<Producers>) -> Result<String, String> {
    let committer = Committer {
        producers: Arc::clone(producers),
        lanes: Arc::default(),
        place: Place::Main,
        open: None,
        has_fenced: true,
        has_begun: false,
    };
    let topic = &committer.exact().progress_topic;
    let owner = (0, Arc::from("check"));
    let looked = committer.look_at_policy().await;
    looked.map_err(|stop| stop.source.to_string())?;
    match committer.begin(&owner).await {
        Ok(begun) => Ok(format!("{} partition(s)", begun.partitions)),
        Err(NotBegun::Stopped(stop)) => Err(stop.source.to_string()),
        Err(NotBegun::Missing) => {
            let spec = producers.options.create_topics;
            if spec.is_none() {
                return Err(
                    "it is missing: create it with cleanup.policy=compact, or set `create = true`"
                        .to_owned(),
                );
            }
            let Some(admin) = producers.admin().await else {
                return Err(
                    "it is missing, and the brokers cannot be asked to create it".to_owned(),
                );
            };
            match refused(&admin, topic, spec).await {
                None => Ok("missing; `run` creates it".to_owned()),
                Some(code) => Err(format!(
                    "it is missing, and cannot be created: {}",
                    to_create(code)
                )),
            }
        }
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;

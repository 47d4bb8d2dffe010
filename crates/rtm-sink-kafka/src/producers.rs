//! The producer that the calls of a sink share, and its successors.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode;
use rtm_sink::Topic;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::info;

use crate::failure::Failure;
use crate::known::Health;
use crate::limits::Limits;
use crate::options::{CANCELED, ConnectError, KafkaOptions, client_config, largest_batch};
use crate::producer::{Configure, Context, Live};
use crate::protocol::Protocol;
use crate::reports::Reports;
use crate::settings::{self, Admin};
use crate::token::Oidc;
use crate::topics::{self, CheckError};

/// How long a question that is asked aside may take, all its steps together.
const ASIDE: Duration = Duration::from_secs(8);

/// So many questions are asked aside at once: a look asks no more brokers. They are few beside the threads of the runtime,
/// which all that blocks needs.
const ASIDES: usize = 16;

/// One producer at a time: where it has failed, the next call makes another.
pub(crate) struct Producers {
    pub(crate) options: KafkaOptions,
    pub(crate) reports: Arc<Reports>,
    pub(crate) health: Arc<Health>,
    state: Mutex<State>,
    /// Held by the call that makes a producer.
    making: tokio::sync::Mutex<()>,
    /// Held by the call that asks why it waits.
    pub(crate) looking: tokio::sync::Mutex<()>,
    /// One for each question that is in progress aside.
    pub(crate) asides: Arc<Semaphore>,
    /// The producer of records that are judged by themselves: what a broker refuses of them ends nothing else. Held by the
    /// call that uses it.
    pub(crate) judge: tokio::sync::Mutex<Option<Arc<Live>>>,
    /// Topics that exist for sure, where they are ours to create.
    pub(crate) created: Mutex<HashSet<Topic>>,
    /// What topics refuse for its size.
    pub(crate) limits: Arc<Limits>,
}

#[derive(Default)]
struct State {
    current: Option<Arc<Live>>,
    closed: bool,
}

impl Producers {
    /// Starts the first producer.
    pub(crate) fn start(options: KafkaOptions) -> Result<Producers, ConnectError> {
        let producers = Producers {
            options,
            reports: Arc::default(),
            health: Arc::default(),
            state: Mutex::default(),
            making: tokio::sync::Mutex::default(),
            looking: tokio::sync::Mutex::default(),
            asides: Arc::new(Semaphore::new(ASIDES)),
            judge: tokio::sync::Mutex::default(),
            created: Mutex::default(),
            limits: Arc::default(),
        };
        let (config, context) = producers.configure()()?;
        producers.replace(Live::start(&config, context)?);
        Ok(producers)
    }

    /// A producer that has not failed: the current one, or else a new one.
    pub(crate) async fn live(&self) -> Result<Arc<Live>, CheckError> {
        if let Some(live) = self.usable()? {
            return Ok(live);
        }
        let _making = self.making.lock().await;
        if let Some(live) = self.usable()? {
            return Ok(live);
        }
        let started = self.make().await?;
        self.is_rebuilt();
        Ok(self.replace(started))
    }

    /// Notes that a producer took the place of one that was given up.
    pub(crate) fn is_rebuilt(&self) {
        let due = {
            let mut known = self.health.lock();
            known.rebuilds += 1;
            // What the last one met is over, or met again.
            known.last_error = None;
            known.retries = (0, 0);
            known.made.due(1)
        };
        if let Some(times) = due {
            info!(times, "made a new producer, as the last one had failed");
        }
    }

    /// As [`Producers::live`], for records that are judged by themselves.
    pub(crate) async fn judging(
        &self,
        judge: &mut Option<Arc<Live>>,
    ) -> Result<Arc<Live>, CheckError> {
        if self.is_closed() {
            return Err(CheckError::Closed);
        }
        match judge {
            Some(live) if live.failure().is_none() => Ok(Arc::clone(live)),
            _ => Ok(Arc::clone(judge.insert(Arc::new(self.make().await?)))),
        }
    }

    /// Ends the producer that judged, unless a call uses it.
    pub(crate) fn dismiss(&self) {
        if let Ok(mut judge) = self.judge.try_lock() {
            *judge = None;
        }
    }

    /// A new producer. Reads files and starts threads.
    async fn make(&self) -> Result<Live, ConnectError> {
        let configure = self.configure();
        let started = spawn_blocking(move || {
            let (config, context) = configure()?;
            Live::start(&config, context)
        });
        started.await.unwrap_or(Err(CANCELED))
    }

    /// Why the current producer is of no more use.
    pub(crate) fn failure(&self) -> Option<Failure> {
        self.lock().current.as_ref()?.failure()
    }

    /// How the current producer makes connections.
    pub(crate) fn protocol(&self) -> Option<Arc<Protocol>> {
        let state = self.lock();
        Some(Arc::clone(&state.current.as_ref()?.protocol))
    }

    /// Asks on a thread of its own what may take for as long as the system likes, as a resolver or a file that hangs. A
    /// thread that nobody waits for any more still counts, so that they do not gather.
    pub(crate) async fn aside<T: Send + 'static>(
        &self,
        ask: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        let place = timeout(ASIDE, Arc::clone(&self.asides).acquire_owned()).await;
        let Ok(Ok(place)) = place else {
            return Err("not asked: earlier questions have no answer yet".to_owned());
        };
        let asked = spawn_blocking(move || {
            let _place = place;
            ask()
        });
        match timeout(ASIDE, asked).await {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer in {ASIDE:?}")),
        }
    }

    /// Records that the current producer holds.
    pub(crate) fn queued(&self) -> usize {
        self.lock().current.as_ref().map_or(0, |live| live.queued())
    }

    /// Creates those of the topics that do not exist, if the options say how.
    pub(crate) async fn ensure_topics(&self, topics: &[&str]) -> Result<(), CheckError> {
        let (Some(spec), false) = (self.options.create_topics, topics.is_empty()) else {
            return Ok(());
        };
        let names = topics.iter().map(|&name| name.to_owned()).collect();
        let mut created = topics::create(self.configure(), names, spec).await;
        if let Err(CheckError::Unreachable { said, .. }) = &mut created {
            let failure = self.failure().map(|failure| failure.explained().reason);
            let known = self.health.lock();
            *said = failure.or(known.why()).or(known.last_error.clone());
        }
        created
    }

    /// Why a topic that is missing cannot be created, where the brokers can be asked.
    pub(crate) async fn why_missing(&self, topic: &str) -> Option<String> {
        if Oidc::is_asked_for(&self.options.options) {
            return None;
        }
        let admin = self.admin().await?;
        let refused = topics::refused(&admin, topic, self.options.create_topics).await?;
        // It may have been made since.
        let is_there = refused == RDKafkaErrorCode::TopicAlreadyExists;
        (!is_there).then(|| format!("it cannot be created: {}", topics::to_create(refused)))
    }

    /// Asks a topic for its limit on sizes, and notes it.
    pub(crate) async fn ask_for_limit(&self, topic: &Topic) -> Option<usize> {
        let mut told = None;
        if !Oidc::is_asked_for(&self.options.options)
            && let Some(admin) = self.admin().await
        {
            let settings = settings::of_topics(&admin, &[topic.as_str().to_owned()]).await;
            let settings = settings.into_values().next();
            told = settings.and_then(|settings| usize::try_from(settings.max_message_bytes?).ok());
        }
        self.limits.is_told(topic, told);
        told
    }

    /// A client for a question that can be left unasked.
    pub(crate) async fn admin(&self) -> Option<Admin> {
        let configure = self.configure();
        self.aside(|| Admin::new(configure)).await.ok()?.ok()
    }

    /// Ends the current producer, with what it holds, and makes no other.
    pub(crate) fn close(&self) {
        let current = {
            let mut state = self.lock();
            state.closed = true;
            state.current.take()
        };
        if let Some(live) = current {
            live.fail(RDKafkaErrorCode::DestroyBroker);
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Notes that the brokers take nothing like this from us. It may be that somebody deleted a topic.
    pub(crate) fn is_misconfigured(&self) {
        self.health.flag(|known| known.misconfigured = true);
        let mut created = self.created.lock().unwrap_or_else(PoisonError::into_inner);
        created.clear();
    }

    fn usable(&self) -> Result<Option<Arc<Live>>, CheckError> {
        let state = self.lock();
        if state.closed {
            return Err(CheckError::Closed);
        }
        Ok(state
            .current
            .clone()
            .filter(|live| live.failure().is_none()))
    }

    fn replace(&self, live: Live) -> Arc<Live> {
        let live = Arc::new(live);
        let mut state = self.lock();
        if !state.closed {
            state.current = Some(Arc::clone(&live));
        }
        live
    }

    /// For a new client, with what the option files hold when it is called. It blocks for milliseconds.
    pub(crate) fn configure(&self) -> impl Configure + use<> {
        let options = self.options.clone();
        let (reports, health) = (Arc::clone(&self.reports), Arc::clone(&self.health));
        let limits = Arc::clone(&self.limits);
        move || {
            let options = options.read()?;
            let context = Context::new(reports, health, &options);
            let mut config = client_config(&options)?;
            if let Some(least) = limits.least()
                && least < largest_batch(&config)
            {
                config.set("batch.size", least.to_string());
            }
            Ok((config, context))
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

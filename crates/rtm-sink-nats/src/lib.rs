//! A [`Sink`] over NATS JetStream: every record's acknowledgement is awaited.
//!
//! # What it promises
//!
//! - **Confirmed** means that the JetStream stream named in [`NatsOptions::stream`] acknowledged the record, as new or
//!   as a duplicate. Any other answer, from whomever, confirms nothing. What an acknowledgement is worth is the
//!   server's affair: by default it syncs its files every two minutes, and a power failure takes what came since. Set
//!   `sync_interval: always` there.
//! - **Duplicates.** `Nats-Msg-Id` is [`Record::id`] (and [`NatsOptions::id_suffix`]). JetStream drops a second copy within its duplicate window; past it
//!   the copy is stored behind the first, under the same id, by which consumers know it.
//! - **Order**, in atomic batches ([`NatsOptions::atomic_batches`]): first copies of each key are stored in the order of
//!   the calls and of their records, whatever fails (`batch.rs` says why). Keys among themselves may change places where
//!   records are published singly: small journal entries, and those of a batch that was refused.
//! - **Order**, without them: that of first copies is that of the calls and of their records, through lost answers, lost
//!   connections and restarts. What breaks it is the refusal of *single* records (no room for a large one, a full disk, a new leader,
//!   too many waiting, a JetStream stream made anew): those behind them may be stored already, and are before them
//!   then. The first refusal stops the sending, so that only records in flight are concerned.
//!   [`NatsStats::out_of_order`] counts those of the same topic and key: when they are confirmed, or, where their
//!   acknowledgements were lost, when they are published again together with the refused one.
//! - **Cancellation.** Records of a dropped call may still be stored. Late acknowledgements of theirs meet nothing.
//!
//! - **Connections.** Each is a new client's, whose credentials and TLS files are read again. An outage of hours is
//!   therefore no different from one of seconds, and nothing that was queued before it is sent after it.
//!
//! Keys and timestamps are not stored: subjects route, and JetStream has its own time.
//!
//! # What a JetStream stream loses after it confirmed
//!
//! Nobody is told when it drops its oldest messages past a limit (`discard: old`), has no consumer to keep a message for
//! (`retention: interest`), is emptied by a restart (`storage: memory`), or is deleted. [`NatsSink::check`] and the log
//! at each connection warn of the first three, and of a short duplicate window.
//!
//! That it has gone back behind what it had acknowledged, as a power failure makes it, is told by [`Sink::ground`] where
//! [`NatsOptions::looks_back`] is set.
//!
//! # What each failure means
//!
//! | kind | when |
//! |---|---|
//! | `Rejected` | larger than the server's `max_payload` or the JetStream stream's `max_msg_size` (`too_large`), no subject to publish to (`bad_subject`), a header that cannot be sent (`bad_header`) |
//! | `Misconfigured` | credentials or TLS refused, publishing or the inbox denied, JetStream off, the JetStream stream missing, sealed, without acknowledgements, or not bound to the subject |
//! | `Unavailable` | all else: no connection, no answer, no leader, no resources, and a *full* JetStream stream that discards what is new: its readers, its age limit or an operator make room |
//!
//! # Headers
//!
//! A record's own headers are percent-encoded: printable ASCII stays, save `%` and a space at either end; every other
//! byte is `%HH`. So no header can end another, and percent-decoding gives back the bytes. NATS keeps no order of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_nats::rustls;
use bytes::Bytes;
use rtm_sink::{
    ExactLimits, Ground, GroupCommit, Health, Progress, ProgressKey, PublishError, Record, Sink,
};
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

mod alarms;
mod api;
mod batch;
mod check;
mod connection;
mod credentials;
mod exact;
mod failure;
mod ground;
mod headers;
mod inbox;
mod jetstream;
mod options;
mod publish;
mod reply;
mod slot;
mod stats;
mod subject;

pub use api::ApiError;
pub use check::{CheckError, NatsCheck};
pub use credentials::{CredentialsError, NatsAuth, Secret};
pub use exact::{EXACT_LIMITS, filter_of_progress};
pub use failure::{LinkError, PublishFailure};
pub use headers::PROGRESS;
pub use jetstream::{LARGE_RECORD, Published, TooSmall};
pub use options::{ConnectError, MAX_IN_FLIGHT, NatsOptions, NatsTls, StreamSpec, check_server};
pub use reply::Refusal;
pub use stats::NatsStats;
pub use subject::{covers, widen};

use connection::{Connection, Link, Shared};
use ground::Lookout;
use jetstream::Found;

/// So many looks in a row without an answer mean that there will be none.
const LOOKS: u32 = 3;

/// Publishes records to one JetStream stream. It connects, and connects again, by itself.
///
/// Dropping it ends the connection in the background; [`close`](Sink::close) waits for that.
#[derive(Debug)]
pub struct NatsSink {
    shared: Arc<Shared>,
    /// One permit for each record in flight: the window is the sink's, not the call's, because the server bounds what
    /// waits for a JetStream stream.
    window: Semaphore,
    /// Stores records once and only once, where the options say so.
    exact: Option<GroupCommit>,
    closing: watch::Sender<bool>,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

impl Sink for NatsSink {
    /// Waits up to [`NatsOptions::ack_timeout`] for a connection, and then, each time that nothing is acknowledged, as
    /// long again. The error's source is a [`PublishFailure`].
    async fn publish(&self, records: &[Record]) -> Result<(), PublishError> {
        if records.is_empty() {
            return Ok(());
        }
        let since = self.shared.lookout.ground().back;
        let connection = match self.shared.connection().await {
            Ok(connection) => connection,
            Err(error) => {
                return Err(self.unsent(PublishFailure::NotConnected(error), records.len()));
            }
        };
        if since > 0 && self.shared.lookout.ground().back != since {
            // What was lost comes first.
            return Err(self.unsent(PublishFailure::GoneBack, records.len()));
        }
        // Subscribing waits where the client's queue is full, which has no end of its own.
        let patience = self.shared.options.ack_timeout;
        let lend = connection.inboxes.lend(&connection.client, records.len());
        let inbox = match timeout(patience, lend).await {
            Ok(Ok(inbox)) => inbox,
            Ok(Err(_)) => {
                let failure = PublishFailure::Disconnected { said: None };
                return Err(self.unsent(failure, records.len()));
            }
            Err(_) => return Err(self.unsent(PublishFailure::Timeout(patience), records.len())),
        };
        publish::Call::new(&self.shared, &connection, &self.window, inbox, records)
            .run()
            .await
    }

    fn exact(&self) -> Option<ExactLimits> {
        self.exact.as_ref().map(|_| EXACT_LIMITS)
    }

    async fn publish_exactly(
        &self,
        records: &[Record],
        progress: &Progress,
    ) -> Result<(), PublishError> {
        match &self.exact {
            Some(exact) => exact.publish(records, progress).await,
            None => Err(not_exact(records.len())),
        }
    }

    async fn recall(&self, key: &ProgressKey) -> Result<Option<Bytes>, PublishError> {
        match &self.exact {
            Some(exact) => exact.recall(key).await,
            None => Err(not_exact(0)),
        }
    }

    fn ground(&self) -> Option<watch::Receiver<Ground>> {
        let looks = self.shared.options.looks_back;
        looks.then(|| self.shared.lookout.subscribe())
    }

    async fn torn(&self) -> Result<Vec<Bytes>, PublishError> {
        if !self.shared.options.looks_back {
            return Ok(Vec::new());
        }
        let failed = |failure: PublishFailure| PublishError::unknown(failure.kind(), 0, failure);
        let connection = self.shared.connection().await;
        let connection = connection.map_err(|error| failed(PublishFailure::NotConnected(error)))?;
        self.know(&connection).await.map_err(failed)?;
        if self.exact.is_none() {
            return Ok(Vec::new());
        }
        let name = &self.shared.options.stream;
        let torn = connection.begin.torn(&connection.api, name).await;
        torn.cloned()
            .map_err(|error| failed(PublishFailure::Untold(error)))
    }

    fn health(&self) -> Health {
        let stats = self.stats();
        Health {
            up: stats.up,
            reconnects: stats.reconnects,
            out_of_order: Some(stats.out_of_order),
            ..Health::default()
        }
    }

    /// Ends the connection. Calls in progress fail, with unknown outcomes; later ones are `Unavailable`.
    async fn close(&self) {
        self.closing.send_replace(true);
        if let Some(keeper) = self.keeper.lock().await.take() {
            // It only fails by a panic, which its own thread has reported.
            let _ = keeper.await;
        }
    }
}

impl NatsSink {
    /// Checks the options and starts to connect. Must be called within a tokio runtime.
    ///
    /// A server that is away is no error: the sink goes on trying, and `publish` is `Unavailable` until it is there.
    ///
    /// # Errors
    ///
    /// [`ConnectError`], for what is wrong whatever the server says: URLs, names, ranges, unreadable files.
    pub async fn connect(options: NatsOptions) -> Result<NatsSink, ConnectError> {
        let servers = options.validate().await?;
        // Without it async-nats panics at its first TLS connection. An error is that there is one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let window = Semaphore::new(options.in_flight);
        let shared = Arc::new(Shared {
            options,
            servers,
            link: watch::Sender::new(Link::Down(None)),
            lookout: Lookout::default(),
            silent: AtomicU32::new(0),
            counters: stats::Counters::default(),
        });
        let exact = shared.options.progress_subject.clone().map(|subject| {
            GroupCommit::new(
                exact::Committer::new(Arc::clone(&shared), subject),
                EXACT_LIMITS,
            )
        });
        let (closing, closed) = watch::channel(false);
        let keeper = tokio::spawn(connection::keep(Arc::clone(&shared), closed));
        Ok(NatsSink {
            exact,
            shared,
            window,
            closing,
            keeper: Mutex::new(Some(keeper)),
        })
    }

    /// Whether the server is reachable, has the JetStream stream, and whether that stores `subjects`, which may hold
    /// wildcards, and whether we may publish to those without. Waits up to [`NatsOptions::ack_timeout`] for the connection.
    /// Where it is missing, and `creates` says that somebody is to create it, whether we may.
    ///
    /// Nothing is stored, and nothing is created unless [`NatsOptions::create_stream`] says so. Whoever subscribes to one of
    /// the subjects without JetStream gets a message without content.
    ///
    /// # Errors
    ///
    /// [`CheckError`], the first thing that would keep records out.
    pub async fn check(&self, subjects: &[&str], creates: bool) -> Result<NatsCheck, CheckError> {
        check::check(&self.shared, subjects, creates).await
    }

    /// How it is doing.
    #[must_use]
    pub fn stats(&self) -> NatsStats {
        let connected = match &*self.shared.link.borrow() {
            Link::Up(connection) => !connection.alarms.borrow().ended,
            Link::Down(_) | Link::Closed => false,
        };
        self.shared.counters.stats(connected)
    }

    /// Has the ground seen, for whoever needs it before anything is published. Who may ask nothing is not waited for.
    async fn know(&self, connection: &Connection) -> Result<(), PublishFailure> {
        let Shared {
            lookout, options, ..
        } = &*self.shared;
        if lookout.ground().back > 0 {
            return Ok(());
        }
        match jetstream::look(&connection.api, options, Some(lookout))
            .await
            .0
        {
            Found::Silent(_) if lookout.ground().back > 0 => Ok(()),
            Found::Silent(_) if self.shared.silent.fetch_add(1, Ordering::Relaxed) >= LOOKS => {
                lookout.is_untold();
                Ok(())
            }
            Found::Silent(error) => Err(PublishFailure::Untold(error)),
            Found::Here(_) => Ok(()),
            Found::Off => Err(PublishFailure::Off),
            Found::Missing => {
                let missing = PublishFailure::NotServing(None);
                Err(jetstream::diagnose(&connection.api, options, None, missing).await)
            }
        }
    }

    fn unsent(&self, failure: PublishFailure, count: usize) -> PublishError {
        self.shared.counters.count(0, 0, 0, true);
        PublishError::unknown(failure.kind(), count, failure)
    }
}

fn not_exact(records: usize) -> PublishError {
    let why = "its options have no `progress_subject`".to_owned();
    let failure = PublishFailure::Inexact(why);
    PublishError::unknown(failure.kind(), records, failure)
}

//! The connection, which one task keeps up.
//!
//! **A client lives for one connection.** Left to itself, async-nats connects again and then sends what was queued
//! meanwhile, though nobody waits for its acknowledgement any more, and though records before it were lost: stored, it
//! would come before them. Nor does it ever forget a request that was not answered (nats.rs#1617). So its own attempts
//! to connect again are made to fail, it ends with everything that it held, and [`keep`] makes another.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{AuthError, Client, ConnectOptions, ServerAddr};
use rtm_sink::Seldom;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::alarms::Alarms;
use crate::api::Api;
use crate::batch::Batching;
use crate::credentials::{Credentials, CredentialsError};
use crate::failure::LinkError;
use crate::ground::{Begin, Lookout};
use crate::inbox::Inboxes;
use crate::jetstream;
use crate::options::NatsOptions;
use crate::stats::Counters;

/// Commands that the client queues. Small, because what is queued is beyond recall; large enough to fill a packet.
const CLIENT_CAPACITY: usize = 256;

/// A dead peer is noticed after two to three of these.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// First and longest wait between two attempts to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(4));

/// A connection that ends sooner counts as a failed attempt: some servers accept, and close at once.
const SETTLED: Duration = Duration::from_secs(5);

/// How often the client's state is looked at, in case the event that says so was dropped from its full queue.
const STATE_INTERVAL: Duration = Duration::from_secs(1);

/// What calls and the keeper share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: NatsOptions,
    pub(crate) servers: Vec<ServerAddr>,
    pub(crate) link: watch::Sender<Link>,
    /// How far the JetStream stream reaches.
    pub(crate) lookout: Lookout,
    /// Looks in a row that got no answer while somebody waited for it.
    pub(crate) silent: AtomicU32,
    pub(crate) counters: Counters,
}

/// Whether there is a connection.
#[derive(Debug, Clone)]
pub(crate) enum Link {
    /// Not yet, or not any more; and what the last attempt said.
    Down(Option<Arc<LinkError>>),
    Up(Arc<Connection>),
    /// The sink was closed.
    Closed,
}

/// One connection, from when it is up until it is not.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) client: Client,
    pub(crate) api: Api,
    pub(crate) inboxes: Inboxes,
    pub(crate) batching: Batching,
    pub(crate) begin: Begin,
    pub(crate) alarms: watch::Sender<Alarms>,
}

/// Connects, waits for the end, connects again, until `closing` says so or its sender is gone.
pub(crate) async fn keep(shared: Arc<Shared>, mut closing: watch::Receiver<bool>) {
    let mut backoff = BACKOFF.0;
    let mut log = Log::default();
    let close = async {
        // An error means that the sender, and so the sink, is gone.
        let _ = closing.wait_for(|closing| *closing).await;
    };
    let work = async {
        loop {
            let error = match open(&shared).await {
                Ok(connection) => {
                    let start = Instant::now();
                    shared.link.send_replace(Link::Up(Arc::clone(&connection)));
                    let Log {
                        denials,
                        ended_soon,
                        ..
                    } = &mut log;
                    let error = tokio::select! {
                        error = ended(&connection) => error,
                        never = look(&connection, &shared, *ended_soon) => match never {},
                        never = tell_denials(&connection, denials) => match never {},
                    };
                    *ended_soon = start.elapsed() < SETTLED;
                    if !*ended_soon {
                        backoff = BACKOFF.0;
                    }
                    error
                }
                Err(error) => error,
            };
            log.report(&shared, error);
            // A quarter either way, so that many bridges do not come back in step.
            sleep(backoff.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
            backoff = (backoff * 2).min(BACKOFF.1);
        }
    };
    tokio::select! {
        () = close => (),
        () = work => (),
    }
    shared.link.send_replace(Link::Closed);
}

/// What the log was told, so that nothing fills it.
#[derive(Debug, Default)]
struct Log {
    denials: Seldom,
    ends: Seldom,
    /// The last connection ended at once.
    ended_soon: bool,
}

impl Log {
    /// Tells calls and the log. The log hears of an outage once, and not of each attempt; of connections that end at once
    /// it hears every so often.
    fn report(&mut self, shared: &Shared, error: LinkError) {
        let is_known = matches!(&*shared.link.borrow(), Link::Down(Some(_)));
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        let times = match is_known {
            true => None,
            false if self.ended_soon => self.ends.due(1),
            false => Some(1),
        };
        match times {
            Some(times) => {
                tracing::warn!(%error, cause, times, "nats is away; connecting again");
            }
            None => tracing::debug!(%error, cause, "nats is still away"),
        }
        shared.link.send_replace(Link::Down(Some(Arc::new(error))));
    }
}

/// One attempt at every server.
async fn open(shared: &Shared) -> Result<Arc<Connection>, LinkError> {
    let credentials = Credentials::read(&shared.options.auth)
        .await
        .map_err(LinkError::Credentials)?;
    let alarms = watch::Sender::new(Alarms::default());
    let connected = Arc::new(AtomicBool::new(false));
    let client = connect_options(&shared.options, credentials, &alarms, &connected)
        .max_reconnects(shared.servers.len())
        .connect(shared.servers.as_slice())
        .await
        .map_err(LinkError::from)?;
    connected.store(true, Ordering::Release);

    let info = client.server_info();
    shared.counters.connected();
    let api = Api::new(&client, &shared.options.prefix(), alarms.clone());
    jetstream::create_if_missing(&api, &shared.options).await;
    // Before anything is published: once that is stored, what was lost shows no more.
    let begin = match shared.options.looks_back {
        true => {
            let found = jetstream::look(&api, &shared.options, Some(&shared.lookout)).await;
            Begin::at(found.1.map_or(0, |end| end.last))
        }
        false => Begin::default(),
    };
    let inboxes = Inboxes::new(2 * shared.options.in_flight);
    // Whether the JetStream stream takes them is seen soon, or, where we may not ask, from its answers.
    let possible = shared.options.atomic_batches && api.knows_batches();
    Ok(Arc::new(Connection {
        batching: Batching::new(possible, info.max_payload),
        begin,
        client,
        api,
        inboxes,
        alarms,
    }))
}

impl NatsOptions {
    /// How another client reaches the same servers, with what the files hold now: for what a sink does not do.
    ///
    /// # Errors
    ///
    /// [`CredentialsError`] when the credentials cannot be read.
    pub async fn connect_options(&self) -> Result<ConnectOptions, CredentialsError> {
        let credentials = Credentials::read(&self.auth).await?;
        let alarms = watch::Sender::default();
        Ok(connect_options(self, credentials, &alarms, &Arc::default()))
    }
}

fn connect_options(
    options: &NatsOptions,
    credentials: Credentials,
    alarms: &watch::Sender<Alarms>,
    connected: &Arc<AtomicBool>,
) -> ConnectOptions {
    let credentials = Arc::new(credentials);
    let connected = Arc::clone(connected);
    let authenticate = move |nonce: Vec<u8>| {
        // The refusal is what ends the client: it asks again for credentials only when it connects again.
        let answer = if connected.load(Ordering::Acquire) {
            Err(AuthError::new("a client lives for one connection"))
        } else {
            credentials.answer(&nonce).map_err(AuthError::new)
        };
        std::future::ready(answer)
    };
    let alarms = alarms.clone();
    let mut connect = ConnectOptions::with_auth_callback(authenticate)
        .event_callback(move |event| {
            alarms.send_modify(|alarms| alarms.note(event));
            std::future::ready(())
        })
        .name(&options.name)
        .custom_inbox_prefix(&options.inbox_prefix)
        .client_capacity(CLIENT_CAPACITY)
        // Acknowledgements beyond this are dropped, and those of dropped calls lie there too.
        .subscription_capacity(2 * options.in_flight + CLIENT_CAPACITY)
        .ping_interval(PING_INTERVAL)
        .ignore_discovered_servers()
        .require_tls(options.tls.required);
    if options.tls.first {
        connect = connect.tls_first();
    }
    if let Some(path) = &options.tls.ca_file {
        connect = connect.add_root_certificates(path.clone());
    }
    if let (Some(cert), Some(key)) = (&options.tls.cert_file, &options.tls.key_file) {
        connect = connect.add_client_certificate(cert.clone(), key.clone());
    }
    connect
}

/// Waits until the connection is over.
async fn ended(connection: &Connection) -> LinkError {
    let mut alarms = connection.alarms.subscribe();
    loop {
        // What `wait_for` gives out locks the alarms; it must be gone before they are touched.
        let ended = timeout(STATE_INTERVAL, alarms.wait_for(|alarms| alarms.ended))
            .await
            .is_ok();
        if ended || connection.client.connection_state() != State::Connected {
            connection.end();
            let said = connection.alarms.borrow().said.clone();
            return LinkError::Ended { said };
        }
    }
}

/// Tells the log of the connection, after one that ended at once only when it has settled. Looks at the JetStream stream
/// beside the publishing, which need not wait for it: a user who may only publish gets no answer.
async fn look(connection: &Connection, shared: &Shared, ended_soon: bool) -> Infallible {
    if ended_soon {
        sleep(SETTLED).await;
    }
    let info = connection.client.server_info();
    tracing::info!(
        server = info.server_name,
        version = info.version,
        host = info.host,
        "connected to nats"
    );
    let lookout = shared.options.looks_back.then_some(&shared.lookout);
    jetstream::watch(
        &connection.api,
        &connection.batching,
        &shared.options,
        lookout,
    )
    .await
}

/// Tells the log what the server denies: the last denial, and how many there were.
async fn tell_denials(connection: &Connection, seldom: &mut Seldom) -> Infallible {
    let mut alarms = connection.alarms.subscribe();
    let mut told = 0;
    loop {
        let (denials, said) = {
            let alarms = alarms.borrow_and_update();
            let inbox = alarms.inbox_denied.as_ref();
            let last = alarms.denied.last().map(|denied| &denied.said);
            let denials = alarms.denials + u64::from(inbox.is_some());
            (denials, inbox.or(last).cloned())
        };
        let times = seldom.due(denials - std::mem::replace(&mut told, denials));
        if let (Some(times), Some(said)) = (times, said) {
            tracing::warn!(said, times, "nats denies it");
        }
        // Looked at every so often as well, so that a count that is held back is told. It cannot fail: the sender lives in
        // the connection.
        let _ = timeout(STATE_INTERVAL, alarms.changed()).await;
    }
}

impl Connection {
    /// Ends the connection: calls that hold it fail and let go of it, and the keeper makes another.
    pub(crate) fn end(&self) {
        self.alarms
            .send_if_modified(|alarms| !std::mem::replace(&mut alarms.ended, true));
    }
}

impl Shared {
    /// The connection, which may take a while.
    ///
    /// # Errors
    ///
    /// `None` after a wait of [`NatsOptions::ack_timeout`], or at once what refused us.
    pub(crate) async fn connection(&self) -> Result<Arc<Connection>, Option<Arc<LinkError>>> {
        let mut link = self.link.subscribe();
        let decided = |link: &Link| match link {
            Link::Up(connection) => !connection.alarms.borrow().ended,
            Link::Down(error) => error.as_ref().is_some_and(|error| error.is_refusal()),
            Link::Closed => true,
        };
        let _ = timeout(self.options.ack_timeout, link.wait_for(decided)).await;
        let link = self.link.borrow().clone();
        match link {
            Link::Up(connection) if !connection.alarms.borrow().ended => Ok(connection),
            Link::Down(error) => Err(error),
            Link::Up(_) | Link::Closed => Err(None),
        }
    }
}

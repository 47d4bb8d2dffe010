//! The endpoint's sockets: what is opened, and how long and how many.
//!
//! Whoever connects may be hostile, or a program that forgot to. Connections are few ([`Seats`]), each has one request and an
//! end, and none takes a descriptor that the journal or a broker's client would need. An endpoint that cannot be opened is
//! tried again, and holds nothing up.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rtm_sink::Seldom;
use rustix::process::{Resource, getrlimit};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::credentials::{Credentials, CredentialsError, Current, now};
use super::seats::{self, Seat, Seats};
use crate::attempt::Attempt;
use crate::config::AdminConfig;
use crate::{chain, lock};

/// How long a client has for its request, the handshake of TLS included.
const ASKING: Duration = Duration::from_secs(10);

/// How long a client has altogether.
const WHOLE: Duration = Duration::from_secs(30);

/// Bytes of a request's head, at most; no body is read.
const HEAD_BYTES: usize = 16 << 10;

/// How soon an endpoint that cannot be opened is tried again.
const AGAIN: Duration = Duration::from_secs(2);

/// How long the start waits for the first try, which may ask a name server.
const FIRST_TRY: Duration = Duration::from_secs(2);

/// How long reading the files of the credentials may take before that is told.
const READING: Duration = Duration::from_secs(1);

/// How often the files of the credentials are read again.
const LOOK: Duration = Duration::from_secs(10);

/// How long a client may sit there with nothing to ask when others wait for its seat.
const GRACE: Duration = Duration::from_millis(50);

/// After a connection could not be taken, for want of descriptors as a rule.
const PAUSE: Duration = Duration::from_millis(100);

/// Where the endpoint listens, or why it does not; none before the first try.
pub(crate) type Listening = watch::Receiver<Option<Result<SocketAddr, String>>>;

/// Why the endpoint is not open.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error("cannot listen on {address} (admin.listen)")]
    Listen {
        address: String,
        source: std::io::Error,
    },
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

/// Opens the endpoint, again and again until it is open, and serves it until `stop`. Returns after the first try.
pub(super) async fn serve(
    config: AdminConfig,
    router: impl FnOnce(Current) -> Router + Send + 'static,
    stop: CancellationToken,
) -> Listening {
    let (tx, mut listening) = watch::channel(None);
    tokio::spawn(async move {
        let serving = async {
            let reading = Reading::default();
            let (listener, credentials) = open(&config, &reading, &tx).await;
            let router = router(Arc::clone(&credentials));
            let renewing = renew(&config, &reading, &credentials);
            tokio::join!(accept(listener, &router, &credentials, &stop), renewing)
        };
        tokio::select! {
            _ = serving => {}
            () = stop.cancelled() => {}
        }
    });
    let _ = timeout(FIRST_TRY, listening.wait_for(Option::is_some)).await;
    listening
}

/// Returns when it is open.
async fn open(
    config: &AdminConfig,
    reading: &Reading,
    tx: &watch::Sender<Option<Result<SocketAddr, String>>>,
) -> (TcpListener, Current) {
    let mut told = Seldom::default();
    loop {
        match try_open(config, reading).await {
            Ok((listener, bound, credentials)) => {
                if !bound.ip().is_loopback() && !credentials.asks() {
                    warn!(admin = %bound, "the admin endpoint is not on loopback and asks for no token, so shield it, or set admin.token_file");
                }
                info!(admin = %bound, tls = credentials.tls.is_some(), token = credentials.asks(), "admin endpoint is listening");
                tx.send_replace(Some(Ok(bound)));
                return (listener, Arc::new(credentials.into()));
            }
            Err(error) => {
                let error = chain(&error);
                if told.due(1).is_some() {
                    error!(
                        error,
                        "there is no admin endpoint; everything else goes on, and it is tried again"
                    );
                }
                tx.send_replace(Some(Err(error)));
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn try_open(
    config: &AdminConfig,
    reading: &Reading,
) -> Result<(TcpListener, SocketAddr, Credentials), OpenError> {
    let credentials = read(config, reading).await?;
    let error = |source| OpenError::Listen {
        address: config.listen.to_string(),
        source,
    };
    let listener = config.listen.bind().await.map_err(error)?;
    let bound = listener.local_addr().map_err(error)?;
    Ok((listener, bound, credentials))
}

/// The files are on a share that hangs, perhaps, which must stop nothing.
type Reading = Attempt<Result<Credentials, CredentialsError>>;

async fn read(config: &AdminConfig, reading: &Reading) -> Result<Credentials, CredentialsError> {
    let read = || {
        let config = config.clone();
        tokio::task::spawn_blocking(move || Credentials::read(&config))
    };
    match reading.wait(READING, read).await {
        Some(read) => read.unwrap_or(Err(CredentialsError::Interrupted)),
        None => Err(CredentialsError::Silent),
    }
}

/// Reads the files again, for ever. What cannot be used is told of once, and what was in use stays.
async fn renew(config: &AdminConfig, reading: &Reading, current: &Current) {
    if config.token_file.is_none() && config.tls.is_none() {
        return std::future::pending().await;
    }
    let mut told = None;
    loop {
        tokio::time::sleep(LOOK).await;
        match read(config, reading).await {
            Ok(credentials) => {
                *lock(current) = credentials;
                told = None;
            }
            Err(error) => {
                let error = chain(&error);
                if told.as_ref() != Some(&error) {
                    warn!(
                        error,
                        "the admin endpoint goes on with what its files held before"
                    );
                    told = Some(error);
                }
            }
        }
    }
}

/// Takes connections, for ever.
async fn accept(
    listener: TcpListener,
    router: &Router,
    credentials: &Current,
    stop: &CancellationToken,
) {
    let (most, most_answered) = seats::most(getrlimit(Resource::Nofile).current);
    let open = Arc::new(Semaphore::new(most));
    let (waiting, answered) = (Arc::new(Seats::default()), Arc::new(Seats::default()));
    loop {
        // Before a connection is taken, so that there is never a descriptor more. Others wait in the kernel meanwhile.
        let is_open = room(&open, &waiting).await;
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                debug!(error = chain(&error), "cannot take a connection");
                waiting.take_back();
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let until = stop.child_token();
        let seat = waiting.take(until.clone());
        let connection = Connection {
            tls: now(credentials).tls.map(TlsAcceptor::from),
            router: router.clone(),
            answered: (Arc::clone(&answered), most_answered),
            until: until.clone(),
        };
        tokio::spawn(async move {
            let _is_open = is_open;
            tokio::select! {
                // A client that goes away, or says nothing, is none of ours.
                () = connection.serve(stream, seat) => {}
                () = until.cancelled() => {}
                () = tokio::time::sleep(WHOLE) => {}
            }
        });
    }
}

/// Waits until another connection may be open: until one ends, or the one that has waited longest has had its time to ask,
/// and has to go.
async fn room(open: &Arc<Semaphore>, waiting: &Seats) -> Option<OwnedSemaphorePermit> {
    loop {
        let patience = waiting
            .first()
            .map_or(GRACE, |first| GRACE.saturating_sub(first.elapsed()));
        match timeout(patience, Arc::clone(open).acquire_owned()).await {
            Ok(room) => return room.ok(),
            Err(_)
                if waiting
                    .first()
                    .is_some_and(|first| first.elapsed() >= GRACE) =>
            {
                waiting.take_back();
                // It is closed by its own task.
                tokio::task::yield_now().await;
            }
            Err(_) => {}
        }
    }
}

/// One connection.
struct Connection {
    tls: Option<TlsAcceptor>,
    router: Router,
    answered: (Arc<Seats>, usize),
    until: CancellationToken,
}

impl Connection {
    async fn serve(self, stream: TcpStream, seat: Seat) {
        match self.tls.clone() {
            None => self.serve_http(stream, seat).await,
            Some(tls) => {
                if let Ok(Ok(stream)) = timeout(ASKING, tls.accept(stream)).await {
                    self.serve_http(stream, seat).await;
                }
            }
        }
    }

    /// One request and its answer: a connection that is kept would take a seat for nothing.
    async fn serve_http(self, stream: impl AsyncRead + AsyncWrite + Unpin, seat: Seat) {
        let service = TowerToHyperService::new(self.router);
        let seat = std::sync::Mutex::new(seat);
        let answer = service_fn(|request: Request<Incoming>| {
            let (answered, most) = &self.answered;
            *lock(&seat) = answered.take_of(*most, self.until.clone());
            hyper::service::Service::call(&service, request.map(Body::new))
        });
        let _ = http1::Builder::new()
            .keep_alive(false)
            .max_buf_size(HEAD_BYTES)
            .timer(TokioTimer::new())
            .header_read_timeout(ASKING)
            .serve_connection(TokioIo::new(stream), answer)
            .await;
    }
}

#[cfg(test)]
mod tests;

//! The running simulator: its socket, its tasks and its handle.

use std::io;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::agora::Agora;
use crate::clock::Clock;
use crate::config::{InvalidSetting, SimConfig};
use crate::http::Connection;
use crate::in_process::InProcess;
use crate::{control, endpoint};

/// How often events arrive: half of it is what the arrival adds to an event's age.
const TICK: Duration = Duration::from_millis(5);

/// The most clients at once; more wait to be accepted.
const MAX_CONNECTIONS: usize = 1_024;

/// How long responses under way may take once the simulator shuts down.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);

/// A stand-in for Agora that listens until it is shut down or dropped: an [`InProcess`] behind a socket, and all that
/// can be done to one can be done to it while it listens.
///
/// Dropping it stops it too, but does not wait until it has stopped.
#[derive(Debug)]
pub struct Simulator {
    server: InProcess,
    addr: SocketAddr,
    task: JoinHandle<()>,
    stop: DropGuard,
}

/// Why a simulator did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address can be reached from elsewhere, and `allow_any_address` is not set.
    #[error("the simulator listens on loopback addresses only, and {addr} is none")]
    NotLoopback {
        /// The address in the configuration.
        addr: SocketAddr,
    },
    /// A value of the configuration makes no sense.
    #[error("the simulator's configuration is invalid")]
    Invalid(#[from] InvalidSetting),
    /// The address cannot be listened on.
    #[error("the simulator cannot listen on {addr}")]
    Listen {
        /// The address in the configuration.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

impl Simulator {
    /// Starts listening and generating events. Needs a tokio runtime with time and I/O.
    ///
    /// # Errors
    ///
    /// [`StartError`]; nothing runs then.
    pub async fn start(config: SimConfig) -> Result<Simulator, StartError> {
        let server = InProcess::new(&config, Clock::system())?;
        let addr = config.listen;
        if !addr.ip().is_loopback() && !config.allow_any_address {
            return Err(StartError::NotLoopback { addr });
        }
        let refused = |source| StartError::Listen { addr, source };
        let listener = TcpListener::bind(addr).await.map_err(refused)?;
        let addr = listener.local_addr().map_err(refused)?;
        let token = CancellationToken::new();
        let task = tokio::spawn(run(Arc::clone(&server.agora), listener, token.clone()));
        tracing::debug!(%addr, "the simulator is listening");
        Ok(Simulator {
            server,
            addr,
            task,
            stop: token.drop_guard(),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The base URL of a region, without a slash at its end. It is not checked that the region exists.
    #[must_use]
    pub fn base_url(&self, region: &str) -> String {
        format!("http://{}/{region}", self.addr)
    }

    /// Stops. Responses under way get a second to end; after that, and at idle connections at once, it hangs up.
    pub async fn shutdown(self) {
        drop(self.stop);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the simulator ended badly");
        }
    }
}

impl Deref for Simulator {
    type Target = InProcess;

    fn deref(&self) -> &InProcess {
        &self.server
    }
}

/// Accepts, serves and generates until `token` is cancelled, and leaves no task behind.
async fn run(agora: Arc<Agora>, listener: TcpListener, token: CancellationToken) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let accept = async {
            let permit = Arc::clone(&room).acquire_owned().await;
            (permit, listener.accept().await)
        };
        tokio::select! {
            () = token.cancelled() => break,
            _ = ticks.tick() => agora.tick(),
            (permit, accepted) = accept => match accepted {
                Ok((socket, _)) => {
                    let (agora, token) = (Arc::clone(&agora), token.clone());
                    connections.spawn(async move {
                        let _permit = permit;
                        serve(&agora, socket, &token).await;
                    });
                }
                // Such as too many open files: the next tick comes first, so this cannot spin.
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    ticks.tick().await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(SHUTDOWN_GRACE, ended).await.is_err() {
        connections.shutdown().await;
    }
}

/// Answers the requests of one connection, one after the other.
async fn serve(agora: &Agora, socket: TcpStream, token: &CancellationToken) {
    // A response is one write, or a few of a ledger: waiting for more to send helps nobody.
    let _ = socket.set_nodelay(true);
    let mut connection = Connection::new(socket);
    loop {
        let request = tokio::select! {
            () = token.cancelled() => return,
            request = connection.request() => request,
        };
        let request = match request {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(%error, "a connection ended");
                return;
            }
        };
        if request.path.starts_with(control::PREFIX) {
            let sent = match control::answer(agora, &request) {
                control::Answer::Reply(reply) => connection.reply(&reply).await.is_ok(),
                control::Answer::Ledger(ledger) => {
                    let lines = control::ndjson(ledger);
                    connection
                        .stream("application/x-ndjson", lines)
                        .await
                        .is_ok()
                }
            };
            if !sent {
                return;
            }
            continue;
        }
        let answer = tokio::select! {
            () = token.cancelled() => return,
            answer = endpoint::answer(agora, &request) => answer,
        };
        if !send(agora, &mut connection, answer).await {
            return;
        }
        tokio::select! {
            () = token.cancelled() => return,
            () = connection.abandoned() => {}
        }
    }
}

/// Sends what the API answered and notes in the ledger how far that came; false once the connection is of no use.
async fn send(agora: &Agora, connection: &mut Connection, answer: endpoint::Answer) -> bool {
    let endpoint::Answer { reply, page } = answer;
    let Some(reply) = reply else {
        connection.hang_up().await;
        if let Some(page) = page {
            agora.finished(page);
        }
        return false;
    };
    if let Some(page) = page {
        agora.begun(page);
    }
    let sent = connection.reply(&reply).await;
    if let Some(page) = page {
        match &sent {
            Ok(()) => agora.finished(page),
            Err(broken) => agora.broken_off(page, broken.body_bytes),
        }
    }
    sent.is_ok()
}

//! A network before a broker that plays with what ends what is stored in one, and with nothing else: Kafka's `EndTxn`, and
//! the last message of an atomic batch of NATS.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{Kafka, Nats};

/// The numbers of requests in Kafka's protocol.
const PRODUCE: [u8; 2] = 0_u16.to_be_bytes();
const END_TXN: [u8; 2] = 26_u16.to_be_bytes();
const INIT_PRODUCER_ID: [u8; 2] = 22_u16.to_be_bytes();

/// How long a late request waits for the answer to the records before it.
const LATEST: Duration = Duration::from_secs(1);

/// What may become of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The connection is cut, and the broker gets the request all the same, later: when it has the first records of the next
    /// one, and not yet the others.
    Zombie,
    /// The connection is cut, and the broker never gets it.
    Drop,
    /// The broker gets it, and the connection is cut before its answer.
    Swallow,
    /// The broker gets it later.
    Delay,
    /// The broker gets it twice, one at once after the other.
    Repeat,
    /// The broker gets it, and later once more, of which the client can know nothing. No network does so.
    Echo,
    /// The connection is cut, also to whatever ends the same transaction again, and the broker gets it right before the next
    /// producer begins. Kafka alone has producers that begin.
    BeforeTheNext,
}

/// Those that a client has to live with.
const FAULTS: [Fault; 5] = [
    Fault::Zombie,
    Fault::Drop,
    Fault::Swallow,
    Fault::Delay,
    Fault::Repeat,
];

/// Passes connections on to one broker. It ends when it is dropped.
pub struct CommitProxy {
    shared: Arc<Shared>,
    _accepting: JoinSet<()>,
}

/// Whose requests they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Kafka,
    Nats,
}

/// What a request is to this network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It has records of what is to be stored in one.
    Records,
    /// It ends that.
    Commit,
    /// A producer begins.
    Begin,
    Other,
}

struct Shared {
    protocol: Protocol,
    broker: OnceLock<String>,
    /// How many of a hundred are disturbed.
    percent: AtomicU32,
    /// Only this fault, if there is one; otherwise each of [`FAULTS`] in turn.
    only: Mutex<Option<Fault>>,
    disturbed: AtomicU64,
    /// Requests that the broker gets after the next records.
    late: Mutex<Vec<Vec<u8>>>,
}

impl CommitProxy {
    /// Starts a Kafka that is reached through it, since it advertises this address.
    ///
    /// # Errors
    ///
    /// When none can be started, with what to install.
    pub async fn before_kafka() -> Result<(CommitProxy, Kafka)> {
        let (proxy, address) = CommitProxy::listen(Protocol::Kafka).await?;
        let kafka = Kafka::start_behind(&address.to_string(), &proxy.shared.broker).await?;
        Ok((proxy, kafka))
    }

    /// Stands before a NATS server: the URL to reach it through.
    ///
    /// # Errors
    ///
    /// When there is no port.
    pub async fn before_nats(nats: &Nats) -> Result<(CommitProxy, String)> {
        let (proxy, address) = CommitProxy::listen(Protocol::Nats).await?;
        let server = nats.url().trim_start_matches("nats://");
        proxy.shared.broker.set(server.to_owned()).ok();
        Ok((proxy, format!("nats://{address}")))
    }

    async fn listen(protocol: Protocol) -> Result<(CommitProxy, SocketAddr)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            protocol,
            broker: OnceLock::new(),
            percent: AtomicU32::new(0),
            only: Mutex::new(None),
            disturbed: AtomicU64::new(0),
            late: Mutex::new(Vec::new()),
        });
        let mut accepting = JoinSet::new();
        let passing = Arc::clone(&shared);
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let shared = Arc::clone(&passing);
                connections.spawn(async move { drop(pass(client, &shared).await) });
            }
        });
        let proxy = CommitProxy {
            shared,
            _accepting: accepting,
        };
        Ok((proxy, address))
    }

    /// From now on so many of a hundred commits are disturbed.
    pub fn disturb(&self, percent: u32) {
        self.shared.percent.store(percent, Ordering::Relaxed);
    }

    /// From now on what becomes of those is this, and nothing else.
    pub fn only(&self, fault: Fault) {
        *lock(&self.shared.only) = Some(fault);
    }

    /// How many were disturbed.
    #[must_use]
    pub fn disturbed(&self) -> u64 {
        self.shared.disturbed.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn take_late(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut *lock(&self.late))
    }
}

async fn pass(client: TcpStream, shared: &Shared) -> Result<()> {
    let address = shared.broker.get().context("no broker yet")?;
    let broker = TcpStream::connect(address).await?;
    client.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    let protocol = shared.protocol;
    let (from_client, mut to_client) = client.into_split();
    let (from_broker, mut to_broker) = broker.into_split();
    let (mut from_client, mut from_broker) =
        (BufReader::new(from_client), BufReader::new(from_broker));
    let (mut answers, mut sent) = (JoinSet::new(), 0);
    let (answer, mut answered) = watch::channel(0_u64);
    answers.spawn(async move {
        while let Ok(frame) = protocol.frame(&mut from_broker).await {
            if to_client.write_all(&frame).await.is_err() {
                return;
            }
            answer.send_modify(|answered| *answered += 1);
        }
    });
    loop {
        let request = protocol.frame(&mut from_client).await?;
        sent += 1;
        let kind = protocol.kind(&request);
        let only = *lock(&shared.only);
        let is_before = only == Some(Fault::BeforeTheNext);
        if is_before && kind == Kind::Commit && !lock(&shared.late).is_empty() {
            return Ok(());
        }
        if is_before && kind == Kind::Begin {
            for request in shared.take_late() {
                protocol.once_more(address, &request).await?;
            }
        }
        if !is_before && kind == Kind::Records {
            to_broker.write_all(&request).await?;
            let late = shared.take_late();
            // NATS answers in its order whatever comes on another connection.
            if !late.is_empty() && protocol == Protocol::Kafka {
                let stored = answered.wait_for(|answered| *answered >= sent);
                drop(timeout(LATEST, stored).await);
            }
            for request in late {
                protocol.once_more(address, &request).await?;
            }
            continue;
        }
        let is_spared = fastrand::u32(0..100) >= shared.percent.load(Ordering::Relaxed);
        if kind != Kind::Commit || is_spared {
            to_broker.write_all(&request).await?;
            continue;
        }
        let before = shared.disturbed.fetch_add(1, Ordering::Relaxed);
        let in_turn = FAULTS[before as usize % FAULTS.len()];
        let fault = only.unwrap_or(in_turn);
        let later = Duration::from_millis(fastrand::u64(20..250));
        match fault {
            Fault::Zombie | Fault::BeforeTheNext => {
                lock(&shared.late).push(request);
                return Ok(());
            }
            Fault::Drop => return Ok(()),
            Fault::Swallow => {
                answers.shutdown().await;
                to_broker.write_all(&request).await?;
                sleep(later).await;
                return Ok(());
            }
            Fault::Delay => {
                sleep(later).await;
                to_broker.write_all(&request).await?;
            }
            Fault::Repeat => {
                protocol.once_more(address, &request).await?;
                to_broker.write_all(&request).await?;
            }
            Fault::Echo => {
                to_broker.write_all(&request).await?;
                let address = address.clone();
                answers.spawn(async move {
                    sleep(later).await;
                    drop(protocol.once_more(&address, &request).await);
                });
            }
        }
    }
}

impl Protocol {
    /// What is sent in one: of Kafka a request or an answer, with its length before it; of NATS a line, with the payload that
    /// it announces.
    async fn frame(self, from: &mut BufReader<OwnedReadHalf>) -> io::Result<Vec<u8>> {
        let mut frame = Vec::new();
        let more = match self {
            Protocol::Kafka => {
                frame.resize(4, 0);
                from.read_exact(&mut frame).await?;
                u32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]) as usize
            }
            Protocol::Nats => {
                if from.read_until(b'\n', &mut frame).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                let line = String::from_utf8_lossy(&frame);
                let mut words = line.split_ascii_whitespace();
                match words.next() {
                    Some("PUB" | "HPUB" | "MSG" | "HMSG") => {
                        let bytes = words.next_back().and_then(|bytes| bytes.parse().ok());
                        bytes.map_or(0, |bytes: usize| bytes + "\r\n".len())
                    }
                    _ => 0,
                }
            }
        };
        let begin = frame.len();
        frame.resize(begin + more, 0);
        from.read_exact(&mut frame[begin..]).await?;
        Ok(frame)
    }

    fn kind(self, request: &[u8]) -> Kind {
        match self {
            Protocol::Kafka if request.get(4..6) == Some(&PRODUCE) => Kind::Records,
            Protocol::Kafka if request.get(4..6) == Some(&END_TXN) => Kind::Commit,
            Protocol::Kafka if request.get(4..6) == Some(&INIT_PRODUCER_ID) => Kind::Begin,
            Protocol::Kafka => Kind::Other,
            Protocol::Nats => {
                let text = String::from_utf8_lossy(request);
                let is = |header: &str| request.starts_with(b"HPUB ") && text.contains(header);
                match (is("\r\nNats-Batch-Commit:"), is("\r\nNats-Batch-Id:")) {
                    (true, _) => Kind::Commit,
                    (false, true) => Kind::Records,
                    (false, false) => Kind::Other,
                }
            }
        }
    }

    /// Gives the broker a request on a connection of its own, and waits until it has it.
    async fn once_more(self, address: &str, request: &[u8]) -> io::Result<()> {
        let mut broker = BufReader::new(TcpStream::connect(address).await?);
        match self {
            Protocol::Kafka => {
                broker.write_all(request).await?;
                broker.read_exact(&mut [0; 4]).await?;
            }
            Protocol::Nats => {
                let connect = b"CONNECT {\"verbose\":false,\"headers\":true}\r\n";
                let all = [&connect[..], request, b"PING\r\n"].concat();
                broker.write_all(&all).await?;
                let mut line = String::new();
                while line != "PONG\r\n" {
                    line.clear();
                    if broker.read_line(&mut line).await? == 0 {
                        break;
                    }
                }
            }
        }
        Ok(())
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

//! A network between producers and a broker that plays with what ends transactions: `EndTxn`, and nothing else.

use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Kafka;

/// The numbers of requests in Kafka's protocol.
const PRODUCE: [u8; 2] = 0_u16.to_be_bytes();
const END_TXN: [u8; 2] = 26_u16.to_be_bytes();

/// How long a late request waits for the answer to the records before it.
const LATEST: Duration = Duration::from_secs(1);

/// What may become of an `EndTxn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The connection is cut, and the broker gets the request all the same, later: when it has the first records of the next
    /// transaction, and not yet the others.
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
}

/// Those that a client has to live with.
const FAULTS: [Fault; 5] = [
    Fault::Zombie,
    Fault::Drop,
    Fault::Swallow,
    Fault::Delay,
    Fault::Repeat,
];

/// Passes connections on to one broker, which advertises this address. It ends when it is dropped.
pub struct CommitProxy {
    shared: Arc<Shared>,
    _accepting: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    broker: OnceLock<String>,
    /// How many of a hundred are disturbed.
    percent: AtomicU32,
    /// Only this fault, if there is one; otherwise any of [`FAULTS`].
    only: Mutex<Option<Fault>>,
    disturbed: AtomicU64,
    /// Requests that the broker gets after the next records.
    late: Mutex<Vec<Vec<u8>>>,
}

impl CommitProxy {
    /// Starts a broker that is reached through it.
    ///
    /// # Errors
    ///
    /// As [`Kafka::start_own`].
    pub async fn start() -> Result<(CommitProxy, Kafka)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = format!("PLAINTEXT://{}", listener.local_addr()?);
        let shared = Arc::<Shared>::default();
        let mut accepting = JoinSet::new();
        let passing = Arc::clone(&shared);
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let shared = Arc::clone(&passing);
                connections.spawn(async move { drop(pass(client, &shared).await) });
            }
        });
        let kafka = Kafka::start_own_with(&[("advertised.listeners", address.as_str())]).await?;
        shared.broker.set(kafka.address().to_owned()).ok();
        let proxy = CommitProxy {
            shared,
            _accepting: accepting,
        };
        Ok((proxy, kafka))
    }

    /// From now on so many of a hundred `EndTxn` are disturbed.
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

async fn pass(client: TcpStream, shared: &Shared) -> Result<()> {
    let address = loop {
        match shared.broker.get() {
            Some(address) => break address,
            None => sleep(Duration::from_millis(20)).await,
        }
    };
    let broker = TcpStream::connect(address).await?;
    client.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_broker, mut to_broker) = broker.into_split();
    let (mut answers, mut sent) = (JoinSet::new(), 0);
    let (answer, mut answered) = watch::channel(0_u64);
    answers.spawn(async move {
        while let Ok(frame) = frame(&mut from_broker).await {
            if to_client.write_all(&frame).await.is_err() {
                return;
            }
            answer.send_modify(|answered| *answered += 1);
        }
    });
    loop {
        let request = frame(&mut from_client).await?;
        sent += 1;
        let kind = request.get(4..6);
        if kind == Some(&PRODUCE) {
            to_broker.write_all(&request).await?;
            let late = std::mem::take(&mut *lock(&shared.late));
            if !late.is_empty() {
                let stored = answered.wait_for(|answered| *answered >= sent);
                drop(timeout(LATEST, stored).await);
            }
            for request in late {
                once_more(address, &request).await?;
            }
            continue;
        }
        let is_end = kind == Some(&END_TXN);
        if !is_end || fastrand::u32(0..100) >= shared.percent.load(Ordering::Relaxed) {
            to_broker.write_all(&request).await?;
            continue;
        }
        shared.disturbed.fetch_add(1, Ordering::Relaxed);
        let fault = *lock(&shared.only);
        let fault = fault.unwrap_or_else(|| FAULTS[fastrand::usize(0..FAULTS.len())]);
        let later = Duration::from_millis(fastrand::u64(20..250));
        match fault {
            Fault::Zombie => {
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
                once_more(address, &request).await?;
                to_broker.write_all(&request).await?;
            }
            Fault::Echo => {
                to_broker.write_all(&request).await?;
                let address = address.clone();
                answers.spawn(async move {
                    sleep(later).await;
                    drop(once_more(&address, &request).await);
                });
            }
        }
    }
}

async fn once_more(address: &str, request: &[u8]) -> io::Result<()> {
    let mut broker = TcpStream::connect(address).await?;
    broker.write_all(request).await?;
    let mut length = [0; 4];
    broker.read_exact(&mut length).await?;
    Ok(())
}

/// A request, with its length before it.
async fn frame(from: &mut OwnedReadHalf) -> io::Result<Vec<u8>> {
    let mut request = vec![0; 4];
    from.read_exact(&mut request).await?;
    let length = u32::from_be_bytes([request[0], request[1], request[2], request[3]]);
    request.resize(4 + length as usize, 0);
    from.read_exact(&mut request[4..]).await?;
    Ok(request)
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

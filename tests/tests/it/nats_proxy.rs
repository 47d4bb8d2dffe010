//! A network between the sink and the server, which loses, holds up and cuts what it is told to.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Passes connections on to one server. It ends when it is dropped.
pub(super) struct Proxy {
    url: String,
    rules: Arc<Rules>,
    _tasks: JoinSet<()>,
}

/// What happens to what passes through.
struct Rules {
    /// Acknowledgements still let through; the rest is lost. [`ALL`] is no limit.
    answers: AtomicU64,
    /// Acknowledgements that were lost.
    lost: AtomicU64,
    /// How long each run of bytes from the server is held up.
    latency: watch::Sender<Duration>,
    /// Bytes from the sink in each 10 ms; 0 is no limit.
    rate: AtomicU64,
    /// Counts up to end all connections there are.
    cut: watch::Sender<u64>,
}

const ALL: u64 = u64::MAX;

impl Proxy {
    /// Passes everything on to `server`, until told otherwise.
    pub(super) async fn start(server: &str) -> Proxy {
        let server = server.trim_start_matches("nats://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("nats://{}", listener.local_addr().unwrap());
        let rules = Arc::new(Rules {
            answers: AtomicU64::new(ALL),
            lost: AtomicU64::new(0),
            latency: watch::Sender::new(Duration::ZERO),
            rate: AtomicU64::new(0),
            cut: watch::Sender::new(0),
        });
        let mut tasks = JoinSet::new();
        let accepting = Arc::clone(&rules);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                // A server that is away: the client's connection is closed at once.
                if let Ok(server) = TcpStream::connect(&server).await {
                    connections.spawn(pass(client, server, Arc::clone(&accepting)));
                }
            }
        });
        Proxy {
            url,
            rules,
            _tasks: tasks,
        }
    }

    /// Where the sink connects to.
    pub(super) fn url(&self) -> String {
        self.url.clone()
    }

    /// Lets so many more acknowledgements through, and loses those that follow.
    pub(super) fn lose_answers_after(&self, count: u64) {
        self.rules.answers.store(count, Ordering::SeqCst);
    }

    /// How many acknowledgements were lost.
    pub(super) fn lost(&self) -> u64 {
        self.rules.lost.load(Ordering::SeqCst)
    }

    /// Lets all acknowledgements through again.
    pub(super) fn lose_nothing(&self) {
        self.rules.answers.store(ALL, Ordering::SeqCst);
    }

    /// Holds up whatever the server says.
    pub(super) fn set_latency(&self, latency: Duration) {
        self.rules.latency.send_replace(latency);
    }

    /// Takes no more than so many bytes in each 10 ms from the sink.
    pub(super) fn set_rate(&self, bytes: u64) {
        self.rules.rate.store(bytes, Ordering::SeqCst);
    }

    /// Ends every connection there is.
    pub(super) fn cut(&self) {
        self.rules.cut.send_modify(|cuts| *cuts += 1);
    }
}

async fn pass(client: TcpStream, server: TcpStream, rules: Arc<Rules>) {
    let mut cut = rules.cut.subscribe();
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        _ = cut.changed() => (),
        _ = requests(from_client, to_server, &rules) => (),
        _ = answers(from_server, to_client, &rules) => (),
    }
}

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    rules: &Rules,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let rate = usize::try_from(rules.rate.load(Ordering::SeqCst)).unwrap();
        let most = if rate == 0 { buffer.len() } else { rate };
        let count = from.read(&mut buffer[..most]).await?;
        if count == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..count]).await?;
        if rate > 0 {
            sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Reads the protocol, so that what is lost is always a whole message.
async fn answers(
    from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    rules: &Rules,
) -> std::io::Result<()> {
    let mut from = BufReader::new(from);
    let mut message = Vec::new();
    loop {
        message.clear();
        if from.read_until(b'\n', &mut message).await? == 0 {
            return Ok(());
        }
        let has_payload = message.starts_with(b"MSG ") || message.starts_with(b"HMSG ");
        if has_payload {
            let line = String::from_utf8_lossy(&message);
            let size: usize = line.split_whitespace().last().unwrap().parse().unwrap();
            let start = message.len();
            message.resize(start + size + 2, 0);
            from.read_exact(&mut message[start..]).await?;
        }
        if has_payload && is_acknowledgement(&message) && !rules.lets_through() {
            rules.lost.fetch_add(1, Ordering::SeqCst);
            continue;
        }
        let latency = *rules.latency.borrow();
        if from.buffer().is_empty() && !latency.is_zero() {
            sleep(latency).await;
        }
        to.write_all(&message).await?;
    }
}

/// Whether it answers a record; the other answers are those of JetStream's interface, which name their type.
fn is_acknowledgement(message: &[u8]) -> bool {
    !String::from_utf8_lossy(message).contains("\"type\":\"io.nats.jetstream.api")
}

impl Rules {
    fn lets_through(&self) -> bool {
        let take = |answers: u64| match answers {
            ALL => Some(ALL),
            answers => answers.checked_sub(1),
        };
        self.answers
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take)
            .is_ok()
    }
}

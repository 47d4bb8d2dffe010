//! Real brokers for tests and trials: a [`Kafka`] and a [`Nats`], shared or one's own.
//!
//! Looked for in this order, and the one taken is printed:
//!
//! 1. addresses in the environment, `RTM_TEST_KAFKA=host:port` and `RTM_TEST_NATS=nats://host:port` (not for brokers of
//!    one's own: a test cannot pause what it did not start);
//! 2. a container engine, found by asking its socket, since the client may be installed without one;
//! 3. local brokers, installed into `RTM_TEST_CACHE` (default `${XDG_CACHE_HOME:-$HOME/.cache}/rtm-bridge`): Kafka's
//!    jars by Maven, nats-server by Go. They listen on free loopback ports, keep their files in a temporary directory,
//!    and end with the tests, however those end.
//!
//! A [`SecureKafka`] is always local, since its users are made with its storage.
//!
//! Otherwise the first test that asks fails, and says what to install.

use std::fmt;
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard, OnceCell};

use crate::process::{POLL, Process, tail};

mod commits;
mod container;
pub(crate) mod install;
mod kafka;
mod nats;

pub use commits::{CommitProxy, Fault};
use container::Container;
pub use kafka::{Door, Kafka, KafkaRecord, Operation, Printed, Right, SecureKafka};
pub use nats::{Nats, NatsRecord};

/// The Kafka that all tests of this process share, started by the first to ask.
///
/// # Panics
///
/// When there is none to be had, for every test that asks and with the same reason.
pub async fn kafka() -> &'static Kafka {
    static SHARED: OnceCell<Result<Kafka, String>> = OnceCell::const_new();
    let start = async || {
        Box::pin(Kafka::start_shared())
            .await
            .map_err(|error| format!("{error:#}"))
    };
    SHARED
        .get_or_init(start)
        .await
        .as_ref()
        .unwrap_or_else(|error| panic!("{error}"))
}

/// The Kafka with every kind of authentication that all tests of this process share, started by the first to ask.
///
/// # Panics
///
/// When there is none to be had, for every test that asks and with the same reason.
pub async fn secure_kafka() -> &'static SecureKafka {
    static SHARED: OnceCell<Result<SecureKafka, String>> = OnceCell::const_new();
    let start = async || {
        Box::pin(SecureKafka::start_own())
            .await
            .map_err(|error| format!("{error:#}"))
    };
    SHARED
        .get_or_init(start)
        .await
        .as_ref()
        .unwrap_or_else(|error| panic!("{error}"))
}

/// As [`secure_kafka`], and another, for tests that pause or kill it: one after the other has it. It runs when it is given,
/// and the test may leave it in any state.
///
/// # Panics
///
/// As [`secure_kafka`], and when it does not come back from what the last test did to it.
pub async fn mortal_kafka() -> MutexGuard<'static, SecureKafka> {
    static SHARED: OnceCell<Result<Mutex<SecureKafka>, String>> = OnceCell::const_new();
    let start = async || {
        Box::pin(SecureKafka::start_own())
            .await
            .map(Mutex::new)
            .map_err(|error| format!("{error:#}"))
    };
    let shared = SHARED.get_or_init(start).await;
    let shared = shared.as_ref().unwrap_or_else(|error| panic!("{error}"));
    let mut broker = shared.lock().await;
    let revived = broker.revive().await;
    revived.unwrap_or_else(|error| panic!("{error:#}"));
    broker
}

/// The NATS server with JetStream that all tests of this process share, started by the first to ask.
///
/// # Panics
///
/// When there is none to be had, for every test that asks and with the same reason.
pub async fn nats() -> &'static Nats {
    static SHARED: OnceCell<Result<Nats, String>> = OnceCell::const_new();
    let start = async || {
        Box::pin(Nats::start_shared())
            .await
            .map_err(|error| format!("{error:#}"))
    };
    SHARED
        .get_or_init(start)
        .await
        .as_ref()
        .unwrap_or_else(|error| panic!("{error}"))
}

/// Both, installed and started at the same time.
///
/// # Panics
///
/// As [`kafka`] and [`nats`].
pub async fn both() -> (&'static Kafka, &'static Nats) {
    tokio::join!(kafka(), nats())
}

/// A name for a topic or a stream that no other test has, in this run or in another against the same broker.
#[must_use]
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis();
    format!(
        "{prefix}-{now:x}-{:x}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// How a broker is run, and so how it is paused, killed and restarted.
enum Host {
    /// By somebody else: nothing can be done to it.
    Elsewhere,
    /// Boxed, being by far the largest.
    Container(Box<Container>),
    Local(Local),
}

/// A broker as a child process. Restarted, it finds the files and the port of its predecessor.
struct Local {
    command: Vec<String>,
    dir: TempDir,
    process: Process,
}

impl Local {
    /// Starts `command` with its files in `dir`.
    fn start(command: Vec<String>, dir: TempDir) -> Result<Local> {
        let process = Local::spawn(&command, dir.path())?;
        Ok(Local {
            command,
            dir,
            process,
        })
    }

    fn spawn(command: &[String], dir: &Path) -> Result<Process> {
        let (program, arguments) = command.split_first().context("no program to start")?;
        Process::start(
            Path::new(program),
            arguments,
            &[],
            &dir.join("broker.log"),
            Some(dir),
        )
    }
}

impl Host {
    async fn pause(&mut self) -> Result<()> {
        match self {
            Host::Elsewhere => Err(not_ours()),
            Host::Container(container) => container.pause().await,
            Host::Local(local) => local.process.pause(),
        }
    }

    async fn resume(&mut self) -> Result<()> {
        match self {
            Host::Elsewhere => Err(not_ours()),
            Host::Container(container) => container.resume().await,
            Host::Local(local) => local.process.signal(Signal::SIGCONT),
        }
    }

    async fn kill(&mut self) -> Result<()> {
        match self {
            Host::Elsewhere => Err(not_ours()),
            Host::Container(container) => container.kill().await,
            Host::Local(local) => local.process.kill(),
        }
    }

    /// Processor time spent so far, in seconds.
    fn cpu_seconds(&self) -> Result<f64> {
        match self {
            Host::Local(local) => local.process.cpu_seconds(),
            Host::Elsewhere | Host::Container(_) => Err(not_ours()),
        }
    }

    /// Whether it has ended.
    fn ended(&mut self) -> Result<bool> {
        match self {
            Host::Local(local) => Ok(local.process.exited()?.is_some()),
            Host::Elsewhere | Host::Container(_) => Err(not_ours()),
        }
    }

    /// Starts it again after a kill. It is not ready yet on return.
    async fn start_again(&mut self) -> Result<()> {
        match self {
            Host::Elsewhere => Err(not_ours()),
            Host::Container(container) => container.start_again().await,
            Host::Local(local) => {
                ensure!(
                    local.process.exited()?.is_some(),
                    "the broker still runs: kill it first"
                );
                local.process = Local::spawn(&local.command, local.dir.path())?;
                Ok(())
            }
        }
    }

    /// Why it will never be ready, with the end of its log; nothing while it runs.
    async fn failure(&mut self) -> Result<Option<String>> {
        Ok(match self {
            Host::Elsewhere => None,
            Host::Container(container) => container.failure().await?,
            Host::Local(local) => match local.process.exited()? {
                Some(status) => Some(format!(
                    "ended with {status}:\n{}",
                    tail(&local.process.output()?)
                )),
                None => None,
            },
        })
    }

    /// Waits until `probe` holds.
    async fn ready(&mut self, mut probe: impl AsyncFnMut() -> bool) -> Result<()> {
        let end = Instant::now() + START_DEADLINE;
        while !probe().await {
            if let Some(failure) = self.failure().await? {
                bail!("the broker {failure}");
            }
            if Instant::now() > end {
                let log = match self {
                    Host::Local(local) => tail(&local.process.output()?),
                    _ => String::new(),
                };
                bail!("the broker is not ready after {START_DEADLINE:?}\n{log}");
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Elsewhere => f.write_str("address from the environment"),
            Host::Container(container) => write!(f, "container {}", container.image()),
            Host::Local(local) => write!(f, "local process {}", local.process.pid()),
        }
    }
}

pub(crate) fn not_ours() -> anyhow::Error {
    anyhow!("the broker at an address from the environment is not ours to stop")
}

/// Starts the broker `name` by `container` where there is an engine, and otherwise by `local`.
async fn start<B>(
    name: &str,
    container: impl AsyncFnOnce() -> Result<B>,
    local: impl AsyncFn() -> Result<B>,
) -> Result<B> {
    if container::engine_answers().await {
        match container().await {
            Ok(broker) => return Ok(broker),
            // An engine without a way to the registry, say.
            Err(error) => say(&format!(
                "{name}: no container ({error:#}); trying a local one"
            )),
        }
    }
    start_local(name, local).await
}

/// Starts the broker `name` by `local`.
async fn start_local<B>(name: &str, local: impl AsyncFn() -> Result<B>) -> Result<B> {
    // Another process may take a free port between our finding it and the broker's using it.
    const ATTEMPTS: u32 = 3;
    let mut attempt = 1;
    loop {
        match local().await {
            Err(error)
                if attempt < ATTEMPTS && format!("{error:#}").contains("ddress already in use") =>
            {
                attempt += 1;
            }
            result => {
                return result.with_context(|| format!("{name}: cannot start one for the tests"));
            }
        }
    }
}

/// Prints a line that `cargo test` shows for passing tests too: it captures only what the print macros write.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "brokers: {line}");
}

/// A loopback port that nobody listens on.
///
/// Below the range that the kernel gives to outgoing connections. In that range, a client that keeps trying to reach a
/// killed broker may be given the broker's port as its own, connect to itself, and hold the port against the restart.
pub fn free_port() -> Result<u16> {
    const FIRST: u32 = 15_000;
    const COUNT: u32 = 15_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let spread = std::process::id().wrapping_mul(7919);
    for _ in 0..COUNT {
        let offset = spread.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = u16::try_from(FIRST + offset)?;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port between {FIRST} and {}", FIRST + COUNT)
}

/// A directory for a broker's files, under the system's own for temporary ones.
fn scratch(broker: &str) -> Result<TempDir> {
    tempfile::Builder::new()
        .prefix(&format!("rtm-{broker}-"))
        .tempdir()
        .context("make a temporary directory")
}

/// Where brokers are installed.
fn cache_dir() -> Result<PathBuf> {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("RTM_TEST_CACHE")
        .or_else(|| {
            Some(
                set("XDG_CACHE_HOME")
                    .or_else(|| Some(set("HOME")?.join(".cache")))?
                    .join("rtm-bridge"),
            )
        })
        .context("neither RTM_TEST_CACHE nor XDG_CACHE_HOME nor HOME is set")
}

/// A start takes 2 to 3 seconds; this is for a machine that is compiling at the same time.
const START_DEADLINE: Duration = Duration::from_secs(90);

//! A NATS server with JetStream, and what it has stored.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use async_nats::jetstream;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use bytes::Bytes;
use futures::StreamExt;
use nix::sys::signal::Signal;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::container::{Container, Wanted};
use super::{Host, Local, free_port, install, not_ours, say, scratch};

/// A single NATS server with JetStream on file storage, without authentication.
pub struct Nats {
    url: String,
    version: String,
    host: Host,
    /// Where its configuration is; none if it is not ours.
    file: Option<ConfigurationFile>,
}

/// The configuration as the server finds it when it starts.
struct ConfigurationFile {
    path: PathBuf,
    listen: String,
    data: String,
}

/// One message as JetStream stored it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatsRecord {
    /// Its place in the stream, from 1.
    pub sequence: u64,
    /// The subject it was published to.
    pub subject: String,
    /// Its payload.
    pub payload: Bytes,
    /// Its headers; those of one name are in order.
    pub headers: Vec<(String, String)>,
    /// When the server took it: milliseconds since the Unix epoch.
    pub time: i64,
}

impl Nats {
    /// The server's processor time so far, in seconds.
    ///
    /// # Errors
    ///
    /// When it is no process of ours.
    pub fn cpu_seconds(&self) -> Result<f64> {
        self.host.cpu_seconds()
    }

    /// Starts a server of one's own, to pause, kill and restart. It ends, and its files go, when this is dropped.
    ///
    /// # Errors
    ///
    /// When none can be started, with what to install.
    pub async fn start_own() -> Result<Nats> {
        Nats::start_own_with("").await
    }

    /// As [`Nats::start_own`], with `configuration` appended to the harness's, such as an `authorization` or a `tls`
    /// block. Where clients must authenticate, only the methods that stop and start the server work.
    ///
    /// # Errors
    ///
    /// As [`Nats::start_own`].
    pub async fn start_own_with(configuration: &str) -> Result<Nats> {
        let started = Instant::now();
        let container = async || Nats::in_container(configuration).await;
        let nats =
            super::start("NATS", container, async || Nats::local(configuration).await).await?;
        let seconds = started.elapsed().as_secs_f64();
        say(&format!(
            "NATS {} at {} ({}, started in {seconds:.1} s)",
            nats.version, nats.url, nats.host
        ));
        Ok(nats)
    }

    /// Starts three servers of one's own that are one cluster, as [`Nats::start_own`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn start_cluster() -> Result<[Nats; 3]> {
        let ports = [free_port()?, free_port()?, free_port()?];
        let routes = ports.map(|port| format!("\"nats://127.0.0.1:{port}\""));
        let configure = |index: usize| {
            format!(
                "server_name: s{index}\n\
                 cluster {{ name: c, listen: \"127.0.0.1:{}\", routes: [ {} ] }}",
                ports[index],
                routes.join(", ")
            )
        };
        let [a, b, c] = [0, 1, 2].map(configure);
        let (a, b, c) = tokio::try_join!(
            Nats::start_own_with(&a),
            Nats::start_own_with(&b),
            Nats::start_own_with(&c)
        )?;
        Ok([a, b, c])
    }

    pub(super) async fn start_shared() -> Result<Nats> {
        let Some(url) = std::env::var("RTM_TEST_NATS")
            .ok()
            .filter(|value| !value.is_empty())
        else {
            return Nats::start_own().await;
        };
        let mut nats = Nats {
            url,
            version: String::new(),
            host: Host::Elsewhere,
            file: None,
        };
        nats.wait_until_ready()
            .await
            .with_context(|| format!("NATS at {} from RTM_TEST_NATS", nats.url))?;
        say(&format!(
            "NATS {} at {} ({})",
            nats.version, nats.url, nats.host
        ));
        Ok(nats)
    }

    /// `nats://host:port`, the same after a restart.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The version that the server says it has.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The server's process; none if it is not a child of ours.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        match &self.host {
            Host::Local(local) => Some(local.process.pid()),
            Host::Container(_) | Host::Elsewhere => None,
        }
    }

    /// Stops the server in its tracks: it keeps its connections and answers nothing.
    ///
    /// # Errors
    ///
    /// When it does not run, or is not ours.
    pub async fn pause(&mut self) -> Result<()> {
        self.host.pause().await
    }

    /// Lets a paused server go on.
    ///
    /// # Errors
    ///
    /// When it does not run, or is not ours.
    pub async fn resume(&mut self) -> Result<()> {
        self.host.resume().await
    }

    /// Kills the server (`kill -9`). Its files stay.
    ///
    /// # Errors
    ///
    /// When it is not ours.
    pub async fn kill(&mut self) -> Result<()> {
        self.host.kill().await
    }

    /// Starts a killed server again, on the same port and files, and waits until it is ready.
    ///
    /// # Errors
    ///
    /// When it does not start, with the end of its log.
    pub async fn restart(&mut self) -> Result<()> {
        self.host.start_again().await?;
        self.wait_until_ready().await
    }

    /// Starts a killed server again with `configuration` in place of what [`Nats::start_own_with`] was given.
    ///
    /// # Errors
    ///
    /// As [`Nats::restart`].
    pub async fn restart_with(&mut self, configuration: &str) -> Result<()> {
        let file = self.file.as_ref().ok_or_else(not_ours)?;
        file.write(configuration)?;
        self.restart().await
    }

    /// Copies what the server has on its disk, as it is while it runs.
    ///
    /// # Errors
    ///
    /// When it is not a process of ours.
    pub fn copy_store(&self) -> Result<PathBuf> {
        let store = self.store()?;
        let copy = store.with_extension("copy");
        let _ = fs::remove_dir_all(&copy);
        copy_dir(&store, &copy).context("copy the store")?;
        Ok(copy)
    }

    /// Puts a copy of the store of a killed server back, as a power failure leaves it: what was not synced is gone. With
    /// `cut` the last block of each stream loses that part of its end, and without `index` the servers' own notes are gone.
    ///
    /// # Errors
    ///
    /// When it is not a process of ours, or the files cannot be changed.
    pub fn put_back(&self, copy: &Path, cut: f64, index: bool) -> Result<()> {
        let store = self.store()?;
        fs::remove_dir_all(&store).context("remove the store")?;
        fs::rename(copy, &store).context("put the copy back")?;
        let mut dirs = vec![store];
        while let Some(dir) = dirs.pop() {
            let mut blocks = Vec::new();
            for entry in fs::read_dir(&dir)? {
                let path = entry?.path();
                let name = path
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                if path.is_dir() {
                    dirs.push(path);
                } else if let Some(number) = name.strip_suffix(".blk") {
                    blocks.push((number.parse::<u64>()?, path));
                } else if name == "index.db" && !index {
                    fs::remove_file(path)?;
                }
            }
            if let Some((_, last)) = blocks.into_iter().max() {
                let file = fs::OpenOptions::new().write(true).open(&last)?;
                let bytes = file.metadata()?.len();
                file.set_len((bytes as f64 * (1.0 - cut)) as u64)?;
            }
        }
        Ok(())
    }

    fn store(&self) -> Result<PathBuf> {
        let file = self.file.as_ref().filter(|_| self.pid().is_some());
        Ok(PathBuf::from(&file.ok_or_else(not_ours)?.data))
    }

    /// Tells the server to stop in its own time: it takes no new connections, ends those it has, then itself.
    ///
    /// # Errors
    ///
    /// When it does not run, or is not ours.
    pub async fn lame_duck(&mut self) -> Result<()> {
        match &mut self.host {
            Host::Elsewhere => Err(not_ours()),
            Host::Container(container) => container.signal("USR2").await,
            Host::Local(local) => local.process.signal(Signal::SIGUSR2),
        }
    }

    /// A new connection's JetStream, which belongs to the calling runtime.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached.
    pub async fn jetstream(&self) -> Result<jetstream::Context> {
        Ok(jetstream::new(async_nats::connect(&self.url).await?))
    }

    /// Creates a stream on file storage that takes `subjects`, and atomic batches.
    ///
    /// # Errors
    ///
    /// When there is another of that name, or one that takes the same subjects.
    pub async fn create_jetstream(&self, name: &str, subjects: &[&str]) -> Result<()> {
        let config = jetstream::stream::Config {
            name: name.to_owned(),
            subjects: subjects.iter().map(|&subject| subject.to_owned()).collect(),
            allow_atomic_publish: true,
            ..Default::default()
        };
        self.jetstream()
            .await?
            .create_stream(config)
            .await
            .with_context(|| format!("create stream {name}"))?;
        Ok(())
    }

    /// Everything that `stream` holds now, in order. Not for streams with work queue retention.
    ///
    /// # Errors
    ///
    /// When there is no such stream, or the server does not answer.
    pub async fn read_all(&self, stream: &str) -> Result<Vec<NatsRecord>> {
        let stream = self
            .jetstream()
            .await?
            .get_stream(stream)
            .await
            .with_context(|| format!("stream {stream}"))?;
        let state = stream.get_info().await?.state;
        let mut records = Vec::with_capacity(usize::try_from(state.messages)?);
        if state.messages == 0 {
            return Ok(records);
        }
        let config = pull::Config {
            ack_policy: AckPolicy::None,
            memory_storage: true,
            inactive_threshold: PATIENCE,
            ..Default::default()
        };
        let consumer = stream.create_consumer(config).await?;
        let mut messages = consumer
            .stream()
            .max_messages_per_batch(READ_BATCH)
            .messages()
            .await?;
        loop {
            let next = timeout(PATIENCE, messages.next()).await;
            let next = next.with_context(|| {
                format!("nothing more for {PATIENCE:?}, after {}", records.len())
            })?;
            let message = next.context("the server ended the reading")??;
            let info = message.info().map_err(|error| anyhow::anyhow!(error))?;
            let (sequence, pending) = (info.stream_sequence, info.pending);
            if sequence <= state.last_sequence {
                records.push(record(
                    &message,
                    sequence,
                    info.published.unix_timestamp_nanos(),
                )?);
            }
            // The last message may have been removed meanwhile, so its number alone is no sign of the end.
            if sequence >= state.last_sequence || pending == 0 {
                return Ok(records);
            }
        }
    }

    async fn local(configuration: &str) -> Result<Nats> {
        let server = spawn_blocking(install::nats_server).await??;
        let dir = scratch("nats")?;
        let port = free_port()?;
        let file = ConfigurationFile {
            path: dir.path().join("server.conf"),
            listen: format!("127.0.0.1:{port}"),
            data: dir.path().join("data").display().to_string(),
        };
        file.write(configuration)?;
        let command = vec![
            server.display().to_string(),
            "--config".to_owned(),
            file.path.display().to_string(),
        ];
        Nats::ready(port, Host::Local(Local::start(command, dir)?), file).await
    }

    async fn in_container(configuration: &str) -> Result<Nats> {
        const INSIDE: &str = "/etc/nats/rtm-tests.conf";
        let port = free_port()?;
        // Never removed by us: the container reads it again when it restarts.
        let file = ConfigurationFile {
            path: scratch("nats")?.keep().join("server.conf"),
            listen: format!("0.0.0.0:{port}"),
            data: "/data".to_owned(),
        };
        file.write(configuration)?;
        let wanted = Wanted {
            image: "nats",
            tag: install::NATS_VERSION.to_owned(),
            port,
            env: Vec::new(),
            arguments: vec!["--config".to_owned(), INSIDE.to_owned()],
            file: Some((file.path.clone(), INSIDE)),
        };
        let container = Box::pin(Container::start(wanted)).await?;
        Nats::ready(port, Host::Container(Box::new(container)), file).await
    }

    async fn ready(port: u16, host: Host, file: ConfigurationFile) -> Result<Nats> {
        let mut nats = Nats {
            url: format!("nats://127.0.0.1:{port}"),
            version: String::new(),
            host,
            file: Some(file),
        };
        nats.wait_until_ready().await?;
        Ok(nats)
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let url = self.url.clone();
        let mut version = None;
        let file = self.file.as_ref();
        let text = file.and_then(|file| fs::read_to_string(&file.path).ok());
        if text.is_some_and(|text| text.contains("handshake_first: true")) {
            // Such a server sends its greeting behind TLS only.
            let address: async_nats::ServerAddr = url.parse()?;
            let at = (address.host(), address.port());
            return self
                .host
                .ready(async || TcpStream::connect(at).await.is_ok())
                .await;
        }
        self.host
            .ready(async || {
                version = greeting(&url).await.ok();
                version.is_some()
            })
            .await?;
        self.version = version.unwrap_or_default();
        Ok(())
    }
}

/// The version in the server's greeting, which it sends once JetStream is up and before any authentication.
async fn greeting(url: &str) -> Result<String> {
    #[derive(Deserialize)]
    struct Info {
        version: String,
        #[serde(default)]
        jetstream: bool,
    }
    let address: async_nats::ServerAddr = url.parse()?;
    let mut line = String::new();
    timeout(Duration::from_secs(2), async {
        let stream = TcpStream::connect((address.host(), address.port())).await?;
        BufReader::new(stream).read_line(&mut line).await
    })
    .await??;
    let info: Info =
        serde_json::from_str(line.strip_prefix("INFO ").context("not a NATS server")?)?;
    ensure!(info.jetstream, "the server has no JetStream");
    Ok(info.version)
}

impl ConfigurationFile {
    fn write(&self, more: &str) -> Result<()> {
        let ConfigurationFile { path, listen, data } = self;
        let text = format!("listen: \"{listen}\"\njetstream {{ store_dir: \"{data}\" }}\n{more}\n");
        fs::write(path, text).with_context(|| format!("write {}", path.display()))
    }
}

/// Copies a directory. What goes while it is copied is left out.
fn copy_dir(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let (from, to) = match entry {
            Ok(entry) => (entry.path(), to.join(entry.file_name())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let copied = match from.is_dir() {
            true => copy_dir(&from, &to),
            false => fs::copy(&from, &to).map(drop),
        };
        if let Err(error) = copied
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(error);
        }
    }
    Ok(())
}

fn record(message: &jetstream::Message, sequence: u64, nanoseconds: i128) -> Result<NatsRecord> {
    let headers = message.headers.iter().flat_map(async_nats::HeaderMap::iter);
    let headers = headers
        .flat_map(|(name, values)| {
            values
                .iter()
                .map(move |value| (name.to_string(), value.as_str().to_owned()))
        })
        .collect();
    Ok(NatsRecord {
        sequence,
        subject: message.subject.to_string(),
        payload: message.payload.clone(),
        headers,
        time: i64::try_from(nanoseconds.div_euclid(1_000_000))?,
    })
}

/// Large enough that a million messages take seconds; well below what the client buffers.
const READ_BATCH: usize = 5_000;

/// How long the server may take to answer a question of the harness.
const PATIENCE: Duration = Duration::from_secs(20);

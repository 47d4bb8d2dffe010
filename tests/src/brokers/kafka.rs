//! A Kafka broker, and what it has stored.

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;

use super::container::{Container, Wanted};
use super::{Host, Local, free_port, install, say, scratch};

mod access;
mod console;
mod damage;
mod pair;
mod secure;
mod settings;

pub use access::{Operation, Right};
pub use console::Printed;
pub use secure::{Door, SecureKafka};

/// A single Kafka broker in KRaft mode, without authentication, that creates topics on demand.
pub struct Kafka {
    address: String,
    host: Host,
}

/// One record as Kafka stored it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaRecord {
    /// Its partition.
    pub partition: i32,
    /// Its offset in the partition.
    pub offset: i64,
    /// Its key, if it has one.
    pub key: Option<Bytes>,
    /// Its value; empty when it has none.
    pub payload: Bytes,
    /// Milliseconds since the Unix epoch: the producer's, or the broker's with `message.timestamp.type=LogAppendTime`.
    pub timestamp: i64,
    /// Its headers, in order.
    pub headers: Vec<(String, Bytes)>,
}

impl Kafka {
    /// Starts a broker of one's own, to pause, kill and restart. It ends, and its files go, when this is dropped.
    ///
    /// # Errors
    ///
    /// When none can be started, with what to install.
    pub async fn start_own() -> Result<Kafka> {
        Kafka::start_own_with(&[]).await
    }

    /// As [`Kafka::start_own`], with broker settings over the harness's. Where they need authentication of clients,
    /// only the methods that stop and start the broker work.
    ///
    /// # Errors
    ///
    /// As [`Kafka::start_own`].
    pub async fn start_own_with(settings: &[(&str, &str)]) -> Result<Kafka> {
        let started = Instant::now();
        let kafka = super::start(
            "Kafka",
            async || Kafka::in_container(settings).await,
            async || {
                let formatted = spawn_blocking(install::kafka).await??.join("formatted");
                Kafka::local(settings, Place::new(formatted)?).await
            },
        )
        .await?;
        kafka.announce(started)?;
        Ok(kafka)
    }

    /// Starts a broker as a process that advertises another address, behind which is something of ours. Where that is to pass
    /// connections on to is known before anybody can be told that address.
    pub(super) async fn start_behind(advertised: &str, known: &OnceLock<String>) -> Result<Kafka> {
        let started = Instant::now();
        let formatted = spawn_blocking(install::kafka).await??.join("formatted");
        let place = Place::new(formatted)?;
        known.set(format!("127.0.0.1:{}", place.port)).ok();
        let advertised = format!("PLAINTEXT://{advertised}");
        let kafka = Kafka::local(&[("advertised.listeners", advertised.as_str())], place).await?;
        kafka.announce(started)?;
        Ok(kafka)
    }

    fn announce(&self, started: Instant) -> Result<()> {
        say(&format!(
            "Kafka {} at {} ({}, started in {:.1} s)",
            install::kafka_version()?,
            self.address,
            self.host,
            started.elapsed().as_secs_f64()
        ));
        Ok(())
    }

    pub(super) async fn start_shared() -> Result<Kafka> {
        let Some(address) = std::env::var("RTM_TEST_KAFKA")
            .ok()
            .filter(|value| !value.is_empty())
        else {
            return Kafka::start_own().await;
        };
        let mut kafka = Kafka {
            address,
            host: Host::Elsewhere,
        };
        kafka
            .wait_until_ready()
            .await
            .with_context(|| format!("Kafka at {} from RTM_TEST_KAFKA", kafka.address))?;
        say(&format!(
            "Kafka of unknown version at {} ({})",
            kafka.address, kafka.host
        ));
        Ok(kafka)
    }

    /// `host:port`, the same after a restart.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Stops the broker in its tracks: it keeps its connections and answers nothing.
    ///
    /// # Errors
    ///
    /// When it does not run, or is not ours.
    pub async fn pause(&mut self) -> Result<()> {
        self.host.pause().await
    }

    /// Lets a paused broker go on.
    ///
    /// # Errors
    ///
    /// When it does not run, or is not ours.
    pub async fn resume(&mut self) -> Result<()> {
        self.host.resume().await
    }

    /// Kills the broker (`kill -9`). Its files stay.
    ///
    /// # Errors
    ///
    /// When it is not ours.
    pub async fn kill(&mut self) -> Result<()> {
        self.host.kill().await
    }

    /// Starts a killed broker again, on the same port and files, and waits until it is ready.
    ///
    /// # Errors
    ///
    /// When it does not start, with the end of its log.
    pub async fn restart(&mut self) -> Result<()> {
        self.host.start_again().await?;
        self.wait_until_ready().await
    }

    /// Creates a topic. `settings` are Kafka's, such as `("message.timestamp.type", "LogAppendTime")`.
    ///
    /// # Errors
    ///
    /// When there is one already, or a setting is refused.
    pub async fn create_topic(
        &self,
        name: &str,
        partitions: i32,
        settings: &[(&str, &str)],
    ) -> Result<()> {
        let topic = NewTopic {
            name,
            num_partitions: partitions,
            replication: TopicReplication::Fixed(1),
            config: settings.to_vec(),
        };
        self.create(topic).await
    }

    async fn create(&self, topic: NewTopic<'_>) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.client().create()?;
        let created = admin
            .create_topics(
                [&topic],
                &AdminOptions::new().operation_timeout(Some(PATIENCE)),
            )
            .await?;
        for result in created {
            result.map_err(|(name, code)| anyhow::anyhow!("create topic {name}: {code}"))?;
        }
        Ok(())
    }

    /// Gives a topic more partitions, so that it has so many.
    ///
    /// # Errors
    ///
    /// When there is no such topic, or it has as many.
    pub async fn add_partitions(&self, name: &str, partitions: usize) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.client().create()?;
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        let new = NewPartitions::new(name, partitions);
        for result in admin.create_partitions([&new], &options).await? {
            result.map_err(|(name, code)| anyhow::anyhow!("more partitions of {name}: {code}"))?;
        }
        Ok(())
    }

    /// How many partitions a topic has.
    ///
    /// # Errors
    ///
    /// When the broker does not answer.
    pub async fn partitions(&self, name: &str) -> Result<usize> {
        let (client, name) = (self.client(), name.to_owned());
        spawn_blocking(move || {
            let consumer: BaseConsumer = client.create()?;
            let metadata = consumer.fetch_metadata(Some(&name), PATIENCE)?;
            let topic = metadata.topics().first();
            Ok(topic.map_or(0, |topic| topic.partitions().len()))
        })
        .await?
    }

    /// Deletes a topic. Brokers remove it, and forget its producers, a little later.
    ///
    /// # Errors
    ///
    /// When there is no such topic.
    pub async fn delete_topic(&self, name: &str) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.client().create()?;
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        for result in admin.delete_topics(&[name], &options).await? {
            result.map_err(|(name, code)| anyhow::anyhow!("delete topic {name}: {code}"))?;
        }
        Ok(())
    }

    /// Everything that `topic` holds now, ordered by partition and offset. Of transactions, what was committed.
    ///
    /// # Errors
    ///
    /// When there is no such topic, or the broker does not answer.
    pub async fn read_all(&self, topic: &str) -> Result<Vec<KafkaRecord>> {
        let (client, topic) = (self.client(), topic.to_owned());
        let mut records = spawn_blocking(move || read(&client, &topic)).await??;
        records.sort_by_key(|record| (record.partition, record.offset));
        Ok(records)
    }

    /// librdkafka options to reach this broker, silent about connections that tests cut on purpose.
    #[must_use]
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.address)
            .set("log.connection.close", "false");
        config.set_log_level(RDKafkaLogLevel::Critical);
        config
    }

    async fn local(settings: &[(&str, &str)], place: Place) -> Result<Kafka> {
        let installation = spawn_blocking(install::kafka).await??;
        let data = place.data();
        fs::create_dir(&data)?;
        for file in fs::read_dir(&place.formatted)? {
            let file = file?;
            fs::copy(file.path(), data.join(file.file_name()))?;
        }
        let all = broker_settings(
            place.port,
            place.controller_port,
            "127.0.0.1",
            &data.display().to_string(),
            settings,
            &place.listeners,
        );
        let file = place.dir.path().join("server.properties");
        fs::write(
            &file,
            all.iter()
                .map(|(name, value)| format!("{name}={value}\n"))
                .collect::<String>(),
        )?;
        let java = ["java", "-Xms128m", "-Xmx512m", "-XX:+UseSerialGC"].map(str::to_owned);
        let arguments = install::java_arguments(&installation);
        let main = ["kafka.Kafka".to_owned(), file.display().to_string()];
        let command = [&java[..], &arguments, &main].concat();
        Kafka::ready(place.port, Host::Local(Local::start(command, place.dir)?)).await
    }

    async fn in_container(settings: &[(&str, &str)]) -> Result<Kafka> {
        let port = free_port()?;
        // Any port will do for the controller, which only the container itself talks to.
        let all = broker_settings(
            port,
            port - 1,
            "0.0.0.0",
            "/tmp/kraft-combined-logs",
            settings,
            &[],
        );
        // The image's rule for settings in the environment.
        let name = |setting: &str| {
            setting
                .replace('_', "__")
                .replace('-', "___")
                .replace('.', "_")
                .to_uppercase()
        };
        let mut env: Vec<_> = all
            .iter()
            .map(|(setting, value)| (format!("KAFKA_{}", name(setting)), value.clone()))
            .collect();
        env.push(("KAFKA_HEAP_OPTS".to_owned(), "-Xms128m -Xmx512m".to_owned()));
        env.push(("CLUSTER_ID".to_owned(), CLUSTER_ID.to_owned()));
        let wanted = Wanted {
            image: "apache/kafka",
            tag: install::kafka_version()?.to_owned(),
            port,
            env,
            arguments: Vec::new(),
            file: None,
        };
        let container = Box::pin(Container::start(wanted)).await?;
        Kafka::ready(port, Host::Container(Box::new(container))).await
    }

    async fn ready(port: u16, host: Host) -> Result<Kafka> {
        let mut kafka = Kafka {
            address: format!("127.0.0.1:{port}"),
            host,
        };
        kafka.wait_until_ready().await?;
        Ok(kafka)
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let (client, address) = (self.client(), self.address.clone());
        let probe = async || {
            // A connection first: librdkafka backs off for longer and longer after each one that fails.
            TcpStream::connect(&address).await.is_ok() && {
                let client = client.clone();
                spawn_blocking(move || has_broker(&client))
                    .await
                    .unwrap_or(false)
            }
        };
        self.host.ready(probe).await
    }
}

/// Where a local broker keeps its files and listens.
struct Place {
    dir: tempfile::TempDir,
    /// A formatted data directory, which is copied.
    formatted: PathBuf,
    port: u16,
    /// Where the controller listens: the broker's own, unless it has another one's.
    controller_port: u16,
    /// More listeners than the one without authentication.
    listeners: Vec<Listener>,
}

/// A listener's name, its protocol, and its port.
type Listener = (&'static str, &'static str, u16);

impl Place {
    fn new(formatted: PathBuf) -> Result<Place> {
        Ok(Place {
            dir: scratch("kafka")?,
            formatted,
            port: free_port()?,
            controller_port: free_port()?,
            listeners: Vec::new(),
        })
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }
}

/// Whether a broker has registered with the controller, or at least answers, where it asks for authentication.
fn has_broker(client: &ClientConfig) -> bool {
    let Ok(consumer) = client.create::<BaseConsumer>() else {
        return false;
    };
    consumer
        .fetch_metadata(None, Duration::from_secs(2))
        .is_ok_and(|metadata| !metadata.brokers().is_empty())
}

fn broker_settings(
    port: u16,
    controller_port: u16,
    listen: &str,
    data: &str,
    over: &[(&str, &str)],
    more: &[Listener],
) -> Vec<(String, String)> {
    let joined = |own: String, one: &dyn Fn(&Listener) -> String| {
        more.iter()
            .fold(own, |text, listener| format!("{text},{}", one(listener)))
    };
    let at = |host: &str| {
        let host = host.to_owned();
        move |(name, _, port): &Listener| format!("{name}://{host}:{port}")
    };
    let own = [
        ("process.roles", "broker,controller".to_owned()),
        ("node.id", "1".to_owned()),
        (
            "listeners",
            joined(
                format!("PLAINTEXT://{listen}:{port},CONTROLLER://127.0.0.1:{controller_port}"),
                &at(listen),
            ),
        ),
        (
            "advertised.listeners",
            joined(format!("PLAINTEXT://127.0.0.1:{port}"), &at("127.0.0.1")),
        ),
        ("controller.listener.names", "CONTROLLER".to_owned()),
        (
            "listener.security.protocol.map",
            joined(
                "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT".to_owned(),
                &|(name, protocol, _)| format!("{name}:{protocol}"),
            ),
        ),
        (
            "controller.quorum.voters",
            format!("1@127.0.0.1:{controller_port}"),
        ),
        ("log.dirs", data.to_owned()),
        // There is one broker to replicate to, and few partitions make few files.
        ("offsets.topic.replication.factor", "1".to_owned()),
        ("offsets.topic.num.partitions", "1".to_owned()),
        ("transaction.state.log.replication.factor", "1".to_owned()),
        ("transaction.state.log.min.isr", "1".to_owned()),
        ("transaction.state.log.num.partitions", "1".to_owned()),
        (
            "share.coordinator.state.topic.replication.factor",
            "1".to_owned(),
        ),
        ("share.coordinator.state.topic.min.isr", "1".to_owned()),
        ("group.initial.rebalance.delay.ms", "0".to_owned()),
        // A broker killed and restarted at once waits for its predecessor's session to end: 9 s by default.
        ("broker.session.timeout.ms", "2000".to_owned()),
        ("broker.heartbeat.interval.ms", "500".to_owned()),
        ("num.network.threads", "2".to_owned()),
        ("num.io.threads", "4".to_owned()),
    ];
    let kept = own
        .into_iter()
        .filter(|(name, _)| over.iter().all(|(other, _)| other != name));
    let mut settings: Vec<_> = kept.map(|(name, value)| (name.to_owned(), value)).collect();
    settings.extend(
        over.iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned())),
    );
    settings
}

/// A partition's offsets. A broker that has just come back may not lead the partition yet.
fn watermarks(consumer: &BaseConsumer, topic: &str, partition: i32) -> Result<(i64, i64)> {
    let end = Instant::now() + PATIENCE;
    loop {
        match consumer.fetch_watermarks(topic, partition, PATIENCE) {
            Ok(found) => return Ok(found),
            Err(error) if Instant::now() >= end => return Err(error.into()),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Waits until no transaction hides what is before `end` from a consumer of what is committed. The answer to a commit comes
/// before all partitions know of it.
fn wait_for_commits(committed: &BaseConsumer, topic: &str, partition: i32, end: i64) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        let (_, visible) = watermarks(committed, topic, partition)?;
        if visible >= end {
            return Ok(());
        }
        ensure!(
            Instant::now() < until,
            "a transaction hides {topic}/{partition} from {visible} to {end}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Reads of every partition what is committed, to the end that it had at the start.
fn read(client: &ClientConfig, topic: &str) -> Result<Vec<KafkaRecord>> {
    let all: BaseConsumer = client
        .clone()
        .set("isolation.level", "read_uncommitted")
        .create()?;
    let consumer: BaseConsumer = client
        .clone()
        // A consumer must have one, though with assigned partitions and no commits the broker never hears of it.
        .set("group.id", "rtm-tests")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        // Tells the end where the last offset is no record but a transaction's marker.
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", "10")
        .create()?;
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
    let partitions = metadata
        .topics()
        .first()
        .map_or(&[][..], |topic| topic.partitions());
    ensure!(!partitions.is_empty(), "no topic {topic}");

    let mut ends = vec![0; partitions.len()];
    let mut unfinished = 0;
    let mut assignment = TopicPartitionList::new();
    for partition in 0..i32::try_from(partitions.len())? {
        let (low, high) = watermarks(&all, topic, partition)?;
        if low < high {
            wait_for_commits(&consumer, topic, partition, high)?;
            ends[usize::try_from(partition)?] = high;
            unfinished += 1;
            assignment.add_partition_offset(topic, partition, Offset::Offset(low))?;
        }
    }
    consumer.assign(&assignment)?;

    let mut records = Vec::new();
    let mut last = Instant::now();
    while unfinished > 0 {
        let finished = match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                last = Instant::now();
                let end = &mut ends[usize::try_from(message.partition())?];
                if message.offset() < *end {
                    records.push(record(&message));
                }
                (message.offset() + 1 >= *end).then_some(end)
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                Some(&mut ends[usize::try_from(partition)?])
            }
            Some(Err(error)) if last.elapsed() > PATIENCE => bail!("read {topic}: {error}"),
            // Transport errors: the client connects again.
            Some(Err(_)) => None,
            None => None,
        };
        if let Some(end) = finished
            && *end > 0
        {
            *end = 0;
            unfinished -= 1;
        }
        ensure!(
            last.elapsed() < PATIENCE,
            "read {topic}: nothing more for {PATIENCE:?}, after {}",
            records.len()
        );
    }
    Ok(records)
}

fn record(message: &BorrowedMessage<'_>) -> KafkaRecord {
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        let one = |header: rdkafka::message::Header<'_, &[u8]>| {
            (
                header.key.to_owned(),
                header.value.map_or_else(Bytes::new, Bytes::copy_from_slice),
            )
        };
        headers.iter().map(one).collect()
    });
    KafkaRecord {
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().map(Bytes::copy_from_slice),
        payload: message
            .payload()
            .map_or_else(Bytes::new, Bytes::copy_from_slice),
        timestamp: message.timestamp().to_millis().unwrap_or(-1),
        headers,
    }
}

/// Any, as long as the formatted directory and the broker agree.
pub(super) const CLUSTER_ID: &str = "cnRtLWJyaWRnZS10ZXN0cw";

/// How long a broker may take to answer a question of the harness.
const PATIENCE: Duration = Duration::from_secs(20);

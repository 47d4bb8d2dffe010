//! What nothing that uses librdkafka can do for less: a loop that hands records to a `ThreadedProducer`. The same records
//! as the bridge's, with the same options, in batches as their pages came, in a process of its own.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rtm_bridge::usage::Usage;
use serde::{Deserialize, Serialize};

use crate::process::Process;

/// What the bridge's producer has, in `rtm-sink-kafka`.
const OPTIONS: &[(&str, &str)] = &[
    ("compression.codec", "lz4"),
    ("linger.ms", "5"),
    ("queue.buffering.max.kbytes", "32768"),
    ("partitioner", "murmur2_random"),
    ("reconnect.backoff.max.ms", "1000"),
    ("socket.keepalive.enable", "true"),
    ("max.in.flight.requests.per.connection", "1"),
    ("statistics.interval.ms", "5000"),
    ("enable.idempotence", "true"),
    ("acks", "all"),
    ("message.timeout.ms", "0"),
    ("enable.gapless.guarantee", "true"),
    ("delivery.report.only.error", "false"),
    ("queuing.strategy", "fifo"),
];

/// How long the records may take beyond the time that their pages took to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// Records to be produced together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// When, in milliseconds since the first.
    pub at_ms: u64,
    /// What.
    pub records: Vec<BareRecord>,
}

/// A record as the broker holds it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BareRecord {
    /// The number of its topic.
    pub topic: u8,
    /// Its timestamp.
    pub ms: i64,
    /// Its key.
    pub key: Vec<u8>,
    /// The document.
    pub payload: Vec<u8>,
}

/// What the loop came to.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Bare {
    /// Records that the broker confirmed.
    pub records: u64,
    /// Processor seconds of its own code.
    pub user: f64,
    /// Processor seconds of the kernel for it.
    pub system: f64,
}

/// The arguments of the child process.
#[derive(Debug, clap::Args)]
pub struct BareArgs {
    /// `host:port`
    #[arg(long)]
    brokers: String,
    /// The topics, in the order of their numbers
    #[arg(long = "topic")]
    topics: Vec<String>,
    /// The file with the records
    #[arg(long)]
    records: PathBuf,
}

/// Runs the loop in a child process of this executable.
///
/// # Errors
///
/// When it fails, or not every record is confirmed.
pub async fn run(brokers: &str, topics: &[String], batches: &[Batch], dir: &Path) -> Result<Bare> {
    let file = dir.join("bare.records");
    write(&file, batches)?;
    let mut arguments = vec![
        "bare".to_owned(),
        "--brokers".to_owned(),
        brokers.to_owned(),
        "--records".to_owned(),
        file.display().to_string(),
    ];
    for topic in topics {
        arguments.extend(["--topic".to_owned(), topic.clone()]);
    }
    let executable = std::env::current_exe()?;
    let mut child = Process::start(&executable, arguments, &[], &dir.join("bare.log"), None)?;
    let last = batches.last().map_or(0, |batch| batch.at_ms);
    let deadline = Duration::from_millis(last) + PATIENCE * 2;
    let bare: Bare = child
        .wait_for_line(deadline, |line| serde_json::from_str(line).ok())
        .await
        .context("the bare loop")?;
    std::fs::remove_file(&file)?;
    let records: usize = batches.iter().map(|batch| batch.records.len()).sum();
    ensure!(
        bare.records == records as u64,
        "the bare loop's broker confirmed {} of {records}",
        bare.records
    );
    Ok(bare)
}

/// Counts what the broker confirms.
struct Confirmed(Arc<AtomicU64>);

impl ClientContext for Confirmed {}

impl ProducerContext for Confirmed {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, _: usize) {
        if result.is_ok() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The child process: produces, and prints what it came to as a line of JSON.
///
/// # Errors
///
/// When it cannot read the records, or the broker does not take them.
pub fn child(args: &BareArgs) -> Result<()> {
    let batches = read(&args.records)?;
    let confirmed = Arc::new(AtomicU64::new(0));
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &args.brokers);
    for (name, value) in OPTIONS {
        config.set(*name, *value);
    }
    let producer: ThreadedProducer<Confirmed> =
        config.create_with_context(Confirmed(Arc::clone(&confirmed)))?;
    for topic in &args.topics {
        producer.client().fetch_metadata(Some(topic), PATIENCE)?;
    }
    // Reading and connecting is not what is compared.
    let before = Usage::of(std::process::id())?;
    let began = Instant::now();
    let mut sent = 0;
    for batch in &batches {
        let at = Duration::from_millis(batch.at_ms);
        std::thread::sleep(at.saturating_sub(began.elapsed()));
        for record in &batch.records {
            send(&producer, &args.topics, record, sent)?;
            sent += 1;
        }
    }
    let deadline = Instant::now() + PATIENCE;
    while confirmed.load(Ordering::Relaxed) < sent as u64 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    let used = Usage::of(std::process::id())?.since(&before);
    let bare = Bare {
        records: confirmed.load(Ordering::Relaxed),
        user: used.user,
        system: used.system,
    };
    println!("{}", serde_json::to_string(&bare)?);
    Ok(())
}

fn send(
    producer: &ThreadedProducer<Confirmed>,
    topics: &[String],
    record: &BareRecord,
    opaque: usize,
) -> Result<()> {
    let topic = topics.get(usize::from(record.topic)).context("no topic")?;
    let mut message = BaseRecord::<[u8], [u8], usize>::with_opaque_to(topic, opaque)
        .payload(&record.payload[..])
        .key(&record.key[..])
        .timestamp(record.ms);
    loop {
        match producer.send(message) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                message = back;
                std::thread::sleep(Duration::from_millis(1));
            }
            Err((error, _)) => return Err(error.into()),
        }
    }
}

fn write(file: &Path, batches: &[Batch]) -> Result<()> {
    let mut to = BufWriter::new(File::create(file)?);
    for batch in batches {
        to.write_all(&batch.at_ms.to_le_bytes())?;
        to.write_all(&u32::try_from(batch.records.len())?.to_le_bytes())?;
        for record in &batch.records {
            to.write_all(&[record.topic])?;
            to.write_all(&record.ms.to_le_bytes())?;
            for part in [&record.key, &record.payload] {
                to.write_all(&u32::try_from(part.len())?.to_le_bytes())?;
                to.write_all(part)?;
            }
        }
    }
    Ok(to.flush()?)
}

fn read(file: &Path) -> Result<Vec<Batch>> {
    let mut from = BufReader::new(File::open(file)?);
    let mut batches = Vec::new();
    let mut at_ms = [0; 8];
    // The end of the file is the end of a batch.
    while from.read(&mut at_ms[..1])? > 0 {
        from.read_exact(&mut at_ms[1..])?;
        let mut records = Vec::new();
        for _ in 0..number(&mut from)? {
            let (mut topic, mut ms) = ([0; 1], [0; 8]);
            from.read_exact(&mut topic)?;
            from.read_exact(&mut ms)?;
            let mut part = || -> Result<Vec<u8>> {
                let mut part = vec![0; number(&mut from)? as usize];
                from.read_exact(&mut part)?;
                Ok(part)
            };
            records.push(BareRecord {
                topic: topic[0],
                ms: i64::from_le_bytes(ms),
                key: part()?,
                payload: part()?,
            });
        }
        batches.push(Batch {
            at_ms: u64::from_le_bytes(at_ms),
            records,
        });
    }
    Ok(batches)
}

fn number(from: &mut impl Read) -> Result<u32> {
    let mut bytes = [0; 4];
    from.read_exact(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Holds: the child gets the records as they were.
    #[test]
    fn batches_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("records");
        let record = |topic: u8| BareRecord {
            topic,
            ms: -5,
            key: vec![topic; 3],
            payload: b"{}".to_vec(),
        };
        let batches = vec![
            Batch {
                at_ms: 7,
                records: vec![record(0), record(1)],
            },
            Batch::default(),
            Batch {
                at_ms: u64::MAX,
                records: vec![record(2)],
            },
        ];
        write(&file, &batches).unwrap();
        assert_eq!(read(&file).unwrap(), batches);
        let whole = std::fs::read(&file).unwrap();
        std::fs::write(&file, &whole[..whole.len() - 1]).unwrap();
        assert!(read(&file).is_err(), "cut");
    }
}

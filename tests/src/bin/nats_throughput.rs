//! `cargo run --release -p rtm-tests --bin nats_throughput`: what the sink of NATS costs, beside a bare loop.
//!
//! Both publish the same records, of 300 bytes, to a server of their own, at a fixed rate in pages and as fast as they
//! can, in atomic batches and singly. CPU is that of this process and of the server, from `/proc`. Making the records is
//! not counted.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use async_nats::HeaderMap;
use async_nats::header::{
    NATS_BATCH_COMMIT, NATS_BATCH_ID, NATS_BATCH_SEQUENCE, NATS_EXPECTED_STREAM, NATS_MESSAGE_ID,
};
use async_nats::jetstream;
use bytes::Bytes;
use clap::Parser;
use rtm_bridge::usage::Usage;
use rtm_sink::{Record, RecordId, Sink, Timestamp, Topic};
use rtm_sink_nats::{NatsOptions, NatsSink};
use rtm_tests::brokers::Nats;

/// Measures messages a second, and CPU seconds for a million of them.
#[derive(Parser)]
struct Arguments {
    /// Records in a page, and so in an atomic batch
    #[arg(long, default_value_t = 800)]
    page: usize,
    /// Pages in each call, when as fast as it can
    #[arg(long, default_value_t = 8)]
    pages: usize,
    /// Records a second, when at a rate
    #[arg(long, default_value_t = 8000)]
    rate: usize,
    /// Records in each measurement
    #[arg(long, default_value_t = 160_000)]
    records: usize,
    /// Only the sink
    #[arg(long)]
    sink: bool,
    /// Only in atomic batches, or only singly
    #[arg(long)]
    batches: Option<bool>,
    /// Only at the rate, or only as fast as it can
    #[arg(long)]
    paced: Option<bool>,
}

const JETSTREAM: &str = "RTM";

/// The bare loop's acknowledgements in flight: as the sink's.
const IN_FLIGHT: usize = 4000;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    println!(
        "| what | how | pace | records/s | own CPU s per million | server's CPU s per million |\n|---|---|---|---|---|---|"
    );
    let both = |only: Option<bool>| match only {
        None => vec![true, false],
        Some(only) => vec![only],
    };
    for batches in both(arguments.batches) {
        for paced in both(arguments.paced) {
            for bare in [false, true] {
                if !(bare && arguments.sink) {
                    measure(&arguments, batches, paced, bare).await?;
                }
            }
        }
    }
    Ok(())
}

async fn measure(arguments: &Arguments, batches: bool, paced: bool, bare: bool) -> Result<()> {
    let server = Nats::start_own().await?;
    server.create_jetstream(JETSTREAM, &["rtm.>"]).await?;
    let pid = server.pid().context("the server must be local")?;
    let records = records(arguments.records, arguments.page);
    let (warm, records) =
        records.split_at(arguments.records / 10 / arguments.page * arguments.page);
    let call = arguments.page * if paced { 1 } else { arguments.pages };
    let mut publisher = match bare {
        false => {
            let options = NatsOptions {
                atomic_batches: batches,
                ..NatsOptions::new(vec![server.url().to_owned()], JETSTREAM)
            };
            Publisher::Sink(NatsSink::connect(options).await?)
        }
        true => {
            let client = async_nats::connect(server.url()).await?;
            if batches {
                Publisher::Batches(client, 0)
            } else {
                let context = jetstream::new(client);
                Publisher::Window(context, VecDeque::new())
            }
        }
    };
    for page in warm.chunks(call) {
        publisher.publish(page).await?;
    }
    let (own, servers) = (
        cpu_seconds(std::process::id())?,
        cpu_seconds(pid.unsigned_abs())?,
    );
    let start = Instant::now();
    let mut due = start;
    for page in records.chunks(call) {
        if paced {
            tokio::time::sleep_until(due.into()).await;
            due += Duration::from_secs_f64(page.len() as f64 / arguments.rate as f64);
        }
        publisher.publish(page).await?;
    }
    publisher.finish().await?;
    let count = records.len() as f64;
    let per_million = |seconds: f64| seconds * 1e6 / count;
    println!(
        "| {} | {} | {} | {:.0} | {:.2} | {:.2} |",
        if bare { "bare loop" } else { "sink" },
        if batches { "atomic batches" } else { "singly" },
        if paced { "at a rate" } else { "full speed" },
        count / start.elapsed().as_secs_f64(),
        per_million(cpu_seconds(std::process::id())? - own),
        per_million(cpu_seconds(pid.unsigned_abs())? - servers),
    );
    let stored = server.jetstream().await?.get_stream(JETSTREAM).await?;
    let stored = stored.cached_info().state.messages;
    ensure!(
        stored == arguments.records as u64,
        "{stored} of {} are stored",
        arguments.records
    );
    Ok(())
}

/// Whoever publishes.
enum Publisher {
    Sink(NatsSink),
    /// With the number of the next batch.
    Batches(async_nats::Client, u64),
    Window(
        jetstream::Context,
        VecDeque<jetstream::context::PublishAckFuture>,
    ),
}

impl Publisher {
    /// Publishes some pages. All is confirmed on return, save by the window.
    async fn publish(&mut self, records: &[Record]) -> Result<()> {
        match self {
            Publisher::Sink(sink) => sink.publish(records).await?,
            Publisher::Batches(client, number) => {
                let entry = |a: &Record, b: &Record| a.id.position == b.id.position;
                for page in records.chunk_by(entry) {
                    *number += 1;
                    publish_batch(client, &format!("batch-{number}"), page).await?;
                }
            }
            Publisher::Window(context, acks) => {
                for record in records {
                    let headers = headers(record);
                    let (subject, payload) = (record.topic.to_string(), record.payload.clone());
                    let ack = context
                        .publish_with_headers(subject, headers, payload)
                        .await?;
                    acks.push_back(ack);
                    if acks.len() >= IN_FLIGHT {
                        acks.pop_front().context("one")?.await?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<()> {
        if let Publisher::Window(_, acks) = self {
            for ack in acks.drain(..) {
                ack.await?;
            }
        }
        Ok(())
    }
}

async fn publish_batch(client: &async_nats::Client, id: &str, page: &[Record]) -> Result<()> {
    for (index, record) in page.iter().enumerate() {
        let mut headers = headers(record);
        headers.insert(NATS_BATCH_ID, id);
        headers.insert(NATS_BATCH_SEQUENCE, (index + 1).to_string());
        let (subject, payload) = (record.topic.to_string(), record.payload.clone());
        if index + 1 < page.len() {
            client
                .publish_with_headers(subject, headers, payload)
                .await?;
        } else {
            headers.insert(NATS_BATCH_COMMIT, "1");
            let answer = client
                .request_with_headers(subject, headers, payload)
                .await?;
            ensure!(!answer.payload.starts_with(b"{\"error"), "refused");
        }
    }
    Ok(())
}

fn headers(record: &Record) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(NATS_MESSAGE_ID, record.id.to_string());
    headers.insert(NATS_EXPECTED_STREAM, JETSTREAM);
    headers
}

fn records(count: usize, page: usize) -> Vec<Record> {
    let topic = Topic::from("rtm.main.eu-west-1.channel_events");
    let payload = Bytes::from(vec![b'x'; 300]);
    let keys: Vec<Bytes> = (0..1000).map(|n| format!("user-{n}").into()).collect();
    let record = |n: usize| Record {
        id: RecordId {
            epoch: 0xfedc_ba98_7654_3210,
            position: (n / page) as u64,
            offset: u32::try_from(n % page * 137).unwrap_or_default(),
        },
        topic: topic.clone(),
        key: Some(keys[n % keys.len()].clone()),
        timestamp: Timestamp(0),
        headers: Vec::new(),
        payload: payload.clone(),
    };
    (0..count).map(record).collect()
}

/// Processor time of a process so far.
fn cpu_seconds(pid: u32) -> Result<f64> {
    Ok(Usage::of(pid)?.cpu())
}

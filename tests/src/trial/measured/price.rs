//! What once and only once costs, beside at least once in the same run: processor time and, in Kafka, age at a consumer of
//! committed records and the speed of a drain.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::Offset;
use rtm_sim::Load;
use serde::Deserialize;
use tokio::task::{JoinHandle, spawn_blocking};

use super::ages::Ages;
use super::{Figure, Run, conclude, factor, lanes};
use crate::brokers::Kafka;
use crate::trial::{Broker, Brokers, Report, Rig, Setup};
use crate::wait_for;

/// What of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Price {
    /// One App ID into Kafka.
    Kafka,
    /// One App ID into NATS.
    Nats,
    /// A backlog of one App ID drains into Kafka.
    Drain,
    /// A backlog of 30 App IDs with small pages drains into NATS, beside one with full pages.
    Groups,
    /// 30 App IDs of 200 events/s each into NATS.
    Many,
    /// A bridge of 500 App IDs starts, with Kafka.
    StartKafka,
    /// A bridge of 500 App IDs starts, with NATS.
    StartNats,
}

impl Price {
    /// All of it.
    pub const ALL: [Price; 7] = [
        Price::Kafka,
        Price::Nats,
        Price::Drain,
        Price::Groups,
        Price::Many,
        Price::StartKafka,
        Price::StartNats,
    ];
}

/// Runs one of them: `rate` events a second of one App ID for `time`, or `events` of one that drain.
///
/// # Errors
///
/// When the trial cannot be run.
pub async fn price(
    brokers: &mut Brokers,
    which: Price,
    (rate, events, time): (f64, u64, Duration),
) -> Result<Run> {
    match which {
        Price::Kafka => Box::pin(steady(brokers, Broker::Kafka, rate, time)).await,
        Price::Nats => Box::pin(steady(brokers, Broker::Nats, rate, time)).await,
        Price::Drain => Box::pin(drain(brokers, events)).await,
        Price::Groups => Box::pin(lanes::groups(brokers)).await,
        Price::Many => Box::pin(lanes::steady(brokers, time)).await,
        Price::StartKafka => Box::pin(lanes::starts(brokers, Broker::Kafka)).await,
        Price::StartNats => Box::pin(lanes::starts(brokers, Broker::Nats)).await,
    }
}

/// How often the processor time of at least once it may take.
fn of_cpu(broker: Broker) -> f64 {
    match broker {
        Broker::Kafka => 1.6,
        Broker::Nats => 1.15,
    }
}

/// What it may add to the median age and to the 99th percentile, in milliseconds.
const LATER: [f64; 2] = [8.0, 40.0];

/// The same of a drain: of its processor time, and of its speed.
const DRAIN: [f64; 2] = [1.35, 0.4];

/// What one way of delivering took.
struct Taken {
    report: Report,
    /// Processor seconds for a million events.
    cpu: f64,
    ages: Ages,
    /// Events a second.
    speed: f64,
}

fn setup(broker: Broker, exactly_once: bool) -> Setup {
    Setup {
        sinks: broker.into(),
        exactly_once,
        ..Setup::default()
    }
}

/// `rate` events a second for `time`, first at least once and then once and only once.
async fn steady(brokers: &mut Brokers, broker: Broker, rate: f64, time: Duration) -> Result<Run> {
    let least = Box::pin(load(brokers, broker, false, rate, time)).await?;
    let exact = Box::pin(load(brokers, broker, true, rate, time)).await?;
    let mut figures = cpu(&least, &exact, of_cpu(broker));
    if broker == Broker::Kafka {
        for ((name, share), most) in [("p50", 0.5), ("p99", 0.99)].into_iter().zip(LATER) {
            let (before, after) = (least.ages.at(share), exact.ages.at(share));
            let name = |what: &str| format!("age {name} at a consumer, {what}");
            figures.extend([
                Figure::told(name("at least once, ms"), before),
                Figure::told(name("exactly once, ms"), after),
                Figure::at_most(name("ms more"), after - before, most),
            ]);
        }
    }
    both(figures, &least, &exact)
}

/// A backlog of `events` drains into Kafka, first at least once and then once and only once.
async fn drain(brokers: &mut Brokers, events: u64) -> Result<Run> {
    let least = Box::pin(drained(brokers, false, events)).await?;
    let exact = Box::pin(drained(brokers, true, events)).await?;
    let [most, slowest] = DRAIN;
    let mut figures = cpu(&least, &exact, most);
    figures.extend([
        Figure::told("events/s, at least once", least.speed),
        Figure::told("events/s, exactly once", exact.speed),
        Figure::at_least("speed, times", factor(exact.speed, least.speed), slowest),
    ]);
    both(figures, &least, &exact)
}

fn cpu(least: &Taken, exact: &Taken, most: f64) -> Vec<Figure> {
    vec![
        Figure::told("CPU s per million, at least once", least.cpu),
        Figure::told("CPU s per million, exactly once", exact.cpu),
        Figure::at_most("CPU, times", factor(exact.cpu, least.cpu), most),
    ]
}

fn both(figures: Vec<Figure>, least: &Taken, exact: &Taken) -> Result<Run> {
    let mut run = conclude(figures, &exact.report)?;
    let first = conclude(Vec::new(), &least.report)?;
    run.broken.extend(first.broken);
    Ok(run)
}

#[expect(clippy::cast_precision_loss, reason = "figures")]
async fn load(
    brokers: &mut Brokers,
    broker: Broker,
    exactly_once: bool,
    rate: f64,
    time: Duration,
) -> Result<Taken> {
    let rig = Box::pin(Rig::start(brokers, &setup(broker, exactly_once))).await?;
    let consumer = match broker {
        Broker::Kafka => Some(Live::start(&rig.brokers.kafka, &rig.places.event_topics())?),
        Broker::Nats => None,
    };
    let before = rig.usage()?;
    rig.load(&Load {
        events_per_second: rate,
        ..Load::default()
    })
    .await?;
    tokio::time::sleep(time).await;
    rig.stop_load().await?;
    rig.caught_up().await?;
    let used = rig.usage()?.since(&before);
    let ages = match consumer {
        Some(consumer) => consumer.finish().await?,
        None => Ages::default(),
    };
    let report = Box::pin(rig.finish()).await?;
    Ok(Taken {
        cpu: used.cpu() * 1e6 / report.first().handed_out as f64,
        ages,
        speed: rate,
        report,
    })
}

#[expect(clippy::cast_precision_loss, reason = "figures")]
async fn drained(brokers: &mut Brokers, exactly_once: bool, events: u64) -> Result<Taken> {
    let setup = Setup {
        backlog: events,
        ..setup(Broker::Kafka, exactly_once)
    };
    let rig = Box::pin(Rig::start(brokers, &setup)).await?;
    wait_for(
        "the backlog to drain",
        Duration::from_secs(600),
        async || {
            tokio::time::sleep(Duration::from_millis(500)).await;
            rig.pending("kafka").await.is_ok_and(|left| left == 0.0)
        },
    )
    .await?;
    let used = rig.usage()?;
    let began = jiff::Timestamp::now().as_millisecond();
    let report = Box::pin(rig.finish()).await?;
    let held = report.held.first().context("no sink")?;
    let drained = held.arrived.values().flatten();
    let at: Vec<i64> = drained
        .filter(|arrived| arrived.ms < began)
        .map(|arrived| arrived.at)
        .collect();
    let took = at.iter().max().unwrap_or(&0) - at.iter().min().unwrap_or(&0);
    Ok(Taken {
        cpu: used.cpu() * 1e6 / at.len() as f64,
        ages: Ages::default(),
        speed: at.len() as f64 * 1e3 / took as f64,
        report,
    })
}

/// A consumer of committed records that notes how old events are when they come.
struct Live {
    is_over: Arc<AtomicBool>,
    reading: JoinHandle<Ages>,
}

impl Live {
    fn start(kafka: &Kafka, topics: &[String]) -> Result<Live> {
        let consumer: BaseConsumer = kafka
            .client()
            .set("group.id", "rtm-tests-live")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("fetch.wait.max.ms", "5")
            .create()?;
        let mut assignment = TopicPartitionList::new();
        for topic in topics {
            let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10))?;
            let found = metadata.topics().first();
            for partition in found.map_or(&[][..], |topic| topic.partitions()) {
                assignment.add_partition_offset(topic, partition.id(), Offset::Beginning)?;
            }
        }
        consumer.assign(&assignment)?;
        let is_over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&is_over);
        let reading = spawn_blocking(move || {
            let mut ages = Vec::new();
            while !told.load(Ordering::Relaxed) {
                let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else {
                    continue;
                };
                let now = jiff::Timestamp::now().as_millisecond();
                ages.extend(event_ms(message.payload().unwrap_or_default()).map(|ms| now - ms));
            }
            ages.into_iter().collect()
        });
        Ok(Live { is_over, reading })
    }

    async fn finish(self) -> Result<Ages> {
        self.is_over.store(true, Ordering::Relaxed);
        Ok(self.reading.await?)
    }
}

fn event_ms(payload: &[u8]) -> Option<i64> {
    #[derive(Deserialize)]
    struct Envelope {
        event: Event,
    }
    #[derive(Deserialize)]
    struct Event {
        ms: i64,
    }
    let envelope: Envelope = serde_json::from_slice(payload).ok()?;
    Some(envelope.event.ms)
}

//! What an event costs: processor time, and for Kafka beside that of a bare loop; switches, memory, bytes written.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result};
use rtm_bridge::sinks::Stored;
use rtm_bridge::usage::Usage;
use rtm_sim::{Ledger, Load};

use super::bare::{self, Bare, BareRecord, Batch};
use super::{Figure, MIB, Run, conclude, factor, of};
use crate::brokers::unique;
use crate::trial::{Brokers, Rig, Setup, Sinks};

/// How often the bare loop's processor time the bridge may take.
const OF_BARE: f64 = 1.5;

/// The most memory that a bridge may take.
const MEMORY_MIB: f64 = 48.0;

/// Where the events go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Into {
    /// Kafka alone, and then a bare loop with the same records.
    Kafka,
    /// NATS alone, in atomic batches.
    NatsAtomic,
    /// NATS alone, record by record.
    NatsPlain,
    /// Both, NATS as it comes.
    Both,
}

impl Into {
    /// All of it.
    pub const ALL: [Into; 4] = [Into::Kafka, Into::NatsAtomic, Into::NatsPlain, Into::Both];

    /// The most processor seconds for a million events.
    fn bound(self) -> f64 {
        match self {
            Into::Kafka => 3.0,
            Into::NatsAtomic => 4.5,
            Into::NatsPlain => 8.0,
            Into::Both => 7.0,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Into::Kafka => "Kafka",
            Into::NatsAtomic => "NATS, atomic",
            Into::NatsPlain => "NATS, plain",
            Into::Both => "both",
        }
    }

    fn setup(self) -> Setup {
        let (sinks, atomic_batches) = match self {
            Into::Kafka => (Sinks::Kafka, None),
            Into::NatsAtomic => (Sinks::Nats, Some("auto")),
            Into::NatsPlain => (Sinks::Nats, Some("off")),
            Into::Both => (Sinks::All, None),
        };
        Setup {
            sinks,
            atomic_batches,
            ..Setup::default()
        }
    }
}

/// `rate` events a second for `time`, into one of them.
///
/// # Errors
///
/// When the trial cannot be run.
pub async fn cost(brokers: &mut Brokers, into: Into, rate: f64, time: Duration) -> Result<Run> {
    let rig = Box::pin(Rig::start(brokers, &into.setup())).await?;
    let before = rig.usage()?;
    let stored = rig.stats().await?;
    rig.load(&Load {
        events_per_second: rate,
        ..Load::default()
    })
    .await?;
    tokio::time::sleep(time).await;
    rig.stop_load().await?;
    rig.caught_up().await?;
    let used = rig.usage()?.since(&before);
    let now = rig.stats().await?;
    let handed =
        |stats: &rtm_sim::SimStats| -> u64 { stats.rings.iter().map(|ring| ring.handed_out).sum() };
    let events = handed(&now) - handed(&stored);
    let bare = match into {
        Into::Kafka => Some(Box::pin(bare_loop(&rig)).await?),
        _ => None,
    };
    let report = Box::pin(rig.finish()).await?;
    let figures = figures(into, &used, events, bare);
    conclude(figures, &report)
}

#[expect(clippy::cast_precision_loss, reason = "figures")]
fn figures(into: Into, used: &Usage, events: u64, bare: Option<Bare>) -> Vec<Figure> {
    let name = |name: &str| of(into.name(), name);
    let millions = events as f64 / 1e6;
    let cpu = used.cpu() / millions;
    let mut figures = vec![
        Figure::at_most(name("CPU s per million events"), cpu, into.bound()),
        Figure::told(name("of it user"), used.user / millions),
        Figure::told(name("of it system"), used.system / millions),
    ];
    if let Some(bare) = bare {
        let millions = bare.records as f64 / 1e6;
        let alone = (bare.user + bare.system) / millions;
        figures.extend([
            Figure::told(name("CPU s per million of a bare loop"), alone),
            Figure::told(name("of it system, bare"), bare.system / millions),
            Figure::at_most(name("times the bare loop"), factor(cpu, alone), OF_BARE),
        ]);
    }
    figures.extend([
        Figure::at_most(name("peak memory, MiB"), used.peak as f64 / MIB, MEMORY_MIB),
        Figure::told(
            name("bytes written per event"),
            used.written as f64 / events as f64,
        ),
        Figure::told(
            name("context switches per thousand events"),
            used.switches as f64 * 1e3 / events as f64,
        ),
    ]);
    figures
}

/// The bare loop, with what the bridge has just published, in topics of its own.
async fn bare_loop(rig: &Rig<'_>) -> Result<Bare> {
    let ledger = Ledger::from_ndjson(&rig.ask("ledger").await?[..], Vec::new())?;
    let batches = batches(rig, &ledger)?;
    let prefix = unique("bare");
    let topics = ["user", "channel"].map(|stream| format!("{prefix}.{stream}"));
    let kafka = &rig.brokers.kafka;
    for topic in &topics {
        let settings = [("message.timestamp.type", "LogAppendTime")];
        let created = kafka.create_topic(topic, rig.brokers.partitions, &settings);
        created.await?;
    }
    let bare = bare::run(kafka.address(), &topics, &batches, rig.dir()).await?;
    for topic in &topics {
        kafka.delete_topic(topic).await?;
    }
    Ok(bare)
}

/// What Kafka holds, by page, in the order and at the times in which the pages were fetched.
fn batches(rig: &Rig<'_>, ledger: &Ledger) -> Result<Vec<Batch>> {
    #[derive(serde::Deserialize)]
    struct Envelope<'a> {
        id: &'a str,
        request_id: &'a str,
        event: Event,
    }
    #[derive(serde::Deserialize)]
    struct Event {
        ms: i64,
    }
    let mut by_page: HashMap<String, Vec<(u32, BareRecord)>> = HashMap::new();
    let mut take = |stored: &Stored<'_>| -> Result<()> {
        let envelope: Envelope<'_> = serde_json::from_slice(stored.payload)?;
        let offset = envelope.id.rsplit('.').next().unwrap_or_default();
        let record = BareRecord {
            // Topics are told apart by the thousand.
            topic: u8::try_from(stored.partition / 1_000)?,
            ms: envelope.event.ms,
            key: stored.key.unwrap_or_default().to_vec(),
            payload: stored.payload.to_vec(),
        };
        by_page
            .entry(envelope.request_id.to_owned())
            .or_default()
            .push((offset.parse()?, record));
        Ok(())
    };
    let mut all = Ok(());
    rig.places.read_kafka(&rig.brokers.kafka, |stored| {
        if all.is_ok() {
            all = take(stored);
        }
    })?;
    all.context("a record that is none")?;
    let mut pages: Vec<(u64, Batch)> = Vec::new();
    for page in &ledger.pages {
        let mut records = by_page.remove(&page.request_id).unwrap_or_default();
        records.sort_by_key(|(offset, _)| *offset);
        let records = records.into_iter().map(|(_, record)| record).collect();
        let batch = Batch { at_ms: 0, records };
        pages.push((page.deleted_at_ms, batch));
    }
    pages.sort_by_key(|(at, _)| *at);
    let first = pages.first().map_or(0, |(at, _)| *at);
    let batches = pages.into_iter().map(|(at, batch)| Batch {
        at_ms: at - first,
        ..batch
    });
    Ok(batches.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trial::measured::Table;

    fn kept(into: Into, used: Usage, bare: Option<Bare>) -> bool {
        let mut table = Table::default();
        table.add(Run {
            figures: figures(into, &used, 2_000_000, bare),
            broken: Vec::new(),
        });
        table.kept()
    }

    /// Holds: each way has its bound; time of the kernel counts; a million is a million; the bare loop's time and memory
    /// bound it as well.
    #[test]
    fn each_bound_can_be_missed() {
        let used = |user: f64, system: f64| Usage {
            user,
            system,
            peak: 48 << 20,
            ..Usage::default()
        };
        for (into, most) in [
            (Into::Kafka, 6.0),
            (Into::NatsAtomic, 9.0),
            (Into::NatsPlain, 16.0),
            (Into::Both, 14.0),
        ] {
            assert!(kept(into, used(most - 1.0, 1.0), None), "{into:?}");
            assert!(!kept(into, used(most - 1.0, 1.1), None), "{into:?}");
        }
        let fat = Usage {
            peak: (48 << 20) + (1 << 20),
            ..used(1.0, 1.0)
        };
        assert!(!kept(Into::Both, fat, None));
        let bare = |user: f64| {
            Some(Bare {
                records: 1_000_000,
                user,
                system: 0.5,
            })
        };
        assert!(kept(Into::Kafka, used(4.0, 2.0), bare(1.5)));
        assert!(!kept(Into::Kafka, used(4.0, 2.0), bare(1.4)));
    }
}

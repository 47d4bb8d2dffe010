//! The publishing of a replay: entry by entry, in order, without a cursor.

use std::iter::Peekable;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use indicatif::ProgressDrawTarget;
use rtm_journal::{Entry, Journal, StoredEntries};
use rtm_sink::{AnySink, Outcome, PublishErrorKind, Reason, Record, Sink};
use tokio_util::sync::CancellationToken;

use super::common::{BATCH, Counts, PATIENCE, Pace, backoff, other};
use super::once::Lanes;
use super::select::{Selection, Unreadable, readable};
use crate::commands::process::live_view;
use rtm_record::{Prepared, Router, SLICE};

/// A journal that was looked at within this time is not looked at again: of a segment that went, all entries are gone.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How often a line of progress is written where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// How a replay ended.
#[derive(Debug, Default)]
pub(super) struct Ended {
    pub(super) entries: usize,
    /// What became of the events in those.
    pub(super) counts: Counts,
    /// Entries whose bytes are lost, or that were reclaimed meanwhile.
    pub(super) lost: usize,
    /// Why it did not come to the end.
    pub(super) stopped: Option<String>,
    /// The sink knows how far it came.
    pub(super) is_once: bool,
}

/// Publishes a selection; what `lanes` are of, once and only once. Stops at a signal, or when the sink confirms nothing for long.
pub(super) async fn deliver(
    client: &AnySink,
    lanes: Option<Lanes>,
    router: Router,
    dir: &Path,
    selection: &Selection,
    rate: Option<u32>,
    stop: &CancellationToken,
) -> anyhow::Result<Ended> {
    let mut ended = Ended {
        is_once: lanes.is_some(),
        ..Ended::default()
    };
    let mut out = Out {
        sink: client.clone(),
        lanes,
        router,
        pace: rate.map(Pace::new),
    };
    let style = "{wide_bar} {pos} of about {len}, {per_sec}, {eta} left";
    let bar = live_view(ProgressDrawTarget::stderr(), style);
    bar.set_length(selection.events());
    let mut told = Instant::now();
    let mut reading = Reading::new(dir, selection, 0)?;
    for at in 0..selection.entries.len() {
        let entry = tokio::select! {
            entry = reading.patiently(dir, selection, at) => entry,
            () = stop.cancelled() => Err(anyhow!("stopped by a signal")),
        };
        let entry = match entry {
            Ok(Some(entry)) => entry,
            Ok(None) => {
                ended.lost += 1;
                continue;
            }
            Err(error) => {
                ended.stopped = Some(crate::chain(error.as_ref()));
                break;
            }
        };
        let published = tokio::select! {
            published = out.entry(&selection.entries[at].lane, &entry) => published,
            () = stop.cancelled() => Err(anyhow!("stopped by a signal")),
        };
        match published {
            Ok(counts) => {
                ended.entries += 1;
                ended.counts.add(counts);
            }
            // The entry was published in part, perhaps: it is published again when the replay is gone on with.
            Err(error) => {
                ended.stopped = Some(crate::chain(error.as_ref()));
                break;
            }
        }
        let records = ended.counts.all();
        bar.set_position(records);
        if bar.is_hidden() && told.elapsed() >= LINE_INTERVAL {
            told = Instant::now();
            eprintln!("{records} of about {}", selection.events());
        }
    }
    bar.finish_and_clear();
    Ok(ended)
}

/// What the journal held at one moment.
struct Reading {
    entries: Peekable<StoredEntries>,
    since: Instant,
    /// Nothing else takes an entry away.
    may_be_reclaimed: bool,
}

impl Reading {
    /// From the selection's entry of this index on.
    fn new(dir: &Path, selection: &Selection, from: usize) -> anyhow::Result<Reading> {
        let entries = Journal::stored_beside(dir, &selection.filter(from))?;
        Ok(Reading {
            may_be_reclaimed: entries.may_be_reclaimed(),
            entries: entries.peekable(),
            since: Instant::now(),
        })
    }

    /// The selection's entry of this index, which may only grow; none where its bytes are lost, or where it is not in the
    /// journal any more. One that cannot be read is tried again: it is where it was, or was moved, because another sink still
    /// needs it.
    async fn patiently(
        &mut self,
        dir: &Path,
        selection: &Selection,
        at: usize,
    ) -> anyhow::Result<Option<Entry>> {
        let position = selection.entries[at].position;
        let began = Instant::now();
        loop {
            let why = match self.find(position) {
                Ok(Found::Entry(entry)) => return Ok(Some(*entry)),
                Ok(Found::Lost) => return Ok(None),
                Ok(Found::Nothing) if self.since.elapsed() > LOOK_AGAIN => None,
                Ok(Found::Nothing) if self.may_be_reclaimed => return Ok(None),
                Ok(Found::Nothing) => Some(Unreadable::missing(position)),
                Err(error) => Some(error),
            };
            if let Some(error) = why {
                let left = PATIENCE.saturating_sub(began.elapsed());
                if left.is_zero() {
                    return Err(error.into());
                }
                eprintln!(
                    "{}; trying again for {} s",
                    crate::chain(&error),
                    left.as_secs()
                );
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            *self = Reading::new(dir, selection, at)?;
        }
    }

    fn find(&mut self, position: u64) -> Result<Found, Unreadable> {
        let entries = &mut self.entries;
        while entries
            .next_if(|stored| stored.position.0 < position)
            .is_some()
        {}
        let Some(stored) = entries.next_if(|stored| stored.position.0 == position) else {
            return Ok(Found::Nothing);
        };
        let entry = readable(stored)?;
        Ok(entry.map_or(Found::Lost, |entry| Found::Entry(Box::new(entry))))
    }
}

/// What is at a position.
enum Found {
    Entry(Box<Entry>),
    /// An entry whose bytes are lost.
    Lost,
    Nothing,
}

struct Out {
    sink: AnySink,
    /// Where the sink knows what it has.
    lanes: Option<Lanes>,
    router: Router,
    pace: Option<Pace>,
}

impl Out {
    /// Publishes what an entry became at first: events and dead letters, in the page's order.
    async fn entry(&mut self, lane: &str, entry: &Entry) -> anyhow::Result<Counts> {
        let mut counts = Counts::default();
        for from in (0..).step_by(SLICE) {
            let slice = self.router.page(entry, from..from + SLICE)?.prepared;
            let is_last = slice.len() < SLICE;
            counts.add(match &mut self.lanes {
                Some(lanes) => {
                    let with = (&self.sink, &mut self.router, self.pace.as_mut());
                    lanes.slice(with, (lane, entry), slice, is_last).await?
                }
                None => self.slice(entry, &slice).await?,
            });
            if is_last {
                break;
            }
        }
        Ok(counts)
    }

    async fn slice(&mut self, entry: &Entry, slice: &[Prepared]) -> anyhow::Result<Counts> {
        let (mut events, mut dead_letters) = (0, 0);
        let batch = self.pace.as_ref().map_or(BATCH, |pace| pace.batch);
        for prepared in slice.chunks(batch) {
            if let Some(pace) = &mut self.pace {
                pace.wait(prepared.len()).await;
            }
            let records = prepared.iter().map(|one| one.record.clone()).collect();
            let refused = self.publish(records).await?;
            let letters = prepared.iter().filter(|one| one.dead.is_some()).count();
            events += (prepared.len() - letters) as u64;
            dead_letters += letters as u64;
            let is_dead = |refused: &Record| {
                let mut dead = prepared.iter().filter(|one| one.dead.is_some());
                dead.any(|one| one.record.id == refused.id)
            };
            for (record, why) in refused {
                let letter = if is_dead(&record) {
                    other(&record, &why)?
                } else {
                    (events, dead_letters) = (events - 1, dead_letters + 1);
                    self.router.refused(entry, &record, &why)?
                };
                self.dead_letter(letter).await?;
            }
        }
        Ok(Counts {
            events,
            dead_letters,
            there: 0,
        })
    }

    /// Publishes a dead letter, cut until it fits, and of now where its time is refused.
    async fn dead_letter(&self, mut letter: Record) -> anyhow::Result<()> {
        while let Some((refused, why)) = self.publish(vec![letter]).await?.pop() {
            letter = other(&refused, &why)?;
        }
        Ok(())
    }

    /// Publishes records until each is confirmed or refused; returns the refused ones.
    async fn publish(&self, mut records: Vec<Record>) -> anyhow::Result<Vec<(Record, Reason)>> {
        let mut refused = Vec::new();
        let mut waits = backoff();
        let mut since = Instant::now();
        while !records.is_empty() {
            let left = PATIENCE.saturating_sub(since.elapsed());
            let published = tokio::time::timeout(left, self.sink.publish(&records)).await;
            let error = match published {
                Ok(Ok(())) => break,
                Ok(Err(error)) => error,
                Err(_) => anyhow::bail!(
                    "the sink has confirmed nothing for {} s",
                    PATIENCE.as_secs()
                ),
            };
            let before = records.len();
            let mut outcomes = error.outcomes.iter();
            records.retain(|record| match outcomes.next() {
                Some(Outcome::Confirmed) => false,
                Some(Outcome::Rejected(why)) => {
                    refused.push((record.clone(), why.clone()));
                    false
                }
                Some(Outcome::Unknown) | None => true,
            });
            if records.len() < before {
                (waits, since) = (backoff(), Instant::now());
            }
            if error.kind == PublishErrorKind::Misconfigured || since.elapsed() >= PATIENCE {
                return Err(error).context("the sink does not take the records");
            }
            if let Some(wait) = waits.next().filter(|_| !records.is_empty()) {
                tokio::time::sleep(wait).await;
            }
        }
        Ok(refused)
    }
}

#[cfg(test)]
pub(super) mod tests;

//! The publishing of what waits in a journal that was set aside, into a sink that stores records once and only once.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use bytes::Bytes;
use rtm_engine::drain::{Drain, Found};
use rtm_engine::tally::{Tally, dead_letter_reason};
use rtm_journal::{Entry, Epoch, Journal};
use rtm_record::{Prepared, Router};
use rtm_sink::{
    AnySink, ExactLimits, Outcome, Progress, ProgressKey, PublishError, PublishErrorKind, Reason,
    Record, Sink,
};
use tokio::time::timeout;

use super::common::{Counts, PATIENCE, Pace, backoff, other};
use super::select::Selection;
use crate::commands::process::counted;

/// The lanes of a journal, of which the sink knows how far each is published.
pub(super) struct Lanes {
    limits: ExactLimits,
    by_name: HashMap<Arc<str>, Drain>,
}

/// What is left of an entry.
struct Left {
    record: Record,
    /// Why it is a dead letter, if it is one.
    dead: Option<&'static str>,
}

/// What became of one call.
enum Called {
    Stored,
    Refused(Vec<Option<Reason>>),
    /// For what is not said to be one of the records.
    RefusedAsAWhole(PublishError),
}

impl Lanes {
    /// Asks the sink about every lane that the selection has entries of. None where the sink or the journal is not of the
    /// kind, and records may be stored twice.
    pub(super) async fn ask(
        sink: &AnySink,
        name: &str,
        dir: &Path,
        selection: &Selection,
    ) -> anyhow::Result<Option<Lanes>> {
        let found = Journal::inspect(dir)?;
        let (Some(limits), Some(journal)) = (sink.exact(), found.id) else {
            return Ok(None);
        };
        anyhow::ensure!(
            selection.foreign == 0,
            "{} of this journal are of another version of rtm-bridge, and would be passed over for good: drain it with that version",
            counted(selection.foreign, "entry", "entries")
        );
        let mut selected: HashMap<&str, usize> = HashMap::new();
        for entry in &selection.entries {
            *selected.entry(&entry.lane).or_default() += 1;
        }
        let process = Epoch(fastrand::u64(1..));
        let mut by_name = HashMap::new();
        for (lane, waiting) in &selection.lanes {
            let Some(selected) = selected.get(&**lane) else {
                continue;
            };
            let readable = waiting.iter().filter(|entry| entry.epoch.is_some());
            let others = readable.count().saturating_sub(*selected);
            if others > 0 {
                eprintln!(
                    "{lane}: {} that {name} does not take, by its `apps` and `streams`, are passed over for good",
                    counted(others as u64, "entry", "entries")
                );
            }
            let key = ProgressKey {
                journal,
                sink: name.into(),
                lane: Arc::clone(lane),
            };
            let mut lanes = found.lanes.iter();
            let readers = lanes.find(|known| known.name == **lane);
            let mut readers = readers.iter().flat_map(|lane| &lane.readers);
            let cursor = readers.find(|reader| reader.name == name);
            let cursor = cursor.map(|reader| (reader.committed, Tally::decode(&reader.tally)));
            let mut drain = Drain::new(key, process, limits, cursor.unwrap_or_default());
            let known = recall(sink, drain.key()).await?;
            let unknown = drain.resume(known, waiting);
            let unknown = unknown.with_context(|| format!("the App ID {lane} of this journal"))?;
            if unknown > 0 {
                let entries = counted(unknown as u64, "entry", "entries");
                eprintln!(
                    "{lane}: {name} does not tell of {entries} whether it has them: they may be there already"
                );
            }
            by_name.insert(Arc::clone(lane), drain);
        }
        Ok(Some(Lanes { limits, by_name }))
    }

    /// Publishes what the sink has not of a slice of an entry, which may be the entry's last.
    pub(super) async fn slice(
        &mut self,
        (sink, router, mut pace): (&AnySink, &mut Router, Option<&mut Pace>),
        (lane, entry): (&str, &Entry),
        slice: Vec<Prepared>,
        is_last: bool,
    ) -> anyhow::Result<Counts> {
        let drain = self.by_name.get_mut(lane);
        let drain = drain.with_context(|| format!("{lane} is not in the journal"))?;
        let mut counts = Counts::default();
        let all = slice.len();
        let left = slice.into_iter().filter(|one| !drain.has(one.record.id));
        let mut left: VecDeque<Left> = left
            .map(|one| Left {
                record: one.record,
                dead: one.dead,
            })
            .collect();
        counts.there = (all - left.len()) as u64;
        if left.is_empty() && (!is_last || drain.is_settled(entry)) {
            return Ok(counts);
        }
        let paced = pace.as_ref().map_or(usize::MAX, |pace| pace.batch);
        let mut most = self.limits.records.min(paced);
        loop {
            let taken = take(&left, self.limits.bytes, most);
            let is_whole = is_last && taken == left.len();
            if taken == 0 && !is_whole {
                return Ok(counts);
            }
            let to = match is_whole {
                true => None,
                false => left.get(taken - 1).map(|last| last.record.id.offset),
            };
            let mut tally = Tally::default();
            for one in left.range(..taken) {
                match one.dead {
                    Some(why) => tally.dead_letter(dead_letter_reason(why), 1),
                    None => tally.confirmed += 1,
                }
            }
            let progress = drain.progress(entry, to, &tally);
            let records: Vec<Record> = left.range(..taken).map(|one| one.record.clone()).collect();
            if let Some(pace) = &mut pace {
                pace.wait(taken).await;
            }
            match call(sink, drain, &records, &progress).await? {
                Called::Stored => {
                    drain.stored(progress, entry, to, &tally);
                    counts.events += tally.confirmed;
                    counts.dead_letters += taken as u64 - tally.confirmed;
                    left.drain(..taken);
                    if is_whole {
                        return Ok(counts);
                    }
                }
                Called::Refused(reasons) => {
                    for (one, why) in left.iter_mut().zip(reasons) {
                        if let Some(why) = why {
                            one.record = match one.dead {
                                Some(_) => other(&one.record, &why)?,
                                None => router.refused(entry, &one.record, &why)?,
                            };
                            one.dead.get_or_insert(why.code);
                        }
                    }
                }
                Called::RefusedAsAWhole(error) if taken <= 1 => {
                    return Err(error).context("the sink does not take the records");
                }
                Called::RefusedAsAWhole(_) => most = taken / 2,
            }
        }
    }
}

/// How many of what is left go into one call: at least one, if there is one.
fn take(left: &VecDeque<Left>, most_bytes: usize, most: usize) -> usize {
    let mut bytes = 0;
    let fitting = left.iter().take(most).take_while(|one| {
        bytes += one.record.payload.len();
        bytes <= most_bytes
    });
    fitting.count().max(1).min(left.len())
}

/// One call, until it is known what became of it.
async fn call(
    sink: &AnySink,
    drain: &mut Drain,
    records: &[Record],
    progress: &Progress,
) -> anyhow::Result<Called> {
    let began = Instant::now();
    let mut waits = backoff();
    loop {
        let left = PATIENCE.saturating_sub(began.elapsed());
        let error = match timeout(left, sink.publish_exactly(records, progress)).await {
            Ok(Ok(())) => return Ok(Called::Stored),
            Ok(Err(error)) if error.is_of_the_whole() => {
                return Ok(Called::RefusedAsAWhole(error));
            }
            Ok(Err(error)) if error.kind == PublishErrorKind::Rejected => {
                let reasons = error.outcomes.into_iter().map(|outcome| match outcome {
                    Outcome::Rejected(why) => Some(why),
                    Outcome::Confirmed | Outcome::Unknown => None,
                });
                return Ok(Called::Refused(reasons.collect()));
            }
            Ok(Err(error)) => error,
            Err(_) => anyhow::bail!(
                "the sink has confirmed nothing for {} s",
                PATIENCE.as_secs()
            ),
        };
        if error.kind == PublishErrorKind::Misconfigured || began.elapsed() >= PATIENCE {
            return Err(error).context("the sink does not take the records");
        }
        match drain.judge(progress, recall(sink, drain.key()).await?) {
            Found::Stored => return Ok(Called::Stored),
            Found::NotStored => tokio::time::sleep(waits.next().unwrap_or(PATIENCE)).await,
            Found::Elsewhere => anyhow::bail!(
                "{}: the sink has another progress of this journal than was stored last; does another process publish it?",
                drain.key()
            ),
        }
    }
}

/// The progress that the sink has of a lane.
async fn recall(sink: &AnySink, key: &ProgressKey) -> anyhow::Result<Option<Bytes>> {
    let began = Instant::now();
    let mut waits = backoff();
    loop {
        let left = PATIENCE.saturating_sub(began.elapsed());
        let asked = timeout(left, sink.recall(key)).await;
        let error = match asked {
            Ok(Ok(known)) => return Ok(known),
            Ok(Err(error)) => error.into(),
            Err(_) => anyhow::anyhow!("no answer for {} s", PATIENCE.as_secs()),
        };
        let is_over = began.elapsed() >= PATIENCE;
        let is_refused = error
            .downcast_ref::<PublishError>()
            .is_some_and(|error| error.kind == PublishErrorKind::Misconfigured);
        if is_over || is_refused {
            return Err(error).context("the sink does not say how far this journal is published");
        }
        tokio::time::sleep(waits.next().unwrap_or(PATIENCE)).await;
    }
}

#[cfg(test)]
mod tests;

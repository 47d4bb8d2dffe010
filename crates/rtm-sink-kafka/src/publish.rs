use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode;
use rtm_sink::{BoxError, Outcome, PublishError, PublishErrorKind, Reason, Record, Topic};
use tokio::task::{spawn_blocking, yield_now};
use tokio::time::timeout;

use crate::cause::watch;
use crate::failure::{is_missing, said};
use crate::limits::alone;
use crate::options::ConnectError;
use crate::producer::Live;
use crate::producers::Producers;
use crate::reports::{Attempt, Call, MAX_RECORDS, Slot};
use crate::topics::CheckError;
use crate::verdict::{Verdict, kind, verdict};

/// librdkafka frees room a little after it reports on a record, so a waiting sender looks again after this long.
const ROOM: Duration = Duration::from_millis(20);

/// How often a failed producer's queue is emptied: batches that were in flight come back to it.
const PURGE: Duration = Duration::from_millis(10);

/// How long requests in flight may take to answer after their producer has failed. Then they are given up, and may turn
/// out to have been stored.
const DRAIN: Duration = Duration::from_secs(1);

/// How long librdkafka may take to report on what was purged. It takes milliseconds.
const REPORT: Duration = Duration::from_secs(10);

/// A refused group is published in so many parts, and each of these in so many: a thousand records take three rounds.
///
/// Each round ends in a new producer, which takes half a second to get its id (librdkafka's timer), and each part takes
/// some milliseconds: many parts and few rounds are cheapest.
const PARTS: usize = 32;

/// So many producers in a row may fail before anything is confirmed, until the call ends for its caller's backoff.
const FRUITLESS: u32 = 5;

/// So many records of a call may be refused one after the other, until it ends: each costs half a second, and a topic may
/// refuse them all, which the caller is to decide.
const REFUSED: u32 = 20;

/// Records handed to librdkafka before other tasks get their turn; it takes about a microsecond for each.
const TURN: usize = 1024;

/// Some records of a call, by their indices, in order. They are settled before any later group is sent.
pub(crate) struct Group {
    indices: Vec<usize>,
    /// The group is one record, which was refused together with others and is now judged by itself.
    judged: bool,
}

impl Group {
    /// Of a call with so many records.
    pub(crate) fn of_all(records: usize) -> Group {
        Group {
            indices: (0..records).collect(),
            judged: false,
        }
    }
}

pub(crate) async fn publish(producers: &Producers, records: &[Record]) -> Result<(), PublishError> {
    if records.is_empty() {
        return Ok(());
    }
    let call = producers.reports.call();
    let mut outcomes = vec![Outcome::Unknown; records.len()];
    let settled = tokio::select! {
        biased;
        settled = settle_all(producers, &call, records, &mut outcomes) => settled,
        never = watch(producers, &call, records) => match never {},
    };
    producers.dismiss();
    let Stop { kind, source } = match settled {
        Ok(None) => return Ok(()),
        Ok(Some(code)) => Stop::new(
            PublishErrorKind::Rejected,
            refusal(producers, records, code),
        ),
        Err(stop) => stop,
    };
    if kind == PublishErrorKind::Misconfigured {
        producers.is_misconfigured();
    }
    Err(PublishError {
        kind,
        outcomes,
        source,
    })
}

/// Why records are refused, with the limit that they are over, if it is known.
fn refusal(producers: &Producers, records: &[Record], code: RDKafkaErrorCode) -> BoxError {
    let limits = producers.limits.of_records();
    let mut over = records.iter().filter_map(|record| {
        let most = *limits.get(&record.topic)?;
        (alone(record) > most).then_some((&record.topic, most))
    });
    match over.next() {
        Some((topic, most)) => format!(
            "{code}: the topic `{topic}` takes batches of up to {most} bytes, also of one record"
        )
        .into(),
        None => code.into(),
    }
}

/// Publishes group by group until every record is confirmed or rejected, and returns why the last one was rejected.
async fn settle_all(
    producers: &Producers,
    call: &Call<'_>,
    records: &[Record],
    outcomes: &mut [Outcome],
) -> Result<Option<RDKafkaErrorCode>, Stop> {
    create_topics(producers, records).await?;
    renew_limits(producers, records).await;
    let all: Vec<usize> = (0..records.len()).collect();
    let mut groups = split(&all, MAX_RECORDS, false);
    let mut rejected = None;
    let mut fruitless = 0;
    let mut refused = 0;
    while let Some(group) = groups.pop() {
        // librdkafka puts records of all calls into one batch, and a broker refuses the batch.
        let mut judge = None;
        let live = match group.judged {
            true => {
                let judge = judge.insert(producers.judge.lock().await);
                producers.judging(judge).await?
            }
            false => producers.live().await?,
        };
        let slots = attempt(producers, call, &live, records, &group).await;
        if slots.iter().any(|slot| matches!(slot, Slot::Confirmed)) {
            refused = 0;
        }
        let mut left = sort(&group, &slots, outcomes);
        rejected = left.rejected.or(rejected);
        if let Some((kind, code, index)) = left.ends {
            let topic = records[index].topic.clone();
            let why = match is_missing(code) {
                true => producers.why_missing(topic.as_str()).await,
                false => None,
            };
            return Err(Stop::new(kind, Unpublished { topic, code, why }));
        }
        if left.indices.is_empty() {
            continue;
        }
        if let Some((label, code, index)) = left.refused {
            fruitless = 0;
            let record = &records[index];
            let is_too_large = label == Reason::TOO_LARGE;
            // What fills a batch by itself was in no other record's.
            let was_alone = is_too_large && alone(record) >= live.largest_batch;
            if group.judged || was_alone {
                outcomes[index] = reject(label, code);
                rejected = Some(code);
                if is_too_large {
                    producers.limits.record_is_refused(record);
                }
                refused += 1;
                if refused == REFUSED {
                    return Ok(rejected);
                }
                left.indices.retain(|left| *left != index);
                groups.extend(split(&left.indices, MAX_RECORDS, false));
                continue;
            }
            producers.health.lock().splits += 1;
            if is_too_large {
                find_limit(producers, &live, records, &left.indices, &record.topic).await;
                groups.extend(split(&left.indices, MAX_RECORDS, false));
            } else {
                let size = left.indices.len().div_ceil(PARTS);
                groups.extend(split(&left.indices, size, true));
            }
            continue;
        }
        let failure = live.failure();
        if let Some(failure) = &failure
            && let Verdict::Ends(kind) = verdict(failure.code)
        {
            return Err(Stop::new(kind, failure.clone().explained()));
        }
        fruitless = if left.indices.len() < group.indices.len() {
            0
        } else {
            fruitless + 1
        };
        if fruitless == FRUITLESS {
            let cause =
                failure.map_or_else(|| "records fail and do not say why".into(), BoxError::from);
            return Err(Stop::new(PublishErrorKind::Unavailable, cause));
        }
        groups.push(Group {
            indices: left.indices,
            judged: group.judged,
        });
    }
    Ok(rejected)
}

/// Sees to it that no batch of several records is refused again for its size. `left` are records of a group that was, for
/// this topic, by this producer.
pub(crate) async fn find_limit(
    producers: &Producers,
    live: &Live,
    records: &[Record],
    left: &[usize],
    topic: &Topic,
) {
    let told = producers.ask_for_limit(topic).await;
    if told.is_some_and(|told| told < live.largest_batch) {
        return;
    }
    let of_topic = left.iter().map(|&index| &records[index]);
    let of_topic = of_topic.filter(|record| record.topic == *topic);
    let sent: usize = of_topic.map(alone).sum();
    let most = sent.min(live.largest_batch) / 2;
    producers.limits.batch_is_refused(topic, most);
}

/// Asks topics again for the limits that records would be refused for.
async fn renew_limits(producers: &Producers, records: &[Record]) {
    for topic in producers.limits.stale(records) {
        producers.ask_for_limit(&topic).await;
    }
}

/// Groups of `size`, the first of them last, so that it is popped first.
fn split(indices: &[usize], size: usize, refused: bool) -> Vec<Group> {
    let group = |indices: &[usize]| Group {
        indices: indices.to_vec(),
        judged: refused && indices.len() == 1,
    };
    indices.chunks(size).rev().map(group).collect()
}

/// What an attempt leaves to do.
#[derive(Default)]
struct Left {
    /// Neither confirmed nor rejected, in order.
    indices: Vec<usize>,
    /// A broker refused the batch of this record, and of others maybe, with this label, for this reason.
    refused: Option<(&'static str, RDKafkaErrorCode, usize)>,
    /// A record was rejected, for this reason.
    rejected: Option<RDKafkaErrorCode>,
    /// The call ends, for what happened to this record.
    ends: Option<(PublishErrorKind, RDKafkaErrorCode, usize)>,
}

/// Writes down the outcomes that are certain, and finds what the others mean.
fn sort(group: &Group, slots: &[Slot], outcomes: &mut [Outcome]) -> Left {
    let mut left = Left::default();
    for (&index, &slot) in group.indices.iter().zip(slots) {
        let (code, alone) = match slot {
            Slot::Confirmed => {
                outcomes[index] = Outcome::Confirmed;
                continue;
            }
            Slot::Pending | Slot::NotSent => {
                left.indices.push(index);
                continue;
            }
            Slot::NotTaken(code) => (code, true),
            Slot::Failed(code) => (code, false),
        };
        match verdict(code) {
            // A limit on the size of a record: there is no batch yet, so no other record can be meant.
            Verdict::Refused(label) if alone => {
                outcomes[index] = reject(label, code);
                left.rejected = Some(code);
                continue;
            }
            Verdict::Refused(label) => {
                left.refused.get_or_insert((label, code, index));
            }
            Verdict::Again => (),
            Verdict::Ends(kind) => {
                // A failure that only an operator can repair is told rather than one that passes by itself.
                if left
                    .ends
                    .is_none_or(|(before, ..)| before == PublishErrorKind::Unavailable)
                {
                    left.ends = Some((kind, code, index));
                }
            }
        }
        left.indices.push(index);
    }
    left
}

fn reject(label: &'static str, code: RDKafkaErrorCode) -> Outcome {
    Outcome::Rejected(Reason {
        code: label,
        message: code.to_string(),
    })
}

/// Sends the group's records once, and waits until librdkafka has reported on each.
async fn attempt(
    producers: &Producers,
    call: &Call<'_>,
    live: &Arc<Live>,
    records: &[Record],
    group: &Group,
) -> Vec<Slot> {
    let attempt = call.attempt(group.indices.len());
    send(producers, live, records, group, &attempt).await;
    while !attempt.is_settled() {
        if live.failure().is_some() {
            drain(live, &attempt).await;
            break;
        }
        attempt.changed().await;
    }
    attempt.into_slots()
}

/// Hands the records to librdkafka in order, and stops at the first that it does not take and that is not to blame itself.
pub(crate) async fn send(
    producers: &Producers,
    live: &Live,
    records: &[Record],
    group: &Group,
    attempt: &Attempt<'_>,
) {
    let limits = producers.limits.of_records();
    for (place, &index) in group.indices.iter().enumerate() {
        if place % TURN == TURN - 1 {
            yield_now().await;
        }
        let most = limits.get(&records[index].topic);
        if most.is_some_and(|most| alone(&records[index]) > *most) {
            attempt.settle(place, Slot::NotTaken(RDKafkaErrorCode::MessageSizeTooLarge));
            continue;
        }
        let mut sent = live.send(&records[index], None, attempt.opaque(place));
        while sent == Err(RDKafkaErrorCode::QueueFull) && live.failure().is_none() {
            // A report may have made room; after the time, `send` looks by itself.
            let _ = timeout(ROOM, producers.reports.next()).await;
            sent = live.send(&records[index], None, attempt.opaque(place));
        }
        let Err(code) = sent else { continue };
        if code == RDKafkaErrorCode::Fatal {
            live.fail(code);
        }
        attempt.settle(place, Slot::NotTaken(code));
        if !matches!(verdict(code), Verdict::Refused(_)) {
            for rest in place + 1..group.indices.len() {
                attempt.settle(rest, Slot::NotSent);
            }
            return;
        }
    }
}

/// Ends what a failed producer still holds.
async fn drain(live: &Arc<Live>, attempt: &Attempt<'_>) {
    let start = Instant::now();
    while !attempt.is_settled() && start.elapsed() < DRAIN + REPORT {
        let inflight = start.elapsed() >= DRAIN;
        let purged = Arc::clone(live);
        // An error means that the runtime ends.
        let _ = spawn_blocking(move || purged.purge(inflight)).await;
        let _ = timeout(PURGE, attempt.changed()).await;
    }
}

/// Creates the topics of records that the sink has not met before, where topics are the sink's to create.
pub(crate) async fn create_topics(producers: &Producers, records: &[Record]) -> Result<(), Stop> {
    if producers.options.create_topics.is_none() {
        return Ok(());
    }
    let missing: Vec<Topic> = {
        let created = producers
            .created
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut missing = Vec::new();
        for record in records {
            // Most records have the topic of the one before, so that this is cheap.
            if missing.last() != Some(&record.topic) && !created.contains(&record.topic) {
                missing.push(record.topic.clone());
            }
        }
        missing
    };
    if missing.is_empty() {
        return Ok(());
    }
    let mut names: Vec<&str> = missing.iter().map(Topic::as_str).collect();
    names.sort_unstable();
    names.dedup();
    if let Err(error) = producers.ensure_topics(&names).await {
        // That no broker was reached may be a refusal of credentials, which has ended the producer, too.
        let refusal = producers.failure().map(|failure| verdict(failure.code));
        return Err(match (&error, refusal) {
            (CheckError::Unreachable { .. }, Some(Verdict::Ends(kind))) => Stop::new(kind, error),
            _ => error.into(),
        });
    }
    producers
        .created
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .extend(missing);
    Ok(())
}

/// What happened to one topic ended the call.
#[derive(Debug, thiserror::Error)]
#[error("topic `{topic}`: {}{}", said(*code), why.as_ref().map(|why| format!(", and {why}")).unwrap_or_default())]
pub(crate) struct Unpublished {
    pub(crate) topic: Topic,
    pub(crate) code: RDKafkaErrorCode,
    pub(crate) why: Option<String>,
}

/// Why a call ends before every record is settled.
pub(crate) struct Stop {
    pub(crate) kind: PublishErrorKind,
    pub(crate) source: BoxError,
}

impl Stop {
    pub(crate) fn new(kind: PublishErrorKind, source: impl Into<BoxError>) -> Stop {
        Stop {
            kind,
            source: source.into(),
        }
    }
}

impl Stop {
    /// Nothing is known of so many records.
    pub(crate) fn into_unknown(self, records: usize) -> PublishError {
        PublishError::unknown(self.kind, records, self.source)
    }
}

impl From<ConnectError> for Stop {
    fn from(error: ConnectError) -> Stop {
        CheckError::Start(error).into()
    }
}

impl From<CheckError> for Stop {
    fn from(error: CheckError) -> Stop {
        let of_error = match &error {
            CheckError::Closed | CheckError::Unreachable { .. } => PublishErrorKind::Unavailable,
            CheckError::Start(_) => PublishErrorKind::Misconfigured,
            CheckError::Create { code, .. } => kind(*code, PublishErrorKind::Misconfigured),
        };
        Stop::new(of_error, error)
    }
}

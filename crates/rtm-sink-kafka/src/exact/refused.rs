//! What it means that records are refused, or were not acknowledged, and which calls of a group are to blame.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use rdkafka::error::RDKafkaErrorCode;
use rtm_sink::{BoxError, Outcome, PublishError, PublishErrorKind, Reason, Record};

use crate::failure::is_missing;
use crate::limits::alone;
use crate::producer::Live;
use crate::producers::Producers;
use crate::publish::{Unpublished, find_limit};
use crate::reports::Slot;
use crate::verdict::{Verdict, kind, verdict};

/// Refuses the records that the client itself, or the topic as far as it is known, would refuse.
pub(super) fn refuse(
    producers: &Producers,
    live: &Live,
    records: &[Record],
) -> Result<(), PublishError> {
    let limits = producers.limits.of_records();
    let is_over = |record: &Record| {
        let keyed = record.payload.len() + record.key.as_ref().map_or(0, Bytes::len);
        let most = limits.get(&record.topic);
        keyed > live.largest_message || most.is_some_and(|most| alone(record) > *most)
    };
    let refused: Vec<usize> = (0..records.len())
        .filter(|&index| is_over(&records[index]))
        .collect();
    match refused.is_empty() {
        true => Ok(()),
        false => {
            let code = RDKafkaErrorCode::MessageSizeTooLarge;
            let refused = refused
                .into_iter()
                .map(|index| (index, Reason::TOO_LARGE, code));
            Err(rejected(records.len(), refused))
        }
    }
}

/// What it means that records were not all acknowledged. Nothing is stored. None, where smaller batches will do.
pub(super) async fn undelivered(
    producers: &Producers,
    live: &Arc<Live>,
    records: &[Record],
    whose: &[Range<usize>],
    slots: &[Slot],
) -> Option<PublishError> {
    let mut refused = Vec::new();
    let mut ends: Option<(PublishErrorKind, RDKafkaErrorCode, usize)> = None;
    for (index, slot) in slots.iter().enumerate() {
        let (Slot::NotTaken(code) | Slot::Failed(code)) = *slot else {
            continue;
        };
        match verdict(code) {
            Verdict::Refused(label) => {
                let is_too_large = label == Reason::TOO_LARGE;
                // Before there is a batch, or in one of its own, no other record can be meant.
                let is_own = matches!(slot, Slot::NotTaken(_))
                    || records.len() == 1
                    || is_too_large && alone(&records[index]) >= live.largest_batch;
                refused.push((index, label, code, is_own));
            }
            Verdict::Ends(kind)
                if ends.is_none_or(|(before, ..)| before == PublishErrorKind::Unavailable) =>
            {
                ends = Some((kind, code, index));
            }
            Verdict::Ends(_) | Verdict::Again => {}
        }
    }
    if refused.iter().any(|(.., is_own)| *is_own) {
        for (index, label, _, is_own) in &refused {
            if *is_own && *label == Reason::TOO_LARGE {
                producers.limits.record_is_refused(&records[*index]);
            }
        }
        let own = refused.into_iter().filter(|(.., is_own)| *is_own);
        return Some(rejected(
            records.len(),
            own.map(|(index, label, code, _)| (index, label, code)),
        ));
    }
    if let Some((index, label, code, _)) = refused.first().copied() {
        let topic = &records[index].topic;
        if label == Reason::TOO_LARGE {
            let left: Vec<usize> = (0..records.len()).collect();
            find_limit(producers, live, records, &left, topic).await;
            // The next producer makes smaller batches, in which a record that is too large is alone.
            return None;
        }
        let error = Unpublished {
            topic: topic.clone(),
            code,
            why: None,
        };
        let kind = PublishErrorKind::Rejected;
        return Some(PublishError::unknown(kind, records.len(), error));
    }
    let (kind, error): (_, BoxError) = match (ends, live.failure()) {
        (Some((kind, code, index)), _) => {
            let topic = records[index].topic.clone();
            let why = match is_missing(code) {
                true => producers.why_missing(topic.as_str()).await,
                false => producers.health.lock().why(),
            };
            (kind, Unpublished { topic, code, why }.into())
        }
        (None, Some(failure)) => {
            let kind = kind(failure.code, PublishErrorKind::Unavailable);
            (kind, failure.explained().into())
        }
        (None, None) => {
            let why = "records were not stored, and do not say why";
            (PublishErrorKind::Unavailable, why.into())
        }
    };
    if kind == PublishErrorKind::Misconfigured {
        producers.is_misconfigured();
        // It may be of one lane alone.
        if whose.len() > 1 && ends.is_some() {
            let kind = PublishErrorKind::Rejected;
            return Some(PublishError::unknown(kind, records.len(), error));
        }
    }
    Some(PublishError::unknown(kind, records.len(), error))
}

/// Which calls have records that were not acknowledged. Those that only were not in the end, for another's failure, are no
/// culprits where there are others.
pub(super) fn culprits(whose: &[Range<usize>], slots: &[Slot]) -> Vec<usize> {
    let is_culprit = |slot: &Slot| match slot {
        Slot::NotTaken(code) | Slot::Failed(code) => verdict(*code) != Verdict::Again,
        Slot::Pending | Slot::NotSent | Slot::Confirmed => false,
    };
    let of = |range: &Range<usize>| slots.get(range.clone()).unwrap_or_default();
    (0..whose.len())
        .filter(|&lane| of(&whose[lane]).iter().any(is_culprit))
        .collect()
}

fn rejected(
    records: usize,
    refused: impl Iterator<Item = (usize, &'static str, RDKafkaErrorCode)>,
) -> PublishError {
    let mut outcomes = vec![Outcome::Unknown; records];
    let mut first = None;
    for (index, code, error) in refused {
        let message = error.to_string();
        first.get_or_insert_with(|| message.clone());
        outcomes[index] = Outcome::Rejected(Reason { code, message });
    }
    PublishError {
        kind: PublishErrorKind::Rejected,
        outcomes,
        source: first.unwrap_or_default().into(),
    }
}

//! How far the JetStream stream reaches, and whether it has gone back behind what it had acknowledged: a server syncs its
//! files every two minutes unless told otherwise, and a power failure takes what came since.
//!
//! It is looked at before anything is published on a connection, and every few seconds after that; and a sequence that is
//! acknowledged a second time tells as well.

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::stream::Info;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use rtm_sink::Ground;
use serde::{Deserialize, Serialize};
use tokio::sync::{OnceCell, watch};

use crate::api::{Api, ApiError};
use crate::batch::MAX_RECORDS;
use crate::headers::PROGRESS;

/// Messages that are asked for at once.
const ASKED: usize = 32;

/// What all connections have seen of the JetStream stream.
#[derive(Debug, Default)]
pub(crate) struct Lookout {
    ground: watch::Sender<Ground>,
}

impl Lookout {
    pub(crate) fn subscribe(&self) -> watch::Receiver<Ground> {
        self.ground.subscribe()
    }

    /// What is known now.
    pub(crate) fn ground(&self) -> Ground {
        *self.ground.borrow()
    }

    /// Takes how far the JetStream stream reaches, which was asked for when the ground was `since`.
    pub(crate) fn look(&self, since: Ground, end: End) {
        self.see(since, |ground| ground.look(since, end.store, end.last));
    }

    /// Takes that it is not told how far it reaches.
    pub(crate) fn is_untold(&self) {
        self.see(Ground::default(), |ground| {
            ground.is_untold();
            false
        });
    }

    /// Takes the sequences, first and last, of messages that were newly stored by a call that began when the ground was
    /// `since`.
    pub(crate) fn acknowledge(&self, since: Ground, first: u64, last: u64) {
        self.see(since, |ground| ground.acknowledge(since, first, last));
    }

    /// Receivers are told only of what they have to act on.
    fn see(&self, since: Ground, see: impl FnOnce(&mut Ground) -> bool) {
        let mut is_back = false;
        let mut left = 0;
        self.ground.send_if_modified(|ground| {
            let before = ground.back;
            is_back = see(ground);
            left = ground.kept;
            ground.back != before
        });
        if is_back {
            tracing::error!(
                acknowledged = since.last,
                left,
                "the jetstream has lost messages that it had acknowledged: a power failure does that, and so does a copy of \
                 its files that is put back; what is held of them is published again"
            );
        }
    }
}

/// Which JetStream stream it is, and the sequence of its last message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) store: u64,
    pub(crate) last: u64,
}

impl End {
    pub(crate) fn of(info: &Info) -> End {
        let created = info.created.unix_timestamp_nanos();
        End {
            // 0 stands for none.
            store: u64::try_from(created).unwrap_or(1).max(1),
            last: info.state.last_sequence,
        }
    }
}

/// What was there of the JetStream stream when a connection began, before anything was published on it.
#[derive(Debug, Default)]
pub(crate) struct Begin {
    /// The sequence of its last message.
    last: u64,
    torn: OnceCell<Vec<Bytes>>,
}

impl Begin {
    pub(crate) fn at(last: u64) -> Begin {
        Begin {
            last,
            torn: OnceCell::new(),
        }
    }

    /// The payloads of what the end of the JetStream stream has of batches that have no end. A batch is stored as a whole,
    /// and whole on the disk when the disk is synced: the power takes the end of the one that was being written.
    pub(crate) async fn torn(&self, api: &Api, jetstream: &str) -> Result<&Vec<Bytes>, ApiError> {
        let last = self.last;
        let from = last.saturating_sub(MAX_RECORDS as u64);
        let read = || async {
            let asked = futures::stream::iter(from + 1..=last);
            let asked = asked.map(|sequence| message(api, jetstream, sequence));
            let found: Vec<Option<Stored>> = asked.buffered(ASKED).try_collect().await?;
            Ok(without_end(found.into_iter().flatten()))
        };
        self.torn.get_or_try_init(read).await
    }
}

/// A message as JetStream's interface tells it.
#[derive(Debug, Default, Deserialize)]
struct Stored {
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
}

async fn message(api: &Api, jetstream: &str, sequence: u64) -> Result<Option<Stored>, ApiError> {
    #[derive(Serialize)]
    struct Question {
        seq: u64,
    }
    #[derive(Deserialize)]
    struct Answer {
        message: Stored,
    }
    let question = Question { seq: sequence };
    let asked = format!("STREAM.MSG.GET.{jetstream}");
    match api.ask::<Answer>(&asked, &question).await {
        Ok(Answer { message }) => Ok(Some(message)),
        Err(ApiError::Refused(error)) if error.error_code() == ErrorCode::NO_MESSAGE_FOUND => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The payloads of the messages at the end that are of a batch which nothing commits.
fn without_end(messages: impl DoubleEndedIterator<Item = Stored>) -> Vec<Bytes> {
    let mut committed: Option<String> = None;
    let mut torn = Vec::new();
    for message in messages.rev() {
        let headers = STANDARD.decode(&message.hdrs).unwrap_or_default();
        let headers = String::from_utf8_lossy(&headers).into_owned();
        let value = |name: &str| {
            let mut lines = headers.lines().filter_map(|line| line.split_once(':'));
            let found = lines.find(|(known, _)| known.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.trim().to_owned())
        };
        let Some(batch) = value("Nats-Batch-Id") else {
            continue;
        };
        if value("Nats-Batch-Commit").is_some() {
            committed = Some(batch);
        } else if committed.as_ref() != Some(&batch) && value(PROGRESS).is_none() {
            torn.push(STANDARD.decode(&message.data).unwrap_or_default().into());
        }
    }
    torn
}

#[cfg(test)]
mod tests;

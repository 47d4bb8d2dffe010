//! Where acknowledgements come in: one subscription for each call in progress, lent and given back.
//!
//! The library's own way (`jetstream::Context::publish`) costs a name, a timer, a permit and a boxed future for each
//! record, and takes the first answer from anybody. Here a record's answer is told by the last token of its reply
//! subject: a number that the inbox never uses twice, so that a late answer to a dropped call meets nothing.

use std::sync::{Mutex, PoisonError};

use async_nats::{Client, Message, Subject, Subscriber};
use futures::{FutureExt, StreamExt};

use crate::headers::push_decimal;

/// The idle inboxes of one connection.
#[derive(Debug)]
pub(crate) struct Inboxes {
    idle: Mutex<Vec<Inbox>>,
    /// Stale acknowledgements thrown away at most when an inbox is lent.
    capacity: usize,
}

/// One subscription, and the numbers that it has used.
#[derive(Debug)]
struct Inbox {
    subscriber: Subscriber,
    prefix: String,
    /// What makes the prefix unique.
    unique: String,
    next: u64,
}

/// An inbox that a call uses. Goes back when it is dropped.
#[derive(Debug)]
pub(crate) struct Lent<'a> {
    inboxes: &'a Inboxes,
    inbox: Option<Inbox>,
    /// The number of the call's first record.
    first: u64,
}

impl Inboxes {
    pub(crate) fn new(capacity: usize) -> Inboxes {
        Inboxes {
            idle: Mutex::default(),
            capacity,
        }
    }

    /// Lends an inbox with numbers for so many records.
    ///
    /// # Errors
    ///
    /// The connection is over.
    pub(crate) async fn lend(
        &self,
        client: &Client,
        records: usize,
    ) -> Result<Lent<'_>, async_nats::SubscribeError> {
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let mut inbox = match idle {
            Some(inbox) => inbox,
            None => Inbox::open(client).await?,
        };
        inbox.forget(self.capacity);
        let first = inbox.next;
        // Taken now and not as they are used, so that a dropped call's numbers never come back.
        inbox.next += records as u64;
        Ok(Lent {
            inboxes: self,
            inbox: Some(inbox),
            first,
        })
    }
}

impl Inbox {
    async fn open(client: &Client) -> Result<Inbox, async_nats::SubscribeError> {
        let inbox = client.new_inbox();
        let unique = inbox.rsplit('.').next().unwrap_or_default().to_owned();
        let prefix = format!("{inbox}.");
        let subscriber = client.subscribe(format!("{prefix}*")).await?;
        Ok(Inbox {
            subscriber,
            prefix,
            unique,
            next: 0,
        })
    }

    /// Makes room: acknowledgements that came for dropped calls would fill the subscription's queue.
    fn forget(&mut self, most: usize) {
        for _ in 0..most {
            if !matches!(self.subscriber.next().now_or_never(), Some(Some(_))) {
                break;
            }
        }
    }
}

impl Lent<'_> {
    /// Where the answer to the call's record `index` should go.
    pub(crate) fn reply_to(&self, index: usize) -> Subject {
        let prefix = self.inbox.as_ref().map_or("", |inbox| &inbox.prefix);
        let number = self.first + index as u64;
        let digits = number.checked_ilog10().unwrap_or(0) as usize + 1;
        // Of the exact size, because `Bytes` would make another allocation of what has room to spare.
        let mut subject = String::with_capacity(prefix.len() + digits);
        subject.push_str(prefix);
        push_decimal(&mut subject, number);
        Subject::from(subject)
    }

    /// The name of an atomic batch that begins with the call's record `index`. No other has it.
    pub(crate) fn batch_id(&self, index: usize) -> String {
        let unique = self.inbox.as_ref().map_or("", |inbox| &inbox.unique);
        format!("{unique}-{}", self.first + index as u64)
    }

    /// New numbers for the call's records: answers to what was sent under the old ones are no concern any more.
    pub(crate) fn renew(&mut self, records: usize) {
        if let Some(inbox) = &mut self.inbox {
            self.first = inbox.next;
            inbox.next += records as u64;
        }
    }

    /// The index of the record that `message` answers, unless it answers an earlier call.
    pub(crate) fn index_of(&self, message: &Message) -> Option<usize> {
        let prefix = self.inbox.as_ref().map_or("", |inbox| &inbox.prefix);
        let number: u64 = message.subject.strip_prefix(prefix)?.parse().ok()?;
        usize::try_from(number.checked_sub(self.first)?).ok()
    }

    /// The next answer; `None` once the connection is over.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        self.inbox.as_mut()?.subscriber.next().await
    }

    /// An answer that is already here.
    pub(crate) fn try_next(&mut self) -> Option<Message> {
        self.next().now_or_never().flatten()
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if let Some(inbox) = self.inbox.take() {
            let mut idle = self
                .inboxes
                .idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            idle.push(inbox);
        }
    }
}

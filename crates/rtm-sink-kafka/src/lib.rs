//! A [`Sink`](rtm_sink::Sink) over librdkafka's idempotent producer.
//!
//! What it promises, beyond the contract of every sink:
//!
//! - **Order.** The records of one topic and key are stored in the order published, first occurrences counting: through
//!   outages, through the rebuilding of the producer, and around records that a broker refuses. Records without a key
//!   have no order. It has one condition: that `max.in.flight.requests.per.connection` stays at 1, as this crate sets it.
//!   With more, a batch that fails for a moment on a new partition may be stored after the next one.
//! - **Durability.** Confirmed means stored by every replica in sync (`acks=all`), by the broker's word: what librdkafka only
//!   concludes, from the success of a later batch, is published again.
//! - **Duplicates.** Retries inside librdkafka make none. Calls that were dropped or ended with unknown outcomes, and
//!   rebuilt producers, may: Kafka does not deduplicate by id, so consumers do, by the id in the payload.
//! - **Waiting.** A call waits for as long as the brokers are away, because librdkafka goes on trying, in order, and
//!   giving up could only lead to duplicates. [`KafkaSink::stats`] tells that it waits,
//!   and after some seconds also what for: a call that lasts asks the brokers, and what answers at their addresses.
//! - **Cancellation.** What a dropped call has handed to librdkafka may still be stored, before anything of later calls.
//!
//! Every fault ends in one of three actions:
//!
//! | action | faults |
//! |---|---|
//! | retry, inside librdkafka and in order: the call waits | brokers away, paused, restarted, short of replicas, throttling; librdkafka's queue full |
//! | retry, by a new producer: the call goes on | fatal errors, such as a broker that lost the end of its log |
//! | retry by the caller ([`Unavailable`]) | five producers in a row that fail before anything is confirmed; a broker not reached to create topics; errors that nobody has heard of |
//! | dead-letter ([`Rejected`]), with the reason `too_large`, `timestamp`, `invalid` or `policy` | a record that the client's, the broker's or the topic's limits refuse, alone in its batch |
//! | hold and alarm ([`Misconfigured`]) | topics missing or deleted (after `topic.metadata.propagation.max.ms`, 30 s unless set); rights missing, for the topic or the cluster; credentials and certificates refused, on either side |
//!
//! A topic that is deleted takes with it what it held. Created again, also while batches are in flight, it has its records
//! in order.
//!
//! A broker that is no longer trusted, or no longer trusts us, though it did before, is held for an outage for 5 s.
//! Whatever was refused is asked for again with each call, by a new producer, which reads the option files and
//! certificates again: what is put right there needs no restart.
//!
//! [`Unavailable`]: rtm_sink::PublishErrorKind::Unavailable
//! [`Rejected`]: rtm_sink::PublishErrorKind::Rejected
//! [`Misconfigured`]: rtm_sink::PublishErrorKind::Misconfigured
//!
//! Some errors are fatal to a producer: by the design of idempotence, or because a gap would break the order of a key
//! (`enable.gapless.guarantee`). What it held is then ended, a new producer is made, and the call goes on where it was.
//! A broker refuses whole batches; who in one is to blame is found by publishing ever smaller groups, in order. What a
//! topic's limit on sizes refuses is known beforehand, once the topic has refused something.

mod authorities;
mod cause;
mod check;
mod exact;
mod failure;
mod known;
mod limits;
mod listener;
mod options;
mod producer;
mod producers;
mod progress;
mod protocol;
mod publish;
mod reports;
mod settings;
mod sink;
#[cfg(test)]
mod tests;
mod token;
mod topics;
mod verdict;

pub use check::{BrokerReached, Reached, TopicReached, TopicState};
pub use exact::EXACT_LIMITS;
pub use options::{ConnectError, ExactOptions, FILE_OPTIONS, KafkaOptions, TopicSpec};
pub use sink::{KafkaSink, KafkaStats};
pub use topics::CheckError;

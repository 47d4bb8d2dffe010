//! A [`Sink`](rtm_sink::Sink) over librdkafka's idempotent producer.
//!
//! What it promises, beyond the contract of every sink:
//!
//! - **Order.** The records of one topic and key are stored in the order published, first occurrences counting: through
//!   outages, through the rebuilding of the producer, and around records that a broker refuses. Records without a key
//!   have no order.
//! - **Durability.** Confirmed means stored by every replica in sync (`acks=all`).
//! - **Duplicates.** Retries inside librdkafka make none. Calls that were dropped or ended with unknown outcomes, and
//!   rebuilt producers, may: Kafka does not deduplicate by id, so consumers do, by the id in the payload.
//! - **Waiting.** A call waits for as long as the brokers are away, because librdkafka goes on trying, in order, and
//!   giving up could only lead to duplicates. [`KafkaSink::stats`] tells that it waits.
//! - **Cancellation.** What a dropped call has handed to librdkafka may still be stored, before anything of later calls.
//!
//! Some errors are fatal to a producer: by the design of idempotence, or because a gap would break the order of a key
//! (`enable.gapless.guarantee`). What it held is then ended, a new producer is made, and the call goes on where it was.
//! A broker refuses whole batches; who in one is to blame is found by publishing ever smaller groups, in order.

mod handshake;
mod options;
mod producer;
mod publish;
mod reports;
mod sink;
#[cfg(test)]
mod tests;
mod topics;
mod verdict;

pub use options::{ConnectError, KafkaOptions, TopicSpec};
pub use sink::{KafkaSink, KafkaStats};
pub use topics::{CheckError, Reached, TopicReached};

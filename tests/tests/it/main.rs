//! One integration binary: the brokers are started once.

mod brokers;
mod kafka_sink;
mod nats_access;
mod nats_sink;
mod whole;

//! One integration binary: the brokers are started once.

mod brokers;
mod kafka_access;
mod kafka_faults;
mod kafka_sink;
mod nats_access;
mod nats_sink;
mod whole;

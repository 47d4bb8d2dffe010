//! One integration binary: the brokers are started once.

mod brokers;
mod kafka_sink;

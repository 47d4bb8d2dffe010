//! One integration binary: the brokers are started once.

mod bench;
mod brokers;
mod check;
mod imports;
mod journal_of_before;
mod kafka_access;
mod kafka_faults;
mod kafka_sink;
mod monitoring;
mod nats_access;
mod nats_batches;
mod nats_log;
mod nats_outages;
mod nats_proxy;
mod nats_sink;
mod nats_streams;
mod nats_tls;
mod operations;
mod plans;
mod planted;
mod reload;
mod replay;
mod service;
mod status_page;
mod two_regions;
mod whole;

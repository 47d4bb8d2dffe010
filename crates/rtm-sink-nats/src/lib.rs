//! rtm-sink-nats

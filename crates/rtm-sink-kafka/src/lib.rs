//! rtm-sink-kafka

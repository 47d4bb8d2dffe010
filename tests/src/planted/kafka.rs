//! Bugs planted in the sink of rtm-sink-kafka.

use super::Planted;

pub(super) const PLANTED: &[Planted] = &[];

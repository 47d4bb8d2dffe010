//! Bugs planted in the sink of rtm-sink-nats.

use super::Planted;

pub(super) const PLANTED: &[Planted] = &[];

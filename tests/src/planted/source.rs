//! Bugs planted in rtm-source.

use super::Planted;

pub(super) const PLANTED: &[Planted] = &[];

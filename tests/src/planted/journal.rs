//! Bugs planted in rtm-journal.

use super::Planted;

pub(super) const PLANTED: &[Planted] = &[];

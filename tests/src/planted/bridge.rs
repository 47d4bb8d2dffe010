//! Bugs planted in the bridge.

use super::Planted;

pub(super) const PLANTED: &[Planted] = &[];

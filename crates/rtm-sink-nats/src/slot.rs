//! What is known of each record of a call, and what that says of their order.

use std::collections::HashMap;

use bytes::Bytes;
use rtm_sink::{Reason, Record, Topic};

/// What is known of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Slot {
    Unsent,
    InFlight,
    /// Stored, as this sequence number of the JetStream stream, by this call or, a duplicate, before it.
    Confirmed {
        sequence: u64,
        duplicate: bool,
    },
    Rejected(Reason),
    /// Answered with an error, or not going to be answered.
    Failed,
}

impl Slot {
    pub(crate) fn stored(sequence: u64, duplicate: bool) -> Slot {
        Slot::Confirmed {
            sequence,
            duplicate,
        }
    }
}

/// How many records stand before one of their key that was to come first: it was not stored when they were, or its
/// fate is unknown, or this call stored it behind them.
///
/// The last shows only when records are published again: one that was refused is stored behind those that were
/// stored while their acknowledgements were lost.
pub(crate) fn out_of_order(records: &[Record], slots: &[Slot]) -> u64 {
    // What is stored for the first time, and all of it, is in the order of sending.
    let told = |slot: &Slot| match slot {
        Slot::Failed | Slot::Unsent => true,
        Slot::Confirmed { duplicate, .. } => *duplicate,
        Slot::InFlight | Slot::Rejected(_) => false,
    };
    if !slots.iter().any(told) {
        return 0;
    }
    let mut highest: HashMap<(&Topic, &Bytes), u64> = HashMap::new();
    let mut count = 0;
    for (record, slot) in records.iter().zip(slots) {
        let Some(key) = &record.key else { continue };
        let highest = highest.entry((&record.topic, key)).or_default();
        match slot {
            Slot::Confirmed {
                sequence,
                duplicate,
            } => {
                count += u64::from(sequence < highest);
                if !duplicate {
                    *highest = (*highest).max(*sequence);
                }
            }
            Slot::Failed | Slot::Unsent | Slot::InFlight => *highest = u64::MAX,
            Slot::Rejected(_) => (),
        }
    }
    count
}

//! What a sink counts.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How a sink is doing. Counts are since it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatsStats {
    /// Connected, and the last call did not fail for want of the server.
    pub up: bool,
    /// Records confirmed, duplicates included.
    pub confirmed: u64,
    /// Confirmed records that JetStream had already: published again after a lost answer.
    pub duplicates: u64,
    /// Records confirmed that stand before one of their topic and key that was to come first, as far as can be told: that
    /// one was refused or got no answer when they were confirmed, or JetStream's sequence numbers say so once it is
    /// published again in one call with them. Too high where the other was stored in its place and its answer alone was
    /// lost, or where the duplicate window had passed for it alone.
    pub out_of_order: u64,
    /// Connections made after the first.
    pub reconnects: u64,
}

/// The counters behind [`NatsStats`]. Relaxed: each is a number of its own.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) confirmed: AtomicU64,
    pub(crate) duplicates: AtomicU64,
    pub(crate) out_of_order: AtomicU64,
    connections: AtomicU64,
    failing: AtomicBool,
}

impl Counters {
    pub(crate) fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// What a call brought, once it is over.
    pub(crate) fn count(&self, confirmed: u64, duplicates: u64, out_of_order: u64, failing: bool) {
        if confirmed > 0 {
            self.confirmed.fetch_add(confirmed, Ordering::Relaxed);
            self.duplicates.fetch_add(duplicates, Ordering::Relaxed);
            self.out_of_order.fetch_add(out_of_order, Ordering::Relaxed);
        }
        self.failing.store(failing, Ordering::Relaxed);
    }

    pub(crate) fn stats(&self, connected: bool) -> NatsStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        NatsStats {
            up: connected && !self.failing.load(Ordering::Relaxed),
            confirmed: get(&self.confirmed),
            duplicates: get(&self.duplicates),
            out_of_order: get(&self.out_of_order),
            reconnects: get(&self.connections).saturating_sub(1),
        }
    }
}

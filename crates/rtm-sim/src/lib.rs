//! A stand-in for the Agora RTM event API, as faithful as what is known of it allows, with faults, a ledger and an
//! audit.
//!
//! [`Simulator`] serves both event endpoints for any number of App IDs and regions; [`InProcess`] does so without a
//! socket, for a simulation of time and network. The rings keep 2,000 events and overwrite the oldest, a call returns at
//! most 1,000 of them and deletes them, and an eleventh request of an App ID in any sliding second is refused, by the
//! simulator's own clock. What is documented nowhere is done in every way that is possible, as the seed decides.
//!
//! Everything deleted by a read is in the [`Ledger`] with what became of the response. [`audit()`] compares the ledger
//! with what is read back from a broker, event by event, by request id and place in the page, since events need not
//! be unique in themselves.
//!
//! Nothing here is shared with the crates that read the API or write the envelope: a mistake that both sides share
//! would hide itself.

mod agora;
mod audit;
mod clock;
mod config;
mod control;
mod endpoint;
mod envelope;
mod findings;
mod generate;
mod http;
mod in_process;
mod ledger;
mod odd;
mod rate;
mod ring;
mod simulator;

pub use agora::{REQUESTS_PER_SECOND, UnknownRing};
pub use audit::{Audit, MAX_EXAMPLES, audit};
pub use clock::Clock;
pub use config::{
    Faults, InvalidSetting, Load, MAX_DELAY_MS, MAX_EVENTS_PER_SECOND, MAX_NAMES, Pattern, SimApp,
    SimAuth, SimConfig, listen_address,
};
pub use envelope::{Envelope, EnvelopeError, Observed, parse_envelope};
pub use findings::{Findings, PageMissing};
pub use in_process::{Exchange, InProcess, WireEnd};
pub use ledger::{
    AppStats, Fate, Ledger, LedgerPage, ReadLedgerError, RingStats, SimStats, Stream,
};
pub use rate::RateWindow;
pub use ring::{PAGE_EVENTS, RING_EVENTS};
pub use simulator::{Simulator, StartError};

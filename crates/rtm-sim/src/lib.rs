//! A stand-in for the Agora RTM event API, with faults, a ledger and an audit.

mod rate;

pub use rate::RateWindow;

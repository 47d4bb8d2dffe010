//! From a journal entry to records: what an entry looks like, and how its events are decoded, tagged, keyed and routed.
//!
//! Everything in here is pure: no I/O, no clock but what a caller hands in, no configuration file.
//!
//! `docs/architecture.md` has the map of its modules.

pub mod entry;
pub mod format;
pub mod key;
pub mod router;
pub mod template;
pub mod token;

pub use format::dead_letter::instead;
pub use format::id_of;
pub use key::{EventKey, KeyBy};
pub use router::{Owner, Prepared, PreparedPage, Router, Routes, SLICE, UNKNOWN};
pub use template::{ALL, AppNames, STATIC, Template, Variable};
pub use token::escape_token;

/// The JSON Schema of what is published for each event.
pub const EVENT_SCHEMA: &str = include_str!("../schemas/event.json");

/// The JSON Schema of what is published instead of what cannot be an event, or is refused.
pub const DEAD_LETTER_SCHEMA: &str = include_str!("../schemas/dead-letter.json");

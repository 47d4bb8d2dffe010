//! The kinds of values that a configuration is made of. They know nothing of the rest of the program.

pub(crate) mod problem;
pub mod region;
pub mod secret;
pub(crate) mod shown;
pub(crate) mod units;

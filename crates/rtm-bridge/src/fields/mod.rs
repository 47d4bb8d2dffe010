//! The kinds of values that a configuration is made of. They know nothing of the rest of the program.

pub(crate) mod listen;
pub(crate) mod problem;
pub(crate) mod region;
pub(crate) mod secret;
pub(crate) mod shown;
pub(crate) mod units;
pub(crate) mod variable;

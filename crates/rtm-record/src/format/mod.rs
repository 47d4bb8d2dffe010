//! What records look like on the wire.
//!
//! | module | what |
//! |---|---|
//! | [`page`] | what a format is, and what all records of a page have in common |
//! | [`envelope`] | the payload of an event as JSON |
//! | [`dead_letter`] | the payload of what is no event, or is refused: JSON in every format |

pub(crate) mod dead_letter;
pub mod envelope;
pub mod page;

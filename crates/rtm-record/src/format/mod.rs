//! What the payloads of records look like.

pub(crate) mod envelope;

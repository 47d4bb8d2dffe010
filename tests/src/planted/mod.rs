//! The planted bugs: what each breaks, and which tests must fail with it.
//!
//! `cargo run -p rtm-tests --features planted --bin planted` runs each test without a bug, then with each bug, and tells
//! which test caught which.

mod bridge;
mod commands;
mod file;
mod journal;
mod kafka;
mod nats;
mod source;

/// One planted bug.
#[derive(Debug, Clone, Copy)]
pub struct Planted {
    /// As [`rtm_planted::bug`] is asked.
    pub name: &'static str,
    /// The invariant that it breaks.
    pub breaks: &'static str,
    /// The package whose tests are run.
    pub package: &'static str,
    /// Which of its tests: a filter as for `cargo test`, which must match at least one.
    pub tests: &'static str,
}

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Planted> {
    [
        journal::PLANTED,
        source::PLANTED,
        kafka::PLANTED,
        nats::PLANTED,
        bridge::PLANTED,
        commands::PLANTED,
        file::PLANTED,
    ]
    .into_iter()
    .flatten()
}

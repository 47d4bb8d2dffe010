//! Planted bugs: the checks are checked.
//!
//! A place in the code that a promise hangs on asks [`bug`] whether to break it:
//!
//! ```
//! # fn sync() {}
//! if !rtm_planted::bug("journal-no-sync") {
//!     sync();
//! }
//! ```
//!
//! In an ordinary build the answer is the constant `false`, and the compiler removes the question. With the feature `on`
//! the environment variable [`VARIABLE`] names the one bug that is there. `tests/src/planted` lists them all, each with
//! the invariant that it breaks and the tests that must fail.

#[cfg(all(feature = "on", not(debug_assertions)))]
compile_error!(
    "planted bugs are never part of a release: build without the feature `on` of rtm-planted"
);

/// The environment variable that names the planted bug.
pub const VARIABLE: &str = "RTM_PLANTED";

/// Whether the planted bug of this name is to be there.
#[cfg(feature = "on")]
#[must_use]
pub fn bug(name: &str) -> bool {
    static SELECTED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let selected = SELECTED.get_or_init(|| std::env::var(VARIABLE).ok());
    selected.as_deref() == Some(name)
}

/// Whether the planted bug of this name is to be there: never.
#[cfg(not(feature = "on"))]
#[must_use]
#[inline(always)]
pub const fn bug(_name: &str) -> bool {
    false
}

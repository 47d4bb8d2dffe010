//! The structure of a response body, found without understanding what is in it.

/// How many whole events are in `body`, odd ones included. Never fails; a cut body has those before the cut.
#[must_use]
pub fn count(_body: &[u8]) -> usize {
    unimplemented!()
}

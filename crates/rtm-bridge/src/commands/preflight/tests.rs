#![allow(clippy::unwrap_used)]

use super::*;

/// Holds: too little disk is told with where, how much there is and how much is needed; and what is free is asked of
/// the file system that the journal will be in.
#[test]
fn a_journal_without_room_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let journal = dir.path().join("not/yet");
    let found = free_bytes(&journal).unwrap();
    assert!(found > 0);
    assert!(room(&journal, found, found, 0).is_ok());
    let error = room(&journal, 8 << 20, 268 << 20, 256 << 20).unwrap_err();
    let text = error.to_string();
    let begins = format!(
        "the journal has no room in {}: 8.0 MiB are free",
        journal.display()
    );
    assert!(text.starts_with(&begins), "{text}");
    assert!(
        text.contains("268.0 MiB are needed") && text.contains("journal.min_free_bytes"),
        "{text}"
    );
}

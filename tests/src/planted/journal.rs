//! Bugs planted in rtm-journal.

use super::Planted;

/// Each names the invariant it breaks.
pub(super) const PLANTED: &[Planted] = &[
    planted(
        "journal-no-sync",
        "8, 7: durable on return",
        "every_crash_in_short_histories",
    ),
    planted(
        "journal-no-directory-sync",
        "8, 7: durable on return, the segment's name too",
        "every_crash_in_short_histories",
    ),
    planted(
        "journal-failed-sync-asked-again",
        "7: a failed sync is never asked again on the same file and believed",
        "every_failing_call_in_short_histories",
    ),
    planted(
        "journal-failure-taken-for-success",
        "7: nothing is reported durable before it is",
        "every_failing_call_in_short_histories",
    ),
    planted(
        "journal-cursor-ahead",
        "7: a cursor never passes an unconfirmed record",
        "every_crash_in_short_histories",
    ),
    planted(
        "journal-commit-not-told",
        "7: a commit is durable within the interval, also when the writer sleeps",
        "a_commit_is_due_by_the_clock_given",
    ),
    planted(
        "journal-recovery-off-by-one",
        "7: a cursor never passes an unconfirmed record, after a restart",
        "every_crash_in_short_histories",
    ),
    planted(
        "journal-reclaim-too-early",
        "7: nothing is reclaimed before every sink has confirmed it",
        "every_crash_in_short_histories",
    ),
    planted(
        "journal-torn-tail-believed",
        "8: a torn tail is cut",
        "every_crash_in_short_histories",
    ),
    planted(
        "journal-older-copy-kept",
        "8: of two copies the one that was synced counts",
        "random_crashes_in_long_histories",
    ),
    planted(
        "journal-unproven-believed",
        "7, 8: what reads back after a kill may not be on the disk",
        "every_crash_in_short_histories",
    ),
    planted(
        "journal-positions-given-again",
        "1: a position, and so a record's id, is never given again",
        "every_crash_in_short_histories",
    ),
    planted(
        "journal-tally-apart",
        "12: the counts that survive are those of the cursor",
        "every_crash_in_short_histories",
    ),
    planted(
        "journal-counted-twice",
        "12: an entry that is met twice is counted once",
        "every_crash_in_short_histories",
    ),
    planted(
        "journal-room-while-failing",
        "5: no request without a home: nothing is reserved while writing fails",
        "every_failing_call_in_short_histories",
    ),
    planted(
        "journal-room-beyond-the-bound",
        "6: the journal stays within its bound",
        "files_that_stay_are_in_the_way_until_they_go",
    ),
];

const fn planted(name: &'static str, breaks: &'static str, tests: &'static str) -> Planted {
    Planted {
        name,
        breaks,
        package: "rtm-journal",
        tests,
    }
}

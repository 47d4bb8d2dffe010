//! Bugs planted in the file sink.

use super::Planted;

pub(super) const PLANTED: &[Planted] = &[
    Planted {
        name: "file-not-followed",
        breaks: "a file that was renamed or removed gets no more lines: confirmed means confirmed",
        package: "rtm-sink",
        tests: "file::tests::",
    },
    Planted {
        name: "file-confirmed-though-removed",
        breaks: "what was written to a file that was removed meanwhile is not confirmed",
        package: "rtm-sink",
        tests: "file::tests::",
    },
];

//! Bugs planted in the commands.

use super::Planted;

pub(super) const PLANTED: &[Planted] = &[
    Planted {
        name: "commands-bench-lost-is-clean",
        breaks: "a bench that lost events at the ring is no clean one",
        package: "rtm-bridge",
        tests: "bench::report",
    },
    Planted {
        name: "commands-demo-left-behind",
        breaks: "the demo leaves nothing in the temporary directory, however it ends",
        package: "rtm-bridge",
        tests: "demo::",
    },
    Planted {
        name: "commands-replay-of-what-waits",
        breaks: "3, order: a replay never comes before the first copy",
        package: "rtm-bridge",
        tests: "replay::",
    },
    Planted {
        name: "commands-replay-under-known-ids",
        breaks: "a replay into JetStream is stored, also within its duplicate window",
        package: "rtm-tests",
        tests: "replay::",
    },
    Planted {
        name: "commands-replay-before-the-bridge",
        breaks: "3, order: what a bridge will publish is not replayed before it",
        package: "rtm-bridge",
        tests: "set_aside::",
    },
];

//! Bugs planted in the bridge's data path.

use super::Planted;

/// The whole bridge in simulated time.
const SIMULATION: &str = "simulation::tests::seeds_keep_every_promise";

pub(super) const PLANTED: &[Planted] = &[
    Planted {
        name: "bridge-cursor-before-confirmation",
        breaks: "7, durability order: a cursor passes records that nobody has confirmed",
        package: "rtm-tests",
        tests: SIMULATION,
    },
    Planted {
        name: "bridge-get-cancelled-at-shutdown",
        breaks: "1, ledger: a request in flight is ended by its deadline only, shutdown included",
        package: "rtm-tests",
        tests: SIMULATION,
    },
    Planted {
        name: "bridge-partial-page-forgotten",
        breaks: "2, accounted loss: the whole events of a cut body are delivered",
        package: "rtm-tests",
        tests: SIMULATION,
    },
    Planted {
        name: "bridge-losses-only-in-memory",
        breaks: "2, accounted loss: the count survives a crash",
        package: "rtm-tests",
        tests: SIMULATION,
    },
    Planted {
        name: "bridge-crash-not-counted",
        breaks: "2, accounted loss: what a crash may have cost is counted at the next start",
        package: "rtm-tests",
        tests: SIMULATION,
    },
    Planted {
        name: "bridge-unknown-is-confirmed",
        breaks: "1, ledger: an error is counted and forgotten",
        package: "rtm-tests",
        tests: SIMULATION,
    },
    Planted {
        name: "bridge-rejected-is-forgotten",
        breaks: "1, ledger: what a broker refuses goes to the dead letters",
        package: "rtm-tests",
        tests: SIMULATION,
    },
    Planted {
        name: "bridge-retries-out-of-order",
        breaks: "3, order: what is published again stays in order",
        package: "rtm-tests",
        tests: SIMULATION,
    },
    Planted {
        name: "bridge-pages-as-they-come",
        breaks: "3, order: pages that were in flight at once are put back into order",
        package: "rtm-bridge",
        tests: "order::tests::",
    },
    Planted {
        name: "bridge-more-in-flight-not-marked",
        breaks: "2, accounted loss: each request that was in flight at a crash counts",
        package: "rtm-bridge",
        tests: "losses::tests::",
    },
    Planted {
        name: "bridge-dead-letters-not-counted",
        breaks: "12, honest metrics: the account balances",
        package: "rtm-tests",
        tests: SIMULATION,
    },
    Planted {
        name: "bridge-dropped-copies-not-counted",
        breaks: "12, honest metrics: the account balances",
        package: "rtm-tests",
        tests: SIMULATION,
    },
    Planted {
        name: "bridge-last-record-lost",
        breaks: "1, ledger: every record of a page is published",
        package: "rtm-tests",
        tests: SIMULATION,
    },
    Planted {
        name: "bridge-poison-not-found",
        breaks: "9, liveness: a record that crashes the process on every start is found",
        package: "rtm-tests",
        tests: SIMULATION,
    },
    Planted {
        name: "bridge-suspect-not-armed-again",
        breaks: "9, liveness: an entry that crashes the process on every start is found, also after an outage",
        package: "rtm-bridge",
        tests: "careful::tests::",
    },
    Planted {
        name: "bridge-copies-forgotten-at-restart",
        breaks: "1, ledger: a copy is dropped after a restart as well",
        package: "rtm-tests",
        tests: SIMULATION,
    },
    Planted {
        name: "bridge-repeats-dropped",
        breaks: "1, ledger: two equal events of one region are two events",
        package: "rtm-tests",
        tests: SIMULATION,
    },
    Planted {
        name: "bridge-both-copies-dropped",
        breaks: "1, ledger: an event is never dropped in both copies",
        package: "rtm-tests",
        tests: SIMULATION,
    },
    Planted {
        name: "bridge-series-come-late",
        breaks: "12, honest metrics: every series is there, at zero, from the start",
        package: "rtm-tests",
        tests: "monitoring::metrics::every_series_is_there_from_the_start",
    },
    Planted {
        name: "bridge-refused-credentials-not-counted",
        breaks: "12, honest metrics: refused credentials are counted",
        package: "rtm-tests",
        tests: "monitoring::metrics::alerts_are_told_what_they_ask_for",
    },
    Planted {
        name: "bridge-bench-missing-is-clean",
        breaks: "1, ledger: the bench ends with 1 when something is missing",
        package: "rtm-bridge",
        tests: "commands::bench::report::tests::clean_is_every_sink",
    },
    Planted {
        name: "bridge-bench-topics-left",
        breaks: "6, bounded: the bench removes what it made",
        package: "rtm-tests",
        tests: "bench::measures_and_leaves_nothing_behind",
    },
    Planted {
        name: "bridge-page-always-calm",
        breaks: "12, honest words: the status page says that nothing is lost only where that is so",
        package: "rtm-bridge",
        tests: "state::words::tests::",
    },
    Planted {
        name: "bridge-page-tells-late",
        breaks: "12, honest words: within five seconds the status page says which sink is down",
        package: "rtm-tests",
        tests: "status_page::",
    },
    Planted {
        name: "bridge-page-shows-passwords",
        breaks: "11, secrets: the status page shows none",
        package: "rtm-bridge",
        tests: "admin::settings::tests::",
    },
    Planted {
        name: "bridge-page-logs-as-they-come",
        breaks: "11, nothing from outside is taken for something else: control characters are escaped",
        package: "rtm-bridge",
        tests: "admin::recent::tests::",
    },
    Planted {
        name: "bridge-page-old-minutes-again",
        breaks: "12, honest figures: the chart forgets what is older than it",
        package: "rtm-bridge",
        tests: "state::history::tests::",
    },
    Planted {
        name: "bridge-page-hides-paused",
        breaks: "12, honest words: the rings of a paused App ID are shown, as paused",
        package: "rtm-tests",
        tests: "status_page::says_what_is_paused",
    },
    Planted {
        name: "bridge-top-sinks-cut",
        breaks: "12, honest words: on a small terminal every section is seen",
        package: "rtm-bridge",
        tests: "top::view::tests::",
    },
    Planted {
        name: "bridge-not-ready-without-why",
        breaks: "12, honest words: readiness says what the last failure was",
        package: "rtm-tests",
        tests: "operations::refused_credentials_are_said_where_one_looks",
    },
    Planted {
        name: "bridge-refusals-logged-twice",
        breaks: "12, honest words: a refused request is one line of the log",
        package: "rtm-tests",
        tests: "operations::refused_credentials_are_said_where_one_looks",
    },
    Planted {
        name: "bridge-removed-rings-come-back",
        breaks: "12, honest metrics: of a removed region there is what it may have lost, and nothing else",
        package: "rtm-bridge",
        tests: "losses::tests::",
    },
    Planted {
        name: "bridge-reload-keeps-copy-policy",
        breaks: "11, reload: what becomes of copies is as the configuration says",
        package: "rtm-tests",
        tests: "operations::a_reload_changes_what_becomes_of_copies",
    },
    Planted {
        name: "bridge-pause-not-marked",
        breaks: "2, accounted loss: a crash while nothing is polled counts nothing",
        package: "rtm-tests",
        tests: "operations::a_kill_during_a_pause_loses_nothing",
    },
    Planted {
        name: "bridge-second-signal-waits",
        breaks: "10, shutdown: a second SIGTERM ends the process at once",
        package: "rtm-tests",
        tests: "service::a_second_signal_ends_at_once",
    },
    Planted {
        name: "bridge-no-watchdog",
        breaks: "9, liveness: the service manager hears that the process lives",
        package: "rtm-tests",
        tests: "service::the_service_manager_is_told",
    },
    Planted {
        name: "bridge-batches-without-bound",
        breaks: "memory: a backlog of many App IDs takes no more than that of a few",
        package: "rtm-bridge",
        tests: "outlet::tests::batches_share_their_room",
    },
    Planted {
        name: "bridge-reload-forgets-the-limit",
        breaks: "3, rate: the limit holds through a reload",
        package: "rtm-tests",
        tests: "reload::a_reload_under_load_loses_nothing",
    },
    Planted {
        name: "bridge-reload-takes-half-a-file",
        breaks: "11, reload: a file that is refused changes nothing",
        package: "rtm-tests",
        tests: "reload::a_reload_under_load_loses_nothing",
    },
    Planted {
        name: "bridge-reload-drops-what-is-in-flight",
        breaks: "1, ledger: a request in flight during a reload is stored",
        package: "rtm-tests",
        tests: "reload::a_reload_under_load_loses_nothing",
    },
];

//! Bugs planted in the sink of rtm-sink-nats.

use super::Planted;

const fn at_a_server(name: &'static str, breaks: &'static str, tests: &'static str) -> Planted {
    Planted {
        name,
        breaks,
        package: "rtm-tests",
        tests,
    }
}

const fn alone(name: &'static str, breaks: &'static str, tests: &'static str) -> Planted {
    Planted {
        name,
        breaks,
        package: "rtm-sink-nats",
        tests,
    }
}

pub(super) const PLANTED: &[Planted] = &[
    at_a_server(
        "nats-ack-not-awaited",
        "7, durability order: what was only sent counts as confirmed",
        "nats_outages::lost_answers",
    ),
    at_a_server(
        "nats-refusal-confirms",
        "1, ledger: what a full JetStream stream refused counts as confirmed",
        "nats_sink::a_full_jetstream_is_waited_for",
    ),
    at_a_server(
        "nats-any-answer-confirms",
        "1, ledger: an answer from whoever listens counts as stored",
        "nats_sink::answers_of_others_confirm_nothing",
    ),
    at_a_server(
        "nats-late-ack-confirms-the-next-call",
        "7, durability order: acknowledgements of a dropped call confirm another's records",
        "nats_outages::late_acknowledgements_confirm_nothing",
    ),
    at_a_server(
        "nats-duplicate-is-an-error",
        "9, liveness: after a lost acknowledgement the same records are published for ever",
        "nats_sink::duplicates_count_as_confirmed",
    ),
    at_a_server(
        "nats-no-message-id",
        "1, ledger: what is published again is stored again",
        "nats_outages::lost_answers",
    ),
    at_a_server(
        "nats-stored-in-any-jetstream",
        "1, ledger: records go to whichever JetStream stream is bound to the subject",
        "nats_sink::another_jetstream_takes_nothing",
    ),
    at_a_server(
        "nats-queue-outlives-its-connection",
        "3, order: what was queued for one connection is sent on the next, past records that were lost",
        "nats_outages::nothing_queued_outlives_its_connection",
    ),
    at_a_server(
        "nats-failure-stops-nothing",
        "3, order: everything behind a refused record overtakes it",
        "nats_sink::a_failure_stops_the_sending",
    ),
    at_a_server(
        "nats-out-of-order-not-counted",
        "12, honest metrics: records stand before their predecessors, and nobody is told",
        "nats_streams::partial_failures_are_counted_exactly",
    ),
    at_a_server(
        "nats-batch-commit-not-awaited",
        "7, durability order: a batch that was only sent counts as confirmed",
        "nats_batches::a_lost_acknowledgement",
    ),
    at_a_server(
        "nats-batch-without-answer-confirms",
        "7, durability order: a batch counts as confirmed once nobody waits for its acknowledgement any more",
        "nats_batches::a_lost_acknowledgement",
    ),
    at_a_server(
        "nats-batch-refusal-confirms",
        "1, ledger: a batch that was refused counts as confirmed",
        "nats_batches::a_culprit_is_rejected_alone",
    ),
    at_a_server(
        "nats-batch-duplicate-confirms",
        "1, ledger: one known record in a batch, and the others count as stored",
        "nats_batches::known_records_in_a_batch",
    ),
    at_a_server(
        "nats-batch-refusal-rejects-all",
        "1, ledger: one record that is refused takes its batch to the dead letters",
        "nats_batches::a_culprit_is_rejected_alone",
    ),
    at_a_server(
        "nats-batch-stored-in-part-confirms",
        "1, ledger: a server without batches stores the last record, and all count as stored",
        "nats_batches::only_its_own_acknowledgement_confirms_a_batch",
    ),
    at_a_server(
        "nats-batch-crosses-entries",
        "3, order: after a restart batches are cut elsewhere than before",
        "nats_batches::a_page_is_a_batch",
    ),
    at_a_server(
        "nats-singles-overtake",
        "3, order: what is published singly after a refused batch overtakes records of its key",
        "nats_batches::a_refused_record_is_not_overtaken",
    ),
    at_a_server(
        "nats-window-counts-as-silence",
        "1, ledger: who waits for the window gives up, and publishes all again, for ever",
        "nats_outages::many_calls_wait_for_a_slow_server",
    ),
    alone(
        "nats-token-not-escaped",
        "1, ledger: an id adds tokens and wildcards to a subject",
        "subject::tests::any_text_becomes_one_harmless_token",
    ),
    alone(
        "nats-secret-in-debug",
        "11, secrets: `Debug` shows them",
        "options::tests::credentials_are_read_and_hidden",
    ),
];

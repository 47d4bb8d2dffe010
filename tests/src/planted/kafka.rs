//! Bugs planted in the sink of rtm-sink-kafka.

use super::Planted;

/// The sink's own package, whose tests have librdkafka's mock cluster.
const SINK: &str = "rtm-sink-kafka";

/// The package of these tests, which have a real broker.
const BROKER: &str = "rtm-tests";

pub(super) const PLANTED: &[Planted] = &[
    Planted {
        name: "kafka-error-counted-and-forgotten",
        breaks: "durability order: a record whose delivery failed counts as confirmed",
        package: SINK,
        tests: "tests::a_dropped_call_confirms_nothing_of_the_next",
    },
    Planted {
        name: "kafka-concluded-not-confirmed",
        breaks: "durability order: a batch counts as confirmed because a later one was",
        package: SINK,
        tests: "a_later_batch_confirms_no_earlier_one",
    },
    Planted {
        name: "kafka-generation-ignored",
        breaks: "durability order: the late reports of a dropped call confirm the next one's records",
        package: SINK,
        tests: "late_reports_confirm_nothing_else",
    },
    Planted {
        name: "kafka-purged-counts-as-confirmed",
        breaks: "durability order: what a failed producer still held counts as confirmed",
        package: SINK,
        tests: "closing_ends_calls_in_progress",
    },
    Planted {
        name: "kafka-order-lost-after-failure",
        breaks: "order: what a failed batch leaves is published again in another order",
        package: BROKER,
        tests: "the_neighbours_of_a_refused_record_keep_their_order",
    },
    Planted {
        name: "kafka-several-in-flight",
        breaks: "order: a batch fails on a new partition, and the one behind it is stored before it",
        package: SINK,
        tests: "a_failed_batch_goes_before_later_ones",
    },
    Planted {
        name: "kafka-full-queue-drops",
        breaks: "ledger: a record that does not fit into librdkafka's queue is dropped",
        package: SINK,
        tests: "a_full_queue_is_waited_for",
    },
    Planted {
        name: "kafka-fatal-not-rebuilt",
        breaks: "liveness: a producer that has failed for good is used for ever",
        package: SINK,
        tests: "a_fatal_error_rebuilds_the_producer",
    },
    Planted {
        name: "kafka-missing-topic-rejected",
        breaks: "ledger: the records of a missing topic become dead letters, instead of waiting for it",
        package: BROKER,
        tests: "a_missing_topic_is_told_and_not_created",
    },
    Planted {
        name: "kafka-batch-condemned",
        breaks: "ledger: a batch that a broker refuses makes dead letters of all its records",
        package: SINK,
        tests: "a_refused_batch_condemns_no_record",
    },
    Planted {
        name: "kafka-records-time-out",
        breaks: "order: librdkafka gives up records that may be stored, and later ones go before them",
        package: BROKER,
        tests: "a_full_queue_waits_for_a_paused_broker",
    },
    Planted {
        name: "kafka-secret-told",
        breaks: "secrets: what librdkafka says is told as it is",
        package: SINK,
        tests: "secrets_stay_out_of_what_librdkafka_says",
    },
    Planted {
        name: "kafka-remarks-on-our-own-options",
        breaks: "honest words: librdkafka's remarks on options that only we set are warnings at every start",
        package: SINK,
        tests: "remarks_on_our_own_options_are_known",
    },
    Planted {
        name: "kafka-empty-key-is-none",
        breaks: "order: events of an empty id go to any partition",
        package: BROKER,
        tests: "kafka_sink::conforms",
    },
];

//! Bugs planted in rtm-source.

use super::Planted;

pub(super) const PLANTED: &[Planted] = &[
    Planted {
        name: "source-eleven-in-a-second",
        breaks: "4 Rate: a slot comes back 900 ms after its answer",
        package: "rtm-source",
        tests: "limiter::tests::a_used_slot_rests",
    },
    Planted {
        name: "source-slot-anchored-at-the-send",
        breaks: "4 Rate: a slot comes back a second after the request was sent, whenever it was answered",
        package: "rtm-source",
        tests: "limiter::tests::a_used_slot_rests",
    },
    Planted {
        name: "source-no-grace-after-a-timeout",
        breaks: "4 Rate: a request that may still be travelling holds its slot no longer than an answered one",
        package: "rtm-source",
        tests: "a_request_that_nobody_answered_holds_its_slot",
    },
    Planted {
        name: "source-429-ignored",
        breaks: "4 Rate: the App ID goes on as if nobody had refused",
        package: "rtm-source",
        tests: "schedule::tests::a_429_holds_every_ring",
    },
    Planted {
        name: "source-retry-after-ignored",
        breaks: "4 Rate: the far end is asked again before the time that it named",
        package: "rtm-source",
        tests: "retry_after_in_both_forms",
    },
    Planted {
        name: "source-cut-body-thrown-away",
        breaks: "2 Accounted loss: the whole events of a cut body are not delivered",
        package: "rtm-source",
        tests: "a_body_cut_at_any_byte_keeps_its_whole_events",
    },
    Planted {
        name: "source-last-event-of-a-page-lost",
        breaks: "1 Ledger: an event that was stored is never published",
        package: "rtm-source",
        tests: "decode::tests::splits_a_page_into_its_elements",
    },
    Planted {
        name: "source-doubt-counted-as-refused",
        breaks: "2 Accounted loss: what a 5xx may have deleted is not counted",
        package: "rtm-source",
        tests: "losses::possible_loss_is_never_below",
    },
    Planted {
        name: "source-full-page-not-polled-again",
        breaks: "9 Liveness: a backlog drains no faster than an idle ring is polled",
        package: "rtm-source",
        tests: "schedule::tests::a_full",
    },
    Planted {
        name: "source-retried-after-a-reset",
        breaks: "2 Accounted loss: a second request deletes what the loss of the first was counted for",
        package: "rtm-source",
        tests: "a_request_is_sent_once",
    },
    Planted {
        name: "source-siblings-not-sought",
        breaks: "2 Accounted loss: the copies of a lost page are left to be overwritten",
        package: "rtm-source",
        tests: "schedule::tests::the_siblings",
    },
    Planted {
        name: "source-secret-quoted",
        breaks: "11 Secrets: what a far end quotes of a credential gets into errors and logs",
        package: "rtm-source",
        tests: "refusals_delete_nothing_and_say_why",
    },
    Planted {
        name: "source-many-in-flight-without-need",
        breaks: "2 Accounted loss: more requests are in flight, and in doubt after a crash, than were counted with",
        package: "rtm-source",
        tests: "schedule::tests::several_in_flight",
    },
    Planted {
        name: "source-pages-as-they-end",
        breaks: "12 Honest metrics: pages that overlap are taken in the order of their ends, which makes gaps of none",
        package: "rtm-source",
        tests: "schedule::tests::pages_that_end_out_of_order",
    },
    Planted {
        name: "source-full-page-taken-as-all",
        breaks: "9 Liveness: a full page counts as all that came, so that a storm looks like half of itself",
        package: "rtm-source",
        tests: "rate::tests::a_full_page_is_a_lower_bound",
    },
];

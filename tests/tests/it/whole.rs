//! The whole bridge: the real binary, the simulator in a process of its own, real brokers.

use std::time::Duration;

use rtm_tests::trial;

/// Both streams reach both brokers whole, odd events the dead letters, and no second has more than ten requests.
#[tokio::test(flavor = "multi_thread")]
async fn every_event_reaches_both_brokers_and_odd_ones_the_dead_letters() {
    let report = Box::pin(trial::steady(500.0, Duration::from_secs(4), true, 0.05))
        .await
        .unwrap();
    assert!(
        report.broken().is_empty(),
        "{:?}\n{report}",
        report.broken()
    );
    assert!(report.kafka.handed_out > 1_000, "{report}");
    assert!(report.kafka.dead_lettered > 0, "{report}");
    assert_eq!(report.stats.apps[0].refused_429, 0, "{report}");
}

/// A paused Kafka stops neither polling nor NATS, and has everything in order once it goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_paused_kafka_delays_nobody_and_loses_nothing() {
    let report = Box::pin(trial::kafka_paused(500.0, Duration::from_secs(5)))
        .await
        .unwrap();
    assert!(
        report.broken().is_empty(),
        "{:?}\n{report}",
        report.broken()
    );
}

/// Killed twice under load: at most the pages that were under way are missing, and they are counted.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_bridge_loses_at_most_what_it_counts() {
    let report = Box::pin(trial::killed(500.0, 2)).await.unwrap();
    assert!(
        report.broken().is_empty(),
        "{:?}\n{report}",
        report.broken()
    );
    assert!(
        report.possibly_lost >= 2_000.0,
        "two kills, two rings: {report}"
    );
}

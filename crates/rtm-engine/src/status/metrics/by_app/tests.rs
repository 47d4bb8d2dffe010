//! What is summed, and what is not.

use super::super::Metrics;

/// Holds: with less detail the series of an App ID's rings are one, with their sum, or the oldest time; other series and the
/// App IDs stay apart.
#[test]
fn the_rings_of_an_app_are_one() {
    let metrics = Metrics::new("1", "c");
    for (app, region, polls) in [("a", "r", 2), ("a", "s", 3), ("b", "r", 4)] {
        let ring = metrics.ring(app, region, "user");
        for _ in 0..polls {
            ring.polled("refused");
            ring.poll_duration.observe(0.005);
        }
        ring.arrival_rate.set(f64::from(polls));
    }
    metrics.ring("a", "s", "user").polled("page");
    metrics.add_pair("a", "kafka");
    let whole = metrics.render();
    metrics.set_by_app(true);
    let text = metrics.render();
    for line in [
        "rtm_bridge_polls_total{app=\"a\",outcome=\"refused\"} 5",
        "rtm_bridge_polls_total{app=\"b\",outcome=\"refused\"} 4",
        "rtm_bridge_poll_duration_seconds_bucket{app=\"a\",le=\"0.004\"} 0",
        "rtm_bridge_poll_duration_seconds_bucket{app=\"a\",le=\"0.008\"} 5",
        "rtm_bridge_poll_duration_seconds_count{app=\"a\"} 5",
        "rtm_bridge_arrival_rate_events_per_second{app=\"a\"} 5",
        "rtm_bridge_last_successful_poll_timestamp_seconds{app=\"a\"} 0",
        "rtm_bridge_records_confirmed_total{app=\"a\",sink=\"kafka\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert!(!text.contains("region=") && whole.contains("region="));
    metrics.set_by_app(false);
    assert_eq!(metrics.render().lines().count(), whole.lines().count());
}

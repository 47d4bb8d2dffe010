use std::collections::BTreeSet;

use super::*;

/// Our series, without their values.
fn series(metrics: &Metrics) -> BTreeSet<String> {
    let text = metrics.render();
    let ours = text.lines().filter(|line| line.starts_with("rtm_bridge_"));
    let names = ours.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned()));
    names.collect()
}

fn add(metrics: &Metrics, app: &str) {
    metrics.add_app(app, 10, false);
    let _ = metrics.ring(app, "eu-west-1", "user");
    for sink in ["kafka", "out"] {
        metrics.add_pair(app, sink);
    }
}

/// Holds: what comes has all of its series at once, and what goes leaves none behind and takes no other's.
#[test]
fn what_goes_leaves_no_series_behind() {
    let metrics = Metrics::new("1", "c");
    add(&metrics, "stays");
    metrics.set_sink("out", true, &rtm_sink::Health::default());
    let before = series(&metrics);

    add(&metrics, "goes");
    let with_both = series(&metrics);
    let of_app = |line: &&String| line.contains("app=\"goes\"");
    let came = with_both.iter().filter(of_app).count();
    assert!(came > 100 && with_both.len() == before.len() + came);
    // Whatever can happen to an app has its series by now.
    metrics.ring("goes", "eu-west-1", "user").polled("page");
    metrics.sink("goes", "kafka").confirmed_now();
    metrics.rate_limit_waited("goes", Duration::from_secs(1));
    metrics.polling_stopped("goes", true, Duration::from_secs(1));
    metrics.crashed("goes", "eu-west-1", "user", 1);
    assert_eq!(series(&metrics), with_both);

    metrics.remove_pair("goes", "out");
    let of_pair = |line: &&String| of_app(line) && line.contains("sink=\"out\"");
    let went = with_both.iter().filter(of_pair).count();
    assert_eq!(series(&metrics).len(), with_both.len() - went);
    metrics.remove_app("goes");
    let of_other = |line: &&String| of_app(line) && line.contains("sink=\"kafka\"");
    assert_eq!(
        series(&metrics).len(),
        before.len() + with_both.iter().filter(of_other).count()
    );
    metrics.remove_pair("goes", "kafka");
    assert_eq!(series(&metrics), before);

    let kafka = rtm_sink::Health {
        queue: Some(rtm_sink::Queue::default()),
        ..rtm_sink::Health::default()
    };
    metrics.set_sink("kafka", true, &kafka);
    let text = metrics.render();
    assert!(text.contains("rtm_bridge_producer_queue_records{sink=\"kafka\"} 0\n"));
    assert!(!text.contains("rtm_bridge_records_out_of_order_total"));
    metrics.remove_sink("kafka");
    assert_eq!(series(&metrics), before);
}

/// Holds: of a ring that is polled no more there is only what may have been lost of it and what has been counted.
#[test]
fn a_forgotten_ring_is_not_polled() {
    let metrics = Metrics::new("1", "c");
    let ring = metrics.ring("main", "eu-west-1", "user");
    let _ = metrics.ring("main", "eu-west-1", "channel");
    let before = series(&metrics);
    ring.in_doubt("cut", 7);
    metrics.forget_ring("main", "eu-west-1", "user");
    let after = series(&metrics);
    let went: Vec<&String> = before.difference(&after).collect();
    let says_polled = |line: &&&String| {
        ["polls_total", "last_successful_poll", "arrival_rate"]
            .iter()
            .any(|name| line.starts_with(&format!("rtm_bridge_{name}")))
    };
    assert_eq!(went.len(), POLL_OUTCOMES.len() + 2, "{went:?}");
    assert_eq!(went.iter().filter(says_polled).count(), went.len());
    assert!(went.iter().all(|line| line.contains("stream=\"user\"")));
    let lost = "rtm_bridge_events_possibly_lost_total{app=\"main\",reason=\"cut\",region=\"eu-west-1\",stream=\"user\"} 7\n";
    assert!(metrics.render().contains(lost));
}

//! What clients say that they take.
#![allow(clippy::unwrap_used)]

use std::io::Read;

use rtm_engine::status::metrics::Metrics;

use super::*;

#[test]
fn gzip_is_taken_where_it_is_named_and_not_refused() {
    for (said, taken) in [
        ("gzip", true),
        ("deflate, GZIP;q=0.5", true),
        ("gzip;q=1.0, identity", true),
        ("gzip;q=0", false),
        ("gzip; q=0.0", false),
        ("br", false),
        ("", false),
    ] {
        let value = said.parse().unwrap();
        let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, value)]);
        assert_eq!(takes_gzip(&headers), taken, "{said}");
    }
    assert!(!takes_gzip(&HeaderMap::new()));
}

#[test]
fn what_is_compressed_is_the_document() {
    let plain = Bytes::from("rtm_bridge_polls_total 1\n".repeat(1000));
    let zipped = compress(&plain).unwrap();
    assert!(zipped.len() < plain.len() / 10);
    let mut back = Vec::new();
    flate2::read::GzDecoder::new(&*zipped)
        .read_to_end(&mut back)
        .unwrap();
    assert_eq!(back, plain);
}

/// Holds: what Prometheus is told of 200 App IDs with four rings and two sinks each is at most 600 kB on the wire, and much
/// less where the rings of an App ID are one.
#[test]
fn the_metrics_of_200_apps_are_small_on_the_wire() {
    let metrics = Metrics::new("1", "c");
    let mut random = fastrand::Rng::with_seed(1);
    for app in 0..200 {
        let app = format!("customer-{app:03}");
        metrics.add_app(&app, 10, false);
        for (region, stream) in [
            ("eu-west-1", "user"),
            ("eu-west-1", "channel"),
            ("us-east-1", "user"),
            ("us-east-1", "channel"),
        ] {
            let ring = metrics.ring(&app, region, stream);
            for _ in 0..random.u32(100..300) {
                ring.polled(["page", "empty", "refused"][random.usize(0..3)]);
                ring.poll_duration.observe(0.02 + random.f64() / 10.0);
            }
            ring.events_fetched.inc_by(random.u64(0..10_000_000));
            ring.arrival_rate.set(random.f64() * 100.0);
        }
        for sink in ["kafka", "nats"] {
            metrics.add_pair(&app, sink);
            let pair = metrics.sink(&app, sink);
            for _ in 0..random.u32(100..300) {
                pair.publish_duration.observe(random.f64() / 50.0);
                pair.batch.observe(f64::from(random.u32(1..500)));
                pair.event_age.observe(random.f64() / 2.0);
            }
            pair.confirmed_now();
        }
    }
    for (by_app, most) in [(false, 600_000), (true, 400_000)] {
        metrics.set_by_app(by_app);
        let text = metrics.render();
        let series = text.lines().filter(|line| !line.starts_with('#')).count();
        let zipped = compress(&Bytes::from(text.clone())).unwrap().len();
        println!(
            "by app: {by_app}: {series} series, {} bytes, {zipped} on the wire",
            text.len()
        );
        assert!(zipped <= most, "{zipped} bytes of {}", text.len());
    }
}

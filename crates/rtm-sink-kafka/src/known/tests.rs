#![allow(clippy::unwrap_used)]

use super::*;

/// Holds: what librdkafka said is forgotten once a record is confirmed, or no broker is in trouble any more.
#[test]
fn what_is_cured_is_said_no_more() {
    let health = Health::default();
    let say = || health.flag(|known| known.last_error = Some("refused".to_owned()));
    say();
    health.confirmed();
    assert_eq!(health.lock().last_error, None);
    say();
    let down = serde_json::json!({ "brokers": {
        "a": { "state": "UP", "nodeid": 1 }, "b": { "state": "DOWN", "nodeid": 2 },
    } });
    assert!(health.lock().take_in(&down));
    assert!(health.lock().last_error.is_some());
    let well = serde_json::json!({ "brokers": {
        "a": { "state": "UP", "nodeid": 1 }, "b": { "state": "INIT", "nodeid": 2 },
    } });
    assert!(health.lock().take_in(&well));
    assert_eq!(health.lock().last_error, None);
}

/// Holds: a quota, and requests that are sent again and again, are told from the statistics, for as long as they last.
#[test]
fn statistics_tell_why_brokers_are_slow() {
    let statistics = |retries, throttle| {
        serde_json::json!({ "brokers": { "kafka:9092/1": {
            "state": "UP", "nodeid": 1, "nodename": "kafka:9092",
            "txretries": retries, "throttle": { "max": throttle },
        } } })
    };
    let mut known = Known::default();
    known.take_in(&statistics(7, 1500));
    let throttled = known.throttled().unwrap();
    assert!(throttled.contains("kafka:9092 throttles this client, for up to 1.5s"));
    assert!(known.refused().is_some());
    known.take_in(&statistics(7, 0));
    assert_eq!((known.throttled(), known.refused()), (None, None));
}

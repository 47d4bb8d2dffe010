use super::*;

/// Holds: what cannot be is refused before anything starts, and what can is taken.
#[test]
fn arguments_are_checked() {
    assert!(rate("0").is_err() && rate("NaN").is_err() && rate("many").is_err());
    assert_eq!(rate("2000"), Ok(2_000.0));
    for bad in ["broker", "broker:", ":9092", "broker:port", "broker:70000"] {
        assert!(host_and_port(bad).is_err(), "{bad}");
    }
    assert!(host_and_port("[::1]:9092").is_ok());
    for bad in ["127.0.0.1:4222", "http://127.0.0.1", "nats://", ""] {
        assert!(nats_url(bad).is_err(), "{bad}");
    }
    assert!(nats_url("nats://127.0.0.1:4222").is_ok() && nats_url("tls://nats:4222").is_ok());
    assert!(duration("5").is_err() && duration("10ms").is_err() && duration("2m").is_ok());
}

//! Which names are ours, and which tokens are read.
#![allow(clippy::unwrap_used)]

use super::*;

/// Holds: addresses, names that nobody outside can have, and those that are configured are ours; all others may be rebound.
#[test]
fn names_that_anybody_may_have_are_refused() {
    let config = AdminConfig {
        listen: "bridge.example.com:9464".parse().unwrap(),
        hosts: vec!["Prom.example.org".to_owned(), ".corp.example".to_owned()],
        ..AdminConfig::default()
    };
    let guard = Guard::new(&config, Current::default());
    for ours in [
        "127.0.0.1:9464",
        "10.1.2.3",
        "[::1]:9464",
        "[2001:db8::1]",
        "localhost:9464",
        "LOCALHOST",
        "bridge:9464",
        "bridge.",
        "a.localhost:1",
        "rtm-bridge.monitoring.svc:9464",
        "rtm-bridge.monitoring.svc.cluster.local:9464",
        "host.docker.internal:9464",
        "bridge.example.com:9464",
        "prom.example.org",
        "a.corp.example:80",
        "corp.example",
        "",
    ] {
        assert!(guard.is_ours(ours), "{ours}");
    }
    for foreign in [
        "evil.example",
        "evil.example:9464",
        "127.0.0.1.evil.example:9464",
        "localhost.evil.example",
        "evilcorp.example",
        "bridge.example.com.evil.example",
        "rtm-bridge.dev:9464",
        "evil.example.",
        "127.0.0.1:9464.evil.example",
        "svc.evil.example",
    ] {
        assert!(!guard.is_ours(foreign), "{foreign}");
    }
}

/// Holds: a token comes as a bearer's or as a password, and as nothing else.
#[test]
fn a_token_comes_in_two_ways() {
    let of = |value: &str| {
        let value = value.parse().unwrap();
        given(&HeaderMap::from_iter([(header::AUTHORIZATION, value)]))
    };
    let password = STANDARD.encode("anyone:t:k");
    for (value, token) in [
        ("Bearer t:k".to_owned(), Some("t:k")),
        ("bearer  t:k ".to_owned(), Some("t:k")),
        (format!("Basic {password}"), Some("t:k")),
        ("Basic !".to_owned(), None),
        (format!("Basic {}", STANDARD.encode("no colon")), None),
        ("Digest t:k".to_owned(), None),
        ("t:k".to_owned(), None),
    ] {
        assert_eq!(
            of(&value),
            token.map(|token| token.as_bytes().to_vec()),
            "{value}"
        );
    }
    assert_eq!(given(&HeaderMap::new()), None);
}

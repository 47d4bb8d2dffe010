use super::*;

fn options(server: &str) -> NatsOptions {
    NatsOptions::new(vec![server.to_owned()], "RTM")
}

/// Holds: a mistake is told at once, without a server, and no password is told with it.
#[tokio::test]
async fn mistakes_are_found_without_a_server() {
    let cases: [(&str, NatsOptions); 11] = [
        ("no server", NatsOptions::new(Vec::new(), "RTM")),
        ("not a server URL", options("http://h:1")),
        ("not a server URL", options("ws://h:1")),
        ("holds credentials", options("nats://u:hunter2@h:1")),
        ("not a server URL", options("nats://u:hunter2@h:x")),
        (
            "not a name",
            NatsOptions::new(vec!["nats://h".into()], "a.b"),
        ),
        (
            "1 to 8000",
            NatsOptions {
                in_flight: 0,
                ..options("h")
            },
        ),
        (
            "above zero",
            NatsOptions {
                ack_timeout: Duration::ZERO,
                ..options("h")
            },
        ),
        (
            "without wildcards",
            NatsOptions {
                inbox_prefix: "a.*".into(),
                ..options("h")
            },
        ),
        (
            "both its chain and its key",
            NatsOptions {
                tls: NatsTls {
                    key_file: Some("/k".into()),
                    ..NatsTls::default()
                },
                ..options("h")
            },
        ),
        (
            "cannot read /nowhere/ca",
            NatsOptions {
                tls: NatsTls {
                    ca_file: Some("/nowhere/ca".into()),
                    ..NatsTls::default()
                },
                ..options("h")
            },
        ),
    ];
    for (expected, options) in cases {
        let error = options.validate().await.unwrap_err();
        assert!(
            error.to_string().contains(expected),
            "{error} should say: {expected}"
        );
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
    assert_eq!(
        options("h").validate().await.unwrap()[0].as_url_str(),
        "nats://h"
    );
}

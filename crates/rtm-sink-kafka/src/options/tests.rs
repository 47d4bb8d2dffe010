#![allow(clippy::unwrap_used)]

use std::error::Error;

use super::*;

fn with(name: &str, value: &str) -> KafkaOptions {
    let mut options = KafkaOptions::new(vec!["localhost:9092".into()]);
    options.options.insert(name.into(), value.into());
    options
}

/// Holds: over TLS the system's authorities are looked for, unless others are named, and without it nothing is.
#[test]
fn the_systems_authorities_are_the_default() {
    for (options, wanted) in [
        (&[][..], false),
        (&[("security.protocol", "PLAINTEXT")], false),
        (&[("security.protocol", "sasl_plaintext")], false),
        (&[("security.protocol", "ssl")], true),
        (&[("security.protocol", "SASL_SSL")], true),
        (
            &[("security.protocol", "SSL"), ("ssl.ca.location", "/ca.pem")],
            false,
        ),
        (&[("security.protocol", "SSL"), ("ssl.ca.pem", "…")], false),
    ] {
        let options = options
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let options: BTreeMap<String, String> = options.collect();
        assert_eq!(wants_authorities(&options), wanted, "{options:?}");
    }
    let config = client_config(&with("security.protocol", "SSL")).unwrap();
    let probes = config.get("ssl.ca.location") == Some("probe");
    let named = ["SSL_CERT_FILE", "SSL_CERT_DIR"].map(std::env::var_os);
    assert_eq!(probes, named == [None, None]);
}

#[test]
fn the_defaults_are_accepted_and_may_be_changed() {
    let config = client_config(&KafkaOptions::new(vec!["a:1".into(), "b:2".into()])).unwrap();
    assert_eq!(config.get("bootstrap.servers"), Some("a:1,b:2"));
    assert_eq!(config.get("compression.codec"), Some("lz4"));
    assert_eq!(config.get("message.timeout.ms"), Some("0"));
    let config = client_config(&with("compression.type", "zstd")).unwrap();
    assert_eq!(config.get("compression.codec"), Some("zstd"));
    assert_eq!(config.get("compression.type"), None);
}

/// Holds: nothing that order or durability depends on can be turned off, under either name.
#[test]
fn promises_cannot_be_turned_off() {
    let refused = [
        ("enable.idempotence", "false"),
        ("acks", "1"),
        ("request.required.acks", "0"),
        ("message.timeout.ms", "300000"),
        ("delivery.timeout.ms", "1000"),
        ("enable.gapless.guarantee", "false"),
        ("delivery.report.only.error", "true"),
        ("queuing.strategy", "lifo"),
        ("partitioner", "random"),
        ("transactional.id", "x"),
        ("bootstrap.servers", "x:1"),
        ("metadata.broker.list", "x:1"),
    ];
    for (name, value) in refused {
        let error = client_config(&with(name, value)).unwrap_err();
        assert!(
            matches!(error, ConnectError::Refused { .. }),
            "{name}: {error}"
        );
    }
    for (name, value) in [
        ("acks", "-1"),
        ("enable.idempotence", "true"),
        ("partitioner", "fnv1a"),
    ] {
        client_config(&with(name, value)).unwrap();
    }
}

/// Holds: what goes wrong with an option is told by its name, and never shows a value.
#[test]
fn errors_name_the_option_and_hide_the_value() {
    let cases = [
        (
            "no.such.option",
            "hunter2",
            "librdkafka has no option `no.such.option`",
        ),
        (
            "sasl.password",
            "hunter2\0",
            "librdkafka does not accept the value of the option `sasl.password`",
        ),
        (
            "security.protocol",
            "hunter2",
            "librdkafka does not accept the value of the option `security.protocol`",
        ),
    ];
    for (name, value, expected) in cases {
        let options = with(name, value);
        let error = client_config(&options).unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert!(error.source().is_none());
        let debug = format!("{options:?} {error:?}");
        assert!(!debug.contains("hunter2"), "{debug}");
    }
}

/// Holds: a remark of librdkafka on an option that only we set is known for one, and none on what the operator wrote,
/// under either name, on what nobody wrote, or on anything else; the option that needs no setting is not set.
#[test]
fn remarks_on_our_own_options_are_known() {
    let gapless =
        "[thrd:app]: Configuration property enable.gapless.guarantee is experimental: When set";
    let cases = [
        (("linger.ms", "5"), REMARK, gapless, true),
        (("linger.ms", "5"), "FAIL", gapless, false),
        (("enable.gapless.guarantee", "true"), REMARK, gapless, false),
        (
            ("queue.buffering.max.ms", "5"),
            REMARK,
            "[thrd:app]: Configuration property linger.ms is deprecated",
            false,
        ),
        (
            ("sasl.mechanism", "PLAIN"),
            REMARK,
            "[thrd:app]: Configuration property `sasl.mechanism` set to `PLAIN` but",
            false,
        ),
        (
            ("retry.backoff.ms", "9000"),
            REMARK,
            "[thrd:app]: Configuration `retry.backoff.ms` with value 9000 is greater",
            false,
        ),
    ];
    for ((name, value), facility, line, ours) in cases {
        let written = Written::of(&with(name, value));
        assert_eq!(written.is_only_ours(facility, line), ours, "{name}: {line}");
    }
    let config = client_config(&with("linger.ms", "5")).unwrap();
    assert_eq!(config.get("queuing.strategy"), None);
    let config = client_config(&with("queuing.strategy", "fifo")).unwrap();
    assert_eq!(config.get("queuing.strategy"), Some("fifo"));
}

#[test]
fn secrets_are_cut_out_of_text() {
    let mut options = with("sasl.password", "hunter2");
    options
        .options
        .insert("ssl.key.pem".into(), "-----BEGIN\nabc".into());
    options
        .options
        .insert("sasl.username".into(), "user".into());
    let secrets = Secrets::of(&options);
    assert_eq!(
        secrets.clean("user hunter2\r\nhunter2 -----BEGIN\nabc"),
        "user ***  *** ***"
    );
    assert_eq!(format!("{secrets:?}"), "Secrets");
}

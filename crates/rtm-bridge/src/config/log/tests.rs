use super::*;

/// Holds: a word that is no level is refused, and not taken for a target of which everything is logged.
#[test]
fn a_level_that_is_none_is_refused() {
    for wrong in [
        "inof",
        "",
        "rtm_bridge",
        "info,rtm_source",
        "info,rtm_source=debgu",
        "info,",
        "rtm_source=",
        "[poll]",
        "a=b=info",
    ] {
        let message = directives(wrong).expect_err(wrong);
        assert!(
            message.contains("expected error, warn, info, debug or trace"),
            "{wrong}: {message}"
        );
    }
    let message = directives("info,rtm_source=debgu").expect_err("a typing error");
    assert!(
        message.starts_with("`rtm_source=debgu` of `info,rtm_source=debgu` is"),
        "{message}"
    );
}

#[test]
fn levels_and_directives_are_taken() {
    for (right, shown) in [
        ("info", "info"),
        ("WARN", "warn"),
        ("off", "off"),
        ("info, rtm_source=debug", "rtm_source=debug,info"),
        ("warn,rtm_bridge[poll]=trace", "warn,rtm_bridge[poll]=trace"),
    ] {
        assert_eq!(directives(right).expect(right).to_string(), shown);
    }
}

/// Holds: at `debug` NATS does not tell every acknowledgement, unless someone asks; at other levels nothing is added.
#[test]
fn acknowledgements_are_for_trace() {
    for (text, shown) in [
        ("debug", "async_nats::connector=debug,async_nats=info,debug"),
        ("trace", "trace"),
        ("info", "info"),
        ("debug,async_nats=debug", "async_nats=debug,debug"),
        ("warn,rtm_source=debug", "rtm_source=debug,warn"),
    ] {
        assert_eq!(directives(text).expect(text).to_string(), shown);
    }
}

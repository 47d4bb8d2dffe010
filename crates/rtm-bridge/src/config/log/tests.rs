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
        ("info", "async_nats=off,info"),
        ("WARN", "async_nats=off,warn"),
        ("off", "async_nats=off,off"),
        (
            "info, rtm_source=debug",
            "rtm_source=debug,async_nats=off,info",
        ),
    ] {
        assert_eq!(directives(right).expect(right).to_string(), shown);
    }
    let of_a_span = "warn,rtm_bridge[poll]=trace";
    let taken = directives(of_a_span).expect(of_a_span).to_string();
    assert!(taken.contains("rtm_bridge[poll]=trace"), "{taken}");
}

/// Holds: the lines of NATS's library are told to those who name it, and at `debug` and `trace`; at `debug` without a line for
/// each acknowledgement.
#[test]
fn the_library_of_nats_is_silent_unless_someone_asks() {
    for (text, shown) in [
        ("debug", "async_nats::connector=debug,async_nats=info,debug"),
        ("trace", "trace"),
        ("info,async_nats=warn", "async_nats=warn,info"),
        ("debug,async_nats=debug", "async_nats=debug,debug"),
        ("rtm_source=debug", "rtm_source=debug,async_nats=off"),
    ] {
        assert_eq!(directives(text).expect(text).to_string(), shown);
    }
}

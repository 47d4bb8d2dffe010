#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn verdict(status: u16, body: &str, ending: &Ending) -> Option<(FetchErrorKind, &'static str)> {
    let verdict = Verdict::of(status, &outline(body.as_bytes()), ending);
    if let Some(verdict) = verdict {
        assert!(
            FetchError::REASONS.contains(&verdict.reason),
            "{}",
            verdict.reason
        );
    }
    verdict.map(|verdict| (verdict.kind, verdict.reason))
}

#[test]
fn what_each_status_means() {
    use FetchErrorKind::{InDoubt, Refused};
    let page = r#"{"result":"success","events":[{}]}"#;
    for (status, expected) in [
        (200, None),
        (201, None),
        (203, None),
        (206, None),
        (301, Some((Refused, "redirect"))),
        (302, Some((Refused, "redirect"))),
        (307, Some((Refused, "redirect"))),
        (400, Some((Refused, "refused"))),
        (401, Some((Refused, "unauthorized"))),
        (403, Some((Refused, "unauthorized"))),
        (404, Some((Refused, "refused"))),
        (408, Some((InDoubt, "status"))),
        (413, Some((Refused, "refused"))),
        (415, Some((Refused, "refused"))),
        (418, Some((InDoubt, "status"))),
        (429, Some((Refused, "rate_limited"))),
        (500, Some((InDoubt, "status"))),
        (502, Some((InDoubt, "status"))),
        (503, Some((InDoubt, "status"))),
        (504, Some((InDoubt, "status"))),
    ] {
        assert_eq!(verdict(status, page, &Ending::Closed), expected, "{status}");
    }
}

#[test]
fn what_each_body_means() {
    use FetchErrorKind::InDoubt;
    for (body, expected) in [
        (r#"{"result":"success","request_id":"1","events":[]}"#, None),
        (r#"{"result":"success","events":null}"#, None),
        (r#"{"result":"success"}"#, None),
        (r#"{"events":[]}"#, None),
        (
            r#"{"result":"failed","events":[{}]}"#,
            Some((InDoubt, "failed")),
        ),
        (
            r#"{"result":null,"message":"x"}"#,
            Some((InDoubt, "unexpected")),
        ),
        (r#"{"message":"x"}"#, Some((InDoubt, "unexpected"))),
        ("{}", Some((InDoubt, "unexpected"))),
        ("[]", Some((InDoubt, "unexpected"))),
        ("<html>", Some((InDoubt, "unexpected"))),
        (
            r#"{"result":"success","events":{}}"#,
            Some((InDoubt, "unexpected")),
        ),
        ("", Some((InDoubt, "cut"))),
        (
            r#"{"result":"success","events":[{}"#,
            Some((InDoubt, "cut")),
        ),
    ] {
        assert_eq!(verdict(200, body, &Ending::Closed), expected, "{body}");
    }
    let (whole, cut) = (r#"{"events":[{}]}"#, r#"{"events":[{}"#);
    for (ending, reason) in [
        (Ending::Broken("reset".into()), "cut"),
        (Ending::TimedOut, "timeout"),
        (Ending::TooLarge, "too_large"),
    ] {
        assert_eq!(
            verdict(200, whole, &ending),
            None,
            "whole, and then {reason}"
        );
        assert_eq!(verdict(200, cut, &ending), Some((InDoubt, reason)));
    }
}

#[test]
fn retry_after_in_both_forms() {
    // The dates of RFC 9110, section 5.6.7, all three the same.
    let now = Timestamp::from_second(784_111_777 - 90).unwrap();
    for (text, seconds) in [
        ("0", Some(0)),
        ("120", Some(120)),
        ("999999999999999999999999999999", Some(3_600)),
        ("18446744073709551615", Some(3_600)),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("Sun, 06 Nov 1994 08:49:37 GMT", Some(90)),
        ("Sunday, 06-Nov-94 08:49:37 GMT", Some(90)),
        ("Sun Nov  6 08:49:37 1994", Some(90)),
        ("Sun, 06 Nov 1993 08:49:37 GMT", None),
        ("Sat, 06 Nov 1993 08:49:37 GMT", Some(0)),
        ("Fri, 31 Dec 9999 23:59:59 GMT", Some(3_600)),
    ] {
        let expected = seconds.map(Duration::from_secs);
        // The parser may or may not check the weekday; both are fine.
        if !text.contains("1993") || expected.is_some() {
            assert_eq!(retry_after(text, now), expected, "{text}");
        }
    }
}

proptest! {
    /// Holds: whatever it says, `Retry-After` never panics and never asks for more than an hour, and a number of
    /// seconds and a date that far away ask for the same.
    #[test]
    fn retry_after_is_bounded(
        text in prop_oneof![
            any::<String>(),
            "[-+]?[0-9]{0,40}(\\.[0-9]{1,3})?",
            "(Mon|Tue|Wed|Thu|Fri|Sat|Sun), [0-9]{1,2} (Jan|Feb|Dec|Foo) [0-9]{1,5} [0-9]{2}:[0-9]{2}:[0-9]{2} (GMT|UTC)",
        ],
        now in -377_705_023_201i64..253_402_207_200,
        seconds in 0..7_200u64,
    ) {
        let at = Timestamp::from_second(now).unwrap();
        prop_assert!(retry_after(&text, at).is_none_or(|after| after <= MAX_RETRY_AFTER));
        let asked = Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER));
        prop_assert_eq!(retry_after(&seconds.to_string(), at), asked);
        // Dates of HTTP end with the year 9999.
        if let Ok(since) = u64::try_from(now)
            && since + seconds < 253_402_300_800
        {
            let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(since + seconds));
            prop_assert_eq!(retry_after(&date, at), asked);
        }
    }
}

#[test]
fn what_errors_say() {
    for (body, expected) in [
        (r#"{"message":"invalid token"}"#, "invalid token"),
        (r#"{"reason":"no"}"#, "no"),
        (r#"{"error":{"a":1},"errorCode":7}"#, "7"),
        (r#"{"other":1}"#, r#"{"other":1}"#),
        (
            "<html>\r\n\u{1b}[31mno\u{202e}</html>",
            "<html>   [31mno </html>",
        ),
    ] {
        assert_eq!(printable(&message(body.as_bytes()), MAX_MESSAGE), expected);
    }
    assert_eq!(
        printable(&"é".repeat(1_000), MAX_MESSAGE).chars().count(),
        MAX_MESSAGE
    );
}

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;
use crate::count;

/// The only event of a page, or why it is not one.
fn only(event: &str) -> Result<Event<'static>, &'static str> {
    let body: &'static str = format!(r#"{{"events":[{event}]}}"#).leak();
    let mut decoded = decode(body.as_bytes());
    assert!(decoded.complete);
    assert_eq!(decoded.events.len(), 1);
    decoded.events.remove(0).map_err(|reject| reject.reason)
}

#[test]
fn the_documented_pages() {
    let body = br#"{"result":"success","request_id":"10116762670167749259","events":[
        {"user_id":"rtmtest_RTM_4852_4857w7%","type":"Login","ms":1578027420761},
        {"group_id":"example_channel_id","user_id":"rtmtest_RTM_4852_4857w7%","type":"Join","ms":1578027418981}]}"#;
    let decoded = decode(body);
    assert!(decoded.complete);
    assert_eq!(decoded.request_id.as_deref(), Some("10116762670167749259"));
    assert_eq!(decoded.result.as_deref(), Some("success"));
    let [Ok(login), Ok(join)] = decoded.events.as_slice() else {
        panic!("{decoded:?}");
    };
    assert_eq!(
        (
            login.user_id.as_ref(),
            login.kind.as_ref(),
            login.channel_id.as_deref(),
            login.ms
        ),
        (
            "rtmtest_RTM_4852_4857w7%",
            "Login",
            None,
            Some(1_578_027_420_761)
        )
    );
    assert_eq!(
        (join.kind.as_ref(), join.channel_id.as_deref(), join.ms),
        ("Join", Some("example_channel_id"), Some(1_578_027_418_981))
    );
    assert_eq!(
        login.raw,
        r#"{"user_id":"rtmtest_RTM_4852_4857w7%","type":"Login","ms":1578027420761}"#
    );
    for event in [login, join] {
        let at = event.offset as usize;
        assert_eq!(&body[at..at + event.raw.len()], event.raw.as_bytes());
    }
}

#[test]
fn ids_and_times_in_every_form_seen() {
    let event = only(
        r#"{"channel_id":"c","user_id":42,"type":"Join","ts":1578027418981,"new":{"a":[1e400]}}"#,
    )
    .unwrap();
    assert_eq!(
        (event.user_id.as_ref(), event.channel_id.as_deref()),
        ("42", Some("c"))
    );
    assert_eq!(event.ms, Some(1_578_027_418_981));
    assert!(event.raw.ends_with(r#""new":{"a":[1e400]}}"#));

    // Where both stand the current name wins, in either order; a null is as good as missing.
    for fields in [
        r#""group_id":"new","channel_id":"old","ms":2,"ts":1"#,
        r#""channel_id":"old","group_id":"new","ts":1,"ms":2"#,
        r#""group_id":null,"channel_id":"new","ms":null,"ts":2"#,
    ] {
        let event = only(&format!(r#"{{"user_id":"u",{fields}}}"#)).unwrap();
        assert_eq!(
            (event.channel_id.as_deref(), event.ms),
            (Some("new"), Some(2)),
            "{fields}"
        );
    }
    // The last of duplicates, as JSON parsers elsewhere have it.
    let event = only(r#"{"user_id":"a","user_id":"b","type":"Join","\u0074ype":"Leave"}"#).unwrap();
    assert_eq!(
        (event.user_id.as_ref(), event.kind.as_ref()),
        ("b", "Leave")
    );
    // A number keeps the form it came in, beyond what a float holds.
    for number in ["0", "-1", "12345678901234567890123", "1e400", "1.50"] {
        assert_eq!(
            only(&format!(r#"{{"user_id":{number}}}"#)).unwrap().user_id,
            number
        );
    }
    // Escapes are undone in the id and kept in the raw text.
    let event = only(r#"{"user_id":"a\r\n\u0000\u202e.*> \ud83d\ude00"}"#).unwrap();
    assert_eq!(event.user_id, "a\r\n\0\u{202e}.*> 😀");
    assert_eq!(
        event.raw,
        r#"{"user_id":"a\r\n\u0000\u202e.*> \ud83d\ude00"}"#
    );
}

#[test]
fn an_odd_time_or_type_passes() {
    for (ms, expected) in [
        ("0", Some(0)),
        ("1578027418981", Some(1_578_027_418_981)),
        (r#""1578027418981""#, Some(1_578_027_418_981)),
        ("253402300799999", Some(MAX_MS)),
        ("253402300800000", None),
        ("-1", None),
        ("1e3", None),
        ("1.5", None),
        ("1e400", None),
        ("99999999999999999999999999", None),
        ("true", None),
        ("[]", None),
        (r#""soon""#, None),
    ] {
        let event = only(&format!(r#"{{"user_id":"u","ms":{ms}}}"#)).unwrap();
        assert_eq!(event.ms, expected, "{ms}");
    }
    for (kind, expected) in [
        (r#""Kicked""#, "Kicked"),
        ("null", ""),
        ("{}", ""),
        ("7", "7"),
    ] {
        let event = only(&format!(r#"{{"user_id":"u","type":{kind}}}"#)).unwrap();
        assert_eq!(event.kind, expected);
    }
    assert_eq!(only(r#"{"user_id":"u"}"#).unwrap().kind, "");
    assert_eq!(only(r#"{"user_id":""}"#).unwrap().user_id, "");
}

#[test]
fn one_odd_event_is_a_reject_and_nothing_else_suffers() {
    for (odd, reason) in [
        (&b"1"[..], "not_an_object"),
        (b"null", "not_an_object"),
        (b"\"x\"", "not_an_object"),
        (b"[{}]", "not_an_object"),
        (b"rubbish", "not_an_object"),
        (b"{\"user_id\":\"\xff\"}", "invalid_utf8"),
        (b"{\"user_id\":\"u\",\"new\":\"\xe2\x82\"}", "invalid_utf8"),
        (b"{\"user_id\":\"u\",}", "invalid_json"),
        (b"{\"user_id\":\"u\" \"type\":\"Join\"}", "invalid_json"),
        (b"{\"user_id\":\"a\nb\"}", "invalid_json"),
        (b"{\"user_id\":\"u\",\"new\":\"\\x\"}", "invalid_json"),
        (b"{\"user_id\":\"u\",\"new\":[}]}", "invalid_json"),
        (b"{\"user_id\":\"u\",\"new\":0123}", "invalid_json"),
        (b"{\"user_id\":\"u\",\"new\":NaN}", "invalid_json"),
        (b"{}", "no_user_id"),
        (b"{\"user_id\":null}", "no_user_id"),
        (b"{\"User_id\":\"u\"}", "no_user_id"),
        (b"{\"user_id\":true}", "odd_user_id"),
        (b"{\"user_id\":{\"a\":1}}", "odd_user_id"),
        (b"{\"user_id\":\"\\ud800\"}", "odd_user_id"),
        (b"{\"user_id\":\"u\",\"group_id\":[1]}", "odd_channel_id"),
    ] {
        let good = br#"{"user_id":"u","ms":1}"#;
        let mut body = br#"{"events":["#.to_vec();
        body.extend_from_slice(good);
        body.push(b',');
        let at = body.len();
        body.extend_from_slice(odd);
        body.push(b',');
        body.extend_from_slice(good);
        body.extend_from_slice(br#"],"request_id":7}"#);
        let decoded = decode(&body);
        let shown = String::from_utf8_lossy(odd);
        // A closing bracket too many is the page's; what follows it is unread.
        if odd.ends_with(b"[}]}") {
            assert_eq!(
                decoded.events[1].as_ref().unwrap_err().reason,
                reason,
                "{shown}"
            );
            continue;
        }
        assert!(decoded.complete, "{shown}");
        assert_eq!(decoded.request_id.as_deref(), Some("7"), "{shown}");
        let [Ok(_), Err(reject), Ok(_)] = decoded.events.as_slice() else {
            panic!("{shown}: {decoded:?}");
        };
        assert_eq!(
            (reject.raw, reject.offset as usize, reject.reason),
            (odd, at, reason)
        );
        assert!(Reject::REASONS.contains(&reject.reason));
        assert!(!reject.message.is_empty());
    }
}

#[test]
fn empty_rings_in_every_form() {
    for events in [r#","events":[]"#, r#","events":null"#, ""] {
        let body = format!(r#"{{"result":"success","request_id":"1"{events}}}"#);
        let decoded = decode(body.as_bytes());
        assert!(decoded.complete && decoded.events.is_empty(), "{body}");
    }
    for (body, unread) in [
        ("", 0),
        ("[]", 0),
        (" {\n", 0),
        ("null", 1),
        ("<html>", 1),
        ("\u{1f600}", 1),
    ] {
        let decoded = decode(body.as_bytes());
        assert!(
            !decoded.complete && decoded.events.len() == unread,
            "{body}"
        );
    }
}

/// Holds: whatever of a body may hold events is in an event or in the one reject of what could not be read, and a body
/// that can hold none has neither.
#[test]
fn nothing_is_dropped_on_a_parsers_word() {
    let event = r#"{"user_id":"u","type":"Login","ms":1}"#;
    let long = "x".repeat(2_000);
    // What is unread, if anything is: all of the body, or from where.
    let all = Some("");
    for (body, events, unread) in [
        // Empty, for certain.
        (r#"{"result":"success"}"#.to_owned(), 0, None),
        (
            r#"{"result":"success","request_id":"1","code":0,"data":{},"list":[ ]}"#.to_owned(),
            0,
            None,
        ),
        (r#"{"events":[]}"#.to_owned(), 0, None),
        (
            r#"{"events":null,"result":"success","page":{"next":null,"of":[]}}"#.to_owned(),
            0,
            None,
        ),
        (
            format!(r#"{{"result":"success"}}{}"#, " ".repeat(5_000)),
            0,
            None,
        ),
        (
            format!(
                "{}{}",
                " ".repeat(5_000),
                r#"{"result":"success","events":[]}"#
            ),
            0,
            None,
        ),
        ("{}".to_owned(), 0, None),
        // Events under another name, or deeper.
        (
            format!(r#"{{"result":"success","request_id":"1","event_list":[{event}]}}"#),
            0,
            all,
        ),
        (
            format!(r#"{{"result":"success","data":{{"events":[{event}]}}}}"#),
            0,
            all,
        ),
        (
            format!(r#"{{"result":"success","Events":[{event}]}}"#),
            0,
            all,
        ),
        (
            format!(r#"{{"result":"success","events":{{"0":{event}}}}}"#),
            0,
            all,
        ),
        (
            format!(r#"{{"result":"success","events":[],"data":{{"events":[{event}]}}}}"#),
            0,
            all,
        ),
        (
            format!(r#"{{"result":"success","events":null,"more":[{event}]}}"#),
            0,
            all,
        ),
        (r#"{"result":"success","data":{"0":1}}"#.to_owned(), 0, all),
        (format!(r#"{{"result":"success","data":"{long}"}}"#), 0, all),
        (format!(r#"{{"events":[],"data":"{long}"}}"#), 0, all),
        (event.to_owned(), 0, all),
        // Not a page at all.
        (format!("[{event}]"), 0, all),
        (
            format!("<br />\n<b>Warning</b>: x\n{{\"events\":[{event}]}}"),
            0,
            all,
        ),
        (format!("{event}\n{event}\n"), 0, all),
        // A page, and more.
        (format!(r#"{{"events":[{event}]}}"#), 1, None),
        (
            format!(r#"{{"events":[{event}],"page":{{"of":[1]}}}}"#),
            1,
            None,
        ),
        (format!("{{\"events\":[{event}]}} \r\n\0\0"), 1, None),
        (
            format!("{{\"events\":[{event}]}}\n{{\"events\":[{event}]}}"),
            1,
            Some("{\"events\":[{\"user"),
        ),
        (
            format!("{{\"result\":\"success\"}}\n{event}"),
            0,
            Some(r#"{"user_id""#),
        ),
        // The rest of what was cut, or is damaged.
        (
            format!(r#"{{"events":[{event},{{"user_id":"v""#),
            1,
            Some(r#"{"user_id":"v""#),
        ),
        (format!(r#"{{"events":[{event}]"#), 1, None),
        (format!(r#"{{"events":[{event} {event}]}}"#), 1, Some(event)),
        (format!(r#"{{"events":[{event},]}}"#), 1, None),
    ] {
        let mut split = decode(body.as_bytes()).events;
        assert_eq!(split.len(), count(body.as_bytes()), "{body}");
        let rest = split.pop_if(|last| matches!(last, Err(reject) if reject.reason == UNREADABLE));
        assert_eq!(split.len(), events, "{body}");
        assert!(split.iter().all(Result::is_ok));
        match (unread, rest) {
            (None, None) => {}
            (Some(""), Some(Err(reject))) => {
                assert_eq!((reject.raw, reject.offset), (body.as_bytes(), 0), "{body}");
            }
            (Some(begin), Some(Err(reject))) => {
                assert!(body.as_bytes().ends_with(reject.raw), "{body}");
                assert!(
                    reject.raw.starts_with(begin.as_bytes()),
                    "{body}: {reject:?}"
                );
            }
            (_, rest) => panic!("{body}: {rest:?}"),
        }
    }
}

/// Holds: of a range come the items of the whole at these indexes, the reject of what was not read included.
#[test]
fn a_range_is_part_of_the_whole() {
    let body = br#"{"events":[1,{"user_id":"u"},2,3] 4"#;
    let whole = decode(body).events;
    assert_eq!(whole.len(), 5);
    for from in 0..7 {
        for to in from..7 {
            let mut part = Vec::new();
            decode_each(body, from..to, |item| part.push(item));
            assert_eq!(part, whole[from.min(5)..to.min(5)], "{from}..{to}");
        }
    }
}

/// Depth must not be stack: a megabyte of brackets, on a thread with a small stack.
#[test]
fn depth_costs_no_stack() {
    let decoded = || {
        let deep = |open: &str, close: &str| {
            let levels = 500_000;
            let nested = open.repeat(levels) + "1" + &close.repeat(levels);
            let body = format!(
                r#"{{"top":{nested},"events":[{nested},{{"user_id":"u","new":{nested}}},{{"user_id":{nested}}}]}}"#
            );
            let decoded = decode(body.as_bytes());
            assert!(decoded.complete);
            assert!(decoded.events[0].is_err());
            for deep in &decoded.events[1..] {
                assert_eq!(deep.as_ref().unwrap_err().reason, "too_deep");
            }
            assert_eq!(ms(nested.as_bytes()), None);
            // Never closed.
            assert!(!decode(format!(r#"{{"events":[{}"#, open.repeat(levels)).as_bytes()).complete);
        };
        deep("[", "]");
        deep("{\"a\":", "}");
    };
    let small = std::thread::Builder::new().stack_size(128 * 1024);
    small.spawn(decoded).unwrap().join().unwrap();
}

/// Holds: what parsers and brokers elsewhere could not take is a reject with its bytes, and what they can is not.
#[test]
fn depth_and_ids_have_limits() {
    let nested = |levels: usize| {
        let (open, close) = ("[".repeat(levels - 1), "]".repeat(levels - 1));
        only(&format!(r#"{{"user_id":"u","new":{open}{close}}}"#))
    };
    let deepest = nested(MAX_DEPTH).unwrap();
    let enveloped = format!(r#"{{"event":{}}}"#, deepest.raw);
    serde_json::from_str::<serde_json::Value>(&enveloped).unwrap();
    assert_eq!(nested(MAX_DEPTH + 1).unwrap_err(), "too_deep");
    // Brackets in strings are no depth.
    let text = "[{".repeat(MAX_DEPTH);
    assert!(only(&format!(r#"{{"user_id":"u","new":"{text}"}}"#)).is_ok());
    for field in ["user_id", "group_id", "channel_id"] {
        for (length, accepted) in [(MAX_ID, true), (MAX_ID + 1, false)] {
            let id = "i".repeat(length);
            let event = match field {
                "user_id" => format!(r#"{{"user_id":"{id}"}}"#),
                _ => format!(r#"{{"user_id":"u","{field}":"{id}"}}"#),
            };
            assert_eq!(only(&event).err(), (!accepted).then_some("id_too_long"));
        }
    }
}

/// Holds: a 64 MiB body is split in one pass, whatever it is full of, and no more is counted than comes out.
#[test]
fn a_huge_body_is_no_trouble() {
    const MIB: usize = 1 << 20;
    // The smaller ones would say the same at 64 MiB, later.
    for (with, length, events) in [
        (" ".repeat(MIB), 64 * MIB, 1),
        ("[".repeat(MIB), 4 * MIB, 1),
        (r#"\""#.repeat(MIB), 4 * MIB, 2),
        (" ".repeat(MIB) + "7,", 4 * MIB, 5),
    ] {
        let mut body = br#"{"events":[{"user_id":"u"},"#.to_vec();
        while body.len() < length {
            body.extend_from_slice(with.as_bytes());
        }
        let decoded = decode(&body);
        assert!(!decoded.complete);
        assert_eq!(decoded.events.len(), events);
        if length < 64 * MIB {
            assert_eq!(count(&body), events);
        }
    }
}

#[test]
fn more_events_than_documented_are_all_kept() {
    let body = format!(
        r#"{{"events":[{}{{"user_id":1}}]}}"#,
        r#"{"user_id":1},"#.repeat(1_000)
    );
    assert_eq!(decode(body.as_bytes()).events.len(), 1_001);
    assert_eq!(count(body.as_bytes()), 1_001);
}

/// JSON text of any value, with white space where it may be.
fn value() -> impl Strategy<Value = String> {
    let string = prop_oneof![
        "[a-z\\[\\]{},:.*> é€😀]{0,8}".prop_map(|text| format!("\"{text}\"")),
        Just(r#""\"\\\/\b\f\n\r\t\u0000\u202e""#.to_owned()),
    ];
    let scalar = prop_oneof![
        4 => string,
        2 => any::<i64>().prop_map(|number| number.to_string()),
        1 => prop::sample::select(vec!["true", "false", "null", "1e400", "-0.0", "1578027418981"]).prop_map(str::to_owned),
    ];
    scalar.prop_recursive(3, 12, 4, |inner| {
        let key = prop::sample::select(vec![
            "user_id",
            "group_id",
            "channel_id",
            "type",
            "ms",
            "ts",
            "events",
            "new",
            "\\u0061",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4)
                .prop_map(|items| format!("[ {} ]", items.join(","))),
            prop::collection::vec((key, inner), 0..6).prop_map(|members| {
                let members: Vec<String> = members
                    .iter()
                    .map(|(key, value)| format!("\"{key}\" : {value}"))
                    .collect();
                format!("{{{}}}", members.join(" ,"))
            }),
        ]
    })
}

/// A page's body, and where each of its elements begins and ends.
fn page() -> impl Strategy<Value = (String, Vec<(usize, usize)>)> {
    let event = prop_oneof![
        3 => value().prop_map(|new| format!(r#"{{"user_id":"u","type":"Join","new":{new}}}"#)),
        2 => value(),
    ];
    let space = prop::sample::select(vec!["", " ", "\n\t", "\r\n"]);
    (
        prop::collection::vec(event, 0..8),
        space,
        any::<bool>(),
        value(),
    )
        .prop_map(|(events, space, first, other)| {
            let head = format!(r#""result":"success",{space}"request_id":"r","other":{other}"#);
            let mut body = if first {
                format!("{{{space}{head},")
            } else {
                "{".to_owned()
            };
            body += &format!("\"events\"{space}:{space}[");
            let mut places = Vec::new();
            for (i, event) in events.iter().enumerate() {
                body += if i > 0 { "," } else { "" };
                body += space;
                places.push((body.len(), body.len() + event.len()));
                body += event;
                body += space;
            }
            body += "]";
            body += &if first {
                String::new()
            } else {
                format!(",{head}")
            };
            body += "}";
            (body, places)
        })
}

fn raw<'a>(event: &'a Result<Event<'a>, Reject<'a>>) -> (usize, &'a [u8]) {
    match event {
        Ok(event) => (event.offset as usize, event.raw.as_bytes()),
        Err(reject) => (reject.offset as usize, reject.raw),
    }
}

/// Without the reject of what was not read.
fn events<'a, 'b>(decoded: &'b Decoded<'a>) -> &'b [Result<Event<'a>, Reject<'a>>] {
    match decoded.events.as_slice() {
        [events @ .., Err(last)] if last.reason == UNREADABLE => events,
        events => events,
    }
}

proptest! {
    /// What comes out is what went in: each element, byte for byte, where it was.
    #[test]
    fn splits_a_page_into_its_elements((body, places) in page()) {
        let decoded = decode(body.as_bytes());
        prop_assert!(decoded.complete);
        prop_assert_eq!(decoded.request_id.as_deref(), Some("r"));
        prop_assert_eq!(decoded.result.as_deref(), Some("success"));
        let split: Vec<(usize, &[u8])> = events(&decoded).iter().map(raw).collect();
        let expected: Vec<(usize, &[u8])> =
            places.iter().map(|(start, end)| (*start, &body.as_bytes()[*start..*end])).collect();
        prop_assert_eq!(split, expected);
        prop_assert_eq!(count(body.as_bytes()), decoded.events.len());
        // Beside events the rest of a page is nobody's.
        prop_assert!(places.is_empty() || decoded.events.len() == places.len());
        // The judgement agrees with a parser that knows all of JSON.
        for event in decoded.events.iter().flatten() {
            prop_assert!(serde_json::from_str::<&RawValue>(event.raw).is_ok());
        }
    }

    /// Of a body cut at any byte, exactly the elements before the cut come out, the same as from the whole one.
    #[test]
    fn a_cut_keeps_what_is_before_it((body, places) in page()) {
        let whole = decode(body.as_bytes());
        for cut in 0..body.len() {
            let cut_body = &body.as_bytes()[..cut];
            let decoded = decode(cut_body);
            prop_assert!(!decoded.complete, "cut at {}", cut);
            // A number or word that ends at the cut may go on.
            let ended = |(start, end): &(usize, usize)| {
                let closed = matches!(body.as_bytes()[*end - 1], b'"' | b'}' | b']');
                *start < cut && if closed { *end <= cut } else { *end < cut }
            };
            let before = places.iter().filter(|place| ended(place)).count();
            prop_assert_eq!(count(cut_body), decoded.events.len());
            prop_assert_eq!(events(&decoded), &whole.events[..before], "cut at {}", cut);
            let all = decoded.events.iter().map(|item| raw(item).1.len()).sum::<usize>();
            prop_assert!(all <= cut);
        }
    }

    /// Arbitrary bytes, and pages with some bytes changed, never panic, and nothing comes out that did not go in.
    #[test]
    fn never_fails(
        (body, _) in page(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        noise in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut changed = body.into_bytes();
        for (at, byte) in changes {
            let at = at.index(changed.len());
            changed[at] = byte;
        }
        for body in [noise, changed] {
            let decoded = decode(&body);
            prop_assert_eq!(decoded.events.len(), count(&body));
            for event in &decoded.events {
                let (at, raw) = raw(event);
                prop_assert_eq!(&body[at..at + raw.len()], raw);
            }
            for event in decoded.events.iter().flatten() {
                prop_assert!(serde_json::from_str::<&RawValue>(event.raw).is_ok());
            }
        }
    }

    /// Holds: a page's count, which the accounting of losses goes by, is the number of events that `decode` will yield,
    /// for every body: hostile ones, cut anywhere, made of what a page is made of in any order.
    #[test]
    fn what_is_counted_is_what_comes_out(
        parts in prop::collection::vec(prop::sample::select(vec![
            "{", "}", "[", "]", ",", ":", "\"", "\\", "\"events\":[", "{\"user_id\":\"u\"}", "null", "1", "1e400", " ",
            "\"events\"", "\"result\":\"success\"", "x", "\u{feff}", "\"\\u0065vents\":", "é",
        ]), 0..60),
        headed in any::<bool>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let body = if headed { r#"{"events":["# } else { "" }.to_owned() + &parts.concat();
        for body in [body.as_bytes(), &body.as_bytes()[..cut.index(body.len() + 1)]] {
            let decoded = decode(body);
            prop_assert_eq!(decoded.events.len(), count(body));
            let outline = crate::scan::outline(body);
            prop_assert_eq!(outline.end == End::Complete, decoded.complete);
            let ends = events(&decoded).first().zip(events(&decoded).last());
            let ends = ends.map(|(first, last)| (raw(first).1, raw(last).1));
            prop_assert_eq!(outline.ends, ends);
        }
    }
}

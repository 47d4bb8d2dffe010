#![allow(clippy::unwrap_used)]

use super::*;

fn end(body: &str) -> (End, usize) {
    let outline = outline(body.as_bytes());
    (outline.end, outline.count)
}

#[test]
fn whole_bodies() {
    for (body, count) in [
        (
            r#"{"result":"success","request_id":"1","events":[{},{}]}"#,
            2,
        ),
        (
            r#"{"events":[{"a":"]}\"\\"},[[{}]] , 1,"x",null],"result":"success"}"#,
            5,
        ),
        (r#"{"events":[]}"#, 0),
        (r#"{"events":null}"#, 0),
        (r#"{"result":"success"}"#, 0),
        ("{}", 0),
        (" {\n\"events\" : [ 1 , 2 ]\t}\r\n", 2),
        ("\u{feff}{\"events\":[1]}", 1),
        (r#"{"\u0065vents":[1]}"#, 1),
        (
            r#"{"events":[1],"more":{"events":[1,2]},"events":[2,3]}"#,
            3,
        ),
        (r#"{"events":[1]} and what follows"#, 1),
        // The wrong closing bracket ends the event, not the page.
        (r#"{"events":[{"a":[}],{}]}"#, 2),
    ] {
        assert_eq!(end(body), (End::Complete, count), "{body}");
    }
}

#[test]
fn cut_bodies() {
    for (body, count) in [
        ("", 0),
        (" ", 0),
        ("{", 0),
        (r#"{"eve"#, 0),
        (r#"{"events"#, 0),
        (r#"{"events":"#, 0),
        (r#"{"events":["#, 0),
        (r#"{"events":[{}"#, 1),
        (r#"{"events":[{},"#, 1),
        (r#"{"events":[{},{"a":"}"#, 1),
        (r#"{"events":[{},{"a":"\"#, 1),
        // It may have been 12.
        (r#"{"events":[1"#, 0),
        (r#"{"events":[1,"#, 1),
        (r#"{"events":[{}]"#, 1),
        (r#"{"events":[{}],"request_id":"1"#, 1),
    ] {
        assert_eq!(end(body), (End::Cut, count), "{body}");
    }
}

#[test]
fn other_things() {
    for (body, count) in [
        ("<html></html>", 0),
        ("[]", 0),
        ("null", 0),
        ("\0", 0),
        (r#"{"events":{}}"#, 0),
        (r#"{"events":"none"}"#, 0),
        (r#"{"events":[1 2]}"#, 1),
        (r#"{"events":[1,]}"#, 1),
        ("{events:[1]}", 0),
        (r#"{"events" [1]}"#, 0),
        (r#"{"events":[1],}"#, 1),
    ] {
        assert_eq!(end(body), (End::Malformed, count), "{body}");
    }
}

#[test]
fn ids_are_strings_or_numbers_as_written() {
    for (raw, expected) in [
        (r#""a""#, Some("a")),
        (r#""""#, Some("")),
        (r#""\u0061\n\"""#, Some("a\n\"")),
        (r#""héllo""#, Some("héllo")),
        ("12345678901234567890123", Some("12345678901234567890123")),
        ("-1.50e+3", Some("-1.50e+3")),
        ("\"a\nb\"", None),
        (r#""\ud800""#, None),
        ("true", None),
        ("1x", None),
        ("{}", None),
        ("", None),
        ("\"", None),
    ] {
        assert_eq!(text(raw.as_bytes()).as_deref(), expected, "{raw}");
    }
    assert_eq!(text(b"\"\xff\""), None);
}

#[test]
fn what_identifies_the_response_is_found_on_either_side() {
    for body in [
        r#"{"request_id":"r","result":"failed","events":[]}"#,
        r#"{"events":[],"result":"failed","request_id":"r"}"#,
        r#"{"request_id":"old","events":[],"result":"failed","request_id":"r"}"#,
    ] {
        let outline = outline(body.as_bytes());
        assert_eq!(outline.request_id.as_deref(), Some("r"));
        assert_eq!(outline.result.as_deref(), Some("failed"));
    }
}

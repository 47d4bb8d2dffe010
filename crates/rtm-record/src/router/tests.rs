use std::time::SystemTime;

use rtm_journal::{Epoch, Position};

use super::*;
use crate::format::dead_letter::{CUTS, instead, smaller};

const FETCHED_AT: i64 = 1_700_000_000_000;

fn entry(stream: &str, body: &str) -> Entry {
    let tags = Tags {
        app: "main".into(),
        app_id: "0a1b".into(),
        region: "eu-west-1".into(),
        stream: stream.into(),
        fetched_at: FETCHED_AT,
        status: 200,
        request_id: Some("r1".into()),
        complete: true,
    };
    Entry {
        position: Position(7),
        epoch: Epoch(0xfeed),
        appended_at: SystemTime::UNIX_EPOCH,
        bytes: Bytes::from(entry::with_tags(&tags, None, body.as_bytes())),
        count: 1,
    }
}

fn router(topic: &str, headers: bool) -> Router {
    Router::new(Routes {
        topic: Template::parse(topic, crate::template::ALL).unwrap(),
        dead_letters: Template::parse("dead.{app}", STATIC).unwrap(),
        key: KeyBy::Auto,
        headers,
    })
}

#[test]
fn the_envelope_holds_the_event_byte_for_byte_and_the_tags() {
    let event = r#"{"group_id":"c","user_id":"u\u0000\r\n\"","type":"Join","ms":1699999999000, "new":{"a":[1e400]}}"#;
    let body = format!(r#"{{"result":"success","request_id":"r1","events":[{event}]}}"#);
    let page = router("rtm.{stream}", true)
        .page(&entry("channel", &body), 0..SLICE)
        .unwrap();
    let record = &page.prepared[0].record;
    let envelope = rtm_sim::parse_envelope(&record.payload).unwrap();
    assert_eq!(envelope.event.get(), event);
    assert_eq!(
        (
            &*envelope.app,
            &*envelope.app_id,
            &*envelope.region,
            &*envelope.stream
        ),
        ("main", "0a1b", "eu-west-1", "channel")
    );
    assert_eq!(envelope.user_id.as_deref(), Some("u\0\r\n\""));
    assert_eq!(envelope.channel_id.as_deref(), Some("c"));
    assert_eq!(envelope.time.as_deref(), Some("2023-11-14T22:13:19.000Z"));
    assert_eq!(envelope.fetched_at, "2023-11-14T22:13:20.000Z");
    assert_eq!(envelope.request_id.as_deref(), Some("r1"));
    assert_eq!(envelope.position, 7);
    let offset = body.find(event).unwrap();
    assert_eq!(envelope.id, format!("000000000000feed.7.{offset}"));
    assert_eq!(record.key.as_deref(), Some(&b"c"[..]));
    assert_eq!(record.timestamp, Timestamp(1_699_999_999_000));
    assert_eq!(record.topic.as_str(), "rtm.channel");
    let names: Vec<&str> = record.headers.iter().map(|(name, _)| &**name).collect();
    assert_eq!(
        names,
        [
            "rtm-id",
            "rtm-app",
            "rtm-region",
            "rtm-stream",
            "rtm-fetched-at",
            "rtm-event-key"
        ]
    );
}

#[test]
fn user_events_are_keyed_by_the_user_and_have_no_channel() {
    let body = r#"{"events":[{"user_id":12345,"type":"Login","ms":5}]}"#;
    let page = router("t", false)
        .page(&entry("user", body), 0..SLICE)
        .unwrap();
    assert_eq!(page.prepared[0].record.key.as_deref(), Some(&b"12345"[..]));
    assert!(page.prepared[0].record.headers.is_empty());
    let envelope = rtm_sim::parse_envelope(&page.prepared[0].record.payload).unwrap();
    assert!(envelope.channel_id.is_none());
    // 1970 is no time that a broker should keep records by, nor one of which an age says anything.
    assert_eq!(page.prepared[0].record.timestamp, Timestamp(FETCHED_AT));
    assert_eq!(page.prepared[0].ms, None);
}

/// Holds: a time that can be is kept, to the millisecond; one that cannot is nobody's.
#[test]
fn times_that_cannot_be_are_none() {
    let (ahead, behind) = (600_000, 604_800_000);
    for (ms, is_sane) in [
        (FETCHED_AT, true),
        (FETCHED_AT + ahead, true),
        (FETCHED_AT + ahead + 1, false),
        (FETCHED_AT - behind, true),
        (FETCHED_AT - behind - 1, false),
        (0, false),
        (i64::MAX, false),
    ] {
        assert_eq!(sane(Some(ms), FETCHED_AT), is_sane.then_some(ms), "{ms}");
    }
    assert_eq!(sane(None, FETCHED_AT), None);
}

#[test]
fn one_odd_event_is_a_dead_letter_with_its_bytes_between_sound_neighbours() {
    let body = r#"{"events":[{"user_id":"a","type":"Login","ms":1},"no event",{"user_id":"b","type":"Login","ms":2}]}"#;
    let page = router("t", false)
        .page(&entry("user", body), 0..SLICE)
        .unwrap();
    let dead: Vec<_> = page.prepared.iter().map(|prepared| prepared.dead).collect();
    assert_eq!(dead, [None, Some("not_an_object"), None]);
    let letter = &page.prepared[1].record;
    assert_eq!(letter.topic.as_str(), "dead.main");
    let payload: serde_json::Value = serde_json::from_slice(&letter.payload).unwrap();
    assert_eq!(payload["raw"], "\"no event\"");
    assert_eq!(payload["reason"], "not_an_object");
    assert!(
        letter
            .headers
            .iter()
            .any(|(name, value)| name == "rtm-reason" && value == "not_an_object")
    );
}

#[test]
fn an_id_can_never_add_a_token_or_a_wildcard_to_a_subject() {
    let body =
        r#"{"events":[{"group_id":"a.b.>","user_id":"* \r\n\u0000\u202e","type":"Join","ms":1}]}"#;
    let page = router("rtm.{channel_id}.{user_id}.{type}", false)
        .page(&entry("channel", body), 0..SLICE)
        .unwrap();
    let subject = page.prepared[0].record.topic.as_str();
    assert_eq!(subject.split('.').count(), 4, "{subject}");
    assert!(
        subject
            .bytes()
            .all(|b| b.is_ascii_graphic() && !b"*>".contains(&b)),
        "{subject}"
    );
}

#[test]
fn event_keys_are_as_documented() {
    // printf '\0\0\0\x040a1b\0\0\0\x07channel\0\0\0\x01u\0\0\0\x01c\0\0\0\x04Join\0\0\0\x011' | sha256sum
    let body = r#"{"events":[{"group_id":"c","user_id":"u","type":"Join","ms":1}]}"#;
    let page = router("t", false)
        .page(&entry("channel", body), 0..SLICE)
        .unwrap();
    let envelope = rtm_sim::parse_envelope(&page.prepared[0].record.payload).unwrap();
    assert_eq!(
        envelope.event_key.as_deref(),
        Some("4bc5de755a99ba9ce3702c6570de6f6f")
    );
}

/// Holds: a refused record becomes a dead letter with its payload, and a refused dead letter is cut, again and again, down
/// to a stub that still says which event it was, where it is, and why.
#[test]
fn a_refused_record_becomes_a_dead_letter_and_a_refused_dead_letter_is_cut() {
    let long = "\\u00fc\u{fc}".repeat(CUTS[0]);
    let body = format!(r#"{{"events":[{{"user_id":"{long}","type":"Login","ms":1}}]}}"#);
    let journaled = entry("user", &body);
    let mut router = router("t", false);
    let page = router.page(&journaled, 0..SLICE).unwrap();
    let record = &page.prepared[0].record;
    let why = Reason {
        code: "too_large",
        message: "10 MB".repeat(100),
    };
    let mut letter = router.refused(&journaled, record, &why).unwrap();
    assert_eq!(letter.id, record.id);
    let mut before = parsed(&letter);
    assert_eq!(
        before["raw"].as_str().unwrap().as_bytes(),
        &record.payload[..]
    );
    let mut sizes = Vec::new();
    while let Some(cut) = smaller(&letter) {
        let payload = parsed(&cut);
        assert!(cut.payload.len() < letter.payload.len());
        assert_eq!((cut.id, &cut.topic), (letter.id, &letter.topic));
        for part in [
            "id", "app", "app_id", "region", "stream", "position", "reason",
        ] {
            assert_eq!(payload[part], before[part], "{part}");
        }
        assert_eq!(payload["truncated"], true);
        let raw = payload["raw"].as_str().unwrap();
        assert!(before["raw"].as_str().unwrap().starts_with(raw));
        sizes.push(raw.len());
        (letter, before) = (cut, payload);
    }
    assert_eq!(sizes.len(), 4);
    for (size, cut) in sizes.into_iter().zip([CUTS[0], CUTS[1], 0, 0]) {
        // Between two characters.
        assert!((cut.saturating_sub(1)..=cut).contains(&size), "{size}");
    }
    assert!(letter.headers.is_empty());
    assert!(letter.payload.len() < 350, "{}", letter.payload.len());
}

/// Holds: a dead letter that is refused for its time is the same of now, and is given up where its time is now already;
/// for another fault than its own nothing takes its place.
#[test]
fn a_dead_letter_of_another_time_gets_that_of_now() {
    let why = |code| Reason {
        code,
        message: String::new(),
    };
    let owner = Owner {
        app: "main",
        app_id: "0a1b",
    };
    let journaled = entry("user", "");
    let letter = router("t", false).whole(&journaled, owner, &why("unreadable"));
    let letter = letter.record;
    let at = letter.timestamp.0;
    for now in [at + 3_600_000, at - 3_600_000] {
        let other = instead(&letter, &why(Reason::TIMESTAMP), Timestamp(now)).unwrap();
        assert_eq!(other.timestamp.0, now);
        assert_eq!((other.id, &other.payload), (letter.id, &letter.payload));
        let again = instead(&other, &why(Reason::TIMESTAMP), Timestamp(now + 1));
        assert!(again.is_none(), "{again:?}");
    }
    let now = Timestamp(at + 3_600_000);
    assert!(instead(&letter, &why("policy"), now).is_none());
    let cut = instead(&letter, &why(Reason::TOO_LARGE), now).unwrap();
    assert_eq!(cut.timestamp, letter.timestamp);
}

/// Holds: bytes that are no text are cut as well.
#[test]
fn a_dead_letter_of_bytes_is_cut() {
    let mut journaled = entry("user", "");
    let mut bytes = vec![9; 1];
    bytes.resize(3 * CUTS[1], 0xff);
    journaled.bytes = Bytes::from(bytes);
    let why = Reason {
        code: "unreadable",
        message: String::new(),
    };
    let owner = Owner {
        app: "main",
        app_id: "0a1b",
    };
    let letter = router("t", false).whole(&journaled, owner, &why).record;
    let hex = |letter: &Record| parsed(letter)["raw_hex"].as_str().unwrap().len();
    assert_eq!(hex(&letter), 6 * CUTS[1]);
    let cut = smaller(&letter).unwrap();
    assert_eq!(hex(&cut), 2 * CUTS[1]);
    let stub = smaller(&cut).unwrap();
    assert_eq!(hex(&stub), 0);
    assert!(smaller(&smaller(&stub).unwrap()).is_none());
}

/// Holds: the dead letter of a whole entry goes where those of its events would: by its tags, where these can be read, and
/// otherwise by whose lane it is in.
#[test]
fn a_whole_entry_goes_where_its_dead_letters_go() {
    let owner = Owner {
        app: "other",
        app_id: "0a1b",
    };
    let why = Reason {
        code: "poison",
        message: String::new(),
    };
    let mut router = router("t", false);
    let tagged = router.whole(&entry("user", "{}"), owner, &why).record;
    assert_eq!(tagged.topic.as_str(), "dead.main");
    assert_eq!(parsed(&tagged)["stream"], "user");
    let mut odd = entry("user", "{}");
    odd.bytes = Bytes::from_static(b"\x09");
    let odd = router.whole(&odd, owner, &why).record;
    assert_eq!(odd.topic.as_str(), "dead.other");
    assert_eq!(parsed(&odd)["app_id"], "0a1b");
    assert_eq!(parsed(&odd)["region"], UNKNOWN);
}

fn parsed(letter: &Record) -> serde_json::Value {
    serde_json::from_slice(&letter.payload).unwrap()
}

//! What comes from servers, proxies and middleboxes of every kind: an answer that can be read gives its event, and of one
//! that cannot the bytes are kept.

use super::*;

const EVENT: &str = r#"{"user_id":"u","type":"Login","ms":1578027420761}"#;

/// What becomes of an answer.
enum Becomes {
    /// A page with the event.
    Page,
    /// As [`Becomes::Page`], and a dead letter with these bytes.
    PageAnd(Vec<u8>),
    /// A dead letter with these bytes, in doubt.
    Letter(Vec<u8>),
}
use Becomes::{Letter, Page as Whole, PageAnd};

fn page() -> String {
    format!(r#"{{"result":"success","request_id":"1","events":[{EVENT}]}}"#)
}

/// An answer with these headers, each with its end of line.
fn with(headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n", body.len());
    [head.as_bytes(), headers.as_bytes(), b"\r\n", body].concat()
}

/// An answer that is all written out.
fn raw(text: String) -> Vec<u8> {
    text.into_bytes()
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn deflate(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn utf16(body: &str) -> Vec<u8> {
    let units = std::iter::once(0xfeff).chain(body.encode_utf16());
    units.flat_map(u16::to_le_bytes).collect()
}

/// Answers whose HTTP is odd. The events do not hang on it.
fn odd_http() -> Vec<(&'static str, Vec<u8>, Becomes)> {
    let (page, length) = (page(), page().len());
    let status = |line: &str| raw(format!("{line}\r\nContent-Length: {length}\r\n\r\n{page}"));
    let ok = |headers: &str| with(headers, &page);
    let chunks = |headers: &str, last: &str| {
        let (first, second) = page.split_at(30);
        raw(format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{headers}\r\n1e;ext=\"a b\"\r\n{first}\r\n{:X}\r\n{second}\r\n{last}",
            second.len()
        ))
    };
    let many = "X-Hop: seen\r\n".repeat(120);
    vec![
        ("as it should be", ok(""), Whole),
        (
            "no length, and a close",
            raw(format!("HTTP/1.1 200 OK\r\n\r\n{page}")),
            Whole,
        ),
        ("chunks with extensions", chunks("", "0\r\n\r\n"), Whole),
        (
            "chunks with trailers",
            chunks("Trailer: X-Sum\r\n", "0\r\nX-Sum: 1\r\n\r\n"),
            Whole,
        ),
        ("chunks without an end", chunks("", ""), Whole),
        (
            "chunks and a length",
            chunks("Content-Length: 3\r\n", "0\r\n\r\n"),
            Whole,
        ),
        (
            "a length that is too long",
            raw(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n{page}"
            )),
            Whole,
        ),
        (
            "the same length twice",
            ok(&format!("Content-Length: {length}\r\n")),
            Whole,
        ),
        (
            "headers in another case",
            raw(format!(
                "HTTP/1.1 200 OK\r\ncOnTeNt-lEnGtH: {length}\r\n\r\n{page}"
            )),
            Whole,
        ),
        ("a space before a colon", ok("X-Proxy : hop\r\n"), Whole),
        (
            "a space before the length's colon",
            raw(format!(
                "HTTP/1.1 200 OK\r\nContent-Length : {length}\r\n\r\n{page}"
            )),
            Whole,
        ),
        (
            "a folded line",
            ok("X-Via: one\r\n two\r\n\tthree\r\n"),
            Whole,
        ),
        ("120 headers", ok(&many), Whole),
        (
            "a line that is no header",
            ok("what is this\r\nX-A: b\r\n"),
            Whole,
        ),
        (
            "a name that is none",
            ok("X(Proxy): hop\r\nX{}: y\r\n"),
            Whole,
        ),
        (
            "a value with control characters",
            ok("X-A: a\u{1}b\r\n"),
            Whole,
        ),
        (
            "a value that is not UTF-8",
            [b"HTTP/1.1 200 OK\r\nX-A: \xff\xfe\r\n\r\n", page.as_bytes()].concat(),
            Whole,
        ),
        ("an empty value", ok("X-A:\r\n"), Whole),
        (
            "lines that end with a line feed",
            raw(format!(
                "HTTP/1.1 200 OK\nContent-Length: {length}\n\n{page}"
            )),
            Whole,
        ),
        ("no reason", status("HTTP/1.1 200"), Whole),
        (
            "an odd reason",
            status("HTTP/1.1 200 Everything's fine; (really)"),
            Whole,
        ),
        (
            "an old version",
            raw(format!("HTTP/1.0 200 OK\r\n\r\n{page}")),
            Whole,
        ),
        (
            "an old version that stays",
            raw(format!(
                "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: {length}\r\n\r\n{page}"
            )),
            Whole,
        ),
        (
            "status 203",
            status("HTTP/1.1 203 Non-Authoritative Information"),
            Whole,
        ),
        ("status 206", status("HTTP/1.1 206 Partial Content"), Whole),
        ("status 201", status("HTTP/1.1 201 Created"), Whole),
        ("status 299", status("HTTP/1.1 299 Fine"), Whole),
        (
            "a 100 before",
            [b"HTTP/1.1 100 Continue\r\n\r\n", &*ok("")].concat(),
            Whole,
        ),
        (
            "a 103 before",
            [b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", &*ok("")].concat(),
            Whole,
        ),
        (
            "keep-alive with its numbers",
            ok("Connection: Keep-Alive\r\nKeep-Alive: timeout=5, max=100\r\n"),
            Whole,
        ),
        (
            "a close that is announced",
            ok("Connection: close\r\n"),
            Whole,
        ),
        ("no type", ok(""), Whole),
        ("another type", ok("Content-Type: text/html\r\n"), Whole),
        (
            "a charset",
            ok("Content-Type: application/json; charset=UTF-8\r\n"),
            Whole,
        ),
        (
            "a charset that is not true",
            ok("Content-Type: application/json;charset=iso-8859-1;q=\"\r\n"),
            Whole,
        ),
        (
            "cookies and caches",
            ok("Set-Cookie: a=b; Path=/\r\nAge: 10\r\nX-Cache: HIT\r\nVary: *\r\n"),
            Whole,
        ),
    ]
}

/// Answers whose body is odd.
fn odd_bodies() -> Vec<(&'static str, Vec<u8>, Becomes)> {
    let page = page();
    let letter = |body: &[u8]| Letter(body.to_vec());
    let zipped = gzip(page.as_bytes());
    let deflated = deflate(page.as_bytes());
    let wide = utf16(&page);
    let array = format!("[{EVENT}]");
    let warned =
        format!("<br />\n<b>Warning</b>:  Undefined index in <b>/srv/x.php</b><br />\n{page}");
    let lines = format!("{EVENT}\n{EVENT}\n");
    let renamed = page.replace("events", "event_list");
    let nested =
        format!(r#"{{"result":"success","request_id":"1","data":{{"events":[{EVENT}]}}}}"#);
    let html = "<html><body>Please log in</body></html>";
    let other = b"\x28\xb5\x2f\xfd\x04\x00\x59\x00\x00abc";
    vec![
        (
            "gzip, said",
            with("Content-Encoding: gzip\r\n", &zipped),
            Whole,
        ),
        (
            "gzip, said in another case",
            with("Content-Encoding: GZip\r\n", &zipped),
            Whole,
        ),
        ("gzip, not said", with("", &zipped), Whole),
        (
            "gzip, said, and it is none",
            with("Content-Encoding: gzip\r\n", &page),
            Whole,
        ),
        (
            "br, said, and it is none",
            with("Content-Encoding: br\r\n", &page),
            Whole,
        ),
        (
            "a byte order mark",
            with("", format!("\u{feff}{page}")),
            Whole,
        ),
        (
            "white space before",
            with("", format!("\r\n \n{page}")),
            Whole,
        ),
        (
            "white space after",
            with("", format!("{page}\r\n\r\n\0")),
            Whole,
        ),
        (
            "something after",
            with("", format!("{page}\n<!-- proxy -->")),
            PageAnd(b"<!-- proxy -->".to_vec()),
        ),
        (
            "pages in lines",
            with("", format!("{page}\n{page}")),
            PageAnd(page.into_bytes()),
        ),
        (
            "status 203 and another shape",
            [b"HTTP/1.1 203 X\r\n\r\n", array.as_bytes()].concat(),
            letter(array.as_bytes()),
        ),
        (
            "deflate",
            with("Content-Encoding: deflate\r\n", &deflated),
            letter(&deflated),
        ),
        (
            "br",
            with("Content-Encoding: br\r\n", b"\x8b\x02\x80abc"),
            letter(b"\x8b\x02\x80abc"),
        ),
        (
            "zstd",
            with("Content-Encoding: zstd\r\n", other),
            letter(other),
        ),
        (
            "a gzip that is damaged",
            with("Content-Encoding: gzip\r\n", b"\x1f\x8b\x08\x00\x01"),
            letter(b"\x1f\x8b\x08\x00\x01"),
        ),
        (
            "UTF-16",
            with("Content-Type: application/json; charset=utf-16\r\n", &wide),
            letter(&wide),
        ),
        ("an array", with("", &array), letter(array.as_bytes())),
        (
            "a warning before",
            with("", &warned),
            letter(warned.as_bytes()),
        ),
        (
            "events in lines",
            with("", &lines),
            letter(lines.as_bytes()),
        ),
        ("one event alone", with("", EVENT), letter(EVENT.as_bytes())),
        (
            "another name",
            with("", &renamed),
            letter(renamed.as_bytes()),
        ),
        ("deeper", with("", &nested), letter(nested.as_bytes())),
        (
            "a page of HTML",
            with("Content-Type: text/html\r\n", html),
            letter(html.as_bytes()),
        ),
        ("a string", with("", "\"events\""), letter(b"\"events\"")),
    ]
}

/// Holds: any odd but readable answer gives its event; any unreadable one becomes a dead letter with its bytes, and counts
/// as one in doubt.
#[tokio::test]
async fn any_answer_gives_its_event_or_its_bytes() {
    let answers = odd_http().into_iter().chain(odd_bodies());
    let mut wrong = Vec::new();
    for (what, answer, becomes) in answers {
        let fetched = Server::answering(answer).fetch().await;
        let in_doubt = fetched
            .as_ref()
            .err()
            .map(|error| (error.kind, error.possibly_lost()));
        let page = match fetched {
            Ok(page) => Some(page),
            Err(error) => error.partial.map(|page| *page),
        };
        let body = page.as_ref().map_or(&b""[..], |page| &page.body);
        let items = crate::decode(body).events;
        let (events, rejects): (Vec<_>, Vec<_>) = items.iter().partition(|item| item.is_ok());
        let events: Vec<_> = events
            .iter()
            .flat_map(|item| item.as_ref().ok())
            .map(|event| event.raw)
            .collect();
        let rejects: Vec<_> = rejects
            .iter()
            .flat_map(|item| item.as_ref().err())
            .map(|reject| (reject.reason, reject.raw))
            .collect();
        let got = (
            in_doubt,
            events,
            rejects,
            page.as_ref().map(|page| (page.count, page.unread)),
        );
        let doubt = Some((FetchErrorKind::InDoubt, 1_000));
        let expected = match &becomes {
            Whole => (None, vec![EVENT], vec![], Some((1, false))),
            PageAnd(rest) => (
                None,
                vec![EVENT],
                vec![("unreadable", &**rest)],
                Some((2, true)),
            ),
            Letter(rest) => (
                doubt,
                vec![],
                vec![("unreadable", &**rest)],
                Some((1, true)),
            ),
        };
        if got != expected {
            wrong.push(format!("{what}: {got:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Holds: events in an answer of any status are kept.
#[tokio::test]
async fn events_are_kept_whatever_the_status_says() {
    let body = page();
    for status in [302, 400, 401, 403, 404, 408, 418, 429, 500, 503] {
        let error = Server::answering(response(status, "", &body))
            .fetch()
            .await
            .unwrap_err();
        assert_eq!(saved(&error), Some((1, true)), "{status}");
    }
}

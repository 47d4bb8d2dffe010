//! Against a raw listener that answers whatever a test says, byte by byte, and against the simulator.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::thread::JoinHandle;

use super::*;
use crate::{Auth, FetchErrorKind, Limiter, Secret};

mod answers;
mod losses;
mod tls;

const CANARY: &str = "canary-7Zqx";
const PAGE: &str =
    r#"{"result":"success","request_id":"r1","events":[{"user_id":"a"},{"user_id":"b"}]}"#;
/// The bounds of tests that wait for a deadline to pass.
const SHORT: Duration = Duration::from_millis(300);

/// A server for as many connections as a test makes: each is handed, with its request, to `answer`.
struct Server {
    addr: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    _accept: JoinHandle<()>,
}

impl Server {
    fn start(answer: impl Fn(TcpStream, usize) + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        let answer = Arc::new(answer);
        let accept = std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(mut stream), seen, answer) =
                    (stream, Arc::clone(&seen), Arc::clone(&answer))
                else {
                    return;
                };
                std::thread::spawn(move || {
                    let Some(request) = read_head(&mut stream) else {
                        return;
                    };
                    let number = {
                        let mut seen = seen.lock().unwrap();
                        seen.push(request);
                        seen.len()
                    };
                    answer(stream, number);
                });
            }
        });
        Server {
            addr,
            requests,
            _accept: accept,
        }
    }

    /// Answers every request with these bytes, and closes.
    fn answering(bytes: impl Into<Vec<u8>>) -> Server {
        let bytes = bytes.into();
        Server::start(move |mut stream, _| {
            // The client may have seen enough, and gone.
            let _ = stream.write_all(&bytes);
        })
    }

    fn options(&self) -> SourceOptions {
        let region = Region::new("sim", &format!("http://{}/sim", self.addr), false).unwrap();
        let auth = Auth::Basic {
            key: "key".into(),
            secret: Secret::Inline(CANARY.into()),
        };
        SourceOptions::new("app", auth, vec![region])
    }

    async fn fetch(&self) -> Result<Page, FetchError> {
        fetch(&Source::new(self.options()).unwrap()).await
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn read_head(stream: &mut impl Read) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    Some(String::from_utf8(head).unwrap())
}

/// Keeps a connection open until the client has closed it.
fn hold(mut stream: TcpStream) {
    let _ = stream.read_to_end(&mut Vec::new());
}

fn ok(body: &str) -> String {
    response(200, "", body)
}

fn response(status: u16, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    )
}

async fn fetch(source: &Source) -> Result<Page, FetchError> {
    let limiter = Limiter::new(1, Duration::ZERO);
    let fetched = source.fetch(&source.rings()[0], limiter.slot().await).await;
    if let Err(error) = &fetched {
        assert!(
            FetchError::REASONS.contains(&error.reason),
            "{}",
            error.reason
        );
        let mut shown = format!("{error} {error:?} {source:?}");
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            shown += &format!(" {error} {error:?}");
            cause = error.source();
        }
        assert!(!shown.contains("canary"), "{shown}");
    }
    fetched
}

fn saved(error: &FetchError) -> Option<(usize, bool)> {
    error
        .partial
        .as_ref()
        .map(|page| (page.events(), page.complete))
}

#[tokio::test]
async fn a_page_comes_back_as_it_was_sent() {
    let headers = "X-Request-ID: from-header\r\n";
    let server = Server::answering(response(200, headers, PAGE));
    let source = Source::new(server.options()).unwrap();
    let page = fetch(&source).await.unwrap();
    assert_eq!(page.body, PAGE);
    assert_eq!((page.status, page.count, page.complete), (200, 2, true));
    assert_eq!(page.request_id.as_deref(), Some("r1"));
    assert_eq!(page.ring, source.rings()[0]);
    let age = Timestamp::now().duration_since(page.fetched_at);
    assert!(age.as_secs().abs() < 5, "{age:?}");

    let request = server.requests()[0].to_lowercase();
    assert!(
        request.starts_with("get /sim/dev/v2/project/app/rtm/vendor/user_events http/1.1\r\n"),
        "{request}"
    );
    for header in [
        "authorization: basic a2v5omnhbmfyes03wnf4\r\n",
        "accept-encoding: identity\r\n",
        "user-agent: rtm-bridge/",
    ] {
        assert!(request.contains(header), "{header}: {request}");
    }

    let server = Server::answering(response(200, headers, r#"{"result":"success"}"#));
    assert_eq!(
        server.fetch().await.unwrap().request_id.as_deref(),
        Some("from-header")
    );
}

/// Without a length, in chunks, with one that is too long: the JSON tells whether it is whole.
#[tokio::test]
async fn completeness_is_judged_from_the_json() {
    let cut = &PAGE[..PAGE.len() - 10];
    let chunked = format!(
        "HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{PAGE}\r\n0\r\n\r\n",
        PAGE.len()
    );
    let unfinished = format!(
        "HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{PAGE}\r\n",
        PAGE.len()
    );
    let too_long = format!(
        "HTTP/1.1 200 X\r\nContent-Length: {}\r\n\r\n{PAGE}",
        PAGE.len() + 99
    );
    for whole in [
        format!("HTTP/1.1 200 X\r\n\r\n{PAGE}"),
        chunked,
        unfinished,
        too_long,
    ] {
        assert_eq!(
            Server::answering(whole.clone()).fetch().await.unwrap().body,
            PAGE,
            "{whole}"
        );
    }
    for (cut, count) in [
        // A close with nothing to say that it came too early.
        (format!("HTTP/1.1 200 X\r\n\r\n{cut}"), 1),
        (
            format!("HTTP/1.1 200 X\r\nContent-Length: 900\r\n\r\n{cut}"),
            1,
        ),
        // A length that is too short.
        (
            format!(
                "HTTP/1.1 200 X\r\nContent-Length: {}\r\n\r\n{PAGE}",
                cut.len()
            ),
            1,
        ),
        (
            "HTTP/1.1 200 X\r\nContent-Length: 900\r\n\r\n".to_owned(),
            0,
        ),
    ] {
        let error = Server::answering(cut.clone()).fetch().await.unwrap_err();
        assert_eq!(
            (error.kind, error.reason),
            (FetchErrorKind::InDoubt, "cut"),
            "{cut}"
        );
        assert_eq!(saved(&error).map_or(0, |(count, _)| count), count, "{cut}");
        assert_eq!(error.possibly_lost(), 1_000 - count as u64, "{cut}");
        if let Some(page) = error.partial {
            assert!(PAGE.starts_with(std::str::from_utf8(&page.body).unwrap()));
        }
    }
}

#[tokio::test]
async fn a_body_cut_at_any_byte_keeps_its_whole_events() {
    let server = Server::start(|mut stream, number| {
        let head = format!("HTTP/1.1 200 X\r\nContent-Length: {}\r\n\r\n", PAGE.len());
        let _ = stream.write_all(format!("{head}{}", &PAGE[..number - 1]).as_bytes());
    });
    let source = Source::new(server.options()).unwrap();
    for cut in 0..PAGE.len() {
        let error = fetch(&source).await.unwrap_err();
        assert_eq!(
            (error.kind, error.reason),
            (FetchErrorKind::InDoubt, "cut"),
            "{cut}"
        );
        let items = crate::decode(&PAGE.as_bytes()[..cut]).events;
        let whole = items.iter().flatten().count();
        assert_eq!(error.possibly_lost(), 1_000 - whole as u64, "{cut}");
        match error.partial {
            Some(page) => assert_eq!((page.body.len(), page.count), (cut, items.len())),
            None => assert!(cut <= 1, "nothing but a bracket is worth nothing"),
        }
    }
    assert_eq!(server.requests().len(), PAGE.len());
}

/// Holds: sources that reach their hosts in the same way share a connection, and send each its own credentials on it; one
/// with another way does not.
#[tokio::test]
async fn connections_are_shared() {
    let (tx, heads) = std::sync::mpsc::channel();
    let server = Server::start(move |mut stream, _| {
        let mut next = Some(String::new());
        while let Some(head) = next {
            tx.send(head).unwrap();
            stream.write_all(ok(PAGE).as_bytes()).unwrap();
            next = read_head(&mut stream);
        }
    });
    let connections = Connections::default();
    let source = |app_id: &str, connect_timeout| {
        let auth = Auth::Basic {
            key: app_id.into(),
            secret: Secret::Inline("secret".into()),
        };
        let regions = server.options().regions;
        let mut options = SourceOptions::new(app_id, auth, regions);
        options.connect_timeout = Duration::from_secs(connect_timeout);
        Source::sharing(options, &connections).unwrap()
    };
    for app_id in ["one", "two", "three"] {
        fetch(&source(app_id, 10)).await.unwrap();
    }
    assert_eq!(server.requests().len(), 1, "the first heads of connections");
    let later: Vec<String> = heads.try_iter().filter(|head| !head.is_empty()).collect();
    for (head, app_id, login) in [
        (&later[0], "two", "Basic dHdvOnNlY3JldA=="),
        (&later[1], "three", "Basic dGhyZWU6c2VjcmV0"),
    ] {
        assert!(
            head.contains(&format!("/project/{app_id}/")) && head.contains(login),
            "{head}"
        );
    }
    fetch(&source("four", 9)).await.unwrap();
    assert_eq!(server.requests().len(), 2);
}

/// Never sent twice, whatever happened: the second one would read, and delete, again.
#[tokio::test]
async fn a_request_is_sent_once() {
    let closed = Server::start(|stream, _| drop(stream));
    let error = closed.fetch().await.unwrap_err();
    assert_eq!(
        (error.kind, error.reason),
        (FetchErrorKind::InDoubt, "reset")
    );
    assert_eq!(error.possibly_lost(), 1_000);
    assert_eq!(closed.requests().len(), 1);

    // On a connection that has been used before, too, which is where clients like to retry.
    let reused = Server::start(|mut stream, number| {
        if number == 1 {
            stream.write_all(ok(PAGE).as_bytes()).unwrap();
            // The second request, on the same connection, is read and never answered.
            read_head(&mut stream);
        }
    });
    let source = Source::new(reused.options()).unwrap();
    fetch(&source).await.unwrap();
    let error = fetch(&source).await.unwrap_err();
    assert_eq!(
        (error.kind, error.reason),
        (FetchErrorKind::InDoubt, "reset")
    );
    assert_eq!(reused.requests().len(), 1, "on a connection of its own");

    for status in [301, 302, 303, 307, 308] {
        let target = Server::answering(ok(PAGE));
        let headers = format!("Location: http://{}/\r\n", target.addr);
        let error = Server::answering(response(status, &headers, ""))
            .fetch()
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind, error.reason),
            (FetchErrorKind::Refused, "redirect")
        );
        assert!(target.requests().is_empty());
    }
    for status in [408, 429, 500, 503] {
        let server = Server::answering(response(status, "Retry-After: 0\r\n", ""));
        server.fetch().await.unwrap_err();
        assert_eq!(server.requests().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn refusals_delete_nothing_and_say_why() {
    let headers =
        "Retry-After: 7\r\nX-Request-ID: q\u{1}1\r\nX-Resource-ID: s1\r\n".replace('\u{1}', "");
    let server = Server::answering(response(
        429,
        &headers,
        r#"{"message":"API rate limit exceeded"}"#,
    ));
    let error = server.fetch().await.unwrap_err();
    assert_eq!(
        (error.kind, error.reason),
        (FetchErrorKind::Refused, "rate_limited")
    );
    assert_eq!(
        (error.status, error.retry_after),
        (Some(429), Some(Duration::from_secs(7)))
    );
    assert_eq!(&*error.message, "API rate limit exceeded");
    let ids = error.request_ids.as_deref().unwrap();
    assert_eq!(
        (ids.request.as_deref(), ids.resource.as_deref()),
        (Some("q1"), Some("s1"))
    );
    assert_eq!(error.possibly_lost(), 0);
    assert_eq!(saved(&error), None);

    // A gateway that quotes our credentials.
    let body = format!(r#"{{"message":"bad {CANARY} in Basic a2V5OmNhbmFyeS03WnF4"}}"#);
    let error = Server::answering(response(401, "", &body))
        .fetch()
        .await
        .unwrap_err();
    assert_eq!(&*error.message, "bad [redacted] in Basic [redacted]");
}

#[tokio::test]
async fn doubtful_answers_keep_the_events_that_are_in_them() {
    let failed = PAGE.replace("success", "failed");
    for (response, reason, expected) in [
        (ok(&failed), "failed", Some((2, true))),
        (ok("<html>hello</html>"), "unexpected", Some((0, false))),
        (ok(r#"{"data":[1]}"#), "unexpected", Some((0, true))),
        (response(500, "", PAGE), "status", Some((2, true))),
        (response(500, "", "<html>sorry</html>"), "status", None),
        (response(408, "", ""), "status", None),
    ] {
        let error = Server::answering(response).fetch().await.unwrap_err();
        assert_eq!(
            (error.kind, error.reason),
            (FetchErrorKind::InDoubt, reason)
        );
        assert_eq!(saved(&error), expected, "{reason}");
        assert_eq!(
            error.possibly_lost(),
            1_000 - expected.map_or(0, |(count, _)| count as u64)
        );
    }
}

#[tokio::test]
async fn what_was_not_sent_lost_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = Server {
        addr: listener.local_addr().unwrap(),
        requests: Arc::default(),
        _accept: std::thread::spawn(|| {}),
    };
    drop(listener);
    let error = nobody.fetch().await.unwrap_err();
    assert_eq!(
        (error.kind, error.reason),
        (FetchErrorKind::NotSent, "connect")
    );
    assert_eq!(error.possibly_lost(), 0);

    // Connected, but not to anything that speaks TLS: the connection has a deadline of its own.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut options = nobody.options();
    let url = format!("https://{}", silent.local_addr().unwrap());
    options.regions = vec![Region::new("silent", &url, false).unwrap()];
    options.connect_timeout = SHORT;
    let source = Source::new(options).unwrap();
    let error = fetch(&source).await.unwrap_err();
    assert_eq!(
        (error.kind, error.reason),
        (FetchErrorKind::NotSent, "connect_timeout")
    );

    let stranger = Ring {
        region: Arc::new(Region::builtin("eu-west-1").unwrap()),
        stream: Stream::User,
    };
    let slot = Limiter::new(1, Duration::ZERO).slot().await;
    let error = source.fetch(&stranger, slot).await.unwrap_err();
    assert_eq!(
        (error.kind, error.reason),
        (FetchErrorKind::NotSent, "request")
    );
}

/// The deadline is for the whole request: neither silence nor a drip gets more, and what came is kept.
#[tokio::test]
async fn the_deadline_ends_a_request_wherever_it_is() {
    let silent = Server::start(|stream, _| hold(stream));
    let stalled = Server::start(|mut stream, _| {
        let head = format!(
            "HTTP/1.1 200 X\r\nContent-Length: 900\r\n\r\n{}",
            &PAGE[..PAGE.len() - 5]
        );
        stream.write_all(head.as_bytes()).unwrap();
        hold(stream);
    });
    let drip = Server::start(|mut stream, _| {
        let _ = stream.write_all(b"HTTP/1.1 200 X\r\n\r\n{");
        // Until the client has had enough.
        while stream.write_all(b" ").is_ok() {
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    // Whole, and then silence: nothing is missing.
    let whole = Server::start(|mut stream, _| {
        let head = format!("HTTP/1.1 200 X\r\nContent-Length: 900\r\n\r\n{PAGE}");
        stream.write_all(head.as_bytes()).unwrap();
        hold(stream);
    });
    for (server, expected) in [
        (silent, Some((None, 0))),
        (stalled, Some((Some(200), 1))),
        (drip, Some((Some(200), 0))),
        (whole, None),
    ] {
        let mut options = server.options();
        options.deadline = SHORT;
        let source = Source::new(options).unwrap();
        let limiter = Limiter::new(1, Duration::ZERO);
        let start = Instant::now();
        let fetched = source.fetch(&source.rings()[0], limiter.slot().await).await;
        let took = start.elapsed();
        assert!(took >= SHORT && took < SHORT * 10, "{took:?}");
        match expected {
            None => assert_eq!(fetched.unwrap().body, PAGE),
            Some((status, count)) => {
                let error = fetched.unwrap_err();
                assert_eq!(
                    (error.kind, error.reason),
                    (FetchErrorKind::InDoubt, "timeout")
                );
                assert_eq!(
                    (error.status, error.possibly_lost()),
                    (status, 1_000 - count)
                );
            }
        }
        assert_eq!((limiter.stats().in_use, limiter.stats().cooling), (0, 1));
    }
}

/// Only where nothing shows that the request arrived is its slot held for longer.
#[tokio::test]
async fn a_request_that_nobody_answered_holds_its_slot() {
    for (answered, held) in [(true, false), (false, true)] {
        let server = Server::start(move |mut stream, _| {
            if answered {
                let _ = stream.write_all(b"HTTP/1.1 200 X\r\nContent-Length: 900\r\n\r\n{");
            }
            hold(stream);
        });
        let mut options = server.options();
        options.deadline = SHORT;
        let source = Source::new(options).unwrap();
        let limiter = Limiter::new(1, Duration::ZERO);
        source
            .fetch(&source.rings()[0], limiter.slot().await)
            .await
            .unwrap_err();
        // From here on with a clock of our own.
        tokio::time::pause();
        let start = Instant::now();
        drop(limiter.slot().await);
        let waited = start.elapsed();
        assert_eq!(waited > Duration::from_secs(3), held, "{waited:?}");
        assert!(waited > Duration::from_millis(500), "{waited:?}");
        tokio::time::resume();
    }
}

#[tokio::test]
async fn a_body_longer_than_any_page_is_cut() {
    let server = Server::start(|mut stream, _| {
        let _ =
            stream.write_all(b"HTTP/1.1 200 X\r\nContent-Length: 67108864\r\n\r\n{\"events\":[");
        let chunk = r#"{"user_id":"u"},"#.repeat(4_096);
        for _ in 0..1_024 {
            if stream.write_all(chunk.as_bytes()).is_err() {
                return;
            }
        }
    });
    let mut options = server.options();
    options.max_page_bytes = 100_000;
    let error = fetch(&Source::new(options).unwrap()).await.unwrap_err();
    assert_eq!(
        (error.kind, error.reason),
        (FetchErrorKind::InDoubt, "too_large")
    );
    let page = error.partial.as_ref().unwrap();
    assert_eq!(page.body.len(), 100_000);
    assert_eq!(page.events(), (100_000 - r#"{"events":["#.len() + 1) / 16);
    // More than a page has been saved, so that a page is not the most that there can be.
    assert!(page.events() > 2_000);
    assert_eq!(error.possibly_lost(), 0);
}

#[tokio::test]
async fn a_refused_secret_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    std::fs::write(&path, "old").unwrap();
    let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
    // Without the header the second request may go out on the connection that is just being closed.
    let server = Server::answering(response(401, "Connection: close\r\n", ""));
    let mut options = server.options();
    options.auth = Auth::AgoraToken {
        token: Secret::File(path.clone()),
    };
    let source = Source::new(options).unwrap();
    // The file looks the same as before.
    std::fs::write(&path, "new").unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(modified).unwrap();
    for token in ["old", "new"] {
        let error = fetch(&source).await.unwrap_err();
        assert_eq!(error.status, Some(401), "{error:?}");
        let request = server.requests().pop().unwrap();
        assert!(
            request.contains(&format!("agora token={token}\r\n")),
            "{request}"
        );
    }
}

/// `check --connect` must not read: no credentials, no App ID, no event path. The connection serves the first fetch.
#[tokio::test]
async fn connecting_reads_no_events() {
    let server = Server::start(|mut stream, _| {
        let _ = stream.write_all(b"HTTP/1.1 404 X\r\nContent-Length: 9\r\n\r\n");
        if read_head(&mut stream).is_some() {
            let _ = stream.write_all(ok(PAGE).as_bytes());
        }
    });
    let source = Source::new(server.options()).unwrap();
    source.connect(&source.rings()[0].region).await.unwrap();
    let head = server.requests().pop().unwrap();
    assert!(head.starts_with("HEAD / HTTP/1.1\r\n"), "{head}");
    assert!(!head.to_lowercase().contains("authorization"), "{head}");
    assert_eq!(fetch(&source).await.unwrap().body, PAGE);
    assert_eq!(server.requests().len(), 1, "a second connection");
}

#[test]
fn options_that_cannot_work_are_named() {
    let server = Server::answering("");
    let refused = |change: fn(&mut SourceOptions)| {
        let mut options = server.options();
        options.proxy = Some(format!("http://user:{CANARY}@proxy:3128"));
        assert!(!format!("{options:?}").contains("canary"));
        change(&mut options);
        let error = Source::new(options).unwrap_err();
        assert!(
            !format!("{error} {error:?}").contains("canary"),
            "{error:?}"
        );
        error.to_string()
    };
    for (change, expected) in [
        (
            (|options| options.app_id.clear()) as fn(&mut SourceOptions),
            "app_id",
        ),
        (|options| options.app_id = "a/b".into(), "app_id"),
        (|options| options.regions.clear(), "no regions"),
        (
            |options| options.regions.push(options.regions[0].clone()),
            "two regions are named sim",
        ),
        (|options| options.user_path = "a/../b".into(), "user_path"),
        (
            |options| options.channel_path = "a?b".into(),
            "channel_path",
        ),
        (|options| options.channel_path.clear(), "channel_path"),
        (|options| options.deadline = Duration::ZERO, "deadline"),
        (|options| options.max_page_bytes = 0, "max_page_bytes"),
        (|options| options.proxy = Some("canary".into()), "proxy"),
        (
            |options| options.proxy = Some("ftp://canary@proxy".into()),
            "proxy",
        ),
        (
            |options| options.extra_ca_file = Some("/nonexistent".into()),
            "bad ca_file",
        ),
        (|options| options.user_agent = "a\nb".into(), "HTTP client"),
    ] {
        let error = refused(change);
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

/// Over real HTTP, with the simulator's opinion of the credentials, and its ledger.
#[tokio::test]
async fn the_simulator_agrees() {
    use rtm_sim::{Faults, Load, SimApp, SimAuth, SimConfig, Simulator};

    for (sim_auth, auth) in [
        (
            SimAuth::Basic {
                key: "k".into(),
                secret: CANARY.into(),
            },
            Auth::Basic {
                key: "k".into(),
                secret: Secret::Inline(CANARY.into()),
            },
        ),
        (
            SimAuth::Token {
                token: CANARY.into(),
                uid: "u".into(),
            },
            Auth::Token {
                token: Secret::Inline(CANARY.into()),
                uid: "u".into(),
            },
        ),
        (
            SimAuth::Agora {
                token: CANARY.into(),
            },
            Auth::AgoraToken {
                token: Secret::Inline(CANARY.into()),
            },
        ),
    ] {
        let simulator = Simulator::start(SimConfig {
            apps: vec![SimApp {
                app_id: "app".into(),
                auth: sim_auth,
            }],
            regions: vec!["eu".into()],
            load: Load {
                events_per_second: 0.0,
                ..Load::default()
            },
            ..SimConfig::default()
        })
        .await
        .unwrap();
        let event = r#"{"user_id":"u","type":"Login","ms":1578027420761,"new":[1.50]}"#;
        simulator.push("app", "eu", rtm_sim::Stream::User, &[event; 3]);
        let region = Region::new("eu", &simulator.base_url("eu"), false).unwrap();
        let source = Source::new(SourceOptions::new("app", auth, vec![region])).unwrap();
        let page = fetch(&source).await.unwrap();
        assert_eq!((page.count, page.complete), (3, true));
        let decoded = crate::decode(&page.body);
        assert!(
            decoded
                .events
                .iter()
                .all(|split| split.as_ref().unwrap().raw == event)
        );
        assert_eq!(fetch(&source).await.unwrap().count, 0);

        simulator.push("app", "eu", rtm_sim::Stream::User, &[event; 3]);
        simulator.set_faults(Faults {
            closed: 1.0,
            deletes: 1.0,
            ..Faults::default()
        });
        let error = fetch(&source).await.unwrap_err();
        assert_eq!(error.kind, FetchErrorKind::InDoubt);
        simulator.set_faults(Faults::default());
        assert_eq!(
            fetch(&source).await.unwrap().count,
            0,
            "the events are gone"
        );
        simulator.shutdown().await;
    }
}

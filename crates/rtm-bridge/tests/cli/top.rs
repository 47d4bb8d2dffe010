//! `top`, where there is no terminal. What it draws on one is tested beside it.

use std::io::{Read, Write};
use std::net::TcpListener;

use assert_cmd::Command;

const STATUS: &str = r#"{"v":1,"version":"0.1.0","commit":"c","at":"2026-11-24T12:05:04Z","uptime_seconds":60.5,
    "findings":[
        {"level":"losing","text":"Events may have been lost: up to 4,000 events in the last 5 minutes, of main r user."},
        {"level":"down","text":"Kafka is down."}],
    "apps":[{"name":"main","requests_per_second":10,"possibly_lost_ever":4000}],
    "sinks":[{"name":"kafka","kind":"kafka","health":"down","outlets":[{"app":"main","health":"down"}]}]}"#;

/// Answers every request with this, for as long as the test runs.
fn serve(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 1024];
            let length = stream.read(&mut request).unwrap();
            assert!(request[..length].starts_with(b"GET /status.json HTTP/1.1\r\n"));
            let head = format!(
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                answer.len()
            );
            stream.write_all((head + answer).as_bytes()).unwrap();
        }
    });
    address
}

fn top(args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::cargo_bin("rtm-bridge").unwrap();
    let output = command.arg("top").args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// Holds: without a terminal it prints one page without escapes, losses first, and ends.
#[test]
fn without_a_terminal_it_prints_one_page() {
    let address = serve(STATUS);
    let (code, out, err) = top(&["--url", &address]);
    assert_eq!(code, Some(0), "{err}");
    assert!(
        out.starts_with(&format!("rtm-bridge 0.1.0 at http://{address}")),
        "{out}"
    );
    assert_eq!(
        out.lines().nth(1),
        Some("Events may have been lost: up to 4,000 events in the last 5 minutes, of main r")
    );
    assert!(out.contains("\nKafka is down.\n"), "{out}");
    assert!(out.contains("possibly lost 4000"), "{out}");
    assert!(!out.contains('\u{1b}'), "{out:?}");
}

/// Holds: the address is the configuration's, also where the rest of it cannot be used.
#[test]
fn the_address_is_the_configurations() {
    let address = serve(STATUS);
    let (_, port) = address.rsplit_once(':').unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rtm-bridge.toml");
    std::fs::write(&file, format!("[admin]\nlisten = \"0.0.0.0:{port}\"\n")).unwrap();
    let (code, out, err) = top(&["--config", file.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains(&address), "{out}");
}

/// Holds: a configuration that is missing or broken is told, and no other bridge is shown in place of its own.
#[test]
fn a_configuration_that_says_no_address_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rtm-bridge.toml");
    let place = file.to_str().unwrap();
    let told = |says: &str| {
        let (code, _, err) = top(&["--once", "--config", place]);
        assert_eq!(code, Some(2), "{err}");
        assert!(
            err.contains(says) && err.contains("rtm-bridge.toml"),
            "{err}"
        );
    };
    told("No such file");
    for (text, says) in [
        ("[admin\n", "expected"),
        ("[admin]\nlisten = \"nowhere\"\n", "admin.listen"),
    ] {
        std::fs::write(&file, text).unwrap();
        told(says);
    }
    std::fs::write(&file, "[admin]\nlisten = \"localhost:0\"\n").unwrap();
    let (code, _, err) = top(&["--once", "--config", place]);
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("--url"), "{err}");
}

/// Holds: a bridge that is away, what is no bridge, and no address, are told apart and are failures.
#[test]
fn what_does_not_answer_is_told() {
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let (code, _, err) = top(&["--once", "--url", &free]);
    assert_eq!(code, Some(1), "{err}");
    assert!(
        err.contains(&format!("no answer from http://{free}")) && err.contains("refused"),
        "{err}"
    );
    let (code, _, err) = top(&["--once", "--url", &serve("<html>")]);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("not a bridge's status"), "{err}");
    let (code, _, err) = top(&["--url", "ftp://x"]);
    assert_eq!(code, Some(2), "{err}");
    assert_eq!(top(&["--interval", "0s"]).0, Some(2));
}

/// Answers what it is told, to whatever comes, and hangs up.
fn answer(bytes: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(bytes);
        }
    });
    address
}

/// Holds: who asks without TLS where there is TLS is told to ask with it, and who asks with TLS where there is none, that there
/// is none.
#[test]
fn the_wrong_scheme_is_told() {
    // An alert of TLS, or nothing.
    for bytes in [&b"\x15\x03\x03\x00\x02\x02\x46"[..], b""] {
        let address = answer(bytes);
        let (code, _, err) = top(&["--once", "--url", &address]);
        assert_eq!(code, Some(1), "{err}");
        let says = format!("if it has admin.tls, ask https://{address}");
        assert!(err.contains(&says), "{err}");
    }
    let address = answer(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    let (code, _, err) = top(&["--once", "--url", &format!("https://{address}")]);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("the server does not speak TLS"), "{err}");
}

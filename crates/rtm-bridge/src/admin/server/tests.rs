//! Clients that sit there, and an address that is taken.
#![allow(clippy::unwrap_used)]

use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

fn loopback() -> AdminConfig {
    AdminConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        ..AdminConfig::default()
    }
}

fn router(_: Current) -> Router {
    Router::new()
        .route("/", get(|| async { "here" }))
        .route("/large", get(|| async { "x".repeat(8 << 20) }))
}

fn bound(listening: &Listening) -> SocketAddr {
    listening.borrow().clone().unwrap().unwrap()
}

async fn get_from(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    let read = timeout(Duration::from_secs(5), stream.read(&mut byte)).await;
    matches!(read, Ok(Ok(0) | Err(_)))
}

/// Holds: however many clients sit there, with nothing or half a request, a client that asks is answered, those that came
/// first have to go, and an answer is the end of its connection.
#[tokio::test]
async fn clients_that_sit_there_make_room() {
    let stop = CancellationToken::new();
    let listening = serve(loopback(), router, stop.clone()).await;
    let address = bound(&listening);
    let mut idle = Vec::new();
    for index in 0..200 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        if index % 2 == 0 {
            stream.write_all(b"GET / HTTP/1.1\r\nX: ").await.unwrap();
        }
        idle.push(stream);
    }
    for _ in 0..20 {
        let answer = timeout(Duration::from_secs(5), get_from(address))
            .await
            .unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("here"),
            "{answer}"
        );
        assert!(answer.contains("connection: close"), "{answer}");
    }
    for stream in &mut idle[..100] {
        assert!(is_closed(stream).await);
    }
    stop.cancel();
    for stream in &mut idle[100..] {
        assert!(is_closed(stream).await);
    }
}

/// Holds: clients that ask and do not read the answer hold a few answers, and make room for those that do read.
#[tokio::test]
async fn clients_that_do_not_read_make_room() {
    let stop = CancellationToken::new();
    let listening = serve(loopback(), router, stop.clone()).await;
    let address = bound(&listening);
    let mut lazy = Vec::new();
    for _ in 0..30 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        // Until the answer begins, so that each is answered after the one before.
        stream.readable().await.unwrap();
        lazy.push(stream);
    }
    let answer = timeout(Duration::from_secs(5), get_from(address))
        .await
        .unwrap();
    assert!(answer.ends_with("here"), "{answer}");
    let mut whole = 0;
    for stream in &mut lazy {
        let mut got = Vec::new();
        let _ = stream.read_to_end(&mut got).await;
        whole += usize::from(got.len() > 8 << 20);
    }
    assert!(
        (1..=8).contains(&whole),
        "{whole} of 30 were answered at once"
    );
}

/// Holds: a client that does not finish its request has to go after a while, with room for all.
#[tokio::test(start_paused = true)]
async fn a_request_has_an_end() {
    let listening = serve(loopback(), router, CancellationToken::new()).await;
    let mut stream = TcpStream::connect(bound(&listening)).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nX: ").await.unwrap();
    let began = tokio::time::Instant::now();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let took = began.elapsed();
    assert!(took >= ASKING && took <= WHOLE + PAUSE, "{took:?}");
}

/// Holds: an address that is taken, and a file that is missing, hold nothing up; the endpoint is there once they are.
#[tokio::test]
async fn an_endpoint_that_cannot_be_opened_is_tried_again() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    let config = AdminConfig {
        listen: address.into(),
        token_file: Some(token.clone()),
        ..AdminConfig::default()
    };
    let stop = CancellationToken::new();
    let mut listening = serve(config, router, stop.clone()).await;
    let why = listening.borrow().clone().unwrap().unwrap_err();
    assert!(why.starts_with("admin.token_file: cannot read "), "{why}");
    std::fs::write(&token, "t").unwrap();
    let says = |text: &'static str| move |listening: &Option<Result<SocketAddr, String>>| matches!(listening, Some(Err(why)) if why.contains(text));
    let found = listening.wait_for(says("in use (os error"));
    timeout(Duration::from_secs(20), found)
        .await
        .unwrap()
        .unwrap();
    drop(taken);
    let found = listening.wait_for(|listening| *listening == Some(Ok(address)));
    timeout(Duration::from_secs(20), found)
        .await
        .unwrap()
        .unwrap();
    assert!(get_from(address).await.ends_with("here"));
    stop.cancel();
}

/// Holds: a file that hangs, here a FIFO that nobody writes to, is told, and the start does not wait for it.
#[tokio::test]
async fn a_file_that_hangs_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.unwrap().success());
    let tls = crate::config::AdminTls {
        cert_file: fifo.clone(),
        key_file: "/nowhere/key".into(),
    };
    let config = AdminConfig {
        tls: Some(tls),
        ..loopback()
    };
    let listening = serve(config, router, CancellationToken::new()).await;
    let told = listening.borrow().clone();
    // Ends the thread, which the runtime would wait for.
    let writer = std::fs::File::options().read(true).write(true).open(&fifo);
    drop(writer.unwrap());
    let told = told.unwrap().unwrap_err();
    assert!(told.contains("does not answer"), "{told}");
}

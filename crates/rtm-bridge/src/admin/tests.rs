#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Holds: before the bridge runs the page is there, and its document says that it starts, and is no success.
#[tokio::test]
async fn a_bridge_that_starts_says_so() {
    let stop = CancellationToken::new();
    let config = AdminConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        ..AdminConfig::default()
    };
    let listening = serve(&config, Slot::default(), Shown::default(), stop.clone()).await;
    let address = listening.borrow().clone().unwrap().unwrap();
    for path in ["/", "/status"] {
        let page = get(address, path).await;
        assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
        assert!(page.contains("status.json"), "{page}");
    }
    let document = get(address, "/status.json?app=any").await;
    assert!(document.starts_with("HTTP/1.1 503 "), "{document}");
    assert!(document.contains("The bridge is starting"), "{document}");
    let ready = get(address, "/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 503 "), "{ready}");
    stop.cancel();
}

/// Holds: a request that names a host of anybody's is refused, whatever it asks for; with a token it is asked for that
/// instead, everywhere but where it is said that the process lives.
#[tokio::test]
async fn foreign_names_and_clients_without_a_token_are_refused() {
    let ask = async |address: SocketAddr, path: &str, head: &str| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\n{head}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let stop = CancellationToken::new();
    let mut config = AdminConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        ..AdminConfig::default()
    };
    let listening = serve(&config, Slot::default(), Shown::default(), stop.clone()).await;
    let address = listening.borrow().clone().unwrap().unwrap();
    for path in [
        "/",
        "/status",
        "/status.json",
        "/metrics",
        "/readyz",
        "/healthz",
    ] {
        let answer = ask(address, path, "Host: rebound.example:9464\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 421 "), "{answer}");
        assert!(answer.contains("admin.hosts"), "{answer}");
        let answer = ask(address, path, "Host: bridge:9464\r\n").await;
        assert!(!answer.starts_with("HTTP/1.1 4"), "{answer}");
    }

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "t0ken\n").unwrap();
    config.token_file = Some(file);
    let listening = serve(&config, Slot::default(), Shown::default(), stop.clone()).await;
    let address = listening.borrow().clone().unwrap().unwrap();
    for path in [
        "/",
        "/status",
        "/status.json",
        "/metrics",
        "/readyz",
        "/nowhere",
    ] {
        for wrong in ["", "Authorization: Bearer other\r\n"] {
            let answer = ask(address, path, &format!("Host: x\r\n{wrong}")).await;
            assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
            assert!(answer.contains("www-authenticate: Bearer "), "{answer}");
        }
        let right = "Host: b.example.com\r\nAuthorization: Bearer t0ken\r\n";
        let answer = ask(address, path, right).await;
        assert!(
            !answer.starts_with("HTTP/1.1 401 ") && !answer.starts_with("HTTP/1.1 421 "),
            "{answer}"
        );
    }
    let answer = ask(address, "/healthz", "Host: x\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    stop.cancel();
}

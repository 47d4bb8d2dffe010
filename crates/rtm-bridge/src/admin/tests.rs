#![allow(clippy::unwrap_used)]

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
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let address = serve(any, Slot::default(), Shown::default(), stop.clone())
        .await
        .unwrap();
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

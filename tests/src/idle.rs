//! Clients that connect to an endpoint and ask nothing, or never finish to.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// So many clients, which come back when they are sent away, until this is dropped.
#[derive(Debug)]
pub struct Idle(#[expect(dead_code, reason = "ends them when it is dropped")] JoinSet<()>);

impl Idle {
    /// Connects to `admin`, an address such as `http://127.0.0.1:9464`.
    #[must_use]
    pub fn start(admin: &str, clients: usize) -> Idle {
        let address = admin.trim_start_matches("http://");
        let mut set = JoinSet::new();
        for number in 0..clients {
            set.spawn(one(address.to_owned(), number));
        }
        Idle(set)
    }
}

async fn one(address: String, number: usize) {
    let begun: &[u8] = match number % 3 {
        0 => b"",
        1 => b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-Slow: ",
        _ => b"G",
    };
    loop {
        if let Ok(mut stream) = TcpStream::connect(&address).await
            && stream.write_all(begun).await.is_ok()
        {
            let _ = stream.read(&mut [0; 64]).await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

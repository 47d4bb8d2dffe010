//! What is taken, and what is not.
#![allow(clippy::unwrap_used)]

use super::*;

/// Holds: addresses, host names and a port alone are taken, and shown as they are written.
#[test]
fn addresses_names_and_ports_are_taken() {
    for (text, shown, as_reached_here, is_loopback) in [
        ("127.0.0.1:9464", "127.0.0.1:9464", "127.0.0.1:9464", true),
        ("[::1]:9464", "[::1]:9464", "[::1]:9464", true),
        ("0.0.0.0:9464", "0.0.0.0:9464", "127.0.0.1:9464", false),
        ("[::]:1", "[::]:1", "[::1]:1", false),
        (":9464", ":9464", "127.0.0.1:9464", false),
        ("localhost:0", "localhost:0", "localhost:0", true),
        (
            "Bridge-1.example.com:9464",
            "bridge-1.example.com:9464",
            "bridge-1.example.com:9464",
            false,
        ),
    ] {
        let listen: Listen = text.parse().unwrap();
        assert_eq!(listen.to_string(), shown);
        assert_eq!(listen.as_reached_here().to_string(), as_reached_here);
        assert_eq!(listen.is_loopback(), is_loopback, "{text}");
    }
}

/// Holds: what has no port, and an address with a slip, are refused in words.
#[test]
fn what_is_no_place_is_refused() {
    for text in [
        "",
        "9464",
        "localhost",
        "127.0.0.1",
        "127.0.0:80",
        "1.2.3.400:80",
        "a b:80",
        "::1:80",
        "host:99999",
        "host:",
        "http://host:80",
    ] {
        let error = text.parse::<Listen>().unwrap_err();
        assert!(error.to_string().contains("localhost:9464"), "{text}");
    }
}

/// Holds: `localhost` listens where people look for it first, and a port alone on every address.
#[tokio::test]
async fn names_and_ports_can_be_listened_on() {
    let name: Listen = "localhost:0".parse().unwrap();
    let bound = name.bind().await.unwrap().local_addr().unwrap();
    assert!(bound.ip().is_loopback(), "{bound}");
    let port: Listen = ":0".parse().unwrap();
    let listener = port.bind().await.unwrap();
    let bound = listener.local_addr().unwrap();
    assert!(bound.ip().is_unspecified(), "{bound}");
    let here = SocketAddr::from((Ipv4Addr::LOCALHOST, bound.port()));
    tokio::net::TcpStream::connect(here).await.unwrap();
}

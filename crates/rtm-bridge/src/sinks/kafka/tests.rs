#![allow(clippy::unwrap_used)]

use super::*;

/// Holds: brokers that refuse are told at once, each with its reason; one that answers is enough.
#[tokio::test]
async fn brokers_that_refuse_are_told() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let there = listener.local_addr().unwrap().to_string();
    let away = "127.0.0.1:1".to_owned();
    let error = connect(std::slice::from_ref(&away)).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("127.0.0.1:1: Connection refused"),
        "{error}"
    );
    assert!(connect(&[away, there]).await.is_ok());
    for (broker, is_at) in [
        ("kafka", "kafka:9092"),
        ("SASL_SSL://kafka:9093", "kafka:9093"),
        ("[::1]:9094", "[::1]:9094"),
        ("[::1]", "[::1]:9092"),
    ] {
        assert_eq!(address(broker), is_at);
    }
}

//! OIDC's client credentials: tokens by HTTP for a broker that asks for them.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rtm_sink::conformance::{PATIENCE, assert_in_order, converge, records};
use rtm_sink::{Progress, PublishErrorKind, Sink, Topic};
use rtm_sink_kafka::{KafkaOptions, KafkaSink};
use rtm_tests::brokers::{self, Door, SecureKafka, unique};
use rtm_tests::wait_for;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::kafka_exact::sink;
use super::kafka_sink::{read, with};
use super::lanes::{key, recalled};

const SECRET: &str = "canary-oidc";

/// How long a token lasts, in seconds.
const LASTS: u64 = 5;

/// Gives a token to whoever knows [`SECRET`], and counts the tokens.
async fn endpoint() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/token", listener.local_addr().unwrap());
    let given = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&given);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let mut length = 0;
            while !String::from_utf8_lossy(&request[..length]).contains("grant_type=") {
                length += stream.read(&mut request[length..]).await.unwrap();
            }
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            let known = STANDARD.encode(format!("bridge:{SECRET}"));
            let is_known = request.contains(&format!("Basic {known}"))
                && request.ends_with("grant_type=client_credentials&scope=kafka%20write");
            let (status, body) = if is_known {
                count.fetch_add(1, Ordering::Relaxed);
                (
                    "200 OK",
                    json!({ "access_token": token(), "expires_in": LASTS }),
                )
            } else {
                ("401 Unauthorized", json!({ "error": "invalid_client" }))
            };
            let body = body.to_string();
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (url, given)
}

/// A token that nobody has signed, which the harness's broker takes.
fn token() -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let claims = json!({ "sub": SecureKafka::ADMIN, "iat": now - 1, "exp": now + LASTS });
    let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.", part(json!({ "alg": "none" })), part(claims))
}

fn by(broker: &SecureKafka, url: &str, secret: &str) -> KafkaOptions {
    let over = [
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "OAUTHBEARER"),
        ("sasl.oauthbearer.method", "oidc"),
        ("sasl.oauthbearer.token.endpoint.url", url),
        ("sasl.oauthbearer.client.id", "bridge"),
        ("sasl.oauthbearer.client.secret", secret),
        ("sasl.oauthbearer.scope", "kafka write"),
    ];
    with(KafkaOptions::new(vec![broker.address(Door::Sasl)]), &over)
}

/// Holds: with OIDC's client credentials records are published, and a token is renewed before it ends; a refusal of the
/// endpoint is the reason that a call ends with, without the secret.
#[tokio::test(flavor = "multi_thread")]
async fn oidc_gives_tokens() {
    let broker = brokers::secure_kafka().await;
    let (url, given) = endpoint().await;
    let by = |secret| by(broker, &url, secret);
    let topic = Topic::from(unique("oidc"));
    broker
        .kafka()
        .create_topic(topic.as_str(), 1, &[])
        .await
        .unwrap();
    let sink = KafkaSink::new(by(SECRET)).unwrap();
    let mut published = records(&topic, 100);
    assert_eq!(converge(&sink, &published).await, []);
    let before = given.load(Ordering::Relaxed);
    wait_for("another token", PATIENCE, async || {
        given.load(Ordering::Relaxed) > before
    })
    .await
    .unwrap();
    let more = records(&topic, 100);
    assert_eq!(converge(&sink, &more).await, []);
    published.extend(more);
    assert_in_order(&read(broker.kafka(), &topic).await, &published);
    assert_eq!(sink.stats().rebuilds, 0);
    assert!(
        sink.check(&[topic.as_str()]).await.unwrap().brokers[0]
            .trouble
            .is_none()
    );

    let options = by("canary-wrong");
    let sink = KafkaSink::new(options.clone()).unwrap();
    let error = timeout(PATIENCE, sink.publish(&published)).await.unwrap();
    let error = error.unwrap_err();
    let text = error.source.to_string();
    assert!(
        text.contains("/token: it answers 401 Unauthorized invalid_client"),
        "{text}"
    );
    assert!(!format!("{text} {sink:?} {options:?}").contains("canary"));
}

/// Holds: OIDC's tokens suffice to store records once and only once, and to read back what is stored.
#[tokio::test(flavor = "multi_thread")]
async fn oidc_carries_exactly_once() {
    let broker = brokers::secure_kafka().await;
    let (url, _) = endpoint().await;
    let [progress, topic] = ["progress", "oidc"].map(unique);
    for (name, settings) in [
        (&progress, &[("cleanup.policy", "compact")][..]),
        (&topic, &[]),
    ] {
        broker
            .kafka()
            .create_topic(name, 1, settings)
            .await
            .unwrap();
    }
    let (topic, key) = (Topic::from(topic), key(0));
    let published = records(&topic, 100);
    let stored = Progress {
        key: key.clone(),
        value: "stored".into(),
    };
    let make = || sink(by(broker, &url, SECRET), &progress);
    let storing = make();
    let stores = async {
        while let Err(error) = storing.publish_exactly(&published, &stored).await {
            assert_eq!(error.kind, PublishErrorKind::Unavailable, "{error}");
        }
    };
    timeout(PATIENCE, stores).await.unwrap();
    assert_eq!(recalled(&make(), &key).await, Some(stored.value));
    assert_in_order(&read(broker.kafka(), &topic).await, &published);
    let topics = [topic.as_str()];
    let looked = make().check(&topics).await.unwrap();
    assert_eq!(looked.exact.unwrap().unwrap(), "1 partition(s)");
}

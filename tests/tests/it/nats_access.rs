//! The NATS sink before servers that ask who it is: every way to authenticate, denials, TLS and mutual TLS.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa};
use rtm_sink::conformance::{converge, record, records};
use rtm_sink::{Outcome, PublishError, PublishErrorKind, Record, Sink, Topic};
use rtm_sink_nats::{NatsAuth, NatsOptions, NatsSink, NatsTls, PublishFailure, Secret, StreamSpec};
use rtm_tests::brokers::Nats;
use serde_json::{Value, json};
use tokio::time::timeout;

/// For what must happen, on a machine that compiles at the same time.
const SOON: Duration = Duration::from_secs(30);

/// A sink that makes its JetStream stream by itself, since the harness cannot log in.
fn options(nats: &Nats, auth: NatsAuth) -> NatsOptions {
    NatsOptions {
        auth,
        create_stream: Some(StreamSpec::new(vec!["rtm.>".to_owned()])),
        ..NatsOptions::new(vec![nats.url().to_owned()], "RTM")
    }
}

async fn publish(options: NatsOptions, records: &[Record]) -> Result<(), PublishError> {
    let sink = NatsSink::connect(options).await.unwrap();
    timeout(SOON, sink.publish(records))
        .await
        .expect("publish returns")
}

async fn assert_accepted(options: NatsOptions) {
    let records = records(&Topic::from("rtm.a"), 10);
    publish(options, &records).await.expect("confirmed");
}

/// Refused at once, although the sink would wait for a server that is away, and for a person to hear of.
async fn assert_refused(options: NatsOptions) {
    let options = NatsOptions {
        ack_timeout: 2 * SOON,
        ..options
    };
    let records = records(&Topic::from("rtm.a"), 10);
    let error = publish(options, &records).await.expect_err("refused");
    assert_eq!(error.kind, PublishErrorKind::Misconfigured, "{error:?}");
    assert!(
        matches!(
            error.source.downcast_ref(),
            Some(PublishFailure::NotConnected(Some(_)))
        ),
        "{error:?}"
    );
}

/// Holds: a password opens, a wrong one is refused, and one that is put right in its file opens without a restart.
#[tokio::test]
async fn passwords() {
    let server = Nats::start_own_with("authorization { user: bridge, password: right }")
        .await
        .unwrap();
    let with = |password: Secret| NatsAuth::UserPassword {
        user: "bridge".to_owned(),
        password,
    };
    assert_accepted(options(&server, with("right".into()))).await;
    assert_refused(options(&server, with("wrong".into()))).await;
    assert_refused(options(&server, NatsAuth::None)).await;

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    std::fs::write(&file, "wrong\n").unwrap();
    let sink = NatsSink::connect(options(&server, with(Secret::File(file.clone()))))
        .await
        .unwrap();
    let records = records(&Topic::from("rtm.a"), 10);
    let error = timeout(SOON, sink.publish(&records)).await.unwrap();
    assert_eq!(error.unwrap_err().kind, PublishErrorKind::Misconfigured);
    std::fs::write(&file, "right\n").unwrap();
    assert_eq!(converge(&sink, &records).await, []);
}

/// Holds: as for passwords.
#[tokio::test]
async fn tokens() {
    let server = Nats::start_own_with("authorization { token: right }")
        .await
        .unwrap();
    assert_accepted(options(&server, NatsAuth::Token("right".into()))).await;
    assert_refused(options(&server, NatsAuth::Token("wrong".into()))).await;
}

/// Holds: the server's nonce is signed with the seed.
#[tokio::test]
async fn nkeys() {
    let user = KeyPair::new_user();
    let configuration = format!(
        "authorization {{ users: [ {{ nkey: {} }} ] }}",
        user.public_key()
    );
    let server = Nats::start_own_with(&configuration).await.unwrap();
    let with = |pair: &KeyPair| NatsAuth::NkeySeed(pair.seed().unwrap().as_str().into());
    assert_accepted(options(&server, with(&user))).await;
    assert_refused(options(&server, with(&KeyPair::new_user()))).await;
}

/// Holds: a JWT and its seed open, from a credentials file or each by itself; another's seed does not.
#[tokio::test]
async fn credentials() {
    let operator = KeyPair::new_operator();
    let account = KeyPair::new_account();
    let system = KeyPair::new_account();
    let user = KeyPair::new_user();
    let limits = json!({"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "conn": -1, "leaf": -1,
        "wildcards": true, "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1});
    let plain = json!({"type": "account", "version": 2, "limits": {"subs": -1, "data": -1, "payload": -1,
        "imports": -1, "exports": -1, "conn": -1, "leaf": -1, "wildcards": true}});
    let configuration = format!(
        "operator: {}\nsystem_account: {system}\nresolver: MEMORY\nresolver_preload {{\n{account}: {}\n{system}: {}\n}}",
        jwt(
            &operator,
            &operator,
            json!({"type": "operator", "version": 2})
        ),
        jwt(
            &operator,
            &account,
            json!({"type": "account", "version": 2, "limits": limits})
        ),
        jwt(&operator, &system, plain),
        account = account.public_key(),
        system = system.public_key(),
    );
    let server = Nats::start_own_with(&configuration).await.unwrap();
    let user_jwt = jwt(
        &account,
        &user,
        json!({"type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1}),
    );
    let with = |seed: &KeyPair| NatsAuth::Jwt {
        jwt: user_jwt.as_str().into(),
        seed: seed.seed().unwrap().as_str().into(),
    };
    assert_accepted(options(&server, with(&user))).await;
    assert_refused(options(&server, with(&KeyPair::new_user()))).await;

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bridge.creds");
    let seed = user.seed().unwrap();
    std::fs::write(
        &file,
        format!(
            "-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        ),
    )
    .unwrap();
    assert_accepted(options(&server, NatsAuth::CredentialsFile(file))).await;
}

/// A JWT as NATS signs them (ADR-14).
#[expect(
    clippy::needless_pass_by_value,
    reason = "made by `json!` where it is given"
)]
fn jwt(issuer: &KeyPair, subject: &KeyPair, nats: Value) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = json!({"typ": "JWT", "alg": "ed25519-nkey"});
    let claims = json!({"jti": "1", "iat": 1_700_000_000, "iss": issuer.public_key(), "name": "test",
        "sub": subject.public_key(), "nats": nats});
    let signed = format!("{}.{}", encode(&header), encode(&claims));
    let signature = issuer.sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Holds: what the server denies is told at once, although the server answers no denied publish; what it does not deny
/// is confirmed in the same call; and a user who may receive no acknowledgement is told so.
#[tokio::test]
async fn denials() {
    let server = Nats::start_own_with(
        "authorization { users: [
            { user: admin, password: p }
            { user: limited, password: p, permissions: {
                publish: { allow: [ \"rtm.ok.>\", \"$JS.API.>\" ] }, subscribe: \"_MINE.>\" } }
            { user: deaf, password: p, permissions: {
                publish: \"rtm.>\", subscribe: { deny: \">\" } } }
        ] }",
    )
    .await
    .unwrap();
    let as_user = |user: &str| NatsOptions {
        ack_timeout: SOON,
        ..options(
            &server,
            NatsAuth::UserPassword {
                user: user.to_owned(),
                password: "p".into(),
            },
        )
    };
    assert_accepted(as_user("admin")).await;

    let limited = NatsOptions {
        inbox_prefix: "_MINE".to_owned(),
        ..as_user("limited")
    };
    let mut batch = records(&Topic::from("rtm.ok.a"), 40);
    batch.push(record(&Topic::from("rtm.no.a"), 0));
    let start = tokio::time::Instant::now();
    let error = publish(limited.clone(), &batch).await.unwrap_err();
    assert_eq!(error.kind, PublishErrorKind::Misconfigured, "{error:?}");
    assert!(
        matches!(error.source.downcast_ref(), Some(PublishFailure::Denied(said)) if said.contains("rtm.no.a")),
        "{error:?}"
    );
    assert!(
        error.outcomes[..40]
            .iter()
            .all(|o| *o == Outcome::Confirmed)
    );
    assert_eq!(error.outcomes[40], Outcome::Unknown);
    // Far more denials than the client keeps events for.
    let flood = records(&Topic::from("rtm.no.b"), 3000);
    let error = publish(limited, &flood).await.unwrap_err();
    assert_eq!(error.kind, PublishErrorKind::Misconfigured, "{error:?}");
    assert!(error.outcomes.iter().all(|o| *o == Outcome::Unknown));

    let deaf = publish(as_user("deaf"), &batch[..10]).await.unwrap_err();
    assert_eq!(deaf.kind, PublishErrorKind::Misconfigured, "{deaf:?}");
    assert!(
        matches!(deaf.source.downcast_ref(), Some(PublishFailure::Denied(_))),
        "{deaf:?}"
    );
    assert!(start.elapsed() < SOON, "none of it waited for a timeout");
}

/// A certificate authority's own files, and those of a server and a client that it vouches for.
fn certificates(dir: &Path) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let authority = CertifiedIssuer::self_signed(authority, key).unwrap();
    std::fs::write(dir.join("ca.pem"), authority.pem()).unwrap();
    for (name, host) in [("server", "127.0.0.1"), ("client", "bridge")] {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        std::fs::write(dir.join(format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

/// Holds: a server's certificate is verified, against the authority given, and ours is shown where it is asked for; a
/// server without TLS is refused where TLS is required.
#[tokio::test]
async fn tls() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let path = |name: &str| dir.path().join(name);
    let configuration = format!(
        "tls {{ cert_file: \"{0}/server.pem\", key_file: \"{0}/server.key\", ca_file: \"{0}/ca.pem\", verify: true }}",
        dir.path().display()
    );
    let server = Nats::start_own_with(&configuration).await.unwrap();
    let with = |ca: bool, client: bool| NatsOptions {
        tls: NatsTls {
            required: true,
            ca_file: ca.then(|| path("ca.pem")),
            cert_file: client.then(|| path("client.pem")),
            key_file: client.then(|| path("client.key")),
        },
        ..options(&server, NatsAuth::None)
    };
    assert_accepted(with(true, true)).await;
    assert_refused(with(false, true)).await;
    assert_refused(with(true, false)).await;

    let plain = Nats::start_own().await.unwrap();
    let servers = vec![plain.url().to_owned()];
    assert_refused(NatsOptions {
        servers,
        ..with(true, true)
    })
    .await;
}

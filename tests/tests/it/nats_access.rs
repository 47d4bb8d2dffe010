//! The NATS sink before servers that ask who it is: every way to authenticate, denials, rotation, and what is shown of secrets.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use rtm_sink::conformance::{converge, record, records};
use rtm_sink::{Outcome, PublishError, PublishErrorKind, Record, Sink, Topic};
use rtm_sink_nats::{
    CheckError, NatsAuth, NatsOptions, NatsSink, PublishFailure, Secret, StreamSpec,
};
use rtm_tests::brokers::Nats;
use rtm_tests::wait_for;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::nats_log::Log;
use super::nats_sink::{Mode, both_modes};

/// For what must happen, on a machine that compiles at the same time.
const SOON: Duration = Duration::from_secs(30);

/// A sink that makes its JetStream stream by itself, since the harness cannot log in.
pub(super) fn options(nats: &Nats, auth: NatsAuth) -> NatsOptions {
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

pub(super) async fn assert_accepted(options: NatsOptions) {
    let records = records(&Topic::from("rtm.a"), 10);
    publish(options, &records).await.expect("confirmed");
}

/// Refused at once, although the sink would wait for a server that is away, and for a person to hear of, who is told
/// `why`.
pub(super) async fn assert_refused(options: NatsOptions, why: &str) {
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
    let said = chain(&error);
    assert!(said.contains(why), "`{said}` should say: {why}");
}

/// An error as the log tells it.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |error| error.source());
    sources.fold(error.to_string(), |chain, source| {
        format!("{chain}: {source}")
    })
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
    assert_refused(
        options(&server, with("wrong".into())),
        "authorization violation",
    )
    .await;
    assert_refused(options(&server, NatsAuth::None), "authorization violation").await;

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
    assert_refused(
        options(&server, NatsAuth::Token("wrong".into())),
        "authorization violation",
    )
    .await;
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
    assert_refused(
        options(&server, with(&KeyPair::new_user())),
        "authorization violation",
    )
    .await;
}

/// Who signs users, for a server that trusts JWTs.
struct Signer {
    account: KeyPair,
    configuration: String,
}

impl Signer {
    fn new() -> Signer {
        let operator = KeyPair::new_operator();
        let account = KeyPair::new_account();
        let system = KeyPair::new_account();
        let limits = json!({"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "conn": -1,
            "leaf": -1, "wildcards": true, "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1});
        let plain = json!({"type": "account", "version": 2, "limits": {"subs": -1, "data": -1, "payload": -1,
            "imports": -1, "exports": -1, "conn": -1, "leaf": -1, "wildcards": true}});
        let configuration = format!(
            "operator: {}\nsystem_account: {system}\nresolver: MEMORY\n\
             resolver_preload {{\n{account}: {}\n{system}: {}\n}}",
            jwt(
                &operator,
                &operator,
                json!({"type": "operator", "version": 2}),
                None
            ),
            jwt(
                &operator,
                &account,
                json!({"type": "account", "version": 2, "limits": limits}),
                None
            ),
            jwt(&operator, &system, plain, None),
            account = account.public_key(),
            system = system.public_key(),
        );
        Signer {
            account,
            configuration,
        }
    }

    fn user(&self, user: &KeyPair, expires: Option<u64>) -> String {
        let nats = json!({"type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1});
        jwt(&self.account, user, nats, expires)
    }

    /// A credentials file's text.
    fn credentials(&self, user: &KeyPair, expires: Option<u64>) -> String {
        let (jwt, seed) = (self.user(user, expires), user.seed().unwrap());
        format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
    }
}

/// Holds: a JWT and its seed open, from a credentials file or each by itself; another's seed does not.
#[tokio::test]
async fn credentials() {
    let signer = Signer::new();
    let server = Nats::start_own_with(&signer.configuration).await.unwrap();
    let user = KeyPair::new_user();
    let with = |seed: &KeyPair| NatsAuth::Jwt {
        jwt: signer.user(&user, None).as_str().into(),
        seed: seed.seed().unwrap().as_str().into(),
    };
    assert_accepted(options(&server, with(&user))).await;
    assert_refused(
        options(&server, with(&KeyPair::new_user())),
        "authorization violation",
    )
    .await;

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bridge.creds");
    std::fs::write(&file, signer.credentials(&user, None)).unwrap();
    assert_accepted(options(&server, NatsAuth::CredentialsFile(file))).await;
}

/// Holds: credentials that expire hold the records, for a person to hear of; put right in their file they open without a
/// restart, and nothing is lost, repeated or out of order.
#[tokio::test]
async fn credentials_that_expire_are_rotated() {
    let signer = Signer::new();
    let server = Nats::start_own_with(&signer.configuration).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bridge.creds");
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let first = signer.credentials(&KeyPair::new_user(), Some(now + 3));
    std::fs::write(&file, first).unwrap();
    let sink = NatsSink::connect(options(&server, NatsAuth::CredentialsFile(file.clone())))
        .await
        .unwrap();
    let records = records(&Topic::from("rtm.a"), 20);
    assert_eq!(converge(&sink, &records[..10]).await, []);
    let refused = async || {
        // The expiry itself is a connection that ends, and may be.
        let Err(error) = timeout(SOON, sink.publish(&records[..10])).await.unwrap() else {
            return false;
        };
        error.kind == PublishErrorKind::Misconfigured
    };
    wait_for("the credentials to expire", SOON, refused)
        .await
        .unwrap();
    assert!(!sink.stats().up);
    let second = signer.credentials(&KeyPair::new_user(), None);
    std::fs::write(&file, second).unwrap();
    assert_eq!(converge(&sink, &records).await, []);
    let stats = sink.stats();
    assert!(
        stats.up && stats.reconnects > 0 && stats.out_of_order == 0,
        "{stats:?}"
    );
    assert_eq!(stats.confirmed - stats.duplicates, 20);
}

/// Holds: whatever becomes of a connection, no secret is in an error, in what `Debug` shows, in the counts or in the log
/// at any level; what the server or the configuration calls them by is.
#[tokio::test]
async fn secrets_appear_nowhere() {
    const CANARY: &str = "canary-5ec2e7";
    let log = Log::start();
    let signer = Signer::new();
    let user = KeyPair::new_user();
    let (jwt, seed) = (signer.user(&user, None), user.seed().unwrap());
    let passwords = Nats::start_own_with(&format!(
        "authorization {{ users: [ {{ user: bridge, password: {CANARY} }}, {{ nkey: {} }} ] }}",
        user.public_key()
    ))
    .await
    .unwrap();
    let jwts = Nats::start_own_with(&signer.configuration).await.unwrap();
    let tokens = Nats::start_own_with(&format!("authorization {{ token: {CANARY} }}"))
        .await
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let password = |user: &str| NatsAuth::UserPassword {
        user: user.to_owned(),
        password: CANARY.into(),
    };
    let ways = [
        password("bridge"),
        password("nobody"),
        NatsAuth::Token(CANARY.into()),
        NatsAuth::Token(Secret::File(file("token", CANARY))),
        NatsAuth::NkeySeed(seed.as_str().into()),
        NatsAuth::NkeySeed(format!("{seed}{CANARY}").as_str().into()),
        NatsAuth::Jwt {
            jwt: jwt.as_str().into(),
            seed: seed.as_str().into(),
        },
        NatsAuth::Jwt {
            jwt: format!("{jwt}{CANARY}").as_str().into(),
            seed: seed.as_str().into(),
        },
        NatsAuth::CredentialsFile(file("good.creds", &signer.credentials(&user, None))),
        NatsAuth::CredentialsFile(file("bad.creds", CANARY)),
    ];
    let records = records(&Topic::from("rtm.a"), 3);
    let mut shown = String::new();
    let (mut accepted, mut refused) = (0, 0);
    for auth in ways {
        for server in [&passwords, &jwts, &tokens] {
            let options = options(server, auth.clone());
            shown += &format!("{options:?}\n");
            let sink = match NatsSink::connect(options).await {
                Ok(sink) => sink,
                Err(error) => {
                    shown += &format!("{error:?} {}\n", chain(&error));
                    continue;
                }
            };
            let published = timeout(SOON, sink.publish(&records)).await.unwrap();
            let checked = sink.check(&[], false).await;
            accepted += usize::from(published.is_ok());
            refused += usize::from(published.is_err());
            if let Err(error) = &published {
                shown += &chain(error);
            }
            if let Err(error) = &checked {
                shown += &chain(error);
            }
            shown += &format!("{published:?} {checked:?} {sink:?} {:?}\n", sink.stats());
            sink.close().await;
        }
    }
    // The three ways that open a server of theirs, in as many variants; and the rest.
    assert_eq!((accepted, refused), (6, 18), "{shown}");
    let log = log.text();
    assert!(log.contains("nats is away") && log.contains("connected to nats"));
    for (what, text) in [("shown", &shown), ("logged", &log)] {
        for (name, secret) in [("canary", CANARY), ("seed", &seed), ("jwt", &jwt)] {
            let line = text.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "{name} {what}");
        }
    }
}

/// A JWT as NATS signs them (ADR-14).
#[expect(
    clippy::needless_pass_by_value,
    reason = "made by `json!` where it is given"
)]
fn jwt(issuer: &KeyPair, subject: &KeyPair, nats: Value, expires: Option<u64>) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = json!({"typ": "JWT", "alg": "ed25519-nkey"});
    let mut claims = json!({"jti": "1", "iat": 1_700_000_000, "iss": issuer.public_key(), "name": "test",
        "sub": subject.public_key(), "nats": nats});
    if let Some(expires) = expires {
        claims["exp"] = expires.into();
    }
    let signed = format!("{}.{}", encode(&header), encode(&claims));
    let signature = issuer.sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Holds: what the server denies is told at once, although the server answers no denied publish; what it does not deny
/// is confirmed in the same call; and a user who may receive no acknowledgement is told so.
async fn denials(mode: Mode) {
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
        atomic_batches: mode == Mode::Batches,
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

/// Holds: where JetStream is off for the account, the records are held for an alarm, and the check says so too.
#[tokio::test]
async fn an_account_without_jetstream() {
    let server = Nats::start_own_with(
        "accounts {
            WITH { jetstream: enabled, users: [ { user: with, password: p } ] }
            WITHOUT { users: [ { user: without, password: p } ] }
        }",
    )
    .await
    .unwrap();
    let as_user = |user: &str| {
        let auth = NatsAuth::UserPassword {
            user: user.to_owned(),
            password: "p".into(),
        };
        options(&server, auth)
    };
    assert_accepted(as_user("with")).await;
    let sink = NatsSink::connect(as_user("without")).await.unwrap();
    let records = records(&Topic::from("rtm.a"), 3);
    let error = timeout(SOON, sink.publish(&records))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.kind, PublishErrorKind::Misconfigured, "{error:?}");
    assert_eq!(error.outcomes, [const { Outcome::Unknown }; 3]);
    assert!(
        matches!(error.source.downcast_ref(), Some(PublishFailure::Off)),
        "{error:?}"
    );
    let check = sink.check(&[], false).await;
    assert!(matches!(check, Err(CheckError::Off)), "{check:?}");
}

both_modes! {
    denials,
}

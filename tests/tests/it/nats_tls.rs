//! The NATS sink and TLS: whose certificates are taken, on both sides, and what is said of the others.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, date_time_ymd};
use rtm_sink::conformance::{converge, records};
use rtm_sink::{Sink, Topic};
use rtm_sink_nats::{NatsAuth, NatsOptions, NatsSink, NatsTls};
use rtm_tests::brokers::Nats;
use tokio::time::timeout;

use super::nats_access::{assert_accepted, assert_refused, options};
use super::nats_sink::SOON;

type Authority = CertifiedIssuer<'static, rcgen::KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    CertifiedIssuer::self_signed(params, key).unwrap()
}

/// Writes `<name>.pem` and `<name>.key`.
fn certificate(dir: &Path, name: &str, host: &str, expired: bool, authority: &Authority) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
    if expired {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    }
    let certificate = params.signed_by(&key, authority).unwrap();
    std::fs::write(dir.join(format!("{name}.pem")), certificate.pem()).unwrap();
    std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
}

/// An authority's own file, another authority's, and the certificates that they vouch for.
pub(super) fn certificates(dir: &Path) {
    let [ours, theirs] = [authority("ours"), authority("theirs")];
    std::fs::write(dir.join("ca.pem"), ours.pem()).unwrap();
    std::fs::write(dir.join("ca.key"), ours.key().serialize_pem()).unwrap();
    std::fs::write(dir.join("other-ca.pem"), theirs.pem()).unwrap();
    certificate(dir, "server", "127.0.0.1", false, &ours);
    certificate(dir, "elsewhere", "nats.example", false, &ours);
    certificate(dir, "old-server", "127.0.0.1", true, &ours);
    certificate(dir, "client", "bridge", false, &ours);
    certificate(dir, "stranger", "bridge", false, &theirs);
    certificate(dir, "old-client", "bridge", true, &ours);
}

/// A server that shows the certificate `name`, and asks for the client's if `mutual`.
async fn server(dir: &Path, name: &str, mutual: bool) -> Nats {
    let dir = dir.display();
    let mutual = if mutual {
        format!("ca_file: \"{dir}/ca.pem\", verify: true")
    } else {
        String::new()
    };
    Nats::start_own_with(&format!(
        "tls {{ cert_file: \"{dir}/{name}.pem\", key_file: \"{dir}/{name}.key\", {mutual} }}"
    ))
    .await
    .unwrap()
}

/// A sink that trusts `ca` and shows `client`.
pub(super) fn with(nats: &Nats, ca: Option<PathBuf>, client: Option<PathBuf>) -> NatsOptions {
    NatsOptions {
        tls: NatsTls {
            required: true,
            first: false,
            ca_file: ca,
            key_file: client.as_ref().map(|client| client.with_extension("key")),
            cert_file: client,
        },
        ..options(nats, NatsAuth::None)
    }
}

/// What a server's settings say of TLS with the certificate of [`certificates`].
pub(super) fn of_server(dir: &Path, more: &str) -> String {
    let [cert, key] = ["server.pem", "server.key"].map(|name| dir.join(name));
    format!("tls {{ cert_file: {cert:?}, key_file: {key:?} {more} }}")
}

/// Holds: a server's certificate must be of the authority given, for the name that was asked for, and of today; a server
/// without TLS is refused where TLS is required. Each refusal says which.
#[tokio::test]
async fn certificates_of_servers() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let ca = |name: &str| Some(dir.path().join(name));
    let good = server(dir.path(), "server", false).await;
    assert_accepted(with(&good, ca("ca.pem"), None)).await;
    assert_refused(
        with(&good, ca("other-ca.pem"), None),
        "is of no authority that is trusted here: invalid peer certificate: UnknownIssuer",
    )
    .await;
    // The system's authorities.
    assert_refused(
        with(&good, None, None),
        "is of no authority that is trusted here: invalid peer certificate: UnknownIssuer",
    )
    .await;

    let elsewhere = server(dir.path(), "elsewhere", false).await;
    assert_refused(
        with(&elsewhere, ca("ca.pem"), None),
        "is for another host name: invalid peer certificate: certificate not valid for name \"127.0.0.1\"",
    )
    .await;
    let old = server(dir.path(), "old-server", false).await;
    assert_refused(
        with(&old, ca("ca.pem"), None),
        "has expired, or this machine's clock is wrong: invalid peer certificate: certificate expired",
    )
    .await;

    let its_own_ca = server(dir.path(), "ca", false).await;
    assert_refused(
        with(&its_own_ca, ca("ca.pem"), None),
        "the server's certificate is a CA's own (CA:TRUE), and no server's: make one with basicConstraints=CA:FALSE",
    )
    .await;

    let plain = Nats::start_own().await.unwrap();
    assert_refused(
        with(&plain, ca("ca.pem"), None),
        "tls with nats: the server does not speak it",
    )
    .await;
}

/// Holds: where the server asks for a certificate, ours opens; none, a stranger's and an expired one are refused, and
/// told from an outage.
#[tokio::test]
async fn certificates_of_clients() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let path = |name: &str| Some(dir.path().join(name));
    let server = server(dir.path(), "server", true).await;
    let showing = |client| with(&server, path("ca.pem"), client);
    assert_accepted(showing(path("client.pem"))).await;
    assert_refused(showing(None), "the server asks for a client certificate").await;
    assert_refused(
        showing(path("stranger.pem")),
        "the server refuses the client certificate",
    )
    .await;
    assert_refused(
        showing(path("old-client.pem")),
        "the server refuses the client certificate",
    )
    .await;
}

/// Holds: the files are read again for each connection: a wrong authority and an expired certificate are put right
/// without a restart.
#[tokio::test]
async fn certificates_are_rotated() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let path = |name: &str| dir.path().join(name);
    let replace = |name: &str, by: &str| std::fs::copy(path(by), path(name)).unwrap();
    let server = server(dir.path(), "server", true).await;
    replace("used-ca.pem", "other-ca.pem");
    replace("used.pem", "old-client.pem");
    replace("used.key", "old-client.key");
    let options = NatsOptions {
        ack_timeout: Duration::from_secs(60),
        ..with(&server, Some(path("used-ca.pem")), Some(path("used.pem")))
    };
    let sink = NatsSink::connect(options).await.unwrap();
    let records = records(&Topic::from("rtm.a"), 10);
    let refused = async |says: &str| {
        let result = timeout(SOON, sink.publish(&records)).await;
        let error = result.expect("publish returns").expect_err("refused");
        format!("{error:?}").contains(says)
    };
    assert!(refused("UnknownIssuer").await);
    replace("used-ca.pem", "ca.pem");
    let known = async || refused("AlertReceived").await;
    rtm_tests::wait_for("the authority to be trusted", SOON, known)
        .await
        .unwrap();
    replace("used.pem", "client.pem");
    replace("used.key", "client.key");
    assert_eq!(converge(&sink, &records).await, []);
}

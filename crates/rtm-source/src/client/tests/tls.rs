//! Against a server that speaks TLS, with certificates of every kind.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::*;

/// A private CA.
struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new(name: &str) -> Ca {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Ca { pem, issuer }
    }

    /// Serves pages at a certificate that this CA has signed, and says where.
    fn serve(&self, name: &str, years: (i32, i32)) -> String {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(years.0, 1, 1);
        params.not_after = date_time_ymd(years.1, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        serve(
            certificate.der().clone(),
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
    }
}

fn serve(certificate: CertificateDer<'static>, key: PrivateKeyDer<'static>) -> String {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, stream.unwrap());
            while read_head(&mut stream).is_some_and(|head| {
                let answer = if head.starts_with("HEAD") {
                    "HTTP/1.1 404 X\r\nContent-Length: 3\r\n\r\n".to_owned()
                } else {
                    ok(PAGE)
                };
                stream.write_all(answer.as_bytes()).is_ok()
            }) {}
        }
    });
    url
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

/// Connects and fetches, trusting `ca`: `None` if both succeed, else what both say; nothing was sent then.
async fn refusal(url: &str, ca: Option<&str>) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    let region = Region::new("tls", url, false).unwrap();
    let token = Secret::Inline(CANARY.into());
    let auth = Auth::AgoraToken { token };
    let mut options = SourceOptions::new("app", auth, vec![region.clone()]);
    options.extra_ca_file = ca.map(|pem| {
        std::fs::write(&file, pem).unwrap();
        file
    });
    let source = Source::new(options).unwrap();
    let connected = source.connect(&region).await;
    match fetch(&source).await {
        Ok(page) => {
            connected.unwrap();
            assert_eq!(page.body, PAGE);
            None
        }
        Err(error) => {
            let (kind, reason) = (error.kind, error.reason);
            assert_eq!((kind, reason), (FetchErrorKind::NotSent, "connect"));
            assert_eq!(error.possibly_lost(), 0);
            let connected = connected.unwrap_err();
            assert_eq!(connected.reason, "connect");
            Some(format!("{} / {}", chain(&error), chain(&connected)))
        }
    }
}

/// Holds: a private CA is accepted where it is added, and for nothing else: another CA, another host name, an expired
/// certificate and one that is not valid yet are refused before anything is sent, and both a fetch and `connect` say why.
#[tokio::test]
async fn tls_is_verified() {
    let (ours, other) = (Ca::new("ours"), Ca::new("other"));
    let now = (2020, 2099);
    for (name, years, trusted, said) in [
        ("127.0.0.1", now, Some(&ours), None),
        (
            "127.0.0.1",
            now,
            None,
            Some("signed by a CA that is not trusted"),
        ),
        (
            "127.0.0.1",
            now,
            Some(&other),
            Some("signed by a CA that is not trusted"),
        ),
        (
            "127.0.0.2",
            now,
            Some(&ours),
            Some("is for another host name"),
        ),
        (
            "agora.example",
            now,
            Some(&ours),
            Some("is for another host name"),
        ),
        ("127.0.0.1", (2019, 2020), Some(&ours), Some("has expired")),
        (
            "127.0.0.1",
            (2090, 2099),
            Some(&ours),
            Some("is not valid yet"),
        ),
    ] {
        let url = ours.serve(name, years);
        let told = refusal(&url, trusted.map(|ca| &*ca.pem)).await;
        assert_eq!(told.is_some(), said.is_some(), "{name} {years:?}: {told:?}");
        if let (Some(told), Some(said)) = (told, said) {
            assert_eq!(told.matches(said).count(), 2, "{told}");
            assert!(!told.contains("canary"), "{told}");
        }
    }
}

/// Holds: a certificate that is its own CA is accepted where it is added, and not else.
#[tokio::test]
async fn a_self_signed_certificate_is_trusted_by_name() {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let url = serve(made.cert.der().clone(), key);
    assert_eq!(refusal(&url, Some(&made.cert.pem())).await, None);
    assert!(refusal(&url, None).await.is_some());
}

/// Holds: a certificate that says that it is a CA's is refused with what it is and what to do, though it is trusted.
#[tokio::test]
async fn a_ca_is_no_server() {
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let der = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let url = serve(certificate.der().clone(), der);
    let told = refusal(&url, Some(&certificate.pem())).await.unwrap();
    let said = "is a CA's own (CA:TRUE), and no server's: make one with basicConstraints=CA:FALSE";
    assert_eq!(told.matches(said).count(), 2, "{told}");
}

/// A server that answers every greeting with its own, of TLS `version`, and hangs up.
fn greet(version: [u8; 2]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    // RFC 5246, section 7.4.1.3: version, random, no session, ECDHE_RSA with AES_128_GCM, no compression.
    let body = [&version[..], &[7; 32], &[0, 0xc0, 0x2f, 0]].concat();
    let hello = [&[22, 3, 2, 0, 42, 2, 0, 0, 38], &body[..]].concat();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]).unwrap();
            stream.write_all(&hello).unwrap();
        }
    });
    url
}

/// Holds: TLS 1.1 and older are refused for what they are, before anything is sent; 1.2 is not.
#[tokio::test]
async fn old_tls_is_refused() {
    for (version, old) in [([3, 1], true), ([3, 2], true), ([3, 3], false)] {
        let told = refusal(&greet(version), None).await.unwrap();
        let count = told.matches("ServerDoesNotSupportTls12Or13").count();
        assert_eq!(count, if old { 2 } else { 0 }, "{version:?}: {told}");
    }
}

//! A Kafka broker that asks who is there.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, date_time_ymd};
use tokio::task::spawn_blocking;

use super::{Kafka, Listener, Place};
use crate::brokers::{free_port, install};

/// A local broker with a listener for each way to be secure, and with ACLs that nobody has unless a test
/// [grants](Kafka::grant) them. It creates no topics by itself.
///
/// Local, because its SCRAM users must be there when its storage is formatted.
pub struct SecureKafka {
    kafka: Kafka,
    listeners: Vec<Listener>,
    files: PathBuf,
}

/// A listener of a [`SecureKafka`], by what it asks for and shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "their names say it")]
pub enum Door {
    Sasl,
    Tls,
    MutualTls,
    SaslTls,
    /// TLS, with a certificate for another host.
    OtherHost,
    /// TLS, with a certificate that has expired.
    Expired,
}

impl SecureKafka {
    /// May do everything. Its password is [`PASSWORD`](Self::PASSWORD), like everybody's.
    pub const ADMIN: &str = "bridge";

    /// Those who may do nothing, each for a test that grants something to it.
    pub const OTHERS: [&str; 3] = ["limited", "nobody", "granted"];

    /// The password of every user, by PLAIN and SCRAM. To be found nowhere.
    pub const PASSWORD: &str = "canary-5f1d";

    /// Starts one. Its files go when it is dropped, or when the tests end.
    ///
    /// # Errors
    ///
    /// When it cannot be started, with what to install.
    pub async fn start_own() -> Result<SecureKafka> {
        let started = Instant::now();
        let secure = crate::brokers::start_local("Kafka", SecureKafka::local).await?;
        secure.kafka.announce(started)?;
        Ok(secure)
    }

    /// The broker, for its topics and what they hold.
    #[must_use]
    pub fn kafka(&self) -> &Kafka {
        &self.kafka
    }

    /// The broker, to be killed and restarted.
    pub fn kafka_mut(&mut self) -> &mut Kafka {
        &mut self.kafka
    }

    /// `host:port` of a listener.
    #[must_use]
    pub fn address(&self, door: Door) -> String {
        format!("127.0.0.1:{}", self.listeners[door as usize].2)
    }

    /// A file with certificates or a key: of the authority that the broker trusts, `ca.pem`, and of a client that it
    /// vouches for, `client.pem` and `client.key`; of another authority, `other-ca.pem`, and of its client,
    /// `other-client.pem` and `other-client.key`.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.files.join(name)
    }

    /// Lets it run again, with the certificates that it began with, whatever was done to it.
    pub(in crate::brokers) async fn revive(&mut self) -> Result<()> {
        fs::copy(self.file("first-server.both"), self.file("server.both"))?;
        if self.kafka.host.ended()? {
            return self.kafka.restart().await;
        }
        self.kafka.resume().await?;
        self.kafka.wait_until_ready().await
    }

    /// Gives the listener [`Door::Tls`] a certificate of the other authority, when the broker is next started.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn change_authority(&self) -> Result<()> {
        fs::copy(self.file("other-server.both"), self.file("server.both"))?;
        Ok(())
    }

    async fn local() -> Result<SecureKafka> {
        let users: Vec<(&str, &str)> = SecureKafka::users().collect();
        let formatted = spawn_blocking(move || install::kafka_with_users(&users)).await??;
        let mut place = Place::new(formatted)?;
        let files = place.dir.path().join("tls");
        fs::create_dir(&files)?;
        certificates(&files)?;
        fs::copy(files.join("server.both"), files.join("first-server.both"))?;
        for (name, protocol) in DOORS {
            place.listeners.push((name, protocol, free_port()?));
        }
        let listeners = place.listeners.clone();
        let settings = settings(&files);
        let settings: Vec<(&str, &str)> = settings
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let kafka = Kafka::local(&settings, place).await?;
        Ok(SecureKafka {
            kafka,
            listeners,
            files,
        })
    }

    fn users() -> impl Iterator<Item = (&'static str, &'static str)> {
        std::iter::once(SecureKafka::ADMIN)
            .chain(SecureKafka::OTHERS)
            .map(|user| (user, SecureKafka::PASSWORD))
    }
}

/// In the order of [`Door`].
const DOORS: [(&str, &str); 6] = [
    ("SASL", "SASL_PLAINTEXT"),
    ("TLS", "SSL"),
    ("MUTUAL", "SSL"),
    ("SASLTLS", "SASL_SSL"),
    ("OTHERHOST", "SSL"),
    ("EXPIRED", "SSL"),
];

fn settings(files: &Path) -> Vec<(String, String)> {
    let path = |name: &str| files.join(name).display().to_string();
    let mut settings = vec![
        (
            "authorizer.class.name".to_owned(),
            "org.apache.kafka.metadata.authorizer.StandardAuthorizer".to_owned(),
        ),
        (
            "super.users".to_owned(),
            format!("User:ANONYMOUS;User:{};User:CN=bridge", SecureKafka::ADMIN),
        ),
        ("auto.create.topics.enable".to_owned(), "false".to_owned()),
        // For a record that only the broker's own limit refuses.
        ("message.max.bytes".to_owned(), "65536".to_owned()),
        ("ssl.keystore.type".to_owned(), "PEM".to_owned()),
        ("ssl.truststore.type".to_owned(), "PEM".to_owned()),
        ("ssl.truststore.location".to_owned(), path("ca.pem")),
        (
            "sasl.enabled.mechanisms".to_owned(),
            "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER".to_owned(),
        ),
        (
            "listener.name.mutual.ssl.client.auth".to_owned(),
            "required".to_owned(),
        ),
    ];
    for (listener, file) in [
        ("tls", "server.both"),
        ("mutual", "server.both"),
        ("sasltls", "server.both"),
        ("otherhost", "other-host.both"),
        ("expired", "expired.both"),
    ] {
        settings.push((
            format!("listener.name.{listener}.ssl.keystore.location"),
            path(file),
        ));
    }
    let users: String = SecureKafka::users()
        .map(|(user, password)| format!(" user_{user}=\"{password}\""))
        .collect();
    let package = "org.apache.kafka.common.security";
    for listener in ["sasl", "sasltls"] {
        let name = |kind: &str| format!("listener.name.{listener}.{kind}.sasl.jaas.config");
        settings.push((
            name("plain"),
            format!("{package}.plain.PlainLoginModule required{users};"),
        ));
        // Takes any token, also one that nobody has signed.
        settings.push((
            name("oauthbearer"),
            format!(
                "{package}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=\"broker\";"
            ),
        ));
        for kind in ["scram-sha-256", "scram-sha-512"] {
            settings.push((
                name(kind),
                format!("{package}.scram.ScramLoginModule required;"),
            ));
        }
    }
    settings
}

/// Two authorities, and what they vouch for.
fn certificates(dir: &Path) -> Result<()> {
    for (prefix, servers) in [
        ("", &["server", "other-host", "expired"][..]),
        ("other-", &["server"]),
    ] {
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let name = format!("{prefix}authority");
        authority
            .distinguished_name
            .push(DnType::CommonName, name.as_str());
        let authority = CertifiedIssuer::self_signed(authority, rcgen::KeyPair::generate()?)?;
        fs::write(dir.join(format!("{prefix}ca.pem")), authority.pem())?;
        for &certificate in servers.iter().chain(&["client"]) {
            let host = match certificate {
                "client" => "bridge",
                "other-host" => "elsewhere.example",
                _ => "127.0.0.1",
            };
            let mut params = CertificateParams::new(vec![host.to_owned()])?;
            params.distinguished_name.push(DnType::CommonName, host);
            if certificate == "expired" {
                params.not_before = date_time_ymd(2020, 1, 1);
                params.not_after = date_time_ymd(2020, 2, 1);
            }
            let key = rcgen::KeyPair::generate()?;
            let pem = params.signed_by(&key, &authority)?.pem();
            let file = |suffix: &str| dir.join(format!("{prefix}{certificate}.{suffix}"));
            // Kafka's PEM key stores hold both; clients take one file for each.
            fs::write(file("both"), format!("{}{pem}", key.serialize_pem()))?;
            fs::write(file("pem"), pem)?;
            fs::write(file("key"), key.serialize_pem())?;
        }
    }
    Ok(())
}

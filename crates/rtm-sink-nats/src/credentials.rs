//! How a sink proves who it is.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use async_nats::Auth;
use nkeys::KeyPair;
use rtm_sink::read_text;
use secrecy::{ExposeSecret, SecretString};
use tokio::task::JoinError;

/// How to authenticate. What comes from files is read again for each connection, so that it can be rotated.
#[derive(Debug, Clone, Default)]
pub enum NatsAuth {
    /// Not at all.
    #[default]
    None,
    /// A `.creds` file: a JWT and an NKey seed.
    CredentialsFile(PathBuf),
    /// An NKey seed (`SU…`).
    NkeySeed(Secret),
    /// A JWT, and the seed of the NKey that it was made for.
    Jwt {
        /// The user's JWT.
        jwt: Secret,
        /// The user's seed.
        seed: Secret,
    },
    /// A user and a password.
    UserPassword {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// A token.
    Token(Secret),
}

/// A secret, or where to read it. Never printed.
#[derive(Clone)]
pub enum Secret {
    /// The secret itself.
    Text(SecretString),
    /// The file that holds it, without a byte order mark and the ends of lines at its end.
    File(PathBuf),
}

/// Why credentials cannot be used. Says where they are, never what they are.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The `.creds` file holds no JWT or no seed.
    #[error("{} is not a credentials file: it has no {missing} section", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The section that is not there.
        missing: &'static str,
    },
    /// The seed is not one.
    #[error("not an NKey seed")]
    Seed(#[source] nkeys::error::Error),
    /// The thread that read them has panicked.
    #[error("the thread that read them has panicked")]
    Ended(#[source] JoinError),
}

impl NatsAuth {
    /// Whether what the files hold can be used, as far as can be told without a server. Blocks while it reads them.
    ///
    /// # Errors
    ///
    /// [`CredentialsError`].
    pub fn check(&self) -> Result<(), CredentialsError> {
        Credentials::load(self).map(drop)
    }
}

/// Credentials as read, ready to answer a server's nonce.
pub(crate) struct Credentials {
    auth: Auth,
    signer: Option<KeyPair>,
}

impl Credentials {
    /// Those of `auth`, read in a thread that may block.
    pub(crate) async fn read(auth: &NatsAuth) -> Result<Credentials, CredentialsError> {
        let auth = auth.clone();
        let read = tokio::task::spawn_blocking(move || Credentials::load(&auth)).await;
        read.map_err(CredentialsError::Ended).flatten()
    }

    fn load(auth: &NatsAuth) -> Result<Credentials, CredentialsError> {
        let mut read = Auth::new();
        let mut signer = None;
        match auth {
            NatsAuth::None => (),
            NatsAuth::CredentialsFile(path) => {
                let text = read_file(path)?;
                read.jwt = Some(required(&text, "USER JWT", path)?.to_owned());
                signer = Some(key_pair(required(&text, "NKEY SEED", path)?)?);
            }
            NatsAuth::NkeySeed(seed) => {
                let pair = key_pair(&seed.read()?)?;
                read.nkey = Some(pair.public_key());
                signer = Some(pair);
            }
            NatsAuth::Jwt { jwt, seed } => {
                read.jwt = Some(jwt.read()?);
                signer = Some(key_pair(&seed.read()?)?);
            }
            NatsAuth::UserPassword { user, password } => {
                read.username = Some(user.clone());
                read.password = Some(password.read()?);
            }
            NatsAuth::Token(token) => read.token = Some(token.read()?),
        }
        Ok(Credentials { auth: read, signer })
    }

    /// What to tell a server that sent `nonce`.
    pub(crate) fn answer(&self, nonce: &[u8]) -> Result<Auth, CredentialsError> {
        let mut auth = self.auth.clone();
        if let Some(signer) = &self.signer {
            auth.signature = Some(signer.sign(nonce).map_err(CredentialsError::Seed)?);
        }
        Ok(auth)
    }
}

fn key_pair(seed: &str) -> Result<KeyPair, CredentialsError> {
    KeyPair::from_seed(seed).map_err(CredentialsError::Seed)
}

fn read_file(path: &Path) -> Result<String, CredentialsError> {
    read_text(path).map_err(|source| CredentialsError::Read {
        path: path.to_owned(),
        source,
    })
}

/// The line after `-----BEGIN … <name>-----` (docs.nats.io, "Using nsc", credentials files).
fn section<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = text.lines().map(str::trim);
    lines.find(|line| line.starts_with("---") && line.contains("BEGIN") && line.contains(name))?;
    lines
        .find(|line| !line.is_empty())
        .filter(|line| !line.starts_with("---"))
}

fn required<'a>(
    text: &'a str,
    missing: &'static str,
    path: &Path,
) -> Result<&'a str, CredentialsError> {
    section(text, missing).ok_or_else(|| CredentialsError::Format {
        path: path.to_owned(),
        missing,
    })
}

impl Secret {
    fn read(&self) -> Result<String, CredentialsError> {
        match self {
            Secret::Text(secret) => Ok(secret.expose_secret().to_owned()),
            Secret::File(path) => read_file(path),
        }
    }
}

impl From<&str> for Secret {
    fn from(secret: &str) -> Secret {
        Secret::Text(secret.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Secret::Text(_) => f.write_str("[REDACTED]"),
            Secret::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

#[cfg(test)]
mod tests;

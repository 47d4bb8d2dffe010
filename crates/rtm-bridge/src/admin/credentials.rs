//! What the endpoint asks for and shows: the token, and the certificate of TLS. Both are files, which may be renewed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};

use crate::config::{AdminConfig, AdminTls};
use crate::lock;

/// Bytes of a token, at most: no header can be longer than this.
const TOKEN_BYTES: usize = 4096;

/// What the files hold.
#[derive(Debug, Clone, Default)]
pub(super) struct Credentials {
    /// The token's hash; none where nobody is asked for one.
    token: Option<[u8; 32]>,
    /// None where the endpoint speaks plain HTTP.
    pub(super) tls: Option<Arc<ServerConfig>>,
}

/// A file that the endpoint cannot use.
#[derive(Debug, thiserror::Error)]
pub(super) enum CredentialsError {
    #[error("admin.token_file: cannot read {}", file.display())]
    Token {
        file: PathBuf,
        source: std::io::Error,
    },
    #[error("admin.token_file: {} holds no token: expected one line of visible ASCII characters", file.display())]
    NoToken { file: PathBuf },
    #[error("admin.tls: cannot read {}", file.display())]
    Pem {
        file: PathBuf,
        source: rustls_pki_types::pem::Error,
    },
    #[error("admin.tls: the certificate and the key do not go together")]
    Pair(#[source] rustls::Error),
    #[error("the files of the admin endpoint could not be read to their end")]
    Interrupted,
    #[error(
        "a file of the admin endpoint (admin.token_file, admin.tls) does not answer, and is still waited for"
    )]
    Silent,
}

/// What is asked for now.
pub(super) type Current = Arc<Mutex<Credentials>>;

impl Credentials {
    /// Reads the files that the configuration names.
    pub(super) fn read(config: &AdminConfig) -> Result<Credentials, CredentialsError> {
        let token = config.token_file.as_deref().map(token).transpose()?;
        let tls = config.tls.as_ref().map(tls).transpose()?;
        Ok(Credentials { token, tls })
    }

    /// Whether a token is asked for.
    pub(super) fn asks(&self) -> bool {
        self.token.is_some()
    }

    /// Whether `given` is the token, or none is asked for.
    pub(super) fn admit(&self, given: Option<&[u8]>) -> bool {
        // Hashes are compared, so that the time it takes says nothing of the token.
        self.token
            .is_none_or(|token| given.is_some_and(|given| hash(given) == token))
    }
}

/// What is asked for, at once.
pub(super) fn now(current: &Current) -> Credentials {
    lock(current).clone()
}

fn hash(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

fn token(file: &Path) -> Result<[u8; 32], CredentialsError> {
    let token = rtm_sink::read_text(file).map_err(|source| CredentialsError::Token {
        file: file.to_owned(),
        source,
    })?;
    let is_visible = token.bytes().all(|byte| byte.is_ascii_graphic());
    if token.is_empty() || token.len() > TOKEN_BYTES || !is_visible {
        let file = file.to_owned();
        return Err(CredentialsError::NoToken { file });
    }
    Ok(hash(token.as_bytes()))
}

fn tls(files: &AdminTls) -> Result<Arc<ServerConfig>, CredentialsError> {
    let unreadable = |file: &Path| {
        let file = file.to_owned();
        |source| CredentialsError::Pem { file, source }
    };
    let certificates = CertificateDer::pem_file_iter(&files.cert_file)
        .and_then(Iterator::collect)
        .map_err(unreadable(&files.cert_file))?;
    let key = PrivateKeyDer::from_pem_file(&files.key_file).map_err(unreadable(&files.key_file))?;
    let mut tls = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(CredentialsError::Pair)?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(tls))
}

#[cfg(test)]
mod tests;

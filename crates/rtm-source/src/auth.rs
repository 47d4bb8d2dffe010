//! Who we are to Agora.

use std::fmt;
use std::path::PathBuf;

use secrecy::SecretString;

/// How requests are authenticated. Prints no secret.
#[derive(Clone)]
pub enum Auth {
    /// `Authorization: Basic base64(key:secret)`: the customer key and secret of Agora's console.
    Basic {
        /// The customer key.
        key: String,
        /// The customer secret.
        secret: Secret,
    },
    /// `x-agora-token` and `x-agora-uid`: an RTM token of version 006.
    Token {
        /// The token.
        token: Secret,
        /// The user id that the token was made for.
        uid: String,
    },
    /// `Authorization: agora token=<token>`: a token of version 007. In the headers of 006 it is answered with 401.
    AgoraToken {
        /// The token.
        token: Secret,
    },
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // The key is half of a credential, so it is not printed either.
            Auth::Basic { secret, .. } => f
                .debug_struct("Basic")
                .field("secret", secret)
                .finish_non_exhaustive(),
            Auth::Token { token, uid } => f
                .debug_struct("Token")
                .field("token", token)
                .field("uid", uid)
                .finish(),
            Auth::AgoraToken { token } => {
                f.debug_struct("AgoraToken").field("token", token).finish()
            }
        }
    }
}

/// A secret, or the file that holds it. Prints the file's name at most.
#[derive(Debug, Clone)]
pub enum Secret {
    /// The secret itself.
    Inline(SecretString),
    /// A file, without its trailing newline. It is looked at before each request and read again when it has changed
    /// (modification time, length or inode), and after a 401.
    File(PathBuf),
}

/// Why a secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("cannot read the secret file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// There is nothing in it.
    #[error("the secret{} is empty", at(path.as_ref()))]
    Empty {
        /// The file, if it is one.
        path: Option<PathBuf>,
    },
    /// It is longer than any secret.
    #[error("the secret file {} is longer than {limit} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The limit, in bytes.
        limit: usize,
    },
    /// It holds control characters, or text other than ASCII, and cannot be sent in a header.
    #[error("the secret{} holds characters that a header cannot", at(path.as_ref()))]
    Characters {
        /// The file, if it is one.
        path: Option<PathBuf>,
    },
}

fn at(path: Option<&PathBuf>) -> String {
    path.map(|path| format!(" file {}", path.display()))
        .unwrap_or_default()
}

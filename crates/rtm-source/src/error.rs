//! Why a source cannot be made, or cannot connect. Why there is no page is in `page`.

use std::path::PathBuf;

/// Why a source cannot be made from the options.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The App ID cannot be one.
    #[error("bad app_id: expected 1 to 64 of A-Z a-z 0-9 - _")]
    AppId,
    /// There is nothing to read.
    #[error("no regions: expected at least one")]
    NoRegions,
    /// Events of two regions could not be told apart.
    #[error("two regions are named {0}")]
    DuplicateRegion(String),
    /// A path cannot be one.
    #[error("bad {option}: expected a path such as rtm/vendor/user_events")]
    Path {
        /// The option.
        option: &'static str,
    },
    /// The credentials cannot be used.
    #[error("bad credentials")]
    Secret(#[from] SecretError),
    /// A user id or key cannot be sent in a header.
    #[error("bad {option}: it is empty, or holds characters that a header cannot")]
    Credential {
        /// The option.
        option: &'static str,
    },
    /// The proxy's URL is not accepted. It is not shown, since it may hold a password.
    #[error("bad proxy: expected a URL such as http://proxy:3128")]
    Proxy,
    /// The certificates cannot be read.
    #[error("bad ca_file {}", path.display())]
    ExtraCa {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// A duration or size must not be zero.
    #[error("bad {option}: it must not be zero")]
    Zero {
        /// The option.
        option: &'static str,
    },
    /// The HTTP client cannot be made.
    #[error("cannot make the HTTP client")]
    Client(#[source] BoxError),
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
    /// It holds a control character, which no header and, by RFC 7617, section 2, no password may.
    #[error("the secret{} has {what} at byte {offset}, which cannot be sent", at(path.as_ref()))]
    Character {
        /// The file, if it is one.
        path: Option<PathBuf>,
        /// The character, in words.
        what: &'static str,
        /// How many bytes come before it.
        offset: usize,
    },
}

impl SecretError {
    /// The first control character of `text`, if there is one. Says nothing of the rest.
    pub(crate) fn of(text: &str, path: Option<&PathBuf>) -> Option<SecretError> {
        let (offset, found) = text.char_indices().find(|(_, c)| c.is_control())?;
        let what = match found {
            '\n' => "a line feed",
            '\r' => "a carriage return",
            '\t' => "a tab",
            '\0' => "a zero byte",
            _ => "a control character",
        };
        Some(SecretError::Character {
            path: path.cloned(),
            what,
            offset,
        })
    }
}

fn at(path: Option<&PathBuf>) -> String {
    path.map(|path| format!(" file {}", path.display()))
        .unwrap_or_default()
}

/// Why a region's host cannot be reached.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect to region {region} ({reason})")]
pub struct ConnectError {
    /// The region's name.
    pub region: String,
    /// One of [`FetchError::REASONS`](crate::FetchError::REASONS).
    pub reason: &'static str,
    /// What the HTTP client said.
    #[source]
    pub source: BoxError,
}

/// Any error, as the source of ours.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

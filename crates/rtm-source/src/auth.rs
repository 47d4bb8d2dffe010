//! Who we are to Agora.

use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::{BuildError, SecretError};

/// A token is under a kilobyte. More is a mistake in the path.
const MAX_SECRET: usize = 64 * 1024;

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
    /// A file, without the newline at its end and a byte order mark before it. It is looked at before each request and read again when it has changed
    /// (modification time, length, inode or mode), and after a 401. One that everyone may read by then is warned of.
    File(PathBuf),
}

/// How long a request waits for a look at the secret's file. A share that hangs must not stop polling: the secret that is
/// known may still be good.
const PATIENCE: Duration = Duration::from_millis(100);

/// [`Auth`] made ready to send: the headers, and when they have to be made again.
pub(crate) struct Credentials {
    shared: Arc<Shared>,
}

struct Shared {
    auth: Auth,
    current: Mutex<Current>,
    /// Whether a thread looks at the secret's file. There is one at most, however long its look takes.
    is_looked_at: AtomicBool,
    /// Whether the last look for [`Credentials::have_changed`] has found another file.
    has_changed: AtomicBool,
}

struct Current {
    /// What the secret's file looked like when it was last read or tried; `None` if it has to be read in any case.
    seen: Option<Stamp>,
    /// What it looked like when [`Credentials::have_changed`] last looked, or when it was read.
    looked: Option<Stamp>,
    headers: HeaderMap,
    /// What must not appear in any message: the secret, and the form in which it is sent.
    hidden: Vec<SecretString>,
    /// The file that everyone may read, as it was warned of. Of the first one whoever makes the source warns.
    warned: Option<Stamp>,
}

/// How many forms of secrets are kept out of messages: those in use, and some that were.
const MAX_HIDDEN: usize = 32;

/// What changes when a file is rewritten or replaced. Kubernetes and most editors replace, so the inode tells; the
/// rest is for those that rewrite in place.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
    mode: u32,
}

impl Credentials {
    pub(crate) fn new(auth: Auth) -> Result<Credentials, BuildError> {
        let (option, name) = match &auth {
            Auth::Basic { key, .. } => ("key", Some(key)),
            Auth::Token { uid, .. } => ("uid", Some(uid)),
            Auth::AgoraToken { .. } => ("token", None),
        };
        // A colon in a key would be read as the end of the key (RFC 7617, section 2).
        let sendable = |name: &String| {
            let basic = matches!(auth, Auth::Basic { .. });
            !name.is_empty()
                && name.bytes().all(|byte| (b' '..=b'~').contains(&byte))
                && !(basic && name.contains(':'))
        };
        if !name.is_none_or(sendable) {
            return Err(BuildError::Credential { option });
        }
        let shared = Arc::new(Shared {
            current: Mutex::new(load(&auth)?),
            auth,
            is_looked_at: AtomicBool::new(false),
            has_changed: AtomicBool::new(false),
        });
        Ok(Credentials { shared })
    }

    /// The headers to send now.
    ///
    /// Looks at the secret's file, and reads it again if it has changed. One that cannot be read, or makes no sense,
    /// leaves the headers as they were: it may be half written, and the old secret may still be good. So does a look that
    /// takes longer than [`PATIENCE`], or that another request has begun.
    pub(crate) async fn headers(&self) -> HeaderMap {
        if let Some(look) = self.look(Shared::renew) {
            let _ = timeout(PATIENCE, look).await;
        }
        self.shared.current().headers.clone()
    }

    /// Has a thread look at the secret's file, if there is one and none does. Must be called within a runtime.
    fn look(&self, look: fn(&Shared, &Path)) -> Option<JoinHandle<()>> {
        let Secret::File(path) = self.shared.secret() else {
            return None;
        };
        if self.shared.is_looked_at.swap(true, Ordering::AcqRel) {
            return None;
        }
        let (shared, path) = (Arc::clone(&self.shared), path.clone());
        Some(tokio::task::spawn_blocking(move || {
            look(&shared, &path);
            shared.is_looked_at.store(false, Ordering::Release);
        }))
    }

    /// Says that the headers were refused: whatever its file looks like, the secret is read again.
    pub(crate) fn refused(&self) {
        self.shared.current().seen = None;
    }

    /// Whether they are a key and its secret, and no token.
    pub(crate) fn are_a_key(&self) -> bool {
        matches!(self.shared.auth, Auth::Basic { .. })
    }

    /// Whether the secret's file is another than when it was read, or when this last said so: a change is told once. What
    /// is said is what the look has found that the last call began, so that no call waits for a file.
    pub(crate) fn have_changed(&self) -> bool {
        let changed = self.shared.has_changed.swap(false, Ordering::AcqRel);
        // Nobody waits for it.
        drop(self.look(Shared::compare));
        changed
    }

    /// `text` without our secrets: a gateway may well quote what it does not like.
    pub(crate) fn redact(&self, text: &str) -> String {
        /// To hide shorter secrets would make every message unreadable, and protect nothing.
        const SHORTEST: usize = 4;
        let current = self.shared.current();
        let hidden = current.hidden.iter().map(ExposeSecret::expose_secret);
        hidden
            .filter(|hidden| hidden.len() >= SHORTEST)
            .fold(text.to_owned(), |text, hidden| {
                text.replace(hidden, "[redacted]")
            })
    }
}

/// What blocks is called from threads that may wait for a file, and waits while it holds no lock.
impl Shared {
    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the secret's file again if it has changed. Blocks.
    fn renew(&self, path: &Path) {
        let seen = stamp(path).ok();
        if seen.is_some() && seen == self.current().seen {
            return;
        }
        let loaded = load(&self.auth);
        let mut current = self.current();
        match loaded {
            Ok(loaded) => {
                // A request that is under way has sent the old secret, and its response may quote it.
                let old = std::mem::replace(&mut *current, loaded);
                current.hidden.extend(old.hidden);
                current.hidden.truncate(MAX_HIDDEN);
                // Warned of once for each change: every refusal makes the file be read again.
                let open = current.seen.filter(|seen| seen.mode & 0o004 != 0);
                if open.is_some() && open != old.warned {
                    tracing::warn!(file = %path.display(), "the secret file can be read by everyone on this machine");
                }
                current.warned = open;
            }
            Err(error) => {
                if current.seen != seen {
                    tracing::warn!(%error, "the secret could not be read again; the old one stays in use");
                }
                current.seen = seen;
            }
        }
    }

    /// Notes whether the secret's file has changed. Blocks.
    fn compare(&self, path: &Path) {
        let now = stamp(path).ok();
        let mut current = self.current();
        if now.is_some() && now != current.looked {
            current.looked = now;
            self.has_changed.store(true, Ordering::Release);
        }
    }

    fn secret(&self) -> &Secret {
        match &self.auth {
            Auth::Basic { secret, .. } => secret,
            Auth::Token { token, .. } | Auth::AgoraToken { token } => token,
        }
    }
}

fn load(auth: &Auth) -> Result<Current, SecretError> {
    let (headers, seen, hidden) = match auth {
        Auth::Basic { key, secret } => {
            let (secret, seen) = read(secret)?;
            let pair = BASE64.encode(format!("{key}:{}", secret.expose_secret()));
            let headers = vec![(AUTHORIZATION, format!("Basic {pair}"))];
            (headers, seen, vec![secret, pair.into()])
        }
        Auth::Token { token, uid } => {
            let (token, seen) = read(token)?;
            let headers = vec![
                (
                    HeaderName::from_static("x-agora-token"),
                    token.expose_secret().to_owned(),
                ),
                (HeaderName::from_static("x-agora-uid"), uid.clone()),
            ];
            (headers, seen, vec![token])
        }
        Auth::AgoraToken { token } => {
            let (token, seen) = read(token)?;
            let headers = vec![(
                AUTHORIZATION,
                format!("agora token={}", token.expose_secret()),
            )];
            (headers, seen, vec![token])
        }
    };
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        // Cannot fail: what a header cannot hold was refused when the secret was read, and the names when they came.
        let mut value = HeaderValue::try_from(value).map_err(|_| SecretError::Character {
            path: None,
            what: "a character",
            offset: 0,
        })?;
        value.set_sensitive(true);
        map.insert(name, value);
    }
    Ok(Current {
        seen,
        warned: seen,
        looked: seen,
        headers: map,
        hidden: hidden.iter().flat_map(forms).collect(),
    })
}

/// All that URLs escape: everything but RFC 3986's unreserved characters.
const IN_A_QUERY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// As [`IN_A_QUERY`], where a slash may stand for itself.
const IN_A_PATH: &AsciiSet = &IN_A_QUERY.remove(b'/');

/// A secret, and the forms that JSON and URLs give it where it holds what they escape.
fn forms(secret: &SecretString) -> Vec<SecretString> {
    let plain = secret.expose_secret();
    let quoted = serde_json::Value::from(plain).to_string();
    let json = quoted[1..quoted.len() - 1].to_owned();
    let percent = |escaped| utf8_percent_encode(plain, escaped).to_string();
    let mut forms = vec![plain.to_owned()];
    for form in [
        json.replace('/', "\\/"),
        json,
        percent(IN_A_QUERY),
        percent(IN_A_PATH),
    ] {
        if !forms.contains(&form) {
            forms.push(form);
        }
    }
    forms.into_iter().map(SecretString::from).collect()
}

/// The secret, and what its file looked like *before* it was read: a change in between is then seen as one.
fn read(secret: &Secret) -> Result<(SecretString, Option<Stamp>), SecretError> {
    let (text, seen, path) = match secret {
        Secret::Inline(text) => (text.clone(), None, None),
        Secret::File(path) => {
            let failed = |source| SecretError::Read {
                path: path.clone(),
                source,
            };
            let seen = stamp(path).map_err(failed)?;
            let mut text = String::new();
            let file = File::open(path).map_err(failed)?;
            file.take(MAX_SECRET as u64 + 1)
                .read_to_string(&mut text)
                .map_err(failed)?;
            if text.len() > MAX_SECRET {
                return Err(SecretError::TooLong {
                    path: path.clone(),
                    limit: MAX_SECRET,
                });
            }
            // What editors leave around it.
            let tidied = text.trim_start_matches('\u{feff}');
            let tidied = tidied.trim_end_matches(['\r', '\n']);
            (SecretString::from(tidied), Some(seen), Some(path))
        }
    };
    if text.expose_secret().is_empty() {
        return Err(SecretError::Empty {
            path: path.cloned(),
        });
    }
    if let Some(error) = SecretError::of(text.expose_secret(), path) {
        return Err(error);
    }
    Ok((text, seen))
}

/// What a file is, if it is a regular one once links are followed: opening a FIFO waits for its writer.
pub(crate) fn regular(path: &Path) -> io::Result<Metadata> {
    let metadata = fs::metadata(path)?;
    match metadata.is_file() {
        true => Ok(metadata),
        false => Err(io::Error::other("it is not a regular file")),
    }
}

fn stamp(path: &Path) -> io::Result<Stamp> {
    let metadata = regular(path)?;
    Ok(Stamp {
        modified: metadata.modified().ok(),
        length: metadata.len(),
        inode: metadata.ino(),
        mode: metadata.mode(),
    })
}

#[cfg(test)]
mod tests;

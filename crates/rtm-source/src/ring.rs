//! Regions, streams, and the rings that they make.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use reqwest::Url;

/// The most events that one call returns, by the API's documentation.
pub const MAX_PAGE_EVENTS: usize = 1_000;

/// The most events that a ring stores, by the same documentation; past that, the newest replaces the oldest.
pub const MAX_RING_EVENTS: usize = 2_000;

/// One region's store of one stream at Agora: what a single GET reads, and empties.
///
/// Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ring {
    /// Where the events are stored.
    pub region: Arc<Region>,
    /// Which of the two endpoints.
    pub stream: Stream,
}

impl fmt::Display for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.region.name, self.stream)
    }
}

/// Agora's two kinds of events, each with an endpoint of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stream {
    /// Login and logout: `user_events`.
    User,
    /// Join and leave: `channel_events`.
    Channel,
}

impl Stream {
    /// Both, in the order in which they are polled first.
    pub const ALL: [Stream; 2] = [Stream::User, Stream::Channel];

    /// `user` or `channel`, as in metric labels and tags.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Stream::User => "user",
            Stream::Channel => "channel",
        }
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Stream {
    type Err = ParseStreamError;

    fn from_str(text: &str) -> Result<Stream, ParseStreamError> {
        Stream::ALL
            .into_iter()
            .find(|stream| stream.as_str() == text)
            .ok_or_else(|| ParseStreamError(text.escape_default().to_string()))
    }
}

/// The text names no stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no such stream: {0}; expected user or channel")]
pub struct ParseStreamError(String);

/// A name and a base URL, and no promise of isolation: whether a host's region is the event store's region is
/// documented nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Region {
    name: String,
    base_url: Url,
    loopback: bool,
}

/// Agora's region hosts: the name in a configuration, and the host (*Signaling RESTful API*, "Domain names").
///
/// The hosts that are resolved by geography, `api.agora.io` and `api.sd-rtn.com`, are left out on purpose: a DNS move
/// would change the region that is read, and the tag would not say so.
const BUILTIN: [(&str, &str); 8] = [
    ("us-west-1", "api-us-west-1.agora.io"),
    ("us-east-1", "api-us-east-1.agora.io"),
    ("eu-west-1", "api-eu-west-1.agora.io"),
    ("eu-central-1", "api-eu-central-1.agora.io"),
    ("ap-southeast-1", "api-ap-southeast-1.agora.io"),
    ("ap-northeast-1", "api-ap-northeast-1.agora.io"),
    ("cn-east-1", "api-cn-east-1.sd-rtn.com"),
    ("cn-north-1", "api-cn-north-1.sd-rtn.com"),
];

/// A region's name is a metric label and a part of subjects, so it is short.
const MAX_NAME: usize = 64;

impl Region {
    /// One of Agora's region hosts, by its name without the `api-` prefix, such as `eu-west-1`.
    ///
    /// # Errors
    ///
    /// [`RegionError::Unknown`] names the nearest known name, if one is near, and all of them.
    pub fn builtin(name: &str) -> Result<Region, RegionError> {
        let Some((name, host)) = BUILTIN.iter().find(|(known, _)| *known == name) else {
            return Err(RegionError::Unknown {
                name: printable(name),
                nearest: nearest(name),
            });
        };
        Region::new(name, &format!("https://{host}"), false)
    }

    /// The names that [`Region::builtin`] knows.
    pub fn builtin_names() -> impl Iterator<Item = &'static str> {
        BUILTIN.iter().map(|(name, _)| *name)
    }

    /// Any name and base URL. The URL may have a path, which is kept; `/dev/v2/project/<app id>` and the endpoint's
    /// path are appended to it.
    ///
    /// `allow_insecure_http` accepts `http://` for hosts other than loopback: credentials and events then cross the
    /// network in the clear.
    ///
    /// # Errors
    ///
    /// [`RegionError`] when the name is not 1 to 64 of `A-Z a-z 0-9 - _`, or when the URL is not plain `https://`
    /// (`http://` for loopback), or has a user, a query or a fragment.
    pub fn new(
        name: &str,
        base_url: &str,
        allow_insecure_http: bool,
    ) -> Result<Region, RegionError> {
        let named = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(named) {
            return Err(RegionError::Name(printable(name)));
        }
        let invalid = |reason: &'static str| RegionError::BaseUrl {
            region: name.to_owned(),
            reason,
        };
        let base_url = Url::parse(base_url).map_err(|_| invalid("not a URL"))?;
        // The URL itself is never in the error: a user and a password may be in it.
        if !base_url.username().is_empty() || base_url.password().is_some() {
            return Err(invalid("credentials do not belong in the URL"));
        }
        if base_url.query().is_some() || base_url.fragment().is_some() {
            return Err(invalid("a query or a fragment does not belong in it"));
        }
        if base_url.path().contains("/dev/v2/project") {
            return Err(invalid(
                "give what precedes /dev/v2/project; the App ID and the endpoint are appended",
            ));
        }
        let Some(host) = base_url.host_str() else {
            return Err(invalid("no host"));
        };
        let loopback = is_loopback(host);
        match base_url.scheme() {
            "https" => {}
            "http" if loopback || allow_insecure_http => {}
            "http" => {
                return Err(invalid(
                    "http:// is accepted for loopback addresses only; use https://",
                ));
            }
            _ => return Err(invalid("expected https://")),
        }
        Ok(Region {
            name: name.to_owned(),
            base_url,
            loopback,
        })
    }

    /// What events are tagged with.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What precedes `/dev/v2/project/<app id>`.
    #[must_use]
    pub fn base_url(&self) -> &Url {
        &self.base_url
    }

    /// Whether credentials and events cross a network in the clear: `http://`, and not to loopback.
    #[must_use]
    pub fn is_insecure(&self) -> bool {
        self.base_url.scheme() == "http" && !self.loopback
    }

    /// Whether the host is this machine: such a region is reached directly, whatever proxy is set.
    pub(crate) fn is_loopback(&self) -> bool {
        self.loopback
    }
}

/// Why a region is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegionError {
    /// No built-in region has this name.
    #[error(
        "unknown region {name}{}; known are {}; for another host give a name and a base_url",
        nearest.map(|nearest| format!(", did you mean {nearest}?")).unwrap_or_default(),
        Region::builtin_names().collect::<Vec<_>>().join(", ")
    )]
    Unknown {
        /// What was asked for.
        name: String,
        /// The known name that differs least, if it differs little.
        nearest: Option<&'static str>,
    },
    /// The name cannot be a label.
    #[error("bad region name {0:?}: expected 1 to 64 of A-Z a-z 0-9 - _")]
    Name(String),
    /// The URL is not accepted.
    #[error("bad base_url of region {region}: {reason}")]
    BaseUrl {
        /// The region's name.
        region: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn printable(name: &str) -> String {
    name.chars()
        .take(MAX_NAME)
        .flat_map(char::escape_default)
        .collect()
}

/// The known name at the smallest edit distance, if that is a typing error and not another word.
fn nearest(name: &str) -> Option<&'static str> {
    const TYPING_ERRORS: usize = 3;
    let name = name.trim().to_ascii_lowercase().replace('_', "-");
    let name = name.strip_prefix("api-").unwrap_or(&name);
    if name.len() > MAX_NAME {
        return None;
    }
    Region::builtin_names()
        .map(|known| (edits(name, known), known))
        .min()
        .filter(|(edits, _)| *edits <= TYPING_ERRORS)
        .map(|(_, known)| known)
}

/// The Levenshtein distance.
fn edits(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.bytes().enumerate() {
            let substituted = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests;

//! The client: one GET, and what became of it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::{Auth, BoxError, FetchError, Page, Region, Ring, SecretError, Slot};

/// One App ID's events at Agora.
///
/// Knows the regions and how to ask them; holds no state about their events. Every request goes out once: no retry, no
/// redirect, no hedging.
#[derive(Debug)]
pub struct Source {}

impl Source {
    /// Checks the options, reads the secrets and the certificates, and opens no connection.
    ///
    /// # Errors
    ///
    /// [`BuildError`] names the option.
    pub fn new(_options: SourceOptions) -> Result<Source, BuildError> {
        unimplemented!()
    }

    /// Both streams of every region, in the order of the options.
    #[must_use]
    pub fn rings(&self) -> &[Ring] {
        unimplemented!()
    }

    /// Reads, and thereby empties, a ring: at most [`crate::MAX_PAGE_EVENTS`] events. Takes `slot` from the limiter, to
    /// which it returns a second after the response or the failure was seen, and later if the request timed out.
    ///
    /// **Cancellation loses events.** Let the future run to its end, in a task that nothing aborts; it ends by itself
    /// within [`SourceOptions::deadline`]. A dropped one has closed its connection and counts for the limiter as timed
    /// out.
    ///
    /// # Errors
    ///
    /// [`FetchError`] tells what must be assumed about the events; what did arrive of the body is in its `partial`.
    pub async fn fetch(&self, _ring: &Ring, _slot: Slot) -> Result<Page, FetchError> {
        std::future::pending().await
    }

    /// Opens a connection to the region's host, with TLS, and keeps it for the first fetch.
    ///
    /// Asks for `HEAD /` without credentials, which reads no events and is outside the rate limit; any answer will do.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] when the host cannot be reached, or its certificate is not accepted.
    pub async fn connect(&self, _region: &Region) -> Result<(), ConnectError> {
        std::future::pending().await
    }
}

/// What a [`Source`] is made from. [`SourceOptions::new`] has the defaults. Prints no secret.
#[derive(Clone)]
pub struct SourceOptions {
    /// The App ID: 1 to 64 of `A-Z a-z 0-9 - _`.
    pub app_id: String,
    /// Who we are.
    pub auth: Auth,
    /// The regions to read, at least one, with different names.
    pub regions: Vec<Region>,
    /// The path of user events after `/dev/v2/project/<app id>/`. Default `rtm/vendor/user_events`.
    pub user_path: String,
    /// The path of channel events. Default `rtm/vendor/channel_events`; one edition of Agora's documentation says
    /// `rtm/hook/channel_events`.
    pub channel_path: String,
    /// The time a request has, from its start to the last byte of its body. Default 30 s. The only thing that ends a
    /// request in flight.
    pub deadline: Duration,
    /// The time that name resolution, connecting and TLS have within it. Default 10 s.
    pub connect_timeout: Duration,
    /// A proxy for all regions but loopback ones, such as `http://user:password@proxy:3128`. Default `None`: the
    /// environment's (`HTTPS_PROXY`, `NO_PROXY`).
    pub proxy: Option<String>,
    /// A PEM file of certificates to trust beside the system's. Default `None`.
    pub extra_ca_file: Option<PathBuf>,
    /// The `User-Agent`. Default `rtm-bridge/<version>`.
    pub user_agent: String,
    /// Where a body is cut, in bytes. Default 2 MiB: a legal page with every id escaped is under 1 MiB.
    pub max_page_bytes: usize,
}

impl SourceOptions {
    /// The defaults.
    #[must_use]
    pub fn new(app_id: impl Into<String>, auth: Auth, regions: Vec<Region>) -> SourceOptions {
        SourceOptions {
            app_id: app_id.into(),
            auth,
            regions,
            user_path: "rtm/vendor/user_events".to_owned(),
            channel_path: "rtm/vendor/channel_events".to_owned(),
            deadline: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            proxy: None,
            extra_ca_file: None,
            user_agent: concat!("rtm-bridge/", env!("CARGO_PKG_VERSION")).to_owned(),
            max_page_bytes: 2 * 1024 * 1024,
        }
    }
}

impl fmt::Debug for SourceOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A proxy's URL may hold a password.
        f.debug_struct("SourceOptions")
            .field("app_id", &self.app_id)
            .field("auth", &self.auth)
            .field("regions", &self.regions)
            .finish_non_exhaustive()
    }
}

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
    #[error("bad extra_ca_file {}", path.display())]
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

/// Why a region's host cannot be reached.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect to region {region} ({reason})")]
pub struct ConnectError {
    /// The region's name.
    pub region: String,
    /// One of [`FetchError::REASONS`].
    pub reason: &'static str,
    /// What the HTTP client said.
    #[source]
    pub source: BoxError,
}

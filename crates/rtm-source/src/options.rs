//! What a source is made from.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::{Auth, Region};

/// What a [`Source`](crate::Source) is made from. [`SourceOptions::new`] has the defaults. Prints no secret.
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

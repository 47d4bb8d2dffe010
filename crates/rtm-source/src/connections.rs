//! Connections that sources share.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::{Client, ClientBuilder};

use crate::{BuildError, SourceOptions, build};

/// Keep-alive connections, and what it takes to open them, for sources that reach their hosts in the same way.
///
/// Sources differ in App ID and credentials, which go with each request, and not with a connection. Unused connections
/// are closed after 20 s; there are never more than requests in flight at once, which the rate limits bound.
#[derive(Default)]
pub struct Connections {
    made: Mutex<HashMap<Way, Clients>>,
}

/// The options that a connection depends on.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Way {
    connect_timeout: Duration,
    deadline: Duration,
    proxy: Option<String>,
    extra_ca_file: Option<PathBuf>,
    user_agent: String,
}

/// With the proxy, if there is one, and without.
#[derive(Clone)]
pub(crate) struct Clients {
    pub(crate) proxied: Client,
    pub(crate) direct: Client,
}

impl Connections {
    pub(crate) fn clients(&self, options: &SourceOptions) -> Result<Clients, BuildError> {
        let way = Way {
            connect_timeout: options.connect_timeout,
            deadline: options.deadline,
            proxy: options.proxy.clone(),
            extra_ca_file: options.extra_ca_file.clone(),
            user_agent: options.user_agent.clone(),
        };
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(clients) = made.get(&way) {
            return Ok(clients.clone());
        }
        let tls = build::tls(options.extra_ca_file.as_deref())?;
        let proxy = build::proxied(options.proxy.as_deref())?;
        let clients = Clients {
            proxied: build::client(options, tls.clone(), proxy)?,
            direct: build::client(options, tls, ClientBuilder::no_proxy)?,
        };
        made.insert(way, clients.clone());
        Ok(clients)
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A proxy's URL may hold a password.
        let ways = self.made.lock().map_or(0, |made| made.len());
        f.debug_struct("Connections").field("ways", &ways).finish()
    }
}

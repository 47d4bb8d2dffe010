//! Where to listen, as people write it: an address, a host name, or a port alone.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, lookup_host};

/// A host and a port, such as `127.0.0.1:9464`, `[::1]:9464`, `localhost:9464`, or `:9464` for every address of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(inline, with = "String")]
pub struct Listen {
    /// Empty for every address.
    host: String,
    port: u16,
}

impl Listen {
    /// Listens there. Of the addresses that a name has the first is taken that can be listened on, those of IPv4 before
    /// those of IPv6, since that is what a person who writes `localhost` tries first.
    pub(crate) async fn bind(&self) -> std::io::Result<TcpListener> {
        let mut addresses = self.resolve().await?;
        addresses.sort_by_key(|address| address.is_ipv6() != self.host.is_empty());
        TcpListener::bind(&*addresses).await
    }

    /// The addresses that it means now.
    pub(crate) async fn resolve(&self) -> std::io::Result<Vec<SocketAddr>> {
        if self.host.is_empty() {
            // Where there is IPv6, its any address takes IPv4 too.
            let any: [IpAddr; 2] = [Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()];
            return Ok(any.map(|ip| SocketAddr::from((ip, self.port))).into());
        }
        Ok(lookup_host((self.host.as_str(), self.port))
            .await?
            .collect())
    }

    /// Why this machine cannot listen there, whatever else listens there now.
    pub(crate) async fn unusable(&self) -> Option<String> {
        let addresses = match self.resolve().await {
            Ok(addresses) => addresses,
            Err(error) => return Some(format!("the host `{}` is not found: {error}", self.host)),
        };
        // On any port: a bridge may be running on its own.
        let any: Vec<SocketAddr> = addresses.iter().map(|one| (one.ip(), 0).into()).collect();
        let error = std::net::TcpListener::bind(&*any).err()?;
        Some(format!(
            "`{}` is no address of this machine: {error}",
            self.host
        ))
    }

    /// Whether only this machine can reach it, as far as the text tells.
    pub(crate) fn is_loopback(&self) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(ip) => ip.is_loopback(),
            Err(_) => self.host == "localhost" || self.host.ends_with(".localhost"),
        }
    }

    /// The port; 0 lets the system choose one.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The host, without a port.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// How this machine reaches it: from outside, "any address" is this machine.
    pub(crate) fn as_reached_here(&self) -> Listen {
        let host = match self.host.parse::<IpAddr>() {
            Ok(IpAddr::V4(ip)) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
            Ok(IpAddr::V6(ip)) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.to_string(),
            _ if self.host.is_empty() => Ipv4Addr::LOCALHOST.to_string(),
            _ => self.host.clone(),
        };
        Listen { host, ..*self }
    }
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Listen {
        Listen {
            host: address.ip().to_string(),
            port: address.port(),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Text that is no place to listen at.
#[derive(Debug, thiserror::Error)]
#[error(
    "expected an address and a port, such as 127.0.0.1:9464, [::1]:9464, localhost:9464, or :9464 for every address"
)]
pub struct NotAnAddress;

impl FromStr for Listen {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Listen, NotAnAddress> {
        let text = text.trim();
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(address.into());
        }
        let (host, port) = text.rsplit_once(':').ok_or(NotAnAddress)?;
        let is_legal = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        // An address with a slip must not be looked up as a name.
        let is_name =
            host.bytes().all(is_legal) && !host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        if !host.is_empty() && !is_name {
            return Err(NotAnAddress);
        }
        Ok(Listen {
            host: host.to_ascii_lowercase(),
            port: port.parse().map_err(|_| NotAnAddress)?,
        })
    }
}

impl TryFrom<String> for Listen {
    type Error = NotAnAddress;

    fn try_from(text: String) -> Result<Listen, NotAnAddress> {
        text.parse()
    }
}

impl From<Listen> for String {
    fn from(listen: Listen) -> String {
        listen.to_string()
    }
}

#[cfg(test)]
mod tests;

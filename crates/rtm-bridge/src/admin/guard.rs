//! Who may ask.
//!
//! A page of somebody else's can have its own name resolve to our address, and then read what a browser behind our firewall
//! gets from us (DNS rebinding). Such a request names that page's host. So a name must be one that nobody outside can have:
//! one without a dot, one below a domain that the public DNS does not serve, this machine's own, or one that the
//! configuration names. An address is no name, and cannot be rebound. With a token the check is not needed: that page has none.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex};

use axum::extract::{Request, State as Extract};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rtm_sink::Seldom;
use tracing::warn;

use super::credentials::{self, Current};
use crate::config::AdminConfig;
use crate::lock;

/// Domains that the public DNS does not serve: RFC 6761, 6762, 8375, ICANN's decision of 2024 on `internal`; and `svc`, below
/// which Kubernetes has its services.
const PRIVATE: [&str; 5] = [".localhost", ".local", ".home.arpa", ".internal", ".svc"];

/// Answers without a token: that the process lives is no secret, and who asks for it often cannot send one.
const OPEN: &str = "/healthz";

/// What is asked of a request before it is answered.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    hosts: Arc<[String]>,
    credentials: Current,
    /// Of foreign names.
    told: Arc<Mutex<Seldom>>,
}

impl Guard {
    pub(super) fn new(config: &AdminConfig, credentials: Current) -> Guard {
        let own = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let listen = config.listen.host();
        let hosts = [own.trim(), listen]
            .map(str::to_ascii_lowercase)
            .into_iter();
        let more = config.hosts.iter().map(|host| host.to_ascii_lowercase());
        Guard {
            hosts: hosts.chain(more).filter(|host| !host.is_empty()).collect(),
            credentials,
            told: Arc::default(),
        }
    }

    fn misdirected(&self, host: &str) -> Response {
        if lock(&self.told).due(1).is_some() {
            warn!(
                host,
                "a request to the admin endpoint was refused: it names a host that may be anybody's; if it is this one, put \
                 it into admin.hosts"
            );
        }
        let said = "this name may be anybody's; if it is this bridge's, put it into admin.hosts of its configuration\n";
        (StatusCode::MISDIRECTED_REQUEST, said).into_response()
    }

    /// Whether a `Host` header names this endpoint.
    fn is_ours(&self, header: &str) -> bool {
        let host = without_port(header)
            .trim_end_matches('.')
            .to_ascii_lowercase();
        let is_address = host.parse::<IpAddr>().is_ok()
            || host.trim_matches(['[', ']']).parse::<Ipv6Addr>().is_ok();
        let is_named = |known: &String| match known.strip_prefix('.') {
            Some(domain) => host == domain || host.ends_with(known.as_str()),
            None => host == *known,
        };
        is_address
            || !host.contains('.')
            || PRIVATE.iter().any(|domain| host.ends_with(domain))
            || self.hosts.iter().any(is_named)
    }
}

/// Answers what may be answered.
pub(super) async fn check(
    Extract(guard): Extract<Guard>,
    request: Request,
    next: Next,
) -> Response {
    let credentials = credentials::now(&guard.credentials);
    if credentials.asks() {
        let is_open = request.uri().path() == OPEN;
        if !is_open && !credentials.admit(given(request.headers()).as_deref()) {
            return unauthorized();
        }
        return next.run(request).await;
    }
    // HTTP/1.0 may come without any; browsers do not.
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let foreign = hosts.find(|host| !host.to_str().is_ok_and(|host| guard.is_ours(host)));
    match foreign {
        None => next.run(request).await,
        Some(host) => guard.misdirected(&String::from_utf8_lossy(host.as_bytes())),
    }
}

fn without_port(header: &str) -> &str {
    match header.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => header,
    }
}

/// The token of a request: a bearer's (RFC 6750), or a password, which is what a browser can ask a person for.
fn given(headers: &HeaderMap) -> Option<Vec<u8>> {
    let header = headers.get(header::AUTHORIZATION)?.as_bytes();
    let space = header.iter().position(|byte| *byte == b' ')?;
    let (scheme, value) = header.split_at(space);
    let value = value.trim_ascii();
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Some(value.to_vec());
    }
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let pair = STANDARD.decode(value).ok()?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    Some(pair[colon + 1..].to_vec())
}

fn unauthorized() -> Response {
    let ways = [
        (header::WWW_AUTHENTICATE, "Bearer realm=\"rtm-bridge\""),
        (
            header::WWW_AUTHENTICATE,
            "Basic realm=\"rtm-bridge: the token as password\"",
        ),
    ];
    let mut response = (StatusCode::UNAUTHORIZED, "a token is needed\n").into_response();
    for (name, value) in ways {
        let value = header::HeaderValue::from_static(value);
        response.headers_mut().append(name, value);
    }
    response
}

#[cfg(test)]
mod tests;

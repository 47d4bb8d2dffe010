//! Values as they may be shown.

use serde::Serialize;

/// Scheme, host and port of a URL or an address: neither a user and a password before them, nor a path, a query or a
/// fragment, which may hold a token.
pub(crate) fn host(url: &str) -> String {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, url),
    };
    // A password with a slash in it, unescaped, is before the last `@` all the same.
    let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    let host = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    match scheme {
        Some(scheme) => format!("{scheme}://{host}"),
        None => host.to_owned(),
    }
}

pub(crate) fn list(values: impl Iterator<Item = String>) -> String {
    let values: Vec<_> = values.collect();
    if values.is_empty() {
        return "none".to_owned();
    }
    values.join(", ")
}

/// One of a few words, as it is written.
pub(crate) fn word(value: impl Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

pub(crate) fn is_set(set: bool) -> String {
    if set { "set" } else { "not set" }.to_owned()
}

#[cfg(test)]
mod tests;

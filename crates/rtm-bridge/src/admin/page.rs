//! The status page: one document with its style and its script, for a browser that reaches nothing but the bridge.

use std::sync::OnceLock;

use axum::http::{HeaderName, header};
use axum::response::{Html, IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
const PAGE: &str = concat!(
    "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
     <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
     <meta name=\"color-scheme\" content=\"light dark\">\n\
     <title>rtm-bridge</title>\n<link rel=\"icon\" href=\"data:,\">\n<style>",
    include_str!("page.css"),
    "</style>\n</head>\n",
    include_str!("page.html"),
    "<script>",
    include_str!("page.js"),
    "</script>\n</html>\n",
);

/// The page. It runs its own script and style, which the browser knows by their hashes, asks its own server, and does
/// nothing else: whatever an error's text may hold, it is text.
pub(super) async fn page() -> Response {
    static POLICY: OnceLock<String> = OnceLock::new();
    let headers = [
        (
            header::CONTENT_SECURITY_POLICY,
            POLICY.get_or_init(policy).as_str(),
        ),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("x-content-type-options"), "nosniff"),
    ];
    (headers, Html(PAGE)).into_response()
}

fn policy() -> String {
    let hash = |text: &str| STANDARD.encode(Sha256::digest(text));
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash(SCRIPT),
        hash(STYLE)
    )
}

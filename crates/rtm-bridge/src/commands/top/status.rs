//! `/status.json` of a running bridge.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;
use serde::Deserialize;

use rtm_engine::status::report::{Report, VERSION};

/// How long an answer may take.
const DEADLINE: Duration = Duration::from_secs(3);

/// An answer is a megabyte or two at the most: what is larger is none of ours.
const MAX_BYTES: usize = 16 << 20;

/// What people may have copied with the address.
const PATHS: [&str; 3] = ["/status.json", "/status", "/metrics"];

/// What a bridge says of itself.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Status {
    pub(super) version: String,
    #[serde(flatten)]
    pub(super) report: Report,
}

impl Status {
    fn parse(body: &[u8]) -> Option<Status> {
        let status = serde_json::from_slice(body).ok();
        status.filter(|status: &Status| status.report.v == VERSION)
    }
}

/// Asks one bridge.
pub(super) struct Asker {
    client: reqwest::Client,
    document: Url,
    token_file: Option<PathBuf>,
}

/// What an endpoint may ask for, and how it is known.
#[derive(Debug, Clone, Default)]
pub(super) struct Access {
    /// The file with the token.
    pub(super) token_file: Option<PathBuf>,
    /// Certificates to trust beside the system's.
    pub(super) ca_file: Option<PathBuf>,
}

impl Asker {
    /// `url` is an admin address, with or without `http://` and the path of one of its pages.
    pub(super) fn new(url: &str, access: Access) -> Result<Asker, String> {
        let whole = if url.contains("://") {
            url.to_owned()
        } else {
            format!("http://{url}")
        };
        let is_ours = |url: &Url| url.has_host() && ["http", "https"].contains(&url.scheme());
        let parsed = Url::parse(&whole).ok().filter(is_ours);
        let mut document = parsed
            .ok_or_else(|| format!("`{url}` is not an address such as http://127.0.0.1:9464"))?;
        let base = document.path().trim_end_matches('/');
        let stripped = PATHS.iter().find_map(|path| base.strip_suffix(path));
        document.set_path(&format!("{}/status.json", stripped.unwrap_or(base)));
        let tls = rtm_source::client_tls(access.ca_file.as_deref())
            .map_err(|error| crate::chain(&error))?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .timeout(DEADLINE)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| crate::chain(&error))?;
        let token_file = access.token_file;
        Ok(Asker {
            client,
            document,
            token_file,
        })
    }

    /// The address without a path.
    pub(super) fn url(&self) -> &str {
        self.document.as_str().trim_end_matches("/status.json")
    }

    /// Why there is no answer. One who asks without TLS where there is TLS, or the other way, is told so.
    fn said(&self, error: &reqwest::Error) -> String {
        let is_plain = self.document.scheme() == "http";
        // It was sent, and what came back is no HTTP, or nothing.
        let is_no_http = error.is_request() && !error.is_connect() && !error.is_timeout();
        let what = cause(error);
        if is_plain && is_no_http {
            let https = self.url().replacen("http:", "https:", 1);
            return format!(
                "it does not answer in HTTP ({what}); if it has admin.tls, ask {https}"
            );
        }
        rtm_source::tls_said(error, "--ca-file").unwrap_or(what)
    }

    /// What the bridge says now, or why it says nothing.
    pub(super) async fn ask(&self) -> Result<Status, String> {
        let mut request = self.client.get(self.document.clone());
        if let Some(file) = &self.token_file {
            // Each time, since it may be renewed.
            let token = rtm_sink::read_text(file);
            let token =
                token.map_err(|error| format!("cannot read {}: {error}", file.display()))?;
            request = request.bearer_auth(token);
        }
        let said = |error: reqwest::Error| self.said(&error);
        let response = request.send().await.map_err(said)?;
        if response.status() == reqwest::StatusCode::UNAUTHORIZED {
            let why = match &self.token_file {
                None => "it asks for a token: --token-file",
                Some(_) => "it refuses the token of that file",
            };
            return Err(why.to_owned());
        }
        let mut response = response.error_for_status().map_err(said)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(said)? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_BYTES {
                return Err("the answer does not end".to_owned());
            }
        }
        let other = || format!("this is not a bridge's status of version {VERSION}");
        Status::parse(&body).ok_or_else(other)
    }
}

/// The last cause, which is what went wrong; where we asked, and by what, is known.
fn cause(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    crate::chain(last)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

//! The client: one GET, and what became of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderValue;
use http::header::{ACCEPT, ACCEPT_ENCODING};
use jiff::Timestamp;
use reqwest::{Client, Url};
use tokio::time::{Instant, timeout, timeout_at};

use crate::auth::Credentials;
use crate::connections::{Clients, Connections};
use crate::{
    BuildError, ConnectError, Ending, Fetch, FetchError, NoResponse, Page, Region, Response, Ring,
    Slot, SourceOptions, Stream, build,
};

/// One App ID's events at Agora.
///
/// Knows the regions and how to ask them; holds no state about their events. Every request goes out once: no retry, no
/// redirect, no hedging.
pub struct Source {
    pub(crate) rings: Vec<Ring>,
    /// One for each ring, in the same order.
    urls: Vec<Url>,
    pub(crate) credentials: Credentials,
    /// With the proxy, if there is one.
    pub(crate) client: Client,
    /// For loopback: no proxy can reach this machine's.
    direct: Client,
    pub(crate) deadline: Duration,
    connect_timeout: Duration,
    max_page_bytes: usize,
}

impl Source {
    /// Checks the options, reads the secrets and the certificates, and opens no connection.
    ///
    /// Certificates are verified against the system's (or those in `SSL_CERT_FILE` and `SSL_CERT_DIR`), and against
    /// Mozilla's, which are built in, where the system has none, as in a slim container.
    ///
    /// # Errors
    ///
    /// [`BuildError`] names the option.
    pub fn new(options: SourceOptions) -> Result<Source, BuildError> {
        Source::sharing(options, &Connections::default())
    }

    /// As [`Source::new`], with the connections of all sources that were made with these `connections` and reach hosts in
    /// the same way: hundreds of App IDs then have one set of certificates, and few idle connections.
    ///
    /// # Errors
    ///
    /// As [`Source::new`].
    pub fn sharing(
        options: SourceOptions,
        connections: &Connections,
    ) -> Result<Source, BuildError> {
        build::check(&options)?;
        let Clients { proxied, direct } = connections.clients(&options)?;
        let (mut rings, mut urls) = (Vec::new(), Vec::new());
        for region in options.regions {
            let region = Arc::new(region);
            for stream in Stream::ALL {
                let path = match stream {
                    Stream::User => &options.user_path,
                    Stream::Channel => &options.channel_path,
                };
                urls.push(build::url(&region, &options.app_id, path));
                rings.push(Ring {
                    region: Arc::clone(&region),
                    stream,
                });
            }
        }
        Ok(Source {
            rings,
            urls,
            credentials: Credentials::new(options.auth)?,
            client: proxied,
            direct,
            deadline: options.deadline,
            connect_timeout: options.connect_timeout,
            max_page_bytes: options.max_page_bytes,
        })
    }

    /// Both streams of every region, in the order of the options.
    #[must_use]
    pub fn rings(&self) -> &[Ring] {
        &self.rings
    }

    /// Reads, and thereby empties, a ring: see [`Fetch::fetch`] for the contract. Ends by itself within
    /// [`SourceOptions::deadline`].
    ///
    /// # Errors
    ///
    /// [`FetchError`] tells what must be assumed about the events; what did arrive of the body is in its `partial`.
    pub async fn fetch(&self, ring: &Ring, slot: Slot) -> Result<Page, FetchError> {
        let deadline = Instant::now() + self.deadline;
        slot.using(self.exchange(ring, deadline)).await
    }

    async fn exchange(&self, ring: &Ring, deadline: Instant) -> Result<Page, FetchError> {
        let Some(at) = self.rings.iter().position(|known| known == ring) else {
            return Err(FetchError::no_response(
                NoResponse::Request,
                Some("no such ring".into()),
            ));
        };
        let request = self
            .client_for(&ring.region)
            .get(self.urls[at].clone())
            .headers(self.credentials.headers().await)
            .header(ACCEPT, HeaderValue::from_static("application/json"))
            // The caps and the stored bytes are those of the wire.
            .header(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let response = match timeout_at(deadline, request.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(FetchError::from_client(error)),
            Err(_) => {
                let why = "no response before the deadline";
                return Err(FetchError::no_response(
                    NoResponse::Timeout,
                    Some(why.into()),
                ));
            }
        };
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let (body, ending) = self.receive(response, deadline).await;
        let response = Response {
            status,
            headers,
            body,
            ending,
        };
        let response = response.unpacked(self.max_page_bytes);
        let fetched =
            response.judge_redacted(ring, Timestamp::now(), |text| self.credentials.redact(text));
        if status == 401 {
            self.credentials.refused();
        }
        fetched
    }

    /// The body, or what of it comes before it is cut in any way.
    pub(crate) async fn receive(
        &self,
        mut response: reqwest::Response,
        deadline: Instant,
    ) -> (Bytes, Ending) {
        let announced = response.content_length().unwrap_or_default();
        let room = usize::try_from(announced)
            .unwrap_or(usize::MAX)
            .min(self.max_page_bytes);
        let mut body = BytesMut::with_capacity(room);
        let ending = loop {
            match timeout_at(deadline, response.chunk()).await {
                Ok(Ok(Some(chunk))) => {
                    let room = self.max_page_bytes - body.len();
                    body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                    if chunk.len() > room {
                        break Ending::TooLarge;
                    }
                }
                Ok(Ok(None)) => break Ending::Closed,
                Ok(Err(error)) => break Ending::Broken(error.without_url().into()),
                Err(_) => break Ending::TimedOut,
            }
        };
        (body.freeze(), ending)
    }

    /// Opens a connection to the region's host, with TLS, and keeps it for the first fetch.
    ///
    /// Asks for `HEAD /` without credentials, which reads no events and is outside the rate limit; any answer will do.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] when the host cannot be reached, or its certificate is not accepted.
    pub fn connect(
        &self,
        region: &Region,
    ) -> impl Future<Output = Result<(), ConnectError>> + Send + 'static {
        let mut root = region.base_url().clone();
        root.set_path("/");
        let name = region.name().to_owned();
        let failed = move |reason, source| ConnectError {
            region: name,
            reason,
            source,
        };
        let sent = self.client_for(region).head(root).send();
        // As long again for the answer as for the connection.
        let patience = self.connect_timeout * 2;
        async move {
            match timeout(patience, sent).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => {
                    let error = FetchError::from_client(error);
                    Err(failed(
                        error.reason,
                        error.source.unwrap_or_else(|| "no answer".into()),
                    ))
                }
                Err(elapsed) => Err(failed("timeout", elapsed.into())),
            }
        }
    }

    pub(crate) fn client_for(&self, region: &Region) -> &Client {
        if region.is_loopback() {
            &self.direct
        } else {
            &self.client
        }
    }
}

impl Fetch for Source {
    fn rings(&self) -> &[Ring] {
        Source::rings(self)
    }

    fn credentials_changed(&self) -> bool {
        self.credentials.have_changed()
    }

    async fn fetch(&self, ring: &Ring, slot: Slot) -> Result<Page, FetchError> {
        Source::fetch(self, ring, slot).await
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("rings", &self.rings)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

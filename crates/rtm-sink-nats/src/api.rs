//! Questions to JetStream's own interface, and why one has no answer.

use std::time::Duration;

use async_nats::client::Request;
use async_nats::header::NATS_EXPECTED_STREAM;
use async_nats::jetstream;
use async_nats::jetstream::context::{Context, ContextBuilder, RequestError, RequestErrorKind};
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::Info;
use async_nats::{Client, HeaderMap, ServerInfo};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::alarms::Alarms;

/// A question is a detour of a call that failed, or of a start: it must not take long.
const PATIENCE: Duration = Duration::from_secs(2);

/// No JetStream stream's name: it has a dot.
const NOBODYS: &str = "rtm-bridge.check";

/// The prefix of JetStream's interface, in the server's own domain.
pub(crate) const USUAL: &str = "$JS.API";

/// JetStream's interface, as one connection reaches it.
#[derive(Debug)]
pub(crate) struct Api {
    client: Client,
    context: Context,
    prefix: String,
    /// A denied question has no other answer than what the server says by itself.
    alarms: watch::Sender<Alarms>,
}

/// Why a question to JetStream has no answer that helps.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ApiError {
    /// JetStream answered with an error.
    #[error("jetstream refuses: {0}")]
    Refused(jetstream::Error),
    /// The user may not ask, or may not receive answers. In the server's words.
    #[error("nats denies it: {0}")]
    Denied(String),
    /// Nobody answers to the subject.
    #[error("nobody answers to {0}: jetstream does not run there, or its domain has another name")]
    NoResponders(String),
    /// There was no answer in time.
    #[error("no answer to {0}")]
    Silent(String),
    /// The answer makes no sense, or the connection is over.
    #[error("{0}")]
    Other(String),
}

impl Api {
    pub(crate) fn new(client: &Client, prefix: &str, alarms: watch::Sender<Alarms>) -> Api {
        let context = ContextBuilder::new().timeout(PATIENCE).api_prefix(prefix);
        Api {
            client: client.clone(),
            context: context.build(client.clone()),
            prefix: prefix.to_owned(),
            alarms,
        }
    }

    /// The server that we are connected to.
    pub(crate) fn server(&self) -> ServerInfo {
        self.client.server_info()
    }

    /// Whether the server that we are connected to says that it has JetStream.
    pub(crate) fn is_at_server(&self) -> bool {
        self.client.server_info().jetstream
    }

    /// The JetStream domain of the server that we are connected to.
    pub(crate) fn domain_of_server(&self) -> Option<String> {
        self.client.server_info().domain
    }

    /// Whether the interface is that of the server's own domain, and not another's.
    pub(crate) fn is_usual(&self) -> bool {
        self.prefix == USUAL
    }

    pub(crate) fn knows_batches(&self) -> bool {
        knows_batches(&self.client)
    }

    /// Asks at a subject below the interface's prefix.
    pub(crate) async fn ask<A: DeserializeOwned>(
        &self,
        subject: &str,
        question: &(impl Serialize + Sync),
    ) -> Result<A, ApiError> {
        let whole = format!("{}.{subject}", self.prefix);
        let asked = self.context.request(subject.to_owned(), question);
        match self.answered(whole, asked).await? {
            Response::Ok(answer) => Ok(answer),
            Response::Err { error } => Err(ApiError::Refused(error)),
        }
    }

    /// Whether we may create JetStream streams of this name: asks for one without a name, which is never made.
    pub(crate) async fn may_create(&self, name: &str) -> Result<(), ApiError> {
        let nameless = serde_json::Map::new();
        match self
            .ask::<Info>(&format!("STREAM.CREATE.{name}"), &nameless)
            .await
        {
            Ok(_) | Err(ApiError::Refused(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether we may publish to `subject`, and a JetStream stream answers there: publishes a message without content that
    /// no JetStream stream takes, since it demands one of a name that none can have.
    pub(crate) async fn may_publish(&self, subject: &str) -> Result<(), ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_EXPECTED_STREAM, NOBODYS);
        let request = Request::new().headers(headers).timeout(Some(PATIENCE));
        let asked = async {
            Ok(self
                .client
                .send_request(subject.to_owned(), request)
                .await?)
        };
        self.answered(subject.to_owned(), asked).await.map(drop)
    }

    /// The answer to what was asked at `whole`, or that it is denied.
    async fn answered<A>(
        &self,
        whole: String,
        asked: impl Future<Output = Result<A, RequestError>>,
    ) -> Result<A, ApiError> {
        let before = self.alarms.borrow().denials;
        let mut alarms = self.alarms.subscribe();
        let denied = async {
            let is_denied = |alarms: &Alarms| alarms.denial_of(&whole, before).is_some();
            // It cannot fail: the sender is ours.
            let alarms = alarms.wait_for(is_denied).await.ok();
            alarms.and_then(|alarms| alarms.denial_of(&whole, before).map(str::to_owned))
        };
        // The library's own timeout begins once the question is queued, and the queue may be full.
        let answer = tokio::select! {
            answer = timeout(PATIENCE, asked) => answer,
            Some(said) = denied => return Err(ApiError::Denied(said)),
        };
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(match error.kind() {
                RequestErrorKind::NoResponders => ApiError::NoResponders(whole),
                RequestErrorKind::TimedOut => ApiError::Silent(whole),
                _ => ApiError::Other(error.to_string()),
            }),
            Err(_) => Err(ApiError::Silent(whole)),
        }
    }
}

/// Whether the server has atomic batches (2.12 and later).
pub(crate) fn knows_batches(client: &Client) -> bool {
    client.is_server_compatible(2, 12, 0)
}

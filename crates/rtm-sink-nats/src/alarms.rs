//! What the server says without being asked: that the connection is over, and what it denies.

use async_nats::{Event, ServerError};

/// What the server said without being asked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Alarms {
    /// The connection is over.
    pub(crate) ended: bool,
    /// We may not subscribe to where acknowledgements come in.
    pub(crate) inbox_denied: Option<String>,
    /// Subjects that we may not publish to; `None` if the server did not name one.
    pub(crate) denied: Vec<Denied>,
    /// How many denials there were; a call compares it with what it was when it began.
    pub(crate) denials: u64,
    /// The last error that the server told.
    pub(crate) said: Option<String>,
}

/// The server denied a publish. There is no other answer to that publish.
#[derive(Debug, Clone)]
pub(crate) struct Denied {
    /// Counts up from 1.
    pub(crate) number: u64,
    pub(crate) subject: Option<String>,
    pub(crate) said: String,
}

/// Denied subjects remembered; the same few repeat.
const MAX_DENIED: usize = 64;

impl Alarms {
    /// Why a question at `subject` has no answer, if that was denied after so many denials.
    pub(crate) fn denial_of(&self, subject: &str, before: u64) -> Option<&str> {
        if let Some(said) = &self.inbox_denied {
            return Some(said);
        }
        let is_its = |denied: &&Denied| {
            let named = denied.subject.as_deref();
            denied.number > before && named.is_none_or(|named| named == subject)
        };
        let denied = self.denied.iter().find(is_its);
        denied.map(|denied| denied.said.as_str())
    }

    pub(crate) fn note(&mut self, event: Event) {
        match event {
            Event::Disconnected | Event::Closed => self.ended = true,
            Event::ServerError(error) => self.note_error(&error),
            Event::LameDuckMode => tracing::info!("the nats server is about to stop"),
            // Our subscription is sized so that this does not happen; if it does, the acknowledgements that are missing
            // time out.
            Event::SlowConsumer(_) => tracing::warn!("acknowledgements from nats were dropped"),
            Event::Connected | Event::Draining | Event::ClientError(_) => (),
        }
    }

    /// The server's errors have no codes (`nats-server`, `server/client.go`: `permissionsViolation`).
    fn note_error(&mut self, error: &ServerError) {
        let said = match error {
            ServerError::Other(said) => said.clone(),
            error => error.to_string(),
        };
        let lower = said.to_ascii_lowercase();
        if let Some(what) = lower.strip_prefix("permissions violation for ") {
            if what.starts_with("subscription") {
                self.inbox_denied = Some(said.clone());
            } else {
                self.denials += 1;
                let subject = said["permissions violation for ".len()..]
                    .strip_prefix("Publish to \"")
                    .and_then(|rest| rest.split('"').next())
                    .map(str::to_owned);
                self.denied.retain(|denied| denied.subject != subject);
                if self.denied.len() == MAX_DENIED {
                    self.denied.remove(0);
                }
                self.denied.push(Denied {
                    number: self.denials,
                    subject,
                    said: said.clone(),
                });
            }
        }
        self.said = Some(said);
    }
}

#[cfg(test)]
mod tests;

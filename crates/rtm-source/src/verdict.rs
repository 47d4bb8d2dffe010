//! What a response, or the lack of one, says about the events that were asked for.

use std::io::Read;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http::HeaderName;
use http::header::{CONTENT_ENCODING, HeaderMap, RETRY_AFTER};
use jiff::Timestamp;

use crate::scan::{End, Outline, outline};
use crate::{BoxError, FetchError, FetchErrorKind, Page, RequestIds, Ring};
use crate::{certificate, decode};

/// The longest `Retry-After` that is passed on. The schedule has a limit of its own, and a lower one.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3_600);
/// How much of what the far end says is kept, in characters, and how much of its body is looked at for that, in bytes.
const MAX_MESSAGE: usize = 200;
const MAX_MESSAGE_BODY: usize = 16 * 1024;
/// How every gzip begins, and no JSON.
const GZIP: &[u8] = b"\x1f\x8b";
/// Request ids are some twenty characters.
const MAX_REQUEST_ID: usize = 128;

/// A response, as far as it came.
#[derive(Debug)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// The headers, whole.
    pub headers: HeaderMap,
    /// The body up to where it ended or was cut, at most [`SourceOptions::max_page_bytes`](crate::SourceOptions).
    pub body: Bytes,
    /// How the reading of the body ended.
    pub ending: Ending,
}

/// How the reading of a body ended.
#[derive(Debug)]
pub enum Ending {
    /// As HTTP wants it, or by a close that may have come too early.
    Closed,
    /// The connection failed.
    Broken(BoxError),
    /// The deadline came first.
    TimedOut,
    /// It is longer than any page.
    TooLarge,
}

/// Why there is no response at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoResponse {
    /// There is no request to send: not sent.
    Request,
    /// The host's name was not resolved: not sent.
    Dns,
    /// The connection or TLS failed: not sent.
    Connect,
    /// Connecting took too long: not sent.
    ConnectTimeout,
    /// The deadline came before the headers: in doubt.
    Timeout,
    /// The connection ended before the headers: in doubt.
    Reset,
}

/// What must be assumed, and the label for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    kind: FetchErrorKind,
    reason: &'static str,
}

impl Verdict {
    fn not_sent(reason: &'static str) -> Verdict {
        Verdict {
            kind: FetchErrorKind::NotSent,
            reason,
        }
    }

    fn in_doubt(reason: &'static str) -> Verdict {
        Verdict {
            kind: FetchErrorKind::InDoubt,
            reason,
        }
    }

    fn refused(reason: &'static str) -> Verdict {
        Verdict {
            kind: FetchErrorKind::Refused,
            reason,
        }
    }

    /// The whole table. `None` is a page.
    fn of(status: u16, outline: &Outline<'_>, ending: &Ending) -> Option<Verdict> {
        match status {
            200 => Verdict::of_ok(outline, ending),
            // A cache or a gateway in between has its own word for success. A complete page is a page all the same.
            201..=299 => Verdict::of_ok(outline, ending).map(|_| Verdict::in_doubt("status")),
            401 | 403 => Some(Verdict::refused("unauthorized")),
            429 => Some(Verdict::refused("rate_limited")),
            300..=399 => Some(Verdict::refused("redirect")),
            400 | 404 | 413 | 415 => Some(Verdict::refused("refused")),
            // 408 and every 5xx too: a gateway that gives up may well have done so after the read.
            _ => Some(Verdict::in_doubt("status")),
        }
    }

    fn of_ok(outline: &Outline<'_>, ending: &Ending) -> Option<Verdict> {
        match (outline.end, ending) {
            (End::Malformed, _) => Some(Verdict::in_doubt("unexpected")),
            // However the connection ended: the JSON is whole, so nothing is missing.
            (End::Complete, _) => match outline.result.as_deref() {
                // Events elsewhere than in `events` are not known to be all that there were.
                Some("success")
                    if outline.count == 0 && !outline.has_events && outline.unread.is_some() =>
                {
                    Some(Verdict::in_doubt("unexpected"))
                }
                Some("success") => None,
                None if outline.has_events => None,
                None => Some(Verdict::in_doubt("unexpected")),
                Some(_) => Some(Verdict::in_doubt("failed")),
            },
            (End::Cut, Ending::Closed | Ending::Broken(_)) => Some(Verdict::in_doubt("cut")),
            (End::Cut, Ending::TimedOut) => Some(Verdict::in_doubt("timeout")),
            (End::Cut, Ending::TooLarge) => Some(Verdict::in_doubt("too_large")),
        }
    }
}

impl Response {
    /// Undoes a gzip encoding that nobody asked for, such as a proxy's that ignores `Accept-Encoding: identity`: else
    /// none of the events would be found, and Agora has deleted them. The bytes tell, whatever the headers say.
    ///
    /// Never makes more than `max_bytes`, and then the body counts as too large; of an encoding that is cut or damaged it
    /// keeps what comes before. A body of which nothing can be read stays as it is, and so does any other encoding: the
    /// bytes may be the only copy.
    #[must_use]
    pub fn unpacked(mut self, max_bytes: usize) -> Response {
        if !self.body.starts_with(GZIP) {
            return self;
        }
        let mut unpacked = Vec::new();
        let mut decoder = MultiGzDecoder::new(&*self.body).take(max_bytes as u64 + 1);
        // An error comes after what could be read before it, and whether that is a page its JSON tells.
        let _ = decoder.read_to_end(&mut unpacked);
        if unpacked.is_empty() {
            return self;
        }
        if unpacked.len() > max_bytes {
            unpacked.truncate(max_bytes);
            self.ending = Ending::TooLarge;
        }
        self.headers.remove(CONTENT_ENCODING);
        self.body = unpacked.into();
        self
    }

    /// What the response says about the events of `ring` that were asked for. `fetched_at` is when the last byte was
    /// here; a `Retry-After` that is a date counts from then.
    ///
    /// # Errors
    ///
    /// [`FetchError`] unless it is a complete page.
    pub fn judge(self, ring: &Ring, fetched_at: Timestamp) -> Result<Page, FetchError> {
        self.judge_redacted(ring, fetched_at, str::to_owned)
    }

    /// [`judge`](Response::judge), where `redact` takes our secrets out of a text.
    pub(crate) fn judge_redacted(
        self,
        ring: &Ring,
        fetched_at: Timestamp,
        redact: impl Fn(&str) -> String,
    ) -> Result<Page, FetchError> {
        let Response {
            status,
            headers,
            body,
            ending,
        } = self;
        let outline = outline(&body);
        let verdict = Verdict::of(status, &outline, &ending);
        let clean = |text: &str| printable(&redact(text), MAX_REQUEST_ID);
        let request_id = outline
            .request_id
            .as_deref()
            .filter(|id| !id.is_empty())
            .map(clean)
            .or_else(|| header(&headers, "x-request-id").map(|id| clean(&id)));
        let resource_id = header(&headers, "x-resource-id").map(|id| clean(&id));
        let page = Page {
            ring: ring.clone(),
            fetched_at,
            status,
            request_id: request_id.clone(),
            complete: outline.end == End::Complete,
            count: outline.count + usize::from(outline.unread.is_some()),
            unread: outline.unread.is_some(),
            first_ms: outline.ends.and_then(|(first, _)| decode::ms(first)),
            last_ms: outline.ends.and_then(|(_, last)| decode::ms(last)),
            body: body.clone(),
        };
        let Some(verdict) = verdict else {
            return Ok(page);
        };
        // Of a success the bytes may be events in a form that we do not know, and the only copy. Whole events are kept
        // whatever the status says.
        let worth_keeping = page.events() > 0 || (page.unread && matches!(status, 200..=299));
        let ids = RequestIds {
            request: request_id,
            resource: resource_id,
        };
        let message = match header(&headers, CONTENT_ENCODING.as_str())
            .filter(|encoding| encoding != "identity")
        {
            Some(encoding) => format!("the body is encoded as {encoding}, unasked"),
            None => message(&body),
        };
        Err(FetchError {
            status: Some(status),
            retry_after: header(&headers, RETRY_AFTER.as_str())
                .and_then(|text| retry_after(&text, fetched_at)),
            message: printable(&redact(&message), MAX_MESSAGE).into(),
            request_ids: (ids != RequestIds::default()).then(|| Box::new(ids)),
            partial: worth_keeping.then(|| Box::new(page)),
            source: match ending {
                Ending::Broken(error) => Some(error),
                _ => None,
            },
            ..failure(verdict)
        })
    }
}

/// A failure of which nothing else is known.
fn failure(verdict: Verdict) -> FetchError {
    FetchError {
        kind: verdict.kind,
        reason: verdict.reason,
        status: None,
        retry_after: None,
        message: Box::default(),
        request_ids: None,
        partial: None,
        source: None,
    }
}

impl FetchError {
    /// What must be assumed where there is no response.
    #[must_use]
    pub fn no_response(why: NoResponse, source: Option<BoxError>) -> FetchError {
        let verdict = match why {
            NoResponse::Request => Verdict::not_sent("request"),
            NoResponse::Dns => Verdict::not_sent("dns"),
            NoResponse::Connect => Verdict::not_sent("connect"),
            NoResponse::ConnectTimeout => Verdict::not_sent("connect_timeout"),
            NoResponse::Timeout => Verdict::in_doubt("timeout"),
            NoResponse::Reset => Verdict::in_doubt("reset"),
        };
        FetchError {
            source,
            ..failure(verdict)
        }
    }

    /// What the HTTP client failed at, before there was a response.
    pub(crate) fn from_client(error: reqwest::Error) -> FetchError {
        let why = if error.is_builder() {
            NoResponse::Request
        } else if error.is_connect() {
            // The connector hands over only what is connected, TLS included, and no byte of the request before.
            match error.is_timeout() {
                true => NoResponse::ConnectTimeout,
                false if error.is_dns() => NoResponse::Dns,
                false => NoResponse::Connect,
            }
        } else if error.is_timeout() {
            NoResponse::Timeout
        } else {
            NoResponse::Reset
        };
        let source = certificate::explain(error.without_url().into());
        FetchError::no_response(why, Some(source))
    }
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
    let value = String::from_utf8_lossy(headers.get(name)?.as_bytes())
        .trim()
        .to_owned();
    (!value.is_empty()).then_some(value)
}

/// `Retry-After` in either form (RFC 9110, section 10.2.3), from `now`. What is neither is as good as missing.
pub(crate) fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let after = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are a long time.
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        let date = httpdate::parse_http_date(text).ok()?;
        let now = u64::try_from(now.as_millisecond()).unwrap_or_default();
        let since_epoch = date.duration_since(UNIX_EPOCH).unwrap_or_default();
        since_epoch.saturating_sub(Duration::from_millis(now))
    };
    Some(after.min(MAX_RETRY_AFTER))
}

/// What an error's body says: the field that gateways put it in, else the text as it is.
fn message(body: &[u8]) -> String {
    #[derive(Default, serde::Deserialize)]
    #[serde(default)]
    struct Said {
        message: serde_json::Value,
        reason: serde_json::Value,
        error: serde_json::Value,
        #[serde(rename = "errorCode")]
        error_code: serde_json::Value,
    }
    let body = &body[..body.len().min(MAX_MESSAGE_BODY)];
    let said: Said = serde_json::from_slice(body).unwrap_or_default();
    [said.message, said.reason, said.error, said.error_code]
        .into_iter()
        .find_map(|field| match field {
            serde_json::Value::String(text) => Some(text),
            serde_json::Value::Number(number) => Some(number.to_string()),
            _ => None,
        })
        .unwrap_or_else(|| {
            // Events are no message: they name people, and this is for logs.
            if body.windows(8).any(|part| part == b"\"events\"") {
                String::new()
            } else {
                String::from_utf8_lossy(body).into_owned()
            }
        })
}

/// Whether the character changes how the text around it is read, and is not seen itself. All are below U+10000.
#[must_use]
pub fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// At most `limit` characters, in one line, with nothing that moves a cursor or turns the writing direction.
fn printable(text: &str, limit: usize) -> String {
    text.trim()
        .chars()
        .take(limit)
        .map(|c| {
            if c.is_control() || is_invisible(c) {
                ' '
            } else {
                c
            }
        })
        .collect()
}

#[cfg(test)]
mod tests;

//! The two endpoints of the event API, as Agora documents them, and what goes wrong with them.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use fastrand::Rng;
use flate2::{Compress, Compression, Crc, FlushCompress};
use serde_json::{Value, json};

use crate::agora::{self, Agora, PageId, Reading, RingId};
use crate::config::{Faults, SimAuth};
use crate::http::{Filling, Framing, Left, Reply, Request};
use crate::ledger::{self, Fate, Stream};

/// What a request to the API gets, and the page of the ledger that it concerns.
#[derive(Debug)]
pub(crate) struct Answer {
    /// `None` closes the connection without a response.
    pub(crate) reply: Option<Reply>,
    pub(crate) page: Option<PageId>,
}

impl Answer {
    fn refusal(status: u16, message: &str) -> Answer {
        let body = format!(r#"{{"message":"{message}"}}"#);
        Answer {
            reply: Some(Reply::json(status, body)),
            page: None,
        }
    }
}

/// Answers a request to one of the endpoints, or to anything else that is not the simulator's own.
///
/// A delay is waited out here. A future that is dropped meanwhile may have read already.
pub(crate) async fn answer(agora: &Agora, request: &Request) -> Answer {
    if is_for_console(request) {
        return projects(agora, request);
    }
    let ring = match route(agora, request) {
        Ok(ring) => ring,
        Err((status, message)) => return Answer::refusal(status, message),
    };
    let arrival = agora.arrive(ring);
    let mut rng = arrival.rng;
    if !arrival.admitted {
        let mut answer = Answer::refusal(429, "API rate limit exceeded");
        retry_after(agora, &mut rng, &mut answer);
        return answer;
    }
    if let Err(message) = authorize(&agora.auth(ring), request) {
        agora.note_unauthorized(ring);
        return Answer::refusal(401, message);
    }
    let faults = agora.faults();
    let fault = Fault::draw(&faults, &mut rng);
    if fault != Fault::None {
        agora.note_fault(ring);
    }
    let delay = Duration::from_millis(
        rng.u64(faults.delay_ms[0]..=faults.delay_ms[1].max(faults.delay_ms[0])),
    );
    let after_read = rng.bool();
    if !after_read {
        pause(delay).await;
    }
    let answer = respond(agora, ring, fault, &faults, &mut rng);
    if after_read {
        pause(delay).await;
    }
    answer
}

async fn pause(delay: Duration) {
    // Even a sleep of zero waits for the next tick of the timer.
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
}

/// What goes wrong with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    Status,
    Cut,
    FailedResult,
    Closed,
    Html,
    Reset,
    Stall,
    Drip,
    Huge,
    Gzip,
    Bomb,
    Headers,
}

impl Fault {
    fn draw(faults: &Faults, rng: &mut Rng) -> Fault {
        let mut roll = rng.f64();
        let shares = [
            (faults.status, Fault::Status),
            (faults.cut, Fault::Cut),
            (faults.failed_result, Fault::FailedResult),
            (faults.closed, Fault::Closed),
            (faults.html, Fault::Html),
            (faults.reset, Fault::Reset),
            (faults.stall, Fault::Stall),
            (faults.drip, Fault::Drip),
            (faults.huge, Fault::Huge),
            (faults.gzip, Fault::Gzip),
            (faults.bomb, Fault::Bomb),
            (faults.headers, Fault::Headers),
        ];
        for (share, fault) in shares {
            if roll < share {
                return fault;
            }
            roll -= share;
        }
        Fault::None
    }
}

fn respond(agora: &Agora, ring: RingId, fault: Fault, faults: &Faults, rng: &mut Rng) -> Answer {
    match fault {
        Fault::None => page(agora, ring, "success", None, 0, rng),
        Fault::Cut | Fault::Reset | Fault::Stall => {
            // The ends are where mistakes are, so they come up more often than by chance.
            let share = match rng.u8(..8) {
                0 => 0.0,
                1 => 1.0,
                _ => rng.f64(),
            };
            let mut answer = page(agora, ring, "success", Some(share), 0, rng);
            if let Some(reply) = &mut answer.reply {
                reply.left = match fault {
                    Fault::Reset => Left::Reset,
                    Fault::Stall => Left::Open,
                    _ => Left::Closed,
                };
            }
            answer
        }
        Fault::Drip => {
            let mut answer = page(agora, ring, "success", None, 0, rng);
            if let Some(reply) = &mut answer.reply {
                reply.drip = Some(Duration::from_millis(faults.drip_ms));
            }
            answer
        }
        Fault::Huge => {
            let before = if rng.bool() { faults.huge_bytes } else { 0 };
            let mut answer = page(agora, ring, "success", None, before, rng);
            if let Some(reply) = answer.reply.as_mut().filter(|_| before == 0) {
                let at = reply.body.len() - 1;
                reply.filling = Some(white(at, faults.huge_bytes));
            }
            answer
        }
        Fault::Gzip | Fault::Bomb => {
            let mut answer = page(agora, ring, "success", None, 0, rng);
            if let Some(reply) = &mut answer.reply {
                let unpacks_to = if fault == Fault::Bomb {
                    faults.huge_bytes
                } else {
                    0
                };
                pack(reply, unpacks_to);
            }
            answer
        }
        Fault::Headers => {
            let mut reply = Reply::json(200, "");
            if rng.bool() {
                let many = (0..1_200).map(|_| ("X-More", "and more".to_owned()));
                reply.headers.extend(many);
            } else {
                reply.headers.push(("X-Long", "x".repeat(1 << 20)));
            }
            let deletes = rng.f64() < faults.deletes;
            without_events(agora, ring, deletes, agora.request_id(), Some(reply))
        }
        Fault::FailedResult if rng.bool() => page(agora, ring, "failed", None, 0, rng),
        Fault::FailedResult => {
            let request_id = agora.request_id();
            let body =
                format!(r#"{{"result":"failed","request_id":"{request_id}","reason":"internal"}}"#);
            without_events(
                agora,
                ring,
                rng.f64() < faults.deletes,
                request_id,
                Some(Reply::json(200, body)),
            )
        }
        Fault::Status => {
            let status = faults
                .statuses
                .get(rng.usize(..faults.statuses.len().max(1)))
                .copied()
                .unwrap_or(500);
            // Whoever refuses has not read; whoever fails may have.
            let may_delete = status == 408 || status >= 500;
            let deletes = may_delete && rng.f64() < faults.deletes;
            let reply = error_reply(status, rng);
            let mut answer = without_events(agora, ring, deletes, agora.request_id(), Some(reply));
            if status == 429 || status == 503 {
                retry_after(agora, rng, &mut answer);
            }
            answer
        }
        Fault::Closed => without_events(
            agora,
            ring,
            rng.f64() < faults.deletes,
            agora.request_id(),
            None,
        ),
        Fault::Html => {
            let mut reply = Reply::json(200, HTML);
            reply.headers = vec![("Content-Type", "text/html; charset=utf-8".into())];
            without_events(
                agora,
                ring,
                rng.f64() < faults.deletes,
                agora.request_id(),
                Some(reply),
            )
        }
    }
}

const HTML: &str =
    "<!DOCTYPE html><html><head><title>Just a moment...</title></head><body></body></html>";

/// White space in a body.
fn white(at: usize, bytes: usize) -> Filling {
    const UNIT: usize = 64 * 1024;
    Filling {
        at,
        unit: vec![b' '; UNIT],
        times: bytes / UNIT,
    }
}

/// Encodes a body with gzip; with `unpacks_to` so many bytes of white space follow what it was.
///
/// What follows are copies of one block, which refers to nothing before it. The checksum is then wrong, but whoever
/// gets there has unpacked it all.
fn pack(reply: &mut Reply, unpacks_to: usize) {
    const UNIT: usize = 1 << 20;
    let mut packed = Compress::new(Compression::fast(), false);
    let mut body = b"\x1f\x8b\x08\0\0\0\0\0\0\xff".to_vec();
    let mut checksum = Crc::new();
    checksum.update(&reply.body);
    body.extend(block(&mut packed, &reply.body, FlushCompress::Full));
    let at = body.len();
    if unpacks_to > 0 {
        reply.filling = Some(Filling {
            at,
            unit: block(&mut packed, &[b' '; UNIT], FlushCompress::Full),
            times: unpacks_to / UNIT,
        });
    }
    body.extend(block(&mut packed, &[], FlushCompress::Finish));
    body.extend(checksum.sum().to_le_bytes());
    body.extend(checksum.amount().to_le_bytes());
    reply.body = body;
    reply.headers.push(("Content-Encoding", "gzip".to_owned()));
}

fn block(packed: &mut Compress, data: &[u8], flush: FlushCompress) -> Vec<u8> {
    // Room for what does not compress, so that one call does it.
    let mut out = Vec::with_capacity(data.len() + data.len() / 8 + 1_024);
    // In memory, with room, there is nothing that can fail.
    let _ = packed.compress_vec(data, &mut out, flush);
    out
}

/// Reads the ring and carries its events; `cut` is the share of the body after which it ends, and `white_before`
/// the bytes of white space before the events.
fn page(
    agora: &Agora,
    ring: RingId,
    result: &str,
    cut: Option<f64>,
    white_before: usize,
    rng: &mut Rng,
) -> Answer {
    let request_id = agora.request_id();
    let start = format!(r#"{{"result":"{result}","request_id":"{request_id}""#);
    let start_length = start.len();
    let filling = (white_before > 0).then(|| white(start_length, white_before));
    let filled = filling.as_ref().map_or(0, Filling::len);
    let first_event_at = start_length + filled + EVENTS.len();
    // At least the last byte is missing, or it would not be cut.
    let cut_at =
        |length: usize| cut.map(|share| ((share * length as f64) as usize).min(length - 1));
    let reading = Reading {
        request_id,
        status: Some(200),
        first_event_at,
    };
    let read = agora.read(ring, &reading, |events| {
        let last = ledger::spans(events, first_event_at).last();
        let length = last.map_or(first_event_at, |span| span.end) + END.len();
        match cut_at(length) {
            Some(bytes) => ledger::cut(events, first_event_at, bytes),
            None => Fate::Whole,
        }
    });
    let body = match &read {
        Some((_, events)) => body_of(&start, events),
        // What an empty poll looks like is documented nowhere.
        None => start + [r#","events":[]}"#, r#","events":null}"#, "}"][rng.usize(..3)],
    };
    let mut reply = Reply::json(200, body);
    reply.filling = filling;
    reply.cut = cut_at(reply.body.len());
    reply.framing = match rng.u8(..8) {
        0 => Framing::Chunked,
        1 if cut.is_some() => Framing::Close,
        _ => Framing::Length,
    };
    reply.headers.push(("X-Request-ID", reading.request_id));
    if rng.bool() {
        reply
            .headers
            .push(("X-Resource-ID", format!("{:016x}", rng.u64(..))));
    }
    Answer {
        reply: Some(reply),
        page: read.map(|(page, _)| page),
    }
}

const EVENTS: &str = r#","events":["#;
const END: &str = "]}";

fn body_of(start: &str, events: &Arc<Vec<Box<str>>>) -> String {
    let size: usize = events.iter().map(|event| event.len() + 1).sum();
    let mut body = String::with_capacity(start.len() + EVENTS.len() + size + END.len());
    body.push_str(start);
    body.push_str(EVENTS);
    for (index, event) in events.iter().enumerate() {
        if index > 0 {
            body.push(',');
        }
        body.push_str(event);
    }
    body.push_str(END);
    body
}

/// A response that carries no events, though the read may have deleted some.
fn without_events(
    agora: &Agora,
    ring: RingId,
    deletes: bool,
    request_id: String,
    mut reply: Option<Reply>,
) -> Answer {
    if let Some(reply) = &mut reply {
        reply.headers.push(("X-Request-ID", request_id.clone()));
    }
    let reading = Reading {
        request_id,
        status: reply.as_ref().map(|reply| reply.status),
        first_event_at: 0,
    };
    let read = if deletes {
        agora.read(ring, &reading, |_| Fate::Unsent)
    } else {
        None
    };
    Answer {
        reply,
        page: read.map(|(page, _)| page),
    }
}

/// An error in one of the forms that have been seen; none of them has a schema.
fn error_reply(status: u16, rng: &mut Rng) -> Reply {
    let documented = match status {
        400 => Some("appid is invalid"),
        401 => Some("Unauthorized"),
        404 => Some("no Route matched with those values"),
        429 => Some("API rate limit exceeded"),
        _ => None,
    };
    if let Some(message) = documented {
        return Reply::json(status, format!(r#"{{"message":"{message}"}}"#));
    }
    match rng.u8(..5) {
        0 => Reply::json(
            status,
            r#"{"message":"An invalid response was received from the upstream server"}"#,
        ),
        1 => Reply::json(status, r#"{"result":"failed","reason":"server timeout"}"#),
        2 => Reply::json(
            status,
            format!(r#"{{"error":"unexpected","errorCode":{status}}}"#),
        ),
        3 => Reply::json(status, ""),
        _ => {
            let mut reply = Reply::json(
                status,
                format!("<html><body><h1>{status}</h1></body></html>\r\n"),
            );
            reply.headers = vec![("Content-Type", "text/html".into())];
            reply
        }
    }
}

/// Adds `Retry-After` in either form, or not.
fn retry_after(agora: &Agora, rng: &mut Rng, answer: &mut Answer) {
    let value = match rng.u8(..3) {
        0 => "1".to_owned(),
        1 => {
            let now = Duration::from_millis(agora.clock().unix_ms());
            httpdate::fmt_http_date(UNIX_EPOCH + now + Duration::from_secs(1))
        }
        _ => return,
    };
    if let Some(reply) = &mut answer.reply {
        reply.headers.push(("Retry-After", value));
    }
}

/// `/{region}/dev/v2/project/{app_id}/rtm/{vendor|hook}/{user_events|channel_events}`, case-sensitive.
///
/// An error is the status and the message of a refusal.
fn route(agora: &Agora, request: &Request) -> Result<RingId, (u16, &'static str)> {
    let no_route = || (404, "no Route matched with those values");
    let segments: Vec<&str> = request.path.split('/').collect();
    let [
        "",
        region,
        "dev",
        "v2",
        "project",
        app_id,
        "rtm",
        "vendor" | "hook",
        endpoint,
    ] = segments[..]
    else {
        return Err(no_route());
    };
    let stream = match endpoint {
        "user_events" => Stream::User,
        "channel_events" => Stream::Channel,
        _ => return Err(no_route()),
    };
    let region = agora.find_region(region).ok_or_else(no_route)?;
    if request.method != "GET" {
        return Err(no_route());
    }
    let app = agora.find_app(app_id).ok_or((400, "appid is invalid"))?;
    Ok(RingId {
        app,
        ring: agora::ring_index(region, stream),
    })
}

/// Whether the request is for Agora's console API, which is at every base URL as well.
fn is_for_console(request: &Request) -> bool {
    let segments: Vec<&str> = request.path.split('/').collect();
    let below = match segments[..] {
        ["", _, ref below @ ..] if below.len() == 3 => below,
        ["", ref below @ ..] => below,
        _ => return false,
    };
    request.method == "GET" && *below == ["dev", "v1", "projects"]
}

/// The projects of the account that a key belongs to: all App IDs that take it. No event is read, and no fault happens.
fn projects(agora: &Agora, request: &Request) -> Answer {
    let is_key = |auth: &SimAuth| matches!(auth, SimAuth::Basic { .. });
    let takes = |auth: &SimAuth| is_key(auth) && authorize(auth, request).is_ok();
    let projects: Vec<Value> = agora
        .accounts()
        .into_iter()
        .filter(|(_, auth)| takes(auth))
        .enumerate()
        .map(|(number, (app_id, _))| {
            json!({
                "id": number.to_string(),
                "name": format!("project-{number}"),
                "vendor_key": app_id,
                "sign_key": "simulated",
                "recording_server": null,
                "status": 1,
                "created": 1_578_027_418,
            })
        })
        .collect();
    if projects.is_empty() {
        return Answer::refusal(401, "Invalid authentication credentials");
    }
    let body = json!({ "projects": projects }).to_string();
    Answer {
        reply: Some(Reply::json(200, body)),
        page: None,
    }
}

fn authorize(auth: &SimAuth, request: &Request) -> Result<(), &'static str> {
    let authorization = request.header("authorization");
    let (found, message) = match auth {
        SimAuth::Open => return Ok(()),
        SimAuth::Basic { key, secret } => {
            let expected = format!("Basic {}", BASE64.encode(format!("{key}:{secret}")));
            (
                authorization.map(|value| value == expected),
                "Invalid authentication credentials",
            )
        }
        SimAuth::Token { token, uid } => {
            let both = request
                .header("x-agora-token")
                .zip(request.header("x-agora-uid"));
            (
                both.map(|value| value == (token.as_str(), uid.as_str())),
                "invalid token",
            )
        }
        SimAuth::Agora { token } => {
            let bare = authorization.and_then(|value| value.strip_prefix("agora token="));
            (bare.map(|value| value == token), "invalid token")
        }
    };
    match found {
        Some(true) => Ok(()),
        Some(false) => Err(message),
        None => Err("Unauthorized"),
    }
}

#[cfg(test)]
mod tests;

//! The simulator's own endpoints, under `/_sim/`.
//!
//! | request | does |
//! |---|---|
//! | `GET /_sim/health` | answers `{"status":"ok"}` |
//! | `GET /_sim/stats` | gives [`SimStats`](crate::SimStats) |
//! | `GET /_sim/ledger` | gives every [`LedgerPage`](crate::LedgerPage), one JSON document a line |
//! | `POST /_sim/stop` | stops the generation of events |
//! | `PUT /_sim/load` | sets the [`Load`], and starts the generation if it was stopped |
//! | `PUT /_sim/faults` | sets the [`Faults`] |
//! | `PUT /_sim/auth` | sets the [`Credentials`] that are accepted |
//! | `POST /_sim/push` | puts the given [`Push`] into a ring |
//!
//! What is left out of a load or faults takes its default, not what it was. A 400 says what is wrong.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::agora::Agora;
use crate::config::{Faults, Load, SimAuth};
use crate::http::{Reply, Request};
use crate::ledger::{Ledger, LedgerPage, Stream};

/// What all paths of these endpoints begin with.
pub(crate) const PREFIX: &str = "/_sim/";

/// How much of the ledger is sent in one chunk.
const CHUNK: usize = 64 * 1024;

/// What a request to one of these endpoints gets.
#[derive(Debug)]
pub(crate) enum Answer {
    Reply(Reply),
    Ledger(Ledger),
}

/// The body of `POST /_sim/push`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Push {
    app_id: String,
    region: String,
    stream: Stream,
    /// Put into the ring byte for byte.
    events: Vec<Box<RawValue>>,
}

/// The body of `PUT /_sim/auth`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Credentials {
    app_id: String,
    auth: SimAuth,
}

/// Answers a request whose path begins with [`PREFIX`].
pub(crate) fn answer(agora: &Agora, request: &Request) -> Answer {
    let name = request.path.strip_prefix(PREFIX).unwrap_or_default();
    let done = match (request.method.as_str(), name) {
        ("GET", "health") => Ok(r#"{"status":"ok"}"#.to_owned()),
        ("GET", "stats") => {
            serde_json::to_string(&agora.stats()).map_err(|error| (500, error.to_string()))
        }
        ("GET", "ledger") => return Answer::Ledger(agora.ledger()),
        ("POST", "stop") => {
            agora.stop_generating();
            Ok(ok())
        }
        ("PUT", "load") => read(request, Load::check).map(|load| {
            agora.set_load(load);
            ok()
        }),
        ("PUT", "faults") => read(request, Faults::check).map(|faults| {
            agora.set_faults(faults);
            ok()
        }),
        ("PUT", "auth") => auth(agora, request),
        ("POST", "push") => push(agora, request),
        _ => Err((404, "the simulator has no such endpoint".to_owned())),
    };
    Answer::Reply(match done {
        Ok(body) => Reply::json(200, body),
        Err((status, why)) => Reply::json(status, serde_json::json!({ "error": why }).to_string()),
    })
}

fn ok() -> String {
    "{}".to_owned()
}

fn auth(agora: &Agora, request: &Request) -> Result<String, (u16, String)> {
    let Credentials { app_id, auth } = read(request, |_| Ok::<(), String>(()))?;
    match agora.set_auth(&app_id, auth) {
        true => Ok(ok()),
        false => Err((404, format!("there is no App ID {app_id:?}"))),
    }
}

fn push(agora: &Agora, request: &Request) -> Result<String, (u16, String)> {
    let push: Push = read(request, |_| Ok::<(), String>(()))?;
    let events = push.events.iter().map(|event| event.get());
    match agora.push(&push.app_id, &push.region, push.stream, events) {
        Ok(()) => Ok(ok()),
        Err(error) => Err((404, error.to_string())),
    }
}

fn read<T: DeserializeOwned, E: ToString>(
    request: &Request,
    check: impl FnOnce(&T) -> Result<(), E>,
) -> Result<T, (u16, String)> {
    let value = serde_json::from_slice(&request.body).map_err(|error| (400, error.to_string()))?;
    check(&value).map_err(|error| (400, error.to_string()))?;
    Ok(value)
}

/// The pages as lines, a chunk at a time.
pub(crate) fn ndjson(ledger: Ledger) -> impl Iterator<Item = Vec<u8>> {
    let mut pages = ledger.pages.into_iter();
    std::iter::from_fn(move || {
        let mut chunk = Vec::new();
        while chunk.len() < CHUNK {
            let Some(page) = pages.next() else { break };
            line(&page, &mut chunk);
        }
        (!chunk.is_empty()).then_some(chunk)
    })
}

fn line(page: &LedgerPage, into: &mut Vec<u8>) {
    // Neither can a vector refuse bytes, nor is there anything in a page that JSON cannot say.
    let _ = serde_json::to_writer(&mut *into, page);
    into.push(b'\n');
}

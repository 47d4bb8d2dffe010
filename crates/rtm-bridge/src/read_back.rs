//! Reads back what sinks hold, to compare it with what was handed out. For the demo and the trials: the bridge itself
//! never reads what it has published.

use std::collections::BTreeMap;
use std::sync::Arc;

use rtm_sim::{Audit, Findings, Ledger};
use serde::Deserialize;

use crate::sinks::Stored;

/// A ledger whose events are as a file sink has them: a line feed between an event's tokens is a space there.
pub fn as_lines(ledger: &Ledger) -> Ledger {
    let mut ledger = ledger.clone();
    for page in &mut ledger.pages {
        if page.events.iter().any(|event| event.contains('\n')) {
            let lines = page.events.iter().map(|event| event.replace('\n', " "));
            page.events = Arc::new(lines.map(String::into_boxed_str).collect());
        }
    }
    ledger
}

/// A dead letter's document, as far as an audit needs it.
#[derive(Deserialize)]
struct DeadLetter {
    id: String,
    app_id: String,
    region: String,
    stream: String,
    request_id: Option<String>,
    reason: String,
    raw: Option<String>,
    raw_hex: Option<String>,
}

/// Tells an audit of a record; records of other App IDs than `app_id`, which earlier runs left, are passed over.
pub fn observe(audit: &mut Audit<'_>, app_id: &str, stored: &Stored<'_>) {
    if stored.dead_letter {
        return observe_dead_letter(audit, app_id, stored);
    }
    match rtm_sim::parse_envelope(stored.payload) {
        Ok(envelope) if envelope.app_id == app_id => {
            audit.observe(&envelope.observed(stored.partition, stored.order, stored.key));
        }
        Ok(_) => {}
        Err(error) => audit.observe_unreadable(&crate::chain(&error)),
    }
}

fn observe_dead_letter(audit: &mut Audit<'_>, app_id: &str, stored: &Stored<'_>) {
    let letter: DeadLetter = match serde_json::from_slice(stored.payload) {
        Ok(letter) => letter,
        Err(error) => return audit.observe_unreadable(&crate::chain(&error)),
    };
    if letter.app_id != app_id {
        return;
    }
    if letter.reason == "unreadable" {
        return audit.observe_rest(&letter.id);
    }
    if letter.reason == "poison" && letter.id.ends_with(".0") {
        // A whole entry, which no event is at the beginning of.
        return;
    }
    let mut raw = letter
        .raw
        .map(String::into_bytes)
        .or_else(|| hex::decode(letter.raw_hex.as_deref()?).ok())
        .unwrap_or_default();
    if stored.is_line {
        let feeds = raw.iter_mut().filter(|byte| **byte == b'\n');
        feeds.for_each(|byte| *byte = b' ');
    }
    // Of a record that the broker refused, the dead letter holds the whole payload.
    let envelope = rtm_sim::parse_envelope(&raw).ok();
    let event = match &envelope {
        Some(envelope) if envelope.id == letter.id => envelope.event.get().as_bytes(),
        _ => &raw,
    };
    audit.observe(&rtm_sim::Observed {
        sink_order: stored.order,
        partition: stored.partition,
        app_id: &letter.app_id,
        region: &letter.region,
        stream: &letter.stream,
        request_id: letter.request_id.as_deref().unwrap_or_default(),
        id: &letter.id,
        key: None,
        event,
        dead_letter: true,
    });
}

/// What a sink holds, compared with what was handed out.
#[derive(Debug)]
pub struct Held {
    /// Its name.
    pub sink: String,
    /// What is wrong with it, and what is right.
    pub findings: Findings,
    /// Every event that gives a sane time, by the app's name.
    pub arrived: BTreeMap<String, Vec<Arrived>>,
}

/// An event in a sink.
#[derive(Debug, Clone, Copy)]
pub struct Arrived {
    /// When the broker stored it, in milliseconds since the Unix epoch.
    pub at: i64,
    /// When it happened.
    pub ms: i64,
}

impl Arrived {
    /// How old it was when the broker stored it, in milliseconds.
    pub fn age(self) -> i64 {
        // An odd `ms` may be any number.
        self.at.saturating_sub(self.ms)
    }
}

/// Reads one sink whose records are all of one ledger, whatever their App IDs.
#[derive(Debug)]
pub struct Reading<'l> {
    audit: Audit<'l>,
    arrived: BTreeMap<String, Vec<Arrived>>,
}

/// What is asked of a record here, be it an event or a dead letter.
#[derive(Deserialize)]
struct Outer<'a> {
    app: &'a str,
    app_id: &'a str,
    #[serde(borrow, default)]
    event: Option<&'a serde_json::value::RawValue>,
}

#[derive(Deserialize)]
struct Inner {
    ms: i64,
}

impl<'l> Reading<'l> {
    /// Begins; nothing may be added to the ledger meanwhile.
    pub fn new(ledger: &'l Ledger) -> Reading<'l> {
        Reading {
            audit: Audit::new(ledger),
            arrived: BTreeMap::new(),
        }
    }

    /// Takes a record into account.
    pub fn observe(&mut self, stored: &Stored<'_>) {
        let outer: Outer<'_> = match serde_json::from_slice(stored.payload) {
            Ok(outer) => outer,
            Err(error) => return self.audit.observe_unreadable(&error.to_string()),
        };
        observe(&mut self.audit, outer.app_id, stored);
        let event = outer.event.map_or("", |event| event.get());
        if let (Some(at), Ok(Inner { ms })) = (stored.timestamp, serde_json::from_str(event)) {
            let arrived = self.arrived.entry(outer.app.to_owned()).or_default();
            arrived.push(Arrived { at, ms });
        }
    }

    /// Compares.
    pub fn finish(self, sink: &str) -> Held {
        Held {
            sink: sink.to_owned(),
            findings: self.audit.finish(),
            arrived: self.arrived,
        }
    }
}

#[cfg(test)]
mod tests;

//! A replay into a sink that refuses as told.

use std::sync::Arc;

use rtm_journal::{Epoch, Position};
use rtm_record::{KeyBy, Routes, STATIC, Template, entry};
use rtm_sink::{MemorySink, PublishError};
use rtm_source::{HeaderMap, Region, Response, Ring, Stream};

use super::*;

/// A sink whose places refuse what is longer than `largest`, and every dead letter where there is another `reason`.
struct Refusing {
    stored: MemorySink,
    largest: usize,
    reason: Option<&'static str>,
}

impl Refusing {
    fn why(&self, record: &Record) -> Option<&'static str> {
        let is_large = record.payload.len() > self.largest;
        let is_dead = record.topic.as_str() == "dead";
        // What is refused for its time is that of 1970.
        let is_fresh = record.timestamp.0 > 0;
        let is_to_blame = |reason: &&str| **reason != *Reason::TIMESTAMP || !is_fresh;
        match self.reason.filter(is_to_blame).filter(|_| is_dead) {
            None => is_large.then_some(Reason::TOO_LARGE),
            reason => reason,
        }
    }
}

impl Sink for Refusing {
    async fn publish(&self, records: &[Record]) -> Result<(), PublishError> {
        let mut outcomes = Vec::new();
        for record in records {
            outcomes.push(match self.why(record) {
                Some(code) => Outcome::Rejected(Reason {
                    code,
                    message: "no".to_owned(),
                }),
                None => {
                    self.stored.publish(std::slice::from_ref(record)).await?;
                    Outcome::Confirmed
                }
            });
        }
        if !outcomes.iter().any(|one| *one != Outcome::Confirmed) {
            return Ok(());
        }
        Err(PublishError {
            kind: PublishErrorKind::Rejected,
            outcomes,
            source: "refused".into(),
        })
    }
}

/// The entry of a page with these events.
pub(in crate::commands::replay) fn page_of(events: &[String]) -> Entry {
    let body = format!(r#"{{"result":"success","events":[{}]}}"#, events.join(","));
    let ring = Ring {
        region: Arc::new(Region::builtin("eu-west-1").unwrap()),
        stream: Stream::User,
    };
    let response = Response {
        status: 200,
        headers: HeaderMap::new(),
        body: body.into(),
        ending: rtm_source::Ending::Closed,
    };
    let page = response.judge(&ring, jiff::Timestamp::UNIX_EPOCH).unwrap();
    Entry {
        position: Position(7),
        epoch: Epoch(1),
        appended_at: std::time::SystemTime::UNIX_EPOCH,
        bytes: entry::encode("main", "0a1b", &page, None).into(),
        count: page.count as u32,
    }
}

pub(in crate::commands::replay) fn router() -> Router {
    let template = |text| Template::parse(text, STATIC).unwrap();
    Router::replaying(Routes {
        topic: template("events"),
        dead_letters: template("dead"),
        key: KeyBy::Auto,
        headers: false,
    })
}

fn out(sink: Refusing) -> Out {
    Out {
        sink: AnySink::new(Arc::new(sink)),
        lanes: None,
        router: router(),
        pace: None,
    }
}

/// Holds: a dead letter that is refused for its size is cut, keeps its reason and counts once, beside an event that becomes
/// one; one that is refused for its time gets that of now; one that is refused for anything else stops the replay, and is not
/// cut.
#[tokio::test]
async fn a_dead_letter_that_is_refused_stays_one() {
    let long = "x".repeat(100_000);
    let no_event = format!("\"{long}\"");
    let event = format!(r#"{{"user_id":"u","type":"Login","ms":1,"long":"{long}"}}"#);
    for events in [vec![no_event.clone()], vec![event, no_event]] {
        let counts = Counts {
            dead_letters: events.len() as u64,
            ..Counts::default()
        };
        for reason in [None, Some(Reason::TIMESTAMP), Some("invalid")] {
            let stored = MemorySink::new();
            let mut out = out(Refusing {
                stored: stored.clone(),
                largest: 80_000,
                reason,
            });
            let published = out.entry("0a1b", &page_of(&events)).await;
            if reason == Some("invalid") {
                let error = crate::chain(published.unwrap_err().as_ref());
                assert!(
                    error.contains("a dead letter is refused: invalid"),
                    "{error}"
                );
                assert!(stored.records().is_empty());
                continue;
            }
            assert_eq!(published.unwrap(), counts);
            let letters = stored.records();
            assert_eq!(letters.len(), events.len());
            let letter = |record: &Record| -> serde_json::Value {
                serde_json::from_slice(&record.payload).unwrap()
            };
            let letters: Vec<_> = letters.iter().map(letter).collect();
            let last = letters
                .iter()
                .find(|letter| letter["reason"] == "not_an_object");
            let last = last.expect("its own reason");
            assert_eq!(last["truncated"], true);
            assert!(last["raw"].as_str().unwrap().starts_with("\"xxx"));
        }
    }
}

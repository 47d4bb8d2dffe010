#![allow(clippy::unwrap_used)]

use super::*;

fn noted(said: &[&str]) -> Alarms {
    let mut alarms = Alarms::default();
    for said in said {
        alarms.note(Event::ServerError(ServerError::Other((*said).to_owned())));
    }
    alarms
}

/// Holds: the server's words, as nats-server 2.15 writes them, are understood.
#[test]
fn denials_are_told_apart() {
    let alarms = noted(&[
        "Permissions Violation for Publish to \"rtm.A.b\"",
        "Permissions Violation for Publish with Reply of \"_INBOX.x.1\"",
        "Permissions Violation for Publish to \"rtm.A.b\"",
    ]);
    let denied: Vec<_> = alarms
        .denied
        .iter()
        .map(|denied| (denied.number, denied.subject.as_deref()))
        .collect();
    assert_eq!(denied, [(2, None), (3, Some("rtm.A.b"))]);
    assert!(alarms.inbox_denied.is_none() && !alarms.ended);

    let alarms = noted(&["Permissions Violation for Subscription to \"_INBOX.x.*\""]);
    assert!(alarms.inbox_denied.is_some() && alarms.denied.is_empty());
    let alarms = noted(&["Maximum Payload Violation"]);
    assert_eq!(alarms.said.as_deref(), Some("Maximum Payload Violation"));
    assert!(alarms.denied.is_empty());
}

/// Holds: a flood of denials, each of another subject, stays bounded.
#[test]
fn denials_are_bounded() {
    let mut alarms = Alarms::default();
    for n in 0..1000 {
        let said = format!("Permissions Violation for Publish to \"rtm.{n}\"");
        alarms.note(Event::ServerError(ServerError::Other(said)));
    }
    assert_eq!(alarms.denied.len(), MAX_DENIED);
    assert_eq!(alarms.denied.last().unwrap().number, 1000);
}

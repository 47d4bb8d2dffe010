use super::*;
use crate::status::health::Health;
use crate::status::snapshot::{App, Ring, Sink};

/// Holds: the line tells how many rings are polled, what waits and which sinks are up, then what is worst, if anything
/// is wrong; and stays one line, whatever a broker says.
#[test]
fn the_line_ends_with_what_is_worst() {
    let mut kafka = Sink {
        name: "kafka".to_owned(),
        title: "Kafka".to_owned(),
        pending_events: 7,
        ..Sink::default()
    };
    kafka.client.up = true;
    let mut now = Snapshot {
        apps: vec![App::default()],
        rings: vec![Ring::default(), Ring::default()],
        sinks: vec![kafka],
        ..Snapshot::default()
    };
    assert_eq!(line(&now), "polling 2 rings; 7 events pending; kafka up");
    now.is_stopping = true;
    assert_eq!(line(&now), "stopping; 7 events pending; kafka up");
    now.is_stopping = false;
    let kafka = &mut now.sinks[0];
    (kafka.client.up, kafka.health) = (false, Health::Down);
    kafka.waiting_seconds = Some(3.0);
    kafka.why = Some("away\nWATCHDOG=1".to_owned());
    let expected = "polling 2 rings; 7 events pending; kafka down; Kafka is down since 23:59:57 UTC (3 s): \
                        away WATCHDOG=1. 7 events wait for it in the journal; polling goes on, and nothing is lost.";
    assert_eq!(line(&now), expected);
}

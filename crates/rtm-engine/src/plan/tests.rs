use rtm_sink::MemorySink;
use rtm_source::Source;

use super::*;

struct NoParts;

impl Parts for NoParts {
    type Source = Source;
    type SourceSpec = u8;
    type ClientSpec = u8;

    async fn source(&self, _: &u8) -> Result<Source, BoxError> {
        Err("there is none".into())
    }

    async fn client(&self, _: &str, _: &u8) -> Result<AnySink, BoxError> {
        Ok(AnySink::new(std::sync::Arc::new(MemorySink::new())))
    }

    fn is_same_client(&self, old: &u8, new: &u8) -> bool {
        old == new
    }
}

fn plan(apps: &[(&str, &str, u8)], sinks: &[(&str, u8)]) -> Plan<NoParts> {
    let template = |text| rtm_record::Template::parse(text, rtm_record::STATIC).unwrap();
    Plan {
        apps: apps
            .iter()
            .map(|(app_id, name, source)| AppPlan {
                name: (*name).to_owned(),
                app_id: (*app_id).to_owned(),
                paused: false,
                requests_per_second: 10,
                copy_rule: None,
                source: *source,
            })
            .collect(),
        sinks: sinks
            .iter()
            .map(|(name, client)| SinkPlan {
                name: (*name).to_owned(),
                kind: "memory",
                title: (*name).to_owned(),
                routes: Routes {
                    topic: template("t"),
                    dead_letters: template("d"),
                    key: rtm_record::KeyBy::Auto,
                    headers: false,
                },
                hold: Duration::ZERO,
                skips_when_full: false,
                apps: None,
                streams: Stream::ALL.to_vec(),
                client: *client,
            })
            .collect(),
        drain_deadline: Duration::from_secs(1),
    }
}

/// Holds: what is new is started, what is gone is drained, what changed takes over, what cannot is made anew, and what
/// stayed is left alone.
#[test]
fn a_diff_names_what_differs() {
    let old = plan(
        &[
            ("0a", "a", 1),
            ("0b", "b", 1),
            ("0c", "c", 1),
            ("0d", "d", 1),
        ],
        &[("kafka", 1), ("nats", 1), ("file", 1)],
    );
    let new = plan(
        &[
            ("0a", "a", 1),
            ("0b", "b", 2),
            ("0c", "x", 1),
            ("0e", "e", 1),
        ],
        &[("kafka", 1), ("nats", 2), ("out", 1)],
    );
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let expected = Diff {
        apps: Changes {
            start: names(&["0c", "0e"]),
            renew: names(&["0b"]),
            drain: names(&["0c", "0d"]),
        },
        sinks: Changes {
            start: names(&["nats", "out"]),
            renew: names(&[]),
            drain: names(&["nats", "file"]),
        },
    };
    assert_eq!(Diff::between(&NoParts, &old, &new), expected);
    let first = Diff::between(&NoParts, &Plan::empty(), &new);
    assert_eq!(first.apps.start.len(), 4);
    assert_eq!(first.sinks.start.len(), 3);
    assert!(first.apps.drain.is_empty() && first.sinks.renew.is_empty());
}

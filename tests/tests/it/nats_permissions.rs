//! What a NATS user must be permitted: exactly what the documentation says suffices, and whatever is missing is the reason
//! that is told.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use rtm_sink::conformance::records;
use rtm_sink::{Sink, Topic};
use rtm_sink_nats::{NatsAuth, NatsOptions, NatsSink, StreamSpec};
use rtm_tests::brokers::Nats;
use rtm_tests::wait_for;
use tokio::time::timeout;

use super::nats_access::{assert_accepted, chain, options};
use super::nats_log::Log;

/// For what must happen, on a machine that compiles at the same time.
const SOON: Duration = Duration::from_secs(30);

/// As docs/how-to/brokers.md has them, for the stream `RTM` and the subjects `rtm.>`.
const PUBLISH: [&str; 2] = ["rtm.>", "$JS.API.STREAM.INFO.RTM"];
const SUBSCRIBE: [&str; 1] = ["_INBOX.>"];
const CREATE: &str = "$JS.API.STREAM.CREATE.RTM";

/// A user who may publish and subscribe to this and nothing else, beside one who may do all.
async fn server(publish: &[&str], subscribe: &[&str]) -> Nats {
    let list = |subjects: &[&str]| match subjects {
        [] => "{ deny: \">\" }".to_owned(),
        subjects => format!("{{ allow: {subjects:?} }}"),
    };
    let configuration = format!(
        "authorization {{ users: [
            {{ user: admin, password: p }}
            {{ user: bridge, password: p, permissions: {{ publish: {}, subscribe: {} }} }}
        ] }}",
        list(publish),
        list(subscribe)
    );
    Nats::start_own_with(&configuration).await.unwrap()
}

fn as_user(server: &Nats, user: &str) -> NatsOptions {
    let auth = NatsAuth::UserPassword {
        user: user.to_owned(),
        password: "p".into(),
    };
    options(server, auth)
}

/// What the sink says of ten records, and the check of their subject.
async fn tried(options: NatsOptions) -> (Option<String>, Option<String>) {
    let creates = options.create_stream.is_some();
    let sink = NatsSink::connect(options).await.unwrap();
    let checked = timeout(SOON, sink.check(&["rtm.a"], creates))
        .await
        .unwrap();
    let records = records(&Topic::from("rtm.a"), 10);
    let published = timeout(SOON, sink.publish(&records)).await.unwrap();
    (
        published
            .err()
            .map(|error| format!("{} {}", error.kind, chain(&error))),
        checked.err().map(|error| chain(&error)),
    )
}

/// Holds: what the documentation names suffices; without any one of it the check fails, and so does publishing unless it
/// works without, and the reason is the permission in the server's own words, at once.
#[tokio::test]
async fn exactly_what_is_documented_suffices() {
    let page = include_str!("../../../docs/how-to/brokers.md");
    for needed in PUBLISH.iter().chain(&SUBSCRIBE).chain([&CREATE]) {
        assert!(page.contains(&format!("`{needed}`")), "{needed}");
    }
    let without_create = |server: &Nats| NatsOptions {
        create_stream: None,
        ack_timeout: 2 * SOON,
        ..as_user(server, "bridge")
    };
    let all = server(&PUBLISH, &SUBSCRIBE).await;
    assert_accepted(as_user(&all, "admin")).await;
    assert_eq!(tried(without_create(&all)).await, (None, None));

    let lacking = |subject: &str| {
        let publish: Vec<&str> = PUBLISH.into_iter().filter(|one| *one != subject).collect();
        let subscribe: Vec<&str> = SUBSCRIBE
            .into_iter()
            .filter(|one| *one != subject)
            .collect();
        async move { server(&publish, &subscribe).await }
    };
    for (subject, said, publishes) in [
        (
            "rtm.>",
            "Permissions Violation for Publish to \"rtm.a\"",
            false,
        ),
        (
            "$JS.API.STREAM.INFO.RTM",
            "Permissions Violation for Publish to \"$JS.API.STREAM.INFO.RTM\"",
            true,
        ),
        (
            "_INBOX.>",
            "Permissions Violation for Subscription to \"_INBOX.",
            false,
        ),
    ] {
        let server = lacking(subject).await;
        assert_accepted(as_user(&server, "admin")).await;
        let (published, checked) = tried(without_create(&server)).await;
        let checked = checked.unwrap_or_else(|| panic!("the check sees nothing without {subject}"));
        assert!(checked.contains(said), "{subject}: {checked}");
        match published {
            None => assert!(publishes, "published without {subject}"),
            Some(error) => assert!(!publishes && error.contains(said), "{subject}: {error}"),
        }
    }
}

/// Holds: to create the stream takes one permission more, and the check tells that it is missing before anything is created.
#[tokio::test]
async fn to_create_takes_one_more() {
    let creating = |server: &Nats| NatsOptions {
        create_stream: Some(StreamSpec::new(vec!["rtm.>".to_owned()])),
        ack_timeout: 2 * SOON,
        ..as_user(server, "bridge")
    };
    let said = "Permissions Violation for Publish to \"$JS.API.STREAM.CREATE.RTM\"";
    let server_without = server(&PUBLISH, &SUBSCRIBE).await;
    let (published, checked) = tried(creating(&server_without)).await;
    let checked = checked.unwrap();
    assert!(
        checked.contains("cannot be created: ") && checked.contains(said),
        "{checked}"
    );
    let published = published.unwrap();
    assert!(published.contains(said), "{published}");

    let all = [PUBLISH.as_slice(), &[CREATE]].concat();
    let server = server(&all, &SUBSCRIBE).await;
    let sink = NatsSink::connect(NatsOptions {
        create_stream: None,
        ..as_user(&server, "bridge")
    });
    let missing = sink
        .await
        .unwrap()
        .check(&["rtm.a"], true)
        .await
        .unwrap_err();
    assert!(
        matches!(missing, rtm_sink_nats::CheckError::Missing { .. }),
        "{missing:?}"
    );
    assert_eq!(tried(creating(&server)).await, (None, None));
}

/// Holds: a sink that a permission holds says so in the log once, and not for each record that is denied.
#[tokio::test]
async fn denials_do_not_fill_the_log() {
    let log = Log::start();
    let server = server(&["rtm.none", "$JS.API.>"], &SUBSCRIBE).await;
    assert_accepted(as_user(&server, "admin")).await;
    let sink = NatsSink::connect(as_user(&server, "bridge")).await.unwrap();
    let records = records(&Topic::from("rtm.a"), 100);
    for _ in 0..10 {
        timeout(SOON, sink.publish(&records))
            .await
            .unwrap()
            .unwrap_err();
    }
    let lines = || {
        let text = log.text();
        let ours = text.lines().filter(|line| line.contains("rtm_sink_nats"));
        let ours = ours.filter(|line| line.contains("Permissions Violation"));
        ours.map(str::to_owned).collect::<Vec<_>>()
    };
    wait_for("the denial to be told", SOON, async || !lines().is_empty())
        .await
        .unwrap();
    let lines = lines();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(
        lines[0].contains("WARN") && lines[0].contains("rtm.a"),
        "{lines:#?}"
    );
}

/// Holds: a user without an inbox is told of in the log every so often, and not with each connection that is made.
#[tokio::test]
async fn connections_that_end_at_once_do_not_fill_the_log() {
    let log = Log::start();
    let server = server(&PUBLISH, &[]).await;
    assert_accepted(as_user(&server, "admin")).await;
    let options = NatsOptions {
        create_stream: None,
        ..as_user(&server, "bridge")
    };
    let sink = NatsSink::connect(options).await.unwrap();
    let records = records(&Topic::from("rtm.a"), 10);
    let again = async || {
        let _ = timeout(SOON, sink.publish(&records)).await.unwrap();
        sink.stats().reconnects >= 4
    };
    wait_for("four more connections", SOON, again)
        .await
        .unwrap();
    let text = log.text();
    for line in [
        "nats is away; connecting again",
        "nats denies it",
        "connected to nats",
    ] {
        let ours = text.lines().filter(|text| text.contains("rtm_sink_nats"));
        let count = ours
            .filter(|text| !text.contains("DEBUG") && text.contains(line))
            .count();
        // That of the user who may do all, and the first of the other.
        assert!(count <= 3, "{count} times: {line}");
    }
}

//! The NATS sink where JetStream is not simply there: behind a leaf node, under another prefix, behind TLS from the first
//! byte, and for users with an inbox of their own.
#![allow(clippy::unwrap_used)]

use rtm_sink::conformance::records;
use rtm_sink::{Sink, Topic};
use rtm_sink_nats::{NatsAuth, NatsOptions, NatsSink, StreamSpec};
use rtm_tests::brokers::{Nats, free_port};
use rtm_tests::wait_for;
use tempfile::TempDir;
use tokio::time::timeout;

use super::nats_access::{assert_accepted, assert_refused, chain, options};
use super::nats_sink::SOON;
use super::nats_tls::{certificates, of_server, with};

/// A hub, and a leaf node of it, each with a JetStream domain of its name.
struct Domains {
    hub: Nats,
    leaf: Nats,
    _stores: [TempDir; 2],
}

impl Domains {
    async fn start() -> Domains {
        let stores = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let port = free_port().unwrap();
        let configuration = |name: &str, store: &TempDir, more: &str| {
            format!(
                "server_name: {name}\njetstream {{ store_dir: {:?}, domain: {name} }}\nleafnodes {{ {more} }}",
                store.path().display().to_string()
            )
        };
        let listen = format!("listen: \"127.0.0.1:{port}\"");
        let remote = format!("remotes: [ {{ url: \"nats-leaf://127.0.0.1:{port}\" }} ]");
        let of_hub = configuration("hub", &stores[0], &listen);
        let of_leaf = configuration("leaf", &stores[1], &remote);
        let domains = Domains {
            hub: Nats::start_own_with(&of_hub).await.unwrap(),
            leaf: Nats::start_own_with(&of_leaf).await.unwrap(),
            _stores: stores,
        };
        hub_is_reached(&domains.leaf).await;
        domains
    }
}

/// The two find each other in the background.
async fn hub_is_reached(leaf: &Nats) {
    let client = async_nats::connect(leaf.url()).await.unwrap();
    let hub = async_nats::jetstream::with_domain(client, "hub");
    wait_for("the hub through the leaf node", SOON, async || {
        hub.query_account().await.is_ok()
    })
    .await
    .unwrap();
}

fn at(nats: &Nats, domain: Option<&str>) -> NatsOptions {
    NatsOptions {
        domain: domain.map(str::to_owned),
        ..NatsOptions::new(vec![nats.url().to_owned()], "RTM")
    }
}

async fn stored(nats: &Nats) -> usize {
    nats.read_all("RTM")
        .await
        .map_or(0, |records| records.len())
}

/// Holds: a stream behind a leaf node is found, checked and published to by its domain; without the domain the check says
/// where it has looked, and what to set.
#[tokio::test]
async fn a_stream_in_another_domain() {
    let Domains { hub, leaf, _stores } = &Domains::start().await;
    hub.create_jetstream("RTM", &["rtm.>"]).await.unwrap();

    let sink = NatsSink::connect(at(leaf, None)).await.unwrap();
    let said = chain(&sink.check(&["rtm.a"], false).await.unwrap_err());
    assert!(
        said.contains("in the domain `leaf` of this server") && said.contains("set `domain`"),
        "{said}"
    );

    let sink = NatsSink::connect(at(leaf, Some("hub"))).await.unwrap();
    let found = sink.check(&["rtm.a"], false).await.unwrap();
    assert_eq!(found.subjects, ["rtm.>"]);
    assert_eq!(stored(hub).await, 0, "the check stores nothing");
    let batch = records(&Topic::from("rtm.a"), 300);
    timeout(SOON, sink.publish(&batch)).await.unwrap().unwrap();
    assert_eq!(stored(hub).await, 300);

    let sink = NatsSink::connect(at(leaf, Some("nowhere"))).await.unwrap();
    let said = chain(&sink.check(&["rtm.a"], false).await.unwrap_err());
    assert!(
        said.contains("$JS.nowhere.API.STREAM.INFO.RTM")
            && said.contains("domain has another name"),
        "{said}"
    );
}

/// Holds: what is to be created is created in the domain that is set, and what another domain's stream of the same name
/// acknowledges confirms nothing.
#[tokio::test]
async fn only_the_domain_s_own_stream_confirms() {
    let Domains { hub, leaf, _stores } = &Domains::start().await;
    let creating = NatsOptions {
        create_stream: Some(StreamSpec::new(vec!["rtm.>".to_owned()])),
        ..at(leaf, Some("hub"))
    };
    assert_accepted(creating).await;
    assert_eq!(stored(hub).await, 10);
    assert!(
        leaf.read_all("RTM").await.is_err(),
        "none is made at the leaf node"
    );

    leaf.create_jetstream("RTM", &["only.leaf"]).await.unwrap();
    let sink = NatsSink::connect(NatsOptions {
        ack_timeout: std::time::Duration::from_secs(2),
        ..at(leaf, Some("hub"))
    });
    let sink = sink.await.unwrap();
    let published = timeout(SOON, sink.publish(&records(&Topic::from("only.leaf"), 3)))
        .await
        .unwrap();
    assert!(published.is_err(), "the leaf node's own stream has no say");
}

/// Holds: records name the stream that they are for unless that is left out, singly and in a batch; and either way only the
/// stream's own acknowledgement confirms.
#[tokio::test]
async fn records_that_demand_no_stream() {
    for expect_stream in [true, false] {
        let nats = Nats::start_own().await.unwrap();
        nats.create_jetstream("RTM", &["rtm.>"]).await.unwrap();
        nats.create_jetstream("OTHER", &["other.>"]).await.unwrap();
        let options = NatsOptions {
            expect_stream,
            ack_timeout: std::time::Duration::from_secs(2),
            ..at(&nats, None)
        };
        let sink = NatsSink::connect(options).await.unwrap();
        for count in [3, 300] {
            let batch = records(&Topic::from("rtm.a"), count);
            timeout(SOON, sink.publish(&batch)).await.unwrap().unwrap();
        }
        let stored = nats.read_all("RTM").await.unwrap();
        assert!(stored.len() >= 300);
        for record in stored {
            let demands = record
                .headers
                .iter()
                .any(|(name, _)| name == "Nats-Expected-Stream");
            assert_eq!(demands, expect_stream);
        }
        let elsewhere = records(&Topic::from("other.a"), 3);
        let refused = timeout(SOON, sink.publish(&elsewhere)).await.unwrap();
        assert!(refused.is_err(), "another stream's word counts");
    }
}

/// Holds: an account that imports JetStream's interface under another name reaches it by that name.
#[tokio::test]
async fn an_imported_interface() {
    let server = Nats::start_own_with(
        "accounts {
            OWNER { jetstream: enabled, users: [ { user: owner, password: p } ], exports: [
                { service: \"$JS.API.>\", response_type: stream }, { service: \"rtm.>\", response_type: stream } ] }
            GUEST { users: [ { user: guest, password: p } ], imports: [
                { service: { account: OWNER, subject: \"$JS.API.>\" }, to: \"owner.api.>\" },
                { service: { account: OWNER, subject: \"rtm.>\" } } ] }
        }",
    )
    .await
    .unwrap();
    let user = |user: &str| NatsAuth::UserPassword {
        user: user.to_owned(),
        password: "p".into(),
    };
    assert_accepted(options(&server, user("owner"))).await;
    let guest = |api_prefix: Option<&str>| NatsOptions {
        api_prefix: api_prefix.map(str::to_owned),
        create_stream: None,
        ..options(&server, user("guest"))
    };
    let sink = NatsSink::connect(guest(Some("owner.api"))).await.unwrap();
    sink.check(&["rtm.a"], false).await.unwrap();
    assert_accepted(guest(Some("owner.api"))).await;
    let sink = NatsSink::connect(guest(None)).await.unwrap();
    sink.check(&["rtm.a"], false).await.unwrap_err();
}

/// Holds: a user who may receive answers below a prefix of its own only gets them there.
#[tokio::test]
async fn a_private_inbox() {
    let server = Nats::start_own_with(
        "authorization { users: [ { user: bridge, password: p, permissions: {
            publish: \">\", subscribe: \"_INBOX_bridge.>\" } } ] }",
    )
    .await
    .unwrap();
    let auth = NatsAuth::UserPassword {
        user: "bridge".to_owned(),
        password: "p".into(),
    };
    let with = |inbox_prefix: &str| NatsOptions {
        inbox_prefix: inbox_prefix.to_owned(),
        ..options(&server, auth.clone())
    };
    let sink = NatsSink::connect(with("_INBOX")).await.unwrap();
    let batch = records(&Topic::from("rtm.a"), 10);
    let error = timeout(SOON, sink.publish(&batch))
        .await
        .unwrap()
        .unwrap_err();
    assert!(
        chain(&error).contains("Permissions Violation for Subscription"),
        "{error:?}"
    );
    assert_accepted(with("_INBOX_bridge")).await;
    let sink = NatsSink::connect(with("_INBOX_bridge")).await.unwrap();
    sink.check(&["rtm.a"], false).await.unwrap();
}

/// Holds: a server that begins with TLS is reached with `first`; without it the sink says what may be the matter, and a
/// server that does not begin with TLS is told as well.
#[tokio::test]
async fn tls_from_the_first_byte() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let tls = |more: &str| of_server(dir.path(), more);
    let first = Nats::start_own_with(&tls(", handshake_first: true"))
        .await
        .unwrap();
    let usual = Nats::start_own_with(&tls("")).await.unwrap();
    let begins = |server: &Nats, first: bool| {
        let mut options = with(server, Some(dir.path().join("ca.pem")), None);
        options.tls.first = first;
        options
    };
    assert_accepted(begins(&first, true)).await;
    assert_accepted(begins(&usual, false)).await;
    assert_refused(
        begins(&usual, true),
        "the server does not speak it, or does not begin with it",
    )
    .await;
    let sink = NatsSink::connect(begins(&first, false)).await.unwrap();
    let told = async || {
        let said = sink
            .check(&[], false)
            .await
            .map_or_else(|error| chain(&error), |_| String::new());
        said.contains("needs `tls.first`")
    };
    wait_for("the hint", SOON, told).await.unwrap();
}

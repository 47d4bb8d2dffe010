//! `rtm-bridge check --connect`, as a user runs it, with NATS servers of every kind.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use async_nats::jetstream::stream::{Config, DiscardPolicy};
use rtm_tests::brokers::Nats;

use super::check::connect;
use super::nats_tls::{certificates, of_server};

/// What it says of a NATS sink at `server` with these keys, and its exit code.
async fn check(server: &str, keys: &str) -> (String, Option<i32>) {
    connect(&format!(
        "[sinks.nats]\nservers = [{server:?}]\nstream = \"RTM\"\n{keys}\n"
    ))
    .await
}

async fn assert_said(server: &Nats, keys: &str, code: i32, says: &str) {
    let (text, found) = check(server.url(), keys).await;
    assert!(text.contains(says), "expected {says:?} in {text}");
    assert_eq!(found, Some(code), "{text}");
}

/// Holds: a permission that is missing is told in the server's words: to publish to each subject, to look at the stream, to
/// create it, and to receive answers.
#[tokio::test(flavor = "multi_thread")]
async fn missing_permissions() {
    let user = |name: &str, publish: &str, subscribe: &str| {
        format!(
            "{{ user: {name}, password: p, permissions: {{ publish: {{ allow: [ {publish} ] }}, subscribe: {{ allow: [ \
             {subscribe} ] }} }} }}\n"
        )
    };
    let info = "\"$JS.API.STREAM.INFO.RTM\"";
    let users = [
        user(
            "no_dead_letters",
            &format!("\"rtm.main.r.>\", {info}"),
            "\"_INBOX.>\"",
        ),
        user("no_info", "\"rtm.>\"", "\"_INBOX.>\""),
        user("no_create", &format!("\"rtm.>\", {info}"), "\"_INBOX.>\""),
        user("no_inbox", &format!("\"rtm.>\", {info}"), "\"_OTHER.>\""),
        user(
            "all",
            &format!("\"rtm.>\", {info}, \"$JS.API.STREAM.CREATE.RTM\""),
            "\"_INBOX.>\"",
        ),
    ];
    let authorization = format!(
        "authorization {{ users: [ {{ user: admin, password: p }}\n{} ] }}",
        users.concat()
    );
    let server = Nats::start_own_with(&authorization).await.unwrap();
    let auth =
        |user: &str| format!("auth = {{ password = {{ user = {user:?}, password = \"p\" }} }}");
    let create = |user: &str| format!("{}\ncreate = {{}}", auth(user));
    let denied = "Permissions Violation for Publish to \"$JS.API.STREAM.CREATE.RTM\"";
    assert_said(&server, &create("no_create"), 1, denied).await;
    assert_said(
        &server,
        &create("all"),
        0,
        "stream RTM is missing; `run` creates it",
    )
    .await;

    let admin = async_nats::ConnectOptions::with_user_and_password("admin".into(), "p".into());
    let admin = async_nats::jetstream::new(admin.connect(server.url()).await.unwrap());
    let config = Config {
        name: "RTM".to_owned(),
        subjects: vec!["rtm.>".to_owned()],
        ..Config::default()
    };
    let mut stream = admin.create_stream(config).await.unwrap();
    assert_said(&server, &auth("all"), 0, "stream RTM stores every subject").await;
    for (user, said) in [
        (
            "no_dead_letters",
            "cannot publish to rtm.main.dead_letters: nats denies it: Permissions Violation for Publish to \
             \"rtm.main.dead_letters\"",
        ),
        (
            "no_info",
            "Permissions Violation for Publish to \"$JS.API.STREAM.INFO.RTM\"",
        ),
        (
            "no_inbox",
            "Permissions Violation for Subscription to \"_INBOX.",
        ),
    ] {
        assert_said(&server, &auth(user), 1, said).await;
    }
    let private = format!("{}\ninbox_prefix = \"_OTHER\"", auth("no_inbox"));
    assert_said(&server, &private, 0, "stream RTM stores every subject").await;
    assert_eq!(
        stream.info().await.unwrap().state.messages,
        0,
        "the check stores nothing"
    );
}

/// Holds: TLS where plaintext is configured, plaintext where TLS is, and TLS from the first byte are told, each with what to
/// set.
#[tokio::test(flavor = "multi_thread")]
async fn tls_or_none() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let path = |name: &str| dir.path().join(name).display().to_string();
    let tls = |more: &str| of_server(dir.path(), more);
    let secured = Nats::start_own_with(&tls("")).await.unwrap();
    let first = Nats::start_own_with(&tls(", handshake_first: true"))
        .await
        .unwrap();
    let plain = Nats::start_own().await.unwrap();
    plain.create_jetstream("RTM", &["rtm.>"]).await.unwrap();

    assert_said(
        &secured,
        "",
        1,
        "the server's certificate is of no authority that is trusted here",
    )
    .await;
    assert_said(
        &plain,
        "tls = { required = true }",
        1,
        "tls with nats: the server does not speak it",
    )
    .await;
    assert_said(&first, "", 1, "needs `tls.first`").await;
    let trusted = |keys: &str| {
        format!(
            "create = {{}}\ntls = {{ ca_file = {:?}{keys} }}",
            path("ca.pem")
        )
    };
    assert_said(&secured, &trusted(""), 0, "stream RTM is missing").await;
    assert_said(
        &first,
        &trusted(", first = true"),
        0,
        "stream RTM is missing",
    )
    .await;
    assert_said(&plain, "", 0, "stream RTM stores every subject").await;
}

/// Holds: limits that lose events, hold them up or are too small for them are warned of.
#[tokio::test(flavor = "multi_thread")]
async fn limits_are_warned_of() {
    let server = Nats::start_own_with("max_payload: 8000").await.unwrap();
    let config = Config {
        name: "RTM".to_owned(),
        subjects: vec!["rtm.>".to_owned()],
        max_messages_per_subject: 10,
        discard: DiscardPolicy::New,
        discard_new_per_subject: true,
        max_message_size: 700,
        ..Config::default()
    };
    server
        .jetstream()
        .await
        .unwrap()
        .create_stream(config)
        .await
        .unwrap();
    for says in [
        "warning: a subject with max_msgs_per_subject messages takes no more (discard_new_per_subject)",
        "warning: max_msg_size is 700 bytes",
        "warning: the server's max_payload is 8000 bytes",
    ] {
        assert_said(&server, "", 0, says).await;
    }
}

/// Holds: a stream into which no record fits, or that cannot hold a large one, is no good one: each bound that is too small
/// is named with what it is and what is needed. One that holds little is warned of, with how much that is.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_keeps_nothing_is_refused() {
    let server = Nats::start_own().await.unwrap();
    let jetstream = server.jetstream().await.unwrap();
    let config = |max_bytes, max_message_size| Config {
        name: "RTM".to_owned(),
        subjects: vec!["rtm.>".to_owned()],
        max_bytes,
        max_message_size,
        ..Config::default()
    };
    jetstream.create_stream(config(300, -1)).await.unwrap();
    for (bounds, code, says) in [
        (
            (300, -1),
            1,
            "the jetstream `RTM` can keep no record: its max_bytes is 300 bytes, and 65536 bytes is the least",
        ),
        (
            (-1, 100),
            1,
            "the jetstream `RTM` can keep no record: its max_msg_size is 100 bytes, and 512 bytes is the least",
        ),
        (
            (1 << 20, -1),
            0,
            "past its limit (max_bytes: some 1497 records) it drops its oldest messages, read or not",
        ),
    ] {
        jetstream
            .update_stream(config(bounds.0, bounds.1))
            .await
            .unwrap();
        assert_said(&server, "", code, says).await;
    }
}

/// Holds: a stream that is missing where the server has a JetStream domain may be in another one, which is said before `run`
/// creates a second one.
#[tokio::test(flavor = "multi_thread")]
async fn a_domain_is_named() {
    let store = tempfile::tempdir().unwrap();
    let server = Nats::start_own_with(&jetstream(store.path()))
        .await
        .unwrap();
    assert_said(
        &server,
        "",
        1,
        "does not exist in the domain `leaf` of this server; if it is in another one",
    )
    .await;
    let says = "`run` creates it there, in the JetStream domain leaf; if it is in another one, set `domain`";
    assert_said(&server, "create = {}", 0, says).await;
    assert_said(
        &server,
        "domain = \"hub\"",
        1,
        "nobody answers to $JS.hub.API.STREAM.INFO.RTM",
    )
    .await;
    assert_said(
        &server,
        "domain = \"leaf\"\ncreate = {}",
        0,
        "stream RTM is missing; `run` creates it\n",
    )
    .await;
}

fn jetstream(store: &Path) -> String {
    format!(
        "jetstream {{ store_dir: {:?}, domain: leaf }}",
        store.display().to_string()
    )
}

/// Holds: each thing is told that storing records once and only once needs and does not find.
#[tokio::test(flavor = "multi_thread")]
async fn what_once_and_only_once_needs_is_told() {
    let users = "authorization { users: [ { user: admin, password: p }
        { user: blind, password: p, permissions: { publish: { deny: [ \"$JS.API.STREAM.MSG.GET.RTM\" ] } } }
        { user: mute, password: p, permissions: { publish: { deny: [ \"rtm.progress.>\" ] } } } ] }";
    let server = Nats::start_own_with(users).await.unwrap();
    let exactly = |user: &str, keys: &str| {
        format!(
            "auth = {{ password = {{ user = {user:?}, password = \"p\" }} }}\ndelivery = \"exactly_once\"\n{keys}"
        )
    };
    let admin = async_nats::ConnectOptions::with_user_and_password("admin".into(), "p".into());
    let admin = async_nats::jetstream::new(admin.connect(server.url()).await.unwrap());
    let fit = || Config {
        name: "RTM".to_owned(),
        subjects: vec!["rtm.>".to_owned()],
        allow_atomic_publish: true,
        ..Config::default()
    };
    admin.create_stream(fit()).await.unwrap();
    let good = "stream RTM stores every subject";
    assert_said(&server, &exactly("admin", ""), 0, good).await;
    let blind = "it does not tell its last message";
    assert_said(&server, &exactly("blind", ""), 1, blind).await;
    let mute = "the progress cannot be published";
    assert_said(&server, &exactly("mute", ""), 1, mute).await;
    let elsewhere = "progress_subject = \"elsewhere.{journal}.{sink}.{app_id}\"";
    let unbound = "it does not store elsewhere.*.*.*";
    assert_said(&server, &exactly("admin", elsewhere), 1, unbound).await;
    let contradiction = "atomic_batches = \"off\"";
    let said = "`exactly_once` is done with atomic batches";
    assert_said(&server, &exactly("admin", contradiction), 2, said).await;
    let nameless = "progress_subject = \"rtm.progress.{app_id}\"";
    let said = "is not a subject with the tokens";
    assert_said(&server, &exactly("admin", nameless), 2, said).await;
    let config = Config {
        allow_atomic_publish: false,
        ..fit()
    };
    admin.update_stream(config).await.unwrap();
    let off = "its allow_atomic is not set";
    assert_said(&server, &exactly("admin", ""), 1, off).await;
}

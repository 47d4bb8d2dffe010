//! `rtm-bridge check --connect`, as a user runs it, with real brokers.
#![allow(clippy::unwrap_used)]

use rtm_sim::{SimConfig, Simulator};
use rtm_tests::brokers::{self, Kafka};

/// What it says of a sink in Kafka with these keys, and its exit code.
async fn check(kafka: &Kafka, topics: &str) -> (String, Option<i32>) {
    let brokers = kafka.address();
    connect(&format!(
        "[sinks.kafka]\nbrokers = [\"{brokers}\"]\n{topics}\n"
    ))
    .await
}

/// What it says of a configuration with these sinks, standard output first, and its exit code.
pub(super) async fn connect(sinks: &str) -> (String, Option<i32>) {
    let dir = tempfile::tempdir().unwrap();
    let agora = Simulator::start(SimConfig::default()).await.unwrap();
    let file = dir.path().join("rtm-bridge.toml");
    let config = format!(
        "[journal]\ndir = {:?}\n[[apps]]\nname = \"main\"\napp_id = \"876922cbca0098dff4323566daa89675\"\n\
         regions = [{{ name = \"r\", base_url = \"{}\" }}]\nauth = {{ basic = {{ key = \"demo-key\", secret = \"demo-secret\" }} }}\n\
         {sinks}",
        dir.path().join("journal").display().to_string(),
        agora.base_url("eu-west-1"),
    );
    std::fs::write(&file, config).unwrap();
    let output = tokio::process::Command::new(rtm_tests::binary::rtm_bridge().unwrap())
        .args(["check", "--connect", "--config"])
        .arg(&file)
        .output()
        .await
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        text(&output.stdout) + &text(&output.stderr),
        output.status.code(),
    )
}

/// Holds: a topic that is missing is fine where the broker says that it creates it, and a failure where it says that it
/// does not; and the last word is the verdict.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_is_judged_by_the_broker_s_setting() {
    let last = |text: &str| text.trim_end().lines().last().unwrap().to_owned();
    let name = brokers::unique("missing");
    let topics = format!("topic = \"{name}\"\ndead_letter_topic = \"{name}.dead\"");

    let creates = [("auto.create.topics.enable", "true")];
    let kafka = Kafka::start_own_with(&creates).await.unwrap();
    let (text, code) = check(&kafka, &topics).await;
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains(&format!("topic {name}: ok, missing; the broker creates it")),
        "{text}"
    );
    assert!(last(&text).ends_with("rtm-bridge.toml: valid, and all of it can be reached"));
    drop(kafka);

    let refuses = [("auto.create.topics.enable", "false")];
    let kafka = Kafka::start_own_with(&refuses).await.unwrap();
    let (text, code) = check(&kafka, &topics).await;
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains(&format!(
            "topic {name}: FAILED, it is missing, and the broker has auto.create.topics.enable=false"
        )),
        "{text}"
    );
    assert_eq!(last(&text), "rtm-bridge: 2 check(s) failed");
    assert!(!text.contains("valid"), "{text}");
    let (text, code) = check(&kafka, &format!("{topics}\ncreate = true")).await;
    assert_eq!(code, Some(0), "{text}");
}

/// Holds: a topic that is compacted fails where records have no keys, as dead letters, and is warned of where they have; a
/// limit on sizes below what a record may have is warned of, at the broker and in the client's own options.
#[tokio::test(flavor = "multi_thread")]
async fn settings_that_refuse_or_delete_are_told() {
    let kafka = brokers::kafka().await;
    let name = brokers::unique("settings");
    let topics = format!("topic = \"{name}\"\ndead_letter_topic = \"{name}.dead\"");
    let dead = format!("{name}.dead");
    let compact = [("cleanup.policy", "compact")];
    let small = [("max.message.bytes", "3000")];
    kafka.create_topic(&name, 1, &compact).await.unwrap();
    kafka.create_topic(&dead, 1, &small).await.unwrap();
    let own = "options = { \"message.max.bytes\" = 5000 }";
    let (text, code) = check(kafka, &format!("{topics}\n{own}")).await;
    assert_eq!(code, Some(0), "{text}");
    for word in [
        format!("topic {name}: ok, warning: cleanup.policy is compact"),
        format!("topic {dead}: ok, warning: max.message.bytes is 3000"),
        "warning: the option message.max.bytes is 5000".to_owned(),
    ] {
        assert!(text.contains(&word), "{word}: {text}");
    }
    let (text, code) = check(kafka, &format!("{topics}\nkey = \"none\"")).await;
    assert_eq!(code, Some(1), "{text}");
    let word = format!("topic {name}: FAILED, cleanup.policy is compact");
    assert!(
        text.contains(&word) && text.contains("`key` is \"none\""),
        "{text}"
    );

    let other = brokers::unique("settings-dead");
    kafka.create_topic(&other, 1, &compact).await.unwrap();
    let topics = format!("topic = \"{dead}\"\ndead_letter_topic = \"{other}\"");
    let (text, code) = check(kafka, &topics).await;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("dead letters have none"), "{text}");
}

/// Holds: a broker that advertises an address where nobody answers is the one cause, and is told soon.
#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_address_is_the_one_cause() {
    // A listener that is silent, as behind a firewall: nobody takes what waits in its queue.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap().to_string();
    for (at, why) in [
        ("127.0.0.1:1", "no connection: Connection refused"),
        (&silent, "it takes connections, and does not answer"),
    ] {
        let advertised = format!("PLAINTEXT://{at}");
        let elsewhere = [("advertised.listeners", advertised.as_str())];
        let kafka = Kafka::start_own_with(&elsewhere).await.unwrap();
        let start = std::time::Instant::now();
        let (text, code) = check(&kafka, "").await;
        let took = start.elapsed();
        assert!(
            took < std::time::Duration::from_secs(12),
            "{took:?}: {text}"
        );
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains(&format!("{at}: {why}")), "{text}");
        assert_eq!(text.matches("FAILED").count(), 1, "{text}");
    }
}

/// Holds: a file that an option names and that is not there is told by the option and its path, once.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_authority_is_named_once() {
    let kafka = brokers::kafka().await;
    let tls =
        "options = { \"security.protocol\" = \"SSL\", \"ssl.ca.location\" = \"/nowhere/ca.pem\" }";
    let (text, code) = check(kafka, tls).await;
    assert_eq!(code, Some(2), "{text}");
    let word = "options.ssl.ca.location: cannot read /nowhere/ca.pem: No such file";
    assert_eq!(text.matches(word).count(), 1, "{text}");
}

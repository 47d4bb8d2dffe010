#![allow(clippy::unwrap_used)]

use super::*;

/// Holds: a topic, subject or stream of someone else's, which would be removed at the end, is seen.
#[test]
fn what_is_not_ours_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let bench = Bench {
        sink: "s",
        tag: "t",
        dir,
    };
    let sink = |text: &str| {
        let head = "[[apps]]\nname = \"a\"\napp_id = \"0a\"\nregions = [\"eu-west-1\"]\n\
                        auth = { basic = { key = \"k\", secret = \"s\" } }\n[sinks.s]\n";
        let config = Config::parse(&format!("{head}{text}"));
        let mut config = config.unwrap_or_else(|error| panic!("{error}: {text}"));
        config.sinks.remove("s").unwrap()
    };
    let ours = |text: &str| sink(text).table().is_of_bench(&bench);
    let own = |head: &str, placeless: &str| {
        let places = sink(&format!("{head}{placeless}")).table().bench(&bench);
        format!(
            "{head}{}",
            toml_edit::ser::to_string(&places.unwrap()).unwrap()
        )
    };
    let kafka = own("type = \"kafka\"\nbrokers = [\"b:1\"]\n", "");
    let nats = own(
        "type = \"nats\"\nservers = [\"nats://b\"]\n",
        "stream = \"RTM\"",
    );
    let file = own("type = \"file\"\n", "path = \"f\"");
    for sink in [&kafka, &nats, &file] {
        assert!(ours(sink), "{sink}");
    }
    assert!(!ours(
        &kafka.replace("topic = \"rtm-bench-t-s.", "topic = \"rtm.")
    ));
    assert!(!ours(&kafka.replace("rtm-bench-t-s.dead", "rtm.dead")));
    assert!(!ours(&nats.replace("RTM_BENCH_t_s", "RTM")));
    assert!(!ours(&nats.replace("rtm_bench_t_s.", "rtm.")));
    let elsewhere = file.replace(&dir.display().to_string(), "/var");
    assert!(!ours(&elsewhere), "{elsewhere}");
}

const TEXT: &str = r#"
[journal]
dir = "/var/lib/rtm-bridge"

[[apps]]
name = "main"
app_id = "0a1b"
auth = { basic = { key = "k", secret = "s" } }
regions = ["eu-west-1"]

[sinks.kafka] # the cluster
brokers = [
  "kafka:9092",
]
topic = "rtm.{stream}_events"
create = true
dead_letter_topic = "rtm.dead"
apps = ["main"]

[sinks.kafka.options]
"security.protocol" = "SASL_SSL"
path = "kept"

[sinks."nats"]
servers = ["nats://nats:4222"]
stream = "RTM"
create.max_age = "1h"
streams = ["user"]
subject = "rtm.{app}"
"#;

/// Holds: credentials and options stay, however a sink is written, and nothing stays of where the user's records go.
#[test]
fn only_the_places_change() {
    let dir = tempfile::tempdir().unwrap();
    let inline = TEXT.replace(
        "[sinks.kafka]",
        "[sinks]\nfile.path = \"/f\"\n[sinks.kafka]",
    );
    for text in [TEXT, &inline] {
        let theirs = Config::parse(text).unwrap();
        let sinks = rewritten(&theirs, dir.path(), "t").unwrap();
        let sinks = toml_edit::ser::to_string(&json!({ "sinks": sinks })).unwrap();
        assert!(!sinks.contains("rtm.") && !sinks.contains("1h"), "{sinks}");
        let (head, _) = text.split_once("[sinks").unwrap();
        let ours = Config::parse(&format!("{sinks}{head}")).unwrap();
        assert_eq!(ours.sinks.len(), theirs.sinks.len());
        for (sink, config) in &ours.sinks {
            let bench = Bench {
                sink,
                tag: "t",
                dir: dir.path(),
            };
            assert!(config.table().is_of_bench(&bench), "{sinks}");
        }
        for (sink, key, value) in [
            ("kafka", "create", "false"),
            ("kafka", "brokers", "kafka:9092"),
            ("kafka", "options set", "path, security.protocol"),
            ("kafka", "apps", "all"),
            ("nats", "servers", "nats://nats:4222"),
            ("nats", "streams", "user, channel"),
        ] {
            let shown = ours.sinks[sink].shown();
            assert!(shown.contains(&(key, value.to_owned())), "{shown:?}");
        }
    }
}

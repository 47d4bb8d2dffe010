use super::super::Config;

const BEFORE: &str = r#"
[journal]
dir = "journal"

[[apps]]
name = "main"
app_id = "876922cbca0098dff4323566daa89675"
auth = { basic = { key = "k", secret = "canary-secret" } }
regions = ["eu-west-1"]

[[apps]]
name = "other"
app_id = "0a"
auth = { basic = { key = "k", secret = "canary-secret" } }
regions = ["eu-west-1"]

[sinks.kafka]
brokers = ["b:1"]
options = { "linger.ms" = 5 }

[sinks.stdout]
"#;

fn changed(old: &str, new: &str) -> Vec<String> {
    let [old, new] =
        [old, new].map(|toml| Config::parse(toml).unwrap_or_else(|error| panic!("{error}")));
    let text = format!("{old:?}{:?}", old.changed(&new));
    assert!(!text.contains("canary"), "{text}");
    old.changed(&new)
}

/// Holds: each key that differs is named, and nothing else is; a change and its way back alike.
#[test]
fn what_differs_is_named() {
    assert_eq!(changed(BEFORE, BEFORE), [""; 0]);
    let main = "regions = [\"eu-west-1\"]\n\n[[apps]]";
    let other = &BEFORE[BEFORE.find("[[apps]]\nname = \"other\"").unwrap()..];
    let (other, _) = other.split_once("[sinks.kafka]").unwrap();
    let cases: &[(&str, &str, &[&str])] = &[
        ("\"journal\"", "\"elsewhere\"", &["journal.dir"]),
        ("[journal]\ndir = \"journal\"\n", "", &["journal.dir"]),
        (
            "[journal]",
            "shutdown_deadline = \"5s\"\n[log]\nlevel = \"warn\"\n[journal]",
            &["log.level", "shutdown_deadline"],
        ),
        (
            main,
            "regions = [\"us-east-1\"]\npaused = true\n\n[[apps]]",
            &["apps.main.paused", "apps.main.regions"],
        ),
        (
            "canary-secret",
            "canary-rotated",
            &["apps.main.auth.basic.secret"],
        ),
        (
            "secret = \"canary-secret\"",
            "secret_env = \"PATH\"",
            &[
                "apps.main.auth.basic.secret",
                "apps.main.auth.basic.secret_env",
            ],
        ),
        (other, "", &["apps.other"]),
        (
            "name = \"other\"",
            "name = \"third\"",
            &["apps.other", "apps.third"],
        ),
        ("[sinks.stdout]", "", &["sinks.stdout"]),
        (
            "[sinks.stdout]",
            "[sinks.stdout]\n[sinks.nats]\nservers = [\"nats://b\"]\nstream = \"S\"\ncreate = {}",
            &["sinks.nats"],
        ),
        ("b:1", "b:2", &["sinks.kafka.brokers"]),
        (
            "\"linger.ms\" = 5",
            "\"linger.ms\" = 6, \"client.id\" = \"x\"",
            &[
                "sinks.kafka.options.client.id",
                "sinks.kafka.options.linger.ms",
            ],
        ),
        (
            "options = { \"linger.ms\" = 5 }",
            "",
            &["sinks.kafka.options"],
        ),
    ];
    for (from, to, keys) in cases {
        let after = BEFORE.replacen(from, to, 1);
        assert_ne!(BEFORE, after, "{from}");
        assert_eq!(changed(BEFORE, &after), *keys, "{to}");
        assert_eq!(changed(&after, BEFORE), *keys, "{to}, back");
    }
}

/// Holds: apps are told apart by their names, and not by their places.
#[test]
fn another_order_of_apps_is_no_change() {
    let parts: Vec<&str> = BEFORE.split("[[apps]]").collect();
    let (other, sinks) = parts[2].split_once("[sinks.kafka]").unwrap();
    let after = format!(
        "{}[[apps]]{other}[[apps]]{}[sinks.kafka]{sinks}",
        parts[0], parts[1]
    );
    assert_eq!(changed(BEFORE, &after), [""; 0]);
}

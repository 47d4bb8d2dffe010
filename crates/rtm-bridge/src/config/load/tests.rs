use std::path::PathBuf;

use std::any::Any;

use super::*;
use crate::sinks::kafka::KafkaConfig;
use crate::sinks::nats::NatsConfig;

const MINIMAL: &str = r#"
[journal]
dir = "journal"

[[apps]]
name = "main"
app_id = "876922cbca0098dff4323566daa89675"
auth = { basic = { key = "k", secret = "canary-secret" } }
regions = ["eu-west-1"]

[sinks.stdout]
"#;

#[test]
fn a_syntax_error_repeats_no_secret() {
    for broken in [
        "auth = { basic = { key = \"k\", secret = \"canary\" }",
        "auth = { basic = { key = \"k\", secret = \"canary\", secret = \"b\" } }",
    ] {
        let error = Config::parse(&format!("[[apps]]\nname = \"a\"\n{broken}\n")).unwrap_err();
        let text = error.to_string();
        assert!(!text.contains("canary"), "{text}");
        assert!(text.contains("line"), "{text}");
    }
}

#[test]
fn the_smallest_configuration_is_enough() {
    let config = Config::parse(MINIMAL).unwrap();
    assert_eq!(config.apps[0].requests_per_second, 10);
    assert_eq!(config.sinks["stdout"].kind, "stdout");
}

#[test]
fn a_secret_never_appears_in_an_error_or_in_debug() {
    let config = Config::parse(MINIMAL).unwrap();
    assert!(!format!("{config:?}").contains("canary-secret"));
    for broken in [
        r#"auth = "canary-secret""#,
        r#"auth = { basic = "canary-secret" }"#,
        r#"auth = { canary-secret = 1 }"#,
        r#"auth = { basic = { key = "k", secret = ["canary-secret"] } }"#,
    ] {
        let toml = MINIMAL.replace(
            r#"auth = { basic = { key = "k", secret = "canary-secret" } }"#,
            broken,
        );
        let error = Config::parse(&toml).unwrap_err();
        assert!(
            !error.to_string().contains("canary-secret"),
            "{broken}: {error}"
        );
        assert!(error.to_string().contains("auth"), "{broken}: {error}");
    }
}

#[test]
fn the_environment_lies_over_the_file_and_text_stays_text() {
    figment::Jail::expect_with(|jail| {
        jail.create_file("rtm-bridge.toml", MINIMAL)?;
        jail.set_env("RTM_BRIDGE__JOURNAL__MAX_BYTES", "1GiB");
        jail.set_env("RTM_BRIDGE__JOURNAL__DIR", "007");
        jail.set_env(
            "RTM_BRIDGE__SINKS__KAFKA__BROKERS",
            "[\"a:9092\", \"b:9092\"]",
        );
        // What Kubernetes injects for a service of the same name is not ours.
        jail.set_env("RTM_BRIDGE_SERVICE_HOST", "10.0.0.1");
        let config = Config::load(Path::new("rtm-bridge.toml")).unwrap();
        assert_eq!(config.journal.max_bytes, 1 << 30);
        assert_eq!(config.journal.dir, PathBuf::from("007"));
        let shown = config.sinks["kafka"].shown();
        assert!(shown.contains(&("type", "kafka".to_owned())), "{shown:?}");
        assert!(
            shown.contains(&("brokers", "a:9092, b:9092".to_owned())),
            "{shown:?}"
        );
        Ok(())
    });
}

/// Holds: every key that is a whole number is read from an environment variable too, where it is text.
#[test]
fn numbers_come_from_the_environment_too() {
    const SINKS: &str = r#"
[sinks.kafka]
brokers = ["b:9092"]
[sinks.nats]
servers = ["nats://n"]
stream = "RTM"
create = {}
"#;
    let values = [
        ("JOURNAL__MAX_ENTRIES", "20000"),
        ("JOURNAL__MAX_BYTES", "1073741824"),
        ("JOURNAL__MIN_FREE_BYTES", "0"),
        ("SINKS__KAFKA__PARTITIONS", "3"),
        ("SINKS__KAFKA__REPLICATION_FACTOR", "2"),
        ("SINKS__NATS__IN_FLIGHT", "7"),
        ("SINKS__NATS__CREATE__REPLICAS", "5"),
        ("SINKS__NATS__CREATE__MAX_BYTES", "1048576"),
    ];
    figment::Jail::expect_with(|jail| {
        let text = MINIMAL.replace("regions", "requests_per_second = \"8\"\nregions");
        jail.create_file("rtm-bridge.toml", &format!("{text}{SINKS}"))?;
        for (key, value) in values {
            jail.set_env(format!("RTM_BRIDGE__{key}"), value);
        }
        let config = Config::load(Path::new("rtm-bridge.toml")).unwrap();
        assert_eq!(config.journal.max_entries, 20_000);
        assert_eq!(config.journal.max_bytes, 1 << 30);
        assert_eq!(config.journal.min_free_bytes, 0);
        assert_eq!(config.apps[0].requests_per_second, 8);
        let kafka: &dyn Any = config.sinks["kafka"].table();
        let kafka = kafka.downcast_ref::<KafkaConfig>().unwrap();
        assert_eq!(kafka.partitions, Some(3));
        assert_eq!(kafka.replication_factor, Some(2));
        let nats: &dyn Any = config.sinks["nats"].table();
        let nats = nats.downcast_ref::<NatsConfig>().unwrap();
        let create = nats.create.as_ref().unwrap();
        assert_eq!(
            (nats.in_flight, create.replicas, create.max_bytes),
            (7, 5, Some(1_048_576))
        );
        Ok(())
    });
    let schema = super::super::schema();
    for (_, table) in schema["$defs"].as_object().unwrap() {
        for (name, property) in table["properties"].as_object().into_iter().flatten() {
            let set = |(key, _): &(&str, &str)| key.ends_with(&name.to_ascii_uppercase());
            assert!(
                property["type"] != "integer"
                    || name == "requests_per_second"
                    || values.iter().any(set),
                "{name} is not tried above"
            );
        }
    }
}

#[test]
fn an_unknown_variable_of_ours_is_refused_with_its_origin() {
    figment::Jail::expect_with(|jail| {
        jail.create_file("rtm-bridge.toml", MINIMAL)?;
        jail.set_env("RTM_BRIDGE__JOURNAL__MAX_BITES", "1GiB");
        let error = Config::load(Path::new("rtm-bridge.toml"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("max_bites") && error.contains("environment"),
            "{error}"
        );
        Ok(())
    });
}

/// Holds: whatever is wrong with a variable's value, the variable is named, and the file where it is the file's.
#[test]
fn a_wrong_value_from_the_environment_names_its_variable() {
    for (name, value, key) in [
        ("RTM_BRIDGE__JOURNAL__MAX_BITES", "1GiB", "journal"),
        ("RTM_BRIDGE__JURNAL__DIR", "x", "jurnal"),
        (
            "RTM_BRIDGE__JOURNAL__MAX_BYTES",
            "lots",
            "journal.max_bytes",
        ),
        (
            "RTM_BRIDGE__JOURNAL__MAX_BYTES",
            "1MiB",
            "journal.max_bytes",
        ),
        (
            "RTM_BRIDGE__JOURNAL__MAX_ENTRIES",
            "20000.5",
            "journal.max_entries",
        ),
        ("RTM_BRIDGE__SINKS__FILE__PATH", "/", "sinks.file.path"),
        (
            "RTM_BRIDGE__SINKS__KAFKA",
            "{ brokers = [] }",
            "sinks.kafka.brokers",
        ),
        (
            "RTM_BRIDGE__SINKS__OTHER__TYPE",
            "kafkaa",
            "sinks.other.type",
        ),
        ("RTM_BRIDGE__SHUTDOWN_DEADLINE", "25h", "shutdown_deadline"),
    ] {
        figment::Jail::expect_with(|jail| {
            jail.create_file("rtm-bridge.toml", MINIMAL)?;
            jail.set_env(name, value);
            let error = Config::load(Path::new("rtm-bridge.toml"))
                .unwrap_err()
                .to_string();
            let says = format!("the environment variable {name}: ");
            assert!(
                error.contains(&says) && error.contains(key),
                "{name}: {error}"
            );
            Ok(())
        });
    }
    figment::Jail::expect_with(|jail| {
        jail.create_file("rtm-bridge.toml", &MINIMAL.replace("main", "a b"))?;
        jail.set_env("RTM_BRIDGE__JOURNAL__DIR", "fine");
        let error = Config::load(Path::new("rtm-bridge.toml"))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("rtm-bridge.toml: apps.0.name: "),
            "{error}"
        );
        Ok(())
    });
}

#[test]
fn every_problem_names_the_key_and_what_was_expected() {
    for (from, to, says) in [
        ("name = \"main\"", "nam = \"main\"", "unknown key `nam`"),
        ("name = \"main\"", "name = \"a b\"", "apps.0.name"),
        ("\"eu-west-1\"", "\"eu-west-9\"", "eu-west-1"),
        (
            "dir = \"journal\"",
            "max_bytes = \"lots\"",
            "journal.max_bytes",
        ),
        ("[sinks.stdout]", "[sinks.other]", "sinks.other.type"),
        (
            "[sinks.stdout]",
            "[sinks.kafka]\nbrokers = [\"b:9092\"]\ntopic = \"{regoin}\"",
            "unknown variable `{regoin}`",
        ),
        (
            "[sinks.stdout]",
            "[sinks.kafka]\nbrokers = []",
            "sinks.kafka.brokers",
        ),
        (
            "[sinks.stdout]",
            "[sinks.stdout]\napps = [\"main\", \"mian\"]",
            "sinks.stdout.apps.1: `mian` is not the name of an app; expected some of `main`",
        ),
        (
            "[sinks.stdout]",
            "[sinks.stdout]\napps = []",
            "sinks.stdout.apps: takes nothing",
        ),
        (
            "[sinks.stdout]",
            "[sinks.stdout]\nstreams = []",
            "sinks.stdout.streams: takes nothing",
        ),
        (
            "[sinks.stdout]",
            "[sinks.stdout]\nstreams = [\"users\"]",
            "sinks.stdout.streams.0: `users` is not one of `user`, `channel`",
        ),
        (
            "[sinks.stdout]",
            "[sinks.stdout]\nstrems = [\"user\"]",
            "unknown key `strems`, expected one of `type`, `when_full`, `apps`, `streams`",
        ),
        (
            "regions = [\"eu-west-1\"]",
            "regions = [{ name = \"x\", base_url = \"http://example.com\" }]",
            "apps.0.regions.0",
        ),
    ] {
        let error = Config::parse(&MINIMAL.replace(from, to))
            .unwrap_err()
            .to_string();
        assert!(error.contains(says), "{to}: {error}");
    }
}

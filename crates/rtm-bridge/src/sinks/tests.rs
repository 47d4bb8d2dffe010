use super::*;
use crate::config::Config;

fn config(sinks: &str) -> Config {
    let app = |name: &str, id: &str| {
        format!(
            "[[apps]]\nname = \"{name}\"\napp_id = \"{id}\"\nregions = [\"eu-west-1\"]\n\
                 auth = {{ basic = {{ key = \"k\", secret = \"s\" }} }}\n"
        )
    };
    let apps = app("a", "0a") + &app("b", "0b");
    Config::parse(&format!("{apps}{sinks}")).unwrap()
}

fn sink(keys: &str) -> SinkConfig {
    config(&format!("[sinks.s]\n{keys}\n")).sinks["s"].clone()
}

/// Holds: the common keys are not those of any kind, and are all that every kind has.
#[test]
fn the_common_keys_stand_once() {
    let mut generator = SchemaGenerator::default();
    let common = Common::json_schema(&mut generator);
    let common = common
        .get("properties")
        .and_then(|keys| keys.as_object())
        .unwrap();
    assert!(common.keys().all(|key| KEYS.contains(&&**key)) && common.len() == KEYS.len());
    for entry in KINDS {
        let own = (entry.schema)(&mut generator);
        let own = own.get("properties").and_then(|keys| keys.as_object());
        let twice = own.and_then(|own| own.keys().find(|key| common.contains_key(*key)));
        assert_eq!(twice, None, "{}", entry.kind);
    }
}

/// Holds: a sink has the names of those events only that go to it, and what goes nowhere is warned of.
#[test]
fn a_sink_takes_what_it_says() {
    let kafka = "type = \"kafka\"\nbrokers = [\"b:1\"]\ntopic = \"{app}.{stream}\"\ndead_letter_topic = \"{app}.dead\"\n";
    let some = format!("{kafka}apps = [\"a\"]\nstreams = [\"user\"]\n");
    let config = config(&format!("[sinks.s]\n{some}[sinks.t]\n{some}"));
    let sink = &config.sinks["s"];
    assert_eq!(sink.places(&config.names()), ["a.dead", "a.user"]);
    assert!(sink.takes("a", "user") && !sink.takes("a", "channel") && !sink.takes("b", "user"));
    let warned: Vec<String> = config
        .warnings(None)
        .into_iter()
        .map(|(key, text)| format!("{key}: {text}"))
        .collect();
    for events in [
        "sinks.s.streams: no sink takes the channel events of the app `a`",
        "apps.1: no sink takes the user events of the app `b`",
    ] {
        assert!(
            warned.iter().any(|text| text.contains(events)),
            "{warned:?}"
        );
    }
    let told = |text: &&String| text.contains(": no sink takes");
    assert_eq!(warned.iter().filter(told).count(), 3);
}

/// Holds: what a client goes on with is renewed, and for all else another client is needed, by name.
#[test]
fn what_needs_a_new_client_is_named() {
    let kafka = "type = \"kafka\"\nbrokers = [\"b:1\"]\n";
    let nats = "type = \"nats\"\nservers = [\"nats://b\"]\nstream = \"RTM\"\n";
    let cases: [(&str, &str, &[&str]); 9] = [
        (
            kafka,
            "topic = \"x\"\ndead_letter_topic = \"y\"\nkey = \"none\"\nheaders = true",
            &[],
        ),
        (
            kafka,
            "when_full = \"skip\"\napps = [\"a\"]\nstreams = [\"user\"]",
            &[],
        ),
        (
            kafka,
            "create = true\npartitions = 2",
            &["create", "partitions"],
        ),
        (kafka, "options = { \"client.id\" = \"x\" }", &["options"]),
        (
            nats,
            "subject = \"x\"\ndead_letter_subject = \"y\"\nheaders = true",
            &[],
        ),
        (
            nats,
            "ack_timeout = \"6s\"\nin_flight = 2",
            &["ack_timeout", "in_flight"],
        ),
        (
            nats,
            "tls = { required = true }\ncreate = {}",
            &["tls", "create"],
        ),
        ("type = \"stdout\"\n", "", &[]),
        ("type = \"file\"\npath = \"f\"\n", "apps = [\"b\"]", &[]),
    ];
    for (keys, more, named) in cases {
        let (old, new) = (sink(keys), sink(&format!("{keys}{more}")));
        assert_eq!(old.needs_new_client(&new), named, "{more}");
    }
    // The subjects of the JetStream stream that the client makes are those of the templates.
    let made = |subject: &str| sink(&format!("{nats}create = {{}}\nsubject = \"{subject}\""));
    let old = made("rtm.{app}.{region}");
    assert_eq!(old.needs_new_client(&made("rtm.{app}.{user_id}")), [""; 0]);
    let named = old.needs_new_client(&made("x"));
    assert_eq!(named, ["subject, from which `create` takes its subjects"]);
    let (kafka, stdout) = (sink(kafka), sink("type = \"stdout\""));
    assert_eq!(kafka.needs_new_client(&stdout), ["type"]);
    assert_eq!(stdout.needs_new_client(&kafka), ["type"]);
}

/// Holds: the place is known that dead letters go to of entries that cannot be read, which say neither region nor stream.
#[test]
fn the_dead_letters_of_the_unreadable_have_a_place() {
    let keys = "type = \"kafka\"\nbrokers = [\"b:1\"]\ntopic = \"t\"\napps = [\"a\"]\n";
    let config = config(&format!(
        "[sinks.s]\n{keys}dead_letter_topic = \"{{app}}.{{region}}.{{stream}}.dead\"\n[sinks.plain]\n{keys}\
         dead_letter_topic = \"{{app}}.dead\"\n"
    ));
    let places = |name: &str| config.sinks[name].places(&config.names());
    assert_eq!(
        places("s"),
        [
            "a.eu-west-1.channel.dead",
            "a.eu-west-1.user.dead",
            "a.unknown.unknown.dead",
            "t"
        ]
    );
    assert_eq!(places("plain"), ["a.dead", "t"]);
}

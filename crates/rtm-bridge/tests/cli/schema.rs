//! What the program says of itself: schemas, the reference configuration, completions.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use assert_cmd::Command;
use figment::providers::{Format, Toml};
use jsonschema::Validator;
use rtm_bridge::config::Config;
use rtm_sim::{Load, SimApp, SimAuth, SimConfig, Simulator};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::documentation::{blocks, pages, text};

const REFERENCE: &str = include_str!("../../../../deploy/rtm-bridge.toml");
const COMPOSE: &str = include_str!("../../../../deploy/compose/rtm-bridge.toml");
const README: &str = include_str!("../../../../README.md");

pub(super) fn print(args: &[&str]) -> String {
    let output = Command::cargo_bin("rtm-bridge")
        .unwrap()
        .args(args)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{args:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn schema(of: &str) -> Value {
    let schema: Value = serde_json::from_str(&print(&["schema", of])).unwrap();
    jsonschema::meta::validate(&schema).unwrap();
    schema
}

fn toml(text: &str) -> Value {
    Toml::from_str(text).unwrap()
}

fn problems(validator: &Validator, document: &Value) -> Vec<String> {
    let errors = validator.iter_errors(document);
    errors
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

/// Holds: the configuration's schema takes every configuration that we show.
#[test]
fn the_schema_takes_every_example() {
    let validator = jsonschema::validator_for(&schema("config")).unwrap();
    let pages: Vec<String> = pages().iter().map(|page| text(page)).collect();
    let mut examples: Vec<&str> = pages.iter().flat_map(|page| blocks(page, "toml")).collect();
    assert!(examples.len() > 1, "{examples:?}");
    examples.extend([REFERENCE, COMPOSE, super::SOUND]);
    for example in examples {
        assert_eq!(
            problems(&validator, &toml(example)),
            [""; 0],
            "in\n{example}"
        );
    }
}

/// Holds: what the types refuse, the schema refuses too; and where a sink's type says more than its name, both go by it.
#[test]
fn the_schema_refuses_what_the_program_refuses() {
    let validator = jsonschema::validator_for(&schema("config")).unwrap();
    let sound = super::SOUND;
    let cases = [
        ("name = \"main\"", "nmae = \"main\""),
        ("name = \"main\"\n", ""),
        ("name = \"main\"", "name = \"a b\""),
        ("[journal]", "[jurnal]"),
        ("[journal]", "[journal]\nmax_bytes = \"many\""),
        ("[journal]", "[journal]\nmax_bytes = -1"),
        ("[journal]", "[log]\nformat = \"xml\"\n[journal]"),
        ("regions =", "request_deadline = 30\nregions ="),
        ("regions =", "request_deadline = \"30\"\nregions ="),
        ("regions =", "request_deadline = \"-5s\"\nregions ="),
        ("regions =", "requests_per_second = 0\nregions ="),
        ("regions =", "cross_region_copies = \"keep\"\nregions ="),
        ("\"eu-west-1\"", "\"eu-wset-1\""),
        ("[\"eu-west-1\"]", "[]"),
        ("[\"eu-west-1\"]", "[{ name = \"x\" }]"),
        ("key = \"k\", ", ""),
        (
            "key = \"k\", ",
            "key = \"k\", secret_env = \"RTM_BOTH_GIVEN\", ",
        ),
        (
            "secret_file = \"DIR/secret\" } }",
            "secret = \"x\" }, token = { uid = \"u\", token = \"x\" } }",
        ),
        ("[\"127.0.0.1:9\"]", "[]"),
        ("brokers =", "options = { \"acks\" = [] }\nbrokers ="),
        ("brokers =", "partitions = 0\nbrokers ="),
        ("[sinks.kafka]", "[sinks.kafkaa]"),
        ("[sinks.kafka]", "[sinks.\"a b\"]\ntype = \"kafka\""),
        ("[sinks.kafka]", "[sinks.kafka]\ntype = \"nats\""),
        ("[sinks.kafka]", "[sinks.kafka]\nwhen_full = \"wait\""),
        ("[sinks.kafka]", "[sinks.kafka]\napps = []"),
        ("[sinks.kafka]", "[sinks.kafka]\nstreams = []"),
        ("[sinks.kafka]", "[sinks.kafka]\nstreams = [\"users\"]"),
    ];
    for (from, to) in cases {
        assert!(sound.contains(from), "{from}");
        let broken = sound.replacen(from, to, 1);
        assert!(!validator.is_valid(&toml(&broken)), "schema takes {to}");
        assert!(Config::parse(&broken).is_err(), "the program takes {to}");
    }
    let other = sound.replace("[sinks.kafka]", "[sinks.other]\ntype = \"kafka\"");
    assert_eq!(problems(&validator, &toml(&other)), [""; 0]);
    let some = "[sinks.kafka]\napps = [\"main\"]\nstreams = [\"user\"]";
    let some = sound.replace("[sinks.kafka]", some);
    assert_eq!(problems(&validator, &toml(&some)), [""; 0]);
    let misnamed = "[sinks.nats]\ntype = \"kafka\"";
    assert!(validator.is_valid(&toml(&sound.replace("[sinks.kafka]", misnamed))));
}

/// Holds: a rate above Agora's, which the program takes with a warning, the schema takes as well, and tells.
#[test]
fn the_schema_tells_agoras_limit() {
    let schema = schema("config");
    let rate = &schema["$defs"]["AppConfig"]["properties"]["requests_per_second"];
    let told = rate["description"].as_str().unwrap();
    assert!(
        told.contains("all that Agora allows") && told.contains("429"),
        "{told}"
    );
}

/// Keys and defaults by path, such as `apps.auth.basic.key`.
type Keys = BTreeMap<String, Option<Value>>;

/// Every key that a schema knows, below `path`.
fn keys_of(schema: &Value, root: &Value, path: &str, keys: &mut Keys) {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.strip_prefix("#/$defs/").unwrap();
        keys_of(&root["$defs"][name], root, path, keys);
    }
    for alternative in ["oneOf", "anyOf"] {
        for one in schema[alternative].as_array().into_iter().flatten() {
            keys_of(one, root, path, keys);
        }
    }
    keys_of_list(&schema["items"], root, path, keys);
    // A sink named as its type.
    keys_of_list(&schema["else"], root, path, keys);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        keys_of(property, root, &path, keys);
        let default = property.get("default").cloned();
        keys.entry(path).or_insert(default);
    }
}

fn keys_of_list(schema: &Value, root: &Value, path: &str, keys: &mut Keys) {
    if schema.is_object() {
        keys_of(schema, root, path, keys);
    }
}

/// Every key that a value has, below `path`.
fn keys_in(value: &Value, path: &str, keys: &mut BTreeMap<String, Vec<Value>>) {
    match value {
        Value::Object(table) => {
            for (name, value) in table {
                let path = format!("{path}.{name}");
                keys_in(value, path.trim_start_matches('.'), keys);
            }
        }
        Value::Array(list) if list.iter().any(Value::is_object) => {
            for value in list {
                keys_in(value, path, keys);
            }
        }
        _ => {}
    }
    if !path.is_empty() {
        keys.entry(path.to_owned()).or_default().push(value.clone());
    }
}

/// What the reference configuration says, the commented keys with it: each line by itself, for alternatives stand one
/// below the other.
fn reference_keys() -> BTreeMap<String, Vec<Value>> {
    let mut keys = BTreeMap::new();
    let mut table = String::new();
    let lines = REFERENCE.replace(",\n  ", ", ").replace("[\n  ", "[");
    for line in lines.lines() {
        let line = line.strip_prefix("# ").unwrap_or(line);
        let is_key = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        if line.starts_with('[') {
            table = line.to_owned();
        }
        let is_assignment = line.split_once(" = ").is_some_and(|(key, _)| is_key(key));
        if is_assignment || line.starts_with('[') {
            let assignment = if is_assignment { line } else { "" };
            keys_in(&toml(&format!("{table}\n{assignment}")), "", &mut keys);
        }
    }
    keys
}

/// Options of librdkafka have any name.
fn is_free(path: &str) -> bool {
    let free = [
        "sinks.kafka.options.",
        "sinks.kafka.option_files.",
        "sinks.kafka.option_env.",
    ];
    free.iter().any(|free| path.starts_with(free))
}

/// Holds: the reference configuration is what `config example` prints; it has every key of the types that read
/// configurations, and no other; what is commented out stands at its default, where there is one.
#[test]
fn the_reference_has_every_key_at_its_default() {
    assert_eq!(print(&["config", "example"]), REFERENCE);
    let schema = schema("config");
    let mut known = Keys::new();
    keys_of(&schema, &schema, "", &mut known);
    assert!(known.len() > 60, "{known:?}");
    let shown = reference_keys();
    let missing: Vec<&String> = known
        .keys()
        .filter(|key| !shown.contains_key(*key))
        .collect();
    assert!(missing.is_empty(), "not in the reference: {missing:?}");
    let unknown: Vec<&String> = shown
        .keys()
        .filter(|key| !known.contains_key(*key) && !is_free(key))
        .collect();
    assert!(unknown.is_empty(), "in no type: {unknown:?}");
    for (key, default) in known {
        // Tables are shown filled; the examples of these say more than their defaults would.
        let filled = [
            "sinks.nats.create.subjects",
            "apps.regions.allow_insecure_http",
        ];
        let inside = ["sinks.nats.tls.", "sinks.nats.create."];
        let illustrated =
            filled.contains(&&*key) || inside.iter().any(|table| key.starts_with(table));
        if let Some(default) = default.filter(|default| !default.is_object() && !illustrated) {
            assert_eq!(shown[&key][0], default, "{key}");
        }
    }
}

/// Waits until `file` has `lines` lines, and returns those that are whole.
fn wait_for_lines(file: &Path, lines: usize) -> Vec<String> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let text = fs::read_to_string(file).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        if whole.lines().count() >= lines {
            return whole.lines().map(str::to_owned).collect();
        }
        assert!(
            Instant::now() < deadline,
            "only {} lines came",
            whole.lines().count()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The document; an event that only a parser of larger numbers could read is left out, for its bytes are Agora's.
fn document(line: &str) -> Value {
    let fields: BTreeMap<String, Box<RawValue>> = serde_json::from_str(line).unwrap();
    let value = |(name, raw): (String, Box<RawValue>)| {
        let value = serde_json::from_str(raw.get()).unwrap_or_else(|error| {
            assert!(name == "event" && raw.get().starts_with('{'), "{error}");
            json!({})
        });
        (name, value)
    };
    Value::Object(fields.into_iter().map(value).collect::<Map<_, _>>())
}

/// The schema of a record, with nothing allowed that it does not name.
fn strict(of: &str) -> (Validator, BTreeSet<String>) {
    let mut schema = schema(of);
    schema["additionalProperties"] = false.into();
    let names = schema["properties"].as_object().unwrap().keys().cloned();
    let names = names.collect();
    (jsonschema::validator_for(&schema).unwrap(), names)
}

/// Holds: every record that a real bridge publishes is of one of the two schemas and of one only, odd events, hostile
/// ids and dead letters with them; and the schemas name every field.
#[test]
fn what_is_published_is_as_the_schemas_say() {
    const APP_ID: &str = "876922cbca0098dff4323566daa89675";
    let temp = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let simulator = runtime
        .block_on(Simulator::start(SimConfig {
            apps: vec![SimApp {
                app_id: APP_ID.to_owned(),
                auth: SimAuth::Open,
            }],
            load: Load {
                events_per_second: 2000.0,
                odd: 0.3,
                ..Load::default()
            },
            ..SimConfig::default()
        }))
        .unwrap();
    let out = temp.path().join("out.jsonl");
    let config = format!(
        "[admin]\nlisten = \"127.0.0.1:0\"\n[journal]\ndir = \"{0}/journal\"\nmin_free_bytes = 0\n[[apps]]\nname = \"main\"\n\
         app_id = \"{APP_ID}\"\nauth = {{ basic = {{ key = \"k\", secret = \"s\" }} }}\n\
         regions = [{{ name = \"eu-west-1\", base_url = \"{1}\" }}]\n[sinks.file]\npath = \"{0}/out.jsonl\"\n",
        temp.path().display(),
        simulator.base_url("eu-west-1"),
    );
    let file = temp.path().join("rtm-bridge.toml");
    fs::write(&file, config).unwrap();
    let mut bridge = std::process::Command::new(assert_cmd::cargo::cargo_bin("rtm-bridge"))
        .args(["run", "--config", file.to_str().unwrap()])
        .stderr(fs::File::create(temp.path().join("log")).unwrap())
        .spawn()
        .unwrap();
    let lines = std::panic::catch_unwind(|| wait_for_lines(&out, 5000));
    bridge.kill().unwrap();
    bridge.wait().unwrap();
    let log = fs::read_to_string(temp.path().join("log")).unwrap();
    let lines = lines.unwrap_or_else(|_| panic!("{log}"));

    let (event, event_fields) = strict("event");
    let (letter, letter_fields) = strict("dead-letter");
    let (mut events, mut letters, mut fields) = (0, 0, BTreeSet::new());
    for line in &lines {
        let document = document(line);
        fields.extend(document.as_object().unwrap().keys().cloned());
        let is_letter = document.get("reason").is_some();
        let (own, other) = if is_letter {
            letters += 1;
            (&letter, &event)
        } else {
            events += 1;
            (&event, &letter)
        };
        assert_eq!(problems(own, &document), [""; 0], "{line}");
        assert!(!other.is_valid(&document), "{line}");
    }
    assert!(events > 3000 && letters > 100, "{events} and {letters}");
    // Only what is replayed says so.
    fields.insert("replayed".to_owned());
    assert_eq!(fields, &event_fields | &letter_fields);
}

/// Holds: a broken record is not of the schema.
#[test]
fn the_event_schema_refuses_broken_records() {
    let (event, _) = strict("event");
    let sound = blocks(README, "json")[0];
    let sound = sound.replace("9f1c…e2.4711.57", "9f1c000000000fe2.4711.57");
    let sound = sound.replace("4bc5de75…", "4bc5de755a99ba9ce3702c6570de6f6f");
    let sound: Value = serde_json::from_str(&sound).unwrap();
    assert_eq!(problems(&event, &sound), [""; 0]);
    for name in sound.as_object().unwrap().keys() {
        let mut broken = sound.clone();
        broken.as_object_mut().unwrap().remove(name);
        assert!(!event.is_valid(&broken), "without {name}");
        broken[name] = json!([7]);
        assert!(!event.is_valid(&broken), "with an odd {name}");
    }
    for (name, value) in [
        ("v", json!(2)),
        ("replayed", json!(false)),
        ("id", json!("9f1c.4711.57")),
        ("time", json!("2020-01-03 04:56:58")),
    ] {
        let mut broken = sound.clone();
        broken[name] = value;
        assert!(!event.is_valid(&broken), "with an odd {name}");
    }
}

/// Holds: the reasons that the dead letter's schema lists are those that there are.
#[test]
fn the_dead_letter_schema_lists_every_reason() {
    let schema = schema("dead-letter");
    let listed = schema["properties"]["reason"]["enum"].as_array().unwrap();
    let listed: BTreeSet<&str> = listed
        .iter()
        .map(|reason| reason.as_str().unwrap())
        .collect();
    let known: BTreeSet<&str> = rtm_engine::tally::DEAD_LETTER_REASONS
        .iter()
        .copied()
        .collect();
    assert_eq!(listed, known);
}

#![allow(clippy::unwrap_used)]

use super::*;

const HELP: &str = include_str!("../../../../../docs/simulator.md");

/// Holds: what is wrong is told by key, line and column, and with what is expected there.
#[test]
fn a_wrong_file_says_what_is_wrong_and_where() {
    let told = |text: &str| crate::chain(parse(text.as_bytes()).unwrap_err().as_ref());
    for (text, says) in [
        (
            r#"{"apps":5}"#,
            &[
                "apps: ",
                "invalid type: integer `5`, expected a sequence",
                "line 1 column 9",
            ][..],
        ),
        (
            r#"{"x":1}"#,
            &["unknown field `x`, expected one of `listen`", "`faults`"],
        ),
        (
            "{\"faults\":\n {\"cuts\": 0.5}}",
            &["faults", "unknown field `cuts`", "line 2"],
        ),
        (
            r#"{"apps":[{}, {"auth": {"basic": {"key": 1}}}]}"#,
            &[
                "apps[1].auth.basic.key",
                "invalid type: integer `1`, expected a string",
            ],
        ),
        (r#"{"seed": 1,}"#, &["trailing comma at line 1"]),
        ("", &["EOF"]),
    ] {
        for says in says {
            assert!(told(text).contains(says), "{says:?} in {:?}", told(text));
        }
    }
}

/// Holds: the documentation's example is what is read, and says every key there is.
#[test]
fn the_documented_file_is_sound_and_whole() {
    let (_, rest) = HELP.split_once("```json\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    let config = parse(example.as_bytes()).unwrap();
    assert_eq!(config.check(), Ok(()));
    assert!(config.apps.len() > 1);
    let keys = |value: &serde_json::Value| -> Vec<String> {
        value.as_object().unwrap().keys().cloned().collect()
    };
    let documented: serde_json::Value = serde_json::from_str(example).unwrap();
    let all = serde_json::to_value(SimConfig::default()).unwrap();
    assert_eq!(keys(&documented), keys(&all));
    for part in ["load", "faults"] {
        assert_eq!(keys(&documented[part]), keys(&all[part]), "{part}");
    }
}

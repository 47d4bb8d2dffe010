//! The sinks' sections of a user's configuration, with places of the bench's own in them.

use std::collections::BTreeMap;

use crate::config::SinkConfig;

/// What the bench sets itself, by the keys' names.
const OWN: &[&str] = &[
    "topic",
    "dead_letter_topic",
    "stream",
    "subject",
    "dead_letter_subject",
    "create",
    "path",
];

/// The `[sinks.…]` tables of `text`, as they stand, with `own` in place of what says where records go. `sinks` are those
/// that the text was read as.
///
/// # Errors
///
/// In words, when a sink has no table of its own.
pub(super) fn rewritten(
    text: &str,
    sinks: &BTreeMap<String, SinkConfig>,
    own: impl Fn(&str, &SinkConfig) -> Result<String, String>,
) -> Result<String, String> {
    let mut out = String::new();
    let mut found = Vec::new();
    // Whether lines are copied, and whether keys of a sink itself are looked at.
    let (mut copied, mut keys) = (false, false);
    for line in text.lines() {
        if let Some(header) = header(line) {
            let parts: Vec<&str> = header.split('.').map(unquoted).collect();
            let sink = parts.first() == Some(&"sinks");
            keys = sink && parts.len() == 2;
            copied = sink && parts.len() >= 2 && parts.get(2) != Some(&"create");
            if let (true, Some(name)) = (keys, parts.get(1)) {
                let sink = sinks
                    .get(*name)
                    .ok_or_else(|| format!("sinks.{name} is not read"))?;
                out.push_str(line);
                out.push('\n');
                out.push_str(&own(name, sink)?);
                found.push((*name).to_owned());
                continue;
            }
        } else if keys && key(line).is_some_and(|key| OWN.contains(&key)) {
            continue;
        }
        if copied {
            out.push_str(line);
            out.push('\n');
        }
    }
    match sinks.keys().find(|name| !found.contains(name)) {
        None => Ok(out),
        Some(name) => Err(format!(
            "sinks.{name}: the bench needs it as a table of its own, [sinks.{name}]"
        )),
    }
}

/// What stands in the brackets of a table's header.
fn header(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix('[')?;
    let (name, after) = rest.split_once(']')?;
    let comment = after.trim_start();
    // An array's line begins with a bracket too.
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.\" '".contains(c);
    ((comment.is_empty() || comment.starts_with('#')) && name.chars().all(plain))
        .then(|| name.trim())
}

/// The first part of the key of a line, if it begins with one.
fn key(line: &str) -> Option<&str> {
    let (key, _) = line.split_once('=')?;
    key.split('.').next().map(unquoted)
}

fn unquoted(text: &str) -> &str {
    text.trim().trim_matches(['"', '\''])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::config::Config;

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

[sinks.kafka.options]
"security.protocol" = "SASL_SSL"
path = "kept"

[sinks."nats"]
servers = ["nats://nats:4222"]
stream = "RTM"
create.max_age = "1h"
subject = "rtm.{app}"
"#;

    fn own(name: &str, _: &SinkConfig) -> Result<String, String> {
        Ok(match name {
            "kafka" => "topic = \"bench\"\n".to_owned(),
            _ => "stream = \"BENCH\"\n".to_owned(),
        })
    }

    /// Holds: credentials and options stay, and nothing stays of where the user's records go.
    #[test]
    fn only_the_places_change() {
        let config = Config::parse(TEXT).unwrap();
        let text = rewritten(TEXT, &config.sinks, own).unwrap();
        let (head, _) = TEXT.split_once("[sinks.kafka]").unwrap();
        let config = Config::parse(&format!("{head}{text}")).unwrap();
        assert!(!text.contains("[journal]") && !text.contains("rtm."));
        let Some(SinkConfig::Kafka(kafka)) = config.sinks.get("kafka") else {
            panic!("{text}");
        };
        assert_eq!(kafka.topic, "bench");
        assert!(!kafka.create && kafka.brokers == ["kafka:9092"]);
        assert_eq!(kafka.options.len(), 2);
        let Some(SinkConfig::Nats(nats)) = config.sinks.get("nats") else {
            panic!("{text}");
        };
        assert!(nats.create.is_none() && nats.stream == "BENCH");
    }

    #[test]
    fn a_sink_without_a_table_is_told() {
        let text = TEXT.replace(
            "[sinks.kafka]",
            "[sinks]\nfile = { path = \"/f\" }\n[sinks.kafka]",
        );
        let config = Config::parse(&text).unwrap();
        let error = rewritten(&text, &config.sinks, own).unwrap_err();
        assert!(error.contains("[sinks.file]"), "{error}");
    }
}

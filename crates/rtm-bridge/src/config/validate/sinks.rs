//! What types cannot say of sinks.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rtm_record::{ALL, STATIC, Template};
use rtm_sink_nats::{NatsAuth, Secret, covers, widen};

use super::{deadline, one_secret, readable};
use crate::config::{
    Config, CreateStream, FileConfig, KafkaConfig, NatsAuthConfig, NatsConfig, SinkConfig,
};

/// Every problem of the sinks, as key and message.
pub(super) fn problems(config: &Config, found: &mut Vec<(String, String)>) {
    let mut paths: HashMap<PathBuf, &str> = HashMap::new();
    for (name, sink) in &config.sinks {
        let mut add =
            |key: &str, message: String| found.push((format!("sinks.{name}.{key}"), message));
        match sink {
            SinkConfig::Kafka(kafka) => kafka_problems(kafka, &mut add),
            SinkConfig::Nats(nats) => nats_problems(nats, config, &mut add),
            SinkConfig::Stdout(_) => {}
            SinkConfig::File(file) => {
                file_problems(file, &mut add);
                // Two spellings of one file are one file.
                let path = file
                    .path
                    .canonicalize()
                    .unwrap_or_else(|_| file.path.clone());
                if let Some(other) = paths.insert(path, name) {
                    add(
                        "path",
                        format!("the sink `{other}` writes to this file too"),
                    );
                }
            }
        }
    }
}

/// Dead letters among the records: whoever reads those meets documents of another kind.
pub(super) fn warnings(config: &Config, found: &mut Vec<(String, String)>) {
    for (name, sink) in &config.sinks {
        let (of_records, records, key, dead) = match sink {
            SinkConfig::Kafka(kafka) => (
                "topic",
                &kafka.topic,
                "dead_letter_topic",
                &kafka.dead_letter_topic,
            ),
            SinkConfig::Nats(nats) => (
                "subject",
                &nats.subject,
                "dead_letter_subject",
                &nats.dead_letter_subject,
            ),
            SinkConfig::Stdout(_) | SinkConfig::File(_) => continue,
        };
        let records = places(records, config);
        let among = |dead: &String| records.iter().any(|records| covers(&widen(records), dead));
        if let Some(place) = places(dead, config).into_iter().find(among) {
            found.push((
                format!("sinks.{name}.{key}"),
                format!(
                    "dead letters go to `{place}`, which is among the places of events by `{of_records}`: a consumer of \
                     events meets both there"
                ),
            ));
        }
    }
}

/// Every topic or subject that a template can lead to, with `*` for what comes from an event.
fn places(template: &str, config: &Config) -> Vec<String> {
    Template::parse(template, ALL).map_or_else(
        |_| Vec::new(),
        |template| template.names(&config.names(), "*"),
    )
}

fn file_problems(file: &FileConfig, add: &mut dyn FnMut(&str, String)) {
    if file.path.is_dir() {
        add(
            "path",
            format!(
                "{} is a directory; expected a file to append to",
                file.path.display()
            ),
        );
        return;
    }
    let parent = file
        .path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    if file.path.file_name().is_none() {
        add("path", "expected a file to append to".to_owned());
    } else if let Some(parent) = parent.filter(|parent| !parent.is_dir()) {
        add(
            "path",
            format!("there is no directory {} to hold it", parent.display()),
        );
    }
}

fn kafka_problems(kafka: &KafkaConfig, add: &mut dyn FnMut(&str, String)) {
    if kafka.brokers.is_empty() {
        add(
            "brokers",
            "at least one broker is needed, such as \"kafka:9092\"".to_owned(),
        );
    }
    for (key, text) in [
        ("topic", &kafka.topic),
        ("dead_letter_topic", &kafka.dead_letter_topic),
    ] {
        match Template::parse(text, STATIC) {
            Err(error) => add(key, error),
            Ok(template) => {
                let name = template.with_all("x");
                let legal = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
                if !name.bytes().all(legal) || name.len() > 249 {
                    add(
                        key,
                        format!(
                            "`{}` is not a Kafka topic: letters, digits, `.`, `_` and `-`",
                            text.escape_debug()
                        ),
                    );
                }
            }
        }
    }
    for (option, file) in &kafka.option_files {
        readable(file, &format!("option_files.{option}"), add);
    }
    for (option, variable) in &kafka.option_env {
        if std::env::var_os(variable).is_none() {
            add(
                &format!("option_env.{option}"),
                format!("the environment variable `{variable}` is not set"),
            );
        }
    }
    if kafka.partitions.is_some_and(|partitions| partitions < 1) {
        add("partitions", "expected at least 1".to_owned());
    }
    if kafka.replication_factor.is_some_and(|factor| factor < 1) {
        add("replication_factor", "expected at least 1".to_owned());
    }
}

fn nats_problems(nats: &NatsConfig, config: &Config, add: &mut dyn FnMut(&str, String)) {
    if nats.servers.is_empty() {
        add(
            "servers",
            "at least one server is needed, such as \"nats://nats:4222\"".to_owned(),
        );
    }
    let illegal = |c: char| c.is_whitespace() || c.is_control() || ".*>/\\".contains(c);
    if nats.stream.is_empty() || nats.stream.contains(illegal) {
        add(
            "stream",
            format!(
                "`{}` is not the name of a JetStream stream",
                nats.stream.escape_debug()
            ),
        );
    }
    for (key, text, allowed) in [
        ("subject", &nats.subject, ALL),
        ("dead_letter_subject", &nats.dead_letter_subject, STATIC),
    ] {
        match Template::parse(text, allowed) {
            Err(error) => add(key, error),
            Ok(template) => {
                let subject = template.with_all("x");
                let legal = |token: &str| {
                    !token.is_empty()
                        && token
                            .bytes()
                            .all(|b| b.is_ascii_graphic() && b != b'*' && b != b'>')
                };
                if !subject.split('.').all(legal) {
                    add(
                        key,
                        format!(
                            "`{}` is not a subject: tokens without wildcards or spaces, separated by `.`",
                            text.escape_debug()
                        ),
                    );
                }
            }
        }
    }
    if !(1..=rtm_sink_nats::MAX_IN_FLIGHT).contains(&nats.in_flight) {
        add(
            "in_flight",
            format!("expected 1 to {}", rtm_sink_nats::MAX_IN_FLIGHT),
        );
    }
    for (index, server) in nats.servers.iter().enumerate() {
        if let Err(error) = rtm_sink_nats::check_server(server) {
            add(&format!("servers.{index}"), crate::chain(&error));
        }
    }
    deadline("ack_timeout", nats.ack_timeout, add);
    let mut file = |path: &Option<PathBuf>, key: &str| {
        if let Some(path) = path {
            readable(path, key, add);
        }
    };
    file(&nats.tls.ca_file, "tls.ca_file");
    file(&nats.tls.cert_file, "tls.cert_file");
    file(&nats.tls.key_file, "tls.key_file");
    if nats.tls.cert_file.is_some() != nats.tls.key_file.is_some() {
        add("tls", "`cert_file` and `key_file` go together".to_owned());
    }
    match &nats.auth {
        None => {}
        Some(NatsAuthConfig::CredentialsFile(path)) => {
            usable(
                &NatsAuth::CredentialsFile(path.clone()),
                path,
                "auth.credentials_file",
                add,
            );
        }
        Some(NatsAuthConfig::NkeyFile(path)) => {
            usable(
                &NatsAuth::NkeySeed(Secret::File(path.clone())),
                path,
                "auth.nkey_file",
                add,
            );
        }
        Some(NatsAuthConfig::TokenFile(path)) => readable(path, "auth.token_file", add),
        Some(NatsAuthConfig::Jwt(jwt)) => {
            readable(&jwt.jwt_file, "auth.jwt.jwt_file", add);
            let seed = NatsAuth::NkeySeed(Secret::File(jwt.seed_file.clone()));
            usable(&seed, &jwt.seed_file, "auth.jwt.seed_file", add);
        }
        Some(NatsAuthConfig::Password(password)) => one_secret(
            "password",
            &password.password,
            &password.password_file,
            &password.password_env,
            "auth.password",
            add,
        ),
    }
    if let Some(create) = &nats.create {
        create_problems(create, nats, config, add);
    }
}

/// A secret that a server's nonce can be signed with.
fn usable(auth: &NatsAuth, file: &Path, key: &str, add: &mut dyn FnMut(&str, String)) {
    if let Err(error) = auth.check() {
        // Where it is no seed, the error does not say of which file.
        add(key, format!("{}: {}", file.display(), crate::chain(&error)));
    }
}

fn create_problems(
    create: &CreateStream,
    nats: &NatsConfig,
    config: &Config,
    add: &mut dyn FnMut(&str, String),
) {
    for (index, filter) in create.subjects.iter().enumerate() {
        let tokens: Vec<&str> = filter.split('.').collect();
        let last = tokens.len() - 1;
        let legal = |(at, token): (usize, &&str)| {
            let plain = |b: u8| b.is_ascii_graphic() && b != b'*' && b != b'>';
            *token == "*"
                || (*token == ">" && at == last)
                || (!token.is_empty() && token.bytes().all(plain))
        };
        if !tokens.iter().enumerate().all(legal) {
            add(
                &format!("create.subjects.{index}"),
                format!(
                    "`{}` is no subject filter: tokens separated by `.`, of which `*` stands for one and a last `>` for all",
                    filter.escape_debug()
                ),
            );
        }
    }
    if !create.subjects.is_empty() {
        let stored =
            |subject: &&String| create.subjects.iter().any(|filter| covers(filter, subject));
        let subjects = crate::client::nats_subjects(nats, config);
        let lost: Vec<&str> = subjects
            .iter()
            .filter(|subject| !stored(subject))
            .map(String::as_str)
            .collect();
        if let [first, rest @ ..] = &lost[..] {
            let more = if rest.is_empty() {
                String::new()
            } else {
                format!(", and of {} more", rest.len())
            };
            add(
                "create.subjects",
                format!(
                    "`{}` would not store what is published to `{first}`{more}; expected filters that cover `subject` and \
                     `dead_letter_subject`",
                    create.subjects.join("`, `"),
                ),
            );
        }
    }
    if create.max_bytes == Some(0) {
        add(
            "create.max_bytes",
            "is nothing; leave it out for no bound".to_owned(),
        );
    }
    if !(1..=5).contains(&create.replicas) {
        add("create.replicas", "expected 1 to 5".to_owned());
    }
    let window = create.duplicate_window;
    if window.is_zero() {
        add(
            "create.duplicate_window",
            "is nothing; expected a time such as \"2m\"".to_owned(),
        );
    }
    match create.max_age {
        Some(age) if age.is_zero() => {
            add(
                "create.max_age",
                "is nothing; leave it out for no bound".to_owned(),
            );
        }
        Some(age) if age < window => add(
            "create.max_age",
            "is shorter than `duplicate_window` (2m by default), which a server refuses".to_owned(),
        ),
        _ => {}
    }
}

//! What types cannot say: names, templates, and keys that depend on each other.

use std::collections::HashSet;
use std::path::PathBuf;

use super::{
    ALL, AppConfig, AuthConfig, Config, InlineSecret, KafkaConfig, NatsAuthConfig, NatsConfig,
    STATIC, SinkConfig, Template,
};

/// How names look, in words.
pub(super) const NAME: &str = "1 to 64 letters, digits, `_` or `-`";

/// As [`NAME`], as a regular expression.
pub(super) const NAME_PATTERN: &str = "^[A-Za-z0-9_-]{1,64}$";

/// Room in the journal that one request may need: a page of 2 MiB and its tags.
const ROOM_PER_REQUEST: u64 = 3 << 20;

/// Whether `text` can be a label, a topic's part and a subject's token without escaping.
#[must_use]
pub fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// Every problem of a configuration that could be parsed, as key and message.
pub(super) fn problems(config: &Config) -> Vec<(String, String)> {
    let mut found = Vec::new();
    if config.apps.is_empty() {
        found.push((
            "apps".to_owned(),
            "at least one [[apps]] is needed".to_owned(),
        ));
    }
    if config.sinks.is_empty() {
        found.push((
            "sinks".to_owned(),
            "at least one sink is needed, such as [sinks.stdout]".to_owned(),
        ));
    }
    let mut names = HashSet::new();
    let mut ids = HashSet::new();
    for (index, app) in config.apps.iter().enumerate() {
        let mut add =
            |key: &str, message: String| found.push((format!("apps.{index}.{key}"), message));
        if !names.insert(&app.name) {
            add("name", format!("`{}` is the name of two apps", app.name));
        }
        if !ids.insert(&app.app_id) {
            add(
                "app_id",
                "two apps have this App ID; they would steal each other's events".to_owned(),
            );
        }
        app_problems(app, &mut add);
    }
    let rings: u64 = config
        .apps
        .iter()
        .map(|app| 2 * app.regions.len() as u64)
        .sum();
    let room = 4 * ROOM_PER_REQUEST * rings.max(1);
    if config.journal.max_bytes < room {
        found.push((
            "journal.max_bytes".to_owned(),
            format!(
                "{} is too small for the requests that may be in flight on {rings} rings: at least {} MiB",
                bytesize::ByteSize(config.journal.max_bytes),
                room >> 20
            ),
        ));
    }
    if let Some(level) = &config.log.level
        && let Err(error) = tracing_subscriber::EnvFilter::try_new(level)
    {
        found.push((
            "log.level".to_owned(),
            format!(
                "`{}` is neither a level nor directives: {error}",
                level.escape_debug()
            ),
        ));
    }
    let mut paths = HashSet::new();
    for (name, sink) in &config.sinks {
        if let SinkConfig::File(file) = sink
            && !paths.insert(&file.path)
        {
            found.push((
                format!("sinks.{name}.path"),
                "two sinks write to this file".to_owned(),
            ));
        }
        let mut add =
            |key: &str, message: String| found.push((format!("sinks.{name}.{key}"), message));
        match sink {
            SinkConfig::Kafka(kafka) => kafka_problems(kafka, &mut add),
            SinkConfig::Nats(nats) => nats_problems(nats, &mut add),
            SinkConfig::Stdout(_) | SinkConfig::File(_) => {}
        }
    }
    found
}

fn app_problems(app: &AppConfig, add: &mut dyn FnMut(&str, String)) {
    if !is_name(&app.name) {
        add(
            "name",
            format!("`{}` is not a name: {NAME}", app.name.escape_debug()),
        );
    }
    if !is_name(&app.app_id) {
        add(
            "app_id",
            "is not an App ID: 32 hexadecimal digits, from Agora's console".to_owned(),
        );
    }
    if !(1..=1000).contains(&app.requests_per_second) {
        add(
            "requests_per_second",
            "expected 1 to 1000; Agora allows 10 for an App ID".to_owned(),
        );
    }
    if app.copies_window.is_zero() {
        add(
            "copies_window",
            "a window of nothing finds no copies; \"60s\" is usual".to_owned(),
        );
    }
    if app.request_deadline.is_zero() || app.connect_timeout.is_zero() {
        add(
            "request_deadline",
            "a deadline of nothing lets no request succeed".to_owned(),
        );
    }
    for (key, path) in [
        ("user_events_path", &app.user_events_path),
        ("channel_events_path", &app.channel_events_path),
    ] {
        if path.is_empty() || path.contains(['?', '#', ' ']) {
            add(
                key,
                format!(
                    "`{}` is not a path such as `rtm/vendor/user_events`",
                    path.escape_debug()
                ),
            );
        }
    }
    if app.regions.is_empty() {
        add(
            "regions",
            "at least one region is needed, such as \"eu-west-1\"".to_owned(),
        );
    }
    let mut names = HashSet::new();
    for (index, region) in app.regions.iter().enumerate() {
        if !is_name(&region.name) {
            add(
                &format!("regions.{index}.name"),
                format!("`{}` is not a name: {NAME}", region.name.escape_debug()),
            );
        } else if !names.insert(&region.name) {
            add(
                &format!("regions.{index}"),
                format!("`{}` stands twice", region.name),
            );
        } else if let Err(error) = crate::assemble::region(region) {
            add(&format!("regions.{index}"), crate::chain(&error));
        }
    }
    match &app.auth {
        AuthConfig::Basic(basic) => {
            one_secret(
                "secret",
                &basic.secret,
                &basic.secret_file,
                &basic.secret_env,
                "auth.basic",
                add,
            );
        }
        AuthConfig::Token(token) => {
            one_secret(
                "token",
                &token.token,
                &token.token_file,
                &token.token_env,
                "auth.token",
                add,
            );
        }
        AuthConfig::AgoraToken(token) => {
            one_secret(
                "token",
                &token.token,
                &token.token_file,
                &token.token_env,
                "auth.agora_token",
                add,
            );
        }
    }
    if let Some(file) = &app.ca_file {
        readable(file, "ca_file", add);
    }
}

/// Exactly one source, and it can be read now.
fn one_secret(
    name: &str,
    inline: &Option<InlineSecret>,
    file: &Option<PathBuf>,
    variable: &Option<String>,
    key: &str,
    add: &mut dyn FnMut(&str, String),
) {
    let given = usize::from(inline.is_some())
        + usize::from(file.is_some())
        + usize::from(variable.is_some());
    if given != 1 {
        add(
            key,
            format!(
                "exactly one of `{name}_file`, `{name}_env` and `{name}` is needed, found {given}"
            ),
        );
    }
    if let Some(file) = file {
        readable(file, &format!("{key}.{name}_file"), add);
    }
    if let Some(variable) = variable
        && std::env::var_os(variable).is_none_or(|value| value.is_empty())
    {
        add(
            &format!("{key}.{name}_env"),
            format!("the environment variable `{variable}` is not set"),
        );
    }
}

fn readable(file: &std::path::Path, key: &str, add: &mut dyn FnMut(&str, String)) {
    match std::fs::read(file) {
        Err(error) => add(key, format!("cannot read {}: {error}", file.display())),
        Ok(content) if content.trim_ascii().is_empty() => {
            add(key, format!("{} is empty", file.display()));
        }
        Ok(_) => {}
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

fn nats_problems(nats: &NatsConfig, add: &mut dyn FnMut(&str, String)) {
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
    if nats.ack_timeout.is_zero() {
        add("ack_timeout", "expected more than nothing".to_owned());
    }
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
        Some(NatsAuthConfig::CredentialsFile(path)) => readable(path, "auth.credentials_file", add),
        Some(NatsAuthConfig::NkeyFile(path)) => readable(path, "auth.nkey_file", add),
        Some(NatsAuthConfig::TokenFile(path)) => readable(path, "auth.token_file", add),
        Some(NatsAuthConfig::Jwt(jwt)) => {
            readable(&jwt.jwt_file, "auth.jwt.jwt_file", add);
            readable(&jwt.seed_file, "auth.jwt.seed_file", add);
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
}

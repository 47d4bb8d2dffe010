//! What types cannot say: names, templates, and keys that depend on each other.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use super::{AppConfig, AuthConfig, Config};
use crate::fields::problem::{A_DAY, Add, NAME, deadline, is_name, readable, up_to_a_day};
use crate::fields::secret::one_secret;
use crate::sinks;

mod place;

pub(crate) use place::free_bytes;

/// Agora's limit for an App ID.
const AGORA_REQUESTS_PER_SECOND: u32 = 10;

/// Room in the journal that one request may need: a page of 2 MiB and its tags.
const ROOM_PER_REQUEST: u64 = 3 << 20;

/// What `journal.max_entries` may be: from a quarter of an hour of one busy App ID to 40 GB of memory.
const ENTRIES: RangeInclusive<u64> = 10_000..=1_000_000_000;

/// As Agora's console shows them. Its documents do not say so: what looks otherwise is warned of, and polled.
fn is_app_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit())
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
    let max_entries = config.journal.max_entries;
    if !ENTRIES.contains(&max_entries) {
        found.push((
            "journal.max_entries".to_owned(),
            format!(
                "{max_entries} cannot be; expected {} to {}, each with 40 bytes of memory",
                ENTRIES.start(),
                ENTRIES.end()
            ),
        ));
    }
    if let Some(level) = &config.log.level
        && let Err(message) = super::directives(level)
    {
        found.push(("log.level".to_owned(), message));
    }
    found.extend(place::problems(&config.journal));
    if config.shutdown_deadline > A_DAY {
        found.push(("shutdown_deadline".to_owned(), up_to_a_day()));
    }
    sinks::problems(&config.sinks, &config.names(), &mut found);
    found
}

impl Config {
    /// What is accepted and may still be a mistake, as key and message. With several files the key names its own.
    #[must_use]
    pub fn warnings(&self) -> Vec<(String, String)> {
        let found = warnings(self).into_iter();
        found
            .map(|(key, message)| (self.origin.key(&key), message))
            .collect()
    }
}

/// What is accepted and may still be a mistake, as key and message.
fn warnings(config: &Config) -> Vec<(String, String)> {
    let mut found = place::warnings(&config.journal);
    for (index, app) in config.apps.iter().enumerate() {
        if !is_app_id(&app.app_id) {
            found.push((
                format!("apps.{index}.app_id"),
                format!(
                    "`{}` is not 32 hexadecimal digits, as Agora's console shows App IDs; Agora would answer 400",
                    app.app_id
                ),
            ));
        }
        if app.requests_per_second > AGORA_REQUESTS_PER_SECOND {
            found.push((
                format!("apps.{index}.requests_per_second"),
                format!(
                    "{} is more than the {AGORA_REQUESTS_PER_SECOND} that Agora allows for an App ID, unless it has \
                     raised them for yours; what is over is answered with 429",
                    app.requests_per_second
                ),
            ));
        }
        for (number, region) in app.regions.iter().enumerate() {
            if region.region().is_ok_and(|region| region.is_insecure()) {
                found.push((
                    format!("apps.{index}.regions.{number}"),
                    "credentials and events cross the network in the clear".to_owned(),
                ));
            }
        }
    }
    sinks::warnings(&config.sinks, &config.names(), &mut found);
    if !config.admin.listen.ip().is_loopback() {
        found.push((
            "admin.listen".to_owned(),
            "is not loopback, and the endpoint asks nobody who they are: shield it".to_owned(),
        ));
    }
    found
}

fn app_problems(app: &AppConfig, add: Add<'_>) {
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
    for (key, value) in [
        ("copies_window", app.copies_window),
        ("request_deadline", app.request_deadline),
        ("connect_timeout", app.connect_timeout),
    ] {
        deadline(key, value, add);
    }
    let bare = |path: &str| path.trim_matches('/').to_owned();
    if bare(&app.user_events_path) == bare(&app.channel_events_path) {
        add(
            "channel_events_path",
            "is the path of the user events too: each poll would delete the other stream's events"
                .to_owned(),
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
    let mut hosts: Vec<(String, &str)> = Vec::new();
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
        } else {
            match region.region() {
                Err(error) => add(&format!("regions.{index}"), crate::chain(&error)),
                Ok(polled) => {
                    let url = polled.base_url().as_str().trim_end_matches('/').to_owned();
                    match hosts.iter().find(|(other, _)| *other == url) {
                        Some((_, other)) => add(
                            &format!("regions.{index}"),
                            format!(
                                "`{}` and `{other}` have the same base URL, and each would delete the other's events",
                                region.name
                            ),
                        ),
                        None => hosts.push((url, &region.name)),
                    }
                }
            }
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

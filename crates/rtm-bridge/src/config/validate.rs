//! What types cannot say: names, templates, and keys that depend on each other.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use rtm_engine::page::ROOM_FOR_A_PAGE;
use rtm_source::Url;

use tracing::{error, warn};

use super::{AdminConfig, AppConfig, Config};
use crate::fields::problem::{NAME, Problems, is_name};
use crate::fields::secret;
use crate::sinks;

mod place;

pub(crate) use place::free_bytes;

/// Agora's limit for an App ID.
const AGORA_REQUESTS_PER_SECOND: u32 = 10;

/// The least room of one ring in the journal: four pages, and some to spare.
const ROOM_PER_RING: u64 = 12 << 20;

const _: () = assert!(ROOM_PER_RING >= 4 * ROOM_FOR_A_PAGE as u64);

/// How long the start and a reload wait for a look at the files that may be warned of.
const MOMENT: Duration = Duration::from_secs(1);

/// What `journal.max_entries` may be: from a quarter of an hour of one busy App ID to 40 GB of memory.
const ENTRIES: RangeInclusive<u64> = 10_000..=1_000_000_000;

/// As Agora's console shows them. Its documents do not say so: what looks otherwise is warned of, and polled.
fn is_app_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Keys, and a message for each.
type Messages = Vec<(String, String)>;

/// Every problem of a configuration that could be parsed, and what it names that is not there and may come.
pub(super) fn problems(config: &Config) -> (Messages, Messages) {
    let (mut found, mut absent) = (Vec::new(), Vec::new());
    let mut problems = Problems::new(&mut found).and_absent(&mut absent);
    if config.apps.is_empty() {
        problems.add("apps", "at least one [[apps]] is needed");
    }
    if config.sinks.is_empty() {
        problems.add(
            "sinks",
            "at least one sink is needed, such as [sinks.stdout]",
        );
    }
    let mut names = HashSet::new();
    let mut ids = HashSet::new();
    for (index, app) in config.apps.iter().enumerate() {
        let mut problems = problems.of(format_args!("apps.{index}"));
        if !names.insert(&app.name) {
            problems.add("name", format!("`{}` is the name of two apps", app.name));
        }
        if !ids.insert(&app.app_id) {
            problems.add(
                "app_id",
                "two apps have this App ID; they would steal each other's events",
            );
        }
        app_problems(app, &mut problems);
    }
    let rings = config.apps.iter().map(|app| 2 * app.regions.len() as u64);
    let rings: u64 = rings.sum();
    let room = ROOM_PER_RING * rings.max(1);
    let (max_bytes, max_entries) = (config.journal.max_bytes, config.journal.max_entries);
    if max_bytes < room {
        problems.add(
            "journal.max_bytes",
            format!(
                "{} is too small for the requests that may be in flight on {rings} rings: at least {} MiB",
                bytesize::ByteSize(max_bytes),
                room >> 20
            ),
        );
    }
    if !ENTRIES.contains(&max_entries) {
        problems.add(
            "journal.max_entries",
            format!(
                "{max_entries} cannot be; expected {} to {}, each with 40 bytes of memory",
                ENTRIES.start(),
                ENTRIES.end()
            ),
        );
    }
    if let Some(level) = &config.log.level
        && let Err(message) = super::directives(level)
    {
        problems.add("log.level", message);
    }
    if let Err(message) = place::can_hold_a_journal(&config.journal.dir) {
        problems.add("journal.dir", message);
    }
    problems.up_to_a_day("shutdown_deadline", config.shutdown_deadline);
    sinks::problems(&config.sinks, &config.names(), &mut problems.of("sinks"));
    (found, absent)
}

impl Config {
    /// What is accepted and may still be a mistake, as key and message. With several files the key names its own. What `before`
    /// has as well is left out, wherever its apps stand in their list.
    pub fn warnings(&self, before: Option<&Config>) -> Messages {
        let told = before.map_or_else(Vec::new, |before| {
            let told = before.all_warnings().into_iter();
            told.map(|(key, message)| (by_name(&key, &before.apps), message))
                .collect()
        });
        let mut found = self.all_warnings();
        found.retain(|(key, message)| !told.contains(&(by_name(key, &self.apps), message.clone())));
        for (key, _) in &mut found {
            *key = self.origin.key(key);
        }
        found
    }

    fn all_warnings(&self) -> Messages {
        let mut found = Vec::new();
        warnings(self, &mut Problems::new(&mut found));
        self.warn_of_files(&mut found);
        found
    }

    /// Logs what may be a mistake and was none `before`, and what is not there yet. A thread of its own looks at the files for
    /// it, and is waited for so long that its lines come first: a share that hangs must not stop the loops of this thread.
    pub(crate) async fn log_warnings(&self, before: Option<&Config>) {
        let (new, before) = (self.clone(), before.cloned());
        let logged = tokio::task::spawn_blocking(move || new.log_warnings_now(before.as_ref()));
        let _ = tokio::time::timeout(MOMENT, logged).await;
    }

    fn log_warnings_now(&self, before: Option<&Config>) {
        for (key, warning) in self.warnings(before) {
            warn!(key, "{warning}");
        }
        for absent in &self.absent {
            let key = &absent.key;
            error!(
                key,
                "{}; it is tried again until it is there, and everything else goes on",
                absent.message
            );
        }
    }

    /// Of secrets that stand in files which everyone may read. What a variable sets stands in none.
    fn warn_of_files(&self, found: &mut Messages) {
        let is_inline = |(_, message): &&(String, String)| message == secret::INLINE;
        let inline: Vec<String> = found
            .iter()
            .filter(is_inline)
            .map(|(key, _)| key.clone())
            .collect();
        for key in inline {
            let (origin, _) = self.origin.of(&key);
            if self.origin.is_variable(&key) {
                found.retain(|(other, message)| *other != key || message != secret::INLINE);
            } else if secret::is_open_to_all(Path::new(&origin)) {
                found.push((key, secret::open_to_all(Path::new(&origin))));
            }
        }
    }
}

/// A key with an app's name in the place of its index.
fn by_name(key: &str, apps: &[AppConfig]) -> String {
    let index = key
        .strip_prefix("apps.")
        .map(|rest| rest.split('.').next().unwrap_or(rest));
    let app = index.and_then(|index| Some((index, apps.get(index.parse::<usize>().ok()?)?)));
    match app {
        Some((index, app)) => key.replacen(index, &app.name, 1),
        None => key.to_owned(),
    }
}

fn warnings(config: &Config, warnings: &mut Problems<'_>) {
    place::warnings(&config.journal, &mut warnings.of("journal"));
    for (index, app) in config.apps.iter().enumerate() {
        let mut warnings = warnings.of(format_args!("apps.{index}"));
        if !is_app_id(&app.app_id) {
            warnings.add(
                "app_id",
                format!(
                    "`{}` is not 32 hexadecimal digits, as Agora's console shows App IDs; Agora would answer 400",
                    app.app_id
                ),
            );
        }
        if app.requests_per_second > AGORA_REQUESTS_PER_SECOND {
            warnings.add(
                "requests_per_second",
                format!(
                    "{} is more than the {AGORA_REQUESTS_PER_SECOND} that Agora allows for an App ID, unless it has \
                     raised them for yours; what is over is answered with 429",
                    app.requests_per_second
                ),
            );
        }
        let (kind, keys) = app.auth.secret();
        keys.warnings(&format!("auth.{kind}"), &mut warnings);
        let proxy = app
            .proxy
            .as_deref()
            .and_then(|proxy| Url::parse(proxy).ok());
        if proxy.is_some_and(|proxy| proxy.password().is_some()) {
            secret::of_inline("proxy", &mut warnings);
        }
        for (number, region) in app.regions.iter().enumerate() {
            if region.region().is_ok_and(|region| region.is_insecure()) {
                warnings.add(
                    format_args!("regions.{number}"),
                    "credentials and events cross the network in the clear",
                );
            }
        }
    }
    for variable in ["SSL_CERT_FILE", "SSL_CERT_DIR"] {
        if let Some(named) = std::env::var_os(variable).filter(|named| !Path::new(named).exists()) {
            let named = Path::new(&named).display();
            warnings.add(
                format_args!("the environment variable {variable}"),
                format!(
                    "names {named}, which is not there: its certificate authorities are not trusted"
                ),
            );
        }
    }
    sinks::warnings(&config.sinks, &config.names(), warnings);
    admin_warnings(&config.admin, &mut warnings.of("admin"));
}

/// A file that is missing may come later, as a mount does: polling does not wait for it.
fn admin_warnings(admin: &AdminConfig, warnings: &mut Problems<'_>) {
    if !admin.listen.is_loopback() && admin.token_file.is_none() {
        warnings.add(
            "listen",
            "is not loopback, and the endpoint asks nobody who they are: shield it, or set admin.token_file",
        );
    }
    let later = "; without it there is no admin endpoint";
    if let Some(file) = &admin.token_file {
        warnings.readable("token_file", file, later);
        secret::of_file("token_file", file, warnings);
    }
    if let Some(tls) = &admin.tls {
        warnings.readable("tls.cert_file", &tls.cert_file, later);
        warnings.readable("tls.key_file", &tls.key_file, later);
        secret::of_file("tls.key_file", &tls.key_file, warnings);
    }
}

fn app_problems(app: &AppConfig, problems: &mut Problems<'_>) {
    let no_name = |name: &str| format!("`{}` is not a name: {NAME}", name.escape_debug());
    if !is_name(&app.name) {
        problems.add("name", no_name(&app.name));
    }
    if !is_name(&app.app_id) {
        problems.add(
            "app_id",
            "is not an App ID: 32 hexadecimal digits, from Agora's console",
        );
    }
    if !(1..=1000).contains(&app.requests_per_second) {
        problems.add(
            "requests_per_second",
            "expected 1 to 1000; Agora allows 10 for an App ID",
        );
    }
    problems.deadline("copies_window", app.copies_window);
    problems.deadline("request_deadline", app.request_deadline);
    problems.deadline("connect_timeout", app.connect_timeout);
    if app.user_events_path.trim_matches('/') == app.channel_events_path.trim_matches('/') {
        problems.add(
            "channel_events_path",
            "is the path of the user events too: each poll would delete the other stream's events",
        );
    }
    for (key, path) in [
        ("user_events_path", &app.user_events_path),
        ("channel_events_path", &app.channel_events_path),
    ] {
        if path.is_empty() || path.contains(['?', '#', ' ']) {
            let path = path.escape_debug();
            problems.add(
                key,
                format!("`{path}` is not a path such as `rtm/vendor/user_events`"),
            );
        }
    }
    if app.regions.is_empty() {
        problems.add(
            "regions",
            "at least one region is needed, such as \"eu-west-1\"",
        );
    }
    let mut names = HashSet::new();
    let mut hosts: HashMap<String, &str> = HashMap::new();
    for (index, region) in app.regions.iter().enumerate() {
        let (key, name) = (format!("regions.{index}"), region.name.as_str());
        if !is_name(name) {
            problems.add(format_args!("{key}.name"), no_name(name));
            continue;
        }
        if !names.insert(name) {
            problems.add(key, format!("`{name}` stands twice"));
            continue;
        }
        match region.region() {
            Err(error) => problems.add(key, crate::chain(&error)),
            Ok(polled) => {
                let url = polled.base_url().as_str().trim_end_matches('/');
                if let Some(other) = hosts.insert(url.to_owned(), name) {
                    problems.add(
                        key,
                        format!(
                            "`{name}` and `{other}` have the same base URL, and each would delete the other's events"
                        ),
                    );
                }
            }
        }
    }
    let (kind, keys) = app.auth.secret();
    keys.problems(&format!("auth.{kind}"), problems);
    if let Some(file) = &app.ca_file {
        problems.readable("ca_file", file, "");
    }
}

//! NATS JetStream.

use std::any::Any;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rtm_record::{ALL, KeyBy, Template};
use rtm_sink::{AnySink, ExactLimits};
use rtm_sink_nats::{
    EXACT_LIMITS, MAX_IN_FLIGHT, NatsAuth, NatsOptions, NatsSink, NatsTls, covers,
    filter_of_progress, widen,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::kind::{Bench, Delivery, Each, Found, Kind, Purpose, Templates, changed};
use crate::fields::problem::Problems;
use crate::fields::secret;
use crate::fields::shown::{host, is_set, list, word};
use crate::fields::units;

mod auth;
mod create;
mod look;
mod read_back;

use auth::NatsAuthConfig;
use create::{CreateStream, is_token};
use read_back::delete;
pub use read_back::read_back;

/// A sink of type `nats`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NatsConfig {
    /// Server URLs: `nats://`, `tls://`, or `host:port`.
    #[schemars(length(min = 1))]
    pub(crate) servers: Vec<String>,
    /// The JetStream stream that stores the subjects.
    pub(crate) stream: String,
    /// Whether each record demands the stream (`Nats-Expected-Stream`), so that a subject that is bound to another stream is
    /// refused there. Default true. With false a server before 2.11.5 can mirror the stream.
    #[serde(default = "yes")]
    pub(crate) expect_stream: bool,
    /// The JetStream domain of the stream, where it is not the servers' own: behind a leaf node. Default: the servers' own.
    pub(crate) domain: Option<String>,
    /// The prefix of JetStream's API, where the account imports it under another name than `$JS.API`. Not with `domain`.
    pub(crate) api_prefix: Option<String>,
    /// The prefix of the subjects that answers come to, for a user who may not subscribe to `_INBOX.>`. Default `_INBOX`.
    #[serde(default = "inbox")]
    pub(crate) inbox_prefix: String,
    /// Subject template; variables `{app} {app_id} {region} {stream} {type} {user_id} {channel_id}`, escaped.
    /// Default `rtm.{app}.{region}.{stream}_events`.
    #[serde(default = "nats_subject")]
    pub(crate) subject: String,
    /// Subject template of dead letters; variables `{app} {app_id} {region} {stream}`. Default `rtm.{app}.dead_letters`.
    #[serde(default = "nats_dead_letters")]
    pub(crate) dead_letter_subject: String,
    /// Whether the tags also go into headers. Default false; `Nats-Msg-Id` always does.
    #[serde(default)]
    pub(crate) headers: bool,
    /// Credentials. Default: none.
    pub(crate) auth: Option<NatsAuthConfig>,
    /// TLS. Default: as the URL's scheme says.
    #[serde(default)]
    pub(crate) tls: TlsConfig,
    /// How long an acknowledgement may take before the record is published again. Default `5s`.
    #[serde(default = "units::seconds::<5>", with = "units::duration")]
    #[schemars(schema_with = "units::duration::schema")]
    pub(crate) ack_timeout: Duration,
    /// Records in flight at most, 1 to 8000. Default 4000.
    #[serde(
        default = "units::constant::<4000, usize>",
        deserialize_with = "units::number"
    )]
    #[schemars(range(min = 1, max = MAX_IN_FLIGHT))]
    pub(crate) in_flight: usize,
    /// Whether each page is published as one atomic batch: for one acknowledgement, less CPU, and in order per key
    /// whatever fails. `auto` (default): where the server (2.12 and later) and the stream take them, which `check
    /// --connect` and the log tell. `off`: never. An existing stream takes them once its `allow_atomic` is set: `nats
    /// stream edit NAME --allow-batch`, or a `STREAM.UPDATE` of the JetStream API; the bridge sees it within seconds.
    /// With `create`, the stream is made so.
    #[serde(default)]
    pub(crate) atomic_batches: AtomicBatches,
    /// How often a record may be stored. `at_least_once` (default): a crash, or an answer that is lost for longer than the
    /// stream remembers ids, may store records twice. `exactly_once`: each once, dead letters too, through crashes of the
    /// bridge and of the server. It needs a server of version 2.12.1 or later and a stream with `allow_atomic`, with
    /// retention `limits`, and with `progress_subject` among its subjects, and the right to ask it for its last message. With
    /// `create`, the stream is made so.
    #[serde(default)]
    pub(crate) delivery: Delivery,
    /// With `exactly_once`, the subject of the messages that say how far each App ID is published, which consumers of events
    /// leave out. `{journal}`, `{sink}` and `{app_id}` are to be in it, each as a token. Default
    /// `rtm.progress.{journal}.{sink}.{app_id}`.
    #[serde(default = "progress_subject")]
    pub(crate) progress_subject: String,
    /// With `exactly_once`, whether records have a `Nats-Msg-Id` all the same, for consumers that go by it. Default false: it
    /// costs the server memory, and CPU. With `at_least_once` they always have one.
    #[serde(default)]
    pub(crate) message_ids: bool,
    /// For how long what the stream has acknowledged is held in the journal, so that it is published again when a power
    /// failure of the server takes it back. Default `150s`: a server syncs its files every two minutes, unless its
    /// `sync_interval` says otherwise. `0s` turns it off. What is held takes no room that polling needs.
    #[serde(default = "units::seconds::<150>", with = "units::duration")]
    #[schemars(schema_with = "units::duration::schema")]
    pub(crate) hold: Duration,
    /// Creates the stream at start when it is missing. Default: it must exist.
    pub(crate) create: Option<CreateStream>,
}

fn progress_subject() -> String {
    "rtm.progress.{journal}.{sink}.{app_id}".to_owned()
}

/// `atomic_batches` of a NATS sink.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AtomicBatches {
    /// Where the server and the stream take them.
    #[default]
    Auto,
    /// Never.
    Off,
}

fn inbox() -> String {
    "_INBOX".to_owned()
}

fn yes() -> bool {
    true
}

fn nats_subject() -> String {
    "rtm.{app}.{region}.{stream}_events".to_owned()
}

fn nats_dead_letters() -> String {
    "rtm.{app}.dead_letters".to_owned()
}

/// `tls` of a NATS sink.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TlsConfig {
    /// Refuse a server without TLS. Default false; `tls://` in a URL says the same.
    pub(crate) required: bool,
    /// Begin with TLS, for a server with `handshake_first`; other servers do not understand it. Default false.
    pub(crate) first: bool,
    /// A PEM file with further certificate authorities.
    pub(crate) ca_file: Option<PathBuf>,
    /// The client's certificate chain, PEM.
    pub(crate) cert_file: Option<PathBuf>,
    /// The client's key, PEM.
    pub(crate) key_file: Option<PathBuf>,
}

#[async_trait]
impl Kind for NatsConfig {
    fn problems(&self, places: &[String], problems: &mut Problems<'_>) {
        if self.servers.is_empty() {
            problems.add(
                "servers",
                "at least one server is needed, such as \"nats://nats:4222\"",
            );
        }
        let illegal = |c: char| c.is_whitespace() || c.is_control() || ".*>/\\".contains(c);
        if self.stream.is_empty() || self.stream.contains(illegal) {
            let stream = self.stream.escape_debug();
            problems.add(
                "stream",
                format!("`{stream}` is not the name of a JetStream stream"),
            );
        }
        let is_subject = |text: &str| text.split('.').all(is_token);
        if self
            .domain
            .as_deref()
            .is_some_and(|domain| !is_token(domain) || domain.contains('.'))
        {
            problems.add(
                "domain",
                "is not the name of a JetStream domain: one token of a subject",
            );
        }
        for (key, prefix) in [
            ("api_prefix", self.api_prefix.as_ref()),
            ("inbox_prefix", Some(&self.inbox_prefix)),
        ] {
            if prefix.is_some_and(|prefix| !is_subject(prefix)) {
                problems.add(
                    key,
                    "is not the beginning of a subject: tokens without wildcards, separated by `.`",
                );
            }
        }
        if self.domain.is_some() && self.api_prefix.is_some() {
            problems.add(
                "api_prefix",
                "and `domain` exclude each other: a domain has its own prefix",
            );
        }
        self.templates().problems(
            is_subject,
            "a subject: tokens without wildcards or spaces, separated by `.`",
            problems,
        );
        if !(1..=MAX_IN_FLIGHT).contains(&self.in_flight) {
            problems.add("in_flight", format!("expected 1 to {MAX_IN_FLIGHT}"));
        }
        for (index, server) in self.servers.iter().enumerate() {
            if let Err(error) = rtm_sink_nats::check_server(server) {
                problems.add(format_args!("servers.{index}"), crate::chain(&error));
            }
        }
        let is_once = |part: &&str| {
            let tokens = self.progress_subject.split('.');
            tokens.filter(|token| token == part).count() == 1
        };
        let parts = ["{journal}", "{sink}", "{app_id}"];
        if !parts.iter().all(is_once) || !is_subject(&self.progress_subject) {
            problems.add(
                "progress_subject",
                "is not a subject with the tokens `{journal}`, `{sink}` and `{app_id}`, such as \
                 \"rtm.progress.{journal}.{sink}.{app_id}\"",
            );
        }
        if self.delivery == Delivery::ExactlyOnce && self.atomic_batches == AtomicBatches::Off {
            problems.add(
                "delivery",
                "`exactly_once` is done with atomic batches: leave `atomic_batches` out, or say \"auto\"",
            );
        }
        problems.deadline("ack_timeout", self.ack_timeout);
        problems.up_to_a_day("hold", self.hold);
        for (key, file) in [
            ("tls.ca_file", &self.tls.ca_file),
            ("tls.cert_file", &self.tls.cert_file),
            ("tls.key_file", &self.tls.key_file),
        ] {
            if let Some(file) = file {
                problems.readable(key, file, "");
            }
        }
        if self.tls.cert_file.is_some() != self.tls.key_file.is_some() {
            problems.add("tls", "`cert_file` and `key_file` go together");
        }
        if let Some(auth) = &self.auth {
            auth.problems(&mut problems.of("auth"));
        }
        if let Some(create) = &self.create {
            create.problems(places, &mut problems.of("create"));
        }
    }

    fn secrets(&self, warnings: &mut Problems<'_>) {
        if let Some(auth) = &self.auth {
            auth.secrets(&mut warnings.of("auth"));
        }
        if let Some(file) = &self.tls.key_file {
            secret::of_file("tls.key_file", file, warnings);
        }
    }

    fn title(&self) -> Option<&'static str> {
        Some("NATS")
    }

    fn templates(&self) -> Templates<'_> {
        Templates {
            records: ("subject", &self.subject),
            dead_letters: ("dead_letter_subject", &self.dead_letter_subject),
            allowed: ALL,
            key: KeyBy::Auto,
            headers: self.headers,
        }
    }

    fn shown(&self) -> Vec<(&'static str, String)> {
        let auth = self.auth.as_ref().map_or("none", NatsAuthConfig::kind);
        vec![
            ("servers", list(self.servers.iter().map(|url| host(url)))),
            ("stream", self.stream.clone()),
            (
                "domain",
                self.domain
                    .clone()
                    .unwrap_or_else(|| "the servers' own".to_owned()),
            ),
            ("subject", self.subject.clone()),
            ("dead_letter_subject", self.dead_letter_subject.clone()),
            ("auth", auth.to_owned()),
            ("headers", self.headers.to_string()),
            ("ack_timeout", format!("{:?}", self.ack_timeout)),
            ("in_flight", self.in_flight.to_string()),
            ("atomic_batches", word(self.atomic_batches)),
            ("delivery", word(self.delivery)),
            ("hold", format!("{:?}", self.hold)),
            ("create", is_set(self.create.is_some())),
        ]
    }

    fn needs_new_client(&self, new: &dyn Kind) -> Vec<&'static str> {
        let mut keys = changed!(
            self to new of NatsConfig,
            renewed: subject dead_letter_subject headers,
            fixed: servers stream expect_stream domain api_prefix inbox_prefix auth tls ack_timeout in_flight atomic_batches delivery progress_subject message_ids hold create
        );
        // The client makes the JetStream stream when it connects, and these are its subjects.
        let derived = |create: &CreateStream| create.subjects.is_empty();
        if self.create.as_ref().is_some_and(derived)
            && let Some(new) = (new as &dyn Any).downcast_ref::<NatsConfig>()
            && self.covering() != new.covering()
        {
            keys.push("subject, from which `create` takes its subjects");
        }
        keys
    }

    /// Beside a bridge the ids are not those that the server knows already, nor those of another replay.
    async fn open(&self, _: &str, _: &[String], purpose: Purpose) -> anyhow::Result<AnySink> {
        let mut options = self.options();
        if purpose != Purpose::Bridge {
            "rtm-bridge replay".clone_into(&mut options.name);
            // A stream that is missing holds nothing that could be replayed beside it.
            options.create_stream = None;
            options.looks_back = false;
            if purpose == Purpose::Replay || self.delivery == Delivery::AtLeastOnce {
                options.id_suffix = format!(".replay-{:08x}", fastrand::u32(..));
            }
        }
        if purpose == Purpose::Replay {
            // What is published again is to be stored again.
            options.progress_subject = None;
        }
        Ok(AnySink::new(Arc::new(NatsSink::connect(options).await?)))
    }

    fn exact(&self) -> Option<ExactLimits> {
        (self.delivery == Delivery::ExactlyOnce).then_some(EXACT_LIMITS)
    }

    fn hold(&self) -> Duration {
        self.hold
    }

    fn accepted(&self) -> Option<anyhow::Result<()>> {
        Some(self.options().check().map_err(Into::into))
    }

    async fn reach(&self, places: &[String], _: &[String]) -> Vec<Found> {
        self.reached(places).await
    }

    async fn ready(&self, places: &[String]) -> anyhow::Result<()> {
        self.ready_for(places).await
    }

    fn bench(&self, bench: &Bench<'_>) -> Result<Value, String> {
        let Bench { sink, tag, .. } = bench;
        let prefix = format!("rtm_bench_{tag}_{sink}");
        Ok(json!({
            "stream": format!("RTM_BENCH_{tag}_{sink}"),
            "subject": format!("{prefix}.{{app}}.{{region}}.{{stream}}_events"),
            "dead_letter_subject": format!("{prefix}.{{app}}.dead_letters"),
            "create": {},
        }))
    }

    fn is_of_bench(&self, bench: &Bench<'_>) -> bool {
        let prefix = format!("rtm_bench_{}_", bench.tag);
        self.stream
            .starts_with(&format!("RTM_BENCH_{}_", bench.tag))
            && self.subject.starts_with(&prefix)
            && self.dead_letter_subject.starts_with(&prefix)
    }

    fn made(&self) -> Vec<String> {
        vec![format!("JetStream stream {}", self.stream)]
    }

    async fn remove(&self) -> anyhow::Result<()> {
        delete(&self.jetstream().await?, &self.stream).await
    }

    async fn read_back(&self, each: Each<'_>) -> anyhow::Result<()> {
        let is_dead = |subject: &str| subject.ends_with(".dead_letters");
        read_back(&self.jetstream().await?, &self.stream, is_dead, each).await
    }
}

impl NatsConfig {
    /// The options of the sink, which reads secrets for each connection.
    fn options(&self) -> NatsOptions {
        let usual = NatsOptions::new(self.servers.clone(), self.stream.clone());
        NatsOptions {
            auth: (self.auth.as_ref()).map_or(NatsAuth::None, NatsAuthConfig::options),
            expect_stream: self.expect_stream,
            domain: self.domain.clone(),
            api_prefix: self.api_prefix.clone(),
            inbox_prefix: self.inbox_prefix.clone(),
            tls: NatsTls {
                first: self.tls.first,
                required: self.tls.required,
                ca_file: self.tls.ca_file.clone(),
                cert_file: self.tls.cert_file.clone(),
                key_file: self.tls.key_file.clone(),
            },
            in_flight: self.in_flight,
            atomic_batches: self.atomic_batches == AtomicBatches::Auto,
            progress_subject: self.progress(),
            message_ids: self.message_ids,
            looks_back: !self.hold.is_zero(),
            ack_timeout: self.ack_timeout,
            create_stream: (self.create.as_ref()).map(|create| create.options(self.covering())),
            ..usual
        }
    }

    /// The subject of the progress, where there is any.
    fn progress(&self) -> Option<String> {
        (self.delivery == Delivery::ExactlyOnce).then(|| self.progress_subject.clone())
    }

    /// Subjects of a stream that covers the templates and the progress: each variable a wildcard of one token. One that another covers is
    /// left out, for a stream's subjects may not overlap.
    fn covering(&self) -> Vec<String> {
        let mut subjects: Vec<String> = Vec::new();
        let templates = [&self.subject, &self.dead_letter_subject];
        let templates = templates
            .into_iter()
            .filter_map(|text| Template::parse(text, ALL).ok());
        let all = templates
            .map(|template| widen(&template.with_all("*")).into_owned())
            .chain(self.progress().map(|subject| filter_of_progress(&subject)));
        for subject in all {
            if !subjects.iter().any(|other| covers(other, &subject)) {
                subjects.retain(|other| !covers(&subject, other));
                subjects.push(subject);
            }
        }
        subjects
    }
}

#[cfg(test)]
mod tests;

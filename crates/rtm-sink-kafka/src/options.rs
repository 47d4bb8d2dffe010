use std::collections::BTreeMap;
use std::path::PathBuf;
use std::{fmt, fs, io};

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;

/// How to reach Kafka, and how to publish to it.
///
/// `Debug` prints the names of options and never their values.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaOptions {
    /// `host:port` of the brokers to begin with; the others are learned from them.
    pub brokers: Vec<String>,
    /// What the brokers' logs and quotas know this client by.
    pub client_id: String,
    /// Any option of librdkafka by its name, over the defaults of this crate. They may hold secrets.
    ///
    /// Options that would break what [`KafkaSink`](crate::KafkaSink) promises are refused.
    pub options: BTreeMap<String, String>,
    /// As `options`, and over them, each value being what a file holds, without the line ends at its end.
    ///
    /// They are read for every new producer, and a refusal of our credentials makes one: what is put right in a file, or
    /// replaced before the old expires, needs no restart. So it is with the files that librdkafka's own options name.
    pub option_files: BTreeMap<String, PathBuf>,
    /// Creates topics before the first record for them. `None` leaves that to the brokers, or to the operator.
    pub create_topics: Option<TopicSpec>,
}

/// What a created topic is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicSpec {
    /// Number of partitions.
    pub partitions: i32,
    /// Number of replicas of each; -1 is the cluster's default.
    pub replication: i32,
}

impl KafkaOptions {
    /// The defaults: no options, client id `rtm-bridge`, no topics created.
    #[must_use]
    pub fn new(brokers: Vec<String>) -> KafkaOptions {
        KafkaOptions {
            brokers,
            client_id: "rtm-bridge".to_owned(),
            options: BTreeMap::new(),
            option_files: BTreeMap::new(),
            create_topics: None,
        }
    }

    /// What another client of the same brokers needs, with what the files hold now. Blocks.
    ///
    /// # Errors
    ///
    /// [`ConnectError`], as of a sink.
    pub fn client_config(&self) -> Result<ClientConfig, ConnectError> {
        client_config(&self.read()?)
    }

    /// With what the files hold now among the options. Blocks.
    pub(crate) fn read(&self) -> Result<KafkaOptions, ConnectError> {
        let mut read = self.clone();
        for (name, path) in &self.option_files {
            let text = fs::read_to_string(path).map_err(|source| ConnectError::Read {
                name: name.clone(),
                path: path.clone(),
                source,
            })?;
            // What editors leave around it.
            let value = text.trim_start_matches('\u{feff}');
            let value = value.trim_end_matches(['\r', '\n']);
            read.options.insert(name.clone(), value.to_owned());
        }
        Ok(read)
    }
}

impl fmt::Debug for KafkaOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaOptions")
            .field("brokers", &self.brokers)
            .field("client_id", &self.client_id)
            .field("options", &self.options.keys())
            .field("option_files", &self.option_files)
            .field("create_topics", &self.create_topics)
            .finish()
    }
}

/// Why a [`KafkaSink`](crate::KafkaSink) cannot be made. No message holds an option's value.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The list of brokers is empty.
    #[error("no brokers are given")]
    NoBrokers,
    /// The option is one that this crate sets, because something depends on it.
    #[error("the option `{name}` cannot be changed: {reason}")]
    Refused {
        /// The option.
        name: String,
        /// What depends on it.
        reason: &'static str,
    },
    /// librdkafka does not have such an option, or was built without it.
    #[error("librdkafka has no option `{name}`")]
    Unknown {
        /// The option.
        name: String,
    },
    /// librdkafka does not take the value.
    #[error("librdkafka does not accept the value of the option `{name}`")]
    Invalid {
        /// The option.
        name: String,
    },
    /// The file that holds an option's value cannot be read.
    #[error("read the option `{name}` from {}", path.display())]
    Read {
        /// The option.
        name: String,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// librdkafka cannot start with these options.
    #[error("start the producer")]
    Start(#[source] KafkaError),
    /// The system gives no thread for the producer's callbacks.
    #[error("start a thread")]
    Thread(#[source] io::Error),
}

/// The runtime ends, and with it the thread that was to make a client.
pub(crate) const CANCELED: ConnectError = ConnectError::Start(KafkaError::Canceled);

/// What this crate sets; an operator's options come over it.
const DEFAULTS: &[(&str, &str)] = &[
    // Half the CPU of zstd, for about a quarter more bytes.
    ("compression.codec", "lz4"),
    // Milliseconds that a record waits for company.
    ("linger.ms", "5"),
    // Bounds what librdkafka holds, its default being 1 GiB; publish waits for room. Some seconds of full speed.
    ("queue.buffering.max.kbytes", "32768"),
    // Java's clients choose the same partition for a key.
    ("partitioner", "murmur2_random"),
    // The default of 10 s is how long a broker that is back would go unnoticed.
    ("reconnect.backoff.max.ms", "1000"),
    ("socket.keepalive.enable", "true"),
    // A broker that does not know a producer takes any sequence number from it: on a new partition, or once it has forgotten
    // the producer. If the first batch then fails for a moment and the second does not, the first is stored after it. One at
    // a time, none is in flight behind a failure. It is no slower to one partition, and to twelve by a half, on one host.
    ("max.in.flight.requests.per.connection", "1"),
    ("statistics.interval.ms", "5000"),
];

/// What order and durability depend on: the option, its value, what an operator may set instead, and why.
const PROMISED: &[(&str, &str, &[&str], &str)] = &[
    (
        "enable.idempotence",
        "true",
        &["true"],
        "without it a retry can store a record twice and out of order",
    ),
    (
        "acks",
        "all",
        &["all", "-1"],
        "a record counts as published once every replica in sync has it",
    ),
    (
        "message.timeout.ms",
        "0",
        &["0"],
        "a record that times out may have been stored, and later ones would go before it",
    ),
    (
        "enable.gapless.guarantee",
        "true",
        &["true"],
        "without it later records go on when a broker refuses one, and its neighbours lose their place",
    ),
    (
        "delivery.report.only.error",
        "false",
        &["false"],
        "records are confirmed by their delivery reports",
    ),
];

/// What order depends on, and `enable.idempotence` sets to this: librdkafka warns of it wherever it is set.
const IMPLIED: (&str, &str, &str) = (
    "queuing.strategy",
    "fifo",
    "the order of a key is that of publishing",
);

/// Partitioners that put a key always in the same partition.
const PARTITIONERS: &[&str] = &[
    "consistent",
    "consistent_random",
    "fnv1a",
    "fnv1a_random",
    "murmur2",
    "murmur2_random",
];

/// Options that nobody may set.
const FORBIDDEN: &[(&str, &str)] = &[
    (
        "bootstrap.servers",
        "the brokers have a setting of their own",
    ),
    ("client.id", "the client id has a setting of its own"),
    ("transactional.id", "this sink begins no transactions"),
];

/// librdkafka's second names for options named above.
const ALIASES: &[(&str, &str)] = &[
    ("compression.type", "compression.codec"),
    ("delivery.timeout.ms", "message.timeout.ms"),
    ("max.in.flight", "max.in.flight.requests.per.connection"),
    ("metadata.broker.list", "bootstrap.servers"),
    ("queue.buffering.max.ms", "linger.ms"),
    ("request.required.acks", "acks"),
];

/// All of it, as librdkafka takes it.
pub(crate) fn client_config(options: &KafkaOptions) -> Result<ClientConfig, ConnectError> {
    // Before librdkafka does: else OpenSSL would tidy up when the process ends, beneath librdkafka's threads
    // (OPENSSL_init_crypto(3), at `OPENSSL_INIT_NO_ATEXIT`).
    openssl_sys::init();
    if options.brokers.is_empty() {
        return Err(ConnectError::NoBrokers);
    }
    let mut config = ClientConfig::new();
    for (name, value) in DEFAULTS {
        config.set(*name, *value);
    }
    for (name, value) in &options.options {
        // One name for each: librdkafka would take both, and rdkafka sets them in any order.
        let canonical = canonical(name);
        // Checked here, because the error for a NUL holds the whole text.
        if name.contains('\0') || value.contains('\0') {
            return Err(ConnectError::Invalid {
                name: name.replace('\0', ""),
            });
        }
        if let Some(reason) = refusal(canonical, value) {
            return Err(ConnectError::Refused {
                name: name.clone(),
                reason,
            });
        }
        config.set(canonical, value);
    }
    for (name, value, ..) in PROMISED {
        config.set(*name, *value);
    }
    let named = std::env::var_os("SSL_CERT_FILE").or(std::env::var_os("SSL_CERT_DIR"));
    if named.is_none() && wants_authorities(&options.options) {
        // OpenSSL that is built in looks where it was built, and not where this system has its authorities.
        config.set("ssl.ca.location", "probe");
    }
    config.set("bootstrap.servers", options.brokers.join(","));
    config.set("client.id", &options.client_id);
    config.create_native_config().map_err(without_value)?;
    Ok(config)
}

/// An option's first name.
fn canonical(name: &str) -> &str {
    let alias = ALIASES.iter().find(|(alias, _)| *alias == name);
    alias.map_or(name, |(_, canonical)| canonical)
}

/// Whether TLS is used, and nothing says whom to trust.
fn wants_authorities(options: &BTreeMap<String, String>) -> bool {
    let uses_tls = options
        .get("security.protocol")
        .is_some_and(|protocol| protocol.to_ascii_uppercase().ends_with("SSL"));
    uses_tls && !options.keys().any(|name| name.starts_with("ssl.ca."))
}

fn refusal(name: &str, value: &str) -> Option<&'static str> {
    if name == "partitioner" && !PARTITIONERS.contains(&value) {
        return Some("a key must always go to the same partition, or it has no order");
    }
    let forbidden = FORBIDDEN.iter().find(|(forbidden, _)| *forbidden == name);
    let broken = PROMISED
        .iter()
        .find(|(promised, _, allowed, _)| *promised == name && !allowed.contains(&value));
    let (implied, kept, reason) = IMPLIED;
    if name == implied && value != kept {
        return Some(reason);
    }
    forbidden
        .map(|(_, reason)| *reason)
        .or(broken.map(|(.., reason)| *reason))
}

/// What librdkafka's remarks on options are called in its log.
const REMARK: &str = "CONFWARN";

/// Tells librdkafka's remarks on what this crate sets from those on what an operator wrote.
#[derive(Debug, Clone, Default)]
pub(crate) struct Written(Vec<String>);

impl Written {
    /// The names of the options that the operator wrote.
    pub(crate) fn of(options: &KafkaOptions) -> Written {
        Written(
            options
                .options
                .keys()
                .map(|name| canonical(name).to_owned())
                .collect(),
        )
    }

    /// Whether a line of librdkafka's log is about an option that only this crate sets: at every start it calls
    /// `enable.gapless.guarantee` experimental, and there is nothing that anyone could do about it.
    pub(crate) fn is_only_ours(&self, facility: &str, line: &str) -> bool {
        if facility != REMARK {
            return false;
        }
        let Some((_, rest)) = line.split_once("Configuration property ") else {
            return false;
        };
        let name = rest.split(' ').next().unwrap_or_default();
        let ours = PROMISED.iter().any(|(promised, ..)| *promised == name)
            || DEFAULTS.iter().any(|(default, _)| *default == name);
        ours && !self.0.iter().any(|written| written == name)
    }
}

/// rdkafka's error would print the value, and so does librdkafka's text inside it.
fn without_value(error: KafkaError) -> ConnectError {
    match error {
        KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, _, name, _) => {
            ConnectError::Unknown { name }
        }
        KafkaError::ClientConfig(_, _, name, _) => ConnectError::Invalid { name },
        error => ConnectError::Start(error),
    }
}

/// Keeps secrets out of what librdkafka says.
#[derive(Clone, Default)]
pub(crate) struct Secrets(Vec<String>);

impl Secrets {
    /// The values of options whose names sound secret. Very short ones would blank out half of every line.
    pub(crate) fn of(options: &KafkaOptions) -> Secrets {
        const SOUNDS_SECRET: [&str; 5] =
            ["password", "secret", "token", ".pem", "oauthbearer.config"];
        let secret = |name: &str| SOUNDS_SECRET.iter().any(|part| name.contains(part));
        let secrets = options
            .options
            .iter()
            .filter(|(name, value)| secret(name) && value.len() >= 4);
        Secrets(secrets.map(|(_, value)| value.clone()).collect())
    }

    /// `text` without secrets and without control characters.
    pub(crate) fn clean(&self, text: &str) -> String {
        let hidden = self
            .0
            .iter()
            .fold(text.to_owned(), |text, secret| text.replace(secret, "***"));
        hidden.replace(|c: char| c.is_control(), " ")
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets")
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    fn with(name: &str, value: &str) -> KafkaOptions {
        let mut options = KafkaOptions::new(vec!["localhost:9092".into()]);
        options.options.insert(name.into(), value.into());
        options
    }

    /// Holds: over TLS the system's authorities are looked for, unless others are named, and without it nothing is.
    #[test]
    fn the_systems_authorities_are_the_default() {
        for (options, wanted) in [
            (&[][..], false),
            (&[("security.protocol", "PLAINTEXT")], false),
            (&[("security.protocol", "sasl_plaintext")], false),
            (&[("security.protocol", "ssl")], true),
            (&[("security.protocol", "SASL_SSL")], true),
            (
                &[("security.protocol", "SSL"), ("ssl.ca.location", "/ca.pem")],
                false,
            ),
            (&[("security.protocol", "SSL"), ("ssl.ca.pem", "…")], false),
        ] {
            let options = options
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            let options: BTreeMap<String, String> = options.collect();
            assert_eq!(wants_authorities(&options), wanted, "{options:?}");
        }
        let config = client_config(&with("security.protocol", "SSL")).unwrap();
        let probes = config.get("ssl.ca.location") == Some("probe");
        let named = ["SSL_CERT_FILE", "SSL_CERT_DIR"].map(std::env::var_os);
        assert_eq!(probes, named == [None, None]);
    }

    #[test]
    fn the_defaults_are_accepted_and_may_be_changed() {
        let config = client_config(&KafkaOptions::new(vec!["a:1".into(), "b:2".into()])).unwrap();
        assert_eq!(config.get("bootstrap.servers"), Some("a:1,b:2"));
        assert_eq!(config.get("compression.codec"), Some("lz4"));
        assert_eq!(config.get("message.timeout.ms"), Some("0"));
        let config = client_config(&with("compression.type", "zstd")).unwrap();
        assert_eq!(config.get("compression.codec"), Some("zstd"));
        assert_eq!(config.get("compression.type"), None);
    }

    /// Holds: nothing that order or durability depends on can be turned off, under either name.
    #[test]
    fn promises_cannot_be_turned_off() {
        let refused = [
            ("enable.idempotence", "false"),
            ("acks", "1"),
            ("request.required.acks", "0"),
            ("message.timeout.ms", "300000"),
            ("delivery.timeout.ms", "1000"),
            ("enable.gapless.guarantee", "false"),
            ("delivery.report.only.error", "true"),
            ("queuing.strategy", "lifo"),
            ("partitioner", "random"),
            ("transactional.id", "x"),
            ("bootstrap.servers", "x:1"),
            ("metadata.broker.list", "x:1"),
        ];
        for (name, value) in refused {
            let error = client_config(&with(name, value)).unwrap_err();
            assert!(
                matches!(error, ConnectError::Refused { .. }),
                "{name}: {error}"
            );
        }
        for (name, value) in [
            ("acks", "-1"),
            ("enable.idempotence", "true"),
            ("partitioner", "fnv1a"),
        ] {
            client_config(&with(name, value)).unwrap();
        }
    }

    /// Holds: what goes wrong with an option is told by its name, and never shows a value.
    #[test]
    fn errors_name_the_option_and_hide_the_value() {
        let cases = [
            (
                "no.such.option",
                "hunter2",
                "librdkafka has no option `no.such.option`",
            ),
            (
                "sasl.password",
                "hunter2\0",
                "librdkafka does not accept the value of the option `sasl.password`",
            ),
            (
                "security.protocol",
                "hunter2",
                "librdkafka does not accept the value of the option `security.protocol`",
            ),
        ];
        for (name, value, expected) in cases {
            let options = with(name, value);
            let error = client_config(&options).unwrap_err();
            assert_eq!(error.to_string(), expected);
            assert!(error.source().is_none());
            let debug = format!("{options:?} {error:?}");
            assert!(!debug.contains("hunter2"), "{debug}");
        }
    }

    /// Holds: a remark of librdkafka on an option that only we set is known for one, and none on what the operator wrote,
    /// under either name, on what nobody wrote, or on anything else; the option that needs no setting is not set.
    #[test]
    fn remarks_on_our_own_options_are_known() {
        let gapless =
            "[thrd:app]: Configuration property enable.gapless.guarantee is experimental: When set";
        let cases = [
            (("linger.ms", "5"), REMARK, gapless, true),
            (("linger.ms", "5"), "FAIL", gapless, false),
            (("enable.gapless.guarantee", "true"), REMARK, gapless, false),
            (
                ("queue.buffering.max.ms", "5"),
                REMARK,
                "[thrd:app]: Configuration property linger.ms is deprecated",
                false,
            ),
            (
                ("sasl.mechanism", "PLAIN"),
                REMARK,
                "[thrd:app]: Configuration property `sasl.mechanism` set to `PLAIN` but",
                false,
            ),
            (
                ("retry.backoff.ms", "9000"),
                REMARK,
                "[thrd:app]: Configuration `retry.backoff.ms` with value 9000 is greater",
                false,
            ),
        ];
        for ((name, value), facility, line, ours) in cases {
            let written = Written::of(&with(name, value));
            assert_eq!(written.is_only_ours(facility, line), ours, "{name}: {line}");
        }
        let config = client_config(&with("linger.ms", "5")).unwrap();
        assert_eq!(config.get("queuing.strategy"), None);
        let config = client_config(&with("queuing.strategy", "fifo")).unwrap();
        assert_eq!(config.get("queuing.strategy"), Some("fifo"));
    }

    #[test]
    fn secrets_are_cut_out_of_text() {
        let mut options = with("sasl.password", "hunter2");
        options
            .options
            .insert("ssl.key.pem".into(), "-----BEGIN\nabc".into());
        options
            .options
            .insert("sasl.username".into(), "user".into());
        let secrets = Secrets::of(&options);
        assert_eq!(
            secrets.clean("user hunter2\r\nhunter2 -----BEGIN\nabc"),
            "user ***  *** ***"
        );
        assert_eq!(format!("{secrets:?}"), "Secrets");
    }
}

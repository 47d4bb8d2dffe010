use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;
use rtm_sink::{read_text, regular};

use crate::token::{Oidc, Unfit};

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
    /// Stores records once and only once, in transactions.
    pub exact: Option<ExactOptions>,
}

/// Where it is kept how far records are published, and by what name they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExactOptions {
    /// The topic that holds the progress of all lanes. It must be compacted. With [`KafkaOptions::create_topics`] it is
    /// created.
    pub progress_topic: String,
    /// What the ids of transactions begin with, which a right may be given on.
    pub transactional_id_prefix: String,
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
            exact: None,
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
            let value = read_text(path).map_err(|source| ConnectError::Read {
                name: name.clone(),
                path: path.clone(),
                source,
            })?;
            read.options.insert(name.clone(), value);
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
            .field("exact", &self.exact)
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
    /// The option's value is none that this crate can use.
    #[error("the option `{name}`: {reason}")]
    Unfit {
        /// The option.
        name: String,
        /// Why not, and what there is.
        reason: &'static str,
    },
    /// A file that an option names cannot be read.
    #[error("read the file of the option `{name}`, {path}")]
    File {
        /// The option.
        name: String,
        /// The file.
        path: String,
        /// Why not.
        source: io::Error,
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

impl ConnectError {
    fn unfit(Unfit { name, reason }: Unfit) -> ConnectError {
        ConnectError::Unfit { name, reason }
    }
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
    (
        "transactional.id",
        "where records are stored once and only once, it is made of the journal's number and the sink's name",
    ),
];

/// Options that nobody may set where records are stored once and only once.
const FORBIDDEN_EXACT: &[&str] = &[
    "retry.backoff.max.ms",
    "retry.backoff.ms",
    "socket.timeout.ms",
    "transaction.timeout.ms",
];

/// Why not.
const TIMED: &str =
    "with records stored once and only once, what a commit's duration tells depends on it";

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
    let oidc = Oidc::of(&options.options).map_err(ConnectError::unfit)?;
    if oidc.is_some() && options.create_topics.is_some() {
        let reason =
            "with OIDC no topics can be created: create them beforehand, and leave out `create`";
        let name = "sasl.oauthbearer.method".to_owned();
        return Err(ConnectError::Unfit { name, reason });
    }
    check_mechanism(&options.options)?;
    check_files(&options.options)?;
    let mut config = ClientConfig::new();
    for (name, value) in DEFAULTS {
        // In a transaction the progress would wait after the records have.
        if options.exact.is_none() || *name != "linger.ms" {
            config.set(*name, *value);
        }
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
        let timed = options.exact.is_some() && FORBIDDEN_EXACT.contains(&canonical);
        if let Some(reason) = refusal(canonical, value).or(timed.then_some(TIMED)) {
            return Err(ConnectError::Refused {
                name: name.clone(),
                reason,
            });
        }
        if oidc.is_none() || !Oidc::is_ours(name) {
            config.set(canonical, value);
        }
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

/// The most bytes that librdkafka takes for a record's key and payload.
pub(crate) fn largest_message(config: &ClientConfig) -> usize {
    let limit = config.get("message.max.bytes");
    limit
        .and_then(|limit| limit.parse().ok())
        .unwrap_or(1_000_000)
}

/// The most bytes that librdkafka puts into a batch of several records.
pub(crate) fn largest_batch(config: &ClientConfig) -> usize {
    /// What both are unless set.
    const DEFAULT: usize = 1_000_000;
    let limit = |name| config.get(name)?.parse().ok();
    let limits = ["batch.size", "message.max.bytes"];
    let least = limits
        .map(|name| limit(name).unwrap_or(DEFAULT))
        .into_iter()
        .min();
    least.unwrap_or(DEFAULT)
}

/// The mechanisms of SASL that librdkafka is built with here.
const MECHANISMS: [&str; 4] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"];

/// Whether the mechanism is built in: librdkafka's default, GSSAPI, is not.
fn check_mechanism(options: &BTreeMap<String, String>) -> Result<(), ConnectError> {
    let protocol = options.get("security.protocol");
    let uses_sasl = protocol.is_some_and(|name| name.to_ascii_uppercase().starts_with("SASL"));
    let names = ["sasl.mechanism", "sasl.mechanisms"];
    let named = names
        .into_iter()
        .find_map(|name| Some((name, options.get(name)?)));
    let (name, mechanism) = named.map_or((names[0], "GSSAPI"), |(name, value)| (name, value));
    let is_built = MECHANISMS
        .iter()
        .any(|built| built.eq_ignore_ascii_case(mechanism));
    if is_built || !uses_sasl {
        return Ok(());
    }
    let reason = match mechanism {
        "GSSAPI" => {
            "GSSAPI (Kerberos), which it is unless set, is not built in; PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 and \
             OAUTHBEARER are"
        }
        _ => {
            "the mechanism is not built in; PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 and OAUTHBEARER are"
        }
    };
    Err(ConnectError::Unfit {
        name: name.to_owned(),
        reason,
    })
}

/// Options that name a file, which OpenSSL would not name in its errors.
pub const FILE_OPTIONS: [&str; 6] = [
    "https.ca.location",
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.key.location",
    "ssl.keystore.location",
    "ssl.crl.location",
];

/// Whether the files that options name can be read.
fn check_files(options: &BTreeMap<String, String>) -> Result<(), ConnectError> {
    for name in FILE_OPTIONS {
        let Some(path) = options.get(name).filter(|path| *path != "probe") else {
            continue;
        };
        // A directory of authorities opens as a file does.
        let is_directory = Path::new(path).is_dir();
        let looked = if is_directory {
            Ok(())
        } else {
            regular(Path::new(path))
        };
        if let Err(source) = looked.and_then(|()| fs::File::open(path)) {
            return Err(ConnectError::File {
                name: name.to_owned(),
                path: path.clone(),
                source,
            });
        }
    }
    Ok(())
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
        let name = canonical(rest.split(' ').next().unwrap_or_default());
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
        let secret = |name: &str| {
            SOUNDS_SECRET.iter().any(|part| name.contains(part)) && !name.ends_with(".url")
        };
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
mod tests;

//! How a producer begins, which ends all that came before, and what is stored by then.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::Producer;
use rtm_sink::PublishErrorKind;

use crate::failure::Failure;
use crate::options::ExactOptions;
use crate::producer::{Configure, Live};
use crate::progress::{ANSWER, Found, Reader, Trouble};
use crate::publish::Stop;
use crate::verdict::kind;

/// How long a transaction may be open. After a crash, consumers of committed records wait for as long, unless another process
/// goes on.
pub(crate) const OPEN: Duration = Duration::from_secs(15);

/// How long records may take to be stored: less than [`OPEN`] with all that comes after.
const DELIVERY: Duration = Duration::from_secs(8);

/// How long the brokers may take to let a producer begin.
const BEGIN: Duration = Duration::from_secs(10);

/// The least `retry.backoff.ms`: a commit of half of it is never one that was repeated.
pub(super) const BACKOFF: Duration = Duration::from_millis(200);

/// On a slow line `retry.backoff.ms` is so many round trips, of which an honest commit takes one or two.
pub(super) const ROUND_TRIPS: u32 = 4;

/// One of the two groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Main = 0,
    Aside = 1,
}

/// Whose progress a producer may store.
pub(super) type Owner = (u128, Arc<str>);

/// A producer in a transaction.
pub(super) struct Open {
    pub(super) live: Arc<Live>,
    pub(super) owner: Owner,
    /// The partition that the progress goes to.
    pub(super) partition: i32,
    pub(super) partitions: i32,
    /// A commit that takes as long is in doubt.
    pub(super) doubt: Duration,
    /// Whether the other partitions were looked into as well, where the progress was if the topic had fewer before.
    pub(super) has_read_all: bool,
}

/// What a producer must be told to publish in transactions.
fn transactional(config: &mut ClientConfig, id: &str, backoff: Duration) {
    let backoff = backoff.as_millis();
    let most = backoff.max(1000);
    config
        .set("transactional.id", id)
        .set("transaction.timeout.ms", OPEN.as_millis().to_string())
        .set("message.timeout.ms", DELIVERY.as_millis().to_string())
        .set("socket.timeout.ms", ANSWER.as_millis().to_string())
        .set("retry.backoff.ms", backoff.to_string())
        .set("retry.backoff.max.ms", most.to_string())
        // A transaction that has lost a record is ended.
        .set("enable.gapless.guarantee", "false");
    // A missing topic is to be known before its records have taken too long.
    let defaults = [
        ("linger.ms", "0"),
        ("topic.metadata.propagation.max.ms", "5000"),
    ];
    for (name, value) in defaults {
        if config.get(name).is_none() {
            config.set(name, value);
        }
    }
}

pub(super) fn transactional_id(exact: &ExactOptions, owner: &Owner, place: Place) -> String {
    let prefix = &exact.transactional_id_prefix;
    let (journal, sink) = owner;
    let aside = match place {
        Place::Main => "",
        Place::Aside => ".aside",
    };
    format!("{prefix}.{journal:032x}.{sink}{aside}")
}

/// What the keys of the owner's lanes begin with.
pub(super) fn prefix((journal, sink): &Owner) -> String {
    format!("{journal:032x}.{sink}.")
}

pub(super) fn partition((journal, _): &Owner, partitions: i32) -> i32 {
    let partitions = u128::from(partitions.unsigned_abs().max(1));
    i32::try_from(journal % partitions).unwrap_or_default()
}

/// What it takes to begin.
pub(super) struct Beginning {
    pub(super) topic: String,
    pub(super) id: String,
    /// Another id whose transactions are to end.
    pub(super) other: Option<String>,
    pub(super) owner: Owner,
    pub(super) backoff: Duration,
}

/// A producer in a transaction, and what is stored.
pub(super) struct Begun {
    pub(super) live: Arc<Live>,
    pub(super) partitions: i32,
    pub(super) found: HashMap<String, Found>,
    pub(super) backoff: Duration,
}

pub(super) enum NotBegun {
    /// The progress topic is missing.
    Missing,
    Stopped(Stop),
}

impl From<Stop> for NotBegun {
    fn from(stop: Stop) -> NotBegun {
        NotBegun::Stopped(stop)
    }
}

impl From<NotBegun> for Stop {
    fn from(error: NotBegun) -> Stop {
        match error {
            NotBegun::Missing => Stop::new(
                PublishErrorKind::Misconfigured,
                "the progress topic is missing",
            ),
            NotBegun::Stopped(stop) => stop,
        }
    }
}

impl Beginning {
    /// Begins a producer, which ends what earlier ones have open, and only then reads what they have stored. Blocks.
    pub(super) fn run<C: Configure>(self, clients: [C; 4]) -> Result<Begun, NotBegun> {
        let [own, other, all, committed] = clients;
        let reader =
            Reader::new(&self.topic, [all, committed]).map_err(|trouble| stopped(trouble, None))?;
        let of_reader = |trouble| stopped(trouble, Some(&reader));
        let partitions = reader.partitions().map_err(of_reader)?;
        if let Some(id) = &self.other {
            drop(self.start(other, id)?);
        }
        let live = self.start(own, &self.id)?;
        let begun = live.producer().begin_transaction();
        begun.map_err(|error| of_producer(&live, "begin a transaction", &error))?;
        let partition = partition(&self.owner, partitions);
        let found = reader.read(partition, &prefix(&self.owner));
        Ok(Begun {
            live: Arc::new(live),
            partitions,
            found: found.map_err(of_reader)?,
            backoff: self.backoff,
        })
    }

    /// A producer with this id, the transactions of all others with it having ended.
    fn start(&self, configure: impl Configure, id: &str) -> Result<Live, NotBegun> {
        let (mut config, context) = configure().map_err(Stop::from)?;
        transactional(&mut config, id, self.backoff);
        let live = Live::start(&config, context).map_err(Stop::from)?;
        let producer = live.producer();
        // Before it knows a broker, it asks for its id only every half second.
        let known = producer.client().fetch_metadata(Some(&self.topic), ANSWER);
        known.map_err(|error| of_producer(&live, "reach the brokers", &error))?;
        let begun = producer.init_transactions(BEGIN);
        begun.map_err(|error| of_producer(&live, "begin transactions", &error))?;
        Ok(live)
    }
}

/// Why a producer does not begin.
fn of_producer(live: &Live, what: &str, error: &KafkaError) -> NotBegun {
    because(what, live.failure(), error).into()
}

/// Why the progress cannot be read.
pub(super) fn stopped(trouble: Trouble, reader: Option<&Reader>) -> NotBegun {
    let stop = match trouble {
        Trouble::Missing => return NotBegun::Missing,
        Trouble::Start(error) => error.into(),
        Trouble::Hidden => Stop::new(
            PublishErrorKind::Unavailable,
            "another producer has a transaction open in this journal's partition of the progress topic",
        ),
        Trouble::Kafka(error) => {
            let failure = reader.and_then(|reader| reader.context().failed());
            because("read the progress topic", failure, &error)
        }
    };
    stop.into()
}

/// What an error means, where the client has failed for something of its own for that.
fn because(what: &str, failure: Option<Failure>, error: &KafkaError) -> Stop {
    let failed = failure.as_ref().map(|failure| failure.code);
    let code = failed.or(error.rdkafka_error_code());
    let kind = kind(
        code.unwrap_or(RDKafkaErrorCode::Unknown),
        PublishErrorKind::Unavailable,
    );
    let said = match failure {
        Some(failure) => failure.explained().reason,
        None => error.to_string(),
    };
    let hint = match code {
        Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
            ": not authorised: this user needs ACLs that allow Read and Write on it"
        }
        Some(RDKafkaErrorCode::TransactionalIdAuthorizationFailed) => {
            ": not authorised: this user needs an ACL that allows Write on transactional ids with the prefix"
        }
        Some(RDKafkaErrorCode::InvalidTransactionTimeout) => {
            ": the brokers' transaction.max.timeout.ms must be 15000 or more"
        }
        _ => "",
    };
    Stop::new(kind, format!("{what}: {said}{hint}"))
}

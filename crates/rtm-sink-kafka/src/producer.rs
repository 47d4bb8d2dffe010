use std::error::Error;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext, PurgeConfig};
use rtm_sink::Record;
use serde_json::Value;
use tracing::{debug, error, info, warn};

use crate::failure::{Failure, is_alert};
use crate::known::Health;
use crate::options::{
    ConnectError, KafkaOptions, Secrets, Written, largest_batch, largest_message,
};
use crate::protocol::Protocol;
use crate::reports::Reports;
use crate::token::Tokens;

/// How long the thread that runs librdkafka's callbacks waits for the next callback.
///
/// `ThreadedProducer` has 100 ms. But `poll` rounds what is left of its time down to milliseconds, and so it spins for
/// the last one: with 100 ms that was an eighth of all that the bridge spent at 2,000 records a second. Nothing ends the
/// wait earlier, so that a producer of no more use lingers for as long.
const POLL: Duration = Duration::from_secs(5);

/// One librdkafka producer, from its making until it fails or the sink closes.
///
/// Making one needs no broker. Dropping one ends what it holds at once and its threads within [`POLL`], on a thread of
/// its own, wherever the last reference goes.
pub(crate) struct Live {
    /// `None` only while it is dropped.
    producer: Option<Arc<BaseProducer<Context>>>,
    polling: Option<Polling>,
    pub(crate) protocol: Arc<Protocol>,
    /// The most bytes that it puts into a batch of several records.
    pub(crate) largest_batch: usize,
    /// The most bytes that it takes for a record's key and payload.
    pub(crate) largest_message: usize,
}

impl Live {
    pub(crate) fn start(config: &ClientConfig, context: Context) -> Result<Live, ConnectError> {
        let secrets = context.secrets.clone();
        let clean = |error| match error {
            KafkaError::ClientCreation(said) => KafkaError::ClientCreation(secrets.clean(&said)),
            error => error,
        };
        let producer = config.create_with_context(context);
        let producer = producer.map_err(|error| ConnectError::Start(clean(error)))?;
        let producer = Arc::new(producer);
        let polling = Polling::start(Arc::clone(&producer)).map_err(ConnectError::Thread)?;
        Ok(Live {
            producer: Some(producer),
            polling: Some(polling),
            protocol: Arc::new(Protocol::of(config)),
            largest_batch: largest_batch(config),
            largest_message: largest_message(config),
        })
    }

    pub(crate) fn producer(&self) -> &BaseProducer<Context> {
        self.producer.as_ref().expect("taken by drop only")
    }

    /// Hands a copy of the record to librdkafka, for the partition, or for that of its key.
    pub(crate) fn send(
        &self,
        record: &Record,
        partition: Option<i32>,
        opaque: usize,
    ) -> Result<(), RDKafkaErrorCode> {
        let mut message =
            BaseRecord::<[u8], [u8], usize>::with_opaque_to(record.topic.as_str(), opaque);
        message = message.payload(&record.payload);
        if let Some(partition) = partition {
            message = message.partition(partition);
        }
        // A record without a key may go to any partition; an empty key is a key like all others.
        if let Some(key) = &record.key {
            message = message.key(key.as_ref());
        }
        // librdkafka takes 0 for now, and brokers refuse a negative time.
        if record.timestamp.0 > 0 {
            message = message.timestamp(record.timestamp.0);
        }
        if !record.headers.is_empty() {
            let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
            for (key, value) in &record.headers {
                headers = headers.insert(Header {
                    key,
                    value: Some(value.as_ref()),
                });
            }
            message = message.headers(headers);
        }
        self.producer()
            .send(message)
            .map_err(|(error, _)| match error {
                KafkaError::MessageProduction(code) => code,
                // The only other error of `send` is a NUL in the topic's name.
                _ => RDKafkaErrorCode::InvalidTopic,
            })
    }

    /// Why this producer is of no more use. librdkafka is asked, whose callback does not say that an error is fatal.
    pub(crate) fn failure(&self) -> Option<Failure> {
        match self.producer().client().fatal_error() {
            Some((code, reason)) => {
                let reason = self.context().secrets.clean(&reason);
                Some(Failure { code, reason })
            }
            None => self.context().failed(),
        }
    }

    /// Declares the producer failed, for what `send` said.
    pub(crate) fn fail(&self, code: RDKafkaErrorCode) {
        self.context().fail(code, &code.to_string());
    }

    /// Declares the producer failed, for something that librdkafka does not know of.
    pub(crate) fn give_up(&self, reason: &str) {
        self.context().fail(RDKafkaErrorCode::Fatal, reason);
    }

    /// Ends what is queued and, if `inflight`, what was sent and has no answer. Blocks for milliseconds.
    pub(crate) fn purge(&self, inflight: bool) {
        let flags = PurgeConfig::default().queue();
        self.producer()
            .purge(if inflight { flags.inflight() } else { flags });
    }

    /// Records that librdkafka holds.
    pub(crate) fn queued(&self) -> usize {
        usize::try_from(self.producer().in_flight_count()).unwrap_or(0)
    }

    fn context(&self) -> &Context {
        self.producer().client().context()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.context().over.store(true, Ordering::Relaxed);
        let (producer, polling) = (self.producer.take(), self.polling.take());
        let drop = move || {
            if let Some(producer) = &producer {
                // Otherwise the producer would go on sending while its thread is waited for.
                producer.purge(PurgeConfig::default().queue().inflight());
            }
            // First the thread, which holds a reference: then the last one is dropped here.
            drop(polling);
            drop(producer);
        };
        // If there are no threads to be had, the closure is dropped here, which blocks and is right all the same.
        let _ = thread::Builder::new().name("kafka-drop".into()).spawn(drop);
    }
}

/// Makes what a client is made of.
pub(crate) trait Configure:
    FnOnce() -> Result<(ClientConfig, Context), ConnectError> + Send + 'static
{
}

impl<F> Configure for F where
    F: FnOnce() -> Result<(ClientConfig, Context), ConnectError> + Send + 'static
{
}

/// The thread that runs librdkafka's callbacks. Dropping it waits for its end.
struct Polling {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Polling {
    fn start(producer: Arc<BaseProducer<Context>>) -> io::Result<Polling> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let poll = move || {
            while !stopped.load(Ordering::Relaxed) {
                producer.poll(POLL);
            }
        };
        let thread = thread::Builder::new()
            .name("kafka-poll".into())
            .spawn(poll)?;
        Ok(Polling {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Polling {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked did so in a callback, and the panic was printed then.
            let _ = thread.join();
        }
    }
}

/// How long TLS may fail after it once worked, until the producer has failed.
const DISTRUSTED: Duration = Duration::from_secs(5);

/// What librdkafka's log calls a producer's wait for its id, twice a second. What lasts is told by the call that waits.
const RETRIED: &str = "GETPID";

/// What librdkafka's log calls an error that ends a producer.
const FATAL: &str = "FATAL";

/// What librdkafka's callbacks work on. They run on the producer's polling thread and never block,
/// but for the first [token](Tokens::next).
#[derive(Debug)]
pub(crate) struct Context {
    reports: Arc<Reports>,
    health: Arc<Health>,
    secrets: Secrets,
    written: Written,
    tokens: Arc<Tokens>,
    failure: OnceLock<Failure>,
    /// This producer has confirmed something.
    confirmed: AtomicBool,
    /// The sink needs this producer no more: what becomes of it is not logged.
    over: AtomicBool,
    /// Since when TLS fails though it once worked, and why.
    distrust: Mutex<Option<(Instant, String)>>,
}

impl Context {
    /// For a client with these options.
    pub(crate) fn new(
        reports: Arc<Reports>,
        health: Arc<Health>,
        options: &KafkaOptions,
    ) -> Context {
        Context {
            reports,
            health,
            secrets: Secrets::of(options),
            written: Written::of(options),
            tokens: Tokens::new(&options.options),
            failure: OnceLock::new(),
            confirmed: AtomicBool::new(false),
            over: AtomicBool::new(false),
            distrust: Mutex::default(),
        }
    }

    /// Takes in why a handshake failed, or, without a reason, that no handshake has succeeded since.
    ///
    /// Before the first confirmation the cause is a certificate. Later it may be a broker that restarts amid a
    /// handshake, unless nothing else happens for a while: then certificates have expired or changed.
    fn distrust(&self, reason: Option<&str>) {
        let mut distrust = self.distrust.lock().unwrap_or_else(PoisonError::into_inner);
        if let (None, Some(reason)) = (&*distrust, reason) {
            *distrust = Some((Instant::now(), reason.to_owned()));
        }
        let patience = if self.confirmed.load(Ordering::Relaxed) {
            DISTRUSTED
        } else {
            Duration::ZERO
        };
        let worn = distrust
            .as_ref()
            .filter(|(since, _)| since.elapsed() >= patience);
        if let Some((_, reason)) = worn {
            self.fail(RDKafkaErrorCode::SSL, reason);
        }
    }

    /// Why its client is of no more use.
    pub(crate) fn failed(&self) -> Option<Failure> {
        self.failure.get().cloned()
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn trust(&self) {
        *self.distrust.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn fail(&self, code: RDKafkaErrorCode, reason: &str) {
        let reason = self.secrets.clean(reason);
        if self.failure.set(Failure { code, reason }).is_ok() {
            self.reports.wake();
        }
    }
}

impl ConsumerContext for Context {}

impl ProducerContext for Context {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        let failure = match result {
            // librdkafka's own conclusion, from the success of a later batch: the broker never said so.
            Ok(message) if message.offset() < 0 => Some(RDKafkaErrorCode::NoOffset),
            Ok(_) => {
                self.confirmed.store(true, Ordering::Relaxed);
                self.health.confirmed();
                None
            }
            Err((error, _)) => Some(
                error
                    .rdkafka_error_code()
                    .unwrap_or(RDKafkaErrorCode::Unknown),
            ),
        };
        self.reports.report(opaque, failure);
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        let token = self.tokens.next();
        token.map_err(|error| Box::from(self.secrets.clean(&error)))
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        let line = self.secrets.clean(line);
        if self.is_over() || facility == RETRIED || self.written.is_only_ours(facility, &line) {
            debug!(target: "librdkafka", facility, "{line}");
            return;
        }
        if facility == FATAL {
            // A producer that ends is no matter of the operator's: the next one goes on.
            let due = self.health.lock().fatal.due(1);
            if let Some(times) = due {
                warn!(target: "librdkafka", facility, times, "a producer has ended, and another goes on: {line}");
            }
            return;
        }
        match level {
            // A connection that fails is an error to librdkafka, and it goes on trying.
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                error!(target: "librdkafka", facility, "{line}");
            }
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => {
                warn!(target: "librdkafka", facility, "{line}");
            }
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                info!(target: "librdkafka", facility, "{line}");
            }
            RDKafkaLogLevel::Debug => debug!(target: "librdkafka", facility, "{line}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if self.is_over() {
            return;
        }
        let code = error
            .rdkafka_error_code()
            .unwrap_or(RDKafkaErrorCode::Unknown);
        let reason = self.secrets.clean(reason);
        debug!(?code, "{reason}");
        match code {
            RDKafkaErrorCode::Authentication
            | RDKafkaErrorCode::SaslAuthenticationFailed
            | RDKafkaErrorCode::UnsupportedSASLMechanism => self.fail(code, &reason),
            RDKafkaErrorCode::SSL => self.distrust(Some(&reason)),
            // In TLS 1.3 a client is done with the handshake before the broker has seen its certificate.
            RDKafkaErrorCode::BrokerTransportFailure if is_alert(&reason) => {
                self.distrust(Some(&reason));
            }
            RDKafkaErrorCode::BrokerTransportFailure => self.trust(),
            RDKafkaErrorCode::AllBrokersDown => {
                // Why each of them is down was told before.
                return self.health.flag(|known| known.unreachable = true);
            }
            // It comes by its own code also where it is fatal. Then librdkafka may report on some records never.
            _ => self.reports.wake(),
        }
        self.health.flag(|known| known.last_error = Some(reason));
    }

    /// Not `stats`: a document that is cut, as with many partitions (librdkafka#5379), would be logged as an error, and
    /// is no matter.
    fn stats_raw(&self, statistics: &[u8]) {
        if self.is_over() {
            return;
        }
        let Ok(statistics) = serde_json::from_slice::<Value>(statistics) else {
            return;
        };
        let reached = self.health.lock().take_in(&statistics);
        // librdkafka repeats an error only every 30 s.
        if reached {
            self.trust();
        } else {
            self.distrust(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;
    use crate::options::KafkaOptions;

    /// Keeps what is logged.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for &Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Log {
        type Writer = &'a Log;

        fn make_writer(&'a self) -> &'a Log {
            self
        }
    }

    /// Holds: whatever librdkafka says, no secret and no line break reach a log line, an error or the statistics.
    #[test]
    fn secrets_stay_out_of_what_librdkafka_says() {
        let mut options = KafkaOptions::new(vec!["localhost:1".into()]);
        options
            .options
            .insert("sasl.password".into(), "canary".into());
        let health = Arc::<Health>::default();
        let context = Context::new(Arc::default(), Arc::clone(&health), &options);
        let log = Log::default();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(log.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            for level in [
                RDKafkaLogLevel::Emerg,
                RDKafkaLogLevel::Error,
                RDKafkaLogLevel::Info,
                RDKafkaLogLevel::Debug,
            ] {
                context.log(level, "SASL", "first canary\nsecond");
            }
            context.error(
                KafkaError::Global(RDKafkaErrorCode::Authentication),
                "third canary",
            );
        });
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches("first *** second").count(), 4, "{text}");
        assert_eq!(health.lock().last_error.as_deref(), Some("third ***"));
        let failure = context.failure.get().unwrap();
        assert_eq!(
            (failure.code, failure.reason.as_str()),
            (RDKafkaErrorCode::Authentication, "third ***")
        );
        assert!(!format!("{text}{failure:?}{context:?}{health:?}").contains("canary"));
    }

    /// Holds: that producers end, one after the other, is no error, and is said once a minute.
    #[test]
    fn the_end_of_producers_is_said_seldom() {
        let options = KafkaOptions::new(vec!["localhost:1".into()]);
        let health = Arc::<Health>::default();
        let log = Log::default();
        let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..3 {
                let context = Context::new(Arc::default(), Arc::clone(&health), &options);
                context.log(RDKafkaLogLevel::Emerg, "FATAL", "Gap-less ordering");
            }
        });
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches("Gap-less").count(), 1, "{text}");
        assert!(text.contains("WARN") && !text.contains("ERROR"), "{text}");
    }

    /// Holds: a producer that nobody needs any more, which lingers for seconds, says nothing of how its successor does.
    #[test]
    fn what_is_over_is_no_news() {
        let options = KafkaOptions::new(vec!["localhost:1".into()]);
        let health = Arc::<Health>::default();
        let context = Context::new(Arc::default(), Arc::clone(&health), &options);
        context.over.store(true, Ordering::Relaxed);
        let down = RDKafkaErrorCode::AllBrokersDown;
        context.error(KafkaError::Global(down), "all down");
        context.error(
            KafkaError::Global(RDKafkaErrorCode::BrokerTransportFailure),
            "one down",
        );
        context.stats_raw(br#"{"brokers": {"b": {"state": "UP", "rtt": {"p99": 7}}}}"#);
        let known = health.lock();
        assert!(!known.unreachable && known.last_error.is_none() && known.round_trip.is_none());
    }
}

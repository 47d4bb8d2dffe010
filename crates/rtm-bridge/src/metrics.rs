//! Every metric, once. The doc comments are the help texts' long form; the README lists them all.
//!
//! Labels come from configuration and from fixed sets only: never a user or a channel. Every series exists, at zero,
//! from the start. Gauges are set from state when `/metrics` is read, never counted up and down.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use rtm_sink::Health;

use crate::config::Config;
use crate::tally::{DROP_REASONS, Tally};

/// Outcomes of a poll, as labels.
pub const POLL_OUTCOMES: [&str; 5] = ["page", "empty", "not_sent", "refused", "in_doubt"];

/// Why events may have been lost at the source, as labels.
pub const LOSS_REASONS: [&str; 4] = ["cut", "timeout", "status", "crash"];

/// Why a record became a dead letter, as labels: the decoder's reasons and the brokers'. Others count as `other`.
pub const DEAD_LETTER_REASONS: [&str; 17] = [
    "not_an_object",
    "too_deep",
    "invalid_utf8",
    "invalid_json",
    "no_user_id",
    "odd_user_id",
    "odd_channel_id",
    "id_too_long",
    "too_large",
    "timestamp",
    "invalid",
    "policy",
    "bad_subject",
    "bad_header",
    "unreadable",
    "poison",
    "other",
];

/// The label for a reason: itself, or `other`.
#[must_use]
pub fn dead_letter_reason(reason: &str) -> &'static str {
    let known = DEAD_LETTER_REASONS.iter().find(|known| **known == reason);
    known.copied().unwrap_or("other")
}

/// Every metric of the process, in its own registry.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,

    // The source, for each app, region and stream.
    polls: IntCounterVec,
    poll_duration: HistogramVec,
    events_fetched: IntCounterVec,
    full_pages: IntCounterVec,
    overflow_suspected: IntCounterVec,
    overflow_estimated: IntCounterVec,
    second_poller: IntGaugeVec,
    pages_in_doubt: IntCounterVec,
    events_possibly_lost: IntCounterVec,
    last_successful_poll: GaugeVec,
    arrival_rate: GaugeVec,

    // The source, for each app.
    rate_limited: IntCounterVec,
    credentials_refused: IntCounterVec,
    rate_limit_wait: prometheus::CounterVec,
    requests_unused: IntCounterVec,
    request_budget: IntGaugeVec,
    polling_stopped: IntGaugeVec,
    polling_stopped_seconds: prometheus::CounterVec,
    app_paused: IntGaugeVec,
    insecure_http: IntGauge,

    // The journal.
    journal_bytes: IntGauge,
    journal_used_bytes: IntGauge,
    journal_limit_bytes: IntGauge,
    journal_free_disk_bytes: IntGauge,
    journal_min_free_disk_bytes: IntGauge,
    journal_segments: IntGauge,
    journal_damaged_entries: IntCounter,
    journal_write_failures: IntCounter,
    journal_commit_duration: Histogram,
    journal_failing: IntGauge,
    journal_pending_entries: IntGaugeVec,
    journal_pending_events: IntGaugeVec,
    journal_pending_bytes: IntGaugeVec,
    journal_oldest_pending_age: GaugeVec,

    // The sinks.
    events_stored: IntCounterVec,
    records_confirmed: IntCounterVec,
    records_retried: IntCounterVec,
    records_dead_lettered: IntCounterVec,
    records_dropped: IntCounterVec,
    copies: IntCounterVec,
    publish_duration: HistogramVec,
    publish_batch: HistogramVec,
    event_age: HistogramVec,
    last_confirmation: GaugeVec,
    sink_up: IntGaugeVec,
    producer_rebuilds: IntCounterVec,
    queue_records: IntGaugeVec,
    reconnects: IntCounterVec,
    out_of_order: IntCounterVec,
    round_trip: GaugeVec,

    // The configuration.
    config_last_reload_successful: IntGauge,
    config_last_reload_success: Gauge,
}

/// The handles of one ring, looked up once.
#[derive(Debug, Clone)]
pub struct RingMetrics {
    /// By [`POLL_OUTCOMES`].
    polls: [IntCounter; POLL_OUTCOMES.len()],
    /// Seconds from sending a request to the end of its response.
    pub poll_duration: Histogram,
    /// Events in the pages that were stored.
    pub events_fetched: IntCounter,
    /// Pages of 1,000: more was waiting.
    pub full_pages: IntCounter,
    /// Two full pages in a row: the ring was full.
    pub overflow_suspected: IntCounter,
    /// What that may have cost, estimated.
    pub overflow_estimated: IntCounter,
    in_doubt: [IntCounter; LOSS_REASONS.len()],
    lost: [IntCounter; LOSS_REASONS.len()],
    last_successful_poll: Gauge,
    /// Estimated arrival rate.
    pub arrival_rate: Gauge,
}

/// The handles of one app and sink.
#[derive(Debug, Clone)]
pub struct SinkMetrics {
    /// Records published again.
    pub retried: IntCounter,
    /// Events that another region had given before.
    pub copies: IntCounter,
    /// Seconds that one call of `publish` took.
    pub publish_duration: Histogram,
    /// Records given to one call of `publish`.
    pub batch: Histogram,
    /// Seconds from an event's `ms` to its confirmation.
    pub event_age: Histogram,
    last_confirmation: Gauge,
}

const RING: &[&str] = &["app", "region", "stream"];

impl Metrics {
    /// All metrics, with every series that `config` can lead to.
    #[must_use]
    pub fn new(config: &Config) -> Metrics {
        let r = Registry::new();
        // 1 ms to about 33 s.
        let duration = prometheus::exponential_buckets(0.001, 2.0, 16).unwrap_or_default();
        // Dense where a fresh event's age lies, and up to a day for a backlog.
        let ages = vec![
            0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0,
            10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0, 21600.0, 86400.0,
        ];
        let batches = prometheus::exponential_buckets(1.0, 4.0, 8).unwrap_or_default();
        let metrics = Metrics {
            polls: counters(
                &r,
                "polls_total",
                "Requests to Agora, by outcome",
                &["app", "region", "stream", "outcome"],
            ),
            poll_duration: histograms(
                &r,
                "poll_duration_seconds",
                "From sending a request to the end of its response",
                RING,
                duration.clone(),
            ),
            events_fetched: counters(
                &r,
                "events_fetched_total",
                "Events in the responses that were stored",
                RING,
            ),
            full_pages: counters(
                &r,
                "full_pages_total",
                "Responses of 1,000 events: more was waiting",
                RING,
            ),
            overflow_suspected: counters(
                &r,
                "overflow_suspected_total",
                "Two full responses in a row: the ring was full, and may have overwritten events",
                RING,
            ),
            overflow_estimated: counters(
                &r,
                "overflow_events_estimated_total",
                "Events overwritten at Agora, estimated from the gaps in their times",
                RING,
            ),
            second_poller: int_gauges(
                &r,
                "second_poller_suspected",
                "1 while someone else seems to read this App ID's events",
                &["app"],
            ),
            pages_in_doubt: counters(
                &r,
                "pages_in_doubt_total",
                "Requests that may have deleted events without giving them to us",
                &["app", "region", "stream", "reason"],
            ),
            events_possibly_lost: counters(
                &r,
                "events_possibly_lost_total",
                "Upper bound of the events deleted at Agora and not received",
                &["app", "region", "stream", "reason"],
            ),
            last_successful_poll: gauges(
                &r,
                "last_successful_poll_timestamp_seconds",
                "When a request last succeeded; 0 before the first",
                RING,
            ),
            arrival_rate: gauges(
                &r,
                "arrival_rate_events_per_second",
                "Estimated rate at which events arrive",
                RING,
            ),
            rate_limited: counters(
                &r,
                "rate_limited_total",
                "Responses with status 429",
                &["app"],
            ),
            credentials_refused: counters(
                &r,
                "credentials_refused_total",
                "Responses with status 401 or 403",
                &["app"],
            ),
            rate_limit_wait: float_counters(
                &r,
                "rate_limit_wait_seconds_total",
                "Time in which a request that was due waited for the rate limit",
                &["app"],
            ),
            requests_unused: counters(
                &r,
                "requests_unused_total",
                "Requests that the budget allowed and that were not sent",
                &["app"],
            ),
            request_budget: int_gauges(
                &r,
                "request_budget_per_second",
                "Requests a second that this bridge may send",
                &["app"],
            ),
            polling_stopped: int_gauges(
                &r,
                "polling_stopped",
                "1 while polling waits for room in the journal",
                &["app"],
            ),
            polling_stopped_seconds: float_counters(
                &r,
                "polling_stopped_seconds_total",
                "Time for which polling waited for room in the journal",
                &["app"],
            ),
            app_paused: int_gauges(
                &r,
                "app_paused",
                "1 while the configuration says that the App ID is not polled",
                &["app"],
            ),
            insecure_http: int_gauge(
                &r,
                "insecure_http_regions",
                "Regions that are polled over http:// and are not loopback",
            ),
            journal_bytes: int_gauge(&r, "journal_bytes", "Size of the journal on disk"),
            journal_used_bytes: int_gauge(
                &r,
                "journal_used_bytes",
                "What counts as taken of journal.max_bytes",
            ),
            journal_limit_bytes: int_gauge(
                &r,
                "journal_limit_bytes",
                "Bound on the journal's size",
            ),
            journal_free_disk_bytes: int_gauge(
                &r,
                "journal_free_disk_bytes",
                "Free space on the journal's disk",
            ),
            journal_min_free_disk_bytes: int_gauge(
                &r,
                "journal_min_free_disk_bytes",
                "Free space that the journal leaves alone: below it, polling stops",
            ),
            journal_segments: int_gauge(&r, "journal_segments", "Segment files of the journal"),
            journal_damaged_entries: counter(
                &r,
                "journal_damaged_entries_total",
                "Entries that could not be read back: their events are lost",
            ),
            journal_write_failures: counter(
                &r,
                "journal_write_failures_total",
                "Failed writes and syncs of the journal",
            ),
            journal_commit_duration: histogram(
                &r,
                "journal_commit_duration_seconds",
                "One write and sync of the journal",
                duration.clone(),
            ),
            journal_failing: int_gauge(
                &r,
                "journal_failing",
                "1 while the journal cannot be written, and polling waits",
            ),
            journal_pending_events: int_gauges(
                &r,
                "journal_pending_events",
                "Events that the sink has not confirmed",
                &["app", "sink"],
            ),
            journal_pending_entries: int_gauges(
                &r,
                "journal_pending_entries",
                "Responses that the sink has not confirmed",
                &["app", "sink"],
            ),
            journal_pending_bytes: int_gauges(
                &r,
                "journal_pending_bytes",
                "Their size in the journal",
                &["app", "sink"],
            ),
            journal_oldest_pending_age: gauges(
                &r,
                "journal_oldest_pending_age_seconds",
                "Age of the oldest of them; 0 when there is none",
                &["app", "sink"],
            ),
            events_stored: counters(
                &r,
                "events_stored_total",
                "Events stored for the sink: confirmed, pending, dead-lettered and dropped together. Survives restarts",
                &["app", "sink"],
            ),
            records_confirmed: counters(
                &r,
                "records_confirmed_total",
                "Events that the broker confirmed, dead letters aside. Survives restarts",
                &["app", "sink"],
            ),
            records_dropped: counters(
                &r,
                "records_dropped_total",
                "Events given up for the sink, by reason. Survives restarts",
                &["app", "sink", "reason"],
            ),
            copies: counters(
                &r,
                "cross_region_copies_total",
                "Events that another region had given before",
                &["app", "sink"],
            ),
            records_retried: counters(
                &r,
                "records_retried_total",
                "Records published again",
                &["app", "sink"],
            ),
            records_dead_lettered: counters(
                &r,
                "records_dead_lettered_total",
                "Events that went to the dead letters, confirmed there. Survives restarts",
                &["app", "sink", "reason"],
            ),
            publish_duration: histograms(
                &r,
                "publish_duration_seconds",
                "One batch, from handing it over to its confirmation",
                &["app", "sink"],
                duration,
            ),
            publish_batch: histograms(
                &r,
                "publish_batch_records",
                "Records in a batch",
                &["app", "sink"],
                batches,
            ),
            event_age: histograms(
                &r,
                "event_age_seconds",
                "From an event's time to its confirmation",
                &["app", "sink"],
                ages,
            ),
            last_confirmation: gauges(
                &r,
                "last_confirmation_timestamp_seconds",
                "When the broker last confirmed a batch; 0 before the first",
                &["app", "sink"],
            ),
            sink_up: int_gauges(
                &r,
                "sink_up",
                "0 while a batch has waited 10 s for its confirmation, or the broker refuses us",
                &["sink"],
            ),
            producer_rebuilds: counters(
                &r,
                "producer_rebuilds_total",
                "Times that the client was given up and made anew",
                &["sink"],
            ),
            queue_records: int_gauges(
                &r,
                "producer_queue_records",
                "Records in the client's queue",
                &["sink"],
            ),
            reconnects: counters(
                &r,
                "reconnects_total",
                "Times that the client connected again",
                &["sink"],
            ),
            out_of_order: counters(
                &r,
                "records_out_of_order_total",
                "Records that may be stored after later ones of their key",
                &["sink"],
            ),
            round_trip: gauges(
                &r,
                "broker_round_trip_seconds",
                "The client's average round trip to its brokers; 0 when unknown",
                &["sink"],
            ),
            config_last_reload_successful: int_gauge(
                &r,
                "config_last_reload_successful",
                "1 while the configuration that runs is the one that was last read",
            ),
            config_last_reload_success: register(
                &r,
                Gauge::with_opts(opts(
                    "config_last_reload_success_timestamp_seconds",
                    "When a configuration was last read and taken",
                )),
            ),
            registry: r,
        };
        metrics.build_info();
        metrics.create_series(config);
        metrics
    }

    fn build_info(&self) {
        let info = int_gauges(
            &self.registry,
            "build_info",
            "Always 1; the version and the commit are labels",
            &["version", "commit"],
        );
        info.with_label_values(&[env!("CARGO_PKG_VERSION"), crate::COMMIT])
            .set(1);
        // The process collector has its own, unprefixed names, which every dashboard knows.
        let process = prometheus::process_collector::ProcessCollector::for_self();
        let _ = self.registry.register(Box::new(process));
    }

    /// Adds every series that `config` can lead to, at zero, and says that it was taken.
    pub fn create_series(&self, config: &Config) {
        if rtm_planted::bug("bridge-series-come-late") {
            return;
        }
        for app in &config.apps {
            for region in &app.regions {
                for stream in ["user", "channel"] {
                    let _ = self.ring(&app.name, &region.name, stream);
                }
            }
            let name = &[app.name.as_str()];
            self.rate_limited.with_label_values(name);
            self.credentials_refused.with_label_values(name);
            self.rate_limit_wait.with_label_values(name);
            self.requests_unused.with_label_values(name);
            self.request_budget
                .with_label_values(name)
                .set(i64::from(app.requests_per_second));
            self.polling_stopped.with_label_values(name);
            self.app_paused
                .with_label_values(name)
                .set(i64::from(app.paused));
            self.second_poller.with_label_values(name);
            self.polling_stopped_seconds.with_label_values(name);
            for sink in config.sinks.keys() {
                let _ = self.sink(&app.name, sink);
                let pair = &[app.name.as_str(), sink.as_str()];
                self.set_accounts(&app.name, sink, 0, 0, &Tally::default(), 0);
                self.journal_pending_entries.with_label_values(pair);
                self.journal_pending_bytes.with_label_values(pair);
                self.journal_oldest_pending_age.with_label_values(pair);
            }
        }
        for sink in config.sinks.keys() {
            self.sink_up.with_label_values(&[sink.as_str()]).set(1);
            // What a sink's client counts is known by what it says of itself, before anybody reads it.
            self.set_client(sink, &Health::default());
        }
        let insecure = config
            .apps
            .iter()
            .flat_map(|app| &app.regions)
            .filter(|region| region.allow_insecure_http)
            .count();
        self.insecure_http
            .set(i64::try_from(insecure).unwrap_or(i64::MAX));
        self.journal_limit_bytes
            .set(i64::try_from(config.journal.max_bytes).unwrap_or(i64::MAX));
        self.journal_min_free_disk_bytes
            .set(i64::try_from(config.journal.min_free_bytes).unwrap_or(i64::MAX));
        // What runs was read just now.
        self.config_last_reload_successful.set(1);
        self.config_last_reload_success.set(now());
    }

    /// Says that a configuration was refused: what runs is not what was last read.
    pub fn reload_refused(&self) {
        self.config_last_reload_successful.set(0);
    }

    /// Takes back what says that a ring is being polled. What it may have lost stays.
    pub fn forget_ring(&self, app: &str, region: &str, stream: &str) {
        let ring = &[app, region, stream];
        for outcome in POLL_OUTCOMES {
            let _ = self
                .polls
                .remove_label_values(&[app, region, stream, outcome]);
        }
        let _ = self.last_successful_poll.remove_label_values(ring);
        let _ = self.arrival_rate.remove_label_values(ring);
    }

    /// Shows events that may have been lost before this process started. Of a ring that is polled no more there is no other
    /// series, and this one only where there are such events: they are not forgotten with its region.
    pub fn possibly_lost(&self, app: &str, region: &str, stream: &str, reason: &str, events: u64) {
        let reason = LOSS_REASONS.iter().find(|known| **known == reason);
        if let Some(reason) = reason.filter(|_| events > 0) {
            self.events_possibly_lost
                .with_label_values(&[app, region, stream, reason])
                .inc_by(events);
        }
    }

    /// Counts what the end of the last process may have cost, of one ring, which may be polled no more.
    pub fn crashed(&self, app: &str, region: &str, stream: &str, events: u64) {
        self.pages_in_doubt
            .with_label_values(&[app, region, stream, "crash"])
            .inc();
        self.possibly_lost(app, region, stream, "crash", events);
    }

    /// The handles of one ring.
    #[must_use]
    pub fn ring(&self, app: &str, region: &str, stream: &str) -> RingMetrics {
        let ring = &[app, region, stream];
        RingMetrics {
            polls: POLL_OUTCOMES.map(|outcome| {
                self.polls
                    .with_label_values(&[app, region, stream, outcome])
            }),
            poll_duration: self.poll_duration.with_label_values(ring),
            events_fetched: self.events_fetched.with_label_values(ring),
            full_pages: self.full_pages.with_label_values(ring),
            overflow_suspected: self.overflow_suspected.with_label_values(ring),
            overflow_estimated: self.overflow_estimated.with_label_values(ring),
            in_doubt: LOSS_REASONS.map(|reason| {
                self.pages_in_doubt
                    .with_label_values(&[app, region, stream, reason])
            }),
            lost: LOSS_REASONS.map(|reason| {
                self.events_possibly_lost
                    .with_label_values(&[app, region, stream, reason])
            }),
            last_successful_poll: self.last_successful_poll.with_label_values(ring),
            arrival_rate: self.arrival_rate.with_label_values(ring),
        }
    }

    /// The handles of one app and sink.
    #[must_use]
    pub fn sink(&self, app: &str, sink: &str) -> SinkMetrics {
        let pair = &[app, sink];
        SinkMetrics {
            retried: self.records_retried.with_label_values(pair),
            copies: self.copies.with_label_values(pair),
            publish_duration: self.publish_duration.with_label_values(pair),
            batch: self.publish_batch.with_label_values(pair),
            event_age: self.event_age.with_label_values(pair),
            last_confirmation: self.last_confirmation.with_label_values(pair),
        }
    }

    /// Counts a response with status 429.
    pub fn rate_limited(&self, app: &str) {
        self.rate_limited.with_label_values(&[app]).inc();
    }

    /// Counts a response that refused our credentials.
    pub fn credentials_refused(&self, app: &str) {
        self.credentials_refused.with_label_values(&[app]).inc();
    }

    /// Says whether someone else seems to read an app's events; true where that is new.
    pub fn second_poller(&self, app: &str, suspected: bool) -> bool {
        let gauge = self.second_poller.with_label_values(&[app]);
        let is_new = suspected && gauge.get() == 0;
        gauge.set(i64::from(suspected));
        is_new
    }

    /// Whether someone else seems to read an app's events.
    #[must_use]
    pub fn is_second_poller(&self, app: &str) -> bool {
        self.second_poller.with_label_values(&[app]).get() != 0
    }

    /// Adds to the time in which requests that were due waited for the rate limit.
    pub fn rate_limit_waited(&self, app: &str, waited: Duration) {
        self.rate_limit_wait
            .with_label_values(&[app])
            .inc_by(waited.as_secs_f64());
    }

    /// Says whether polling of an app waits for room, and for how long it has since the last call.
    pub fn polling_stopped(&self, app: &str, stopped: bool, since_last: Duration) {
        self.polling_stopped
            .with_label_values(&[app])
            .set(i64::from(stopped));
        self.polling_stopped_seconds
            .with_label_values(&[app])
            .inc_by(since_last.as_secs_f64());
    }

    /// Raises the count of unused requests to `total`.
    pub fn requests_unused(&self, app: &str, total: u64) {
        raise(&self.requests_unused.with_label_values(&[app]), total);
    }

    /// Counts an entry that could not be read back.
    pub fn journal_damaged(&self) {
        self.journal_damaged_entries.inc();
    }

    /// Observes one write and sync of the journal.
    pub fn journal_committed(&self, took: Duration) {
        self.journal_commit_duration.observe(took.as_secs_f64());
    }

    /// Sets the journal's gauges from its state. `app_of` gives an App ID's name.
    pub fn set_journal(&self, stats: &rtm_journal::Stats, app_of: impl Fn(&str) -> Option<String>) {
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.journal_bytes.set(gauge(stats.bytes));
        self.journal_used_bytes.set(gauge(stats.used_bytes));
        self.journal_limit_bytes.set(gauge(stats.max_bytes));
        self.journal_free_disk_bytes
            .set(gauge(stats.free_bytes.unwrap_or_default()));
        self.journal_segments.set(gauge(stats.segments as u64));
        raise(&self.journal_write_failures, stats.write_failures);
        self.journal_failing.set(i64::from(stats.failing));
        for lane in &stats.lanes {
            let Some(app) = app_of(lane.name.as_str()) else {
                continue;
            };
            for reader in &lane.readers {
                let sink = reader.name.as_str();
                // A sink's second cursor holds nothing of its own.
                if sink.ends_with(crate::assemble::BEHIND) {
                    continue;
                }
                let pair = &[app.as_str(), sink];
                let tally = Tally::decode(&reader.tally);
                let stored = reader.passed + reader.pending_count + reader.missing;
                self.set_accounts(
                    &app,
                    sink,
                    stored,
                    reader.pending_count,
                    &tally,
                    reader.missing,
                );
                self.journal_pending_entries
                    .with_label_values(pair)
                    .set(gauge(reader.pending_entries));
                self.journal_pending_bytes
                    .with_label_values(pair)
                    .set(gauge(reader.pending_bytes));
                let age = reader
                    .oldest_pending_age
                    .map_or(0.0, |age| age.as_secs_f64());
                self.journal_oldest_pending_age
                    .with_label_values(pair)
                    .set(age);
            }
        }
    }

    /// Sets the account of one app and sink from what the journal says, all of one moment, so that it balances.
    fn set_accounts(
        &self,
        app: &str,
        sink: &str,
        stored: u64,
        pending: u64,
        tally: &Tally,
        missing: u64,
    ) {
        let pair = &[app, sink];
        raise(&self.events_stored.with_label_values(pair), stored);
        raise(
            &self.records_confirmed.with_label_values(pair),
            tally.confirmed,
        );
        self.journal_pending_events
            .with_label_values(pair)
            .set(i64::try_from(pending).unwrap_or(i64::MAX));
        for reason in DEAD_LETTER_REASONS {
            let events = tally.dead_lettered.get(reason).copied().unwrap_or(0);
            let counter = &self.records_dead_lettered;
            raise(&counter.with_label_values(&[app, sink, reason]), events);
        }
        for reason in DROP_REASONS {
            let events = tally.dropped.get(reason).copied().unwrap_or(0);
            let lost = if reason == "damaged" { missing } else { 0 };
            let counter = &self.records_dropped;
            raise(
                &counter.with_label_values(&[app, sink, reason]),
                events + lost,
            );
        }
    }

    /// Says whether a sink takes records.
    pub fn set_sink_up(&self, sink: &str, up: bool) {
        self.sink_up.with_label_values(&[sink]).set(i64::from(up));
    }

    /// Sets what a broker's client says of itself.
    pub fn set_client(&self, sink: &str, client: &Health) {
        let label = &[sink];
        raise(
            &self.producer_rebuilds.with_label_values(label),
            client.rebuilds,
        );
        raise(&self.reconnects.with_label_values(label), client.reconnects);
        if let Some(out_of_order) = client.out_of_order {
            raise(&self.out_of_order.with_label_values(label), out_of_order);
        }
        if let Some(queue) = &client.queue {
            self.queue_records
                .with_label_values(label)
                .set(i64::try_from(queue.records).unwrap_or(i64::MAX));
            self.round_trip
                .with_label_values(label)
                .set(queue.round_trip.as_secs_f64());
        }
    }

    /// The text that Prometheus reads.
    #[must_use]
    pub fn render(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap_or_default()
    }
}

impl RingMetrics {
    /// Counts a poll by its outcome, one of [`POLL_OUTCOMES`].
    pub fn polled(&self, outcome: &str) {
        if let Some(index) = POLL_OUTCOMES.iter().position(|known| *known == outcome) {
            self.polls[index].inc();
        }
        if matches!(outcome, "page" | "empty") {
            self.last_successful_poll.set(now());
        }
    }

    /// Counts a page in doubt and the events that it may have cost.
    pub fn in_doubt(&self, reason: &str, possibly_lost: u64) {
        let index = LOSS_REASONS
            .iter()
            .position(|known| *known == reason)
            .unwrap_or(2);
        self.in_doubt[index].inc();
        self.lost[index].inc_by(possibly_lost);
    }

    /// Events that may have been lost, all reasons together, across restarts.
    #[must_use]
    pub fn possibly_lost_ever(&self) -> u64 {
        self.lost.iter().map(IntCounter::get).sum()
    }

    /// When a request last succeeded, in seconds since the Unix epoch; 0 before the first.
    #[must_use]
    pub fn last_success(&self) -> f64 {
        self.last_successful_poll.get()
    }
}

impl SinkMetrics {
    /// Notes that the broker confirmed something now.
    pub fn confirmed_now(&self) {
        self.last_confirmation.set(now());
    }

    /// When the broker last confirmed, in seconds since the Unix epoch; 0 before the first time.
    #[must_use]
    pub fn last_confirmation(&self) -> f64 {
        self.last_confirmation.get()
    }
}

fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

/// A counter that follows a total kept elsewhere, and never falls.
fn raise(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

fn register<C: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    metric: prometheus::Result<C>,
) -> C {
    // Names and labels are constants of this file: a mistake in them fails the first test that makes a `Metrics`.
    let metric = metric.expect("a metric's name and labels are valid");
    registry
        .register(Box::new(metric.clone()))
        .expect("a metric's name is used once");
    metric
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("rtm_bridge")
}

fn counters(r: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    register(r, IntCounterVec::new(opts(name, help), labels))
}

fn float_counters(r: &Registry, name: &str, help: &str, labels: &[&str]) -> prometheus::CounterVec {
    register(r, prometheus::CounterVec::new(opts(name, help), labels))
}

fn counter(r: &Registry, name: &str, help: &str) -> IntCounter {
    register(r, IntCounter::with_opts(opts(name, help)))
}

fn gauges(r: &Registry, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
    register(r, GaugeVec::new(opts(name, help), labels))
}

fn int_gauges(r: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    register(r, IntGaugeVec::new(opts(name, help), labels))
}

fn int_gauge(r: &Registry, name: &str, help: &str) -> IntGauge {
    register(r, IntGauge::with_opts(opts(name, help)))
}

fn histograms(
    r: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
    buckets: Vec<f64>,
) -> HistogramVec {
    register(
        r,
        HistogramVec::new(
            HistogramOpts::from(opts(name, help)).buckets(buckets),
            labels,
        ),
    )
}

fn histogram(r: &Registry, name: &str, help: &str, buckets: Vec<f64>) -> Histogram {
    register(
        r,
        Histogram::with_opts(HistogramOpts::from(opts(name, help)).buckets(buckets)),
    )
}

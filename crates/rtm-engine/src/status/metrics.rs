//! Every metric, once: a row of the table below, and a call where it is counted or set. `docs/metrics.md` lists them all.
//!
//! Labels come from configuration and from fixed sets only: never a user or a channel. Every series exists, at zero, from
//! the start of what it is about: of the process, of an App ID, of its way into a sink. Gauges are set from state when
//! `/metrics` is read, never counted up and down.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prometheus::process_collector::ProcessCollector;
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, Histogram, IntCounter, TextEncoder};

use crate::lock::lock;
use crate::tally::{DEAD_LETTER_REASONS, DROP_REASONS, Tally};

mod by_app;
mod family;
mod process;

use family::Family;

/// Outcomes of a poll, as labels.
pub const POLL_OUTCOMES: [&str; 5] = ["page", "empty", "not_sent", "refused", "in_doubt"];

/// Why events may have been lost at the source, as labels.
pub const LOSS_REASONS: [&str; 4] = ["cut", "timeout", "status", "crash"];

/// What became of a call whose outcome was unknown, as labels.
pub const RECALL_RESULTS: [&str; 3] = ["stored", "not_stored", "elsewhere"];

/// Why events that were confirmed are published again, as labels.
pub const REPUBLISH_REASONS: [&str; 1] = ["rollback"];

/// Upper bounds for what takes a moment, in seconds.
const DURATIONS: [f64; 16] = [
    0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096,
    8.192, 16.384, 32.768,
];

/// Upper bounds for an event's age, in seconds: dense where that of a fresh event lies, and up to a day for a backlog.
/// Between a minute and half an hour, as long as most outages of a broker, none is more than twice the one below it.
const AGES: [f64; 28] = [
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0, 90.0, 120.0, 180.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 21600.0, 86400.0,
];

/// Upper bounds for the records of a batch.
const RECORDS: [f64; 8] = [1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0];

/// Makes [`Metrics`] of rows: what a series is, the name, the labels, the help text; of a histogram its buckets. Where the
/// last label has a fixed set of values, each of these gets its series from the start.
macro_rules! metrics {
    ($($kind:ident $name:ident [$($label:ident),* $(in $values:ident)?] $help:literal $(by $buckets:ident)?;)*) => {
        /// Every metric of the process, with its help text.
        #[derive(Debug)]
        pub struct Metrics {
            process: ProcessCollector,
            /// Whether the rings of an App ID are shown as one.
            by_app: AtomicBool,
            /// Why the configuration that was last read does not run, and since when; none while it does.
            refusal: Mutex<Option<Refusal>>,
            $(#[doc = $help] $name: Family<$kind>,)*
        }

        impl Metrics {
            fn without_series() -> Metrics {
                Metrics {
                    process: ProcessCollector::for_self(),
                    by_app: AtomicBool::new(false),
                    refusal: Mutex::new(None),
                    $($name: Family::new(stringify!($name), $help, &[$(stringify!($label)),*])
                        $(.with_values(&$values))?
                        $(.with_buckets(&$buckets))?,)*
                }
            }

            /// Adds the series of every metric that has these labels and no other, one with a fixed set of values aside.
            fn add(&self, labels: &[(&str, &str)]) {
                $(self.$name.add(labels);)*
            }

            /// Removes the series of every metric that have these labels and values, whatever other labels they have, those
            /// with the label `but` aside.
            fn remove(&self, labels: &[(&str, &str)], but: Option<&str>) {
                $(if but.is_none_or(|but| ![$(stringify!($label)),*].contains(&but)) {
                    self.$name.remove(labels);
                })*
            }

            fn collect(&self) -> Vec<MetricFamily> {
                vec![$(self.$name.collect()),*]
            }
        }
    };
}

metrics! {
    // The source, of each app, region and stream.
    IntCounter polls_total [app, region, stream, outcome in POLL_OUTCOMES] "Requests to Agora, by outcome";
    Histogram poll_duration_seconds [app, region, stream]
        "From sending a request to the end of its response" by DURATIONS;
    IntCounter events_fetched_total [app, region, stream] "Events in the responses that were stored";
    IntCounter full_pages_total [app, region, stream] "Responses of 1,000 events: more was waiting";
    IntCounter overflow_suspected_total [app, region, stream]
        "Two full responses in a row: the ring was full, and may have overwritten events";
    IntCounter overflow_events_estimated_total [app, region, stream]
        "Events overwritten at Agora, estimated from the gaps in their times";
    IntCounter pages_in_doubt_total [app, region, stream, reason in LOSS_REASONS]
        "Requests that may have deleted events without giving them to us";
    IntCounter events_possibly_lost_total [app, region, stream, reason in LOSS_REASONS]
        "Upper bound of the events deleted at Agora and not received";
    IntCounter events_possibly_lost_estimated_total [app, region, stream]
        "Events deleted at Agora and not received, estimated from the rate at which they come";
    Gauge last_successful_poll_timestamp_seconds [app, region, stream]
        "When a request last succeeded; 0 before the first";
    Gauge arrival_rate_events_per_second [app, region, stream] "Estimated rate at which events arrive";

    // The source, of each app.
    Gauge second_poller_suspected [app] "1 while someone else seems to read this App ID's events";
    IntCounter rate_limited_total [app] "Responses with status 429";
    IntCounter credentials_refused_total [app] "Responses with status 401 or 403";
    Counter rate_limit_wait_seconds_total [app] "Time in which a request that was due waited for the rate limit";
    IntCounter requests_unused_total [app] "Requests that the budget allowed and that were not sent";
    Gauge request_budget_per_second [app] "Requests a second that this bridge may send";
    Gauge polling_stopped [app] "1 while polling waits for room in the journal";
    Counter polling_stopped_seconds_total [app] "Time for which polling waited for room in the journal";
    Gauge app_paused [app] "1 while the configuration says that the App ID is not polled";
    Gauge insecure_http_regions [] "Regions that are polled over http:// and are not loopback";

    // The journal.
    Gauge journal_bytes [] "Size of the journal on disk";
    Gauge journal_used_bytes [] "What counts as taken of journal.max_bytes";
    Gauge journal_limit_bytes [] "Bound on the journal's size";
    Gauge journal_free_disk_bytes [] "Free space on the journal's disk";
    Gauge journal_min_free_disk_bytes [] "Free space that the journal leaves alone: below it, polling stops";
    Gauge journal_segments [] "Segment files of the journal";
    Gauge removed_sinks_pending_events [] "Events that wait in the journal for sinks that the configuration gives them no more";
    IntCounter journal_damaged_entries_total [] "Entries that could not be read back: their events are lost";
    IntCounter journal_write_failures_total [] "Failed writes and syncs of the journal";
    Histogram journal_commit_duration_seconds [] "One write and sync of the journal" by DURATIONS;
    Gauge journal_failing [] "1 while the journal cannot be written, and polling waits";
    Gauge journal_unreadable [] "1 while entries of the journal cannot be read, and wait in it";

    // The journal, of each app and sink.
    Gauge journal_pending_events [app, sink] "Events that the sink has not confirmed";
    Gauge journal_pending_entries [app, sink] "Responses that the sink has not confirmed";
    Gauge journal_pending_bytes [app, sink] "Their size in the journal";
    Gauge journal_oldest_pending_age_seconds [app, sink] "Age of the oldest of them; 0 when there is none";
    IntCounter events_stored_total [app, sink]
        "Events stored for the sink: confirmed, pending, dead-lettered and dropped together. Survives restarts";
    IntCounter records_confirmed_total [app, sink]
        "Events that the broker confirmed, dead letters aside. Survives restarts";
    IntCounter records_dead_lettered_total [app, sink, reason in DEAD_LETTER_REASONS]
        "Events that went to the dead letters, confirmed there. Survives restarts";
    IntCounter records_dropped_total [app, sink, reason in DROP_REASONS]
        "Events given up for the sink, by reason. Survives restarts";

    // Publishing, of each app and sink.
    IntCounter records_retried_total [app, sink] "Records published again";
    IntCounter events_republished_total [app, sink, reason in REPUBLISH_REASONS]
        "Events that the broker had confirmed and are published again, by reason";
    IntCounter events_lost_at_broker_total [app, sink]
        "Upper bound of the events that the broker had confirmed and lost, and that are not held any more";
    IntCounter cross_region_copies_total [app, sink] "Events that another region had given before";
    Histogram publish_duration_seconds [app, sink]
        "One batch, from handing it over to its confirmation" by DURATIONS;
    Histogram publish_batch_records [app, sink] "Records in a batch" by RECORDS;
    Histogram event_age_seconds [app, sink] "From an event's time to its confirmation" by AGES;
    Gauge last_confirmation_timestamp_seconds [app, sink]
        "When the broker last confirmed a batch; 0 before the first";

    // Once and only once, of each app and sink.
    Gauge exact_fenced [app, sink]
        "1 while another process publishes the same journal, and this one publishes nothing of the App ID";
    IntCounter exact_in_doubt_total [app, sink] "Calls of unknown outcome, about which the broker is asked";
    IntCounter exact_recalls_total [app, sink, result in RECALL_RESULTS] "What the broker said of such a call";
    IntCounter exact_progress_unknown_total [app, sink]
        "Times that the broker did not know, or not of this journal, how far it is published: events may be stored twice";

    // The sinks.
    Gauge sink_up [sink] "0 while a batch has waited 10 s for its confirmation, or the broker refuses us";
    IntCounter producer_rebuilds_total [sink] "Times that the client was given up and made anew";
    IntCounter reconnects_total [sink] "Times that the client connected again";
    Gauge producer_queue_records [sink] "Records in the client's queue";
    Gauge broker_round_trip_seconds [sink] "The client's average round trip to its brokers; 0 when unknown";
    IntCounter records_out_of_order_total [sink] "Records that may be stored after later ones of their key";

    // The process.
    IntCounter log_lines_dropped_total [] "Lines of the log that standard error did not take in time";
    Gauge build_info [version, commit] "Always 1; the version and the commit are labels";
    Gauge config_last_reload_successful [] "1 while the configuration that runs is the one that was last read";
    Gauge config_last_reload_success_timestamp_seconds [] "When a configuration was last read and taken";
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
    /// By [`LOSS_REASONS`], as the next.
    in_doubt: [IntCounter; LOSS_REASONS.len()],
    lost: [IntCounter; LOSS_REASONS.len()],
    /// What a response in doubt may have cost, estimated.
    pub lost_estimated: IntCounter,
    last_successful_poll: Gauge,
    /// Estimated arrival rate.
    pub arrival_rate: Gauge,
}

/// The handles of one app and sink.
#[derive(Debug, Clone)]
pub struct SinkMetrics {
    /// Records published again.
    pub retried: IntCounter,
    /// Events that are published again because the broker had lost them.
    pub republished: IntCounter,
    /// Events that the broker may have lost, and that are not held any more.
    pub lost_at_broker: IntCounter,
    /// Events that another region had given before.
    pub copies: IntCounter,
    /// Seconds that one call of `publish` took.
    pub publish_duration: Histogram,
    /// Records given to one call of `publish`.
    pub batch: Histogram,
    /// Seconds from an event's `ms` to its confirmation.
    pub event_age: Histogram,
    /// 1 while another process publishes the same journal.
    pub fenced: Gauge,
    /// Calls of unknown outcome.
    pub in_doubt: IntCounter,
    /// By [`RECALL_RESULTS`].
    recalls: [IntCounter; RECALL_RESULTS.len()],
    /// Times that the broker's progress did not fit the journal.
    pub progress_unknown: IntCounter,
    last_confirmation: Gauge,
}

/// What comes and goes. What is removed must be used no more: a later call would bring some of its series back.
impl Metrics {
    /// Those of a process that has neither apps nor sinks yet.
    pub fn new(version: &str, commit: &str) -> Metrics {
        let metrics = Metrics::without_series();
        metrics.add(&[]);
        metrics.build_info.of(&[version, commit]).set(1.0);
        metrics
    }

    /// Adds an app, or says anew what the configuration says of it.
    pub fn add_app(&self, app: &str, requests_per_second: u32, paused: bool) {
        self.add(&[("app", app)]);
        let budget = self.request_budget_per_second.of(&[app]);
        budget.set(f64::from(requests_per_second));
        self.app_paused.of(&[app]).set(f64::from(paused));
    }

    /// Removes an app and its rings. Its ways into sinks are removed each by itself.
    pub fn remove_app(&self, app: &str) {
        self.remove(&[("app", app)], Some("sink"));
    }

    /// Adds a ring that is polled, where it is not there yet, and gives its handles.
    pub fn ring(&self, app: &str, region: &str, stream: &str) -> RingMetrics {
        let ring = &[app, region, stream];
        self.add(&[("app", app), ("region", region), ("stream", stream)]);
        let by = |metric: &Family<IntCounter>, value| metric.of(&[app, region, stream, value]);
        RingMetrics {
            polls: POLL_OUTCOMES.map(|outcome| by(&self.polls_total, outcome)),
            poll_duration: self.poll_duration_seconds.of(ring),
            events_fetched: self.events_fetched_total.of(ring),
            full_pages: self.full_pages_total.of(ring),
            overflow_suspected: self.overflow_suspected_total.of(ring),
            overflow_estimated: self.overflow_events_estimated_total.of(ring),
            in_doubt: LOSS_REASONS.map(|reason| by(&self.pages_in_doubt_total, reason)),
            lost: LOSS_REASONS.map(|reason| by(&self.events_possibly_lost_total, reason)),
            lost_estimated: self.events_possibly_lost_estimated_total.of(ring),
            last_successful_poll: self.last_successful_poll_timestamp_seconds.of(ring),
            arrival_rate: self.arrival_rate_events_per_second.of(ring),
        }
    }

    /// Takes back what says that a ring is being polled. What it may have lost stays.
    pub fn forget_ring(&self, app: &str, region: &str, stream: &str) {
        let ring = &[("app", app), ("region", region), ("stream", stream)];
        self.polls_total.remove(ring);
        self.last_successful_poll_timestamp_seconds.remove(ring);
        self.arrival_rate_events_per_second.remove(ring);
    }

    /// Adds an app's way into a sink.
    pub fn add_pair(&self, app: &str, sink: &str) {
        self.add(&[("app", app), ("sink", sink)]);
    }

    /// Removes an app's way into a sink.
    pub fn remove_pair(&self, app: &str, sink: &str) {
        self.remove(&[("app", app), ("sink", sink)], None);
    }

    /// The handles of an app's way into a sink.
    pub fn sink(&self, app: &str, sink: &str) -> SinkMetrics {
        let pair = &[app, sink];
        SinkMetrics {
            retried: self.records_retried_total.of(pair),
            republished: (self.events_republished_total).of(&[app, sink, REPUBLISH_REASONS[0]]),
            lost_at_broker: self.events_lost_at_broker_total.of(pair),
            copies: self.cross_region_copies_total.of(pair),
            publish_duration: self.publish_duration_seconds.of(pair),
            batch: self.publish_batch_records.of(pair),
            event_age: self.event_age_seconds.of(pair),
            fenced: self.exact_fenced.of(pair),
            in_doubt: self.exact_in_doubt_total.of(pair),
            recalls: RECALL_RESULTS.map(|result| self.exact_recalls_total.of(&[app, sink, result])),
            progress_unknown: self.exact_progress_unknown_total.of(pair),
            last_confirmation: self.last_confirmation_timestamp_seconds.of(pair),
        }
    }

    /// Says what a sink's client says of itself, and whether the sink takes records. The first call adds the sink.
    pub fn set_sink(&self, sink: &str, up: bool, client: &rtm_sink::Health) {
        let sink = &[sink];
        self.sink_up.of(sink).set(f64::from(up));
        raise(&self.producer_rebuilds_total.of(sink), client.rebuilds);
        raise(&self.reconnects_total.of(sink), client.reconnects);
        if let Some(out_of_order) = client.out_of_order {
            raise(&self.records_out_of_order_total.of(sink), out_of_order);
        }
        if let Some(queue) = &client.queue {
            let (records, round_trip) = (queue.records as f64, queue.round_trip.as_secs_f64());
            self.producer_queue_records.of(sink).set(records);
            self.broker_round_trip_seconds.of(sink).set(round_trip);
        }
    }

    /// Removes a sink. Apps' ways into it are removed each by itself.
    pub fn remove_sink(&self, sink: &str) {
        self.remove(&[("sink", sink)], Some("app"));
    }
}

/// A configuration that was read and not taken.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// What is wrong with it, a line for each.
    pub problems: Vec<String>,
    /// When the first of those that followed each other was refused.
    pub since: Instant,
}

/// What happens.
impl Metrics {
    /// Says whether the rings of an App ID are shown as one, without the labels `region` and `stream`.
    pub fn set_by_app(&self, by_app: bool) {
        self.by_app.store(by_app, Ordering::Relaxed);
    }

    /// Says that a configuration was read and taken.
    pub fn config_taken(&self) {
        *lock(&self.refusal) = None;
        self.config_last_reload_successful.of(&[]).set(1.0);
        let when = self.config_last_reload_success_timestamp_seconds.of(&[]);
        when.set(now());
    }

    /// Says that a configuration was refused, and why: what runs is not what was last read.
    pub fn reload_refused(&self, problems: Vec<String>) {
        self.config_last_reload_successful.of(&[]).set(0.0);
        let mut refusal = lock(&self.refusal);
        let since = refusal
            .as_ref()
            .map_or_else(Instant::now, |first| first.since);
        *refusal = Some(Refusal { problems, since });
    }

    /// The configuration that was refused last, until one is taken.
    pub fn refusal(&self) -> Option<Refusal> {
        lock(&self.refusal).clone()
    }

    /// Raises the count of lines of the log that were dropped to `total`.
    pub fn log_lines_dropped(&self, total: u64) {
        raise(&self.log_lines_dropped_total.of(&[]), total);
    }

    /// Says how many regions are polled in the clear.
    pub fn set_insecure_http(&self, regions: usize) {
        self.insecure_http_regions.of(&[]).set(regions as f64);
    }

    /// Shows events that may have been lost before this process started. Of a ring that is polled no more there is no other
    /// series, and this one only where there are such events: they are not forgotten with its region.
    pub fn possibly_lost(&self, app: &str, region: &str, stream: &str, reason: &str, events: u64) {
        if events > 0 && LOSS_REASONS.contains(&reason) {
            let lost = &self.events_possibly_lost_total;
            lost.of(&[app, region, stream, reason]).inc_by(events);
        }
    }

    /// Counts what the end of the last process may have cost, of one ring, which may be polled no more.
    pub fn crashed(&self, app: &str, region: &str, stream: &str, events: u64) {
        let in_doubt = &self.pages_in_doubt_total;
        in_doubt.of(&[app, region, stream, "crash"]).inc();
        self.possibly_lost(app, region, stream, "crash", events);
    }

    /// Counts a response with status 429.
    pub fn rate_limited(&self, app: &str) {
        self.rate_limited_total.of(&[app]).inc();
    }

    /// Counts a response that refused our credentials.
    pub fn credentials_refused(&self, app: &str) {
        self.credentials_refused_total.of(&[app]).inc();
    }

    /// Says whether someone else seems to read an app's events; true where that is new.
    pub fn second_poller(&self, app: &str, suspected: bool) -> bool {
        let is_new = suspected && !self.is_second_poller(app);
        let gauge = self.second_poller_suspected.of(&[app]);
        gauge.set(f64::from(suspected));
        is_new
    }

    /// Whether someone else seems to read an app's events.
    pub fn is_second_poller(&self, app: &str) -> bool {
        self.second_poller_suspected.of(&[app]).get() != 0.0
    }

    /// Adds to the time in which requests that were due waited for the rate limit.
    pub fn rate_limit_waited(&self, app: &str, waited: Duration) {
        let total = self.rate_limit_wait_seconds_total.of(&[app]);
        total.inc_by(waited.as_secs_f64());
    }

    /// Says whether polling of an app waits for room, and for how long it has since the last call.
    pub fn polling_stopped(&self, app: &str, stopped: bool, since_last: Duration) {
        self.polling_stopped.of(&[app]).set(f64::from(stopped));
        let total = self.polling_stopped_seconds_total.of(&[app]);
        total.inc_by(since_last.as_secs_f64());
    }

    /// Raises the count of unused requests to `total`.
    pub fn requests_unused(&self, app: &str, total: u64) {
        raise(&self.requests_unused_total.of(&[app]), total);
    }

    /// Counts an entry that could not be read back.
    pub fn journal_damaged(&self) {
        self.journal_damaged_entries_total.of(&[]).inc();
    }

    /// Observes one write and sync of the journal.
    pub fn journal_committed(&self, took: Duration) {
        let took = took.as_secs_f64();
        self.journal_commit_duration_seconds.of(&[]).observe(took);
    }

    /// How often the journal was written, and for how many seconds.
    pub fn journal_commits(&self) -> (u64, f64) {
        let commits = self.journal_commit_duration_seconds.of(&[]);
        (commits.get_sample_count(), commits.get_sample_sum())
    }

    /// Says how much space the journal leaves alone on its disk.
    pub fn set_min_free_disk(&self, bytes: u64) {
        self.journal_min_free_disk_bytes.of(&[]).set(bytes as f64);
    }

    /// Sets what the journal says of itself.
    pub fn set_journal(&self, stats: &rtm_journal::Stats) {
        let set = |gauge: &Family<Gauge>, value: u64| gauge.of(&[]).set(value as f64);
        set(&self.journal_bytes, stats.bytes);
        set(&self.journal_used_bytes, stats.used_bytes);
        set(&self.journal_limit_bytes, stats.max_bytes);
        let free_bytes = stats.free_bytes.unwrap_or_default();
        set(&self.journal_free_disk_bytes, free_bytes);
        set(&self.journal_segments, stats.segments as u64);
        set(&self.journal_failing, u64::from(stats.failing));
        set(
            &self.journal_unreadable,
            u64::from(stats.unreadable.is_some()),
        );
        let write_failures = self.journal_write_failures_total.of(&[]);
        raise(&write_failures, stats.write_failures);
    }

    /// Sets what waits for sinks that left the configuration.
    pub fn set_removed_sinks(&self, pending_events: u64) {
        let pending = self.removed_sinks_pending_events.of(&[]);
        pending.set(pending_events as f64);
    }

    /// Sets the account of an app and a sink: what the journal says of the sink's reader, all of one moment, so that the
    /// account balances.
    pub fn set_account(&self, app: &str, reader: &rtm_journal::ReaderStats) {
        let pair = &[app, reader.name.as_str()];
        let by = |metric: &Family<IntCounter>, reason| metric.of(&[pair[0], pair[1], reason]);
        let tally = Tally::decode(&reader.tally);
        let stored = reader.passed + reader.pending_count + reader.missing;
        raise(&self.events_stored_total.of(pair), stored);
        raise(&self.records_confirmed_total.of(pair), tally.confirmed);
        for reason in DEAD_LETTER_REASONS {
            let events = tally.dead_lettered.get(reason).copied().unwrap_or(0);
            raise(&by(&self.records_dead_lettered_total, reason), events);
        }
        for reason in DROP_REASONS {
            let events = tally.dropped.get(reason).copied().unwrap_or(0);
            let lost = if reason == "damaged" {
                reader.missing
            } else {
                0
            };
            raise(&by(&self.records_dropped_total, reason), events + lost);
        }
        let set = |gauge: &Family<Gauge>, value: f64| gauge.of(pair).set(value);
        set(&self.journal_pending_events, reader.pending_count as f64);
        set(&self.journal_pending_entries, reader.pending_entries as f64);
        set(&self.journal_pending_bytes, reader.pending_bytes as f64);
        let age = reader.oldest_pending_age.unwrap_or_default();
        set(&self.journal_oldest_pending_age_seconds, age.as_secs_f64());
    }

    /// The text that Prometheus reads.
    pub fn render(&self) -> String {
        let mut families = self.collect();
        if self.by_app.load(Ordering::Relaxed) {
            families.iter_mut().for_each(by_app::merge);
        }
        families.extend(process::collect(&self.process));
        families.retain(|family| !family.get_metric().is_empty());
        families.sort_by(|a, b| a.name().cmp(b.name()));
        let text = TextEncoder::new().encode_to_string(&families);
        text.unwrap_or_default()
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
    pub fn possibly_lost_ever(&self) -> u64 {
        self.lost.iter().map(IntCounter::get).sum()
    }
}

impl SinkMetrics {
    /// Notes that the broker confirmed something now.
    pub fn confirmed_now(&self) {
        self.last_confirmation.set(now());
    }

    /// Counts what the broker said of a call of unknown outcome, one of [`RECALL_RESULTS`].
    pub fn recalled(&self, result: &str) {
        if let Some(index) = RECALL_RESULTS.iter().position(|known| *known == result) {
            self.recalls[index].inc();
        }
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

#[cfg(test)]
mod tests;

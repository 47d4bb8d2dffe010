//! What was measured: as a table for people, as JSON for programs.

use std::fmt;
use std::time::Duration;

use rtm_sim::SimStats;
use serde::Serialize;

use super::BenchArgs;
use crate::read_back::{Arrived, Held};
use crate::usage::Usage;

/// See the module. The fields' names are those of the JSON document.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    rate_asked: f64,
    seconds: f64,
    apps: u16,
    regions: u16,
    events: u64,
    events_per_second: f64,
    lost_at_the_ring: u64,
    requests: u64,
    most_requests_of_an_app_in_a_second: u64,
    refused_429: u64,
    cpu_seconds_per_million_events: f64,
    cpu_user_seconds_per_million_events: f64,
    cpu_system_seconds_per_million_events: f64,
    cpu_cores: f64,
    peak_memory_bytes: u64,
    threads: u64,
    written_bytes_per_event: f64,
    context_switches_per_thousand_events: f64,
    sinks: Vec<SinkReport>,
    /// Nothing is missing, and nothing is wrong.
    pub(super) clean: bool,
}

#[derive(Debug, Serialize)]
struct SinkReport {
    name: String,
    found: u64,
    missing: u64,
    duplicates: u64,
    dead_letters: u64,
    /// Altered, out of order and the like; what is wrong stands in `examples`.
    clean: bool,
    examples: Vec<String>,
    /// None where the sink does not tell when it stored a record.
    age_ms: Option<Ages>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Ages {
    p50: i64,
    p99: i64,
    max: i64,
}

impl Report {
    pub(super) fn new(
        args: &BenchArgs,
        took: Duration,
        used: &Usage,
        stats: &SimStats,
        held: &[Held],
    ) -> Report {
        let rings = || stats.rings.iter();
        let events: u64 = rings().map(|ring| ring.handed_out).sum();
        let each = |what: f64| what / (events.max(1) as f64);
        let seconds = took.as_secs_f64();
        let sinks: Vec<SinkReport> = held.iter().map(SinkReport::new).collect();
        Report {
            rate_asked: args.rate,
            seconds,
            apps: args.apps,
            regions: args.regions,
            events,
            events_per_second: events as f64 / seconds,
            lost_at_the_ring: rings().map(|ring| ring.overwritten).sum(),
            requests: super::requests(stats),
            most_requests_of_an_app_in_a_second: stats
                .apps
                .iter()
                .map(|app| app.max_in_second)
                .max()
                .unwrap_or_default(),
            refused_429: stats.apps.iter().map(|app| app.refused_429).sum(),
            cpu_seconds_per_million_events: each(used.cpu() * 1e6),
            cpu_user_seconds_per_million_events: each(used.user * 1e6),
            cpu_system_seconds_per_million_events: each(used.system * 1e6),
            cpu_cores: used.cpu() / seconds,
            peak_memory_bytes: used.peak,
            threads: used.threads,
            written_bytes_per_event: each(used.written as f64),
            context_switches_per_thousand_events: each(used.switches as f64 * 1e3),
            clean: events > 0 && sinks.iter().all(|sink| sink.clean),
            sinks,
        }
    }
}

impl SinkReport {
    fn new(held: &Held) -> SinkReport {
        let findings = &held.findings;
        SinkReport {
            name: held.sink.clone(),
            found: findings.seen_distinct,
            missing: findings.missing_count,
            duplicates: findings.duplicates,
            dead_letters: findings.dead_lettered,
            clean: findings.clean() || rtm_planted::bug("bridge-bench-missing-is-clean"),
            examples: findings.examples.clone(),
            age_ms: ages(held.arrived.values().flatten()),
        }
    }
}

fn ages<'a>(arrived: impl Iterator<Item = &'a Arrived>) -> Option<Ages> {
    let mut ages: Vec<i64> = arrived.map(|arrived| arrived.age()).collect();
    ages.sort_unstable();
    let at = |share: usize| ages.get(ages.len() * share / 100).copied();
    Some(Ages {
        p50: at(50)?,
        p99: at(99)?,
        max: *ages.last()?,
    })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |what: &str, value: String| writeln!(f, "{what:<34} {value}");
        line(
            "events",
            format!(
                "{} in {:.1} s, {:.0}/s of {:.0}/s asked for",
                self.events, self.seconds, self.events_per_second, self.rate_asked
            ),
        )?;
        line(
            "App IDs, regions",
            format!("{}, {} each", self.apps, self.regions),
        )?;
        line(
            "CPU s per million events",
            format!(
                "{:.2} (user {:.2}, system {:.2})",
                self.cpu_seconds_per_million_events,
                self.cpu_user_seconds_per_million_events,
                self.cpu_system_seconds_per_million_events
            ),
        )?;
        line("CPU cores", format!("{:.3}", self.cpu_cores))?;
        line(
            "peak memory",
            format!(
                "{:.1} MiB, {} threads",
                self.peak_memory_bytes as f64 / f64::from(1 << 20),
                self.threads
            ),
        )?;
        line(
            "written to disk per event",
            format!("{:.1} bytes", self.written_bytes_per_event),
        )?;
        line(
            "context switches per 1,000 events",
            format!("{:.0}", self.context_switches_per_thousand_events),
        )?;
        line(
            "requests",
            format!(
                "{}, most of an App ID in any second {} (10 are allowed), refused {}",
                self.requests, self.most_requests_of_an_app_in_a_second, self.refused_429
            ),
        )?;
        line("lost at the ring", self.lost_at_the_ring.to_string())?;
        for sink in &self.sinks {
            let ages = sink.age_ms.map_or_else(
                || "age not told".to_owned(),
                |age| {
                    format!(
                        "age p50 {} ms, p99 {} ms, max {} ms",
                        age.p50, age.p99, age.max
                    )
                },
            );
            line(
                &format!("sink {}", sink.name),
                format!(
                    "{ages}; found {}, missing {}, duplicates {}",
                    sink.found, sink.missing, sink.duplicates
                ),
            )?;
            for example in &sink.examples {
                line("", example.clone())?;
            }
        }
        let verdict = if self.clean {
            "nothing missing"
        } else if self.events == 0 {
            "NO EVENTS"
        } else {
            "SOMETHING IS MISSING OR WRONG"
        };
        f.write_str(verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Holds: what is missing or wrong in one sink is not clean, and neither is a bench without events.
    #[test]
    fn clean_is_every_sink() {
        let arrived = |ages: &[i64]| ages.iter().map(|age| Arrived { at: *age, ms: 0 }).collect();
        let held = |missing: u64| Held {
            sink: "s".to_owned(),
            findings: rtm_sim::Findings {
                missing_count: missing,
                ..rtm_sim::Findings::default()
            },
            arrived: [("a".to_owned(), arrived(&[5, 1, 3]))].into(),
        };
        let args = BenchArgs {
            rate: 10.0,
            time: Duration::from_secs(1),
            regions: 1,
            apps: 1,
            kafka: None,
            nats: None,
            config: None,
            json: true,
            keep: false,
            bridge: None,
        };
        let stats = |handed_out: u64| SimStats {
            rings: vec![rtm_sim::RingStats {
                app_id: "a".into(),
                region: "r".into(),
                stream: rtm_sim::Stream::User,
                generated: handed_out,
                overwritten: 7,
                handed_out,
                cut: 0,
                unsent: 0,
                waiting: 0,
                pages: 1,
            }],
            ..SimStats::default()
        };
        let used = Usage {
            user: 2.0,
            system: 1.0,
            written: 5_000_000,
            ..Usage::default()
        };
        let report = |events: u64, held: &[Held]| {
            Report::new(&args, Duration::from_secs(10), &used, &stats(events), held)
        };
        let good = report(1_000_000, &[held(0), held(0)]);
        assert!(good.clean);
        assert_eq!(good.cpu_seconds_per_million_events, 3.0);
        assert_eq!(good.written_bytes_per_event, 5.0);
        assert_eq!(
            (good.events_per_second, good.lost_at_the_ring),
            (100_000.0, 7)
        );
        let ages = Ages {
            p50: 3,
            p99: 5,
            max: 5,
        };
        assert_eq!(good.sinks[0].age_ms, Some(ages));
        let bad = report(1_000_000, &[held(0), held(1)]);
        assert!(!bad.clean && bad.to_string().contains("SOMETHING IS MISSING"));
        assert!(!report(0, &[held(0)]).clean);
    }
}

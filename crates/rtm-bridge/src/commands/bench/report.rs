//! What was measured: as a table for people, as JSON for programs.

use std::fmt;
use std::time::Duration;

use rtm_sim::SimStats;
use serde::Serialize;

use super::args::{BenchArgs, MOST_OF_AN_APP};
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
    /// None where it says nothing: see [`TELLING`].
    cpu_seconds_per_million_events: Option<f64>,
    cpu_user_seconds_per_million_events: Option<f64>,
    cpu_system_seconds_per_million_events: Option<f64>,
    cpu_cores: f64,
    peak_memory_bytes: u64,
    threads: u64,
    written_bytes_per_event: f64,
    journal_bytes_per_event: f64,
    context_switches_per_thousand_events: f64,
    sinks: Vec<SinkReport>,
    /// Nothing is missing, nothing is wrong, and nothing was lost at the ring.
    pub(super) clean: bool,
}

/// From so many events on, and so many for each request, the bridge's time is spent on events and not on polling.
const TELLING: (u64, u64) = (10_000, 10);

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

/// Requests of all App IDs.
pub(super) fn requests(stats: &SimStats) -> u64 {
    stats.apps.iter().map(|app| app.requests).sum()
}

impl Report {
    pub(super) fn new(
        args: &BenchArgs,
        took: Duration,
        used: &Usage,
        stats: &SimStats,
        held: &[Held],
        file_bytes: u64,
    ) -> Report {
        let rings = || stats.rings.iter();
        let events: u64 = rings().map(|ring| ring.handed_out).sum();
        let lost_at_the_ring = rings().map(|ring| ring.overwritten).sum();
        let requests = requests(stats);
        let most = stats.apps.iter().map(|app| app.max_in_second).max();
        let telling = events >= TELLING.0 && events >= TELLING.1 * requests;
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
            lost_at_the_ring,
            requests,
            most_requests_of_an_app_in_a_second: most.unwrap_or_default(),
            refused_429: stats.apps.iter().map(|app| app.refused_429).sum(),
            cpu_seconds_per_million_events: telling.then(|| each(used.cpu() * 1e6)),
            cpu_user_seconds_per_million_events: telling.then(|| each(used.user * 1e6)),
            cpu_system_seconds_per_million_events: telling.then(|| each(used.system * 1e6)),
            cpu_cores: used.cpu() / seconds,
            peak_memory_bytes: used.peak,
            threads: used.threads,
            written_bytes_per_event: each(used.written as f64),
            journal_bytes_per_event: each(used.written.saturating_sub(file_bytes) as f64),
            context_switches_per_thousand_events: each(used.switches as f64 * 1e3),
            clean: events > 0 && lost_at_the_ring == 0 && sinks.iter().all(|sink| sink.clean),
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
            clean: findings.clean(),
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
        writeln!(
            f,
            "events                             {} in {:.1} s, {:.0}/s of {:.0}/s asked for\n\
             App IDs, regions                   {}, {} each",
            self.events,
            self.seconds,
            self.events_per_second,
            self.rate_asked,
            self.apps,
            self.regions
        )?;
        if let (Some(all), Some(user), Some(system)) = (
            self.cpu_seconds_per_million_events,
            self.cpu_user_seconds_per_million_events,
            self.cpu_system_seconds_per_million_events,
        ) {
            writeln!(
                f,
                "CPU s per million events           {all:.2} (user {user:.2}, system {system:.2})\n\
                 context switches per 1,000 events  {:.0}",
                self.context_switches_per_thousand_events
            )?;
        }
        if self.events > 0 {
            writeln!(
                f,
                "written to disk per event          {:.1} bytes, {:.1} of them the journal's",
                self.written_bytes_per_event, self.journal_bytes_per_event
            )?;
        }
        writeln!(
            f,
            "CPU cores                          {:.3}\n\
             peak memory                        {:.1} MiB, {} threads\n\
             requests                           {}, most of an App ID in any second {} (10 are allowed), refused {}\n\
             lost at the ring                   {}",
            self.cpu_cores,
            self.peak_memory_bytes as f64 / f64::from(1 << 20),
            self.threads,
            self.requests,
            self.most_requests_of_an_app_in_a_second,
            self.refused_429,
            self.lost_at_the_ring
        )?;
        for sink in &self.sinks {
            write!(f, "{:<34} ", format!("sink {}", sink.name))?;
            match sink.age_ms {
                Some(Ages { p50, p99, max }) => {
                    write!(f, "age p50 {p50} ms, p99 {p99} ms, max {max} ms")?;
                }
                None => write!(f, "age not told")?,
            }
            writeln!(
                f,
                "; found {}, missing {}, duplicates {}",
                sink.found, sink.missing, sink.duplicates
            )?;
            for example in &sink.examples {
                writeln!(f, "{:35}{example}", "")?;
            }
        }
        f.write_str(if self.events == 0 {
            "NO EVENTS"
        } else if self.sinks.iter().any(|sink| !sink.clean) {
            "SOMETHING IS MISSING OR WRONG"
        } else if self.lost_at_the_ring > 0 {
            "nothing missing of what was handed out"
        } else {
            "nothing missing"
        })?;
        if self.lost_at_the_ring == 0 {
            return Ok(());
        }
        // The last word: what is found is no more than what was left.
        let made = self.events + self.lost_at_the_ring;
        let beyond = if self.rate_asked > MOST_OF_AN_APP * f64::from(self.apps) {
            "what the API gives, 10,000 events a second for an App ID"
        } else {
            "what this machine takes beside the simulator, or a ring got too few of its App ID's ten requests a second"
        };
        write!(
            f,
            "\nLOST AT THE RING: {} of {made} events ({:.1} %), overwritten before anybody read them: the rate is beyond \
             {beyond}",
            self.lost_at_the_ring,
            100.0 * self.lost_at_the_ring as f64 / made as f64
        )
    }
}

#[cfg(test)]
mod tests;

//! `check --outage`: the disk that an outage of the brokers needs.

use std::path::Path;
use std::time::Duration;

use bytesize::{ByteSize, GIB, MIB, PIB, TIB};
use rtm_journal::{EntryFilter, Journal};

use super::process::duration;
use crate::config::{Config, free_bytes};
use rtm_engine::page::MAX_PAGE_BYTES;

/// What an entry takes on the disk, compressed as it is in an outage, besides its events: frame, tags, the response's own
/// words.
///
/// Measured with the simulator (ids of 4 to 64 random characters) at 5 to 8,000 events a second, and with UUIDs for all
/// ids: an entry of n events takes at most this and n times [`EVENT_BYTES`], and at the least two thirds of it.
const ENTRY_BYTES: f64 = 350.0;

/// What an event takes within an entry, compressed. Measured as [`ENTRY_BYTES`].
const EVENT_BYTES: f64 = 32.0;

/// Memory that the journal takes for an entry.
const ENTRY_MEMORY: f64 = 40.0;

/// Fewer events in the journal than this say little about those to come.
const TELLING: u64 = 10_000;

/// Of so many entries it is seen what they would take.
const SAMPLE: usize = 200;

/// No sink takes anything for this long, while this many events a second come.
#[derive(Debug, clap::Args)]
pub(super) struct Outage {
    /// Estimate the disk that an outage of the brokers of this length, such as 6h or 2d, needs, and whether the journal
    /// may have it
    #[arg(long = "outage", value_name = "DURATION", value_parser = duration, required = false, requires = "rate")]
    length: Duration,
    /// Events a second, over all App IDs, for --outage
    #[arg(long, value_name = "EVENTS", required = false, requires = "length", value_parser = rate, allow_hyphen_values = true)]
    rate: f64,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok();
    rate.filter(|rate: &f64| *rate > 0.0 && *rate <= 1e9)
        .ok_or_else(|| "expected a number of events, such as 2000".to_owned())
}

impl Outage {
    /// What it needs, and that it may have it; or what is too small, and what would do.
    pub(super) fn fits(&self, config: &Config) -> Result<String, String> {
        let dir = &config.journal.dir;
        // As many as requests are sent, and none without an event is stored: that fewer have come so far, with more events
        // each, says little of an outage, and after a backlog nothing.
        let requests = config.apps.iter().map(|app| app.requests_per_second);
        let entries = f64::from(requests.sum::<u32>()).min(self.rate);
        let (per_event, why) = measured(dir).unwrap_or_else(|| assumed(self.rate, entries));
        let seconds = self.length.as_secs_f64();
        let events = self.rate * seconds;
        let needed = events * per_event;
        let room = usable(config);
        // A small entry counts as a larger one.
        let max_entries = config.journal.max_entries as f64;
        let least = config.journal.max_bytes as f64 / max_entries;
        let counted = (self.rate * per_event).max(entries * least);
        let needs = format!(
            "{} at {} events a second are {events:.0} events and about {} in the journal ({why})",
            words(seconds),
            self.rate,
            size(needed),
        );
        let holds = words(room / counted);
        let max_bytes = ByteSize(config.journal.max_bytes);
        // What is free is common, and half of the whole is divided among the App IDs.
        let alone = match config.apps.len() {
            1 => String::new(),
            apps => format!(
                ", if all {apps} App IDs have as many; one alone may fill {:.0} %",
                50.0 + 50.0 / apps as f64
            ),
        };
        let limits = format!("max_bytes = {max_bytes} and max_entries = {max_entries}");
        if counted * seconds > room {
            let (mut enough, mut bytes) = (Vec::new(), config.journal.max_bytes as f64);
            if needed > room {
                bytes = up((needed + reserved(config)) / USABLE);
                let text = size(bytes).to_string().replace(' ', "");
                enough.push(format!("max_bytes = \"{text}\""));
            }
            let part = USABLE - reserved(config) / bytes;
            let entries = entries * seconds / part;
            if entries > max_entries {
                let memory = size(up(entries * ENTRY_MEMORY));
                let entries = up_to_two_digits(entries);
                enough.push(format!(
                    "max_entries = {entries:.0} (up to {memory} of memory)"
                ));
            }
            return Err(format!(
                "{needs}; {limits} hold only {holds}{alone}, and polling then stops; {} would do",
                enough.join(" and ")
            ));
        }
        match free_bytes(dir) {
            Some(free) if free.saturating_sub(config.journal.min_free_bytes) as f64 <= needed => {
                Err(format!(
                    "{needs}, which max_bytes = {max_bytes} allows; but the disk of {} has {} free, of which \
                     min_free_bytes = {} stay free",
                    dir.display(),
                    ByteSize(free),
                    ByteSize(config.journal.min_free_bytes),
                ))
            }
            _ => Ok(format!("{needs}; {limits} hold {holds}{alone}")),
        }
    }
}

/// Bytes an event at this rate and with so many entries a second, and why, where nothing could be measured.
fn assumed(rate: f64, entries: f64) -> (f64, String) {
    let why = format!(
        "assumed, for the journal has too few to tell: {EVENT_BYTES} bytes an event and {ENTRY_BYTES} an entry, \
         {entries:.0} entries a second; ids of up to 64 random characters"
    );
    (EVENT_BYTES + ENTRY_BYTES * entries / rate, why)
}

/// Bytes an event that the entries of a journal would take in an outage, which compresses them, and why, if there are enough
/// of them. Reads only, also while a bridge runs.
fn measured(dir: &Path) -> Option<(f64, String)> {
    let found = Journal::inspect(dir).ok()?;
    let events: u64 = found.segments.iter().map(|segment| segment.counts).sum();
    if events < TELLING {
        return None;
    }
    let mut stored = Journal::stored_beside(dir, &EntryFilter::default()).ok()?;
    let step = stored.len().div_ceil(SAMPLE).max(1);
    let (mut bytes, mut counted) = (0, 0);
    // By chance, for rings come in turn, and their events are of different sizes; and the same ones each time.
    let mut chance = fastrand::Rng::with_seed(0);
    while let Some(stored) = stored.nth(chance.usize(0..2 * step - 1)) {
        // One that is damaged, or was reclaimed meanwhile, says nothing.
        if let Ok(entry) = stored.entry {
            bytes += entry.compressed_bytes();
            counted += u64::from(stored.count);
        }
    }
    let per_event = bytes as f64 / counted as f64;
    let why = format!(
        "{per_event:.0} bytes an event, as the {events} events that are in the journal now would take if they waited"
    );
    (counted > 0).then_some((per_event, why))
}

/// The part of a journal that entries may take: an eighth is left to clean in.
const USABLE: f64 = 7.0 / 8.0;

/// What the journal may take while nothing is confirmed and the requests in flight have their room. With several App IDs,
/// as much as that only where all have their part of the load.
fn usable(config: &Config) -> f64 {
    (config.journal.max_bytes as f64 * USABLE - reserved(config)).max(0.0)
}

fn reserved(config: &Config) -> f64 {
    let rings: usize = config.apps.iter().map(|app| 2 * app.regions.len()).sum();
    (rings * MAX_PAGE_BYTES) as f64
}

fn size(bytes: f64) -> ByteSize {
    ByteSize(bytes as u64)
}

/// No less than `bytes`, and what is printed of it is all of it.
fn up(bytes: f64) -> f64 {
    let units = [MIB, GIB, TIB, PIB].map(|unit| unit as f64);
    let fitting = units.into_iter().rfind(|unit| *unit <= bytes);
    let unit = fitting.unwrap_or(units[0]);
    (bytes / unit * 10.0).ceil() / 10.0 * unit
}

/// No less than `number`, and short to write.
fn up_to_two_digits(number: f64) -> f64 {
    let unit = 10f64.powf(number.max(10.0).log10().floor() - 1.0);
    (number / unit).ceil() * unit
}

/// A length of time as people say it.
fn words(seconds: f64) -> String {
    match seconds {
        _ if seconds < 120.0 => format!("{seconds:.0} s"),
        _ if seconds < 7200.0 => format!("{:.0} min", seconds / 60.0),
        _ if seconds < 48.0 * 3600.0 => format!("{:.1} h", seconds / 3600.0),
        _ => format!("{:.1} days", seconds / 86400.0),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

//! What the demo shows while it runs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use rtm_sim::Simulator;

use rtm_engine::status::State;
use rtm_engine::tally::Tally;

/// The regions of the demo.
pub(super) const REGIONS: [&str; 2] = ["eu-west-1", "us-east-1"];

/// The App ID's name.
pub(super) const APP: &str = "demo";

/// How the demo goes. Remembers what it showed last, to make rates of totals.
#[derive(Default)]
pub(super) struct View {
    fetched: Rate,
    requests: Rate,
    ages: BTreeMap<&'static str, (f64, u64)>,
}

impl View {
    /// How it goes, a line for each sink.
    pub(super) fn text(
        &mut self,
        sinks: &[&'static str],
        state: &State,
        simulator: &Simulator,
        elapsed: Duration,
    ) -> String {
        let stats = simulator.stats();
        let rings = || {
            REGIONS
                .iter()
                .flat_map(|region| ["user", "channel"].map(|stream| (*region, stream)))
        };
        let fetched: u64 = rings()
            .map(|(region, stream)| state.metrics.ring(APP, region, stream).events_fetched.get())
            .sum();
        let requests: u64 = stats.apps.iter().map(|app| app.requests).sum();
        let journal = state.journal.stats();
        let now = state.snapshot();
        let mut text = format!(
            "{:>4} s  fetched {fetched:>8}, {:>6.0}/s   requests {requests:>6}, {:>4.1}/s of 10   journal {:>5.1} MiB",
            elapsed.as_secs(),
            self.fetched.rate(fetched),
            self.requests.rate(requests),
            journal.bytes as f64 / f64::from(1 << 20),
        );
        for sink in sinks {
            let metrics = state.metrics.sink(APP, sink);
            let age = &metrics.event_age;
            let ages = self.ages.entry(sink).or_default();
            let (sum, count) = (age.get_sample_sum(), age.get_sample_count());
            let mean = (count > ages.1).then(|| 1000.0 * (sum - ages.0) / (count - ages.1) as f64);
            *ages = (sum, count);
            let mut readers = journal.lanes.iter().flat_map(|lane| &lane.readers);
            let (confirmed, pending) =
                readers
                    .find(|reader| reader.name.as_str() == *sink)
                    .map_or((0, 0), |reader| {
                        let confirmed = Tally::decode(&reader.tally).confirmed;
                        (confirmed, reader.pending_entries)
                    });
            let mean = mean.map_or_else(|| "   –".to_owned(), |mean| format!("{mean:>4.0} ms"));
            let is_down = now
                .sinks
                .iter()
                .any(|now| now.name == *sink && !now.is_up());
            let up = if is_down { "  DOWN" } else { "" };
            let _ = write!(
                text,
                "\n        {sink:<6} confirmed {confirmed:>8}   mean age {mean}   pages waiting {pending:>4}{up}"
            );
        }
        text
    }
}

/// The growth of a total, smoothed.
#[derive(Default)]
struct Rate {
    last: Option<(Instant, u64)>,
    per_second: f64,
}

impl Rate {
    fn rate(&mut self, total: u64) -> f64 {
        let now = Instant::now();
        if let Some((then, before)) = self.last {
            let seconds = (now - then).as_secs_f64().max(0.001);
            let rate = total.saturating_sub(before) as f64 / seconds;
            let weight = (-seconds / 2.0).exp();
            self.per_second = weight * self.per_second + (1.0 - weight) * rate;
        }
        self.last = Some((now, total));
        self.per_second
    }
}

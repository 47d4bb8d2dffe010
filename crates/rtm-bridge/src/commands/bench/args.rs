//! What can be asked of the bench.

use std::path::PathBuf;
use std::time::Duration;

use crate::commands::process;

/// What the API of one App ID gives: ten pages of 1,000 a second.
pub(super) const MOST_OF_AN_APP: f64 = 10_000.0;

/// Measure what the bridge takes at a given load, with your own sinks, to size a deployment
///
/// Without sinks it writes to a file. A simulation of Agora's API makes the events, a bridge in a process of its own
/// carries them, and at the end what was handed out is compared, event by event, with what is read back from each sink. It
/// uses a topic prefix `rtm-bench-…` and a JetStream stream `RTM_BENCH_…` of its own, removed at the end unless --keep.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Ages are from an event's time, by this machine's clock, to its storage, by the broker's; a file has none. CPU time is \
the bridge's alone; where next to no events come, polling is all that costs, and only the cores are told. The journal's \
bytes are what the bridge wrote less the files of file sinks; what waits for a sink takes a third of that or less, see \
check --outage. Progress goes to standard error.

The exit code is 0 when every event that was made is found in every sink; 1 when something is missing or wrong, or when \
events were lost at the ring, since nobody read them in time; 2 for wrong usage.

Examples:
  rtm-bridge bench --rate 2000 --for 30s
  rtm-bridge bench --kafka 127.0.0.1:9092 --rate 8000 --for 1m
  rtm-bridge bench --nats nats://127.0.0.1:4222 --apps 50 --rate 5000 --json
  rtm-bridge bench --config /etc/rtm-bridge.toml --rate 2000

With --config the sinks are those of that configuration, with topics and streams of the bench's own.")]
pub(crate) struct BenchArgs {
    /// Events a second, over all App IDs and rings; an App ID's API gives 10,000 at most
    #[arg(long, value_name = "EVENTS", default_value_t = 2_000.0, value_parser = rate)]
    pub(super) rate: f64,
    /// How long, such as 30s
    #[arg(long = "for", value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub(super) time: Duration,
    /// Regions of each App ID, each with two rings
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=8))]
    pub(super) regions: u16,
    /// App IDs
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(super) apps: u16,
    /// Publish to this Kafka broker
    #[arg(long, value_name = "HOST:PORT", value_parser = host_and_port)]
    pub(super) kafka: Option<String>,
    /// Publish to this NATS server
    #[arg(long, value_name = "URL", value_parser = nats_url)]
    pub(super) nats: Option<String>,
    /// Publish to the sinks of this configuration, a file or a directory, with their credentials and options; the rest of
    /// it must be valid, and is not used
    #[arg(short, long, value_name = "PATH", conflicts_with_all = ["kafka", "nats"])]
    pub(super) config: Option<PathBuf>,
    /// Print a JSON document instead of a table
    #[arg(long)]
    pub(super) json: bool,
    /// Leave topics and streams as they are at the end
    #[arg(long)]
    pub(super) keep: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    process::duration(text)
        .ok()
        .filter(|time| *time >= Duration::from_secs(1))
        .ok_or_else(|| {
            "expected a duration of a second or more with a unit, such as 30s or 2m".to_owned()
        })
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().ok();
    rate.filter(|rate| *rate >= 1.0 && *rate <= rtm_sim::MAX_EVENTS_PER_SECOND)
        .ok_or_else(|| {
            format!(
                "expected events a second, from 1 to {}",
                rtm_sim::MAX_EVENTS_PER_SECOND
            )
        })
}

fn host_and_port(text: &str) -> Result<String, String> {
    let valid = text
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    valid
        .then(|| text.to_owned())
        .ok_or_else(|| "expected host:port, such as 127.0.0.1:9092".to_owned())
}

fn nats_url(text: &str) -> Result<String, String> {
    let server = text.parse::<async_nats::ServerAddr>();
    let has_host = server.is_ok_and(|server| !server.host().is_empty());
    let has_scheme = text.starts_with("nats://") || text.starts_with("tls://");
    (has_host && has_scheme)
        .then(|| text.to_owned())
        .ok_or_else(|| "expected a URL such as nats://127.0.0.1:4222".to_owned())
}

#[cfg(test)]
mod tests;

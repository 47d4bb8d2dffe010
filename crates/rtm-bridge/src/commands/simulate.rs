//! `rtm-bridge simulate`: the stand-in for Agora's API alone.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use figment::Figment;
use figment::providers::Serialized;
use rtm_sim::{Pattern, SimApp, SimAuth, SimConfig, Simulator};
use toml_edit::{Array, InlineTable, Table, value};

use super::process::{refuse, runtime, stop_on_signals};
use super::telemetry;
use crate::config::LogConfig;

/// What the bridge asks of `journal.max_bytes`.
const LEAST_MIB_OF_A_RING: usize = 12;

/// Run the stand-in for Agora's API alone, with load and faults
///
/// Nothing here is Agora's: it is a simulation, with made-up events.
#[derive(Debug, clap::Args)]
#[command(
    after_help = r#"The base URL of a region is http://ADDRESS/<region>. While it runs:
  GET  /_sim/stats    counts; the most requests in any second
  GET  /_sim/ledger   every page handed out, one JSON document a line
  PUT  /_sim/load     change the load      PUT  /_sim/faults  change the faults
  POST /_sim/stop     stop generating      POST /_sim/push    put events into a ring

A file for --config; every key may be left out, and an unknown one is refused:
  {"listen": "127.0.0.1:8080",
   "apps": [{"app_id": "a1", "auth": {"basic": {"key": "k", "secret": "s"}}},
            {"app_id": "a2", "auth": "open"}],
   "regions": ["eu-west-1", "us-east-1"],
   "load": {"events_per_second": 500,
            "pattern": {"kind": "storm", "every_ms": 30000,
                        "lasting_ms": 5000, "times": 10}},
   "faults": {"status": 0.01, "cut": 0.001, "delay_ms": [20, 200]}}

docs/simulator.md of the sources has every key.

Examples:
  rtm-bridge simulate --listen 127.0.0.1:8080 --region eu-west-1 --rate 2000
  rtm-bridge simulate --apps 50 --rate 20 > apps.toml    # for a configuration
  curl -X PUT http://127.0.0.1:8080/_sim/faults \
    -d '{"status": 0.05, "statuses": [503]}'
  curl http://127.0.0.1:8080/_sim/push \
    -d '{"app_id": "a1", "region": "eu-west-1", "stream": "user",
         "events": [{"user_id": "u1", "type": "Login", "ms": 1578027418981}]}'"#
)]
pub(super) struct SimulateArgs {
    /// A JSON file with all settings; the flags lie over it
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address to listen on; port 0 takes a free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Let --listen be another address than loopback, as inside a container's network
    #[arg(long)]
    allow_any_address: bool,
    /// A region; may be given several times [default: eu-west-1]
    #[arg(long = "region", value_name = "NAME")]
    regions: Vec<String>,
    /// So many App IDs, instead of the file's or the one of Agora's examples; prints the tables that a configuration of the
    /// bridge needs for them
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=1000))]
    apps: Option<u16>,
    /// Events a second for each App ID [default: 200]
    #[arg(long, value_name = "EVENTS")]
    rate: Option<f64>,
    /// Every 30 s, ten times the rate for 5 s
    #[arg(long)]
    storms: bool,
    /// The share of odd events, 0 to 1 [default: 0]
    #[arg(long, value_name = "SHARE")]
    odd: Option<f64>,
    /// The share of cut responses, 0 to 1 [default: 0]
    #[arg(long, value_name = "SHARE")]
    cut: Option<f64>,
    /// The share of error statuses, 0 to 1 [default: 0]
    #[arg(long, value_name = "SHARE")]
    errors: Option<f64>,
    /// Decides events and faults [default: 1]
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
}

pub(super) fn simulate(args: SimulateArgs) -> anyhow::Result<ExitCode> {
    let tables = args.apps.is_some();
    let config = match settings(args) {
        Ok(config) => config,
        Err(error) => return Ok(refuse(&crate::chain(error.as_ref()))),
    };
    if let Err(error) = telemetry::start(&LogConfig::default(), "info") {
        return Ok(refuse(&error));
    }
    runtime()?.block_on(async {
        let stop = stop_on_signals()?;
        let (apps, regions) = (config.apps.clone(), config.regions.clone());
        let simulator = Simulator::start(config)
            .await
            .context("cannot start the simulator")?;
        // With tables, what is printed is TOML as a whole.
        let mark = if tables { "# " } else { "" };
        println!(
            "{mark}simulator is listening on http://{}",
            simulator.addr()
        );
        for region in &regions {
            println!(
                "{mark}  region {region}: base_url = \"{}\"",
                simulator.base_url(region)
            );
        }
        if tables {
            print!("{}", bridge_config(&apps, &regions, &simulator));
        } else {
            let apps = apps
                .iter()
                .map(|app| format!("{} ({})", app.app_id, accepts(&app.auth)));
            println!("  App IDs: {}", apps.collect::<Vec<_>>().join(", "));
        }
        stop.cancelled().await;
        let stats = simulator.stats();
        simulator.shutdown().await;
        for app in &stats.apps {
            println!(
                "{mark}{}: {} requests, most in any second {}",
                app.app_id, app.requests, app.max_in_second
            );
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// What to put into `auth`. They protect nothing.
fn accepts(auth: &SimAuth) -> String {
    match auth {
        SimAuth::Basic { key, secret } => format!("basic, key {key}, secret {secret}"),
        SimAuth::Token { token, uid } => format!("token {token} of uid {uid}"),
        SimAuth::Agora { token } => format!("agora_token {token}"),
        SimAuth::Open => "any credentials".to_owned(),
    }
}

/// The tables that a configuration of the bridge needs to read these App IDs, all of which take the same credentials.
fn bridge_config(apps: &[SimApp], regions: &[String], simulator: &Simulator) -> String {
    let mib = LEAST_MIB_OF_A_RING * 2 * apps.len() * regions.len();
    let region = |name: &String| {
        InlineTable::from_iter([("name", name), ("base_url", &simulator.base_url(name))])
    };
    let regions: Array = regions.iter().map(region).collect();
    let mut text = format!("# journal.max_bytes must be {mib}MiB at least; the default is 4GiB\n");
    for (index, app) in apps.iter().enumerate() {
        let SimAuth::Basic { key, secret } = &app.auth else {
            continue;
        };
        let mut table = Table::new();
        table["name"] = value(format!("sim-{}", index + 1));
        table["app_id"] = value(&app.app_id);
        table["auth"]["basic"]["key"] = value(key);
        table["auth"]["basic"]["secret"] = value(secret);
        table["regions"] = value(regions.clone());
        let _ = write!(text, "\n[[apps]]\n{table}");
    }
    text
}

fn settings(args: SimulateArgs) -> anyhow::Result<SimConfig> {
    let mut config = match &args.config {
        Some(file) => {
            let text =
                std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            parse(&text).with_context(|| {
                format!(
                    "{} is not a simulator's configuration (see `rtm-bridge simulate --help`)",
                    file.display()
                )
            })?
        }
        None => SimConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            ..SimConfig::default()
        },
    };
    if let Some(listen) = args.listen {
        config.listen = listen;
    }
    config.allow_any_address |= args.allow_any_address;
    if !args.regions.is_empty() {
        config.regions = args.regions;
    }
    if let Some(count) = args.apps {
        config.apps = (1..=u32::from(count))
            .map(|number| SimApp {
                app_id: format!("{number:032x}"),
                ..SimApp::default()
            })
            .collect();
    }
    if let Some(rate) = args.rate {
        config.load.events_per_second = rate;
    }
    if args.storms {
        config.load.pattern = Pattern::Storm {
            every_ms: 30_000,
            lasting_ms: 5_000,
            times: 10.0,
        };
    }
    if let Some(odd) = args.odd {
        config.load.odd = odd;
    }
    if let Some(cut) = args.cut {
        config.faults.cut = cut;
    }
    if let Some(errors) = args.errors {
        config.faults.status = errors;
    }
    if let Some(seed) = args.seed {
        config.seed = seed;
    }
    config.check()?;
    Ok(config)
}

/// Reads a file of settings. What is wrong is told with its line and column, and its key.
fn parse(text: &[u8]) -> anyhow::Result<SimConfig> {
    let error = match serde_json::from_slice(text) {
        Ok(config) => return Ok(config),
        Err(error) => error,
    };
    // serde_json knows the place and not the key; figment the other way round.
    let key = serde_json::from_slice::<serde_json::Value>(text)
        .ok()
        .and_then(|value| {
            let read = Figment::from(Serialized::defaults(value)).extract::<SimConfig>();
            Some(read.err()?.path.join("."))
        })
        .filter(|key| !key.is_empty());
    let error = anyhow::Error::new(error);
    Err(match key {
        Some(key) => error.context(key),
        None => error,
    })
}

#[cfg(test)]
mod tests;

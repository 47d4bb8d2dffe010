//! `rtm-bridge simulate`: the stand-in for Agora's API alone.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
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
    #[arg(long, value_name = "ADDRESS", value_parser = rtm_sim::listen_address)]
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

pub(super) fn simulate(args: SimulateArgs) -> anyhow::Result<bool> {
    let tables = args.apps.is_some();
    let config = settings(args).map_err(|error| refuse(crate::chain(error.as_ref())))?;
    telemetry::start(&LogConfig::default(), "info")?;
    runtime()?.block_on(async {
        let stop = stop_on_signals()?;
        let (apps, regions) = (config.apps.clone(), config.regions.clone());
        let simulator = Simulator::start(config)
            .await
            .context("cannot start the simulator")?;
        // With tables, what is printed is TOML as a whole.
        let mark = if tables { "# " } else { "" };
        let address = simulator.addr();
        println!("{mark}simulator is listening on http://{address}");
        for region in &regions {
            let url = simulator.base_url(region);
            println!("{mark}  region {region}: base_url = \"{url}\"");
        }
        if tables {
            print!("{}", bridge_config(&apps, &regions, &simulator));
        } else {
            let apps = apps.iter();
            let apps = apps.map(|app| format!("{} ({})", app.app_id, accepts(&app.auth)));
            println!("  App IDs: {}", Vec::from_iter(apps).join(", "));
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
        Ok(true)
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
            let text = std::fs::read(file);
            let file = file.display();
            let text = text.with_context(|| format!("cannot read {file}"))?;
            parse(&text).with_context(|| {
                format!(
                    "{file} is not a simulator's configuration (see `rtm-bridge simulate --help`)"
                )
            })?
        }
        None => SimConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            ..SimConfig::default()
        },
    };
    if !args.regions.is_empty() {
        config.regions = args.regions;
    }
    if let Some(count) = args.apps {
        let app = |number| SimApp {
            app_id: format!("{number:032x}"),
            ..SimApp::default()
        };
        config.apps = (1..=count).map(app).collect();
    }
    if args.storms {
        config.load.pattern = Pattern::Storm {
            every_ms: 30_000,
            lasting_ms: 5_000,
            times: 10.0,
        };
    }
    let (load, faults) = (&mut config.load, &mut config.faults);
    load.events_per_second = args.rate.unwrap_or(load.events_per_second);
    load.odd = args.odd.unwrap_or(load.odd);
    faults.cut = args.cut.unwrap_or(faults.cut);
    faults.status = args.errors.unwrap_or(faults.status);
    config.seed = args.seed.unwrap_or(config.seed);
    config.listen = args.listen.unwrap_or(config.listen);
    config.allow_any_address |= args.allow_any_address;
    config.check()?;
    Ok(config)
}

/// Reads a file of settings. What is wrong is told with its key, its line and its column.
fn parse(text: &[u8]) -> anyhow::Result<SimConfig> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let config = serde_path_to_error::deserialize(&mut json)?;
    json.end()?;
    Ok(config)
}

#[cfg(test)]
mod tests;

//! `rtm-bridge simulate`: the stand-in for Agora's API alone.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use rtm_sim::{Pattern, SimAuth, SimConfig, Simulator};

use super::{refuse, runtime, stop_on_signals, telemetry};
use crate::config::LogConfig;

/// Run the stand-in for Agora's API alone, with load and faults
///
/// Nothing here is Agora's: it is a simulation, with made-up events.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The base URL of a region is http://ADDRESS/<region>. While it runs:
  GET  /_sim/stats    counts; the most requests in any second
  GET  /_sim/ledger   every page handed out, one JSON document a line
  PUT  /_sim/load     change the load      PUT  /_sim/faults  change the faults
  POST /_sim/stop     stop generating      POST /_sim/push    put events into a ring

Example: rtm-bridge simulate --listen 127.0.0.1:8080 --region eu-west-1 --rate 2000")]
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
    let config = match settings(args) {
        Ok(config) => config,
        Err(error) => return Ok(refuse(&error)),
    };
    if let Err(error) = telemetry::start(&LogConfig::default(), "info") {
        return Ok(refuse(&error));
    }
    runtime()?.block_on(async {
        let stop = stop_on_signals()?;
        let apps: Vec<String> = config
            .apps
            .iter()
            .map(|app| format!("{} ({})", app.app_id, accepts(&app.auth)))
            .collect();
        let regions = config.regions.clone();
        let simulator = Simulator::start(config)
            .await
            .context("cannot start the simulator")?;
        println!("simulator is listening on http://{}", simulator.addr());
        for region in regions {
            println!(
                "  region {region}: base_url = \"{}\"",
                simulator.base_url(&region)
            );
        }
        println!("  App IDs: {}", apps.join(", "));
        stop.cancelled().await;
        let stats = simulator.stats();
        simulator.shutdown().await;
        for app in &stats.apps {
            println!(
                "{}: {} requests, most in any second {}",
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

fn settings(args: SimulateArgs) -> anyhow::Result<SimConfig> {
    let mut config = match &args.config {
        Some(file) => {
            let text =
                std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            serde_json::from_slice(&text)
                .with_context(|| format!("{} is not a simulator's configuration", file.display()))?
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

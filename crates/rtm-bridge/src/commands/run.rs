//! `rtm-bridge run`.

use std::process::ExitCode;
use std::sync::Arc;

use tracing::info;

use super::{ConfigArgs, refuse, runtime_for, stop_on_signals, telemetry};
use crate::admin;
use crate::assemble::RunError;
use crate::config::Config;

#[derive(Debug, clap::Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    config: ConfigArgs,
}

pub(super) fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let config = match Config::load(&args.config.config) {
        Ok(config) => config,
        Err(error) => return Ok(refuse(&error)),
    };
    if let Err(error) = telemetry::start(&config.log, "info") {
        return Ok(refuse(&error));
    }
    match runtime_for(config.apps.len())?.block_on(run_until_signalled(&config)) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => match error.downcast::<RunError>() {
            Ok(error @ (RunError::Source { .. } | RunError::Sink { .. })) => {
                Ok(refuse(&crate::chain(&error)))
            }
            Ok(error) => Err(error.into()),
            Err(error) => Err(error),
        },
    }
}

async fn run_until_signalled(config: &Config) -> anyhow::Result<()> {
    info!(
        version = env!("CARGO_PKG_VERSION"),
        commit = crate::COMMIT,
        "starting"
    );
    let stop = stop_on_signals()?;
    let state = admin::Slot::default();
    let served = tokio_util::sync::CancellationToken::new();
    admin::serve(config.admin.listen, Arc::clone(&state), served.clone()).await?;
    let running = Arc::clone(&state);
    let started = move |started| {
        let _ = running.set(started);
        info!("the bridge runs");
    };
    crate::bridge::run(config, started, stop).await?;
    served.cancel();
    Ok(())
}

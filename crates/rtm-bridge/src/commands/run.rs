//! `rtm-bridge run`.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::configuration::{ConfigArgs, configuration_to_run};
use super::process::{on_signals, raise_descriptors, refuse, runtime_for};
use super::telemetry;
use crate::admin::{self, settings::Settings};
use crate::config::Config;
use crate::lock;
use crate::notify::Notify;
use crate::reload::{Seen, Watch};
use crate::stderr;
use rtm_engine::plan::RunError;

/// How long the end waits for threads that look at files, or at brokers.
const LAST_WORK: Duration = Duration::from_secs(1);

/// Run the bridge until SIGTERM or SIGINT
///
/// It then stops polling, stores what is in flight, gives the sinks `shutdown_deadline`, unless they take nothing, and
/// exits. What is not published waits in the journal for the next start.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Signals:
  SIGTERM, SIGINT  stop as described; the journal must be writable for it
  a second one     end at once, with exit code 143 or 130; what was in flight
                   is lost, and counted at the next start
  SIGHUP           read the configuration again, as when its content changes; a
                   file that is wrong or needs a restart is refused, and what
                   runs stays

Exit codes: 0 stopped by a signal, 1 failed, such as a journal that another process holds, 2 wrong usage or \
configuration.

Logs go to standard error. /metrics, /healthz, /readyz and a status page are at `admin.listen`, 127.0.0.1:9464 by \
default. Run one bridge for each App ID: two steal each other's events.

Examples:
  rtm-bridge run --config /etc/rtm-bridge/rtm-bridge.toml
  rtm-bridge run --config /etc/rtm-bridge/conf.d    # every *.toml in it
  RTM_BRIDGE__LOG__LEVEL=debug rtm-bridge run
  RUST_LOG=info,rtm_source=debug rtm-bridge run")]
pub(super) struct RunArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Stop when standard input ends too, as it does with a parent that holds the other end
    #[arg(long, hide = true)]
    with_parent: bool,
}

pub(super) fn run(args: &RunArgs) -> anyhow::Result<bool> {
    let seen = Seen::now(&args.config.config);
    let config = configuration_to_run(&args.config)?;
    let set_level = telemetry::start(&config.log, "info")?;
    raise_descriptors();
    let running = run_until_stopped(&config, seen, args, set_level);
    let runtime = runtime_for(config.apps.len())?;
    let ended = runtime.block_on(running);
    // A thread that a share holds up never ends, and holds nothing that matters: the journal is closed.
    runtime.shutdown_timeout(LAST_WORK);
    match ended {
        Ok(()) => Ok(true),
        Err(error) => match error.downcast_ref() {
            Some(RunError::Source { .. } | RunError::Sink { .. }) => {
                Err(refuse(crate::chain(error.as_ref())))
            }
            _ => Err(error),
        },
    }
}

async fn run_until_stopped(
    config: &Config,
    seen: Seen,
    args: &RunArgs,
    set_level: telemetry::SetLevel,
) -> anyhow::Result<()> {
    info!(
        version = env!("CARGO_PKG_VERSION"),
        commit = crate::COMMIT,
        "starting"
    );
    config.log_warnings(None).await;
    let notify = Arc::new(Notify::from_env());
    let stop = stop_or_end_on_signals(Arc::clone(&notify))?;
    if args.with_parent {
        let stop = stop.clone();
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            stop.cancel();
        });
    }
    let state = admin::Slot::default();
    let settings = Settings::shown(config);
    let (told, shown) = (Arc::clone(&notify), Arc::clone(&settings));
    let watch = Watch::new(&args.config.config, seen, told, move |config| {
        set_level.set(&config.log, "info");
        *lock(&shown) = Settings::of(config);
    })?;
    let served = CancellationToken::new();
    let admin = admin::serve(&config.admin, Arc::clone(&state), settings, served.clone()).await;
    let (told, running) = (Arc::clone(&notify), Arc::clone(&state));
    let started = move |started| {
        let _ = running.set(started);
        info!("the bridge runs");
        told.ready();
    };
    tokio::select! {
        ended = crate::run::run(config, Some(watch), started, stop) => ended?,
        () = notify.keep_telling(&state, &admin) => {}
    }
    served.cancel();
    Ok(())
}

/// A token that the first SIGTERM or SIGINT cancels. The second ends the process where it stands, with the exit code that
/// the signal would have had, for who cannot wait: what is in flight then is lost, and counted at the next start.
fn stop_or_end_on_signals(notify: Arc<Notify>) -> std::io::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let (cancel, mut is_second) = (stop.clone(), false);
    on_signals(move |signal| {
        if is_second {
            error!(
                signal,
                "a second signal: ending at once; the journal keeps what is stored, and the next start counts what was in \
                 flight"
            );
            stderr::flush(stderr::IN_A_HURRY);
            std::process::exit(128 + signal);
        }
        is_second = true;
        notify.stopping();
        cancel.cancel();
    })?;
    Ok(stop)
}

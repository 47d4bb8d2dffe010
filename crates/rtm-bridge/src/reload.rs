//! A new configuration while the bridge runs: on SIGHUP, and when the content of its files changes.
//!
//! A configuration is taken as a whole or not at all, so that what runs is always what one configuration said. It is refused
//! where `check` would refuse it, and where it changes what only a restart can change ([`needs_restart`]), by name; then
//! what runs stays.
//!
//! App IDs and sinks come and go, and those that stay go on meanwhile: see [`rtm_engine::supervisor`].

use std::path::Path;

use rtm_engine::plan::{Planner, RunError};
use rtm_engine::status::metrics::Metrics;
use tracing::{error, info};

use crate::config::Config;
use crate::wire::{self, Wire};

pub(crate) use watch::{Seen, Watch};

mod watch;

/// Proposes each new configuration, for ever. `config` is the one that runs.
pub(crate) async fn follow(
    watch: Option<Watch>,
    config: &Config,
    planner: &Planner<Wire>,
    metrics: &Metrics,
) {
    let Some(mut watch) = watch else {
        return std::future::pending().await;
    };
    let mut running = config.clone();
    loop {
        watch.next().await;
        watch.notify.reloading();
        match take(&watch.file, &running, planner).await {
            Ok(new) => {
                (watch.taken)(&new);
                new.log_warnings(Some(&running)).await;
                wire::tell(metrics, &new);
                let changed = match &running.changed(&new)[..] {
                    // Of a secret's file that was rotated, say, or of a comment.
                    [] => "nothing".to_owned(),
                    keys => keys.join(", "),
                };
                info!(changed, "the configuration was taken");
                running = new;
            }
            Err(problems) => {
                for problem in &problems {
                    error!("{problem}");
                }
                metrics.reload_refused(problems);
                error!("the configuration was refused, and the one that runs stays");
            }
        }
        watch.notify.ready();
    }
}

/// Has the bridge take the configuration that `place` holds now; otherwise says what is wrong, a line for each.
async fn take(place: &Path, old: &Config, planner: &Planner<Wire>) -> Result<Config, Vec<String>> {
    let file = place.to_path_buf();
    // A file on a share that hangs must not stop the loops of this thread.
    let loaded = tokio::task::spawn_blocking(move || Config::load(&file)).await;
    let new = loaded
        .map_err(|panic| vec![panic.to_string()])?
        .map_err(|error| {
            error
                .to_string()
                .lines()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })?;
    let restart: Vec<String> = needs_restart(old, &new)
        .into_iter()
        .map(|key| format!("{}: {key}: needs a restart to change", new.origin_of(&key)))
        .collect();
    if !restart.is_empty() {
        return Err(restart);
    }
    let refused = |error: RunError| vec![format!("{}: {}", place.display(), crate::chain(&error))];
    let plan = wire::plan(&new).map_err(refused)?;
    planner.propose(plan).await.map_err(refused)?;
    Ok(new)
}

/// The keys that may change while the bridge runs, each with all that is below it. Of a sink, those that another client needs
/// drain it and make it anew: see [`crate::sinks`].
const SAFE: &[&str] = &[
    "apps",
    "log.level",
    "metrics.detail",
    "shutdown_deadline",
    "sinks",
];

/// The keys in which `new` differs, and that only a restart can change: all that nobody has named safe.
pub(crate) fn needs_restart(old: &Config, new: &Config) -> Vec<String> {
    let is_safe = |key: &str| {
        let rest = SAFE.iter().filter_map(|safe| key.strip_prefix(safe));
        rest.into_iter()
            .any(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    // A key may be spelled differently and mean the same.
    let means_the_same = |key: &str| match key.split_once('.') {
        Some(("journal", _)) => old.journal == new.journal,
        Some(("admin", _)) => old.admin == new.admin,
        Some(("log", "format")) => old.log.format == new.log.format,
        _ => false,
    };
    let changed = old.changed(new).into_iter();
    changed
        .filter(|key| !is_safe(key) && !means_the_same(key))
        .collect()
}

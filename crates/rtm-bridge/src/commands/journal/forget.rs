//! `rtm-bridge journal forget`.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use rtm_journal::{Inspection, Journal, LaneName, Options, ReaderName};

use crate::commands::configuration::{DirArgs, configuration};
use crate::commands::process::{confirmed, refuse, runtime};
use crate::config::Config;

/// How long the journal may take to store it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Forget a sink that has left the configuration, so that it holds no room back; on a stopped bridge
///
/// Forgets how far a sink is: what it has not confirmed is no longer kept for it.
///
/// A sink that leaves the configuration, or that takes an App ID no more, goes on holding back what it has not confirmed,
/// and what comes later, until this. What the other sinks have not confirmed is kept. When an App ID's last sink is
/// forgotten, all that is pending is kept, for a sink to come.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: rtm-bridge journal forget --sink old-kafka --dir /var/lib/rtm-bridge"
)]
pub(crate) struct ForgetArgs {
    /// The sink's name
    #[arg(long, value_name = "NAME")]
    sink: ReaderName,
    /// Of this App ID only; without it, of all
    #[arg(long, value_name = "ID")]
    app: Option<LaneName>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    place: DirArgs,
}

pub(super) fn forget(args: &ForgetArgs) -> anyhow::Result<bool> {
    let (dir, options) = match &args.place.dir {
        Some(dir) => (dir.clone(), Options::default()),
        None => {
            let config = configuration(&args.place.config)?;
            if is_configured(&config, args) {
                return Err(refuse(format!(
                    "the sink {} is in the configuration: take it out first, or the next start makes it again",
                    args.sink
                )));
            }
            let options = config.journal.bounds();
            (config.journal.dir, options)
        }
    };
    let lanes = holding(&Journal::inspect(&dir)?, args);
    if lanes.is_empty() {
        let of = args.app.iter().map(|app| format!(" of {app}"));
        return Err(refuse(format!(
            "the journal in {} knows no sink {}{}",
            dir.display(),
            args.sink,
            of.collect::<String>()
        )));
    }
    for (lane, events) in &lanes {
        println!(
            "lane {lane}: {} has {events} events not confirmed",
            args.sink
        );
    }
    if !args.yes && !confirmed("Forget it?")? {
        return Err(refuse("nothing was changed; answer `yes`, or give --yes"));
    }
    remove(&dir, options, &args.sink, &lanes)?;
    println!("forgotten");
    Ok(true)
}

/// Whether the next start would make the cursors again: of an App ID, where its events go to the sink.
fn is_configured(config: &Config, args: &ForgetArgs) -> bool {
    let Some(sink) = config.sinks.get(args.sink.as_str()) else {
        return false;
    };
    let takes = |app: &str| ["user", "channel"].map(|stream| sink.takes(app, stream));
    args.app.as_ref().is_none_or(|app| {
        let mut apps = config.apps.iter();
        let known = apps.find(|known| known.app_id == app.as_str());
        known.is_some_and(|known| takes(&known.name).contains(&true))
    })
}

/// The lanes that know the sink, each with the events that it has not confirmed.
fn holding(found: &Inspection, args: &ForgetArgs) -> Vec<(LaneName, u64)> {
    let lanes = found.lanes.iter().filter_map(|lane| {
        let name: LaneName = lane.name.parse().ok()?;
        let mut readers = lane.readers.iter();
        let reader = readers.find(|reader| reader.name == args.sink.as_str())?;
        let is_meant = args.app.as_ref().is_none_or(|app| *app == name);
        is_meant.then_some((name, reader.pending.count))
    });
    lanes.collect()
}

fn remove(
    dir: &Path,
    options: Options,
    sink: &ReaderName,
    lanes: &[(LaneName, u64)],
) -> anyhow::Result<()> {
    // The error says so if the bridge runs.
    let journal = Journal::open(dir, options)?;
    runtime()?.block_on(async {
        for (name, _) in lanes {
            let lane = journal.lane(name)?;
            tokio::time::timeout(PATIENCE, lane.remove_reader(sink))
                .await
                .context("the journal cannot be written; is the disk full?")?
                .with_context(|| format!("forget {sink} of {name}"))?;
        }
        // After a crash the next start counts what may be lost: it must still see that there was one.
        if !journal.unclean() {
            journal.close().await?;
        }
        Ok(())
    })
}

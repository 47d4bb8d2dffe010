//! `rtm-bridge journal forget`.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context;
use rtm_journal::{Inspection, Journal, LaneName, Options, ReaderName};

use super::apps::known_apps;
use super::change::{change, stored};
use crate::commands::configuration::{DirArgs, configuration};
use crate::commands::process::{confirmed, counted, refuse};
use crate::config::Config;

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
    /// Of this app only, its name or its App ID; without it, of all
    #[arg(long, value_name = "APP")]
    app: Option<String>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    place: DirArgs,
}

pub(super) fn forget(args: &ForgetArgs) -> anyhow::Result<bool> {
    let dir = args.place.dir()?;
    let config = match &args.place.dir {
        Some(_) => None,
        None => Some(configuration(&args.place.config)?),
    };
    let app_ids = app_ids(args, &dir)?;
    if config
        .as_ref()
        .is_some_and(|config| is_configured(config, args, app_ids.as_ref()))
    {
        return Err(refuse(format!(
            "the sink {} is in the configuration: take it out first, or the next start makes it again",
            args.sink
        )));
    }
    let options = config.map_or_else(Options::default, |config| config.journal.bounds());
    let lanes = holding(&Journal::inspect(&dir)?, args, app_ids.as_ref());
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
            "lane {lane}: {} has {} not confirmed",
            args.sink,
            counted(*events, "event", "events")
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
fn is_configured(config: &Config, args: &ForgetArgs, app_ids: Option<&BTreeSet<String>>) -> bool {
    let Some(sink) = config.sinks.get(args.sink.as_str()) else {
        return false;
    };
    let takes = |app: &str| ["user", "channel"].map(|stream| sink.takes(app, stream));
    app_ids.is_none_or(|ids| {
        let apps = config.apps.iter().filter(|app| ids.contains(&app.app_id));
        apps.map(|app| &app.name)
            .any(|name| takes(name).contains(&true))
    })
}

/// The App IDs that are meant; none stands for all.
fn app_ids(args: &ForgetArgs, dir: &Path) -> anyhow::Result<Option<BTreeSet<String>>> {
    let Some(app) = &args.app else {
        return Ok(None);
    };
    let known = known_apps(dir, args.place.config_of(dir).as_ref())?;
    Ok(Some(known.app_ids(app).map_err(refuse)?))
}

/// The lanes that know the sink, each with the events that it has not confirmed.
fn holding(
    found: &Inspection,
    args: &ForgetArgs,
    app_ids: Option<&BTreeSet<String>>,
) -> Vec<(LaneName, u64)> {
    let lanes = found.lanes.iter().filter_map(|lane| {
        let name: LaneName = lane.name.parse().ok()?;
        let mut readers = lane.readers.iter();
        let reader = readers.find(|reader| reader.name == args.sink.as_str())?;
        let is_meant = app_ids.is_none_or(|ids| ids.contains(name.as_str()));
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
    change(dir, options, async |journal| {
        for (name, _) in lanes {
            let lane = journal.lane(name)?;
            let removed = stored(lane.remove_reader(sink)).await?;
            removed.with_context(|| format!("forget {sink} of {name}"))?;
        }
        Ok(())
    })
}

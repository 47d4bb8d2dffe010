//! `rtm-bridge replay`: what is in the journal, published again.
//!
//! Beside a running bridge or without one: nothing is written to the journal, and nothing locked. What may be replayed to
//! a sink is what it has confirmed. That is durable, so that nothing is published that a crash could still take back; and
//! what is not confirmed is on its way already, so that a replay never comes before the first copy of a record.
//! Only of a journal that was set aside, which no bridge will publish, `--unconfirmed` takes the rest, and nothing else.

mod common;
mod deliver;
mod once;
mod select;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use rtm_journal::Journal;

use super::configuration::{ConfigArgs, configuration, holds_a_journal};
use super::process::{confirmed, counted, refuse, runtime, stop_on_signals};
use super::range::Range;
use super::telemetry;
use crate::config::Config;
use crate::sinks::Purpose;
use common::PATIENCE;
use deliver::{Ended, LOOK_AGAIN};
use once::Lanes;
use rtm_record::Router;
use rtm_sink::Sink;
use select::{Selection, Unreadable};

/// Publish what is in the journal again, on purpose and marked as such; no cursor moves
///
/// Publishes a range again, with `"replayed":true` in each record (and `rtm-replayed: true` where headers are on).
///
/// The ids are those of the first time, so that consumers which know ids take nothing twice. Cursors stay where they are.
/// Only what the sink has confirmed is replayed: the rest is about to come anyway. What every sink has confirmed goes with
/// its segment, which is when a newer one is begun, as every start does, or room is needed: after a restart there is little
/// to replay. --dry-run shows what there is. Dead letters are part of a range.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A bridge may be running on the journal, except where the sink is a file: two processes do not share one.
In NATS the id in `Nats-Msg-Id` ends in `.replay-` and a random number, or the server would drop what it still knows.

A journal that was set aside, and that no bridge will run on again, is drained with --dir and --unconfirmed, once for \
each sink; that is refused for the journal of the configuration, and while a process holds the journal. Into a sink with \
`delivery = \"exactly_once\"` each record is stored once, also where a bridge crashed before or the drain is run again. Under \
systemd's DynamicUser= journals are below /var/lib/private.

An entry that cannot be read for now is waited for, up to a minute; then the replay stops, and says where to go on. Only \
an entry whose bytes are lost is passed over.

Exit codes: 0 all of it, 1 part of it (what is missing is told, and where to go on), 2 wrong usage or not confirmed.

Examples:
  rtm-bridge replay --dry-run
  rtm-bridge replay --sink kafka --from 4711 --to 4800
  rtm-bridge replay --sink nats --app main --stream channel \\
    --since 2026-11-24T08:00:00Z --until 2026-11-24T09:00:00Z
  rtm-bridge replay --sink kafka --from 4711 --rate 500 --yes
  rtm-bridge replay --sink kafka --since 10m
  rtm-bridge replay --dir /var/lib/private/rtm-bridge.old --sink kafka --unconfirmed")]
pub(super) struct ReplayArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Another journal than the configuration's, such as a copy
    #[arg(long, value_name = "DIRECTORY")]
    dir: Option<PathBuf>,
    /// The sink to publish to; needed where there are several
    #[arg(long, value_name = "NAME")]
    sink: Option<String>,
    #[command(flatten)]
    range: Range,
    /// Only what the sink has not confirmed, of a journal that was set aside and that no bridge will run on again
    #[arg(long, requires = "dir")]
    unconfirmed: bool,
    /// At most so many records a second
    #[arg(long, value_name = "RECORDS", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Say what would be published, and publish nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub(super) fn replay(args: &ReplayArgs) -> anyhow::Result<bool> {
    args.range.check().map_err(refuse)?;
    let config = configuration(&args.config)?;
    telemetry::start(&config.log, "warn")?;
    let name = the_sink(args, &config).map_err(refuse)?;
    let dir = args.dir.as_ref().unwrap_or(&config.journal.dir);
    holds_a_journal(dir)?;
    if args.unconfirmed {
        no_bridge_publishes(dir, &config)?;
        takes_all(args, &config, name)?;
    }
    let selection =
        patiently(|| Selection::make(dir, &config, name, &args.range, args.unconfirmed))
            .context("nothing was published")?;
    args.range.unknown(&selection.known).map_err(refuse)?;
    let told = selection.told(dir, name);
    if args.dry_run {
        println!("{told}");
    } else {
        // Standard output belongs to the sink of that name.
        eprintln!("{told}");
    }
    if selection.entries.is_empty() {
        anyhow::ensure!(args.unconfirmed, "there is nothing to publish");
        return Ok(selection.missing() == 0);
    }
    if args.dry_run {
        return Ok(true);
    }
    if config.sinks[name].table().file().is_some() && Journal::inspect(dir)?.in_use {
        return Err(refuse(format!(
            "a bridge is running, and the file of {name} is its: stop it, or give another file in another configuration"
        )));
    }
    let events = selection.events();
    let events = counted(events, "event", "events");
    let question = format!("Publish about {events} to {name}, marked as replayed?");
    if !args.yes && !confirmed(&question)? {
        return Err(refuse("nothing was published; answer `yes`, or give --yes"));
    }
    let ended = runtime()?.block_on(publish(&config, name, dir, &selection, args))?;
    Ok(conclude(&ended, &selection, name))
}

/// Looks until everything can be read, for as long as a replay waits. What a running bridge removes meanwhile is not there at
/// the next look.
fn patiently(look: impl Fn() -> anyhow::Result<Selection>) -> anyhow::Result<Selection> {
    let began = Instant::now();
    loop {
        match look() {
            Err(error) if error.is::<Unreadable>() && began.elapsed() < PATIENCE => {
                eprintln!("{}; trying again", crate::chain(error.as_ref()));
                std::thread::sleep(LOOK_AGAIN);
            }
            selected => return selected,
        }
    }
}

/// The name of the sink that is meant.
fn the_sink<'a>(args: &'a ReplayArgs, config: &'a Config) -> Result<&'a str, String> {
    let names: Vec<&str> = config.sinks.keys().map(String::as_str).collect();
    let why = match (args.sink.as_deref(), &names[..]) {
        (Some(name), names) if names.contains(&name) => return Ok(name),
        (None, [only]) => return Ok(only),
        (Some(name), _) => format!("there is no sink {name};"),
        (None, _) => "which sink?".to_owned(),
    };
    Err(format!("{why} --sink takes one of: {}", names.join(", ")))
}

/// Refuses a journal of which a bridge publishes what waits, or will: by a replay it would come twice and out of order.
fn no_bridge_publishes(dir: &Path, config: &Config) -> anyhow::Result<()> {
    let found = Journal::inspect(dir)?;
    let why = if found.in_use {
        let who = found
            .in_use_by
            .map(|process| format!(" by process {process}"));
        let who = who.unwrap_or_default();
        format!("in use{who}, which publishes what waits there")
    } else if dir.canonicalize()? == config.journal.dir.canonicalize().unwrap_or_default() {
        "the journal of the configuration, and the next start publishes what waits there; the flag is for a journal that \
         was set aside"
            .to_owned()
    } else {
        if let Some(said) = super::death::said_of_death(&found) {
            eprintln!("{}: {said}", dir.display());
        }
        return Ok(());
    };
    Err(refuse(format!("--unconfirmed: {} is {why}", dir.display())))
}

/// Refuses to drain a part of what an App ID has into a sink that knows how far each App ID is published.
fn takes_all(args: &ReplayArgs, config: &Config, sink: &str) -> anyhow::Result<()> {
    if args.range.divides_apps() && config.sinks[sink].table().exact().is_some() {
        return Err(refuse(format!(
            "--unconfirmed: {sink} stores each record once, in order, and so it takes all that waits of an App ID: leave \
             out --from, --to, --since, --until, --region and --stream; --app may stay"
        )));
    }
    Ok(())
}

async fn publish(
    config: &Config,
    name: &str,
    dir: &Path,
    selection: &Selection,
    args: &ReplayArgs,
) -> anyhow::Result<Ended> {
    let stop = stop_on_signals()?;
    let sink = &config.sinks[name];
    let places = sink.places(&config.names());
    let purpose = match args.unconfirmed {
        true => Purpose::Drain,
        false => Purpose::Replay,
    };
    let client = sink.table().open(name, &places, purpose).await;
    let client = client.with_context(|| format!("the sink {name}"))?;
    let lanes = match purpose {
        Purpose::Drain => tokio::select! {
            lanes = Lanes::ask(&client, name, dir, selection) => lanes?,
            () = stop.cancelled() => anyhow::bail!("stopped by a signal; nothing was published"),
        },
        Purpose::Bridge | Purpose::Replay => None,
    };
    let routes = sink
        .table()
        .templates()
        .routes()
        .map_err(anyhow::Error::msg)?;
    let router = Router::replaying(routes);
    let ended = deliver::deliver(&client, lanes, router, dir, selection, args.rate, &stop).await;
    client.close().await;
    ended
}

/// Says what was published; whether that is all that was asked for.
fn conclude(ended: &Ended, selection: &Selection, sink: &str) -> bool {
    eprintln!(
        "{} and {} were published to {sink} again, of {}",
        counted(ended.counts.events, "event", "events"),
        counted(ended.counts.dead_letters, "dead letter", "dead letters"),
        counted(ended.entries as u64, "entry", "entries")
    );
    if ended.counts.there > 0 {
        let there = counted(ended.counts.there, "event was", "events were");
        eprintln!("{there} there already, and left out");
    }
    if ended.lost > 0 {
        let lost = counted(ended.lost as u64, "entry is", "entries are");
        eprintln!("{lost} damaged, or went from the journal meanwhile");
    }
    if let Some(why) = &ended.stopped {
        eprintln!("rtm-bridge: {why}");
        match selection.entries.get(ended.entries + ended.lost) {
            Some(_) if ended.is_once => {
                eprintln!("run the same again: it leaves out what {sink} has");
            }
            Some(next) => eprintln!("go on with: --from {}", next.position),
            None => {}
        }
    }
    ended.stopped.is_none() && ended.lost == 0 && selection.missing() == 0
}

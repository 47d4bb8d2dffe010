//! `rtm-bridge replay`: what is in the journal, published again.
//!
//! Beside a running bridge or without one: nothing is written to the journal, and nothing locked. What may be replayed to
//! a sink is what it has confirmed. That is durable, so that nothing is published that a crash could still take back; and
//! what is not confirmed is on its way already, so that a replay never comes before the first copy of a record.
//! Only of a journal that was set aside, which no bridge will publish, `--unconfirmed` takes the rest as well.

mod deliver;
mod select;

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use rtm_journal::Journal;

use super::configuration::{ConfigArgs, configuration};
use super::process::{refuse, runtime, stop_on_signals};
use super::range::Range;
use super::telemetry;
use crate::config::Config;
use deliver::Ended;
use rtm_record::Router;
use rtm_sink::Sink;
use select::Selection;

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
each sink; that is refused for the journal of the configuration, and while a process holds the journal.

Exit codes: 0 all of it, 1 part of it (what is missing is told, and where to go on), 2 wrong usage or not confirmed.

Examples:
  rtm-bridge replay --dry-run
  rtm-bridge replay --sink kafka --from 4711 --to 4800
  rtm-bridge replay --sink nats --app main --stream channel \\
    --since 2026-11-24T08:00:00Z --until 2026-11-24T09:00:00Z
  rtm-bridge replay --sink kafka --from 4711 --rate 500 --yes
  rtm-bridge replay --dir /var/lib/rtm-bridge.old --sink kafka --unconfirmed")]
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
    /// Also what the sink has not confirmed, of a journal that was set aside and that no bridge will run on again
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

pub(super) fn replay(args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    if let Err(message) = args.range.check() {
        return Ok(refuse(&message));
    }
    let config = match configuration(&args.config) {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    if let Err(error) = telemetry::start(&config.log, "warn") {
        return Ok(refuse(&error));
    }
    let name = match the_sink(args, &config) {
        Ok(name) => name,
        Err(message) => return Ok(refuse(&message)),
    };
    let dir = args
        .dir
        .clone()
        .unwrap_or_else(|| config.journal.dir.clone());
    if args.unconfirmed
        && let Some(message) = may_be_published_by_a_bridge(&dir, &config)?
    {
        return Ok(refuse(&message));
    }
    let mut selection = Selection::make(&dir, &name, &args.range, args.unconfirmed)?;
    selection.known.see_config(&config);
    if let Err(message) = args.range.unknown(&selection.known) {
        return Ok(refuse(&message));
    }
    // Standard output belongs to the sink of that name.
    eprint!("{}", selection.told(&dir, &name));
    if selection.entries.is_empty() {
        eprintln!("rtm-bridge: there is nothing to publish");
        return Ok(ExitCode::FAILURE);
    }
    if args.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    if config.sinks[&name].table().file().is_some() && Journal::inspect(&dir)?.in_use {
        return Ok(refuse(&format!(
            "a bridge is running, and the file of {name} is its: stop it, or give another file in another configuration"
        )));
    }
    if !args.yes && !confirmed(&selection, &name)? {
        return Ok(refuse(
            &"nothing was published; answer `yes`, or give --yes",
        ));
    }
    let ended = runtime()?.block_on(publish(&config, &name, &dir, &selection, args.rate))?;
    Ok(conclude(&ended, &selection, &name))
}

/// The name of the sink that is meant.
fn the_sink(args: &ReplayArgs, config: &Config) -> Result<String, String> {
    let names: Vec<&str> = config.sinks.keys().map(String::as_str).collect();
    match (&args.sink, &names[..]) {
        (Some(name), names) if names.contains(&name.as_str()) => Ok(name.clone()),
        (Some(name), names) => Err(format!(
            "there is no sink {name}; --sink takes one of: {}",
            names.join(", ")
        )),
        (None, [only]) => Ok((*only).to_owned()),
        (None, names) => Err(format!(
            "which sink? --sink takes one of: {}",
            names.join(", ")
        )),
    }
}

/// Why what waits in a journal is not to be published by a replay: a bridge does so, or will, and it would come twice and
/// out of order.
fn may_be_published_by_a_bridge(dir: &Path, config: &Config) -> anyhow::Result<Option<String>> {
    let found = Journal::inspect(dir)?;
    let own = config.journal.dir.canonicalize();
    Ok(if found.in_use {
        let who = found
            .in_use_by
            .map_or_else(String::new, |process| format!(" by process {process}"));
        Some(format!(
            "--unconfirmed: {} is in use{who}, which publishes what waits there",
            dir.display()
        ))
    } else if own.is_ok_and(|own| dir.canonicalize().is_ok_and(|dir| dir == own)) {
        Some(format!(
            "--unconfirmed: {} is the journal of the configuration, and the next start publishes what waits there; the flag \
             is for a journal that was set aside",
            dir.display()
        ))
    } else {
        None
    })
}

fn confirmed(selection: &Selection, sink: &str) -> io::Result<bool> {
    if !io::stdin().is_terminal() {
        return Ok(false);
    }
    eprint!(
        "Publish about {} events to {sink}, marked as replayed? Type yes: ",
        selection.events()
    );
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(answer.trim() == "yes")
}

async fn publish(
    config: &Config,
    name: &str,
    dir: &Path,
    selection: &Selection,
    rate: Option<u32>,
) -> anyhow::Result<Ended> {
    let stop = stop_on_signals()?;
    let sink = &config.sinks[name];
    let client = sink.client(name, sink.places(&config.names()), true).await;
    let client = client.with_context(|| format!("the sink {name}"))?;
    let routes = sink.table().routes().map_err(anyhow::Error::msg)?;
    let router = Router::replaying(routes);
    let ended = deliver::deliver(&client, router, dir, selection, rate, &stop).await;
    client.close().await;
    ended
}

fn conclude(ended: &Ended, selection: &Selection, sink: &str) -> ExitCode {
    eprintln!(
        "{} events and {} dead letters were published to {sink} again, of {} entries",
        ended.events, ended.dead_letters, ended.entries
    );
    if ended.unreadable > 0 {
        eprintln!(
            "{} entries could not be read, or were reclaimed meanwhile",
            ended.unreadable
        );
    }
    if let Some(why) = &ended.stopped {
        eprintln!("rtm-bridge: {why}");
        if let Some(next) = selection.entries.get(ended.entries + ended.unreadable) {
            eprintln!("go on with: --from {}", next.position);
        }
    }
    let whole = ended.stopped.is_none() && ended.unreadable == 0 && selection.missing() == 0;
    if whole {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

//! `rtm-bridge journal new-id`.

use rtm_journal::{Journal, Options};

use super::change::{change, stored};
use crate::commands::configuration::{DirArgs, configuration};
use crate::commands::process::{confirmed, refuse};

/// Give a copy of a journal a number of its own, so that both can be published; on a stopped bridge
///
/// A journal has a random number, and its copies have the same. Where a sink stores records once and only once, the broker
/// knows by that number how far the journal is published, and of two bridges on copies of one journal only the one that
/// was started last publishes.
///
/// With a new number the broker knows nothing of the journal: what waits in it is published, and what a crash left in
/// doubt may be there already.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: rtm-bridge journal new-id --dir /var/lib/rtm-bridge-copy")]
pub(crate) struct NewIdArgs {
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    place: DirArgs,
}

pub(super) fn new_id(args: &NewIdArgs) -> anyhow::Result<bool> {
    let dir = args.place.dir()?;
    let options = match &args.place.dir {
        Some(_) => Options::default(),
        None => configuration(&args.place.config)?.journal.bounds(),
    };
    let found = Journal::inspect(&dir)?;
    if found.segments.is_empty() {
        let dir = dir.display();
        return Err(refuse(format!("there is no journal in {dir}")));
    }
    if !args.yes && !confirmed("Give it a new number?")? {
        return Err(refuse("nothing was changed; answer `yes`, or give --yes"));
    }
    let id = change(&dir, options, async |journal| {
        Ok(stored(journal.renew_id()).await??)
    })?;
    println!(
        "the journal in {} has the number {id:032x} now",
        dir.display()
    );
    Ok(true)
}

//! `rtm-bridge journal verify`.

use bytesize::ByteSize;
use rtm_journal::{Damage, Inspection, Journal, Verification};
use serde_json::{Value, json};

use crate::commands::configuration::DirArgs;
use crate::commands::death::{said_of_death, uncounted};

/// Read and check everything that is stored, on a stopped bridge or a copy; exit code 1 when something is damaged
///
/// Checks every frame, and that every entry can be decompressed. Changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Damage costs what it hit and nothing else: the bridge goes on, and counts what is lost. A torn end is what a crash \
leaves of the last write, which was never reported stored; it is no damage. Of a journal that was not closed it says how \
many events the death of its process may have cost at the source; a start on the journal counts them.

Exit code: 0 sound, 1 damaged or not readable, 2 wrong usage.

Example: rtm-bridge journal verify --dir /var/lib/rtm-bridge")]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    place: DirArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn verify(args: &VerifyArgs) -> anyhow::Result<bool> {
    let dir = args.place.dir()?;
    let found = Journal::verify(&dir)?;
    let state = Journal::inspect(&dir)?;
    if args.json {
        println!(
            "{}",
            serde_json::to_string_pretty(&document(&found, &state))?
        );
    } else {
        println!(
            "{}: {} in {} segment(s), {} frames intact, {} of them entries",
            dir.display(),
            ByteSize(found.bytes),
            found.segments,
            found.frames,
            found.entries
        );
        if let Some(said) = said_of_death(&state) {
            println!("  DIED     {said}");
        }
        for stretch in &found.torn {
            println!("  torn     {}", line(stretch));
        }
        for stretch in &found.damage {
            println!("  DAMAGED  {}", line(stretch));
        }
        if found.damage.is_empty() {
            println!("  no damage");
        }
    }
    Ok(found.damage.is_empty())
}

fn line(damage: &Damage) -> String {
    format!(
        "segment {} at {}, {} bytes: {}",
        damage.segment, damage.offset, damage.bytes, damage.what
    )
}

/// For programs.
fn document(found: &Verification, state: &Inspection) -> Value {
    let stretch = |of: &Damage| json!({ "segment": of.segment, "offset": of.offset, "bytes": of.bytes, "what": of.what });
    json!({
        "clean": state.clean,
        "uncounted_events": uncounted(state),
        "segments": found.segments,
        "bytes": found.bytes,
        "frames": found.frames,
        "entries": found.entries,
        "damage": found.damage.iter().map(stretch).collect::<Value>(),
        "torn": found.torn.iter().map(stretch).collect::<Value>(),
    })
}

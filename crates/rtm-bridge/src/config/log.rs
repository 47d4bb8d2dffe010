//! What may be logged: `log.level`, or `RUST_LOG`.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

/// async-nats logs a line for whatever a server says, for each record that is denied too, and takes the planned end of a
/// connection for an error. What matters of it the sink tells in words of its own. Who wants its lines names it.
const SILENT: &str = "async_nats=off";

/// At `debug` it logs three lines more for each acknowledgement, thousands a second under load: more than anybody reads, and
/// all that a log rotates for. What its connections do is told there.
const QUIET: &str = "async_nats=info,async_nats::connector=debug";

/// The filter that `text` stands for: a level, or directives of tracing-subscriber, each with its level.
pub(crate) fn directives(text: &str) -> Result<EnvFilter, String> {
    let mut everywhere = None;
    let mut nats = false;
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    for &part in &parts {
        let (target, level) = match part.rsplit_once('=') {
            Some((target, level)) => (Some(target), level),
            None => (None, part),
        };
        let known = level.parse::<LevelFilter>().ok();
        let known = known.filter(|_| !level.is_empty());
        let level = known.ok_or_else(|| wrong(text, part))?;
        match target {
            None => everywhere = Some(level),
            Some(target) => nats |= target.starts_with("async_nats"),
        }
    }
    let mut all = parts.join(",");
    let added = match everywhere {
        _ if nats => None,
        Some(LevelFilter::TRACE) => None,
        Some(LevelFilter::DEBUG) => Some(QUIET),
        _ => Some(SILENT),
    };
    if let Some(added) = added {
        all = format!("{all},{added}");
    }
    EnvFilter::try_new(all).map_err(|_| wrong(text, text))
}

fn wrong(text: &str, part: &str) -> String {
    let of = if part == text {
        String::new()
    } else {
        format!(" of `{}`", text.escape_debug())
    };
    format!(
        "`{}`{of} is neither a level nor a directive; expected error, warn, info, debug or trace, or directives with such \
         levels, as in \"info,rtm_source=debug\"",
        part.escape_debug()
    )
}

#[cfg(test)]
mod tests;

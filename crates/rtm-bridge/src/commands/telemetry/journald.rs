//! Priorities for journald, which reads them at the beginning of each line of standard error: sd-daemon(3).
//!
//! Without them `journalctl -p warning` shows nothing of ours. journald's own protocol, with a field for each of ours,
//! would need a second connection and leave nothing on standard error for who redirects it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::LazyLock;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use crate::stderr;

/// Whether journald reads what goes to standard error: whether that is its stream, and not one that has been redirected
/// since (systemd.exec(5)).
pub(super) static READS: LazyLock<bool> = LazyLock::new(|| {
    let Some(stream) = std::env::var_os("JOURNAL_STREAM") else {
        return false;
    };
    let ours = io::stderr()
        .as_fd()
        .try_clone_to_owned()
        .and_then(|owned| File::from(owned).metadata());
    ours.is_ok_and(|ours| stream == format!("{}:{}", ours.dev(), ours.ino()).as_str())
});

/// Standard error, with a priority before each entry of the log where journald reads it.
#[derive(Debug, Default)]
pub(super) struct ToStderr;

impl<'a> MakeWriter<'a> for ToStderr {
    type Writer = Entry;

    fn make_writer(&'a self) -> Entry {
        Entry("")
    }

    fn make_writer_for(&'a self, of: &Metadata<'_>) -> Entry {
        Entry(if *READS { priority(*of.level()) } else { "" })
    }
}

/// As a line of syslog begins. There is none for `trace`: it is `debug` to journald.
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}

/// One entry, which the formatter hands over whole, and which is one line.
pub(super) struct Entry(&'static str);

impl Write for Entry {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        stderr::print([self.0.as_bytes(), bytes].concat());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

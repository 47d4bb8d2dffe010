//! The bridge that is measured: `run`, in a child process of the same executable.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;

use crate::usage::Usage;

/// How long it may take to end.
const END: Duration = Duration::from_secs(60);

/// Lines of its log that are shown when it fails.
const LOG_LINES: usize = 15;

/// The child, seen from its parent. It ends with its parent, whatever becomes of that: its standard input ends then.
pub(super) struct Child {
    process: tokio::process::Child,
    pid: u32,
    log: PathBuf,
}

impl Child {
    /// Starts it with this configuration, its log beside it. `theirs` says that the sinks are the user's, and with them
    /// what the environment lays over them.
    pub(super) fn start(config: &Path, theirs: bool) -> anyhow::Result<Child> {
        let log = config.with_extension("log");
        let mut command = tokio::process::Command::new(std::env::current_exe()?);
        command
            .args(["run", "--with-parent", "--config"])
            .arg(config)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log)?)
            // Ctrl-C is for us: the bridge ends when we say so.
            .process_group(0)
            .kill_on_drop(true);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            let of_sinks = theirs && name.starts_with("RTM_BRIDGE__SINKS__");
            if name.starts_with("RTM_BRIDGE_") && !of_sinks {
                command.env_remove(&*name);
            }
        }
        let process = command.spawn().context("cannot start the bridge")?;
        let pid = process.id().context("the bridge has no process id")?;
        Ok(Child { process, pid, log })
    }

    /// Says why it has ended, if it has.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        match self.process.try_wait()? {
            None => Ok(()),
            Some(status) => Err(self.ended(status)),
        }
    }

    /// What it has used.
    pub(super) fn usage(&self) -> anyhow::Result<Usage> {
        Usage::of(self.pid)
    }

    /// An error that says this, once the end of the log has been shown: an error is one line, and a log is not.
    pub(super) fn failed(&self, text: &str) -> anyhow::Error {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
            eprintln!("  the bridge's log: {line}");
        }
        anyhow::Error::msg(text.to_owned())
    }

    /// Asks it to end, and waits.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        drop(self.process.stdin.take());
        let ended = tokio::time::timeout(END, self.process.wait()).await;
        let Ok(ended) = ended else {
            return Err(self.failed("the bridge does not end"));
        };
        match ended? {
            status if status.success() => Ok(()),
            status => Err(self.ended(status)),
        }
    }

    fn ended(&self, status: ExitStatus) -> anyhow::Error {
        self.failed(&format!("the bridge has ended with {status}"))
    }
}

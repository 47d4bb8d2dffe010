//! When a configuration is to be read again: on SIGHUP, and when its content has changed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::info;

use crate::config::{Config, files};
use crate::notify::Notify;

/// How often the configuration is looked at. Its content counts, and not its times or its inodes: Kubernetes swaps a symbolic
/// link, and editors write a new file. A content is taken when two looks have found it, and so never half of one.
const LOOK: Duration = Duration::from_secs(2);

/// The files that count, by name, and what each holds; none for what cannot be read.
type Content = Option<Vec<(PathBuf, Option<Vec<u8>>)>>;

/// What a configuration's files hold before they are read: what changes while they are is seen afterwards.
pub(crate) struct Seen(Content);

impl Seen {
    pub(crate) fn now(file: &Path) -> Seen {
        Seen(content(file))
    }
}

/// Waits for the next configuration.
pub(crate) struct Watch {
    /// What `--config` names, a file or a directory.
    pub(super) file: PathBuf,
    hangup: Signal,
    /// What was read last, taken or refused.
    seen: Content,
    pub(super) notify: Arc<Notify>,
    pub(super) taken: Box<dyn Fn(&Config) + Send + Sync>,
}

impl Watch {
    /// For `file`, which is read after it has been [`Seen`]; `taken` is told each configuration that is. SIGHUP ends the process no more
    /// from here on.
    pub(crate) fn new(
        file: &Path,
        seen: Seen,
        notify: Arc<Notify>,
        taken: impl Fn(&Config) + Send + Sync + 'static,
    ) -> std::io::Result<Watch> {
        Ok(Watch {
            file: file.to_path_buf(),
            hangup: signal(SignalKind::hangup())?,
            seen: seen.0,
            notify,
            taken: Box::new(taken),
        })
    }

    /// Returns when the file is to be read again.
    pub(super) async fn next(&mut self) {
        let mut last = self.seen.clone();
        loop {
            tokio::select! {
                _ = self.hangup.recv() => {
                    info!("SIGHUP: reading the configuration again");
                    self.seen = self.look().await;
                    return;
                }
                () = tokio::time::sleep(LOOK) => {}
            }
            let content = self.look().await;
            if content != self.seen && content == last {
                info!(file = %self.file.display(), "the configuration has changed: reading it again");
                self.seen = content;
                return;
            }
            last = content;
        }
    }

    async fn look(&self) -> Content {
        let file = self.file.clone();
        let looked = tokio::task::spawn_blocking(move || content(&file));
        looked.await.ok().flatten()
    }
}

fn content(file: &Path) -> Content {
    let held = |file: PathBuf| {
        let held = std::fs::read(&file).ok();
        (file, held)
    };
    Some(files(file).ok()?.into_iter().map(held).collect())
}

#[cfg(test)]
mod tests;

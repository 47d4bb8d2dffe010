//! When a configuration is to be read again: on SIGHUP, and when its content has changed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;
use tracing::info;

use crate::config::{Config, files};
use crate::notify::Notify;

/// How often the configuration is looked at. Its content counts, and not its times or its inodes: Kubernetes swaps a symbolic
/// link, and editors write a new file. A content is taken when two looks have found it, and so never half of one.
const LOOK: Duration = Duration::from_secs(2);

/// The files that count, by name, and what each holds; none for what cannot be read.
type Content = Option<Vec<(PathBuf, Option<Vec<u8>>)>>;

/// Waits for the next configuration.
pub struct Watch {
    /// What `--config` names, a file or a directory.
    pub(super) file: PathBuf,
    hangup: Signal,
    /// What was read last, taken or refused.
    seen: Content,
    pub(super) notify: Arc<Notify>,
    pub(super) taken: Box<dyn Fn(&Config) + Send + Sync>,
}

impl Watch {
    /// For `file`, which has just been read; `taken` is told each configuration that is. SIGHUP ends the process no more
    /// from here on.
    ///
    /// # Errors
    ///
    /// When the handler of the signal cannot be installed.
    pub fn new(
        file: &Path,
        notify: Arc<Notify>,
        taken: impl Fn(&Config) + Send + Sync + 'static,
    ) -> std::io::Result<Watch> {
        Ok(Watch {
            file: file.to_path_buf(),
            hangup: signal(SignalKind::hangup())?,
            seen: content(file),
            notify,
            taken: Box::new(taken),
        })
    }

    /// Returns when the file is to be read again.
    pub(super) async fn next(&mut self) {
        let mut last = self.seen.clone();
        let mut look = Instant::now() + LOOK;
        loop {
            tokio::select! {
                _ = self.hangup.recv() => {
                    info!("SIGHUP: reading the configuration again");
                    self.seen = self.look().await;
                    return;
                }
                () = tokio::time::sleep_until(look) => {}
            }
            let content = self.look().await;
            if content != self.seen && content == last {
                info!(file = %self.file.display(), "the configuration has changed: reading it again");
                self.seen = content;
                return;
            }
            last = content;
            look = Instant::now() + LOOK;
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
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::symlink;

    use tokio::time::timeout;

    use super::*;

    fn watch(place: &Path) -> Watch {
        Watch::new(place, Arc::new(Notify::from_env()), |_| {}).unwrap()
    }

    async fn is_read_again(watch: &mut Watch) -> bool {
        timeout(5 * LOOK, watch.next()).await.is_ok()
    }

    /// Holds: a mounted configuration map is read again when its link is swapped, once; of a directory the names and contents
    /// count, and what is no part of the configuration does not.
    #[tokio::test(start_paused = true)]
    async fn a_directory_is_watched_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for (version, text) in [("..1", "a = 1"), ("..2", "a = 2")] {
            std::fs::create_dir(at(version)).unwrap();
            std::fs::write(at(version).join("10.toml"), text).unwrap();
        }
        symlink("..1", at("..data")).unwrap();
        symlink("..data/10.toml", at("10.toml")).unwrap();
        let mut watch = watch(dir.path());
        assert!(!is_read_again(&mut watch).await);

        symlink("..2", at("..new")).unwrap();
        std::fs::rename(at("..new"), at("..data")).unwrap();
        let swapped = Instant::now();
        assert!(is_read_again(&mut watch).await);
        assert!(swapped.elapsed() >= 2 * LOOK, "one look was enough");
        assert!(!is_read_again(&mut watch).await);

        std::fs::write(at("notes.txt"), "x").unwrap();
        std::fs::write(at(".30.toml"), "x").unwrap();
        std::fs::create_dir(at("more")).unwrap();
        std::fs::write(at("more/40.toml"), "x").unwrap();
        assert!(!is_read_again(&mut watch).await);

        std::fs::write(at("20.toml"), "").unwrap();
        assert!(is_read_again(&mut watch).await, "a file came");
        std::fs::rename(at("20.toml"), at("50.toml")).unwrap();
        assert!(is_read_again(&mut watch).await, "a file has another name");
        std::fs::remove_file(at("50.toml")).unwrap();
        assert!(is_read_again(&mut watch).await, "a file is gone");
    }

    /// Holds: one file is watched by its content, and that it is gone is seen as well.
    #[tokio::test(start_paused = true)]
    async fn a_file_is_watched() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("rtm-bridge.toml");
        std::fs::write(&file, "a = 1").unwrap();
        let mut watch = watch(&file);
        std::fs::write(dir.path().join("other.toml"), "a = 1").unwrap();
        std::fs::write(&file, "a = 1").unwrap();
        assert!(!is_read_again(&mut watch).await);
        std::fs::write(&file, "a = 2").unwrap();
        assert!(is_read_again(&mut watch).await);
        std::fs::remove_file(&file).unwrap();
        assert!(is_read_again(&mut watch).await);
        assert!(!is_read_again(&mut watch).await);
    }
}

//! A pipe that its reader may leave alone, as standard output and standard error have it.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// How often a reader that has nothing to do looks whether it has.
const LOOK: Duration = Duration::from_millis(5);

/// A named pipe, and a thread that copies what comes through it to the end of a file.
#[derive(Debug)]
pub(super) struct Pipe {
    path: PathBuf,
    told: Arc<Told>,
}

#[derive(Debug, Default)]
struct Told {
    stalled: AtomicBool,
    ended: AtomicBool,
    copied: AtomicU64,
}

impl Pipe {
    /// Makes the pipe at `path`, and copies from it to `file`.
    pub(super) fn start(path: &Path, file: &Path) -> Result<Pipe> {
        let made = Command::new("mkfifo").arg(path).status()?;
        ensure!(made.success(), "mkfifo ended with {made}");
        // Both ends, so that opening it waits for nobody.
        let pipe = File::options().read(true).write(true).open(path)?;
        let file = File::options().create(true).append(true).open(file)?;
        let told = Arc::new(Told::default());
        let thread = Arc::clone(&told);
        std::thread::spawn(move || {
            if let Err(error) = copy(pipe, file, &thread) {
                eprintln!("trial: a pipe is read no more: {error}");
            }
        });
        Ok(Pipe {
            path: path.to_path_buf(),
            told,
        })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Nobody reads it any more, or somebody does again.
    pub(super) fn stall(&self, stalled: bool) {
        self.told.stalled.store(stalled, Ordering::Release);
    }

    /// How many bytes came through it.
    pub(super) fn copied(&self) -> u64 {
        self.told.copied.load(Ordering::Acquire)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.told.ended.store(true, Ordering::Release);
        // What waits in it is of no use without a file, and its reader waits for a byte.
        if let Ok(mut pipe) = File::options().read(true).write(true).open(&self.path) {
            let _ = pipe.write_all(b"\n");
        }
    }
}

fn copy(mut pipe: File, mut file: File, told: &Told) -> Result<()> {
    let mut bytes = [0; 4096];
    while !told.ended.load(Ordering::Acquire) {
        if told.stalled.load(Ordering::Acquire) {
            std::thread::sleep(LOOK);
            continue;
        }
        let count = pipe.read(&mut bytes).context("read the pipe")?;
        if !told.ended.load(Ordering::Acquire) {
            file.write_all(&bytes[..count]).context("copy the pipe")?;
            told.copied.fetch_add(count as u64, Ordering::AcqRel);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::wait_for;

    /// Holds: what is written while nobody reads stays in the pipe, and comes when somebody reads again.
    #[tokio::test]
    async fn a_stalled_pipe_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("copy");
        let pipe = Pipe::start(&dir.path().join("pipe"), &copy).unwrap();
        let mut writer = File::options().append(true).open(pipe.path()).unwrap();
        let holds = async |text: &str| {
            wait_for(text, Duration::from_secs(60), async || {
                std::fs::read_to_string(&copy).unwrap() == text
            })
            .await
            .unwrap();
        };
        writer.write_all(b"one\n").unwrap();
        holds("one\n").await;
        pipe.stall(true);
        // The reader may be in the read that it has begun.
        writer.write_all(b"two\n").unwrap();
        holds("one\ntwo\n").await;
        writer.write_all(b"three\n").unwrap();
        std::thread::sleep(LOOK * 10);
        holds("one\ntwo\n").await;
        pipe.stall(false);
        holds("one\ntwo\nthree\n").await;
        assert_eq!(pipe.copied(), 14);
    }
}

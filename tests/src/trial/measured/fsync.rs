//! How long a page's worth of bytes takes to be durable, beside a trial.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// How much a probe writes: a page of a hundred events.
const PROBE_BYTES: usize = 10 << 10;

/// How often it does: too seldom to be in the way.
const PROBE_INTERVAL: Duration = Duration::from_millis(250);

/// Measures, for as long as it lives, how long a page's worth of bytes takes to be durable.
#[derive(Debug)]
pub struct FsyncProbe {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<std::io::Result<Vec<f64>>>>,
}

impl FsyncProbe {
    /// Begins, on the file system of `dir`.
    ///
    /// # Errors
    ///
    /// When the file cannot be made.
    pub fn start(dir: &Path) -> Result<FsyncProbe> {
        let mut file = tempfile::tempfile_in(dir)?;
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut took = Vec::new();
            while !told.load(Ordering::Relaxed) {
                let began = Instant::now();
                file.write_all(&[0x5a; PROBE_BYTES])?;
                file.sync_data()?;
                took.push(began.elapsed().as_secs_f64() * 1000.0);
                std::thread::sleep(PROBE_INTERVAL);
            }
            Ok(took)
        });
        Ok(FsyncProbe {
            stop,
            thread: Some(thread),
        })
    }

    /// Ends, and says what each write took, in milliseconds.
    ///
    /// # Errors
    ///
    /// When a write failed.
    pub fn finish(mut self) -> Result<Vec<f64>> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("finished once")?;
        let joined = thread.join();
        Ok(joined.map_err(|_| anyhow::anyhow!("the probe has panicked"))??)
    }
}

impl Drop for FsyncProbe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_probe_measures_until_it_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let probe = FsyncProbe::start(dir.path()).unwrap();
        std::thread::sleep(PROBE_INTERVAL);
        let took = probe.finish().unwrap();
        assert!(!took.is_empty() && took.iter().all(|ms| *ms > 0.0));
    }
}

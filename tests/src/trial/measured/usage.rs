//! What a process has used: processor time, switches, bytes written, memory, threads, files. From /proc.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// What a process has used so far, and what it holds now.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// Processor seconds of its own code, to a hundredth.
    pub user: f64,
    /// Processor seconds of the kernel for it, to a hundredth.
    pub system: f64,
    /// Times that a thread waited for something, and times that one was made to wait.
    pub switches: u64,
    /// Bytes that it caused to be written to disks: files, and not sockets.
    pub written: u64,
    /// The most memory that was ever resident, in bytes.
    pub peak: u64,
    /// Memory that is resident now, in bytes.
    pub resident: u64,
    /// Threads now.
    pub threads: u64,
}

impl Usage {
    /// Of a process.
    ///
    /// # Errors
    ///
    /// When it has ended, or /proc is not as proc(5) has it.
    pub fn of(pid: u32) -> Result<Usage> {
        let path = format!("/proc/{pid}");
        let dir = Path::new(&path);
        let read = |name: &str| {
            let path = dir.join(name);
            fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
        };
        let stat = read("stat")?;
        // The second field is a name in parentheses, which may hold anything.
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        let ticks = |index: usize| {
            let field = fields
                .get(index)
                .and_then(|field| field.parse::<u32>().ok());
            field
                .map(|ticks| f64::from(ticks) / TICKS_PER_SECOND)
                .context("not as proc_pid_stat(5) has it")
        };
        let status = read("status")?;
        let kib = |name: &str| Ok::<u64, anyhow::Error>(value(&status, name)? << 10);
        let mut switches = 0;
        for task in fs::read_dir(dir.join("task"))? {
            // A thread may end meanwhile.
            let Ok(status) = fs::read_to_string(task?.path().join("status")) else {
                continue;
            };
            switches += value(&status, "voluntary_ctxt_switches:").unwrap_or_default()
                + value(&status, "nonvoluntary_ctxt_switches:").unwrap_or_default();
        }
        Ok(Usage {
            user: ticks(11)?,
            system: ticks(12)?,
            switches,
            written: value(&read("io")?, "write_bytes:")?,
            peak: kib("VmHWM:")?,
            resident: kib("VmRSS:")?,
            threads: value(&status, "Threads:")?,
        })
    }

    /// What was used since `before`; what is held is that of now.
    #[must_use]
    pub fn since(&self, before: &Usage) -> Usage {
        Usage {
            user: self.user - before.user,
            system: self.system - before.system,
            switches: self.switches.saturating_sub(before.switches),
            written: self.written.saturating_sub(before.written),
            ..*self
        }
    }

    /// Processor seconds.
    #[must_use]
    pub fn cpu(&self) -> f64 {
        self.user + self.system
    }
}

/// The number behind `name` at the beginning of a line.
fn value(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    number
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("no {name} in /proc"))
}

/// The unit of CPU time in /proc: `USER_HZ`, 100 on every Linux that Rust's standard library supports.
const TICKS_PER_SECOND: f64 = 100.0;

/// How much a probe writes: a compressed page.
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

    /// Holds: work shows as time, written bytes as bytes, and memory, threads and switches are there.
    #[test]
    fn measures_this_process() {
        let pid = std::process::id();
        let before = Usage::of(pid).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut sum = 0_u64;
        // Others may have the processor meanwhile.
        while Usage::of(pid).unwrap().since(&before).cpu() < 0.05 && Instant::now() < deadline {
            for _ in 0..1_000_000 {
                sum = std::hint::black_box(sum.wrapping_add(1));
            }
        }
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![1; 1 << 20]).unwrap();
        file.sync_all().unwrap();
        std::thread::sleep(Duration::from_millis(1));
        let used = Usage::of(pid).unwrap().since(&before);
        assert!(used.cpu() >= 0.05, "{used:?}");
        assert!(used.switches > 0 && used.threads > 0, "{used:?}");
        assert!(
            used.peak >= used.resident && used.resident > 100_000,
            "{used:?}"
        );
        assert!(Usage::of(u32::MAX).is_err());
    }

    #[test]
    fn the_probe_measures_until_it_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let probe = FsyncProbe::start(dir.path()).unwrap();
        std::thread::sleep(PROBE_INTERVAL);
        let took = probe.finish().unwrap();
        assert!(!took.is_empty() && took.iter().all(|ms| *ms > 0.0));
    }
}

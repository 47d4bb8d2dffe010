//! What a process has used: processor time, switches, bytes written, memory. From /proc: for the bench and the trials.

use anyhow::Context;
use procfs::process::Process;

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
    pub fn of(pid: u32) -> anyhow::Result<Usage> {
        let process = Process::new(i32::try_from(pid)?)?;
        let (stat, status) = (process.stat()?, process.status()?);
        let seconds = |ticks: u64| ticks as f64 / procfs::ticks_per_second() as f64;
        let bytes = |kib: Option<u64>| kib.map(|kib| kib << 10).context("no memory in /proc");
        // A thread may end meanwhile.
        let threads = process.tasks()?.flatten();
        let switches = threads.filter_map(|thread| thread.status().ok()).map(|of| {
            of.voluntary_ctxt_switches.unwrap_or_default()
                + of.nonvoluntary_ctxt_switches.unwrap_or_default()
        });
        Ok(Usage {
            user: seconds(stat.utime),
            system: seconds(stat.stime),
            switches: switches.sum(),
            written: process.io()?.write_bytes,
            peak: bytes(status.vmhwm)?,
            resident: bytes(status.vmrss)?,
            threads: status.threads,
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Write;
    use std::time::{Duration, Instant};

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
        let now = Usage::of(pid).unwrap();
        // Not since then: threads of other tests end, and take theirs with them.
        assert!(now.switches > 0 && now.threads > 0, "{now:?}");
        let used = now.since(&before);
        assert!(used.cpu() >= 0.05, "{used:?}");
        assert!(
            used.peak >= used.resident && used.resident > 100_000,
            "{used:?}"
        );
        assert!(Usage::of(u32::MAX).is_err());
    }
}

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
    pub fn cpu(&self) -> f64 {
        self.user + self.system
    }
}

#[cfg(test)]
mod tests;

//! What a process has used: processor time, switches, bytes written, memory. From /proc: for the bench and the trials.

use std::fs;
use std::path::Path;

use anyhow::Context;

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
fn value(text: &str, name: &str) -> anyhow::Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    number
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("no {name} in /proc"))
}

/// The unit of CPU time in /proc: `USER_HZ`, 100 on every Linux that Rust's standard library supports.
const TICKS_PER_SECOND: f64 = 100.0;

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

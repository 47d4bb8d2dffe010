//! The process' own metrics, under the names that every exporter gives them.
//!
//! `prometheus` has a collector for them, which counts CPU time in whole seconds: of a bridge that takes a few per cent of
//! a core it shows nothing for half a minute, and then a spike.

use procfs::ProcResult;
use procfs::process::Process as Proc;
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge};
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// This process.
#[derive(Debug)]
pub(super) struct Process {
    /// In seconds since the Unix epoch. Read once: the kernel derives it from the wall clock, and a start that moves with
    /// the clock looks like a restart.
    started: f64,
}

impl Process {
    pub(super) fn new() -> Process {
        let started = || -> ProcResult<u64> {
            let after_boot = Proc::myself()?.stat()?.starttime / procfs::ticks_per_second();
            Ok(procfs::boot_time_secs()? + after_boot)
        };
        Process {
            started: started().unwrap_or_default() as f64,
        }
    }

    /// What Prometheus is told: what holds now. Nothing where there is no /proc.
    pub(super) fn collect(&self) -> Vec<MetricFamily> {
        let values = self.read().into_iter().flatten();
        let families = values.flat_map(|(name, help, value)| {
            if name.ends_with("_total") {
                let counter = Counter::new(name, help).expect("a constant name is valid");
                counter.inc_by(value);
                counter.collect()
            } else {
                let gauge = Gauge::new(name, help).expect("a constant name is valid");
                gauge.set(value);
                gauge.collect()
            }
        });
        families.collect()
    }

    /// Name, help and value of each metric.
    fn read(&self) -> ProcResult<[(&'static str, &'static str, f64); 7]> {
        let process = Proc::myself()?;
        let stat = process.stat()?;
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        // 0 where there is no limit.
        let max_fds = getrlimit(Resource::Nofile).current.unwrap_or_default();
        Ok([
            (
                "process_cpu_seconds_total",
                "Total user and system CPU time spent in seconds.",
                cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
            ),
            (
                "process_max_fds",
                "Maximum number of open file descriptors.",
                max_fds as f64,
            ),
            (
                "process_open_fds",
                "Number of open file descriptors.",
                process.fd_count()? as f64,
            ),
            (
                "process_resident_memory_bytes",
                "Resident memory size in bytes.",
                (stat.rss * procfs::page_size()) as f64,
            ),
            (
                "process_start_time_seconds",
                "Start time of the process since unix epoch in seconds.",
                self.started,
            ),
            (
                "process_threads",
                "Number of OS threads in the process.",
                stat.num_threads as f64,
            ),
            (
                "process_virtual_memory_bytes",
                "Virtual memory size in bytes.",
                stat.vsize as f64,
            ),
        ])
    }
}

#[cfg(test)]
mod tests;

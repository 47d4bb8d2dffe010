//! The process' own metrics, under the names that every exporter gives them.
//!
//! The collector of `prometheus` counts CPU time in whole seconds: of a bridge that takes a few per cent of a core it shows
//! nothing for half a minute, and then a spike. That one value is read here.

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{Counter, MetricFamily};
use rustix::time::{ClockId, clock_gettime};

/// What Prometheus is told of this process: what holds now. Nothing where there is no /proc.
pub(super) fn collect(process: &ProcessCollector) -> Vec<MetricFamily> {
    let mut families = process.collect();
    let of_cpu = |family: &&mut MetricFamily| family.name() == "process_cpu_seconds_total";
    if let Some(family) = families.iter_mut().find(of_cpu) {
        let used = clock_gettime(ClockId::ProcessCPUTime);
        let mut seconds = Counter::default();
        seconds.set_value(used.tv_sec as f64 + used.tv_nsec as f64 / 1e9);
        for metric in family.mut_metric() {
            metric.set_counter(seconds.clone());
        }
    }
    families
}

#[cfg(test)]
mod tests;

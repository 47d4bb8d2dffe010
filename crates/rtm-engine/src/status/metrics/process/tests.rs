#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use super::*;

fn value(process: &ProcessCollector, name: &str) -> f64 {
    let families = collect(process);
    let family = families.iter().find(|family| family.name() == name);
    let metric = &family.unwrap().get_metric()[0];
    metric.get_counter().get_value() + metric.get_gauge().get_value()
}

/// Holds: a hundredth of a second of CPU time is seen as one, and everything else has a plausible value.
#[test]
fn fractions_of_a_second_are_seen() {
    let process = ProcessCollector::for_self();
    let of = |name: &str| value(&process, name);
    let (began, before) = (Instant::now(), of("process_cpu_seconds_total"));
    let used = || of("process_cpu_seconds_total") - before;
    // Other processes may have the processor meanwhile.
    while used() < 0.01 && began.elapsed() < Duration::from_secs(30) {}
    // Other tests of this process may use some as well.
    assert!((0.01..1.0).contains(&used()), "{}", used());

    let now = jiff::Timestamp::now().as_millisecond() as f64 / 1000.0;
    let started = of("process_start_time_seconds");
    assert!((now - started).abs() < 3600.0, "{started} {now}");
    assert!(of("process_open_fds") >= 3.0 && of("process_threads") >= 1.0);
    assert!(of("process_max_fds") > of("process_open_fds"));
    let resident = of("process_resident_memory_bytes");
    assert!((1e6..of("process_virtual_memory_bytes")).contains(&resident));
    assert_eq!(collect(&process).len(), 7);
}

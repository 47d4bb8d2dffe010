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

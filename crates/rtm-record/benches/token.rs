//! Escaping of subject tokens: `cargo bench -p rtm-record`.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use rtm_record::escape_token;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("escape_token");
    let long = "x.".repeat(512);
    for (name, token) in [
        ("plain", "user_4711-a"),
        ("a real id", "rtmtest_RTM_4852_4857w7%"),
        ("hostile", "a.b.*.> \u{202e}\r\n%"),
        ("long", long.as_str()),
    ] {
        group.throughput(Throughput::Bytes(token.len() as u64));
        group.bench_function(name, |bench| bench.iter(|| escape_token(black_box(token))));
    }
    group.finish();
    criterion.final_summary();
}

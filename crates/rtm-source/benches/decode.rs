//! A full page, counted and decoded: `cargo bench -p rtm-source`.

use std::fmt::Write;
use std::hint::black_box;

use criterion::{Criterion, Throughput};

const EVENTS: u64 = 1_000;

/// As Agora answers: users of 4 to 32 characters, channels of a few.
fn page(channel: bool) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut body =
        r#"{"result":"success","request_id":"10116762670167749259","events":["#.to_owned();
    for number in 0..EVENTS {
        let comma = if number == 0 { "" } else { "," };
        let user: String = (0..rng.usize(4..32)).map(|_| rng.alphanumeric()).collect();
        let ms = 1_578_027_418_981 + number;
        let _ = match channel {
            false => write!(
                body,
                r#"{comma}{{"user_id":"{user}","type":"Login","ms":{ms}}}"#
            ),
            true => write!(
                body,
                r#"{comma}{{"group_id":"channel-{}","user_id":"{user}","type":"Join","ms":{ms}}}"#,
                number % 97
            ),
        };
    }
    body += "]}";
    body.into_bytes()
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for (stream, body) in [("user", page(false)), ("channel", page(true))] {
        let mut group = criterion.benchmark_group(stream);
        group.throughput(Throughput::Elements(EVENTS));
        group.bench_function("count", |bench| {
            bench.iter(|| rtm_source::count(black_box(&body)));
        });
        group.bench_function("decode", |bench| {
            bench.iter(|| rtm_source::decode(black_box(&body)).events.len());
        });
        group.finish();
    }
    criterion.final_summary();
}

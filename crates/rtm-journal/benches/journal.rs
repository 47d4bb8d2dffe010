//! Append, durable, alone and in groups, and read, on the disk of the temporary directory:
//! `cargo bench -p rtm-journal`.

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use futures::future::try_join_all;
use rtm_journal::{AppendError, Journal, Lane, Options, Position, Reader};

/// A page of 1,000 events takes about as much.
const ENTRY_BYTES: usize = 95_000;

/// Pages that are appended at once, or read.
const GROUP: usize = 32;

/// About as compressible as a page.
fn entry() -> Bytes {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut entry = Vec::with_capacity(ENTRY_BYTES + 100);
    while entry.len() < ENTRY_BYTES {
        let user = rng.u64(..);
        let event = format!(r#"{{"user_id":"u{user}","type":"Login","ms":1578027418981}},"#);
        entry.extend_from_slice(event.as_bytes());
    }
    entry.into()
}

async fn append(lane: &Lane, entry: &Bytes) -> Result<Position, AppendError> {
    let room = lane.reserve(entry.len()).await;
    room.append(black_box(entry.clone()), 1_000).await
}

/// Runs `once` so often, and makes room again in between.
fn timed<T>(
    times: u64,
    reader: &mut Reader,
    mut once: impl FnMut() -> Result<(Position, T), AppendError>,
) -> Duration {
    let mut took = Duration::ZERO;
    for _ in 0..times {
        let began = Instant::now();
        let through = once();
        took += began.elapsed();
        match through {
            Ok((through, _)) => reader.commit(through),
            Err(error) => panic!("the benchmark's journal does not take an entry: {error}"),
        }
    }
    took
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut criterion = Criterion::default().configure_from_args();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let dir = tempfile::tempdir()?;
    let journal = Journal::open(dir.path(), Options::default())?;
    let lane = journal.lane(&"bench".parse()?)?;
    let mut reader = lane.reader(&"bench".parse()?)?;
    let entry = entry();
    let mut group = criterion.benchmark_group("append");
    group.throughput(Throughput::Bytes(entry.len() as u64));
    group.bench_function("one", |bench| {
        bench.iter_custom(|times| {
            timed(times, &mut reader, || {
                let position = runtime.block_on(append(&lane, &entry))?;
                Ok((position, ()))
            })
        });
    });
    group.throughput(Throughput::Bytes((entry.len() * GROUP) as u64));
    group.bench_function("32 at once", |bench| {
        bench.iter_custom(|times| {
            timed(times, &mut reader, || {
                let all = (0..GROUP).map(|_| append(&lane, &entry));
                let positions = runtime.block_on(try_join_all(all))?;
                let last = positions.iter().max().copied().unwrap_or_default();
                Ok((last, ()))
            })
        });
    });
    group.finish();
    drop(reader);

    // Its own, since the last commits of the other may not be durable yet.
    let lane = journal.lane(&"read".parse()?)?;
    runtime.block_on(try_join_all((0..GROUP).map(|_| append(&lane, &entry))))?;
    let mut group = criterion.benchmark_group("read");
    group.throughput(Throughput::Bytes((entry.len() * GROUP) as u64));
    group.bench_function("32", |bench| {
        bench.iter(|| {
            // Uncommitted, so that the next reading finds the same.
            let mut reader = lane.reader(&"bench".parse().ok()?).ok()?;
            let mut read = 0;
            while let Ok(Some(entry)) = reader.try_next() {
                read += black_box(entry.bytes.len());
            }
            assert_eq!(read, entry.len() * GROUP, "the benchmark reads all of it");
            Some(read)
        });
    });
    group.finish();
    criterion.final_summary();
    runtime.block_on(journal.close())?;
    Ok(())
}

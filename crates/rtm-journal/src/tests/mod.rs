//! Tests of the whole journal, on a disk that they own.

mod anything;
mod bad_sectors;
mod basics;
mod counts;
mod crashes;
mod damage;
mod disk;
mod driven;
mod failures;
mod model;
mod on_disk;
mod room;
mod unreadable;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::{Entry, Journal, Lane, LaneName, Options, Position, Reader, ReaderName};

use disk::{Op, TestDisk};

/// Whatever is waited for comes within this, or never.
const DEADLINE: Duration = Duration::from_secs(10);

/// Small, without a look at the real file system, in no hurry with cursors, and with entries of both forms: what
/// compresses is compressed.
fn options() -> Options {
    Options {
        max_bytes: 1 << 20,
        segment_bytes: 16 << 10,
        min_free_bytes: 0,
        commit_interval: Duration::from_millis(2),
        compress_from: 0,
        ..Options::default()
    }
}

fn open(disk: &Arc<TestDisk>) -> Journal {
    open_with(disk, options())
}

fn open_with(disk: &Arc<TestDisk>, options: Options) -> Journal {
    Journal::open_on(Arc::clone(disk), options).unwrap()
}

fn lane(journal: &Journal, name: &str) -> Lane {
    journal.lane(&name.parse::<LaneName>().unwrap()).unwrap()
}

fn reader(lane: &Lane, name: &str) -> Reader {
    lane.reader(&name.parse::<ReaderName>().unwrap()).unwrap()
}

async fn append(lane: &Lane, entry: &[u8]) -> Position {
    in_time(async {
        lane.reserve(entry.len())
            .await
            .append(entry.to_vec(), 1)
            .await
            .unwrap()
    })
    .await
}

async fn next(reader: &mut Reader) -> Entry {
    in_time(reader.next()).await.unwrap()
}

/// Everything up to the tail.
fn drain(reader: &mut Reader) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| reader.try_next().unwrap())
        .map(|entry| entry.bytes.to_vec())
        .collect()
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future)
        .await
        .expect("it takes too long")
}

/// Looks until it is so.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Incompressible, and different for each seed.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..))
        .take(bytes)
        .collect()
}

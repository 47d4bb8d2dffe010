//! A driven journal on a simulated disk, beside what may be expected of it.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, UNIX_EPOCH};

use bytes::Bytes;

use crate::sim::{Op, SimDisk};
use crate::{AppendError, Driver, Epoch, Journal, Lane, Options, Position, ReadError, Reader};

pub(super) const LANES: [&str; 2] = ["a", "b"];
/// The first is there from the beginning, the second comes and goes.
pub(super) const READERS: [&str; 2] = ["r", "s"];
const COMMIT_INTERVAL: Duration = Duration::from_millis(100);

/// What is done to the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Append {
        lane: usize,
        bytes: usize,
    },
    /// In one write.
    AppendTwo,
    Commit {
        lane: usize,
        reader: usize,
        entries: usize,
    },
    /// The tally alone.
    Save {
        lane: usize,
        reader: usize,
    },
    Mark {
        lane: usize,
    },
    NewReader {
        lane: usize,
    },
    RemoveReader {
        lane: usize,
    },
    /// A segment more than filled, so that the next write begins another.
    Roll {
        lane: usize,
    },
    /// Everything committed by everybody, and let go of.
    Reclaim,
    /// Time for cursors, and for tries again, to become due.
    Pass {
        ms: u64,
    },
    /// Somebody wants more room than there is.
    Press {
        lane: usize,
    },
}

/// What one reader is known to have committed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Cursor {
    through: Position,
    passed: u64,
    tally: Bytes,
}

#[derive(Debug, Clone)]
struct Stored {
    position: Position,
    bytes: Bytes,
    count: u32,
    /// Let go of on a failing disk, after everybody had committed it. It may come back.
    gone: bool,
}

/// What was said about a lane, and what may be found of it.
#[derive(Debug, Clone)]
struct KnownLane {
    /// Reported durable, ever.
    stored: Vec<Stored>,
    /// Handed over, and not reported.
    pending: Vec<(Bytes, u32)>,
    /// Each of these may be found: from the last that was durable to the latest.
    marks: Vec<Option<Bytes>>,
    readers: Vec<Vec<Option<Cursor>>>,
}

impl KnownLane {
    /// Everything up to here may be gone, although the log does not know that it was committed.
    fn let_go(&self, failed: bool) -> Position {
        let cursors = self
            .readers
            .iter()
            .filter_map(|states| states.last()?.as_ref());
        let slowest = cursors.map(|cursor| cursor.through).min();
        slowest.filter(|_| failed).unwrap_or_default()
    }
}

/// All that a crash must not undo.
#[derive(Debug, Clone)]
pub(super) struct Known {
    lanes: Vec<KnownLane>,
    last: Position,
    /// The disk has failed: entries that everybody has committed may be gone although the log does not know it.
    pub(super) failed: bool,
}

impl Known {
    pub(super) fn nothing() -> Known {
        let lane = KnownLane {
            stored: Vec::new(),
            pending: Vec::new(),
            marks: vec![None],
            readers: vec![vec![None]; READERS.len()],
        };
        Known {
            lanes: vec![lane; LANES.len()],
            last: Position(0),
            failed: false,
        }
    }

    /// All that was said so far is durable.
    fn settle(&mut self) {
        for lane in &mut self.lanes {
            lane.marks.drain(..lane.marks.len() - 1);
            for states in &mut lane.readers {
                states.drain(..states.len() - 1);
            }
        }
    }
}

type Pending = Pin<Box<dyn Future<Output = Result<Position, AppendError>>>>;

pub(super) struct Bench {
    pub(super) disk: Arc<SimDisk>,
    pub(super) known: Known,
    pub(super) journal: Journal,
    driver: Driver,
    lanes: Vec<Lane>,
    readers: Vec<Vec<Option<Reader>>>,
    /// Where each reader is, which goes with what it gives next.
    read: Vec<Vec<Position>>,
    appends: Vec<(usize, Bytes, u32, Pending)>,
    clock: Arc<AtomicU64>,
    /// The disk before each call that changed it, with what was known then.
    pub(super) crashes: Vec<(Op, Arc<SimDisk>, Known)>,
    serial: u64,
}

pub(super) fn options(max_bytes: u64, segment_bytes: u64, clock: &Arc<AtomicU64>) -> Options {
    let (base, ms) = (Instant::now(), Arc::clone(clock));
    Options {
        max_bytes,
        segment_bytes,
        min_free_bytes: 0,
        compress_from: 0,
        commit_interval: COMMIT_INTERVAL,
        lanes_expected: LANES.len(),
        monotonic: Some(Arc::new(move || {
            base + Duration::from_millis(ms.load(Ordering::Relaxed))
        })),
        clock: Some(Arc::new(|| UNIX_EPOCH)),
        epoch: Some(Epoch(1)),
        ..Options::default()
    }
}

impl Bench {
    /// Opens the journal, with nobody's help, and holds it against what is known. Afterwards what was found is known.
    ///
    /// With `record`, the disk is remembered at each call of the opening, in `crashes`.
    pub(super) fn open(
        disk: &Arc<SimDisk>,
        known: Known,
        sizes: (u64, u64),
        record: bool,
    ) -> Bench {
        if record {
            disk.record();
        }
        let clock = Arc::new(AtomicU64::new(0));
        let (journal, driver) =
            Journal::open_driven(Arc::clone(disk), options(sizes.0, sizes.1, &clock))
                .expect("it opens without help");
        let mut bench = Bench {
            disk: Arc::clone(disk),
            crashes: Vec::new(),
            known,
            journal,
            driver,
            lanes: Vec::new(),
            readers: Vec::new(),
            read: vec![vec![Position(0); READERS.len()]; LANES.len()],
            appends: Vec::new(),
            clock,
            serial: 0,
        };
        if bench.journal.stats().failing {
            // It opens on a full disk, and only when that is over what is found is there to stay.
            bench.disk.heal();
            bench.clock.fetch_add(1100, Ordering::Relaxed);
            bench.driver.run();
        }
        bench.note_crashes();
        bench.examine();
        bench
    }

    /// Everything found is what is known, and nothing else.
    fn examine(&mut self) {
        self.journal.check();
        let stats = self.journal.stats();
        assert_eq!(stats.damaged, 0, "what a crash leaves is no damage");
        let let_go: Vec<Position> = self
            .known
            .lanes
            .iter()
            .map(|lane| lane.let_go(self.known.failed))
            .collect();
        let found: BTreeMap<String, _> = stats
            .lanes
            .into_iter()
            .map(|lane| (lane.name.to_string(), lane))
            .collect();
        for (index, name) in LANES.iter().enumerate() {
            let lane = self.journal.lane(&name.parse().unwrap()).unwrap();
            let known = &mut self.known.lanes[index];
            let mark = lane.mark();
            assert!(
                known.marks.contains(&mark),
                "lane {name}: mark {mark:?} of {:?}",
                known.marks
            );
            known.marks = vec![mark];
            let there = |reader: &str| {
                let lane = found.get(*name)?;
                lane.readers
                    .iter()
                    .find(|found| found.name.as_str() == reader)
                    .cloned()
            };
            let mut readers = Vec::new();
            for (number, reader_name) in READERS.iter().enumerate() {
                let states = &known.readers[number];
                let Some(stats) = there(reader_name) else {
                    assert!(
                        states.contains(&None),
                        "lane {name}: reader {reader_name} is gone"
                    );
                    known.readers[number] = vec![None];
                    readers.push(None);
                    continue;
                };
                let reader = lane.reader(&reader_name.parse().unwrap()).unwrap();
                let cursor = Cursor {
                    through: reader.committed(),
                    passed: stats.passed,
                    tally: reader.tally(),
                };
                let state = Some(cursor);
                assert!(
                    states.contains(&state),
                    "lane {name}: {reader_name} is {state:?}, expected one of {states:?}"
                );
                known.readers[number] = vec![state];
                readers.push(Some(reader));
            }
            self.lanes.push(lane);
            self.readers.push(readers);
        }
        for (lane, let_go) in let_go.into_iter().enumerate() {
            if self.readers[lane][0].is_none() {
                // Not durable yet when the crash came: made again.
                self.add_reader(lane, 0);
            }
            self.examine_entries(lane, let_go);
        }
        self.known
            .lanes
            .iter_mut()
            .for_each(|lane| lane.pending.clear());
    }

    /// What each reader of the lane gives.
    fn examine_entries(&mut self, lane: usize, let_go: Position) {
        let known = &mut self.known.lanes[lane];
        let least = known
            .stored
            .last()
            .map_or(Position(0), |last| last.position);
        for (number, reader) in self.readers[lane].iter_mut().enumerate() {
            let Some(reader) = reader else { continue };
            let from = reader.committed();
            let mut expected = known
                .stored
                .iter_mut()
                .filter(|stored| stored.position > from)
                .peekable();
            // What may be there or not.
            let missing = |next: &&mut Stored| next.gone || next.position <= let_go;
            let mut extra = Vec::new();
            while let Some(entry) = reader.try_next().expect("everything reads back") {
                while let Some(next) =
                    expected.next_if(|next| next.position < entry.position && missing(next))
                {
                    next.gone = true;
                }
                match expected.next() {
                    Some(stored) => {
                        assert_eq!(
                            (entry.position, &entry.bytes, entry.count),
                            (stored.position, &stored.bytes, stored.count),
                            "another entry than was stored"
                        );
                        stored.gone = false;
                    }
                    None => extra.push(Stored {
                        position: entry.position,
                        bytes: entry.bytes,
                        count: entry.count,
                        gone: false,
                    }),
                }
            }
            while let Some(next) = expected.next_if(|next| missing(next)) {
                next.gone = true;
            }
            let lost: Vec<Position> = expected.map(|stored| stored.position).collect();
            assert_eq!(
                lost,
                [],
                "{}/{}: reported durable, and lost",
                LANES[lane],
                READERS[number]
            );
            // Handed over and not reported: each may be there, once, in its order.
            let mut pending = known.pending.iter();
            for stored in &extra {
                assert!(stored.position > least, "a position is given again");
                assert!(
                    pending.any(|(bytes, count)| (bytes, *count) == (&stored.bytes, stored.count)),
                    "an entry that nobody appended, or twice: {stored:?} of {:?}",
                    known.pending
                );
            }
            if !extra.is_empty() {
                known.pending.clear();
            }
            self.known.last = extra
                .iter()
                .map(|stored| stored.position)
                .fold(self.known.last, Position::max);
            known.stored.extend(extra);
            reader.rewind();
            self.read[lane][number] = reader.committed();
        }
        let stats = self.journal.stats();
        let Some(stats) = stats
            .lanes
            .iter()
            .find(|found| found.name.as_str() == LANES[lane])
        else {
            return;
        };
        let sum: u64 = known
            .stored
            .iter()
            .map(|stored| u64::from(stored.count))
            .sum();
        assert_eq!(stats.appended, sum, "the counts of lane {}", LANES[lane]);
        for reader in &stats.readers {
            if !self.known.failed {
                assert_eq!(reader.missing, 0, "counts are missing");
            }
            if reader.name.as_str() == READERS[0] {
                assert_eq!(reader.passed + reader.pending_count + reader.missing, sum);
            }
        }
    }

    fn add_reader(&mut self, lane: usize, number: usize) {
        let reader = self.lanes[lane]
            .reader(&READERS[number].parse().unwrap())
            .unwrap();
        self.read[lane][number] = reader.committed();
        let cursor = Cursor {
            through: reader.committed(),
            ..Cursor::default()
        };
        self.known.lanes[lane].readers[number].push(Some(cursor));
        self.readers[lane][number] = Some(reader);
    }

    pub(super) fn step(&mut self, step: Step) {
        match step {
            Step::Append { lane, bytes } => self.append(lane, bytes),
            Step::AppendTwo => {
                self.append(0, 20);
                self.append(1, 30);
                self.append(0, 10);
            }
            Step::Roll { lane } => {
                self.append(lane, 700);
                self.run();
                self.append(lane, 10);
            }
            Step::Commit {
                lane,
                reader,
                entries,
            } => self.commit(lane, reader, entries),
            Step::Save { lane, reader } => self.save(lane, reader),
            Step::Mark { lane } => self.mark(lane),
            Step::NewReader { lane } => {
                if self.readers[lane][1].is_none() {
                    self.add_reader(lane, 1);
                }
            }
            Step::RemoveReader { lane } => self.remove_reader(lane),
            Step::Reclaim => {
                for lane in 0..LANES.len() {
                    for reader in 0..READERS.len() {
                        self.commit(lane, reader, usize::MAX);
                    }
                }
                self.pass(200);
            }
            Step::Pass { ms } => self.pass(ms),
            Step::Press { lane } => drop(self.lanes[lane].try_reserve(usize::MAX)),
        }
        self.run();
    }

    /// Lets the writer do what is due, and hears what it reports.
    fn run(&mut self) {
        self.driver.run();
        let stats = self.journal.stats();
        assert!(stats.bytes <= stats.max_bytes, "{} bytes", stats.bytes);
        let failing = stats.failing;
        self.known.failed |= stats.write_failures > 0;
        self.note_crashes();
        let mut reported = false;
        let mut waiting = Vec::new();
        for (lane, bytes, count, mut append) in self.appends.drain(..) {
            match poll(append.as_mut()) {
                Poll::Ready(position) => {
                    let position = position.unwrap();
                    assert!(position > self.known.last, "a position is given again");
                    self.known.last = position;
                    let known = &mut self.known.lanes[lane];
                    known.pending.remove(0);
                    known.stored.push(Stored {
                        position,
                        bytes,
                        count,
                        gone: false,
                    });
                    reported = true;
                }
                Poll::Pending => waiting.push((lane, bytes, count, append)),
            }
        }
        self.appends = waiting;
        assert!(
            failing || self.appends.is_empty(),
            "a disk that works, and an append that waits"
        );
        if reported && !failing {
            self.known.settle();
        }
    }

    fn note_crashes(&mut self) {
        let crashes = self.disk.recorded().into_iter();
        self.crashes
            .extend(crashes.map(|(op, disk)| (op, disk, self.known.clone())));
    }

    fn append(&mut self, lane: usize, bytes: usize) {
        let Some(room) = self.lanes[lane].try_reserve(bytes) else {
            return;
        };
        assert!(
            !self.journal.stats().failing,
            "room for what cannot be stored"
        );
        self.serial += 1;
        // Of two kinds, compressible and not, and all different.
        let seed = self.known.last.0 * 100 + self.serial;
        let mut entry = if seed.is_multiple_of(2) {
            super::super::noise(seed, bytes)
        } else {
            vec![seed as u8; bytes]
        };
        entry
            .iter_mut()
            .zip(seed.to_le_bytes())
            .for_each(|(byte, seed)| *byte ^= seed);
        let (entry, count) = (Bytes::from(entry), self.serial as u32 % 7);
        let mut append: Pending = {
            let entry = entry.clone();
            Box::pin(async move { room.append(entry, count).await })
        };
        assert!(poll(append.as_mut()).is_pending());
        self.known.lanes[lane].pending.push((entry.clone(), count));
        self.appends.push((lane, entry, count, append));
    }

    /// Reads on, holds it against what was stored, and commits it with a tally.
    fn commit(&mut self, lane: usize, number: usize, entries: usize) {
        let Some(reader) = &mut self.readers[lane][number] else {
            return;
        };
        let known = &mut self.known.lanes[lane];
        let at = &mut self.read[lane][number];
        for _ in 0..entries {
            let expected = known
                .stored
                .iter()
                .find(|stored| stored.position > *at && !stored.gone);
            match (reader.try_next(), expected) {
                (Ok(Some(entry)), Some(stored)) => {
                    assert_eq!(
                        (entry.position, &entry.bytes),
                        (stored.position, &stored.bytes)
                    );
                    *at = entry.position;
                }
                (Ok(None), None) | (Err(ReadError::Io { .. }), _) => break,
                (found, expected) => panic!("{found:?}, expected {expected:?}"),
            }
        }
        let states = &mut known.readers[number];
        let Some(Some(before)) = states.last().cloned() else {
            panic!("a reader that nobody made")
        };
        let passed = known.stored.iter().filter(|stored| {
            !stored.gone && stored.position > before.through && stored.position <= *at
        });
        let passed: u64 = passed.map(|stored| u64::from(stored.count)).sum();
        let after = Cursor {
            through: *at,
            passed: before.passed + passed,
            tally: Bytes::from(format!("{at} {}", states.len())),
        };
        reader.commit_with(*at, &after.tally).unwrap();
        states.push(Some(after));
    }

    fn save(&mut self, lane: usize, number: usize) {
        let Some(mut reader) = self.readers[lane][number].take() else {
            return;
        };
        self.serial += 1;
        let tally = Bytes::from(format!("saved {}", self.serial));
        let states = &mut self.known.lanes[lane].readers[number];
        let cursor = states.last().cloned().flatten().unwrap();
        states.push(Some(Cursor {
            tally: tally.clone(),
            ..cursor
        }));
        {
            let mut saving = Box::pin(reader.save(&tally));
            self.flushed(saving.as_mut());
        }
        self.readers[lane][number] = Some(reader);
    }

    fn mark(&mut self, lane: usize) {
        self.serial += 1;
        let mark =
            (!self.serial.is_multiple_of(5)).then(|| Bytes::from(format!("mark {}", self.serial)));
        self.known.lanes[lane].marks.push(mark.clone());
        let lane = self.lanes[lane].clone();
        let mut setting = Box::pin(lane.set_mark(mark));
        self.flushed(setting.as_mut());
    }

    fn remove_reader(&mut self, lane: usize) {
        if self.readers[lane][1].take().is_none() {
            return;
        }
        self.known.lanes[lane].readers[1].push(None);
        let lane = self.lanes[lane].clone();
        let name = READERS[1].parse().unwrap();
        let mut removing = Box::pin(lane.remove_reader(&name));
        self.flushed(removing.as_mut());
    }

    /// Durable once it returns; on a failing disk nobody waits for it here.
    fn flushed<T, E: std::fmt::Debug>(
        &mut self,
        mut flush: Pin<&mut impl Future<Output = Result<T, E>>>,
    ) {
        assert!(
            poll(flush.as_mut()).is_pending(),
            "durable before anything was written"
        );
        self.run();
        match poll(flush) {
            Poll::Ready(done) => {
                done.unwrap();
                self.known.settle();
            }
            Poll::Pending => assert!(self.journal.stats().failing),
        }
    }

    fn pass(&mut self, ms: u64) {
        self.clock.fetch_add(ms, Ordering::Relaxed);
        self.run();
        if !self.journal.stats().failing && ms > 100 {
            self.known.settle();
        }
    }

    /// With the disk in order again, everything handed over is reported durable, soon and by itself.
    pub(super) fn heal(&mut self) {
        self.disk.heal();
        self.disk.set_capacity(None);
        for _ in 0..3 {
            self.pass(1100);
        }
        assert!(!self.journal.stats().failing && self.appends.is_empty());
    }
}

fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

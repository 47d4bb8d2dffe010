//! Random histories, against a model that cannot be wrong: vectors.
//!
//! Several lanes and readers append, read, commit, rewind, roll, reclaim, lose power, are killed and are closed, in any
//! order. The model knows what was reported durable and what was committed; the journal may repeat, and nothing else.

use proptest::prelude::*;

use super::*;

const LANES: [&str; 3] = ["a", "b", "c"];
const READERS: [&str; 2] = ["kafka", "nats"];

#[derive(Debug, Clone)]
enum Step {
    Append {
        lane: usize,
        bytes: usize,
    },
    Read {
        lane: usize,
        reader: usize,
        entries: usize,
    },
    /// The newest but `less` of what was read.
    Commit {
        lane: usize,
        reader: usize,
        less: u64,
    },
    Rewind {
        lane: usize,
        reader: usize,
    },
    Mark {
        lane: usize,
        mark: u8,
    },
    Close,
    Kill,
    PowerLoss,
}

fn step() -> impl Strategy<Value = Step> {
    let lane = 0..LANES.len();
    let reader = 0..READERS.len();
    prop_oneof![
        8 => (lane.clone(), prop_oneof![0..200usize, 200..9000usize]).prop_map(|(lane, bytes)| Step::Append { lane, bytes }),
        6 => (lane.clone(), reader.clone(), 1..8usize)
            .prop_map(|(lane, reader, entries)| Step::Read { lane, reader, entries }),
        6 => (lane.clone(), reader.clone(), 0..3u64).prop_map(|(lane, reader, less)| Step::Commit { lane, reader, less }),
        1 => (lane.clone(), reader).prop_map(|(lane, reader)| Step::Rewind { lane, reader }),
        1 => (lane, any::<u8>()).prop_map(|(lane, mark)| Step::Mark { lane, mark }),
        1 => Just(Step::Close),
        1 => Just(Step::Kill),
        1 => Just(Step::PowerLoss),
    ]
}

#[derive(Default)]
struct Model {
    /// Position, epoch and bytes of every entry that was reported durable, by lane.
    lanes: Vec<Vec<(Position, crate::Epoch, Vec<u8>)>>,
    marks: Vec<Option<bytes::Bytes>>,
    readers: Vec<Vec<ModelReader>>,
}

#[derive(Default, Clone, Copy)]
struct ModelReader {
    committed: Position,
    read: Position,
}

struct Opened {
    journal: Journal,
    lanes: Vec<Lane>,
    readers: Vec<Vec<Reader>>,
}

impl Opened {
    fn on(disk: &Arc<TestDisk>) -> Opened {
        let journal = open_with(
            disk,
            Options {
                lanes_expected: LANES.len(),
                segment_bytes: 8 << 10,
                ..options()
            },
        );
        let lanes: Vec<Lane> = LANES.iter().map(|name| lane(&journal, name)).collect();
        let readers = lanes
            .iter()
            .map(|lane| READERS.iter().map(|name| reader(lane, name)).collect())
            .collect();
        Opened {
            journal,
            lanes,
            readers,
        }
    }
}

/// What the journal gives behind a reader's place is what the model has there: all of it, in order, as it was.
fn agrees(opened: &mut Opened, model: &Model) -> Result<(), TestCaseError> {
    opened.journal.check();
    let stats = opened.journal.stats();
    prop_assert!(stats.bytes <= stats.max_bytes);
    prop_assert_eq!(stats.damaged, 0);
    for (lane, entries) in model.lanes.iter().enumerate() {
        prop_assert_eq!(&opened.lanes[lane].mark(), &model.marks[lane]);
        for (index, known) in model.readers[lane].iter().enumerate() {
            let reader = &mut opened.readers[lane][index];
            prop_assert_eq!(reader.committed(), known.committed);
            let pending = entries
                .iter()
                .filter(|(position, ..)| *position > known.committed)
                .count();
            prop_assert_eq!(reader.pending().entries, pending as u64);
        }
    }
    Ok(())
}

async fn run(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut disk = TestDisk::new();
    let mut opened = Opened::on(&disk);
    let mut model = Model {
        lanes: vec![Vec::new(); LANES.len()],
        marks: vec![None; LANES.len()],
        readers: vec![vec![ModelReader::default(); READERS.len()]; LANES.len()],
    };
    let mut last = Position(0);
    for (number, step) in steps.into_iter().enumerate() {
        match step {
            Step::Append { lane, bytes } => {
                // A full journal is right to wait; here nobody would free it.
                let Some(room) = opened.lanes[lane].try_reserve(bytes) else {
                    continue;
                };
                let entry = noise(number as u64, bytes);
                let position = in_time(room.append(entry.clone(), 1)).await.unwrap();
                prop_assert!(position > last, "positions increase");
                last = position;
                model.lanes[lane].push((position, opened.journal.epoch(), entry));
            }
            Step::Read {
                lane,
                reader,
                entries,
            } => {
                let known = &mut model.readers[lane][reader];
                for _ in 0..entries {
                    let expected = model.lanes[lane]
                        .iter()
                        .find(|(position, ..)| *position > known.read);
                    let found = opened.readers[lane][reader].try_next().unwrap();
                    let found =
                        found.map(|entry| (entry.position, entry.epoch, entry.bytes.to_vec()));
                    prop_assert_eq!(found.as_ref(), expected);
                    known.read = found.map_or(known.read, |(position, ..)| position);
                }
            }
            Step::Commit { lane, reader, less } => {
                let known = &mut model.readers[lane][reader];
                let through = Position(known.read.0.saturating_sub(less));
                opened.readers[lane][reader].commit(through);
                known.committed = known.committed.max(through);
            }
            Step::Rewind { lane, reader } => {
                opened.readers[lane][reader].rewind();
                model.readers[lane][reader].read = model.readers[lane][reader].committed;
            }
            Step::Mark { lane, mark } => {
                let mark = (mark > 50).then(|| bytes::Bytes::from(vec![mark; mark.into()]));
                in_time(opened.lanes[lane].set_mark(mark.clone()))
                    .await
                    .unwrap();
                model.marks[lane] = mark;
            }
            Step::Close => {
                in_time(opened.journal.close()).await.unwrap();
                disk = disk.after_power_loss();
                opened = Opened::on(&disk);
                prop_assert!(!opened.journal.unclean());
                for (lane, index) in every_reader() {
                    let known = &mut model.readers[lane][index];
                    prop_assert_eq!(
                        opened.readers[lane][index].committed(),
                        known.committed,
                        "a close keeps every commit"
                    );
                    known.read = known.committed;
                }
            }
            Step::Kill | Step::PowerLoss => {
                let after = if matches!(step, Step::Kill) {
                    disk.after_kill()
                } else {
                    disk.after_power_loss()
                };
                drop(opened);
                disk = after;
                opened = Opened::on(&disk);
                prop_assert!(opened.journal.unclean());
                for (lane, index) in every_reader() {
                    let known = &mut model.readers[lane][index];
                    let found = opened.readers[lane][index].committed();
                    prop_assert!(found <= known.committed, "a cursor is ahead");
                    // What is repeated is repeated from here on.
                    *known = ModelReader {
                        committed: found,
                        read: found,
                    };
                }
            }
        }
        agrees(&mut opened, &model)?;
    }
    // In the end every reader finds everything that it has not committed.
    for (lane, index) in every_reader() {
        opened.readers[lane][index].rewind();
        let committed = model.readers[lane][index].committed;
        let rest = model.lanes[lane]
            .iter()
            .filter(|(position, ..)| *position > committed);
        prop_assert_eq!(
            drain(&mut opened.readers[lane][index]),
            rest.map(|(.., bytes)| bytes.clone()).collect::<Vec<_>>()
        );
    }
    Ok(())
}

fn every_reader() -> impl Iterator<Item = (usize, usize)> {
    (0..LANES.len()).flat_map(|lane| (0..READERS.len()).map(move |reader| (lane, reader)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    /// Holds: for any history, a journal gives what was appended, and its cursors are never ahead.
    #[test]
    fn any_history_agrees_with_the_model(steps in proptest::collection::vec(step(), 1..120)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(run(steps))?;
    }
}

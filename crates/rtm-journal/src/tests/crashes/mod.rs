//! Power losses and kills: all there are in short histories, and random ones in long histories.
//!
//! `RTM_JOURNAL_CRASHES=100000 cargo test --release -p rtm-journal crashes -- --nocapture` runs so many random crashes,
//! and the short histories of three steps with every crash during recovery too; `RTM_JOURNAL_SEED=7` runs one history.

mod bench;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bench::{Bench, Known, LANES, READERS, Step, options};

use crate::Journal;
use crate::sim::SimDisk;

/// Segments of little more than an entry, so that short histories have several.
const SIZES: (u64, u64) = (1 << 20, 600);
/// Up to so many unsynced things every subset is tried: 64.
const EVERY_SUBSET: usize = 6;

const STEPS: [Step; 10] = [
    Step::Append { lane: 0, bytes: 30 },
    Step::AppendTwo,
    Step::Commit {
        lane: 0,
        reader: 0,
        entries: 1,
    },
    Step::Save { lane: 0, reader: 0 },
    Step::Pass { ms: 200 },
    Step::Roll { lane: 1 },
    Step::Reclaim,
    Step::Mark { lane: 0 },
    Step::NewReader { lane: 0 },
    Step::RemoveReader { lane: 0 },
];

/// What two steps ask of the disk, at the most.
const CALLS: u64 = 14;

/// Tells how to repeat what fails.
struct Telling<F: Fn() -> String>(F);

impl<F: Fn() -> String> Drop for Telling<F> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed: {}", (self.0)());
        }
    }
}

fn asked() -> Option<u64> {
    let text = std::env::var("RTM_JOURNAL_CRASHES").ok()?;
    Some(text.parse().expect("RTM_JOURNAL_CRASHES is a number"))
}

/// What a power loss may leave of a disk, each once: every subset of what is not synced where that is few, else the
/// extremes, one lost, one kept, and some at random.
fn losses(disk: &Arc<SimDisk>, thorough: bool) -> Vec<Arc<SimDisk>> {
    let count = disk.unsynced();
    let mut after = Vec::new();
    if count <= if thorough { EVERY_SUBSET } else { 2 } {
        for subset in 0..1u32 << count {
            after.push(disk.after_power_loss(|thing| subset >> thing & 1 == 1));
        }
    } else {
        after.push(disk.after_power_loss(|_| false));
        after.push(disk.after_power_loss(|_| true));
        for number in 0..count {
            after.push(disk.after_power_loss(|thing| thing != number));
            if thorough {
                after.push(disk.after_power_loss(|thing| thing == number));
                after.push(disk.after_power_loss(|thing| thing < number));
            }
        }
    }
    if count > 0 {
        let random = if thorough { 6 } else { 1 };
        after.extend((0..random).map(|_| disk.after_random_power_loss()));
    }
    let mut seen = HashSet::new();
    after.retain(|disk| {
        let mut hasher = DefaultHasher::new();
        disk.files().hash(&mut hasher);
        seen.insert(hasher.finish())
    });
    after
}

/// Crashes `disk` in every way, and with `deep` every recovery from that too. Counts the openings.
fn crash(disk: &Arc<SimDisk>, known: &Known, thorough: bool, deep: bool, opened: &mut u64) {
    let mut after = losses(disk, thorough);
    after.push(disk.after_kill());
    for disk in after {
        *opened += 1;
        let mut bench = Bench::open(&disk, known.clone(), SIZES, deep);
        for (op, disk, known) in std::mem::take(&mut bench.crashes) {
            let _telling = Telling(move || format!("…and again in the recovery, at {op:?}"));
            crash(&disk, &known, false, false, opened);
        }
        // It works as before, also after another power loss.
        bench.step(Step::Append { lane: 0, bytes: 40 });
        *opened += 1;
        Bench::open(
            &bench.disk.after_power_loss(|_| false),
            bench.known.clone(),
            SIZES,
            false,
        );
    }
}

/// Runs the steps, and crashes at every call of the last; those of the others are shorter histories' last.
fn history(steps: &[Step], thorough: bool, deep: bool) -> u64 {
    let mut opened = 0;
    let disk = SimDisk::new(steps.len() as u64);
    let mut bench = Bench::open(&disk, Known::nothing(), SIZES, true);
    for (number, step) in steps.iter().enumerate() {
        bench.step(*step);
        if number + 1 < steps.len() {
            bench.crashes.clear();
        }
    }
    for (op, disk, known) in &bench.crashes {
        let _telling = Telling(|| format!("{steps:?}, crashed at {op:?}"));
        crash(disk, known, thorough, deep, &mut opened);
    }
    let _telling = Telling(|| format!("{steps:?}, crashed at the end"));
    crash(&bench.disk, &bench.known, thorough, deep, &mut opened);
    opened
}

/// Holds: after a crash at any call of any history of up to three steps, with any part of what was not synced, and after
/// another crash during the recovery, the journal opens by itself, nothing reported durable is missing, no cursor is
/// ahead, tallies and counts are those of the cursors, marks are right, no position is given again.
#[test]
fn every_crash_in_short_histories() {
    let (began, long) = (std::time::Instant::now(), asked().is_some());
    let (mut histories, mut opened) = (1, history(&[], true, true));
    // Two entries are there from the beginning, so that a first step has something to be about.
    let base = Step::AppendTwo;
    for first in STEPS {
        opened += history(&[base, first], true, true);
        for second in STEPS {
            opened += history(&[base, first, second], long, long);
            histories += 2;
            if !long {
                continue;
            }
            for third in STEPS {
                opened += history(&[base, first, second, third], true, true);
                histories += 1;
            }
        }
    }
    println!(
        "{histories} short histories, {opened} openings after crashes, in {:?}",
        began.elapsed()
    );
}

/// Holds, for every call of every history of two steps that fails once, and from which on all fail: what is pending is
/// kept in memory, not reported durable before it is, and stored as soon as the disk allows, by itself; a power loss in
/// between loses nothing that was reported.
#[test]
fn every_failing_call_in_short_histories() {
    let (mut opened, mut most) = (0, 0);
    for (first, second) in STEPS
        .iter()
        .flat_map(|first| STEPS.map(|second| (*first, second)))
    {
        for (lasting, call) in [false, true]
            .into_iter()
            .flat_map(|lasting| (0..CALLS).map(move |call| (lasting, call)))
        {
            let steps = [Step::AppendTwo, first, second];
            let _telling = Telling(|| format!("{steps:?}, failing call {call}, lasting {lasting}"));
            let disk = SimDisk::new(call);
            disk.set_drops_at_once(call % 2 == 0);
            let mut bench = Bench::open(&disk, Known::nothing(), SIZES, false);
            bench.step(steps[0]);
            let calls = Arc::new(AtomicU64::new(0));
            let count = Arc::clone(&calls);
            let kind = if lasting {
                io::ErrorKind::StorageFull
            } else {
                io::ErrorKind::Other
            };
            disk.fail(move |op, _| {
                let at = count.fetch_add(u64::from(op.changes()), Ordering::Relaxed);
                (op.changes() && (at == call || lasting && at > call)).then_some(kind)
            });
            bench.step(steps[1]);
            bench.step(steps[2]);
            for after in losses(&disk, false) {
                opened += 1;
                Bench::open(&after, bench.known.clone(), SIZES, false);
            }
            bench.heal();
            opened += 1;
            Bench::open(
                &disk.after_power_loss(|_| false),
                bench.known.clone(),
                SIZES,
                false,
            );
            most = most.max(calls.load(Ordering::Relaxed));
        }
    }
    assert!((CALLS / 2..CALLS + 20).contains(&most), "{most} calls");
    println!("{opened} openings after failures");
}

/// What long histories came to.
#[derive(Debug, Default)]
struct Tally {
    histories: u64,
    steps: u64,
    crashes: u64,
    in_recovery: u64,
    failures: u64,
    copied: u64,
}

/// Holds: the same, for long histories with several crashes one after another, on disks that fail now and then or are
/// full, in journals so small that slow lanes are copied forward.
#[test]
fn random_crashes_in_long_histories() {
    let began = std::time::Instant::now();
    let mut tally = Tally::default();
    let seed = std::env::var("RTM_JOURNAL_SEED").ok();
    if let Some(seed) = seed {
        random(
            seed.parse().expect("RTM_JOURNAL_SEED is a number"),
            &mut tally,
        );
    } else {
        let crashes = asked().unwrap_or(2000);
        for seed in 0.. {
            random(seed, &mut tally);
            if tally.crashes >= crashes {
                break;
            }
        }
        assert!(
            tally.in_recovery > crashes / 20
                && tally.failures > crashes / 20
                && tally.copied > crashes / 20,
            "{tally:?}"
        );
    }
    println!("{tally:?} in {:?}", began.elapsed());
}

fn random(seed: u64, tally: &mut Tally) {
    let _telling = Telling(|| {
        format!("RTM_JOURNAL_SEED={seed} cargo test -p rtm-journal random_crashes -- --nocapture")
    });
    let mut random = fastrand::Rng::with_seed(seed);
    let sizes = *random
        .choice(&[(64 << 10, 600), (64 << 10, 4 << 10), (1 << 20, 2 << 10)])
        .unwrap();
    let mut disk = SimDisk::new(seed);
    let mut known = Known::nothing();
    tally.histories += 1;
    for _ in 0..random.usize(2..6) {
        disk.set_drops_at_once(random.bool());
        if random.u8(..4) == 0 {
            // An opening that fails, or is killed as soon as it has succeeded.
            fail(&disk, &mut random);
            known.failed = true;
            drop(Journal::open_driven(
                Arc::clone(&disk),
                options(sizes.0, sizes.1, &Arc::default()),
            ));
            disk.heal();
            disk = lose(&disk, &mut random);
            tally.crashes += 1;
        }
        let in_recovery = random.u8(..3) == 0;
        let mut bench = Bench::open(&disk, known.clone(), sizes, in_recovery);
        if in_recovery && !bench.crashes.is_empty() {
            let (_, at, known) = bench
                .crashes
                .swap_remove(random.usize(..bench.crashes.len()));
            (tally.in_recovery, tally.crashes) = (tally.in_recovery + 1, tally.crashes + 1);
            bench = Bench::open(&lose(&at, &mut random), known, sizes, false);
        }
        let copied = bench.journal.stats().copied;
        bench.disk.record();
        let mut crashed = None;
        let mut seen = 0;
        for _ in 0..random.usize(1..120) {
            match random.u8(..60) {
                0 => fail(&bench.disk, &mut random),
                1 => bench.disk.set_capacity(Some(random.u64(2 << 10..80 << 10))),
                2 | 3 => bench.heal(),
                _ => bench.step(step(&mut random)),
            }
            tally.steps += 1;
            // One of all the calls, each as likely.
            for crash in bench.crashes.drain(..) {
                seen += 1;
                if random.u64(..seen) == 0 {
                    crashed = Some(crash);
                }
            }
        }
        if random.u8(..4) == 0 {
            bench.heal();
            crashed = None;
        }
        tally.crashes += 1;
        tally.failures += bench.journal.stats().write_failures;
        tally.copied += bench.journal.stats().copied - copied;
        let (at, then) = crashed.map_or(
            (Arc::clone(&bench.disk), bench.known.clone()),
            |(_, at, known)| (at, known),
        );
        at.heal();
        at.set_capacity(None);
        (disk, known) = (lose(&at, &mut random), then);
    }
    Bench::open(&disk, known, sizes, false);
}

fn lose(disk: &Arc<SimDisk>, random: &mut fastrand::Rng) -> Arc<SimDisk> {
    match random.u8(..4) {
        0 => disk.after_kill(),
        1 => disk.after_power_loss(|_| random.bool()),
        _ => disk.after_random_power_loss(),
    }
}

fn fail(disk: &Arc<SimDisk>, random: &mut fastrand::Rng) {
    let mut chance = random.fork();
    let every = random.u32(1..30);
    let kinds = [
        io::ErrorKind::StorageFull,
        io::ErrorKind::Other,
        io::ErrorKind::NotFound,
    ];
    let kind = kinds[random.usize(..2)];
    disk.fail(move |op, _| (op.changes() && chance.u32(..every) == 0).then_some(kind));
}

fn step(random: &mut fastrand::Rng) -> Step {
    // The first lane is slow: it pins old segments.
    let lane = usize::from(random.u8(..4) > 0);
    let reader = random.usize(..READERS.len());
    match random.u8(..32) {
        0..12 => Step::Append {
            lane: random.usize(..LANES.len()),
            bytes: random.usize(0..1500),
        },
        12..14 => Step::AppendTwo,
        14..21 => Step::Commit {
            lane,
            reader,
            entries: random.usize(1..12),
        },
        21 => Step::Save { lane, reader },
        22 => Step::Mark { lane },
        23 => Step::NewReader { lane },
        24 => Step::RemoveReader { lane },
        25 => Step::Roll { lane },
        26 if random.u8(..8) == 0 => Step::Reclaim,
        26..28 => Step::Press { lane },
        _ => Step::Pass {
            ms: random.u64(0..400),
        },
    }
}

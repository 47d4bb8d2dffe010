//! Segments of arbitrary bytes, for property tests and fuzzing.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::SystemTime;

use crate::frame::{Header, Kind, prologue};
use crate::sim::SimDisk;
use crate::{Epoch, Journal, OpenError, Options, Position, ReadError};

/// Opens a journal whose segments are made of `input`, and panics unless it behaves: it opens without help, gives each
/// position at most once and in order, takes an entry, and has it when it is opened again. Of another version, it is
/// refused and left alone.
///
/// # Panics
///
/// That is what it is for.
pub fn open_anything(input: &[u8]) {
    let disk = SimDisk::of(segments(input));
    let before = disk.files();
    let options = || Options {
        max_bytes: 64 << 20,
        min_free_bytes: 0,
        ..Options::default()
    };
    let (journal, mut driver) = match Journal::open_driven(Arc::clone(&disk), options()) {
        Ok(opened) => opened,
        Err(OpenError::Version { .. }) => return assert_eq!(disk.files(), before),
        Err(error) => panic!("it does not open: {error}"),
    };
    let Ok(lane) = journal.lane(&lane_name()) else {
        return;
    };
    let last = drain(&journal);
    if let Some(room) = lane.try_reserve(4) {
        let mut append = pin!(room.append("mine", 1));
        let mut context = Context::from_waker(Waker::noop());
        assert!(append.as_mut().poll(&mut context).is_pending());
        driver.run();
        let Poll::Ready(Ok(position)) = append.as_mut().poll(&mut context) else {
            panic!("the append is not stored");
        };
        assert!(last.is_none_or(|last| position > last), "a position again");
        let after = disk.after_power_loss(|_| false);
        let again = Journal::open_driven(after, options());
        let (journal, _driver) = again.expect("it opens again");
        assert_eq!(drain(&journal), Some(position));
    }
}

fn lane_name() -> crate::LaneName {
    crate::LaneName::try_from("a").unwrap_or_else(|error| panic!("{error}"))
}

/// Reads everything of one lane, and says what came last.
fn drain(journal: &Journal) -> Option<Position> {
    let lane = journal.lane(&lane_name()).ok()?;
    let reader = crate::ReaderName::try_from("fuzz").ok()?;
    let mut reader = lane.reader(&reader).ok()?;
    let mut last = None;
    loop {
        let position = match reader.try_next() {
            Ok(Some(entry)) => entry.position,
            Err(ReadError::Damaged { position, .. }) => position,
            Ok(None) => return last,
            Err(error) => panic!("{error}"),
        };
        assert!(last.is_none_or(|last| position > last), "out of order");
        last = Some(position);
    }
}

/// Up to four segments. The first byte of each part says how it is made: as it is, with a prologue before it, or as
/// frames whose checksums are right, so that what is behind a checksum is reached.
fn segments(input: &[u8]) -> BTreeMap<u32, Vec<u8>> {
    let mut segments = BTreeMap::new();
    let mut number = 0;
    for part in input.split(|byte| *byte == 0xfe).take(4) {
        let (how, rest) = part
            .split_first()
            .map_or((0, part), |(how, rest)| (*how, rest));
        let bytes = match how % 4 {
            0 => part.to_vec(),
            1 => [&prologue(number), rest].concat(),
            _ => frames(number, rest),
        };
        segments.insert(number, bytes);
        // Now and then one is missing.
        number += 1 + u32::from(how > 200);
    }
    segments
}

fn frames(segment: u32, mut input: &[u8]) -> Vec<u8> {
    let mut out = prologue(segment).to_vec();
    while let [kind, position, count, length, rest @ ..] = input {
        let (body, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        input = rest;
        let kind_of = [Kind::Head, Kind::Entry, Kind::Changes, Kind::Close][usize::from(*kind % 4)];
        let mut header = Header::of(kind_of, body, Epoch(1), SystemTime::UNIX_EPOCH);
        if kind_of == Kind::Entry {
            header.lane = lane_name().id();
            header.position = Position(u64::from(*position));
            header.count = u32::from(*count);
            header.entry_bytes = u32::from(*length);
            header.compressed = *kind > 127;
        }
        let offset = out.len() as u32;
        header.group = if *kind & 0x40 == 0 { offset } else { 0 };
        // A wrong body, now and then.
        header.body_crc ^= u32::from(*kind & 0x30 == 0x30);
        out.extend_from_slice(&header.encode(segment, offset));
        out.extend_from_slice(body);
    }
    out
}

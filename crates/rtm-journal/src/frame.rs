//! The format of a segment: a prologue, and frames one after another.
//!
//! All numbers are little-endian. CRC is CRC-32C.
//!
//! **Prologue**, 24 bytes. Every version of the format begins so.
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 8 | `rtm-jrnl` |
//! | 8 | 4 | format version, 2 |
//! | 12 | 4 | number of the segment |
//! | 16 | 4 | 0 |
//! | 20 | 4 | CRC of the 20 bytes before. Where it is wrong, the prologue is damaged, not of another version |
//!
//! **Frame**: a header of 60 bytes, then the body.
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 4 | `A7 4A F5 C1`, which is no UTF-8: where to look for the next frame behind a damaged one |
//! | 4 | 4 | CRC of the segment's number, the frame's offset (4 bytes each) and the 52 bytes that follow |
//! | 8 | 4 | length of the body |
//! | 12 | 4 | CRC of the body |
//! | 16 | 4 | length of the entry before compression |
//! | 20 | 4 | offset at which this frame's *group* begins: all before it was durable when this was written |
//! | 24 | 4 | lane: CRC of its name; 0 where it does not apply |
//! | 28 | 1 | kind |
//! | 29 | 1 | flags: 1 = the body is compressed (zstd), as where its readers are late |
//! | 30 | 2 | 0 |
//! | 32 | 8 | position; 0 where it does not apply |
//! | 40 | 8 | epoch of the process that appended the entry (an entry copied forward keeps it) or wrote the frame |
//! | 48 | 8 | when, in milliseconds since the Unix epoch |
//! | 56 | 4 | what the caller counts in the entry; 0 where it does not apply |
//!
//! | kind | body |
//! |---|---|
//! | 1 head | the next position (8 bytes), then [changes](crate::change) that tell all lanes, cursors and marks |
//! | 2 entry | the entry |
//! | 3 changes | [changes](crate::change) |
//! | 4 close | nothing: the process closed the journal, and wrote nothing after |
//!
//! The header has a CRC of its own so that damage to a body is confined to it, and so that opening need not read
//! bodies. The CRC covers the frame's place, so that a frame inside an entry's bytes is never taken for one of ours.
//! The group tells a torn tail from damage: what lies before any intact frame's group had been synced.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use zstd::bulk::Compressor;

use crate::{Epoch, Position};

pub(crate) const VERSION: u32 = 2;
pub(crate) const PROLOGUE_BYTES: usize = 24;
pub(crate) const HEADER_BYTES: usize = 60;
/// No body is longer. The longest is a head of [`crate::MAX_LANES`] lanes with everything at its limit, 17 MiB; an entry
/// is stored compressed only where that makes it smaller.
pub(crate) const MAX_BODY_BYTES: usize = 2 * crate::MAX_ENTRY_BYTES;
/// No position is larger: at a million entries a second that is enough for a hundred thousand years.
pub(crate) const MAX_POSITION: Position = Position(1 << 62);
pub(crate) const MAGIC: [u8; 4] = [0xa7, 0x4a, 0xf5, 0xc1];

const PROLOGUE_MAGIC: &[u8; 8] = b"rtm-jrnl";
const COMPRESSED: u8 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Head = 1,
    Entry = 2,
    Changes = 3,
    Close = 4,
}

/// A frame's header, without what its place adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) compressed: bool,
    pub(crate) body_bytes: u32,
    pub(crate) body_crc: u32,
    pub(crate) entry_bytes: u32,
    pub(crate) group: u32,
    pub(crate) lane: u32,
    pub(crate) position: Position,
    pub(crate) epoch: Epoch,
    pub(crate) at_ms: i64,
    pub(crate) count: u32,
}

impl Header {
    /// The header of a frame that is no entry.
    pub(crate) fn of(kind: Kind, body: &[u8], epoch: Epoch, now: SystemTime) -> Header {
        Header {
            kind,
            compressed: false,
            body_bytes: u32::try_from(body.len()).unwrap_or(u32::MAX),
            body_crc: crc32c::crc32c(body),
            entry_bytes: 0,
            group: 0,
            lane: 0,
            position: Position(0),
            epoch,
            at_ms: to_ms(now),
            count: 0,
        }
    }

    /// Header and body together.
    pub(crate) fn frame_bytes(&self) -> u32 {
        HEADER_BYTES as u32 + self.body_bytes
    }

    pub(crate) fn encode(&self, segment: u32, offset: u32) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        let mut at = 8;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&self.body_bytes.to_le_bytes());
        put(&self.body_crc.to_le_bytes());
        put(&self.entry_bytes.to_le_bytes());
        put(&self.group.to_le_bytes());
        put(&self.lane.to_le_bytes());
        put(&[
            self.kind as u8,
            if self.compressed { COMPRESSED } else { 0 },
            0,
            0,
        ]);
        put(&self.position.0.to_le_bytes());
        put(&self.epoch.0.to_le_bytes());
        put(&self.at_ms.to_le_bytes());
        put(&self.count.to_le_bytes());
        out[..4].copy_from_slice(&MAGIC);
        let crc = placed_crc(segment, offset, &out[8..]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The header at `offset` of `segment`, if these bytes are one.
    pub(crate) fn decode(bytes: &[u8], segment: u32, offset: u32) -> Option<Header> {
        let bytes: &[u8; HEADER_BYTES] = bytes.get(..HEADER_BYTES)?.try_into().ok()?;
        if bytes[..4] != MAGIC
            || placed_crc(segment, offset, &bytes[8..]).to_le_bytes() != bytes[4..8]
        {
            return None;
        }
        let mut rest = &bytes[8..];
        let header = Header {
            body_bytes: u32::from_le_bytes(take(&mut rest)?),
            body_crc: u32::from_le_bytes(take(&mut rest)?),
            entry_bytes: u32::from_le_bytes(take(&mut rest)?),
            group: u32::from_le_bytes(take(&mut rest)?),
            lane: u32::from_le_bytes(take(&mut rest)?),
            kind: match u8::from_le_bytes(take(&mut rest)?) {
                1 => Kind::Head,
                2 => Kind::Entry,
                3 => Kind::Changes,
                4 => Kind::Close,
                _ => return None,
            },
            compressed: match take::<3>(&mut rest)? {
                [0, 0, 0] => false,
                [COMPRESSED, 0, 0] => true,
                _ => return None,
            },
            position: Position(u64::from_le_bytes(take(&mut rest)?)),
            epoch: Epoch(u64::from_le_bytes(take(&mut rest)?)),
            at_ms: i64::from_le_bytes(take(&mut rest)?),
            count: u32::from_le_bytes(take(&mut rest)?),
        };
        // The CRC holds, so we wrote this; but nothing is allocated by a number that is not checked.
        let sane = header.body_bytes as usize <= MAX_BODY_BYTES
            && header.entry_bytes as usize <= crate::MAX_ENTRY_BYTES
            && header.position <= MAX_POSITION
            && header.group <= offset;
        sane.then_some(header)
    }

    pub(crate) fn matches(&self, body: &[u8]) -> bool {
        body.len() == self.body_bytes as usize && crc32c::crc32c(body) == self.body_crc
    }
}

pub(crate) fn prologue(segment: u32) -> [u8; PROLOGUE_BYTES] {
    let mut out = [0; PROLOGUE_BYTES];
    out[..8].copy_from_slice(PROLOGUE_MAGIC);
    out[8..12].copy_from_slice(&VERSION.to_le_bytes());
    out[12..16].copy_from_slice(&segment.to_le_bytes());
    let crc = crc32c::crc32c(&out[..20]);
    out[20..].copy_from_slice(&crc.to_le_bytes());
    out
}

/// The format version that a segment says it has, or nothing where its prologue is cut or damaged.
pub(crate) fn version(prologue: &[u8]) -> Option<u32> {
    let mut rest = prologue.get(..PROLOGUE_BYTES)?;
    let magic: [u8; 8] = take(&mut rest)?;
    let version = u32::from_le_bytes(take(&mut rest)?);
    let crc = crc32c::crc32c(&prologue[..20]);
    (magic == *PROLOGUE_MAGIC && crc.to_le_bytes() == prologue[20..PROLOGUE_BYTES])
        .then_some(version)
}

/// Cuts the first `N` bytes off `rest`.
pub(crate) fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, others) = rest.split_first_chunk::<N>()?;
    *rest = others;
    Some(*first)
}

/// The entry as its frame's body holds it compressed; `None` where that is no smaller.
pub(crate) fn smaller(compressor: &mut Compressor<'_>, entry: &[u8]) -> Option<Vec<u8>> {
    let compressed = compressor.compress(entry).ok();
    compressed.filter(|compressed| compressed.len() < entry.len())
}

pub(crate) fn to_ms(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
    }
}

pub(crate) fn from_ms(ms: i64) -> SystemTime {
    let distance = Duration::from_millis(ms.unsigned_abs());
    let time = if ms < 0 {
        UNIX_EPOCH.checked_sub(distance)
    } else {
        UNIX_EPOCH.checked_add(distance)
    };
    time.unwrap_or(UNIX_EPOCH)
}

fn placed_crc(segment: u32, offset: u32, header: &[u8]) -> u32 {
    let mut place = [0; 8];
    place[..4].copy_from_slice(&segment.to_le_bytes());
    place[4..].copy_from_slice(&offset.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&place), header)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            kind: Kind::Entry,
            compressed: true,
            body_bytes: 9,
            body_crc: 8,
            entry_bytes: 7,
            group: 6,
            lane: 5,
            position: Position(4),
            epoch: Epoch(3),
            at_ms: -2,
            count: 1,
        }
    }

    #[test]
    fn a_header_is_read_back_and_every_flipped_bit_is_seen() {
        let bytes = header().encode(1, 100);
        assert_eq!(Header::decode(&bytes, 1, 100), Some(header()));
        for bit in 0..HEADER_BYTES * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&flipped, 1, 100), None, "bit {bit}");
        }
    }

    #[test]
    fn a_header_counts_only_in_its_place() {
        let bytes = header().encode(1, 100);
        assert_eq!(Header::decode(&bytes, 2, 100), None);
        assert_eq!(Header::decode(&bytes, 1, 101), None);
        assert_eq!(Header::decode(&bytes[..HEADER_BYTES - 1], 1, 100), None);
    }

    #[test]
    fn a_damaged_prologue_is_no_other_version() {
        let bytes = prologue(7);
        assert_eq!(version(&bytes), Some(VERSION));
        for bit in 0..PROLOGUE_BYTES * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(version(&flipped), None, "bit {bit}");
        }
    }

    #[test]
    fn times_survive() {
        for ms in [0, 1, -1, 1_578_027_418_981] {
            assert_eq!(to_ms(from_ms(ms)), ms);
        }
        assert_eq!(from_ms(i64::MIN), from_ms(i64::MIN));
    }
}

//! What changes beside the entries: lanes, cursors, marks. Told in frames of kind 3, and all together in each head.
//!
//! A body is a sequence of these, names being a length (1 byte) and that many bytes:
//!
//! | tag (1 byte) | then | meaning |
//! |---|---|---|
//! | 1 | lane's name, floor (8), counts appended (8), the last position in them (8), 0, or 1 and the mark's length (2) and bytes | the lane as it is now, without the entries that follow in the same write |
//! | 2 | lane's name, reader's name, position (8), counts passed (8), counts before it (8), the tally's length (2) and bytes | the reader has committed everything up to that position |
//! | 3 | lane's name, reader's name | there is no such reader any more |
//!
//! Lanes and readers are named each time, at some fifty bytes a group: numbers would have to be introduced by a frame,
//! and damage to that one would cost everything that refers to it.

use bytes::Bytes;

use crate::frame::{MAX_POSITION, take};
use crate::{LaneName, Position, ReaderName};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// Everything up to `floor` is dead, whatever its readers say: so that a lane whose last reader was removed does
    /// not come back to life.
    Lane {
        lane: LaneName,
        floor: Position,
        appended: Appended,
        mark: Option<Bytes>,
    },
    Reader {
        lane: LaneName,
        reader: ReaderName,
        cursor: Cursor,
    },
    RemoveReader {
        lane: LaneName,
        reader: ReaderName,
    },
}

/// The counts of the entries that were ever appended to a lane.
///
/// A position says which entries are in the sum, so that one that is met twice, copied forward or left behind by a
/// failed sync, is counted once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Appended {
    pub(crate) counts: u64,
    pub(crate) last: Position,
}

impl Appended {
    pub(crate) fn add(&mut self, position: Position, count: u32) {
        if position > self.last {
            self.counts = self.counts.saturating_add(count.into());
            self.last = position;
        }
    }
}

/// How far a reader is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Cursor {
    /// Everything up to here is committed.
    pub(crate) through: Position,
    /// The counts of what it has committed.
    pub(crate) passed: u64,
    /// The counts of what the lane had let go of before the reader was there.
    pub(crate) before: u64,
    pub(crate) tally: Bytes,
}

pub(crate) fn encode(changes: &[Change], out: &mut Vec<u8>) {
    for change in changes {
        match change {
            Change::Lane {
                lane,
                floor,
                appended,
                mark,
            } => {
                out.push(1);
                put_name(lane.as_str(), out);
                out.extend_from_slice(&floor.0.to_le_bytes());
                out.extend_from_slice(&appended.counts.to_le_bytes());
                out.extend_from_slice(&appended.last.0.to_le_bytes());
                match mark {
                    None => out.push(0),
                    Some(mark) => {
                        out.push(1);
                        put_bytes(mark, out);
                    }
                }
            }
            Change::Reader {
                lane,
                reader,
                cursor,
            } => {
                out.push(2);
                put_name(lane.as_str(), out);
                put_name(reader.as_str(), out);
                out.extend_from_slice(&cursor.through.0.to_le_bytes());
                out.extend_from_slice(&cursor.passed.to_le_bytes());
                out.extend_from_slice(&cursor.before.to_le_bytes());
                put_bytes(&cursor.tally, out);
            }
            Change::RemoveReader { lane, reader } => {
                out.push(3);
                put_name(lane.as_str(), out);
                put_name(reader.as_str(), out);
            }
        }
    }
}

/// The changes in `body`, or nothing where it is not of this form.
pub(crate) fn decode(mut body: &[u8]) -> Option<Vec<Change>> {
    let rest = &mut body;
    let mut changes = Vec::new();
    while !rest.is_empty() {
        changes.push(match take(rest)? {
            [1] => Change::Lane {
                lane: LaneName::try_from(take_name(rest)?).ok()?,
                floor: take_position(rest)?,
                appended: Appended {
                    counts: u64::from_le_bytes(take(rest)?),
                    last: take_position(rest)?,
                },
                mark: match take(rest)? {
                    [0] => None,
                    [1] => Some(take_bytes(rest)?),
                    _ => return None,
                },
            },
            [2] => Change::Reader {
                lane: LaneName::try_from(take_name(rest)?).ok()?,
                reader: ReaderName::try_from(take_name(rest)?).ok()?,
                cursor: Cursor {
                    through: take_position(rest)?,
                    passed: u64::from_le_bytes(take(rest)?),
                    before: u64::from_le_bytes(take(rest)?),
                    tally: take_bytes(rest)?,
                },
            },
            [3] => Change::RemoveReader {
                lane: LaneName::try_from(take_name(rest)?).ok()?,
                reader: ReaderName::try_from(take_name(rest)?).ok()?,
            },
            _ => return None,
        });
    }
    Some(changes)
}

fn put_name(name: &str, out: &mut Vec<u8>) {
    out.push(name.len() as u8);
    out.extend_from_slice(name.as_bytes());
}

/// Marks and tallies are shorter than 64 KiB.
fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn take_bytes(rest: &mut &[u8]) -> Option<Bytes> {
    let bytes = u16::from_le_bytes(take(rest)?);
    Some(Bytes::copy_from_slice(take_slice(rest, bytes.into())?))
}

/// One that can be counted on from: everything else was not written by us.
fn take_position(rest: &mut &[u8]) -> Option<Position> {
    let position = Position(u64::from_le_bytes(take(rest)?));
    (position <= MAX_POSITION).then_some(position)
}

fn take_name<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let [bytes] = take(rest)?;
    std::str::from_utf8(take_slice(rest, bytes.into())?).ok()
}

fn take_slice<'a>(rest: &mut &'a [u8], bytes: usize) -> Option<&'a [u8]> {
    let (slice, others) = rest.split_at_checked(bytes)?;
    *rest = others;
    Some(slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes() -> Vec<Change> {
        let lane: LaneName = "lane".parse().unwrap();
        let reader: ReaderName = "r".parse().unwrap();
        vec![
            Change::Lane {
                lane: lane.clone(),
                floor: Position(7),
                appended: Appended {
                    counts: 3,
                    last: Position(9),
                },
                mark: None,
            },
            Change::Lane {
                lane: lane.clone(),
                floor: Position(0),
                appended: Appended::default(),
                mark: Some(Bytes::from(vec![9; crate::MAX_MARK_BYTES])),
            },
            Change::Reader {
                lane: lane.clone(),
                reader: reader.clone(),
                cursor: Cursor {
                    through: MAX_POSITION,
                    passed: 5,
                    before: 6,
                    tally: Bytes::from(vec![8; crate::MAX_TALLY_BYTES]),
                },
            },
            Change::RemoveReader { lane, reader },
        ]
    }

    #[test]
    fn changes_are_read_back() {
        let mut body = Vec::new();
        encode(&changes(), &mut body);
        assert_eq!(decode(&body), Some(changes()));
        assert_eq!(decode(&[]), Some(vec![]));
    }

    #[test]
    fn a_cut_body_is_refused_or_ends_between_two_changes() {
        let mut body = Vec::new();
        encode(&changes(), &mut body);
        for end in 0..body.len() {
            if let Some(found) = decode(&body[..end]) {
                assert_eq!(found, changes()[..found.len()]);
                let mut again = Vec::new();
                encode(&found, &mut again);
                assert_eq!(again.len(), end);
            }
        }
    }
}

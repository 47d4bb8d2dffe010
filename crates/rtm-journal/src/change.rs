//! What changes beside the entries: lanes, cursors, marks. Told in frames of kind 3, and all together in each head.
//!
//! A body is a sequence of these, names being a length (1 byte) and that many bytes:
//!
//! | tag (1 byte) | then | meaning |
//! |---|---|---|
//! | 1 | lane's name, floor (8), 0, or 1 and the mark's length (2) and bytes | the lane as it is now |
//! | 2 | lane's name, reader's name, position (8) | the reader has committed everything up to that position |
//! | 3 | lane's name, reader's name | there is no such reader any more |
//!
//! Lanes and readers are named each time, at some fifty bytes a group: numbers would have to be introduced by a frame,
//! and damage to that one would cost everything that refers to it.

use bytes::Bytes;

use crate::frame::take;
use crate::{LaneName, Position, ReaderName};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// Everything up to `floor` is dead, whatever its readers say: so that a lane whose last reader was removed does
    /// not come back to life.
    Lane {
        lane: LaneName,
        floor: Position,
        mark: Option<Bytes>,
    },
    Reader {
        lane: LaneName,
        reader: ReaderName,
        through: Position,
    },
    RemoveReader {
        lane: LaneName,
        reader: ReaderName,
    },
}

pub(crate) fn encode(changes: &[Change], out: &mut Vec<u8>) {
    for change in changes {
        match change {
            Change::Lane { lane, floor, mark } => {
                out.push(1);
                put_name(lane.as_str(), out);
                out.extend_from_slice(&floor.0.to_le_bytes());
                match mark {
                    None => out.push(0),
                    Some(mark) => {
                        out.push(1);
                        out.extend_from_slice(&(mark.len() as u16).to_le_bytes());
                        out.extend_from_slice(mark);
                    }
                }
            }
            Change::Reader {
                lane,
                reader,
                through,
            } => {
                out.push(2);
                put_name(lane.as_str(), out);
                put_name(reader.as_str(), out);
                out.extend_from_slice(&through.0.to_le_bytes());
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
                floor: Position(u64::from_le_bytes(take(rest)?)),
                mark: match take(rest)? {
                    [0] => None,
                    [1] => {
                        let bytes = u16::from_le_bytes(take(rest)?);
                        Some(Bytes::copy_from_slice(take_slice(rest, bytes.into())?))
                    }
                    _ => return None,
                },
            },
            [2] => Change::Reader {
                lane: LaneName::try_from(take_name(rest)?).ok()?,
                reader: ReaderName::try_from(take_name(rest)?).ok()?,
                through: Position(u64::from_le_bytes(take(rest)?)),
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
                mark: None,
            },
            Change::Lane {
                lane: lane.clone(),
                floor: Position(0),
                mark: Some(Bytes::from(vec![9; crate::MAX_MARK_BYTES])),
            },
            Change::Reader {
                lane: lane.clone(),
                reader: reader.clone(),
                through: Position(u64::MAX),
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

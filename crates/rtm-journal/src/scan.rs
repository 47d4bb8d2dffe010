//! Reading a segment from its beginning to its end, through whatever damage there is.

use std::io;

use rustix::io::Errno;

use crate::Storage;
use crate::frame::{HEADER_BYTES, Header, Kind, MAGIC, PROLOGUE_BYTES, version};

/// Read at once: headers are a page apart, so more would read what is skipped.
const CHUNK_BYTES: usize = 4 << 10;
/// Read at once while looking for the next frame behind damage.
const SEARCH_BYTES: usize = 64 << 10;

/// An intact frame. Entries come without their bodies.
pub(crate) struct Frame {
    pub(crate) offset: u32,
    pub(crate) header: Header,
    pub(crate) body: Vec<u8>,
    pub(crate) trust: Trust,
}

/// How sure it is that a frame was durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// A later group of the segment vouches for the frame: it was written after this one was durable.
    Proven,
    /// The frame is whole, and of the last group, which no later group vouches for: a frame reads back also where its
    /// sync has failed, and where the process was killed before it synced.
    Unproven,
    /// An entry of the last group whose body is not what its header says. Torn, unless a later head tells
    /// that the entry had been durable.
    Torn,
}

/// What a segment was found to be.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Scanned {
    /// The end of the last intact frame; what follows is a torn tail.
    pub(crate) end: u64,
    /// Stretches before the last group that are no intact frames: they had been durable. Those in it are torn.
    pub(crate) damaged: u64,
    /// Those in the last group.
    pub(crate) torn: u64,
    /// Where the last group begins, if there is an intact frame.
    pub(crate) last_group: Option<u32>,
    /// Blocks that the disk could not read; one may count more than once.
    pub(crate) bad_blocks: u64,
}

/// The format version of a segment; nothing where its beginning is cut or damaged.
pub(crate) fn read_version(storage: &dyn Storage, segment: u32) -> io::Result<Option<u32>> {
    let mut bytes = [0; PROLOGUE_BYTES];
    let read = storage.read(segment, 0, &mut bytes)?;
    Ok(version(&bytes[..read]))
}

/// Whether a disk says that it cannot read its medium.
pub(crate) fn is_bad_sector(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::IO.raw_os_error())
}

/// What a scan does about bytes that the disk cannot read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadSectors {
    /// It fails.
    Fail,
    /// They are damage, block by block.
    AreDamage,
}

/// Shows `visit` every intact frame of a segment of `bytes` bytes, in order.
///
/// The bodies of entries are not read, except in the last group: all before it was durable when it was written, and
/// damage there is for the reader to report; of the last group any part may be torn, although it was never confirmed.
pub(crate) fn scan(
    storage: &dyn Storage,
    segment: u32,
    bytes: u64,
    bad_sectors: BadSectors,
    visit: &mut dyn FnMut(Frame),
) -> io::Result<Scanned> {
    // Offsets are 32 bits; no segment of ours is longer.
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    let mut window = Window {
        storage,
        segment,
        bytes,
        bad_sectors,
        bad_blocks: 0,
        start: 0,
        buffer: Vec::new(),
    };
    let mut scanned = Scanned::default();
    // The frames of the newest group so far: held until a later group vouches for them.
    let mut held: Vec<Frame> = Vec::new();
    let mut stretches = Vec::new();
    let mut at = PROLOGUE_BYTES as u32;
    while at < bytes {
        let Some(header) = Header::decode(window.get(at, HEADER_BYTES)?, segment, at) else {
            stretches.push(at);
            match find(&mut window, at + 1)? {
                Some(next) => at = next,
                None => break,
            }
            continue;
        };
        let offset = at;
        at = offset.saturating_add(header.frame_bytes());
        if at > bytes {
            stretches.push(offset);
            break;
        }
        if held
            .first()
            .is_some_and(|first| first.header.group < header.group)
        {
            held.drain(..).for_each(|frame| {
                visit(Frame {
                    trust: Trust::Proven,
                    ..frame
                });
            });
        }
        let mut body = Vec::new();
        if header.kind != Kind::Entry {
            body.extend_from_slice(
                window.get(offset + HEADER_BYTES as u32, header.body_bytes as usize)?,
            );
            if !header.matches(&body) {
                stretches.push(offset);
                continue;
            }
        }
        scanned.end = at.into();
        held.push(Frame {
            offset,
            header,
            body,
            trust: Trust::Unproven,
        });
    }
    scanned.last_group = held.first().map(|first| first.header.group);
    // The entries of the last group may be torn, so their bodies are checked.
    scanned.end = held
        .first()
        .map_or(scanned.end, |first| first.offset.into());
    for frame in held {
        let whole = frame.header.kind != Kind::Entry
            || frame.header.matches(window.get(
                frame.offset + HEADER_BYTES as u32,
                frame.header.body_bytes as usize,
            )?);
        if whole {
            scanned.end = (frame.offset + frame.header.frame_bytes()).into();
            visit(frame);
        } else {
            stretches.push(frame.offset);
            visit(Frame {
                trust: Trust::Torn,
                ..frame
            });
        }
    }
    let durable = scanned.last_group.unwrap_or(0);
    scanned.damaged = stretches.iter().filter(|at| **at < durable).count() as u64;
    scanned.torn = stretches.len() as u64 - scanned.damaged;
    scanned.bad_blocks = window.bad_blocks;
    Ok(scanned)
}

/// The next frame at or behind `from`.
fn find(window: &mut Window<'_>, from: u32) -> io::Result<Option<u32>> {
    let (mut at, segment) = (from, window.segment);
    loop {
        let found = window.get(at, SEARCH_BYTES)?;
        if found.len() < HEADER_BYTES {
            return Ok(None);
        }
        let candidates = found
            .windows(MAGIC.len())
            .enumerate()
            .filter(|(_, bytes)| **bytes == MAGIC);
        let candidates: Vec<u32> = candidates.map(|(index, _)| at + index as u32).collect();
        let searched = (found.len() - (MAGIC.len() - 1)) as u32;
        for candidate in candidates {
            if Header::decode(window.get(candidate, HEADER_BYTES)?, segment, candidate).is_some() {
                return Ok(Some(candidate));
            }
        }
        at += searched;
    }
}

/// A piece of the segment in memory.
struct Window<'a> {
    storage: &'a dyn Storage,
    segment: u32,
    /// The segment's size.
    bytes: u32,
    bad_sectors: BadSectors,
    bad_blocks: u64,
    start: u32,
    buffer: Vec<u8>,
}

impl Window<'_> {
    /// `bytes` bytes at `offset`, or fewer at the end of the file.
    fn get(&mut self, offset: u32, bytes: usize) -> io::Result<&[u8]> {
        let end = self.start as usize + self.buffer.len();
        if offset < self.start || offset as usize + bytes > end {
            self.buffer.resize(bytes.max(CHUNK_BYTES), 0);
            let read = self
                .storage
                .read(self.segment, offset.into(), &mut self.buffer);
            let read = match read {
                Err(error) if self.passes(&error) => self.salvage(offset)?,
                read => read?,
            };
            self.buffer.truncate(read);
            self.start = offset;
        }
        let from = (offset - self.start) as usize;
        Ok(&self.buffer[from..self.buffer.len().min(from + bytes)])
    }

    fn passes(&self, error: &io::Error) -> bool {
        self.bad_sectors == BadSectors::AreDamage && is_bad_sector(error)
    }

    /// Fills the buffer from `offset` on, block by block: what cannot be read is zeros, of which no frame is made.
    fn salvage(&mut self, offset: u32) -> io::Result<usize> {
        let there = self.bytes.saturating_sub(offset) as usize;
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.truncate(there);
        let mut at = offset as usize;
        let end = at + buffer.len();
        while at < end {
            let next = (at / CHUNK_BYTES + 1) * CHUNK_BYTES;
            let block = &mut buffer[at - offset as usize..next.min(end) - offset as usize];
            match self.storage.read(self.segment, at as u64, block) {
                Err(error) if self.passes(&error) => {
                    block.fill(0);
                    self.bad_blocks += 1;
                }
                read => drop(read?),
            }
            at = next;
        }
        self.buffer = buffer;
        Ok(self.buffer.len())
    }
}

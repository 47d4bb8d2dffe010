//! The one that writes, in a thread of its own or driven: what is waiting goes out together, in one write and one sync.
//!
//! A failed write or sync is never asked again on the same file, where the kernel may have dropped what it could not
//! store: the segment is left as it is, and the group goes to a new one, again and again, until it is durable.

use std::io;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::change;
use crate::frame::{HEADER_BYTES, Header, Kind, prologue};
use crate::index::Place;
use crate::state::{Append, Ending, From, Saved, Shared, State};
use crate::{Position, Storage};

/// A group is at most about this: what it takes to keep a disk busy for a few milliseconds, twice in memory.
const GROUP_BYTES: u64 = 8 << 20;
/// The pauses between tries on a failing disk.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Tries before a close gives up. The caller of `close` has a deadline of its own.
const CLOSE_TRIES: u32 = 3;
/// How often to look whether the file system has room again, while a `reserve` waits for room: no system call tells.
const FREE_PAUSE: Duration = Duration::from_millis(500);
/// What the buffer keeps between groups.
const BUFFER_BYTES: usize = 1 << 20;

pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    /// The segment that groups go to; none after a failure.
    pub(crate) active: Option<Active>,
    pub(crate) group: Group,
    /// The next group begins a new segment.
    pub(crate) roll: bool,
    buffer: Vec<u8>,
    /// Failures without a success in between, and since closing began.
    failures: u32,
    close_failures: u32,
    last_error: Option<Arc<io::Error>>,
    retry_at: Option<Instant>,
    look_at: Option<Instant>,
    /// Until when the writer looks by itself for cursors that have moved. What is written is mostly committed soon, and
    /// a reader that commits before then need not wake the writer, which costs as much as the commit.
    expects_commits_until: Option<Instant>,
    /// When to try again to remove dead segments that could not be removed. Callers may all be waiting for the room of
    /// those segments, so that no call would bring the writer back to them.
    pub(crate) reclaim_at: Option<Instant>,
    /// When a segment that could not be read, and so not be cleaned, is to be tried again.
    pub(crate) clean_at: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Active {
    pub(crate) segment: u32,
    bytes: u32,
    head_bytes: u32,
}

/// What was taken to be written, and is not durable yet.
#[derive(Default)]
pub(crate) struct Group {
    pub(crate) appends: Vec<Append>,
    flushes: Vec<oneshot::Sender<()>>,
}

impl Group {
    fn is_empty(&self) -> bool {
        self.appends.is_empty() && self.flushes.is_empty()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.appends
            .iter()
            .map(|append| u64::from(append.header.frame_bytes()))
            .sum()
    }
}

/// Runs until the journal is closed or its last handle is gone.
pub(crate) fn run(mut writer: Writer) {
    let shared = Arc::clone(&writer.shared);
    let mut end = End {
        shared: Arc::clone(&shared),
        result: None,
    };
    let ended = loop {
        let next = writer.wait();
        if let Some(ended) = writer.act(next) {
            break ended;
        }
    };
    end.result = ended.0;
}

/// The writer's end, and the result of closing, if that was it.
pub(crate) struct Ended(pub(crate) Option<Result<(), Arc<io::Error>>>);

pub(crate) enum Next {
    Write,
    MakeRoom,
    Reclaim,
    Close,
    GiveUp(Arc<io::Error>),
    Stop,
}

/// What one write is made of.
pub(crate) struct Built {
    segment: u32,
    /// The segment begins with this group.
    new: bool,
    /// Where the group begins.
    start: u32,
    head_bytes: u32,
    /// Where each entry of the group is.
    offsets: Vec<u32>,
    saved: Saved,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>) -> Writer {
        Writer {
            shared,
            active: None,
            group: Group::default(),
            roll: false,
            buffer: Vec::new(),
            failures: 0,
            close_failures: 0,
            last_error: None,
            retry_at: None,
            look_at: None,
            expects_commits_until: None,
            reclaim_at: None,
            clean_at: None,
        }
    }

    /// Begins this process's first segment.
    pub(crate) fn begin(&mut self) -> io::Result<()> {
        match self.write(false) {
            Err(error) if !is_full(&error) => Err(error),
            // The journal opens although the disk is full: publishing what is in the journal may be what makes room.
            _ => Ok(()),
        }
    }

    /// How large groups may be: no segment is to become much larger than it should.
    pub(crate) fn group_bytes(&self) -> u64 {
        GROUP_BYTES.min(self.shared.limits.segment_bytes)
    }

    fn wait(&mut self) -> Next {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state();
        loop {
            let now = shared.options.instant();
            let until = match self.next(&mut state, now) {
                Ok(next) => return next,
                Err(until) => until,
            };
            state = match until {
                None => shared
                    .work
                    .thread
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(at) => {
                    let waited = shared
                        .work
                        .thread
                        .wait_timeout(state, at.saturating_duration_since(now));
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Does what is next, and says whether that was the writer's end.
    pub(crate) fn act(&mut self, next: Next) -> Option<Ended> {
        match next {
            // A failure is noted, and tried again after a pause.
            Next::Write => drop(self.write(false)),
            Next::MakeRoom => self.make_room(),
            Next::Reclaim => {
                if self.reclaim() {
                    self.retry_at = None;
                }
            }
            Next::Close => {
                if self.write(true).is_ok() {
                    return Some(Ended(Some(Ok(()))));
                }
            }
            Next::GiveUp(error) => return Some(Ended(Some(Err(error)))),
            Next::Stop => return Some(Ended(None)),
        }
        None
    }

    /// What to do next, or until when to wait for work.
    pub(crate) fn next(
        &mut self,
        state: &mut State,
        now: Instant,
    ) -> Result<Next, Option<Instant>> {
        let next = self.choose(state, now);
        let commit_due = now + self.shared.options.commit_interval;
        state.sleeps = next
            .as_ref()
            .is_err_and(|until| until.is_none_or(|until| until > commit_due));
        next
    }

    fn choose(&mut self, state: &mut State, now: Instant) -> Result<Next, Option<Instant>> {
        let closing = match state.ending {
            Some(Ending::Abandon) => return Ok(Next::Stop),
            Some(Ending::Close) => true,
            None => false,
        };
        if let Some(error) = self
            .last_error
            .as_ref()
            .filter(|_| self.close_failures >= CLOSE_TRIES)
        {
            return Ok(Next::GiveUp(Arc::clone(error)));
        }
        if state.watch_free && self.look_at.is_some_and(|at| at <= now) {
            // All who wait for room try again; a `reserve` that still finds too little sets `watch_free` again.
            state.watch_free = false;
            self.shared.room.notify_waiters();
        }
        self.look_at = state.watch_free.then(|| {
            self.look_at
                .filter(|at| *at > now)
                .unwrap_or(now + FREE_PAUSE)
        });
        if state.failing && std::mem::take(&mut state.pressure) {
            return Ok(Next::Reclaim);
        }
        if self.reclaim_at.is_some_and(|at| at <= now) {
            return Ok(Next::Reclaim);
        }
        if let Some(at) = self.retry_at.filter(|at| *at > now) {
            return Err(Some(self.reclaim_at.map_or(at, |other| at.min(other))));
        }
        let due = state.dirty_since.map(|since| {
            if closing {
                now
            } else {
                since + self.shared.options.commit_interval
            }
        });
        // A failing journal is tried by itself: nobody gets room, so nobody brings work.
        let work = state.failing
            || !self.group.is_empty()
            || !state.queue.is_empty()
            || !state.flushes.is_empty();
        if work || due.is_some_and(|at| at <= now) {
            return Ok(Next::Write);
        }
        if closing {
            return Ok(Next::Close);
        }
        if std::mem::take(&mut state.pressure) {
            return Ok(Next::MakeRoom);
        }
        if self.clean_at.take_if(|at| *at <= now).is_some() && state.waiting > 0 {
            return Ok(Next::MakeRoom);
        }
        let expects_commits_until = self.expects_commits_until.filter(|at| *at > now);
        Err(due
            .into_iter()
            .chain(self.look_at)
            .chain(self.reclaim_at)
            .chain(self.clean_at)
            .chain(expects_commits_until)
            .min())
    }

    /// Writes what is waiting, and with `close` the last frame of all.
    pub(crate) fn write(&mut self, close: bool) -> io::Result<()> {
        let built = self.lay_out(close);
        self.store(built)
    }

    pub(crate) fn lay_out(&mut self, close: bool) -> Built {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state();
        self.take(&mut state);
        self.build(&mut state, close)
    }

    pub(crate) fn store(&mut self, built: Built) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let began = shared.options.instant();
        match store(&*shared.storage, &built, &self.buffer) {
            Ok(()) => {
                if let Some(on_sync) = &shared.options.on_sync {
                    on_sync(shared.options.instant().saturating_duration_since(began));
                }
                self.stored(built);
                self.reclaim();
                Ok(())
            }
            Err(error) => {
                self.failed(&built, &error);
                Err(error)
            }
        }
    }

    /// Takes what is waiting into the group, as far as it fits.
    fn take(&mut self, state: &mut State) {
        let (mut bytes, most) = (self.group.bytes(), self.group_bytes());
        while bytes < most {
            let Some(mut append) = state.queue.pop_front() else {
                break;
            };
            // Given once, and kept through every failure.
            append.header.position = Position(state.next_position);
            state.next_position += 1;
            bytes += u64::from(append.header.frame_bytes());
            self.group.appends.push(append);
        }
        self.group.flushes.append(&mut state.flushes);
    }

    /// Lays out the group in the buffer.
    fn build(&mut self, state: &mut State, close: bool) -> Built {
        let Shared {
            options,
            limits,
            epoch,
            ..
        } = &*self.shared;
        let now = options.now();
        let fits =
            |active: &Active| u64::from(active.bytes - active.head_bytes) < limits.segment_bytes;
        let active = self
            .active
            .filter(|active| fits(active) && !std::mem::take(&mut self.roll));
        let new = active.is_none();
        let (segment, start) = active.map_or((state.next_segment, 0), |active| {
            (active.segment, active.bytes)
        });
        let mut out = Frames {
            buffer: &mut self.buffer,
            segment,
            start,
        };
        out.buffer.clear();
        let (changes, saved) = state.changes(new);
        let mut body = Vec::new();
        if new {
            state.next_segment = state.next_segment.saturating_add(1);
            out.buffer.extend_from_slice(&prologue(segment));
            body.extend_from_slice(&state.next_position.to_le_bytes());
        }
        change::encode(&changes, &mut body);
        if !body.is_empty() {
            let kind = if new { Kind::Head } else { Kind::Changes };
            out.push(Header::of(kind, &body, *epoch, now), &body);
        }
        let head_bytes = active.map_or(out.buffer.len() as u32, |active| active.head_bytes);
        let offsets = self
            .group
            .appends
            .iter()
            .map(|append| out.push(append.header, &append.body))
            .collect();
        if close {
            out.push(Header::of(Kind::Close, &[], *epoch, now), &[]);
        }
        Built {
            segment,
            new,
            start,
            head_bytes,
            offsets,
            saved,
        }
    }

    /// Notes that the group is durable, and tells everybody.
    fn stored(&mut self, built: Built) {
        let Built {
            segment,
            start,
            head_bytes,
            offsets,
            saved,
            ..
        } = built;
        let bytes = start + self.buffer.len() as u32;
        self.active = Some(Active {
            segment,
            bytes,
            head_bytes,
        });
        self.buffer.shrink_to(BUFFER_BYTES);
        let group = std::mem::take(&mut self.group);
        let now = self.shared.options.instant();
        if !group.appends.is_empty() {
            self.expects_commits_until = Some(now + self.shared.options.commit_interval);
        }
        let mut state = self.shared.state();
        let known = state.segments.entry(segment).or_default();
        (known.bytes, known.head_bytes, known.durable) = (bytes.into(), head_bytes.into(), true);
        let mut readable = Vec::new();
        let mut replies = Vec::new();
        for (append, offset) in group.appends.into_iter().zip(offsets) {
            let Append { header, from, .. } = append;
            let Header {
                position,
                lane,
                at_ms,
                count,
                ..
            } = header;
            let place = Place {
                position,
                segment,
                offset,
                bytes: header.frame_bytes(),
                at_ms,
                count,
            };
            let State {
                lanes,
                segments,
                tail,
                copied,
                ..
            } = &mut *state;
            let lane = lanes.entry(lane).or_default();
            match from {
                From::Lane {
                    reservation,
                    entry,
                    reply,
                } => {
                    lane.reserved.remove(&reservation);
                    lane.index.push(place);
                    lane.appended.add(position, count);
                    segments.entry(segment).or_default().add(place);
                    tail.push(position, entry);
                    if !readable
                        .iter()
                        .any(|known| Arc::ptr_eq(known, &lane.readable))
                    {
                        readable.push(Arc::clone(&lane.readable));
                    }
                    replies.push((reply, position));
                }
                From::Segment(from) => {
                    // The entry is counted already, unless recovery did not know whether it was durable.
                    lane.appended.add(position, count);
                    // An entry that was committed meanwhile is not in the index, and its copy is dead as well.
                    if let Some(old) = lane.index.relocate(position, segment, offset) {
                        segments.entry(from).or_default().remove(old);
                        segments.entry(segment).or_default().add(place);
                        *copied += 1;
                    }
                }
            }
        }
        state.note(saved, now);
        state.writes += u64::from(!self.buffer.is_empty());
        let healed = std::mem::take(&mut state.failing);
        drop(state);
        if healed {
            tracing::info!(failures = self.failures, "the journal can be written again");
            self.shared.room.notify_waiters();
        }
        (self.failures, self.retry_at) = (0, None);
        // A send fails where the caller of `append` has dropped its future: its entry is stored all the same.
        for (reply, position) in replies {
            let _ = reply.send(position);
        }
        for flush in group.flushes {
            let _ = flush.send(());
        }
        readable.iter().for_each(|lane| lane.notify_waiters());
    }

    /// Notes that nothing can be said about the group, which is kept.
    fn failed(&mut self, built: &Built, error: &io::Error) {
        self.active = None;
        self.failures = self.failures.saturating_add(1);
        if self.failures == 1 {
            tracing::error!(segment = built.segment, %error, "the journal cannot be written; entries wait in memory");
        } else {
            tracing::debug!(segment = built.segment, %error, failures = self.failures, "the journal still cannot be written");
        }
        let pause = FIRST_PAUSE
            .saturating_mul(1 << (self.failures - 1).min(10))
            .min(LONGEST_PAUSE);
        self.retry_at = Some(self.shared.options.instant() + pause);
        self.last_error = Some(Arc::new(io::Error::new(error.kind(), error.to_string())));
        // A new segment holds nothing that counts. What was synced before in an older segment is needed still.
        let gone = built.new
            && self
                .shared
                .storage
                .unlink(built.segment)
                .map_or_else(|error| error.kind() == io::ErrorKind::NotFound, |()| true);
        let mut state = self.shared.state();
        state.failing = true;
        state.write_failures += 1;
        self.close_failures += u32::from(state.ending == Some(Ending::Close));
        if !gone {
            // What there is of the group takes room until the segment is unlinked.
            state.segments.entry(built.segment).or_default().bytes += self.buffer.len() as u64;
        }
        drop(state);
        self.reclaim();
    }
}

/// The buffer that frames are laid out in.
struct Frames<'a> {
    buffer: &'a mut Vec<u8>,
    segment: u32,
    start: u32,
}

impl Frames<'_> {
    /// Adds a frame, and says at which offset of the segment.
    fn push(&mut self, mut header: Header, body: &[u8]) -> u32 {
        let offset = self.start + self.buffer.len() as u32;
        header.group = self.start;
        self.buffer.reserve(HEADER_BYTES + body.len());
        self.buffer
            .extend_from_slice(&header.encode(self.segment, offset));
        self.buffer.extend_from_slice(body);
        offset
    }
}

fn store(storage: &dyn Storage, built: &Built, bytes: &[u8]) -> io::Result<()> {
    if built.new {
        storage.create(built.segment)?;
    }
    if bytes.is_empty() {
        // A flush waited for changes that an earlier group has made durable.
        return Ok(());
    }
    storage.append(built.segment, bytes)?;
    storage.sync(built.segment)?;
    if built.new {
        storage.sync_dir()?;
    }
    Ok(())
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Tells all who wait for the writer that it is gone, whether it closed the journal, was abandoned or panicked.
pub(crate) struct End {
    pub(crate) shared: Arc<Shared>,
    pub(crate) result: Option<Result<(), Arc<io::Error>>>,
}

impl Drop for End {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(
                "the journal's writer has panicked: nothing can be stored any more; please report this"
            );
        }
        let mut state = self.shared.state();
        state.stopped = Some(self.result.take());
        // Dropping their senders tells the appends and flushes that wait for a reply.
        state.queue.clear();
        state.flushes.clear();
        let mut readable = Vec::new();
        for lane in state.lanes.values_mut() {
            lane.reserved.clear();
            readable.push(Arc::clone(&lane.readable));
        }
        drop(state);
        self.shared.unlock();
        readable.iter().for_each(|lane| lane.notify_waiters());
        self.shared.room.notify_waiters();
        self.shared.ended.notify_waiters();
    }
}

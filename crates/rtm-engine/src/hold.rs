//! What a broker has confirmed and may lose again: a server that syncs its files every two minutes loses what came since in
//! a power failure. A lagging cursor holds the entries for as long, and when the broker has gone back behind what it had
//! confirmed, they are published again.
//!
//! **What has gone back** is told by [`Ground`]: by the sink while it lives, and after a start by comparing with the
//! [`Mark`] that is durable with the cursor. Where records are stored once and only once, the progress alone decides: see
//! [`crate::exact`].
//!
//! **What is published again** are the entries up to the cursor, which does not move. Where the broker tells its progress,
//! they begin behind it; else all that is held is published again, under the same ids. A crash in between begins again.
//!
//! What is held yields: it takes no room from polling, and what had to be given up, and may be lost, is counted.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rtm_journal::{Epoch, Lane, Position, ReadError, Reader};
use rtm_sink::Ground;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::copies::CopyFilter;
use crate::lanes::{self, Lagging, LaneError};
use crate::order::{Group, InFlightRequests, OrderedReader};
use crate::tally::{Mark, Tally};

/// What passes without a confirmation counts as no more than this: it may be an outage, in which no server syncs anything.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What is confirmed within so long is let go of together.
const STEP: Duration = Duration::from_secs(1);

/// What one sink has confirmed of one lane, for as long as its broker may lose it.
pub(crate) struct Hold {
    window: Duration,
    /// This process.
    process: Epoch,
    /// The cursor that lags.
    reader: Reader,
    /// None until the sink has one.
    ground: Option<watch::Receiver<Ground>>,
    /// How often the broker had gone back when this lane looked at that last; 0 before it did.
    seen: u64,
    confirmed: VecDeque<Confirmed>,
    /// The time that has passed, as far as it counts, and when that was reckoned.
    clock: Duration,
    at: Instant,
    again: Option<Again>,
}

/// Entries that were confirmed at about the same time.
struct Confirmed {
    /// By the clock, the first and the last of them.
    from: Duration,
    to: Duration,
    /// The last of them.
    through: Position,
    /// The number of the last record that the broker had acknowledged by then.
    last: u64,
}

/// What is being published again.
struct Again {
    ordered: OrderedReader,
    /// Up to here nothing is lost.
    from: Position,
    /// Up to here it is published again.
    at: Position,
    /// The cursor.
    to: Position,
    /// Events up to there that are not read yet.
    unread: u64,
    /// Events that were published again.
    events: u64,
    /// What became of all events up to there.
    tally: Tally,
    /// What is settled of the entry that is published in parts.
    settled: Tally,
    /// What knows the copies of what is to come, meanwhile.
    copies: Option<CopyFilter>,
}

/// The next of what is lost.
pub(crate) enum Lost {
    /// To be published again.
    Group(Group),
    /// The broker has it.
    Known(Group),
    /// Not there yet.
    NotYet,
    /// That was all.
    End,
}

impl Hold {
    /// Holds what is confirmed for `window`. `cursor` is the sink's own.
    pub(crate) fn open(
        lane: &Lane,
        sink: &str,
        window: Duration,
        cursor: Position,
        process: Epoch,
    ) -> Result<Hold, LaneError> {
        let mut reader = lanes::lagging_reader(lane, sink, Lagging::Hold)?;
        if reader.tally().is_empty() {
            // A new one: what was confirmed before is not held.
            move_to(&mut reader, cursor, 0);
        }
        Ok(Hold {
            window,
            process,
            reader,
            ground: None,
            seen: 0,
            confirmed: VecDeque::new(),
            clock: Duration::ZERO,
            at: Instant::now(),
            again: None,
        })
    }

    /// The cursor is here, and what is held before it counts as confirmed now.
    pub(crate) fn begin(&mut self, cursor: Position, mark: Option<Mark>) {
        self.tick();
        self.confirmed.clear();
        self.confirmed.push_back(Confirmed {
            from: self.clock,
            to: self.clock,
            through: cursor,
            last: mark.map_or(0, |mark| mark.last),
        });
    }

    /// Takes what the sink tells of its ground, once it tells something.
    pub(crate) fn watch(&mut self, ground: impl FnOnce() -> Option<watch::Receiver<Ground>>) {
        if self.ground.is_none() {
            self.ground = ground();
        }
    }

    /// What is known of the ground.
    pub(crate) fn ground(&self) -> Ground {
        let ground = self.ground.as_ref();
        ground.map_or_else(Ground::default, |ground| *ground.borrow())
    }

    /// Whether the ground is other than this lane has looked at. With nothing remembered, the first is no news.
    pub(crate) fn is_moved(&self, mark: Option<Mark>) -> bool {
        is_news(self.seen, mark, &self.ground())
    }

    /// Returns once it is.
    pub(crate) fn moved(&self, mark: Option<Mark>) -> impl Future<Output = ()> + Send + use<> {
        let (ground, seen) = (self.ground.clone(), self.seen);
        async move {
            let told = match ground {
                Some(mut ground) => {
                    let news = ground.wait_for(|ground| is_news(seen, mark, ground)).await;
                    news.is_ok()
                }
                None => false,
            };
            if !told {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Whether the ground is still to be looked at, and something is remembered to compare it with.
    pub(crate) fn is_unseen(&self, mark: Option<Mark>) -> bool {
        self.seen == 0 && mark.is_some() && self.ground.is_some()
    }

    /// Whether the broker has gone back behind what it had confirmed of this lane, as far as the ground tells. It counts as
    /// looked at from now on.
    pub(crate) fn look(&mut self, ground: Ground, mark: Option<Mark>) -> bool {
        let seen = std::mem::replace(&mut self.seen, ground.back);
        let Some(mark) = mark else { return false };
        // What this process was told, its sink would have noticed.
        let is_of_before = mark.process != self.process.0 && mark.store != 0 && ground.store != 0;
        mark.is_back
            || (seen != 0 && seen != ground.back)
            || (is_of_before && (mark.store != ground.store || mark.last > ground.kept))
    }

    /// What is to be remembered with the cursor. `settled` are the events of the progress that the broker has.
    pub(crate) fn mark(&mut self, before: Option<Mark>, settled: Option<u64>) -> Option<Mark> {
        let ground = self.ground();
        if self.seen == 0 && before.is_none() {
            self.seen = ground.back;
        }
        if ground.back == 0 || ground.back != self.seen || ground.store == 0 {
            return match before {
                Some(before) => Some(Mark { settled, ..before }),
                None => settled.map(|settled| Mark {
                    process: self.process.0,
                    settled: Some(settled),
                    ..Mark::default()
                }),
            };
        }
        // What an earlier client was told counts, until this one was told something that comes before it.
        let before = before.filter(|before| before.store == ground.store && ground.back == 1);
        Some(Mark {
            process: self.process.0,
            store: ground.store,
            last: ground.last.max(before.map_or(0, |before| before.last)),
            settled,
            is_back: false,
        })
    }

    /// The sink has confirmed everything up to here. Lets go of what it confirmed before the window, unless the broker has
    /// gone back meanwhile.
    pub(crate) fn confirmed(&mut self, through: Position, mark: Option<Mark>) {
        self.tick();
        let last = mark.map_or(0, |mark| mark.last);
        let clock = self.clock;
        match self.confirmed.back_mut() {
            Some(newest) if clock - newest.from < STEP => {
                (newest.to, newest.through, newest.last) = (clock, through, last);
            }
            _ => self.confirmed.push_back(Confirmed {
                from: clock,
                to: clock,
                through,
                last,
            }),
        }
        if self.is_moved(mark) {
            return;
        }
        let mut over = None;
        while let Some(oldest) = self.confirmed.front()
            && clock - oldest.to >= self.window
        {
            over = self.confirmed.pop_front();
        }
        if let Some(Confirmed { through, last, .. }) = over {
            move_to(&mut self.reader, through, last);
        }
    }

    fn tick(&mut self) {
        let now = Instant::now();
        let passed = now.saturating_duration_since(self.at);
        self.clock += passed.min(LONGEST_PAUSE);
        self.at = now;
    }

    /// Everything up to here is not held.
    pub(crate) fn held_from(&self) -> Position {
        self.reader.committed()
    }

    /// The events that are held, where so many wait behind the cursor.
    pub(crate) fn events(&self, pending: u64) -> u64 {
        self.reader.pending().count.saturating_sub(pending)
    }

    /// How many records the broker may have lost that are not held, by their numbers.
    pub(crate) fn lost(&self, ground: Ground) -> u64 {
        let gone = self.reader.committed();
        let (through, last) = decode(&self.reader.tally());
        let last = match gone <= through {
            true => last,
            // The journal has needed the room.
            false => {
                let mut confirmed = self.confirmed.iter();
                let newest = self.confirmed.back().map(|all| all.last);
                let covers = confirmed.find(|all| all.through >= gone);
                covers.map(|all| all.last).or(newest).unwrap_or(last)
            }
        };
        last.saturating_sub(ground.kept)
    }

    /// The reader of what is held, from its beginning.
    pub(crate) fn rewound(&mut self) -> &mut Reader {
        self.reader.rewind();
        &mut self.reader
    }

    /// Begins to publish again what lies between `from` and the cursor, `pending` events before the end of the lane.
    /// `tally` is what became of all events up to `from`, and `copies` knows the copies of what is to come.
    pub(crate) fn begin_again(
        &mut self,
        requests: Arc<InFlightRequests>,
        (from, to): (Position, Position),
        pending: u64,
        tally: Tally,
        copies: Option<CopyFilter>,
    ) {
        self.reader.rewind();
        self.again = Some(Again {
            ordered: OrderedReader::new(requests, self.process),
            from,
            at: from,
            to,
            unread: self.events(pending),
            events: 0,
            tally,
            settled: Tally::default(),
            copies,
        });
    }

    /// Up to where it is published again, if something is, and what became of all events up to there.
    pub(crate) fn again(&self) -> Option<(Position, &Tally)> {
        self.again.as_ref().map(|again| (again.at, &again.tally))
    }

    /// The next of what is lost.
    pub(crate) fn next(&mut self) -> Result<Lost, ReadError> {
        let Some(again) = &mut self.again else {
            return Ok(Lost::End);
        };
        // Nothing is left, or it was given up.
        if again.at >= again.to || self.reader.committed() >= again.to {
            return Ok(Lost::End);
        }
        let Some(group) = again.ordered.try_next(&mut self.reader)? else {
            return Ok(Lost::NotYet);
        };
        let last = group.iter().filter_map(position).max().unwrap_or_default();
        if last > again.to {
            // Until the next batch is published, it may be read again.
            again.ordered.clear();
            self.reader.rewind();
            return Ok(Lost::End);
        }
        let events = group.iter().map(events).sum::<u64>();
        again.unread = again.unread.saturating_sub(events);
        Ok(match last <= again.from {
            true => Lost::Known(group),
            false => Lost::Group(group),
        })
    }

    /// What is settled of an entry that is published again in parts, while something is.
    pub(crate) fn settled(&mut self) -> Option<&mut Tally> {
        self.again.as_mut().map(|again| &mut again.settled)
    }

    /// What is settled up to here was published again. Says how many events those are.
    pub(crate) fn published_again(&mut self, through: Position, settled: &Tally) -> u64 {
        let dead: u64 = settled.dead_lettered.values().sum();
        let events = settled.confirmed + dead;
        if let Some(again) = &mut self.again {
            again.at = again.at.max(through);
            again.events += events;
            again.tally.add(settled);
        }
        events
    }

    /// Leaves what is being published again, so that the ground is looked at once more. Gives back what knows copies.
    pub(crate) fn leave_again(&mut self) -> Option<Option<CopyFilter>> {
        let again = self.again.take()?;
        self.seen = 0;
        Some(again.copies)
    }

    /// Ends publishing again: how many events were, how many of them could not be read any more, and what knows copies.
    pub(crate) fn end_again(&mut self) -> Option<(u64, u64, Option<CopyFilter>)> {
        let again = self.again.take()?;
        Some((again.events, again.unread, again.copies))
    }
}

fn is_news(seen: u64, mark: Option<Mark>, ground: &Ground) -> bool {
    ground.back != seen && (seen != 0 || mark.is_some())
}

/// Lets go of everything up to here; by then the broker had acknowledged the record of this number.
fn move_to(reader: &mut Reader, through: Position, last: u64) {
    reader.skip_to(through);
    let tally = [through.0.to_le_bytes(), last.to_le_bytes()].concat();
    // It is far smaller than a tally may be.
    let _ = reader.commit_with(through, &tally);
}

/// What was let go of last, and the number that came with it.
fn decode(tally: &[u8]) -> (Position, u64) {
    let number = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
    let (through, last) = tally.split_at_checked(8).unwrap_or_default();
    (Position(number(through)), number(last))
}

fn position(entry: &Result<rtm_journal::Entry, ReadError>) -> Option<Position> {
    match entry {
        Ok(entry) => Some(entry.position),
        Err(ReadError::Damaged { position, .. }) => Some(*position),
        Err(_) => None,
    }
}

fn events(entry: &Result<rtm_journal::Entry, ReadError>) -> u64 {
    match entry {
        Ok(entry) => entry.count.into(),
        Err(ReadError::Damaged { count, .. }) => (*count).into(),
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests;

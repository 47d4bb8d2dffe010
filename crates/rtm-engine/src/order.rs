//! Pages of a ring that was asked several times at once, back in the ring's order.
//!
//! While a ring drains it may have several requests in flight, whose responses end in any order, and each page is stored
//! as it comes. How their order is known, and when, is told by [`InFlight`]; here it has to be known from the journal, and
//! after a restart as well, so a page that was in flight beside others says beside which ([`Overlap`]).
//!
//! Publishing takes entries in **groups**: the shortest run of entries behind which, for each ring, only newer pages can
//! come. A group is nearly always one entry. It is published in the ring's order and its cursor moves over it as a whole,
//! so that a crash repeats all of it.
//!
//! A group waits for a request that does not end, up to its deadline, with all that is behind it: of order and haste this
//! bridge promises the former. That takes a ring that was draining a moment ago, and a request that hangs.
//!
//! What would take more than its bounds is given out without what is missing. A page that comes behind it then is counted.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rtm_journal::{Entry, Epoch, ReadError, Reader};
use rtm_source::{InFlight, Ring};
use tokio::sync::Notify;

use crate::lock::lock;
use rtm_record::entry::{self, Overlap};

/// A page that was in flight beside another one is stored so long after it at the latest: the deadline of a request, and
/// what it takes to store what it brings. What was stored later need not be read to find it.
const LONGEST: Duration = Duration::from_secs(35);

/// Entries that are read ahead at most, to find the pages that belong before one: nearly always a few, and at worst what
/// comes within [`LONGEST`], which is 350 at ten requests a second. Looking through more would take its time.
const MOST_AHEAD: usize = 1024;

/// Bytes of them at most: 350 full pages of ordinary events, and what one sink may need of memory to keep the order.
const MOST_AHEAD_BYTES: usize = 64 << 20;

/// How long reading waits after it has failed.
pub(crate) const READ_PAUSE: Duration = Duration::from_secs(1);

/// The requests of one App ID that are in flight, or whose pages are not stored yet.
#[derive(Debug, Default)]
pub(crate) struct InFlightRequests {
    /// By name, which a ring keeps when its URL changes. A request knows its ring by the place in here, so no ring is ever
    /// removed.
    rings: Mutex<Vec<(Arc<RingName>, InFlight)>>,
    ended: Notify,
}

/// Region and stream.
type RingName = (String, String);

impl InFlightRequests {
    /// Says that a request is about to be sent to `ring`. It counts as in flight until the value is dropped, which is to be
    /// after its page was stored.
    pub(crate) fn begin(self: &Arc<Self>, ring: &Ring) -> Request {
        let (region, stream) = (ring.region.name(), ring.stream.as_str());
        let mut rings = lock(&self.rings);
        let known = (rings.iter()).position(|(name, _)| name.0 == region && name.1 == stream);
        let ring = known.unwrap_or_else(|| {
            let name = Arc::new((region.to_owned(), stream.to_owned()));
            rings.push((name, InFlight::default()));
            rings.len() - 1
        });
        let in_flight = &mut rings[ring].1;
        Request {
            number: in_flight.start(),
            with: in_flight.count(),
            requests: Arc::clone(self),
            ring,
        }
    }
}

/// One request in flight.
#[derive(Debug)]
pub(crate) struct Request {
    requests: Arc<InFlightRequests>,
    /// Its place among the requests' rings.
    ring: usize,
    number: u64,
    with: usize,
}

impl Request {
    /// How many requests the ring has had in flight since this one was among them, itself included, at its start.
    pub(crate) fn in_flight(&self) -> usize {
        self.with
    }

    /// What the page has to say, if the request was ever in flight beside another. To be asked once the response has come
    /// and before the page is stored. `first_ms` is when its first event happened.
    pub(crate) fn overlap(&self, first_ms: Option<i64>) -> Option<Overlap> {
        let rings = lock(&self.requests.rings);
        let in_flight = &rings[self.ring].1;
        let alone = self.with == 1 && in_flight.newest() == self.number;
        (!alone).then(|| Overlap {
            number: self.number,
            oldest: in_flight.oldest_beside(self.number),
            newest: in_flight.newest(),
            first_ms: first_ms.unwrap_or(i64::MAX),
        })
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        lock(&self.requests.rings)[self.ring].1.end(self.number);
        self.requests.ended.notify_waiters();
    }
}

/// Reads a lane's entries in groups.
#[derive(Debug)]
pub(crate) struct OrderedReader {
    /// Of the lane's App ID; empty where it is not polled.
    requests: Arc<InFlightRequests>,
    /// Of this process. Nothing is in flight with what another has stored.
    epoch: Epoch,
    /// Read, and not given out, in the journal's order.
    read: VecDeque<Read>,
    /// Of all of them.
    bytes: usize,
    /// By ring, the newest page that was given out although older ones might come.
    forced: HashMap<RingName, (Option<Epoch>, Age)>,
    /// Events that came behind such a page, and are not counted yet.
    late: u64,
}

/// Of two pages of a ring that overlapped, the one that Agora gave out first is less.
type Age = Option<(i64, u64)>;

/// Entries, or where some were lost, in the order in which they are to be published.
pub(crate) type Group = Vec<Result<Entry, ReadError>>;

#[derive(Debug)]
struct Read {
    entry: Result<Entry, ReadError>,
    /// None for the entry that lies at the front, unless its request was in flight beside others: nothing asks then.
    ring: Option<RingName>,
    overlap: Option<Overlap>,
}

impl Read {
    fn bytes(&self) -> usize {
        self.entry.as_ref().map_or(0, |entry| entry.bytes.len())
    }

    fn epoch(&self) -> Option<Epoch> {
        self.entry.as_ref().ok().map(|entry| entry.epoch)
    }
}

impl OrderedReader {
    /// For a lane whose requests are told to `requests`.
    pub(crate) fn new(requests: Arc<InFlightRequests>, epoch: Epoch) -> OrderedReader {
        OrderedReader {
            requests,
            epoch,
            read: VecDeque::new(),
            bytes: 0,
            forced: HashMap::new(),
            late: 0,
        }
    }

    /// Forgets what was read and not given out, as the reader is rewound.
    pub(crate) fn clear(&mut self) {
        self.read.clear();
        self.bytes = 0;
    }

    /// How many events were given out, since this was last asked, behind later ones of their ring.
    pub(crate) fn take_late(&mut self) -> u64 {
        std::mem::take(&mut self.late)
    }

    /// The next group, as soon as it is whole. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self, reader: &mut Reader) -> Result<Group, ReadError> {
        loop {
            let requests = Arc::clone(&self.requests);
            // Made before looking: it hears of every request that ends from here on.
            let ended = requests.ended.notified();
            if let Some(group) = self.try_next(reader)? {
                return Ok(group);
            }
            if self.read.is_empty() {
                let read = reader.next().await;
                self.push(read)?;
            } else {
                ended.await;
            }
        }
    }

    /// The next group, if it is there and whole.
    pub(crate) fn try_next(&mut self, reader: &mut Reader) -> Result<Option<Group>, ReadError> {
        if self.read.is_empty() {
            let Some(read) = reader.try_next().transpose() else {
                return Ok(None);
            };
            self.push(read)?;
        }
        if self.read.front().is_none_or(|read| read.overlap.is_none()) {
            return Ok(Some(self.take(1, false)));
        }
        // Before reading on: what has ended by now is stored by now.
        let in_flight = self.in_flight();
        let epoch = self.epoch;
        let ended = |read: &Read, overlap: &Overlap| {
            let oldest = read.ring.as_ref().and_then(|ring| in_flight.get(ring));
            read.epoch() != Some(epoch)
                || oldest.is_none_or(|oldest| InFlight::nothing_older(overlap.newest, *oldest))
        };
        loop {
            if let Some(count) = self.shortest(|_, _| false) {
                return Ok(Some(self.take(count, false)));
            }
            if self.is_enough(ended) {
                let count = self.shortest(|_, _| true);
                return Ok(Some(self.take(count.unwrap_or(self.read.len()), true)));
            }
            let Some(read) = reader.try_next().transpose() else {
                break;
            };
            self.push(read)?;
        }
        // All that is stored is read: what has ended, and is not here, brought nothing.
        Ok(self.shortest(ended).map(|count| self.take(count, false)))
    }

    /// Whether no more is read to find what belongs before the first entry: all of it would have been found, or it is too
    /// much. `ended` is as in [`OrderedReader::shortest`].
    fn is_enough(&self, ended: impl Fn(&Read, &Overlap) -> bool) -> bool {
        let mut entries = self.read.iter().filter_map(|read| read.entry.as_ref().ok());
        let first = entries.next().map(|entry| entry.appended_at);
        let last = entries.next_back().map(|entry| entry.appended_at);
        let took = first.zip(last);
        let took = took.and_then(|(first, last)| last.duration_since(first).ok());
        let is_over = took.is_some_and(|took| took > LONGEST)
            && (self.read.iter())
                .all(|read| read.overlap.as_ref().is_none_or(|other| ended(read, other)));
        is_over || self.bytes >= MOST_AHEAD_BYTES || self.read.len() >= MOST_AHEAD
    }

    fn push(&mut self, read: Result<Entry, ReadError>) -> Result<(), ReadError> {
        let read = match read {
            Ok(entry) => {
                let overlap = entry::overlap(&entry.bytes);
                let ring = (overlap.is_some() || !self.read.is_empty())
                    .then(|| entry::ring(&entry.bytes))
                    .flatten();
                Read {
                    entry: Ok(entry),
                    ring,
                    overlap,
                }
            }
            Err(lost @ ReadError::Damaged { .. }) => Read {
                entry: Err(lost),
                ring: None,
                overlap: None,
            },
            Err(error) => return Err(error),
        };
        self.bytes += read.bytes();
        self.read.push_back(read);
        Ok(())
    }

    /// The oldest request that is in flight, by ring.
    fn in_flight(&self) -> HashMap<Arc<RingName>, u64> {
        let rings = lock(&self.requests.rings);
        rings
            .iter()
            .map(|(ring, in_flight)| (Arc::clone(ring), in_flight.oldest()))
            .collect()
    }

    /// The length of the shortest group, if what was read shows one. `ended` says of a page whether all requests that
    /// were in flight with it are known to have ended, and their pages to have been read, in another way than from pages
    /// that were read behind it.
    fn shortest(&self, ended: impl Fn(&Read, &Overlap) -> bool) -> Option<usize> {
        let mut newest: HashMap<&RingName, usize> = HashMap::new();
        for (index, read) in self.read.iter().enumerate() {
            if let (Some(ring), Some(_)) = (&read.ring, &read.overlap) {
                let last = newest.entry(ring).or_insert(index);
                if age(&self.read[*last]) <= age(read) {
                    *last = index;
                }
            }
            let is_whole = newest
                .values()
                .all(|last| self.is_last(*last, index + 1, &ended));
            if is_whole {
                return Some(index + 1);
            }
        }
        None
    }

    /// Whether no page that is older than the one at `place` comes after the first `count` that were read.
    fn is_last(&self, place: usize, count: usize, ended: impl Fn(&Read, &Overlap) -> bool) -> bool {
        let last = &self.read[place];
        let Some(overlap) = &last.overlap else {
            return true;
        };
        let is_settled = |oldest| InFlight::nothing_older(overlap.newest, oldest);
        let mut is_known = is_settled(overlap.oldest) || ended(last, overlap);
        // What was stored before the page says nothing of what was in flight beside it.
        for (index, read) in self.read.iter().enumerate().skip(place + 1) {
            if read
                .epoch()
                .is_some_and(|epoch| Some(epoch) != last.epoch())
            {
                // The entry behind was stored by another process than the page: the page's own process has ended, and
                // stores no further page.
                is_known = true;
            } else if read.ring == last.ring {
                match &read.overlap {
                    Some(_) if index >= count && age(read) < age(last) => return false,
                    // Whatever had ended when this one did was stored before it.
                    Some(other) => is_known |= is_settled(other.oldest),
                    // It was alone in flight.
                    None => is_known = true,
                }
            }
        }
        is_known
    }

    /// Takes the first `count` out, with the pages of each ring in the ring's order. `forced` says that older ones may come.
    fn take(&mut self, count: usize, forced: bool) -> Group {
        let mut group: Vec<Read> = self.read.drain(..count).collect();
        self.bytes -= group.iter().map(Read::bytes).sum::<usize>();
        for read in group.iter().filter(|read| read.overlap.is_some()) {
            let (Ok(entry), Some(ring)) = (&read.entry, &read.ring) else {
                continue;
            };
            let newest = (read.epoch(), age(read));
            match self.forced.get_mut(ring) {
                Some(known) if known.0 == newest.0 && newest.1 < known.1 => {
                    self.late += u64::from(entry.count);
                }
                Some(known) if forced => *known = newest,
                None if forced => drop(self.forced.insert(ring.clone(), newest)),
                _ => {}
            }
        }
        if count > 1 {
            // A page whose request was alone in flight is newer than all pages of its ring that were stored before it, and
            // older than all that were stored behind it. So it parts them: A1 A2 (alone) A4 A3 becomes A1 A2 A3 A4, and
            // nothing is moved across A2.
            let mut alone: HashMap<RingName, u32> = HashMap::new();
            let mut place = |read: &Read| {
                let Some(ring) = &read.ring else { return 0 };
                let alone = alone.entry(ring.clone()).or_default();
                *alone += if read.overlap.is_none() { 2 } else { 0 };
                *alone + if read.overlap.is_none() { 0 } else { 1 }
            };
            let places: Vec<u32> = group.iter().map(&mut place).collect();
            let mut placed: Vec<(u32, Read)> = places.into_iter().zip(group).collect();
            placed.sort_by(|(a, one), (b, other)| {
                (&one.ring, a, age(one)).cmp(&(&other.ring, b, age(other)))
            });
            group = placed.into_iter().map(|(_, read)| read).collect();
        }
        group.into_iter().map(|read| read.entry).collect()
    }
}

fn age(read: &Read) -> Age {
    (read.overlap.as_ref()).map(|overlap| (overlap.first_ms, overlap.number))
}

#[cfg(test)]
mod tests;

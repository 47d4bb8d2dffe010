//! The requests of one ring that are in flight side by side, and when the order of what they bring is known.

/// The requests of one ring that are in flight, by number: 1 is the first, and each gets the next.
///
/// Requests that are in flight side by side end in any order, and what they bring has a place in another one: the order
/// in which the far end answered them. Pages of one ring are disjoint, and the older events come out first, so the `ms`
/// of two pages tell which of them is older. What has to be known besides is when nothing older can come any more:
///
/// - The far end answers a request between its start and its end. So what was answered before a request that has ended
///   was started before that end: once all that was in flight then has ended, nothing older can come.
///
/// Hence a page keeps the number of the [newest](InFlight::newest) request at its end, and [`InFlight::nothing_older`]
/// says of it and of the [oldest](InFlight::oldest) in flight whether the page's place is known.
#[derive(Debug, Default)]
pub struct InFlight {
    newest: u64,
    /// Ascending.
    numbers: Vec<u64>,
}

impl InFlight {
    /// Whether nothing older than a page can come any more: `newest` is the newest request at its end, and `oldest` the
    /// oldest that is in flight, or was at any moment since.
    #[must_use]
    pub fn nothing_older(newest: u64, oldest: u64) -> bool {
        newest < oldest
    }

    /// A request is sent. Gives its number.
    pub fn start(&mut self) -> u64 {
        self.newest += 1;
        self.numbers.push(self.newest);
        self.newest
    }

    /// A request has ended.
    pub fn end(&mut self, number: u64) {
        self.numbers.retain(|other| *other != number);
    }

    /// How many are in flight.
    #[must_use]
    pub fn count(&self) -> usize {
        self.numbers.len()
    }

    /// The last that was started, in flight or not; 0 if none was.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// The first of those in flight; `u64::MAX` if none is.
    #[must_use]
    pub fn oldest(&self) -> u64 {
        self.oldest_beside(0)
    }

    /// The same without `number`.
    #[must_use]
    pub fn oldest_beside(&self, number: u64) -> u64 {
        let mut others = self.numbers.iter().filter(|other| **other != number);
        others.next().copied().unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Holds: a page's place is known as soon as all that was in flight at its end has ended, and not sooner.
    #[test]
    fn nothing_older_comes_once_what_was_in_flight_has_ended() {
        let mut in_flight = InFlight::default();
        assert_eq!((in_flight.newest(), in_flight.oldest()), (0, u64::MAX));
        assert_eq!([(); 3].map(|()| in_flight.start()), [1, 2, 3]);
        assert_eq!(in_flight.oldest_beside(1), 2);
        in_flight.end(2);
        let newest = in_flight.newest();
        // It was not in flight then.
        assert_eq!(in_flight.start(), 4);
        for (ends, known) in [(1, false), (3, true), (4, true)] {
            in_flight.end(ends);
            assert_eq!(
                InFlight::nothing_older(newest, in_flight.oldest()),
                known,
                "{ends}"
            );
        }
        assert_eq!(in_flight.count(), 0);
    }
}

//! The requests of one ring that are in flight side by side, and the order of what they bring.

use std::time::Instant;

use crate::InFlight;

/// No more results wait for their place than this: one request that takes half a minute must not keep hundreds.
const MOST_WAITING: usize = 64;

/// Puts the results of one ring's requests into the order in which the far end answered them.
///
/// What a page says about those before it (whether events were overwritten, how fast they come, whether someone else
/// reads) is said of the page before it *at the ring*. [`InFlight`] says when that is known. What has no `ms` has no
/// events, or odd ones, and keeps the place of its start.
///
/// With one request in flight all of this is void, and results pass at once.
#[derive(Debug, Default)]
pub(super) struct Flights {
    in_flight: InFlight,
    waiting: Vec<Ended>,
}

/// A request that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    number: u64,
    /// The newest request at its end.
    newest: u64,
    pub(super) started_at: Instant,
    pub(super) news: News,
}

/// What a request tells of the ring.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum News {
    Page {
        count: usize,
        full: bool,
        span: Option<(i64, i64)>,
    },
    /// A page may be gone.
    Doubt,
    /// Nothing was read.
    Nothing,
}

impl News {
    fn span(self) -> Option<(i64, i64)> {
        match self {
            News::Page { span, .. } => span,
            News::Doubt | News::Nothing => None,
        }
    }
}

impl Flights {
    /// How many are in flight.
    pub(super) fn count(&self) -> usize {
        self.in_flight.count()
    }

    /// A request is sent. Gives its number, the next one.
    pub(super) fn start(&mut self) -> u64 {
        self.in_flight.start()
    }

    /// A request has ended. Gives the results that are in their place by now, in the far end's order.
    pub(super) fn end(
        &mut self,
        number: u64,
        started_at: Instant,
        news: News,
    ) -> impl Iterator<Item = Ended> {
        self.in_flight.end(number);
        self.waiting.push(Ended {
            number,
            newest: self.in_flight.newest(),
            started_at,
            news,
        });
        self.sort();
        let oldest = self.in_flight.oldest();
        // What comes before a result in its place is in its own as well: what is in flight was started after.
        let in_place = |ended: &Ended| InFlight::nothing_older(ended.newest, oldest);
        let mut settled = (self.waiting.iter().rposition(in_place)).map_or(0, |last| last + 1);
        if self.waiting.len() > MOST_WAITING {
            settled = self.waiting.len();
        }
        self.waiting.drain(..settled)
    }

    fn sort(&mut self) {
        if self.waiting.len() < 2 {
            return;
        }
        self.waiting.sort_by_key(|ended| ended.number);
        let span = |waiting: &[Ended], place: usize| waiting[place].news.span();
        let places: Vec<usize> = (0..self.waiting.len())
            .filter(|place| span(&self.waiting, *place).is_some())
            .collect();
        for (i, place) in places.iter().enumerate() {
            let later = places[i..].iter().copied();
            let oldest = later.min_by_key(|place| span(&self.waiting, *place));
            self.waiting.swap(*place, oldest.unwrap_or(*place));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(first: i64) -> News {
        News::Page {
            count: 1_000,
            full: true,
            span: Some((first, first + 9)),
        }
    }

    const EMPTY: News = News::Page {
        count: 0,
        full: false,
        span: None,
    };

    fn end(flights: &mut Flights, number: u64, news: News) -> Vec<News> {
        let ended = flights.end(number, Instant::now(), news);
        ended.map(|ended| ended.news).collect()
    }

    #[test]
    fn one_in_flight_passes_at_once() {
        let mut flights = Flights::default();
        // Whatever its `ms` says.
        for news in [page(50), page(10), News::Doubt, EMPTY, page(20)] {
            let number = flights.start();
            assert_eq!(end(&mut flights, number, news), [news]);
        }
    }

    #[test]
    fn the_older_page_comes_first_in_whichever_order_they_end() {
        let mut flights = Flights::default();
        let numbers = [(); 3].map(|()| flights.start());
        assert_eq!(end(&mut flights, numbers[2], EMPTY), []);
        // The far end answered the second before the first.
        assert_eq!(end(&mut flights, numbers[1], page(10)), []);
        assert_eq!(
            end(&mut flights, numbers[0], page(20)),
            [page(10), page(20), EMPTY]
        );
        assert_eq!(flights.count(), 0);
    }

    #[test]
    fn a_result_waits_for_what_was_in_flight_at_its_end_and_no_longer() {
        let mut flights = Flights::default();
        let (first, second) = (flights.start(), flights.start());
        assert_eq!(end(&mut flights, first, page(10)), []);
        // Started after the first had ended, so not before it, at the ring.
        let third = flights.start();
        assert_eq!(end(&mut flights, second, page(20)), [page(10)]);
        assert_eq!(
            end(&mut flights, third, page(30)),
            [page(20), page(30)],
            "all are known"
        );
    }

    #[test]
    fn one_that_never_ends_does_not_keep_all_others() {
        let mut flights = Flights::default();
        flights.start();
        let mut out = 0;
        for first in 0..1_000 {
            let number = flights.start();
            out += end(&mut flights, number, page(first * 10)).len();
            assert!(flights.waiting.len() <= MOST_WAITING);
        }
        assert!(out >= 1_000 - MOST_WAITING);
    }
}

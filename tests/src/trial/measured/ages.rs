//! What the simulator's ledger tells of time: how old events were when they were fetched, and how long rings went
//! unpolled.

use std::collections::BTreeMap;

use rtm_sim::{Ledger, LedgerPage};

/// Ages in milliseconds, or gaps, sorted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ages(Vec<i64>);

impl FromIterator<i64> for Ages {
    fn from_iter<T: IntoIterator<Item = i64>>(ages: T) -> Ages {
        let mut ages: Vec<i64> = ages.into_iter().collect();
        ages.sort_unstable();
        Ages(ages)
    }
}

impl Ages {
    /// The value below which `share` of them are; not a number of none.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "an index into ages, and figures"
    )]
    pub fn at(&self, share: f64) -> f64 {
        let index = (self.0.len() as f64 * share) as usize;
        let last = self.0.len().saturating_sub(1);
        self.0
            .get(index.min(last))
            .map_or(f64::NAN, |age| *age as f64)
    }

    /// Their mean; not a number of none.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a figure")]
    pub fn mean(&self) -> f64 {
        self.0.iter().map(|age| *age as f64).sum::<f64>() / self.0.len() as f64
    }
}

/// An event's `ms`, as the simulator writes it: the last field.
fn event_ms(event: &str) -> Option<i64> {
    let (_, rest) = event.rsplit_once("\"ms\":")?;
    rest.trim_end_matches('}').trim().parse().ok()
}

/// How old events were when the API handed them out, by the simulator's clock, of the pages that `chosen` takes.
pub fn at_fetch(ledger: &Ledger, chosen: impl Fn(&LedgerPage) -> bool) -> Ages {
    let pages = ledger.pages.iter().filter(|page| chosen(page));
    let ages = pages.flat_map(|page| {
        let at = i64::try_from(page.deleted_at_ms).unwrap_or(i64::MAX);
        let all = page.events.iter();
        all.filter_map(move |event| Some(at - event_ms(event)?))
    });
    ages.collect()
}

/// How long each ring went without a poll that found something, in milliseconds, one for each two pages of a ring that
/// follow each other, of the pages that `chosen` takes. A poll that finds nothing leaves no page: with 25 events a second
/// and five polls one poll in 150 does.
pub fn gaps(ledger: &Ledger, chosen: impl Fn(&LedgerPage) -> bool) -> Ages {
    let mut last: BTreeMap<(&str, &str, &str), u64> = BTreeMap::new();
    let mut pages: Vec<&LedgerPage> = ledger.pages.iter().filter(|page| chosen(page)).collect();
    pages.sort_by_key(|page| page.deleted_at_ms);
    let gaps = pages.into_iter().filter_map(|page| {
        let ring = (&*page.app_id, &*page.region, page.stream.as_str());
        let before = last.insert(ring, page.deleted_at_ms)?;
        i64::try_from(page.deleted_at_ms - before).ok()
    });
    gaps.collect()
}

/// One ledger of two simulators, the second of which came after the first.
pub fn joined(mut first: Ledger, mut second: Ledger) -> Ledger {
    let mut pages: BTreeMap<(String, String, &str), u64> = BTreeMap::new();
    for page in &first.pages {
        let ring = (
            page.app_id.clone(),
            page.region.clone(),
            page.stream.as_str(),
        );
        *pages.entry(ring).or_default() += 1;
    }
    for page in &mut second.pages {
        let ring = (
            page.app_id.clone(),
            page.region.clone(),
            page.stream.as_str(),
        );
        page.serial += pages.get(&ring).copied().unwrap_or_default();
    }
    first.pages.append(&mut second.pages);
    first
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use rtm_sim::{Fate, Stream};

    use super::*;

    fn page(app: &str, serial: u64, at: u64, ms: &[u64]) -> LedgerPage {
        let events = ms
            .iter()
            .map(|ms| format!(r#"{{"user_id":"\"ms\":7","type":"Login","ms":{ms}}}"#).into());
        LedgerPage {
            app_id: app.into(),
            region: "r".into(),
            stream: Stream::User,
            request_id: format!("{app}{at}"),
            serial,
            deleted_at_ms: at,
            at_ms: Some(at),
            status: Some(200),
            events: Arc::new(events.collect()),
            first_event_at: 0,
            fate: Fate::Whole,
            finished_at_ms: Some(at),
        }
    }

    fn ledger(pages: Vec<LedgerPage>) -> Ledger {
        Ledger {
            pages,
            rings: Vec::new(),
        }
    }

    /// Holds: an event's age at fetch is from its `ms` to when its page was deleted, whatever its ids hold.
    #[test]
    fn ages_are_from_the_event_to_the_fetch() {
        let ledger = ledger(vec![
            page("a", 0, 1_000, &[900, 950]),
            page("b", 0, 5_000, &[1]),
        ]);
        let ages = at_fetch(&ledger, |page| page.app_id == "a");
        assert_eq!(
            (ages.at(0.0), ages.at(0.99), ages.mean()),
            (50.0, 100.0, 75.0)
        );
        assert!(Ages::default().at(0.5).is_nan() && Ages::default().mean().is_nan());
    }

    /// Holds: gaps are of one ring, and the longest is found.
    #[test]
    fn a_ring_that_is_not_polled_shows() {
        let ledger = ledger(vec![
            page("a", 0, 1_000, &[1]),
            page("b", 0, 1_100, &[1]),
            page("a", 1, 1_200, &[1]),
            page("b", 1, 4_100, &[1]),
        ]);
        assert_eq!(gaps(&ledger, |_| true), [200, 3_000].into_iter().collect());
        assert_eq!(gaps(&ledger, |page| page.app_id == "a").at(1.0), 200.0);
    }

    /// Holds: in a joined ledger each ring's pages are counted on, so that order is judged over both.
    #[test]
    fn a_joined_ledger_counts_on() {
        let first = ledger(vec![page("a", 0, 1, &[1]), page("a", 1, 2, &[1])]);
        let second = ledger(vec![page("a", 0, 3, &[1]), page("b", 0, 3, &[1])]);
        let serials: Vec<u64> = joined(first, second)
            .pages
            .iter()
            .map(|page| page.serial)
            .collect();
        assert_eq!(serials, [0, 1, 2, 0]);
    }
}

//! Compares what was handed out with what a sink holds, event by event.
//!
//! An event's identity is the response that it came in and its place there: the request id, and the byte offset that
//! ends a record's id. Its bytes must be those of the ledger at that place. What must be there is every event of a
//! response that was sent whole, and every whole one of a response that was cut; an event that the ring deleted and the
//! response never carried cannot be anywhere.
//!
//! Pure: it holds some 16 bytes for each event handed out, and nothing of what it is shown.

use std::collections::{HashMap, HashSet};

use crate::envelope::{Observed, read_event};
use crate::findings::{Findings, PageMissing};
use crate::ledger::{Fate, Ledger, LedgerPage};

/// How many examples of each kind of trouble are kept.
pub const MAX_EXAMPLES: usize = 10;

/// Compares `observed`, all that a sink holds, in any order of partitions, with `ledger`.
#[must_use]
pub fn audit<'a>(ledger: &Ledger, observed: impl IntoIterator<Item = Observed<'a>>) -> Findings {
    let mut audit = Audit::new(ledger);
    for record in observed {
        audit.observe(&record);
    }
    audit.finish()
}

/// An audit in progress, for records that cannot be had as one iterator, such as those that are read a batch at a time.
#[derive(Debug)]
pub struct Audit<'l> {
    pages: Vec<Sighting<'l>>,
    by_request: HashMap<&'l str, usize>,
    findings: Findings,
    examples: HashMap<&'static str, usize>,
    /// The ids of dead letters that are no events.
    rests: HashSet<String>,
}

/// What is known of a page.
#[derive(Debug)]
struct Sighting<'l> {
    page: &'l LedgerPage,
    /// The epoch and position under which the page was seen first.
    identity: Option<(u64, u64)>,
    /// Where each event is in the body: its end is known from its length.
    starts: Vec<usize>,
    first_seen: Vec<Place>,
}

/// Where an event stands first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Nowhere,
    DeadLetters,
    /// Partition and order.
    Sink(i32, u64),
}

/// A record's id, taken apart.
#[derive(Debug, Clone, Copy)]
struct Id {
    epoch: u64,
    position: u64,
    offset: usize,
}

impl<'l> Audit<'l> {
    /// Begins an audit of `ledger`, to which nothing may be added meanwhile.
    #[must_use]
    pub fn new(ledger: &'l Ledger) -> Audit<'l> {
        let mut pages: Vec<&LedgerPage> = ledger.pages.iter().collect();
        pages.sort_by_key(|page| (&*page.app_id, &*page.region, page.stream, page.serial));
        let by_request = pages
            .iter()
            .enumerate()
            .map(|(index, page)| (&*page.request_id, index))
            .collect();
        Audit {
            pages: pages.into_iter().map(Sighting::new).collect(),
            by_request,
            findings: Findings::default(),
            examples: HashMap::new(),
            rests: HashSet::new(),
        }
    }

    /// Takes a record into account.
    pub fn observe(&mut self, record: &Observed<'_>) {
        let (Some(id), Some(&index)) =
            (parse_id(record.id), self.by_request.get(record.request_id))
        else {
            return self.invented(record, "of no known response");
        };
        let seen = &mut self.pages[index];
        let page = seen.page;
        let Ok(place) = seen.starts.binary_search(&id.offset) else {
            return self.invented(record, "at no event's place");
        };
        let event = &page.events[place];
        if !page.may_hold(id.offset + event.len()) {
            return self.invented(record, "not sent");
        }
        let mut wrong = Vec::new();
        if record.event != event.as_bytes() {
            self.findings.altered_count += 1;
            wrong.push("altered");
        }
        let tags = (record.app_id, record.region, record.stream);
        if tags != (&*page.app_id, &*page.region, page.stream.as_str()) {
            self.findings.mistagged_count += 1;
            wrong.push("mistagged");
        }
        let said = read_event(page.stream, event);
        if let (Some(key), Some(said), false) = (record.key, &said, record.dead_letter)
            && key != said.key.as_bytes()
        {
            self.findings.miskeyed_count += 1;
            wrong.push("miskeyed");
        }
        if *seen.identity.get_or_insert((id.epoch, id.position)) != (id.epoch, id.position) {
            self.findings.reidentified_count += 1;
            wrong.push("under a second id");
        }
        let first_seen = &mut seen.first_seen[place];
        match (*first_seen, record.dead_letter) {
            (Place::Nowhere, false) => {
                *first_seen = Place::Sink(record.partition, record.sink_order);
            }
            (Place::Nowhere, true) => {
                *first_seen = Place::DeadLetters;
                self.findings.dead_lettered += 1;
                self.findings.dead_lettered_sound += u64::from(said.is_some());
            }
            (Place::Sink(partition, order), false) => {
                self.findings.duplicates += 1;
                if partition == record.partition && record.sink_order < order {
                    *first_seen = Place::Sink(partition, record.sink_order);
                }
            }
            _ => self.findings.duplicates += 1,
        }
        for what in wrong {
            self.example(what, || describe(record));
        }
    }

    /// The dead letter of a response, or of the rest of one, that could not be read. It is no event of the ledger.
    pub fn observe_rest(&mut self, id: &str) {
        self.findings.unreadable += u64::from(self.rests.insert(id.to_owned()));
    }

    /// A record that has no identity at all, such as a payload that is no envelope: an invented event.
    pub fn observe_unreadable(&mut self, why: &str) {
        self.findings.invented_count += 1;
        self.example("invented", || {
            format!("a record that cannot be read: {why}")
        });
    }

    /// What was found, once all records have been observed.
    #[must_use]
    pub fn finish(mut self) -> Findings {
        self.completeness();
        self.order();
        self.findings
    }

    fn completeness(&mut self) {
        for index in 0..self.pages.len() {
            let seen = &self.pages[index];
            let page = seen.page;
            let required = page.required();
            let found = seen
                .first_seen
                .iter()
                .filter(|place| **place != Place::Nowhere)
                .count() as u64;
            let (must, rest) = seen.first_seen.split_at(required);
            let missing: Vec<usize> = (0..must.len())
                .filter(|place| must[*place] == Place::Nowhere)
                .collect();
            let lost = rest
                .iter()
                .filter(|place| **place == Place::Nowhere)
                .count() as u64;
            let findings = &mut self.findings;
            findings.handed_out += page.events.len() as u64;
            findings.required += required as u64;
            findings.seen_distinct += found;
            findings.lost_at_source += lost;
            match page.fate {
                Fate::Unsent => findings.unsent_events += lost,
                Fate::Cut { .. } => findings.cut_whole_delivered += found,
                Fate::Whole => {}
            }
            if missing.is_empty() {
                continue;
            }
            findings.missing_count += missing.len() as u64;
            let ring = (&page.app_id, &page.region, page.stream);
            let next = self.pages.get(index + 1).map(|next| next.page);
            findings.pages_missing.push(PageMissing {
                app_id: page.app_id.to_string(),
                region: page.region.to_string(),
                stream: page.stream,
                serial: page.serial,
                last: next.is_none_or(|next| (&next.app_id, &next.region, next.stream) != ring),
                required: required as u64,
                missing: missing.len() as u64,
                finished_at_ms: page.finished_at_ms,
            });
            self.example("missing", || {
                let place = missing[0];
                format!(
                    "{} of {} in {} {} page {} (request {}), the first at {place}: {:?}",
                    missing.len(),
                    page.events.len(),
                    page.region,
                    page.stream.as_str(),
                    page.serial,
                    page.request_id,
                    &page.events[place],
                )
            });
        }
    }

    /// For each ring and key, first places must follow each other as the events did in the ring.
    fn order(&mut self) {
        // For each key of the ring at hand, where its latest event stands in each partition. Pages are in the order of
        // their rings, so that it starts afresh with every ring.
        let mut latest: HashMap<String, Vec<(i32, u64)>> = HashMap::new();
        let mut ring = None;
        let mut examples = Vec::new();
        for seen in &self.pages {
            let page = seen.page;
            let this = (&page.app_id, &page.region, page.stream);
            if ring.replace(this).is_some_and(|ring| ring != this) {
                self.findings.split_key_count += split(&latest);
                latest.clear();
            }
            for (event, place) in page.events.iter().zip(&seen.first_seen) {
                let Place::Sink(partition, order) = *place else {
                    continue;
                };
                let Some(said) = read_event(page.stream, event) else {
                    continue;
                };
                let partitions = latest.entry(said.key).or_default();
                match partitions.iter_mut().find(|(known, _)| *known == partition) {
                    None => partitions.push((partition, order)),
                    Some((_, last)) if *last <= order => *last = order,
                    Some((_, last)) => {
                        self.findings.out_of_order_count += 1;
                        if examples.len() < MAX_EXAMPLES {
                            examples.push(format!(
                                "at {order} of partition {partition}, where an earlier one is at {last}: {} {} {event:?}",
                                page.region,
                                page.stream.as_str(),
                            ));
                        }
                    }
                }
            }
        }
        self.findings.split_key_count += split(&latest);
        for example in examples {
            self.example("out of order", || example);
        }
    }

    fn invented(&mut self, record: &Observed<'_>, why: &str) {
        self.findings.invented_count += 1;
        self.example("invented", || format!("{why}: {}", describe(record)));
    }

    fn example(&mut self, kind: &'static str, text: impl FnOnce() -> String) {
        let count = self.examples.entry(kind).or_default();
        *count += 1;
        if *count <= MAX_EXAMPLES {
            self.findings.examples.push(format!("{kind}: {}", text()));
        }
    }
}

impl<'l> Sighting<'l> {
    fn new(page: &'l LedgerPage) -> Sighting<'l> {
        Sighting {
            page,
            identity: None,
            starts: page.spans().map(|span| span.start).collect(),
            first_seen: vec![Place::Nowhere; page.events.len()],
        }
    }
}

impl LedgerPage {
    /// How many events, from the first, a bridge that lived must have.
    fn required(&self) -> usize {
        match (self.fate, self.finished_at_ms) {
            (Fate::Whole, Some(_)) => self.events.len(),
            (
                Fate::Cut {
                    whole_events_sent, ..
                },
                Some(_),
            ) => whole_events_sent,
            // Under way, or the client went away.
            (Fate::Whole | Fate::Cut { .. }, None) | (Fate::Unsent, _) => 0,
        }
    }

    /// Whether an event that ends at `end` of the body can have arrived.
    fn may_hold(&self, end: usize) -> bool {
        match self.fate {
            Fate::Whole => true,
            Fate::Cut { bytes_sent, .. } => end <= bytes_sent,
            Fate::Unsent => false,
        }
    }
}

fn split(latest: &HashMap<String, Vec<(i32, u64)>>) -> u64 {
    latest
        .values()
        .filter(|partitions| partitions.len() > 1)
        .count() as u64
}

/// `<epoch, 16 hex digits>.<position>.<byte offset>`.
fn parse_id(id: &str) -> Option<Id> {
    let mut parts = id.split('.');
    let (epoch, position, offset) = (parts.next()?, parts.next()?, parts.next()?);
    Some(Id {
        epoch: u64::from_str_radix(epoch, 16).ok()?,
        position: position.parse().ok()?,
        offset: offset.parse().ok()?,
    })
    .filter(|_| parts.next().is_none())
}

fn describe(record: &Observed<'_>) -> String {
    format!(
        "id {} request {} as {} {} {}: {:?}",
        record.id,
        record.request_id,
        record.app_id,
        record.region,
        record.stream,
        String::from_utf8_lossy(record.event),
    )
}

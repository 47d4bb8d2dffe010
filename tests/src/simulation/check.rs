//! The invariants, checked on what a run has left.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use rtm_bridge::read_back;
use rtm_bridge::sinks::Stored;
use rtm_sim::{Audit, Fate, Findings, Ledger, SimStats};
use rtm_sink::Record;

use super::Report;
use super::plan::Plan;
use super::world::{APP, APP_ID, DEAD_LETTERS, SINKS};
use crate::bridge::Metrics;

/// Requests that Agora allows in any second.
const LIMIT: u64 = 10;

/// Everything that there is to look at.
pub(super) struct Seen {
    pub(super) ledger: Ledger,
    pub(super) stats: SimStats,
    /// What each sink holds.
    pub(super) sinks: Vec<Vec<Record>>,
    /// The metrics of the last process, once quiet.
    pub(super) samples: Metrics,
    pub(super) crashes: u32,
    pub(super) crashed_at_ms: Vec<u64>,
}

pub(super) fn report(plan: &Plan, seen: &Seen, mut broken: Vec<String>) -> Report {
    let mut report = Report {
        plan: format!("{plan:?}"),
        crashes: seen.crashes,
        digest: digest(&seen.sinks),
        ..Report::default()
    };
    let possibly_lost = sum(seen, "rtm_bridge_events_possibly_lost_total", &[]);
    report.possibly_lost = possibly_lost;
    for (name, records) in SINKS.iter().zip(&seen.sinks) {
        let findings = audit(&seen.ledger, records);
        report.handed_out = findings.handed_out;
        broken.extend(wrong(plan, seen, name, &findings, records, &mut report));
        broken.extend(account(plan, seen, name));
    }
    for app in &seen.stats.apps {
        report.requests = app.requests;
        if app.max_in_second > LIMIT || app.refused_429 > 0 {
            broken.push(format!(
                "4, rate: {} requests in a second, {} refused",
                app.max_in_second, app.refused_429
            ));
        }
    }
    report.broken = broken;
    report
}

fn audit(ledger: &Ledger, records: &[Record]) -> Findings {
    let mut audit = Audit::new(ledger);
    for (order, record) in (0u64..).zip(records) {
        read_back::observe(
            &mut audit,
            APP_ID,
            &Stored {
                partition: 0,
                order,
                key: record.key.as_deref(),
                payload: &record.payload,
                timestamp: Some(record.timestamp.0),
                dead_letter: record.topic.as_str() == DEAD_LETTERS,
                is_line: false,
            },
        );
    }
    audit.finish()
}

/// Invariants 1, 2 and 3: the ledger, accounted loss, order.
fn wrong(
    plan: &Plan,
    seen: &Seen,
    sink: &str,
    findings: &Findings,
    records: &[Record],
    report: &mut Report,
) -> Vec<String> {
    let mut broken = Vec::new();
    let missing = if plan.drops_copies {
        // What was dropped as a copy is missing on purpose: of each event as many must be there as happened.
        let (missing, excess) = compare(&seen.ledger, records);
        // What is polled after more than the window is published; a disk that fails can hold polling up so long.
        if excess > 0 && plan.clock_jumps == 0 && !plan.disk_fails {
            broken.push(format!(
                "1, ledger: {sink}: {excess} copies were not dropped"
            ));
        }
        missing
    } else {
        findings.missing_count
    };
    let crash_pages = u64::from(seen.crashes) * 2 * plan.regions.len() as u64;
    if missing > 0 && seen.crashes == 0 {
        broken.push(format!(
            "1, ledger: {sink}: {missing} events missing without a crash"
        ));
    }
    if !plan.drops_copies && findings.pages_missing.len() as u64 > crash_pages {
        broken.push(format!(
            "1, ledger: {sink}: {} pages missing, more than were in flight",
            findings.pages_missing.len()
        ));
    }
    for page in findings.pages_missing.iter().filter(|_| !plan.drops_copies) {
        // A page that was received and not yet durable: moments before a crash, or while the disk failed before it, or
        // while the rest of the body was waited for.
        let slack = match (plan.disk_fails, plan.network.stall > 0.0) {
            (false, false) => 1_000,
            (false, true) => 31_000,
            (true, _) => 120_000,
        };
        let excused = page.finished_at_ms.is_none_or(|at| {
            let crashes = &seen.crashed_at_ms;
            crashes
                .iter()
                .any(|crash| (crash.saturating_sub(slack)..=*crash).contains(&at))
        });
        if !excused {
            broken.push(format!(
                "1, ledger: {sink}: a page missing far from a crash: {page:?}"
            ));
        }
    }
    let lost = missing + findings.lost_at_source;
    report.lost = report.lost.max(lost);
    if lost > report.possibly_lost && !plan.drops_copies {
        broken.push(format!(
            "2, accounted loss: {sink}: {lost} lost, {} counted as possibly lost",
            report.possibly_lost
        ));
    }
    if plan.exact.is_some() && findings.duplicates > 0 {
        broken.push(format!(
            "17, once and only once: {sink}: {} records are there twice",
            findings.duplicates
        ));
    }
    // A wall clock that moves makes copies be forgotten early. One that was dropped before a crash is then published
    // after it, behind others of its key; its twin stands before them.
    let late_copies = plan.drops_copies && plan.clock_jumps > 0 && seen.crashes > 0;
    let rest = Findings {
        out_of_order_count: if late_copies {
            0
        } else {
            findings.out_of_order_count
        },
        missing_count: 0,
        pages_missing: Vec::new(),
        ..findings.clone()
    };
    if !rest.clean() {
        broken.push(format!("1 or 3: {sink}: not what was handed out:\n{rest}"));
    }
    broken
}

/// Where copies are dropped: how many events are there less often than a single region gave them, and how many more
/// often.
fn compare(ledger: &Ledger, records: &[Record]) -> (u64, u64) {
    type Counts<'a> = HashMap<(String, String), HashMap<&'a str, u64>>;
    let mut given: Counts<'_> = HashMap::new();
    let mut uncertain: HashSet<String> = HashSet::new();
    for page in &ledger.pages {
        if page.fate != Fate::Whole || page.finished_at_ms.is_none() {
            uncertain.extend(page.events.iter().map(|event| said(event)));
            continue;
        }
        for event in page.events.iter() {
            let regions = given
                .entry((page.stream.as_str().to_owned(), said(event)))
                .or_default();
            *regions.entry(&page.region).or_default() += 1;
        }
    }
    let mut stored: HashMap<(String, String), HashSet<String>> = HashMap::new();
    let mut odd: HashSet<(String, String)> = HashSet::new();
    for record in records {
        if let Some((stream, event, id)) = identity(record) {
            if record.topic.as_str() == DEAD_LETTERS {
                odd.insert((stream.clone(), event.clone()));
            }
            stored.entry((stream, event)).or_default().insert(id);
        }
    }
    let (mut missing, mut excess) = (0, 0);
    for ((stream, event), regions) in &given {
        let is_timeless = !event.contains('\u{1f}');
        let most = if is_timeless {
            regions.values().sum()
        } else {
            regions.values().copied().max().unwrap_or(0)
        };
        let found = stored
            .get(&(stream.clone(), event.clone()))
            .map_or(0, |ids| ids.len() as u64);
        missing += most.saturating_sub(found);
        // Of a region whose page was cut or never sent nobody knows here how many arrived; what is no event has no key.
        let has_key = !odd.contains(&(stream.clone(), event.clone()));
        if has_key && !uncertain.contains(event) {
            excess += found.saturating_sub(most);
        }
    }
    (missing, excess)
}

/// What an event says, however it is written: copies are known by that. Without a time two events that look the same are
/// two events.
fn said(event: &str) -> String {
    let body = format!(r#"{{"events":[{event}]}}"#);
    let decoded = rtm_source::decode(body.as_bytes());
    let Some(Ok(known)) = decoded.events.first() else {
        return event.to_owned();
    };
    let Some(ms) = known.ms else {
        return event.to_owned();
    };
    let channel = known.channel_id.as_deref().unwrap_or_default();
    format!(
        "{}\u{1f}{channel}\u{1f}{}\u{1f}{ms}",
        known.user_id, known.kind
    )
}

/// Stream, what the event says, and id of a record or a dead letter.
fn identity(record: &Record) -> Option<(String, String, String)> {
    #[derive(serde::Deserialize)]
    struct DeadLetter {
        id: String,
        stream: String,
        raw: String,
    }
    let of = |payload: &[u8]| {
        let envelope = rtm_sim::parse_envelope(payload).ok()?;
        let event = said(envelope.event.get());
        Some((envelope.stream.to_string(), event, envelope.id.to_string()))
    };
    if record.topic.as_str() != DEAD_LETTERS {
        return of(&record.payload);
    }
    let letter: DeadLetter = serde_json::from_slice(&record.payload).ok()?;
    of(letter.raw.as_bytes()).or_else(|| Some((letter.stream, said(&letter.raw), letter.id)))
}

/// Invariant 12: the account balances, exactly.
fn account(plan: &Plan, seen: &Seen, sink: &str) -> Vec<String> {
    let labels = [("app", APP), ("sink", sink)];
    let of = |name: &str| sum(seen, name, &labels);
    let stored = of("rtm_bridge_events_stored_total");
    let confirmed = of("rtm_bridge_records_confirmed_total");
    let pending = of("rtm_bridge_journal_pending_events");
    let dead = of("rtm_bridge_records_dead_lettered_total");
    let dropped = of("rtm_bridge_records_dropped_total");
    // Where writing fails, what is confirmed frees room before the log knows of it, and a crash may forget that it was.
    let damaged = [labels[0], labels[1], ("reason", "damaged")];
    let damaged = sum(seen, "rtm_bridge_records_dropped_total", &damaged);
    if damaged > 0 && !plan.disk_fails {
        return vec![format!(
            "14, kept until committed: {sink}: {damaged} events were let go of"
        )];
    }
    if stored == confirmed + pending + dead + dropped {
        return Vec::new();
    }
    vec![format!(
        "12, honest metrics: {sink}: {stored} stored, but {confirmed} confirmed + {pending} pending + {dead} dead-lettered + {dropped} dropped"
    )]
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts, well below 2^53"
)]
fn sum(seen: &Seen, name: &str, labels: &[(&str, &str)]) -> u64 {
    seen.samples.sum(name, labels).unwrap_or(f64::NAN) as u64
}

fn digest(sinks: &[Vec<Record>]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for record in sinks.iter().flatten() {
        record.topic.as_str().hash(&mut hasher);
        record.payload.hash(&mut hasher);
    }
    hasher.finish()
}

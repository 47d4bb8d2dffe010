//! What the bridge counts, against what is there. Its counts are kept in the journal, so that they hold across restarts.

use anyhow::Result;
use rtm_sim::Findings;

use crate::bridge::Metrics;

const STORED: &str = "rtm_bridge_events_stored_total";
const CONFIRMED: &str = "rtm_bridge_records_confirmed_total";
const PENDING: &str = "rtm_bridge_journal_pending_events";
const DEAD: &str = "rtm_bridge_records_dead_lettered_total";
const DROPPED: &str = "rtm_bridge_records_dropped_total";
const LOST: &str = "rtm_bridge_events_possibly_lost_total";

/// For one sink, stored = confirmed + pending + dead-lettered + dropped for each app, and over all of them stored is what
/// the sink holds, each event once. To be asked once everything is quiet. Says what does not hold.
///
/// # Errors
///
/// When a series is missing.
pub fn equation(
    metrics: &Metrics,
    apps: &[String],
    sink: &str,
    findings: &Findings,
) -> Result<Vec<String>> {
    let mut broken = Vec::new();
    let (mut stored, mut dead, mut dropped) = (0.0, 0.0, 0.0);
    for app in apps {
        let of = |name: &str| metrics.sum(name, &[("app", app), ("sink", sink)]);
        let own = (of(STORED)?, of(DEAD)?, of(DROPPED)?);
        let (confirmed, pending) = (of(CONFIRMED)?, of(PENDING)?);
        if own.0 != confirmed + pending + own.1 + own.2 {
            broken.push(format!(
                "{sink}, {app}: stored {} is not confirmed {confirmed} + pending {pending} + dead-lettered {} + dropped {}",
                own.0, own.1, own.2
            ));
        }
        stored += own.0;
        dead += own.1;
        dropped += own.2;
    }
    for (what, counted, there) in [
        (
            "stored",
            stored,
            findings.seen_distinct + findings.unreadable,
        ),
        (
            "dead-lettered",
            dead,
            findings.dead_lettered + findings.unreadable,
        ),
        ("dropped", dropped, 0),
    ] {
        #[expect(clippy::cast_precision_loss, reason = "a count of events")]
        if counted != there as f64 {
            broken.push(format!(
                "{sink}: {counted} counted as {what}, and there are {there}"
            ));
        }
    }
    Ok(broken)
}

/// Of all that an App ID was handed out, without anything odd, a sink has confirmed each event, and nothing else. Says if
/// that does not hold.
///
/// # Errors
///
/// When a series is missing.
pub fn whole(metrics: &Metrics, app: &str, sink: &str, handed_out: u64) -> Result<Option<String>> {
    let confirmed = metrics.sum(CONFIRMED, &[("app", app), ("sink", sink)])?;
    #[expect(clippy::cast_precision_loss, reason = "a count of events")]
    let is_whole = confirmed == handed_out as f64;
    Ok((!is_whole).then(|| {
        format!("{sink}, {app}: {handed_out} events were handed out, and {confirmed} are confirmed")
    }))
}

/// Upper bound of the events lost at the source, by all processes of the bridge.
///
/// # Errors
///
/// When the series is missing.
pub fn possibly_lost(metrics: &Metrics) -> Result<f64> {
    metrics.sum(LOST, &[])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn metrics(pending: u32, dropped: u32) -> Metrics {
        let text = format!(
            "{STORED}{{app=\"a\",sink=\"s\"}} 100\n{STORED}{{app=\"a\",sink=\"t\"}} 7\n\
             {CONFIRMED}{{app=\"a\",sink=\"s\"}} 90\n{PENDING}{{app=\"a\",sink=\"s\"}} {pending}\n\
             {DEAD}{{app=\"a\",sink=\"s\",reason=\"x\"}} 4\n{DEAD}{{app=\"a\",sink=\"s\",reason=\"y\"}} 6\n\
             {DROPPED}{{app=\"a\",sink=\"s\",reason=\"full\"}} {dropped}\n"
        );
        Metrics::parse(&text).unwrap()
    }

    /// Holds: the equation is exact, and each of its counts is compared with what is there, where that can be known.
    #[test]
    fn the_equation_is_exact() {
        let findings = Findings {
            seen_distinct: 100,
            dead_lettered: 10,
            ..Findings::default()
        };
        let broken = |metrics: &Metrics, findings: &Findings| {
            equation(metrics, &["a".to_owned()], "s", findings)
                .unwrap()
                .join("; ")
        };
        assert_eq!(broken(&metrics(0, 0), &findings), "");
        assert!(broken(&metrics(1, 0), &findings).contains("stored 100 is not"));
        assert!(broken(&metrics(0, 1), &findings).contains("as dropped"));
        let fewer = Findings {
            seen_distinct: 99,
            ..findings.clone()
        };
        assert!(broken(&metrics(0, 0), &fewer).contains("as stored"));
        let other = Findings {
            dead_lettered: 9,
            ..findings.clone()
        };
        assert!(broken(&metrics(0, 0), &other).contains("as dead-lettered"));
        assert!(equation(&metrics(0, 0), &["a".to_owned()], "unknown", &findings).is_err());
    }

    /// Holds: one event more or less than was handed out is told.
    #[test]
    fn an_account_is_whole_or_not() {
        let of = |handed_out| whole(&metrics(0, 0), "a", "s", handed_out).unwrap();
        assert_eq!(of(90), None);
        assert!(of(89).is_some() && of(91).is_some());
    }
}

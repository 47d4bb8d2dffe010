//! Trials of figures with bounds. Each gives a [`Run`]; a [`Table`] of several judges the medians.
//!
//! | module | what |
//! |---|---|
//! | [`fresh`] | two even rings: the age at Kafka; and all that the API can give, for a minute |
//! | [`storms`] | eight rings: a storm on one, and rings that are not alike |
//! | [`cost`] | processor time, beside that of a bare loop |
//! | [`drain`] | a backlog of millions |
//! | [`price`] | once and only once, beside at least once |
//! | [`lanes`] | once and only once with many App IDs |
//! | [`apps`] | hundreds of App IDs, busy, idle and uneven |
//! | [`changes`] | a busy App ID, while others and a sink come, change and go |
//! | [`memory`] | the memory that an outage of a broker leaves behind |
//! | [`soak`] | hours under faults that change |
//! | [`figures`] | figures, bounds and tables |
//! | [`ages`], [`fsync`] | what is measured: by the ledger, and of the disk |
//! | [`feeder`], [`backlog`], [`bare`] | what is measured with: uneven loads, a journal that is full of events, a bare producer loop |

pub mod ages;
pub mod apps;
pub mod backlog;
pub mod bare;
pub mod changes;
pub mod cost;
pub mod drain;
pub mod feeder;
pub mod figures;
pub mod fresh;
pub mod fsync;
pub mod lanes;
pub mod memory;
pub mod price;
pub mod soak;
pub mod storms;

use anyhow::Result;

pub use figures::{Figure, Run, Table};

use super::report::Report;

/// Requests that Agora allows in any second.
const LIMIT: f64 = 10.0;

/// What every trial of these tells at its end, and removes its files if it broke nothing.
pub(super) fn conclude(mut figures: Vec<Figure>, report: &Report) -> Result<Run> {
    let missing = report.held.iter().map(|held| held.findings.missing_count);
    figures.extend(always(
        report.first().handed_out,
        missing.sum(),
        report.most_in_second(),
    ));
    if report.kept() {
        report.discard()?;
    } else {
        eprintln!("files: {}", report.dir.display());
    }
    Ok(Run {
        figures,
        broken: report.broken.clone(),
    })
}

/// What no trial may do: miss an event, or ask more often than is allowed.
#[expect(clippy::cast_precision_loss, reason = "figures")]
fn always(events: u64, missing: u64, most_in_second: u64) -> [Figure; 3] {
    [
        Figure::told("events", events as f64),
        Figure::never_over("missing in the sinks", missing as f64, 0.0),
        Figure::never_over(
            "most requests of an App ID in any second",
            most_in_second as f64,
            LIMIT,
        ),
    ]
}

/// A name with what it is of before it, where a table holds several of a kind.
pub(super) fn of(what: &str, name: &str) -> String {
    format!("{what}: {name}")
}

/// How far apart two figures are, as a factor: 1.2 is a fifth more.
pub(super) fn factor(value: f64, than: f64) -> f64 {
    value / than
}

/// A mebibyte.
const MIB: f64 = 1_048_576.0;

#[cfg(test)]
mod tests {
    use super::*;

    /// Holds: a missing event and an eleventh request are not forgiven, whatever the other runs did.
    #[test]
    fn what_must_never_happen_is_judged_in_each_run() {
        let kept = |missing: u64, most: u64| {
            let mut table = Table::default();
            for figures in [
                always(10, 0, 10),
                always(10, missing, most),
                always(10, 0, 1),
            ] {
                table.add(Run {
                    figures: figures.to_vec(),
                    broken: Vec::new(),
                });
            }
            table.kept()
        };
        assert!(kept(0, 10));
        assert!(!kept(1, 10) && !kept(0, 11));
    }
}

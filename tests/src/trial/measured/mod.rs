//! Trials of figures with bounds. Each gives a [`Run`]; a [`Table`] of several judges the medians.
//!
//! | module | what |
//! |---|---|
//! | [`fresh`] | two even rings: the age at Kafka; and all that the API can give, for a minute |
//! | [`storms`] | eight rings: a storm on one, and rings that are not alike |
//! | [`cost`] | processor time, beside that of a bare loop |
//! | [`drain`] | a backlog of millions |
//! | [`apps`] | hundreds of App IDs, busy, idle and uneven |
//! | [`figures`] | figures, bounds and tables |
//! | [`ages`], [`fsync`] | what is measured: by the ledger, and of the disk |
//! | [`feeder`], [`backlog`], [`bare`] | what is measured with: uneven loads, a journal that is full of events, a bare producer loop |

pub mod ages;
pub mod apps;
pub mod backlog;
pub mod bare;
pub mod cost;
pub mod drain;
pub mod feeder;
pub mod figures;
pub mod fresh;
pub mod fsync;
pub mod storms;

use anyhow::Result;

pub use figures::{Figure, Run, Table};

use super::report::Report;

/// Requests that Agora allows in any second.
const LIMIT: f64 = 10.0;

/// What every trial of these tells at its end, and removes its files if it broke nothing.
#[expect(clippy::cast_precision_loss, reason = "figures")]
fn conclude(mut figures: Vec<Figure>, report: &Report) -> Result<Run> {
    let missing: u64 = report
        .held
        .iter()
        .map(|held| held.findings.missing_count)
        .sum();
    figures.extend([
        Figure::told("events", report.first().handed_out as f64),
        Figure::never_over("missing in the sinks", missing as f64, 0.0),
        Figure::never_over(
            "most requests of an App ID in any second",
            report.most_in_second() as f64,
            LIMIT,
        ),
    ]);
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

/// A name with what it is of before it, where a table holds several of a kind.
fn of(what: &str, name: &str) -> String {
    format!("{what}: {name}")
}

/// How far apart two figures are, as a factor: 1.2 is a fifth more.
fn factor(value: f64, than: f64) -> f64 {
    value / than
}

/// A mebibyte.
const MIB: f64 = 1_048_576.0;

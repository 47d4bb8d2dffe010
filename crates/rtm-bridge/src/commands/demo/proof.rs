//! What every sink of the demo holds, read back and compared with what was handed out.

use std::collections::BTreeMap;

use rtm_sim::{Audit, Findings, Ledger};

use super::{Demo, StdoutError, say};
use crate::read_back;
use crate::sinks::Stored;

impl Demo {
    /// The first records of each sink, as they are stored.
    pub(super) async fn show_records(&self) -> Result<(), StdoutError> {
        let mut records: Vec<String> = Vec::new();
        let shown = self
            .read(|_, stored| {
                if records.len() < 2 && !stored.dead_letter {
                    records.push(String::from_utf8_lossy(stored.payload).into_owned());
                }
            })
            .await;
        if shown.is_ok() {
            say("Two of the records:")?;
            for record in records {
                say(format_args!("  {record}"))?;
            }
            say("")?;
        }
        Ok(())
    }

    /// Compares what was handed out with what each sink holds. True when nothing is missing and nothing is wrong.
    pub(super) async fn summary(&self, ledger: &Ledger) -> anyhow::Result<bool> {
        let lines = read_back::as_lines(ledger);
        let of = |sink: &str| if sink == "file" { &lines } else { ledger };
        let mut audits: BTreeMap<&'static str, Audit<'_>> = self
            .sinks
            .iter()
            .map(|sink| (*sink, Audit::new(of(sink))))
            .collect();
        self.read(|sink, stored| {
            if let Some(audit) = audits.get_mut(sink) {
                read_back::observe(audit, &self.app_id, stored);
            }
        })
        .await?;
        let findings: Vec<(&str, Findings)> = audits
            .into_iter()
            .map(|(sink, audit)| (sink, audit.finish()))
            .collect();
        let mut clean = true;
        for (sink, findings) in &findings {
            say(format_args!(
                "\nRead back from {sink} and compared with what was handed out, event by event:\n{findings}"
            ))?;
            clean &= findings.clean();
        }
        let nothing = findings
            .iter()
            .all(|(_, findings)| findings.handed_out == 0);
        say(if nothing {
            "\nNOTHING WAS HANDED OUT, so nothing was shown"
        } else if clean {
            "\nnothing missing"
        } else {
            "\nSOMETHING IS MISSING OR WRONG"
        })?;
        Ok(clean && !nothing)
    }

    /// Reads every sink back.
    async fn read(&self, mut each: impl FnMut(&str, &Stored<'_>)) -> anyhow::Result<()> {
        for (name, sink) in &self.published {
            let mut each = |stored: &Stored<'_>| each(name, stored);
            sink.table().read_back(&mut each).await?;
        }
        Ok(())
    }
}

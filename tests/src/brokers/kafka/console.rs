//! Kafka's own console consumer, in Java: a reader of which nothing is ours.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::Kafka;
use crate::brokers::install;

/// Stands between the parts that are printed of a record, and in no key of the trials.
const SEPARATOR: char = '\u{1}';

/// Ends a record: an event may have line feeds between its tokens.
const END: char = '\u{2}';

/// Nothing more comes for so long: it is the end.
const SILENCE_MS: &str = "5000";

/// One record as it is printed.
#[derive(Debug, PartialEq, Eq)]
pub struct Printed<'a> {
    /// Milliseconds since the Unix epoch.
    pub timestamp: i64,
    /// Its offset in the partition.
    pub offset: u64,
    /// Its key.
    pub key: &'a str,
    /// Its value.
    pub payload: &'a str,
}

impl Kafka {
    /// Gives every committed record of a partition to `each`. Blocks.
    ///
    /// # Errors
    ///
    /// When there is no Java, or what is printed is no record.
    pub fn console_consumer(
        &self,
        topic: &str,
        partition: i32,
        mut each: impl FnMut(&Printed<'_>),
    ) -> Result<()> {
        let [_, classpath, jars] = install::java_arguments(&install::kafka()?);
        let mut command = Command::new("java");
        command
            // Its log would stand among the records.
            .arg("-Dorg.apache.logging.log4j.level=OFF")
            .args([classpath, jars])
            .args(["org.apache.kafka.tools.consumer.ConsoleConsumer"])
            .args(["--bootstrap-server", self.address(), "--topic", topic])
            .args(["--partition", &partition.to_string()])
            .args(["--offset", "earliest", "--timeout-ms", SILENCE_MS])
            .args(["--isolation-level", "read_committed"]);
        let shown = ["timestamp", "offset", "key"].map(|part| format!("print.{part}=true"));
        let separators = [
            format!("key.separator={SEPARATOR}"),
            format!("line.separator={END}"),
        ];
        for property in shown.iter().chain(&separators) {
            command.args(["--formatter-property", property]);
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut consumer = command.spawn().context("start Java")?;
        let printed = consumer.stdout.take().context("no output")?;
        for record in BufReader::new(printed).split(END as u8) {
            let record = String::from_utf8(record?)?;
            each(&parse(&record).with_context(|| format!("no record: {record}"))?);
        }
        let ended = consumer.wait_with_output()?;
        let said = String::from_utf8_lossy(&ended.stderr);
        // It ends when nothing more comes, which it reports as an error.
        ensure!(said.contains("Processed a total of"), "{said}");
        Ok(())
    }
}

fn parse(record: &str) -> Option<Printed<'_>> {
    let mut parts = record.splitn(4, SEPARATOR);
    let mut next = || parts.next();
    let (time, offset) = (next()?, next()?);
    Some(Printed {
        timestamp: time.split_once(':')?.1.parse().ok()?,
        offset: offset.strip_prefix("Offset:")?.parse().ok()?,
        key: next()?,
        payload: next()?,
    })
}

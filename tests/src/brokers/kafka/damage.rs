//! What a broker's disk may do to it.

use std::fs::{self, File};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::Kafka;
use crate::brokers::Host;

impl Kafka {
    /// Takes the records from `offset` on out of a partition of a killed broker, with the batch that holds it: what a
    /// power failure does to a log that was not synced. The broker then knows only what the producers sent before.
    ///
    /// # Errors
    ///
    /// When the broker is not local, its log is not as Kafka writes it, or it does not reach to `offset`.
    pub fn lose_from(&self, topic: &str, partition: i32, offset: i64) -> Result<()> {
        let path = self.data()?.join(format!("{topic}-{partition}"));
        let path = path.join("00000000000000000000.log");
        let log = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let mut place = 0;
        while let Some(head) = log.get(place..place + BATCH_HEAD) {
            let first = i64::from_be_bytes(head[..8].try_into()?);
            let length = usize::try_from(u32::from_be_bytes(head[8..12].try_into()?))?;
            let records = i64::from(u32::from_be_bytes(head[23..27].try_into()?)) + 1;
            if first + records > offset {
                File::options()
                    .write(true)
                    .open(&path)?
                    .set_len(u64::try_from(place)?)?;
                return Ok(());
            }
            place += 12 + length;
        }
        bail!("{} ends before offset {offset}", path.display())
    }

    fn data(&self) -> Result<PathBuf> {
        match &self.host {
            Host::Local(local) => Ok(local.dir.path().join("data")),
            _ => Err(crate::brokers::not_ours()),
        }
    }
}

/// As far as the last offset's distance from the first, in a batch of format 2.
const BATCH_HEAD: usize = 27;

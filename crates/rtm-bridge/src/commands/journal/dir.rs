//! `--dir`, or what the configuration says instead.

use std::path::PathBuf;

use crate::commands::configuration::{ConfigArgs, configuration};

/// Where the journal is.
#[derive(Debug, clap::Args)]
pub(super) struct DirArgs {
    /// The journal's directory; without it, the configuration says
    #[arg(long, value_name = "DIRECTORY")]
    pub(super) dir: Option<PathBuf>,
    #[command(flatten)]
    pub(super) config: ConfigArgs,
}

impl DirArgs {
    pub(super) fn dir(&self) -> anyhow::Result<PathBuf> {
        match &self.dir {
            Some(dir) => Ok(dir.clone()),
            None => Ok(configuration(&self.config)?.journal.dir),
        }
    }
}

//! `--config`, and `--dir` in its place, and what they name.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::process::refuse;
use crate::config::{Config, ConfigError, Examined};

/// Where the configuration is, unless it is said.
pub(super) const DEFAULT_CONFIG: &str = "rtm-bridge.toml";

/// Where the configuration is.
#[derive(Debug, clap::Args)]
pub(super) struct ConfigArgs {
    /// The configuration: a TOML file, or a directory, of which all *.toml are taken together
    #[arg(
        short,
        long,
        value_name = "PATH",
        env = "RTM_BRIDGE_CONFIG",
        default_value = DEFAULT_CONFIG
    )]
    pub(super) config: PathBuf,
}

/// The configuration of a command, all that it names being there.
pub(super) fn configuration(args: &ConfigArgs) -> anyhow::Result<Config> {
    let mut config = configuration_to_run(args)?;
    let problems = std::mem::take(&mut config.absent);
    match problems.is_empty() {
        true => Ok(config),
        false => Err(refuse(ConfigError { problems })),
    }
}

/// The configuration of a bridge: what is not there yet may come. A reload says the same of what is wrong with it, without
/// the advice.
pub(super) fn configuration_to_run(args: &ConfigArgs) -> anyhow::Result<Config> {
    Config::load(&args.config).map_err(|error| refused(args, error))
}

/// The configuration of a command that looks at all of it, and tells all that is wrong.
pub(super) fn examined(args: &ConfigArgs) -> anyhow::Result<Examined> {
    Config::examine(&args.config).map_err(|error| refused(args, error))
}

fn refused(args: &ConfigArgs, error: ConfigError) -> anyhow::Error {
    match args.config.exists() {
        true => refuse(error),
        false => refuse(format!(
            "{error}\nname another file with --config, make one with `rtm-bridge config example`, or try `rtm-bridge demo`"
        )),
    }
}

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
    /// A directory that holds a journal.
    pub(super) fn dir(&self) -> anyhow::Result<PathBuf> {
        let dir = match &self.dir {
            Some(dir) => dir.clone(),
            None => configuration(&self.config)?.journal.dir,
        };
        holds_a_journal(&dir)?;
        Ok(dir)
    }

    /// The configuration, where there is a valid one and the journal in `dir` is its own: beside `--dir` it need not be.
    pub(super) fn config_of(&self, dir: &Path) -> Option<Config> {
        let config = Config::load(&self.config.config).ok()?;
        let same = |a: &Path, b: &Path| Some(a.canonicalize().ok()? == b.canonicalize().ok()?);
        same(&config.journal.dir, dir)?.then_some(config)
    }
}

/// Refuses a directory that is missing, or that holds no journal.
pub(super) fn holds_a_journal(dir: &Path) -> anyhow::Result<()> {
    let files = match std::fs::read_dir(dir) {
        Ok(files) => files,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(refuse(format!("there is no directory {}", dir.display())));
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", dir.display())),
    };
    for file in files {
        if file?
            .path()
            .extension()
            .is_some_and(|kind| kind == "segment")
        {
            return Ok(());
        }
    }
    Err(refuse(format!("there is no journal in {}", dir.display())))
}

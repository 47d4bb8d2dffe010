//! `--config`, and what it names.

use std::path::PathBuf;
use std::process::ExitCode;

use super::process::refuse;
use crate::config::Config;

/// Where the configuration is.
#[derive(Debug, clap::Args)]
pub(super) struct ConfigArgs {
    /// The configuration: a TOML file, or a directory, of which all *.toml are taken together
    #[arg(
        short,
        long,
        value_name = "PATH",
        env = "RTM_BRIDGE_CONFIG",
        default_value = "rtm-bridge.toml"
    )]
    pub(super) config: PathBuf,
}

/// The configuration of a command; without one, what is wrong has been said. A reload says the same, without the advice.
pub(super) fn configuration(args: &ConfigArgs) -> Result<Config, ExitCode> {
    Config::load(&args.config).map_err(|error| {
        let code = refuse(&error);
        if !args.config.exists() {
            eprintln!(
                "rtm-bridge: name another file with --config, make one with `rtm-bridge config example`, or try \
                 `rtm-bridge demo`"
            );
        }
        code
    })
}

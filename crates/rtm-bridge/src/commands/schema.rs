//! `rtm-bridge schema`, `config example` and `completions`: what the program can say of itself.

/// Every key with its unit and its default.
const EXAMPLE: &str = include_str!("../../../../deploy/rtm-bridge.toml");

/// Print the JSON Schema of the configuration, or of what is published
///
/// Of draft 2020-12.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
An editor completes and checks a configuration with its schema, given `#:schema ./rtm-bridge.schema.json` as the \
file's first line. Consumers can rely on that of an event.

Examples:
  rtm-bridge schema config > rtm-bridge.schema.json
  rtm-bridge schema event | jq .properties")]
pub(super) struct SchemaArgs {
    /// Of what
    #[arg(value_enum)]
    of: Of,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Of {
    /// The configuration file
    Config,
    /// The record of an event
    Event,
    /// The record of what cannot be an event, or is refused by a broker
    DeadLetter,
}

pub(super) fn schema(args: &SchemaArgs) -> anyhow::Result<bool> {
    match args.of {
        Of::Config => println!("{:#}", crate::config::schema()),
        Of::Event => print!("{}", rtm_record::EVENT_SCHEMA),
        Of::DeadLetter => print!("{}", rtm_record::DEAD_LETTER_SCHEMA),
    }
    Ok(true)
}

/// What there is to say about configurations.
#[derive(Debug, clap::Subcommand)]
pub(super) enum ConfigCommand {
    /// Print the reference configuration: every key with its meaning, unit and default
    #[command(after_help = "\
First steps:
  rtm-bridge config example > rtm-bridge.toml
  $EDITOR rtm-bridge.toml    # app_id, key, secret_file; the sinks you have
  rtm-bridge check           # names what is still wrong, by its key
  rtm-bridge check --connect")]
    Example,
}

pub(super) fn config(command: &ConfigCommand) -> anyhow::Result<bool> {
    match command {
        ConfigCommand::Example => print!("{EXAMPLE}"),
    }
    Ok(true)
}

/// Print what a shell needs to complete commands and flags
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rtm-bridge completions bash > /etc/bash_completion.d/rtm-bridge
  rtm-bridge completions zsh > \"${fpath[1]}/_rtm-bridge\"
  rtm-bridge completions fish > ~/.config/fish/completions/rtm-bridge.fish")]
pub(super) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

pub(super) fn completions(
    args: &CompletionsArgs,
    mut command: clap::Command,
) -> anyhow::Result<bool> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "rtm-bridge", &mut script);
    let script = String::from_utf8_lossy(&script);
    // clap_complete up to 4.6.11 spells a hyphen of the program's name in two ways in one bash script, and then no
    // subcommand completes: https://github.com/clap-rs/clap/issues/6421. Nothing to replace once that is mended.
    print!("{}", script.replace("rtm__subcmd__bridge", "rtm__bridge"));
    Ok(true)
}

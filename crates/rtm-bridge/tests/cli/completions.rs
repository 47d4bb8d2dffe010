//! What shells are told to complete with.

use std::collections::BTreeSet;
use std::path::Path;

use assert_cmd::Command;
use clap::CommandFactory;
use rtm_bridge::commands::Cli;

use super::schema::print;

/// Calls the function that the script registers as bash does, and prints what it answers.
const ASK: &str = r#"
source "$1"; shift
registered=$(complete -p rtm-bridge)
[[ $registered =~ -F\ ([^ ]+) ]] || exit 1
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
"${BASH_REMATCH[1]}" rtm-bridge "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\n' "${COMPREPLY[@]}"
"#;

/// What bash offers behind `rtm-bridge` and these words, the last of them begun.
fn complete(script: &Path, words: &[&str]) -> BTreeSet<String> {
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", ASK, "bash"]).arg(script);
    let output = bash.arg("rtm-bridge").args(words).output().unwrap();
    assert!(output.status.success(), "{words:?}");
    assert_eq!(output.stderr, b"", "{words:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

fn set(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Holds: there are completions for every usual shell, and they know the commands.
#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = print(&["completions", shell]);
        for command in ["check", "simulate", "completions", "forget"] {
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
}

/// Holds: bash completes commands, their commands, values and flags; of every command each flag that its help shows.
#[test]
fn bash_completes_every_command() {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("rtm-bridge");
    std::fs::write(&script, print(&["completions", "bash"])).unwrap();
    for (words, offered) in [
        (&["rep"][..], &["replay"][..]),
        (&["replay", "--s"], &["--sink", "--since", "--stream"]),
        (&["replay", "--stream", ""], &["user", "channel"]),
        (&["journal", "d"], &["dump"]),
        (&["journal", "dump", "--si"], &["--since"]),
        (&["schema", "e"], &["event"]),
        (&["completions", "z"], &["zsh"]),
        (&["config", "e"], &["example"]),
    ] {
        assert_eq!(complete(&script, words), set(offered), "{words:?}");
    }
    let mut cli = Cli::command();
    cli.build();
    let mut commands: Vec<(Vec<&str>, &clap::Command)> = vec![(Vec::new(), &cli)];
    let mut seen = 0;
    while let Some((path, command)) = commands.pop() {
        for inner in command
            .get_subcommands()
            .filter(|inner| inner.get_name() != "help")
        {
            commands.push(([&path[..], &[inner.get_name()]].concat(), inner));
        }
        let shown = command.get_arguments().filter(|flag| !flag.is_hide_set());
        let flags: BTreeSet<String> = shown
            .filter_map(|flag| Some(format!("--{}", flag.get_long()?)))
            .collect();
        let offered = complete(&script, &[&path[..], &["--"]].concat());
        assert!(offered.is_superset(&flags), "{path:?}: {offered:?}");
        seen += 1;
    }
    assert!(seen > 12, "{seen} commands");
}

//! What `--help` prints, where a terminal is 80 columns wide.

use assert_cmd::Command;
use clap::CommandFactory;
use rtm_bridge::commands::Cli;

/// Every command by its words.
fn commands() -> Vec<Vec<String>> {
    let mut found = vec![Vec::new()];
    let mut next = 0;
    while let Some(path) = found.get(next).cloned() {
        let cli = Cli::command();
        let mut command = &cli;
        for word in &path {
            command = command.find_subcommand(word).unwrap();
        }
        for inner in command.get_subcommands() {
            found.push([&path[..], &[inner.get_name().to_owned()]].concat());
        }
        next += 1;
    }
    found
}

fn help(path: &[String]) -> String {
    let mut command = Command::cargo_bin("rtm-bridge").unwrap();
    let command = command.args(path).arg("--help").env("COLUMNS", "80");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{path:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Holds: no text is wrapped twice, once by hand and once by the terminal: where a line of a paragraph ends early, it is the
/// paragraph's last. Examples and tables, which are not wrapped, fit.
#[test]
fn help_fits_a_terminal() {
    let commands = commands();
    assert!(commands.len() > 15, "{commands:?}");
    for path in commands {
        let help = help(&path);
        let lines: Vec<&str> = help.lines().collect();
        for pair in lines.windows(2) {
            let [line, next] = pair else { unreachable!() };
            assert!(line.chars().count() <= 80, "{path:?}: {line:?}");
            let text = |line: &str| !line.is_empty() && !line.starts_with(' ');
            let word = next.split(' ').next().unwrap_or_default();
            let fits = line.chars().count() + 1 + word.chars().count() <= 80;
            let is_cut = text(line) && fits && !line.ends_with(['.', ':']);
            // Behind a line of an example or a table, text is what did not fit in it.
            assert!(
                !text(next) || line.is_empty() || !(is_cut || line.starts_with(' ')),
                "{path:?}: wrapped twice: {line:?} before {next:?}"
            );
        }
    }
}

/// Holds: `--help` says more than `-h`: what stands at the arguments is not hidden by what lists the commands.
#[test]
fn help_tells_the_whole() {
    for (path, says) in [
        (&["run"][..], "stores what is in flight"),
        (&["check"], "files, credentials, templates, limits"),
        (&["demo"], "compared, event by event"),
        (&["bench"], "RTM_BENCH_"),
        (&["simulate"], "made-up events"),
        (&["top"], "Esc and Ctrl-C"),
        (&["replay"], "after a restart there is little to replay"),
        (&["journal", "verify"], "every entry can be decompressed"),
        (&["journal", "dump"], "not reclaimed yet"),
        (&["journal", "forget"], "holding back"),
    ] {
        let path: Vec<String> = path.iter().map(|word| (*word).to_owned()).collect();
        let help = help(&path);
        let (about, _) = help.split_once("Usage:").unwrap();
        let unwrapped = about.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(unwrapped.contains(says), "{path:?}: {about}");
    }
}

/// Holds: every command that does something has an example, and `run` tells its signals and exit codes.
#[test]
fn help_has_examples() {
    for path in commands() {
        let words = path.iter().map(String::as_str).collect::<Vec<_>>();
        if matches!(words[..], [] | ["journal"] | ["config"]) {
            continue;
        }
        let help = help(&path);
        let example = format!("rtm-bridge {}", words.join(" "));
        let after = help.split_once("Usage:").unwrap().1;
        assert!(
            after.lines().skip(1).any(|line| line.contains(&example)),
            "{path:?}: {after}"
        );
    }
    let run = help(&["run".to_owned()]);
    for says in [
        "SIGTERM",
        "SIGINT",
        "SIGHUP",
        "143 or 130",
        "Exit codes: 0",
        "1 failed",
        "2 wrong",
    ] {
        assert!(run.contains(says), "{says} in {run}");
    }
}

/// Holds: the first steps, as printed: the example, an edit, a valid configuration. Before the edit `check` tells which.
#[test]
fn the_first_steps_lead_to_a_valid_configuration() {
    let steps = help(&["config".to_owned(), "example".to_owned()]);
    let steps: Vec<&str> = steps
        .lines()
        .filter_map(|line| line.strip_prefix("  "))
        .collect();
    let of = |begin: &str| {
        let found = steps.iter().find(|step| step.starts_with(begin));
        *found.unwrap_or_else(|| panic!("{begin} in {steps:?}"))
    };
    let temp = tempfile::tempdir().unwrap();
    let program = assert_cmd::cargo::cargo_bin("rtm-bridge");
    let path = std::env::var("PATH").unwrap();
    let shell = |step: &str| {
        let path = format!("{}:{path}", program.parent().unwrap().display());
        let mut shell = Command::new("sh");
        shell
            .current_dir(&temp)
            .env("PATH", path)
            .args(["-c", step]);
        let output = shell.output().unwrap();
        let text = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        (output.status.code(), text.concat())
    };
    let check = of("rtm-bridge check");
    assert_eq!(
        shell(of("rtm-bridge config example > rtm-bridge.toml")).0,
        Some(0)
    );
    let (code, text) = shell(check);
    assert_eq!(code, Some(2), "{text}");
    let wrong = text.lines().filter(|line| line.starts_with("rtm-bridge: "));
    assert_eq!(wrong.count(), 1, "{text}");
    for says in [
        "apps.0.auth.basic.secret_file",
        "/run/secrets/agora",
        "name another file",
    ] {
        assert!(text.contains(says), "{says} in {text}");
    }
    let edit = of("$EDITOR rtm-bridge.toml");
    assert!(
        edit.contains("app_id") && edit.contains("secret_file"),
        "{edit}"
    );
    std::fs::write(temp.path().join("agora-secret"), "s").unwrap();
    let file = temp.path().join("rtm-bridge.toml");
    let example = std::fs::read_to_string(&file).unwrap();
    let edited = example.replacen(
        "secret_file = \"/run/secrets/agora\"",
        "secret_file = \"agora-secret\"",
        1,
    );
    std::fs::write(&file, edited).unwrap();
    let (code, text) = shell(check);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("rtm-bridge.toml: valid"), "{text}");
}

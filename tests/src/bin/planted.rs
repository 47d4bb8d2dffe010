//! Checks the checks: runs the tests that must catch each planted bug, without the bug and with it.
//!
//! `cargo run -p rtm-tests --features planted --bin planted [name…]`

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use rtm_tests::planted::{self, Planted};

/// Runs the tests that must catch each planted bug: without the bug they must pass, and with it they must fail. A test
/// that hangs is stopped after the limit, and has caught the bug. Exits with 1 when a bug is not caught.
#[derive(Parser)]
struct Arguments {
    /// Only these bugs; every bug of a prefix such as `journal-` [default: all]
    names: Vec<String>,
    /// Lists them and runs nothing
    #[arg(long)]
    list: bool,
    /// Seconds that the tests of one bug may take
    #[arg(long, default_value_t = 120)]
    limit: u64,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let wanted = |bug: &&&Planted| {
        let names = &arguments.names;
        names.is_empty() || names.iter().any(|name| bug.name.starts_with(name.as_str()))
    };
    let bugs: Vec<&Planted> = planted::all().filter(|bug| wanted(&bug)).collect();
    ensure!(!bugs.is_empty(), "no planted bug of these names");
    if arguments.list {
        for bug in bugs {
            println!("{:<40} {}: {}", bug.name, bug.package, bug.tests);
            println!("{:<40} breaks {}", "", bug.breaks);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let runner = Runner {
        cargo: std::env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from),
        limit: Duration::from_secs(arguments.limit),
    };
    let began = Instant::now();
    let rows = runner.run(&bugs)?;
    let caught = rows.iter().filter(|row| row.caught()).count();
    println!("\n{}", table(&rows));
    println!(
        "{caught} of {} planted bugs caught, {:.0} s",
        rows.len(),
        began.elapsed().as_secs_f64()
    );
    Ok(if caught == rows.len() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs tests.
struct Runner {
    cargo: PathBuf,
    limit: Duration,
}

/// A bug and what came of it.
struct Row {
    name: &'static str,
    breaks: &'static str,
    /// What its tests do without it.
    without: Verdict,
    /// What they do with it; not run where they fail without it.
    with: Option<Verdict>,
}

/// How a run of tests ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// So many passed.
    Passed(usize),
    /// These failed.
    Failed(Vec<String>),
    /// Stopped after the limit; these had not ended, as far as is known.
    Hung(Vec<String>),
    /// The test's process died without a result.
    Died(String),
    /// The filter matches none.
    NoTest,
}

impl Runner {
    fn run(&self, bugs: &[&'static Planted]) -> Result<Vec<Row>> {
        let packages: BTreeSet<&str> = bugs.iter().map(|bug| bug.package).collect();
        for package in &packages {
            self.build(package)?;
        }
        // Several bugs may be for one test: without a bug it is run once.
        let mut sound: BTreeMap<(&str, &str), Verdict> = BTreeMap::new();
        let mut rows = Vec::new();
        for bug in bugs {
            let key = (bug.package, bug.tests);
            let without = match sound.get(&key) {
                Some(known) => known.clone(),
                None => {
                    let verdict = self.test(bug, false)?;
                    sound.insert(key, verdict.clone());
                    verdict
                }
            };
            let with = match without {
                Verdict::Passed(_) => Some(self.test(bug, true)?),
                _ => None,
            };
            let row = Row {
                name: bug.name,
                breaks: bug.breaks,
                without,
                with,
            };
            println!("{}: {}", row.name, row.outcome());
            rows.push(row);
        }
        Ok(rows)
    }

    /// Builds a package's tests with bugs to select, and for the tests of the whole bridge the bridge.
    fn build(&self, package: &str) -> Result<()> {
        println!("building the tests of {package}");
        let mut builds = vec![vec!["test", "--no-run", "--tests", "-p", package]];
        if package == "rtm-tests" {
            builds.push(vec!["build", "-p", "rtm-bridge"]);
        }
        for arguments in builds {
            let status = self.cargo(&arguments).arg("--quiet").status()?;
            ensure!(status.success(), "cannot build {package}: {status}");
        }
        Ok(())
    }

    fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.cargo);
        command
            .args(arguments)
            .args(["--locked", "--features", "rtm-planted/on"])
            .env_remove(rtm_planted::VARIABLE)
            .stdin(Stdio::null());
        command
    }

    fn test(&self, bug: &Planted, with: bool) -> Result<Verdict> {
        let mut output = tempfile::tempfile()?;
        let arguments = ["test", "--tests", "--no-fail-fast", "-p", bug.package];
        let mut command = self.cargo(&arguments);
        if with {
            command.env(rtm_planted::VARIABLE, bug.name);
        }
        command
            .arg(bug.tests)
            .stdout(output.try_clone()?)
            .stderr(output.try_clone()?);
        let ended = self.limited(command)?;
        let text = read(&mut output)?;
        let verdict = judge(&text, ended);
        if !with && !matches!(verdict, Verdict::Passed(_)) {
            println!("{text}");
        }
        Ok(verdict)
    }

    /// Waits for `command` up to the limit, and then ends it and all that it started; nothing says that it was ended.
    fn limited(&self, mut command: Command) -> Result<Option<ExitStatus>> {
        let end = Instant::now() + self.limit;
        let mut child = command.process_group(0).spawn().context("start cargo")?;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() > end {
                // Brokers and bridges end by themselves when the tests that started them do.
                killpg(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGKILL)?;
                child.wait()?;
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn read(output: &mut File) -> Result<String> {
    output.rewind()?;
    let mut bytes = Vec::new();
    output.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What the output of `cargo test` says. `ended` is nothing where it was stopped.
fn judge(output: &str, ended: Option<ExitStatus>) -> Verdict {
    let (mut passed, mut failed, mut slow) = (0, Vec::new(), Vec::new());
    for line in output.lines() {
        let Some(rest) = line.strip_prefix("test ") else {
            continue;
        };
        // `test result: …` is a summary.
        if let Some(name) = rest.strip_suffix(" ... FAILED") {
            failed.push(name.to_owned());
        } else if rest.ends_with(" ... ok") {
            passed += 1;
        } else if let Some((name, _)) = rest.split_once(" has been running for over") {
            slow.push(name.to_owned());
        }
    }
    // With one test thread, and with output that is not captured, the verdict stands on a line of its own.
    passed += output.lines().filter(|line| *line == "ok").count();
    let Some(status) = ended else {
        slow.retain(|name| !failed.contains(name));
        return Verdict::Hung([failed, slow].concat());
    };
    match (failed.is_empty(), status.success()) {
        (false, _) => Verdict::Failed(failed),
        (true, false) => Verdict::Died(
            output
                .lines()
                .rfind(|line| line.contains("signal") || line.starts_with("error"))
                .unwrap_or("without a word")
                .to_owned(),
        ),
        (true, true) if passed == 0 => Verdict::NoTest,
        (true, true) => Verdict::Passed(passed),
    }
}

impl Row {
    fn caught(&self) -> bool {
        matches!(
            self.with,
            Some(Verdict::Failed(_) | Verdict::Hung(_) | Verdict::Died(_))
        )
    }

    fn outcome(&self) -> String {
        let with = match (&self.without, &self.with) {
            (Verdict::Passed(_), Some(with)) => with,
            (Verdict::NoTest, _) => return "NO TEST: the filter matches none".to_owned(),
            (other, _) => return format!("BROKEN without the bug: {other:?}"),
        };
        match with {
            Verdict::Failed(tests) => format!("caught by {}", tests.join(", ")),
            Verdict::Hung(tests) if tests.is_empty() => "caught: the tests hang".to_owned(),
            Verdict::Hung(tests) => format!("caught: the tests hang, of them {}", tests.join(", ")),
            Verdict::Died(how) => format!("caught: the tests died: {how}"),
            Verdict::Passed(tests) => format!("NOT CAUGHT by {tests} tests"),
            Verdict::NoTest => "NOT CAUGHT: no test ran".to_owned(),
        }
    }
}

fn table(rows: &[Row]) -> String {
    let width = |of: fn(&Row) -> usize| rows.iter().map(of).max().unwrap_or_default();
    let (name, breaks) = (width(|row| row.name.len()), width(|row| row.breaks.len()));
    let line = |row: &Row| {
        format!(
            "{:<name$}  {:<breaks$}  {}\n",
            row.name,
            row.breaks,
            row.outcome()
        )
    };
    format!("{:<name$}  {:<breaks$}  outcome\n", "bug", "breaks")
        + &rows.iter().map(line).collect::<String>()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const fn bug(name: &'static str, tests: &'static str) -> Planted {
        Planted {
            name,
            breaks: "something",
            package: "p",
            tests,
        }
    }

    /// One for each outcome.
    static BUGS: [Planted; 7] = [
        bug("caught", "shared"),
        bug("missed", "shared"),
        bug("hangs", "shared"),
        bug("dies", "shared"),
        bug("unmatched", "nothing"),
        bug("broken-anyway", "broken"),
        bug("caught-too", "shared"),
    ];

    /// Says what `cargo test` would, and notes how it was called.
    const CARGO: &str = r#"#!/bin/sh
echo "$@ with ${RTM_PLANTED:-nothing}" >>"$0.calls"
case "$*" in *--no-run*) exit 0 ;; esac
for filter; do :; done
echo "running tests"
case "$filter" in
nothing) exit 0 ;;
broken) echo "test broken ... FAILED"; exit 101 ;;
esac
echo "test one::ignored ... ignored"
case "$RTM_PLANTED" in
caught*) echo "test one::first ... ok"; echo "test one::shared ... FAILED"; echo "test result: FAILED."; exit 101 ;;
hangs) echo "test one::shared has been running for over 60 seconds"; exec sleep 600 ;;
dies) echo "error: test failed"; echo "process didn't exit successfully (signal: 6, SIGABRT)"; exit 101 ;;
esac
echo "test one::shared ... ok"
"#;

    /// Holds: each outcome is told from the others; what is not caught, matches no test or fails anyway is no success;
    /// a package is built once, and a test that several bugs share is run once without any.
    #[test]
    fn tells_what_is_caught() {
        let dir = tempfile::tempdir().unwrap();
        let cargo = dir.path().join("cargo");
        std::fs::write(&cargo, CARGO).unwrap();
        std::fs::set_permissions(&cargo, std::fs::Permissions::from_mode(0o755)).unwrap();
        let runner = Runner {
            cargo: cargo.clone(),
            limit: Duration::from_secs(2),
        };
        let rows = runner.run(&BUGS.iter().collect::<Vec<_>>()).unwrap();
        let said: Vec<(bool, String)> = rows
            .iter()
            .map(|row| (row.caught(), row.outcome()))
            .collect();
        let expected = [
            (true, "caught by one::shared"),
            (false, "NOT CAUGHT by 1 tests"),
            (true, "caught: the tests hang, of them one::shared"),
            (
                true,
                "caught: the tests died: process didn't exit successfully (signal: 6, SIGABRT)",
            ),
            (false, "NO TEST: the filter matches none"),
            (false, "BROKEN without the bug: Failed([\"broken\"])"),
            (true, "caught by one::shared"),
        ];
        for (said, (caught, outcome)) in said.iter().zip(expected) {
            assert_eq!((said.0, said.1.as_str()), (caught, outcome));
        }
        let calls = std::fs::read_to_string(dir.path().join("cargo.calls")).unwrap();
        let count = |part: &str| calls.lines().filter(|line| line.contains(part)).count();
        assert_eq!(count("--no-run"), 1, "{calls}");
        assert_eq!(count("shared with nothing"), 1, "{calls}");
        assert_eq!(count("shared with"), 6, "{calls}");
        assert_eq!(count("--features rtm-planted/on"), calls.lines().count());
        assert!(table(&rows).contains("missed         something  NOT CAUGHT"));
    }

    /// Holds: the real list is sound: names are unique, and say whose they are.
    #[test]
    fn names_are_unique() {
        let mut names = BTreeSet::new();
        for bug in planted::all() {
            assert!(names.insert(bug.name), "{} is there twice", bug.name);
            assert!(!bug.tests.is_empty(), "{} names no test", bug.name);
        }
    }
}

//! Checks the checks: runs the tests that must catch each planted bug, without the bug and with it.
//!
//! `cargo run -p rtm-tests --bin planted [name…]`; [`rtm_tests::planted`] has the bugs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use rtm_tests::planted::{self, Planted};

/// The environment variable that names the bug that is there, as `0000-switch.patch` reads it.
const VARIABLE: &str = "RTM_PLANTED";

/// Runs the tests that must catch each planted bug: without the bug they must pass, and with it they must fail. A test
/// that hangs is stopped after the limit, and has caught the bug. Exits with 1 when a bug is not caught.
///
/// It works on a copy of the working tree: changed files as they are, new files once they are committed.
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
    let names = &arguments.names;
    let mut bugs = planted::all()?;
    bugs.retain(|bug| names.is_empty() || names.iter().any(|name| bug.name.starts_with(name)));
    ensure!(!bugs.is_empty(), "no planted bug of these names");
    if arguments.list {
        for bug in bugs {
            println!("{:<40} {}: {}", bug.name, bug.package, bug.tests);
            println!("{:<40} breaks {}", "", bug.breaks);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let began = Instant::now();
    // Beside what is built of the ordinary tree, so that the dependencies are built once for both.
    let executable = std::env::current_exe()?;
    let target = executable.ancestors().nth(2);
    let target = target.context("this program lies in a target directory")?;
    let dir = target.join("planted");
    println!(
        "building all tests, with bugs to select, in {}",
        dir.display()
    );
    planted::check_out(&dir)?;
    let cargo = std::env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from);
    let runner = Runner {
        tests: build(&cargo, &dir, target)?,
        limit: Duration::from_secs(arguments.limit),
    };
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

/// Builds the whole workspace in `dir`, and with it the bridge that the tests start: a part of it would be built with
/// other features of its dependencies, and so nearly all of them again. Gives each package's test programs.
fn build(cargo: &Path, dir: &Path, target: &Path) -> Result<Vec<TestProgram>> {
    let output = Command::new(cargo)
        .args(["test", "--no-run", "--tests", "--workspace"])
        .args(["--message-format=json", "--target-dir"])
        .arg(target)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("start cargo")?;
    ensure!(output.status.success(), "cannot build: {}", output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    let tests: Vec<TestProgram> = text.lines().filter_map(test_program).collect();
    ensure!(!tests.is_empty(), "cargo built no tests");
    Ok(tests)
}

/// A program of tests, as cargo built it.
#[derive(Debug, PartialEq, Eq)]
struct TestProgram {
    package: String,
    dir: PathBuf,
    path: PathBuf,
}

/// The program of tests that one of cargo's messages tells of, if it does.
fn test_program(message: &str) -> Option<TestProgram> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    if message["profile"]["test"] != true {
        return None;
    }
    // `path+file:///dir#name@version`, or without the name where the directory has it.
    let (dir, rest) = message["package_id"].as_str()?.rsplit_once('#')?;
    let package = match rest.split_once('@') {
        Some((name, _)) => name,
        None => dir.rsplit('/').next()?,
    };
    Some(TestProgram {
        package: package.to_owned(),
        dir: PathBuf::from(message["manifest_path"].as_str()?)
            .parent()?
            .to_path_buf(),
        path: message["executable"].as_str()?.into(),
    })
}

/// Runs tests.
struct Runner {
    tests: Vec<TestProgram>,
    limit: Duration,
}

/// A bug and what came of it.
struct Row<'a> {
    bug: &'a Planted,
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
    fn run<'a>(&self, bugs: &'a [Planted]) -> Result<Vec<Row<'a>>> {
        // Several bugs may be for one test: without a bug it is run once.
        let mut sound: BTreeMap<(&str, &str), Verdict> = BTreeMap::new();
        let mut rows = Vec::new();
        for bug in bugs {
            let key = (bug.package.as_str(), bug.tests.as_str());
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
            let row = Row { bug, without, with };
            println!("{}: {}", bug.name, row.outcome());
            rows.push(row);
        }
        Ok(rows)
    }

    /// Runs those of the bug's tests that its filter matches, one program after the other.
    fn test(&self, bug: &Planted, with: bool) -> Result<Verdict> {
        let mut passed = 0;
        for test in self.tests.iter().filter(|test| test.package == bug.package) {
            let mut output = tempfile::tempfile()?;
            let mut command = Command::new(&test.path);
            command
                .arg(&bug.tests)
                .current_dir(&test.dir)
                .env("CARGO_MANIFEST_DIR", &test.dir)
                .env_remove(VARIABLE)
                // What a planted bug makes fail is no regression to be kept beside the sources.
                .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1")
                .stdin(Stdio::null())
                .stdout(output.try_clone()?)
                .stderr(output.try_clone()?);
            if with {
                command.env(VARIABLE, &bug.name);
            }
            let ended = self.limited(command)?;
            let text = read(&mut output)?;
            match judge(&text, ended) {
                Verdict::Passed(tests) => passed += tests,
                Verdict::NoTest => {}
                verdict => {
                    if !with {
                        println!("{text}");
                    }
                    return Ok(verdict);
                }
            }
        }
        Ok(if passed > 0 {
            Verdict::Passed(passed)
        } else {
            Verdict::NoTest
        })
    }

    /// Waits for `command` up to the limit, and then ends it and all that it started; nothing says that it was ended.
    fn limited(&self, mut command: Command) -> Result<Option<ExitStatus>> {
        let end = Instant::now() + self.limit;
        let mut child = command
            .process_group(0)
            .spawn()
            .context("start the tests")?;
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

/// What the output of a program of tests says. `ended` is nothing where it was stopped.
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
        (true, false) => {
            let last = output.lines().rfind(|line| !line.trim().is_empty());
            Verdict::Died(format!("{status}, {}", last.unwrap_or_default()))
        }
        (true, true) if passed == 0 => Verdict::NoTest,
        (true, true) => Verdict::Passed(passed),
    }
}

impl Row<'_> {
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

fn table(rows: &[Row<'_>]) -> String {
    let width = |of: fn(&Planted) -> usize| rows.iter().map(|row| of(row.bug)).max().unwrap_or(0);
    let (name, breaks) = (width(|bug| bug.name.len()), width(|bug| bug.breaks.len()));
    let line = |row: &Row<'_>| {
        let Planted {
            name: bug,
            breaks: what,
            ..
        } = row.bug;
        format!("{bug:<name$}  {what:<breaks$}  {}\n", row.outcome())
    };
    format!("{:<name$}  {:<breaks$}  outcome\n", "bug", "breaks")
        + &rows.iter().map(line).collect::<String>()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A bug's name and its tests: one for each outcome.
    const BUGS: [(&str, &str); 7] = [
        ("caught", "shared"),
        ("missed", "shared"),
        ("hangs", "shared"),
        ("dies", "shared"),
        ("unmatched", "nothing"),
        ("broken-anyway", "broken"),
        ("caught-too", "shared"),
    ];

    /// Says what cargo would, and notes that it was called.
    const CARGO: &str = r#"#!/bin/sh
echo "$@" >>"$0.calls"
dir=${0%/*}
echo '{"reason":"compiler-artifact","package_id":"path+file:///x/p#1.0.0","profile":{"test":false},"executable":null}'
for name in first second; do
    echo '{"reason":"compiler-artifact","package_id":"path+file:///x/p#1.0.0","manifest_path":"'"$dir"'/Cargo.toml","profile":{"test":true},"executable":"'"$dir/$name"'"}'
done
"#;

    /// A program of tests that the filters of [`BUGS`] match nothing of.
    const FIRST: &str = "#!/bin/sh\necho running 0 tests\n";

    /// Says what a program of tests would, and notes how it was called.
    const SECOND: &str = r#"#!/bin/sh
echo "$@ with ${RTM_PLANTED:-nothing}" >>"$0.calls"
echo "running tests"
case "$1" in
nothing) exit 0 ;;
broken) echo "test broken ... FAILED"; exit 101 ;;
esac
echo "test one::ignored ... ignored"
case "$RTM_PLANTED" in
caught*) echo "test one::first ... ok"; echo "test one::shared ... FAILED"; echo "test result: FAILED."; exit 101 ;;
hangs) echo "test one::shared has been running for over 60 seconds"; exec sleep 600 ;;
dies) echo "fatal runtime error: stack overflow"; kill -6 $$ ;;
esac
echo "test one::shared ... ok"
"#;

    /// Holds: each outcome is told from the others; what is not caught, matches no test or fails anyway is no success;
    /// all is built once, and a test that several bugs share is run once without any.
    #[test]
    fn tells_what_is_caught() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [("cargo", CARGO), ("first", FIRST), ("second", SECOND)] {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let target = Path::new("/the/target");
        let runner = Runner {
            tests: build(&dir.path().join("cargo"), dir.path(), target).unwrap(),
            limit: Duration::from_secs(2),
        };
        let bugs = BUGS.map(|(name, tests)| Planted {
            name: name.to_owned(),
            breaks: "something".to_owned(),
            package: "p".to_owned(),
            tests: tests.to_owned(),
        });
        let rows = runner.run(&bugs).unwrap();
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
                "caught: the tests died: signal: 6 (SIGABRT), fatal runtime error: stack overflow",
            ),
            (false, "NO TEST: the filter matches none"),
            (false, "BROKEN without the bug: Failed([\"broken\"])"),
            (true, "caught by one::shared"),
        ];
        for (said, (caught, outcome)) in said.iter().zip(expected) {
            assert_eq!((said.0, said.1.as_str()), (caught, outcome));
        }
        let calls = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(calls("cargo.calls").lines().count(), 1);
        assert!(calls("cargo.calls").contains("--target-dir /the/target"));
        let calls = calls("second.calls");
        let count = |part: &str| calls.lines().filter(|line| line.contains(part)).count();
        assert_eq!(count("shared with nothing"), 1, "{calls}");
        assert_eq!(count("shared with"), 6, "{calls}");
        assert!(table(&rows).contains("missed         something  NOT CAUGHT"));
    }

    /// Holds: cargo's messages are understood in both forms of a package's id.
    #[test]
    fn finds_test_programs() {
        let message = |id: &str| {
            format!(
                r#"{{"package_id":"{id}","manifest_path":"/w/tests/Cargo.toml","profile":{{"test":true}},"executable":"/t/it-1"}}"#
            )
        };
        let found = test_program(&message("path+file:///w/tests#rtm-tests@0.1.0")).unwrap();
        assert_eq!(found.package, "rtm-tests");
        assert_eq!(found.dir, PathBuf::from("/w/tests"));
        let plain = test_program(&message("path+file:///w/crates/rtm-sim#0.1.0")).unwrap();
        assert_eq!(plain.package, "rtm-sim");
        assert_eq!(test_program(r#"{"reason":"build-finished"}"#), None);
    }
}

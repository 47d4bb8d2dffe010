//! A child process that cannot outlive the tests, with its log in a file.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rtm_bridge::usage::Usage;

/// A program started by the tests.
///
/// It runs under a shell that waits on a pipe from this process: when the pipe closes, because this value was dropped
/// or because the tests ended in any way, `kill -9` included, the shell kills the program. A parent-death signal would
/// need `unsafe`, and follows the thread that started the program, which a test's does not outlive.
#[derive(Debug)]
pub struct Process {
    shell: Child,
    pid: Pid,
    log: PathBuf,
    /// Where in the log this process begins: a restarted one appends.
    log_start: u64,
}

/// Runs `$3…` with output to the log `$1`, and prints its process id. When standard input closes, kills it and removes
/// the directory `$2`, if that is not empty. Ends with the program's exit code, or 128 + signal.
const SHELL: &str = r#"
log=$1 scratch=$2
shift 2
exec 3<&0
"$@" </dev/null 3<&- >>"$log" 2>&1 &
pid=$!
echo "$pid"
{ read -r _ <&3; trap '' TERM; kill -9 "$pid"; exit 7; } 2>/dev/null &
guard=$!
exec 3<&-
wait "$pid" 2>/dev/null
code=$?
kill "$guard" 2>/dev/null
wait "$guard" 2>/dev/null
if [ $? -eq 7 ] && [ -n "$scratch" ]; then rm -rf "$scratch"; fi
exit "$code"
"#;

impl Process {
    /// Starts `program` with `arguments` and, on top of our own, the environment `env`.
    ///
    /// Standard output and standard error are appended to `log`. `scratch` is removed, with all that is in it, when the
    /// tests end while the program runs; not when the program ends before them.
    ///
    /// # Errors
    ///
    /// When the log cannot be opened or the program is not found.
    pub fn start<A: AsRef<OsStr>>(
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
        env: &[(&str, &str)],
        log: &Path,
        scratch: Option<&Path>,
    ) -> Result<Process> {
        let opened = File::options().create(true).append(true).open(log);
        let log_start = opened
            .with_context(|| format!("open {}", log.display()))?
            .metadata()?
            .len();
        let mut shell = Command::new("sh")
            .args(["-c", SHELL, "sh"])
            .arg(log)
            .arg(scratch.unwrap_or(Path::new("")))
            .arg(program)
            .args(arguments)
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Its own group: Ctrl-C ends the tests, and the pipe then ends this.
            .process_group(0)
            .spawn()
            .context("start sh")?;
        let mut line = String::new();
        if let Some(stdout) = shell.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let pid = line
            .trim()
            .parse()
            .map(Pid::from_raw)
            .context("sh did not tell the process id")?;
        Ok(Process {
            shell,
            pid,
            log: log.to_path_buf(),
            log_start,
        })
    }

    /// The process id of the program itself.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Where its output goes.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Its output up to now, without that of an earlier process in the same file.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn output(&self) -> Result<String> {
        let mut file = File::open(&self.log)?;
        file.seek(SeekFrom::Start(self.log_start))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Waits until `find` finds something in a whole line of the output.
    ///
    /// # Errors
    ///
    /// With the end of the output, when the program ends or `deadline` passes first.
    pub async fn wait_for_line<T>(
        &mut self,
        deadline: Duration,
        find: impl Fn(&str) -> Option<T>,
    ) -> Result<T> {
        let end = Instant::now() + deadline;
        loop {
            // Asked before the output is read, so that nothing a dead process wrote is missed.
            let exited = self.exited()?;
            let output = self.output()?;
            let whole = output.rfind('\n').map_or("", |at| &output[..at]);
            if let Some(found) = whole.lines().find_map(&find) {
                return Ok(found);
            }
            if let Some(status) = exited {
                bail!("the process ended early with {status}:\n{}", tail(&output));
            }
            ensure!(
                Instant::now() < end,
                "nothing found in the output within {deadline:?}:\n{}",
                tail(&output)
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// Stops the process in its tracks, and returns when every thread has stopped. SIGCONT resumes it.
    ///
    /// # Errors
    ///
    /// When the process has ended.
    pub fn pause(&mut self) -> Result<()> {
        self.signal(Signal::SIGSTOP)?;
        // The signal is on its way when `kill` returns, and a thread on another core may yet answer a request.
        let path = format!("/proc/{}/task", self.pid);
        loop {
            let mut running = false;
            for task in fs::read_dir(&path).with_context(|| format!("read {path}"))? {
                // A thread that has gone meanwhile is none that runs.
                let stat = fs::read_to_string(task?.path().join("stat")).unwrap_or_default();
                running |= stat
                    .rsplit(')')
                    .next()
                    .is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" T"));
            }
            if !running {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Sends `signal`: SIGCONT to resume, SIGTERM to ask it to end without waiting.
    ///
    /// # Errors
    ///
    /// When the process has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        ensure!(self.exited()?.is_none(), "{signal}: the process has ended");
        kill(self.pid, signal).with_context(|| format!("send {signal} to {}", self.pid))
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Errors
    ///
    /// When it has not ended by `deadline`; it is killed then.
    pub async fn terminate(&mut self, deadline: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        match self.wait(deadline).await {
            Ok(status) => Ok(status),
            Err(late) => {
                self.kill()?;
                Err(late.context("after SIGTERM"))
            }
        }
    }

    /// Waits for the end.
    ///
    /// # Errors
    ///
    /// With the end of the output, when `deadline` passes first.
    pub async fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let end = Instant::now() + deadline;
        loop {
            if let Some(status) = self.exited()? {
                return Ok(status);
            }
            ensure!(
                Instant::now() < end,
                "the process still runs after {deadline:?}:\n{}",
                tail(&self.output()?)
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// Sends SIGKILL, unless it has ended already, and waits for the end. Its files stay.
    ///
    /// # Errors
    ///
    /// When the signal cannot be sent.
    pub fn kill(&mut self) -> Result<()> {
        if self.exited()?.is_none() {
            kill(self.pid, Signal::SIGKILL).with_context(|| format!("kill {}", self.pid))?;
        }
        // Not `wait`, which closes the pipe first, and so would have the files removed.
        while self.exited()?.is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// How it ended, or nothing while it runs.
    ///
    /// # Errors
    ///
    /// When the operating system does not tell.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.shell.try_wait()?.map(|shell| match shell.code() {
            Some(code) if code > SIGNALLED => ExitStatus::from_raw(code - SIGNALLED),
            _ => shell,
        }))
    }

    /// CPU time spent so far, user and system, in seconds, to a hundredth.
    ///
    /// # Errors
    ///
    /// When the process has ended: measure before.
    pub fn cpu_seconds(&self) -> Result<f64> {
        Ok(self.usage()?.cpu())
    }

    /// How many files, sockets and pipes it has open.
    ///
    /// # Errors
    ///
    /// When the process has ended.
    pub fn open_files(&self) -> Result<usize> {
        let path = format!("/proc/{}/fd", self.pid);
        Ok(fs::read_dir(&path)
            .with_context(|| format!("read {path}"))?
            .count())
    }

    /// The most memory that was ever resident, in bytes.
    ///
    /// # Errors
    ///
    /// When the process has ended: measure before.
    pub fn peak_rss(&self) -> Result<u64> {
        Ok(self.usage()?.peak)
    }

    fn usage(&self) -> Result<Usage> {
        Usage::of(self.pid.as_raw().unsigned_abs())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Closing the pipe is what ends the program.
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
        // The log goes with the test's directory, and may be all that says why.
        if std::thread::panicking() {
            let output = self.output().unwrap_or_default();
            eprintln!("{}:\n{}", self.log.display(), end(&output, 100));
        }
    }
}

/// A shell's exit codes above this tell the signal that ended a program.
const SIGNALLED: i32 = 128;

/// How often a condition is looked at. Short, because tests wait for it; long enough to cost nothing.
pub(crate) const POLL: Duration = Duration::from_millis(10);

/// The end of an output, short enough for an error.
pub(crate) fn tail(output: &str) -> String {
    end(output, 30)
}

fn end(output: &str, lines: usize) -> String {
    let all: Vec<&str> = output.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn shell(script: &str, dir: &Path, scratch: Option<&Path>) -> Process {
        Process::start(
            Path::new("sh"),
            ["-c", script],
            &[("WORD", "word")],
            &dir.join("log"),
            scratch,
        )
        .unwrap()
    }

    const SOON: Duration = Duration::from_secs(10);

    /// Exit codes and fatal signals are told apart.
    #[tokio::test]
    async fn tells_how_the_program_ended() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(
            shell("exit 3", dir.path(), None)
                .wait(SOON)
                .await
                .unwrap()
                .code(),
            Some(3)
        );
        let mut ended = shell("kill -9 $$", dir.path(), None);
        assert_eq!(ended.wait(SOON).await.unwrap().signal(), Some(9));
        let mut asked = shell(
            "trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done",
            dir.path(),
            None,
        );
        asked
            .wait_for_line(SOON, |line| (line == "ready").then_some(()))
            .await
            .unwrap();
        assert_eq!(asked.terminate(SOON).await.unwrap().code(), Some(5));
    }

    /// A second process in the same log does not find the lines of the first, and unfinished lines are not lines.
    #[tokio::test]
    async fn finds_lines_of_its_own_output() {
        let dir = tempfile::tempdir().unwrap();
        shell("echo $WORD 1", dir.path(), None)
            .wait(SOON)
            .await
            .unwrap();
        let mut second = shell("echo $WORD 2; printf 'word 3'", dir.path(), None);
        let number = second
            .wait_for_line(SOON, |line| line.strip_prefix("word ").map(str::to_owned))
            .await;
        assert_eq!(number.unwrap(), "2");
        let third = second
            .wait_for_line(SOON, |line| line.strip_prefix("word 3").map(str::to_owned))
            .await;
        assert!(third.unwrap_err().to_string().contains("ended early"));
    }

    /// Closing the pipe, which is all that the end of the tests does, kills the program, even a stopped one that
    /// ignores signals, and removes its directory.
    #[tokio::test]
    async fn does_not_outlive_the_tests() {
        let dir = tempfile::tempdir().unwrap();
        let scratch = dir.path().join("scratch");
        fs::create_dir(&scratch).unwrap();
        let mut running = shell(
            "trap '' TERM INT HUP; echo ready; exec sleep 600",
            dir.path(),
            Some(&scratch),
        );
        running
            .wait_for_line(SOON, |line| (line == "ready").then_some(()))
            .await
            .unwrap();
        running.pause().unwrap();
        let pid = running.pid;
        drop(running);
        assert!(kill(pid, None).is_err(), "still there");
        assert!(!scratch.exists());
    }

    /// A kill leaves the files, for the restart.
    #[tokio::test]
    async fn kill_keeps_the_files() {
        let dir = tempfile::tempdir().unwrap();
        let mut running = shell("exec sleep 600", dir.path(), Some(dir.path()));
        running.kill().unwrap();
        assert!(running.signal(Signal::SIGTERM).is_err());
        drop(running);
        assert!(dir.path().exists());
    }

    #[tokio::test]
    async fn measures_cpu_and_memory() {
        let dir = tempfile::tempdir().unwrap();
        let mut busy = shell(
            "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo done; while sleep 0.1; do :; done",
            dir.path(),
            None,
        );
        busy.wait_for_line(SOON, |line| (line == "done").then_some(()))
            .await
            .unwrap();
        assert!(busy.cpu_seconds().unwrap() > 0.01);
        assert!(busy.peak_rss().unwrap() > 100_000);
        assert!(busy.open_files().unwrap() >= 3);
    }
}

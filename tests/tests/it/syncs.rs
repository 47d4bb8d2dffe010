//! What the shipped binary asks of the operating system, seen from outside: a library that is loaded before the system's
//! own notes each `write`, `fsync` and `fdatasync`. What the disk does with them is simulated elsewhere; here it is seen
//! that they are made at all.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rtm_sim::SimApp;
use rtm_tests::bridge::Bridge;
use rtm_tests::wait_for;

use super::simulated::{self, load};

/// Notes a call once it has succeeded, as a line of its name and of the file's path.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static void note(const char *call, int fd) {
    const char *log = getenv("RTM_CALLS"), *dir = getenv("RTM_CALLS_BELOW");
    char name[64], path[2048], line[2200];
    int before = errno;
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(name, path, sizeof path - 1);
    if (log && dir && length > 0) {
        path[length] = 0;
        if (strncmp(path, dir, strlen(dir)) == 0) {
            int out = open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
            int bytes = snprintf(line, sizeof line, "%s %s\n", call, path);
            syscall(SYS_write, out, line, (size_t)bytes);
            close(out);
        }
    }
    errno = before;
}

int fsync(int fd) {
    int done = (int)syscall(SYS_fsync, fd);
    if (done == 0) note("fsync", fd);
    return done;
}

int fdatasync(int fd) {
    int done = (int)syscall(SYS_fdatasync, fd);
    if (done == 0) note("fdatasync", fd);
    return done;
}

ssize_t write(int fd, const void *bytes, size_t count) {
    ssize_t done = syscall(SYS_write, fd, bytes, count);
    if (done > 0) note("write", fd);
    return done;
}
"#;

/// Holds: the binary syncs what it writes, in the journal and in the file of a sink, before it writes on there: each
/// segment's data and the directory that has its name, the directory that has the journal's, the sink's file and its
/// directory.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_is_synced() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().canonicalize().unwrap();
    let shim = compile(&dir);
    let data = dir.join("data");
    fs::create_dir_all(data.join("out")).unwrap();
    let calls = dir.join("calls");
    let app_id = SimApp::default().app_id;
    let simulator = simulated::of(&[&app_id], &["a"], load(200.0)).await;
    let file = dir.join("rtm-bridge.toml");
    let text = format!(
        "[admin]\nlisten = \"127.0.0.1:0\"\n[journal]\ndir = \"{data}/journal\"\n\
         [[apps]]\nname = \"main\"\napp_id = \"{app_id}\"\n\
         auth = {{ basic = {{ key = \"demo-key\", secret = \"demo-secret\" }} }}\n\
         regions = [{{ name = \"a\", base_url = \"{url}\" }}]\n[sinks.file]\npath = \"{data}/out/events.jsonl\"\n",
        data = data.display(),
        url = simulator.base_url("a"),
    );
    fs::write(&file, text).unwrap();
    let below = format!("{}/", data.display());
    let env = [
        ("LD_PRELOAD", shim.as_str()),
        ("RTM_CALLS", calls.to_str().unwrap()),
        // With the directory itself, whose path has no slash at its end.
        ("RTM_CALLS_BELOW", below.trim_end_matches('/')),
    ];
    let mut bridge = Bridge::start(&file, &env, &dir.join("log")).await.unwrap();
    let confirmed = async || {
        let metrics = bridge.metrics().await;
        metrics.is_ok_and(|metrics| {
            let confirmed = metrics.sum("rtm_bridge_records_confirmed_total", &[]);
            confirmed.is_ok_and(|confirmed| confirmed > 200.0)
        })
    };
    wait_for("confirmed records", Duration::from_secs(60), confirmed)
        .await
        .unwrap();
    let ended = bridge.process.terminate(Duration::from_secs(60)).await;
    assert!(
        ended.unwrap().success(),
        "{}",
        bridge.process.output().unwrap()
    );

    let text = fs::read_to_string(&calls).unwrap();
    let calls: Vec<(&str, &str)> = text
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(call, path)| {
            (
                call,
                path.strip_prefix(below.trim_end_matches('/')).unwrap(),
            )
        })
        .collect();
    let journal: Vec<(&str, &str)> = calls
        .iter()
        .filter(|(_, path)| path.ends_with(".segment") || *path == "/journal")
        .copied()
        .collect();
    let mut segments: Vec<&str> = Vec::new();
    let mut writes = 0;
    for (at, (call, path)) in journal.iter().enumerate() {
        if *call != "write" {
            continue;
        }
        writes += 1;
        // A large write may take several calls.
        let mut after = journal[at..]
            .iter()
            .skip_while(|other| **other == ("write", *path));
        assert_eq!(after.next(), Some(&("fdatasync", *path)), "{text}");
        if !segments.contains(path) {
            segments.push(path);
            assert_eq!(after.next(), Some(&("fsync", "/journal")), "{text}");
        }
    }
    assert!(writes > 3 && !segments.is_empty(), "{text}");
    let position = |wanted: (&str, &str)| calls.iter().position(|call| *call == wanted);
    let first = position(("write", segments[0])).unwrap();
    let made = position(("fsync", "")).expect(&text);
    assert!(made < first, "the journal's own name: {text}");

    let sink = "/out/events.jsonl";
    let mut out: Vec<&str> = calls
        .iter()
        .filter(|(_, path)| *path == sink)
        .map(|(call, _)| *call)
        .collect();
    // A large write may take several calls.
    out.dedup();
    let pair = ["write", "fdatasync"];
    assert!(out.chunks(2).all(|calls| calls == pair), "{text}");
    assert!(!out.is_empty());
    let named = position(("fsync", "/out")).expect(&text);
    assert!(named < position(("write", sink)).unwrap(), "{text}");
}

/// Compiles the library, and says where it is.
fn compile(dir: &Path) -> String {
    let (source, shim) = (dir.join("calls.c"), dir.join("calls.so"));
    fs::write(&source, SHIM).unwrap();
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-w", "-o"])
        .args([&shim, &source])
        .status();
    assert!(compiled.unwrap().success());
    shim.to_str().unwrap().to_owned()
}

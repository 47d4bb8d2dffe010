//! What stands beside the data path cannot stop it: the log, standard output, the admin endpoint and who connects to it.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs::File as Fd;
use std::io::{BufRead, BufReader, PipeReader, Read, pipe};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rtm_bridge::read_back::Reading;
use rtm_bridge::sinks;
use rtm_sim::{SimApp, Simulator};
use rtm_tests::bridge::{Bridge, Metrics, http_client};
use rtm_tests::idle::Idle;
use rtm_tests::process::Process;
use rtm_tests::{binary, wait_for};
use rustix::fs::{OFlags, fcntl_setfl};
use serde_json::Value;

use super::reload::{File, take};
use super::simulated::simulator;

const SOON: Duration = Duration::from_secs(40);
const CONFIRMED: &str = "rtm_bridge_records_confirmed_total";
const DROPPED: &str = "rtm_bridge_log_lines_dropped_total";

/// A configuration with a file for a sink, one region `a`, and more regions and tables.
fn text(simulator: &Simulator, dir: &Path, regions: &str, more: &str) -> String {
    format!(
        "{more}\n[journal]\ndir = \"{dir}/journal\"\n[sinks.file]\npath = \"{dir}/events.jsonl\"\n\
         [[apps]]\nname = \"main\"\napp_id = \"{app_id}\"\n\
         auth = {{ basic = {{ key = \"demo-key\", secret = \"demo-secret\" }} }}\n\
         regions = [{{ name = \"a\", base_url = \"{a}\" }}{regions}]\n",
        dir = dir.display(),
        app_id = SimApp::default().app_id,
        a = simulator.base_url("a"),
    )
}

const ANY_PORT: &str = "[admin]\nlisten = \"127.0.0.1:0\"\n";

/// A bridge whose output the test reads, or does not. It ends with the test.
struct Piped(Child);

impl Piped {
    fn start(dir: &Path, config: &str, configure: impl FnOnce(&mut Command)) -> Piped {
        let file = dir.join("rtm-bridge.toml");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new(binary::rtm_bridge().unwrap());
        command.args(["run", "--config"]).arg(&file);
        command.stdin(Stdio::null()).env_remove("RUST_LOG");
        configure(&mut command);
        Piped(command.spawn().unwrap())
    }

    /// Asks it to end, and gives its exit code.
    async fn terminate(mut self) -> Option<i32> {
        kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM).unwrap();
        let mut code = None;
        wait_for("the end", SOON, async || {
            code = self.0.try_wait().unwrap();
            code.is_some()
        })
        .await
        .unwrap();
        code.unwrap().code()
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The admin address in a log, from its beginning; the reader may go on with what follows.
fn admin_of(log: &mut BufReader<impl Read>) -> String {
    let mut seen = String::new();
    loop {
        let mut line = String::new();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "it ended: {seen}");
        if let Some((_, address)) = line.split_once("is listening admin=") {
            let address = address.split(' ').next().unwrap();
            return format!("http://{}", address.trim());
        }
        seen += &line;
    }
}

async fn metrics(admin: &str) -> Option<Metrics> {
    let url = format!("{admin}/metrics");
    let answer = http_client().unwrap().get(url).send().await.ok()?;
    Metrics::parse(&answer.text().await.ok()?).ok()
}

async fn document(admin: &str, path: &str) -> (u16, Value) {
    let url = format!("{admin}{path}");
    let answer = http_client().unwrap().get(url).send().await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap())
}

async fn until(admin: &str, what: &str, holds: impl Fn(&Metrics) -> bool) {
    let look = async || metrics(admin).await.is_some_and(|found| holds(&found));
    wait_for(what, SOON, look).await.unwrap();
}

fn of(metrics: &Metrics, name: &str, sink: &str) -> f64 {
    metrics.sum(name, &[("sink", sink)]).unwrap()
}

/// Waits until the file sink has confirmed more than it has now.
async fn goes_on(admin: &str) {
    let mut now = 0.0;
    wait_for("metrics", SOON, async || {
        let found = metrics(admin).await;
        found
            .inspect(|found| now = of(found, CONFIRMED, "file"))
            .is_some()
    })
    .await
    .unwrap();
    let more = |metrics: &Metrics| of(metrics, CONFIRMED, "file") > now + 100.0;
    until(admin, "the file sink to go on", more).await;
}

/// A bridge whose log nobody has read since its admin endpoint was there, with what was not read; it dropped lines.
async fn with_a_stalled_log(
    dir: &Path,
    simulator: &Simulator,
) -> (Piped, String, BufReader<PipeReader>) {
    let (log, stderr) = pipe().unwrap();
    let config = text(simulator, dir, "", ANY_PORT);
    let bridge = Piped::start(dir, &config, |command| {
        command
            .env("RUST_LOG", "trace")
            .stdout(Stdio::null())
            .stderr(stderr);
    });
    let mut log = BufReader::new(log);
    let admin = admin_of(&mut log);
    let dropped = async || {
        metrics(&admin)
            .await
            .is_some_and(|found| found.get(DROPPED) > Some(0.0))
    };
    wait_for("lines to be dropped", 3 * SOON, dropped)
        .await
        .unwrap();
    (bridge, admin, log)
}

/// Holds: while nobody reads standard error events flow, the metrics answer, what does not fit is counted, and a SIGTERM ends
/// the bridge.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let simulator = simulator(500.0).await;
    let (bridge, admin, log) = with_a_stalled_log(dir.path(), &simulator).await;
    goes_on(&admin).await;
    let began = Instant::now();
    assert_eq!(bridge.terminate().await, Some(0));
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "{:?}",
        began.elapsed()
    );
    drop(log);
}

/// Holds: a log that is read again says how many of its lines were dropped.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_read_again_says_what_it_lacks() {
    let dir = tempfile::tempdir().unwrap();
    let simulator = simulator(500.0).await;
    let (bridge, _, log) = with_a_stalled_log(dir.path(), &simulator).await;
    let (tx, rx) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in log.lines().map_while(Result::ok) {
            if line.contains("lines of the log were dropped") {
                let _ = tx.send(line);
            }
        }
    });
    let mut told = String::new();
    wait_for("a word about it", SOON, async || {
        told = rx.try_recv().unwrap_or_default();
        !told.is_empty()
    })
    .await
    .unwrap();
    assert!(told.contains(" lines="), "{told}");
    assert_eq!(bridge.terminate().await, Some(0));
}

/// The lines of standard output, until it ends.
fn read_lines(stdout: PipeReader) -> std::thread::JoinHandle<Vec<String>> {
    std::thread::spawn(move || BufReader::new(stdout).lines().map(Result::unwrap).collect())
}

/// Holds: while nobody reads standard output, which does not block, the other sink goes on and readiness says why this one
/// does not; then each record stands there once and whole.
#[tokio::test(flavor = "multi_thread")]
async fn standard_output_that_nobody_reads_stops_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let simulator = simulator(1000.0).await;
    let (out, stdout) = pipe().unwrap();
    let (log, stderr) = pipe().unwrap();
    fcntl_setfl(&stdout, OFlags::NONBLOCK).unwrap();
    let config = text(&simulator, dir.path(), "", ANY_PORT) + "[sinks.stdout]\n";
    let bridge = Piped::start(dir.path(), &config, |command| {
        command.stdout(stdout).stderr(stderr);
    });
    let admin = admin_of(&mut BufReader::new(log.try_clone().unwrap()));
    let mut why = String::new();
    wait_for("a reason", SOON, async || {
        let (status, document) = document(&admin, "/readyz").await;
        why = document.to_string();
        status == 503 && why.contains("standard output has taken nothing for")
    })
    .await
    .unwrap_or_else(|error| panic!("{error}: {why}"));
    goes_on(&admin).await;
    simulator.stop_generating();
    let lines = read_lines(out);
    let rest = |metrics: &Metrics| {
        let [file, stdout] = ["file", "stdout"].map(|sink| of(metrics, CONFIRMED, sink));
        let pending = of(metrics, "rtm_bridge_journal_pending_events", "stdout");
        file == stdout && file > 0.0 && pending == 0.0
    };
    until(&admin, "standard output to catch up", rest).await;
    // A clean end, so that what was under way is in both.
    assert_eq!(bridge.terminate().await, Some(0));
    let written = std::fs::read_to_string(dir.path().join("events.jsonl")).unwrap();
    let written: Vec<&str> = written.lines().collect();
    let got = lines.join().unwrap();
    assert_eq!(
        got.len(),
        written.len(),
        "a record stands there twice, or not at all"
    );
    let got: BTreeSet<&str> = got.iter().map(String::as_str).collect();
    assert_eq!(got, written.into_iter().collect());
    drop(log);
}

/// Holds: with 200 descriptors, 300 clients that ask nothing and a sink that takes nothing for a while, readiness and metrics
/// answer, nothing is dropped, and all is delivered. The trial `clients` does so for longer, with brokers.
#[tokio::test(flavor = "multi_thread")]
async fn idle_clients_take_nothing_away() {
    let dir = tempfile::tempdir().unwrap();
    let simulator = simulator(1000.0).await;
    let (out, stdout) = pipe().unwrap();
    let (log, stderr) = pipe().unwrap();
    let config = text(&simulator, dir.path(), "", ANY_PORT) + "[sinks.stdout]\n";
    let file = dir.path().join("rtm-bridge.toml");
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 200; exec \"$@\"", "sh"]);
    command.arg(binary::rtm_bridge().unwrap());
    command
        .args(["run", "--config"])
        .arg(&file)
        .env_remove("RUST_LOG");
    command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
    let bridge = Piped(command.spawn().unwrap());
    drop(command);
    let admin = admin_of(&mut BufReader::new(log.try_clone().unwrap()));
    let descriptors = format!("/proc/{}/fd", bridge.0.id());
    let open = || std::fs::read_dir(&descriptors).unwrap().count();
    goes_on(&admin).await;
    let idle = Idle::start(&admin, 300);
    let began = Instant::now();
    let (mut most, mut answers) = (0, 0);
    while began.elapsed() < Duration::from_secs(12) {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let asked = Instant::now();
        let (status, said) = document(&admin, "/readyz").await;
        assert!([200, 503].contains(&status), "{status}: {said}");
        let took = asked.elapsed();
        assert!(took < SOON, "readiness answers after {took:?}");
        most = most.max(open());
        answers += 1;
    }
    assert!(
        answers >= 3 && most < 150,
        "{answers} answers, {most} descriptors"
    );
    let lines = read_lines(out);
    simulator.stop_generating();
    let rest = |metrics: &Metrics| {
        let pending = metrics
            .sum("rtm_bridge_journal_pending_events", &[])
            .unwrap();
        let confirmed = |sink| of(metrics, CONFIRMED, sink);
        pending == 0.0 && confirmed("file") == confirmed("stdout")
    };
    until(&admin, "all to be delivered", rest).await;
    let last = metrics(&admin).await.unwrap();
    for name in [
        "rtm_bridge_records_dropped_total",
        "rtm_bridge_journal_damaged_entries_total",
    ] {
        assert_eq!(last.sum(name, &[]).unwrap(), 0.0, "{name}");
    }
    drop(idle);
    assert_eq!(bridge.terminate().await, Some(0));
    let ledger = simulator.ledger();
    let mut reading = Reading::new(&ledger);
    let path = dir.path().join("events.jsonl");
    sinks::file::read_back(&path, |stored| reading.observe(stored)).unwrap();
    let findings = reading.finish("file").findings;
    assert!(findings.nothing_missing(), "{findings:?}");
    let written = std::fs::read_to_string(path).unwrap().lines().count();
    assert_eq!(lines.join().unwrap().len(), written);
    drop(log);
}

/// Holds: an admin address that is taken delays nothing: events flow, the log says it, and the endpoint is there once the
/// address is free.
#[tokio::test(flavor = "multi_thread")]
async fn a_taken_admin_address_delays_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let simulator = simulator(500.0).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = format!("[admin]\nlisten = \"{}\"\n", taken.local_addr().unwrap());
    let file = dir.path().join("rtm-bridge.toml");
    std::fs::write(&file, text(&simulator, dir.path(), "", &admin)).unwrap();
    let arguments = ["run".as_ref(), "--config".as_ref(), file.as_os_str()];
    let log = dir.path().join("log");
    let program = binary::rtm_bridge().unwrap();
    let mut process = Process::start(&program, arguments, &[], &log, None).unwrap();
    let is = |text: &'static str| move |line: &str| line.contains(text).then_some(());
    process
        .wait_for_line(SOON, is("there is no admin endpoint"))
        .await
        .unwrap();
    process
        .wait_for_line(SOON, is("the bridge runs"))
        .await
        .unwrap();
    let events = dir.path().join("events.jsonl");
    wait_for("events", SOON, async || {
        Fd::open(&events).is_ok_and(|file| file.metadata().unwrap().len() > 10_000)
    })
    .await
    .unwrap();
    drop(taken);
    process
        .wait_for_line(SOON, is("admin endpoint is listening"))
        .await
        .unwrap();
    assert!(process.terminate(SOON).await.unwrap().success());
}

/// A ring that takes requests, and never answers one.
fn silent() -> (std::net::TcpListener, String) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

/// Holds: rings that come with a reload, of a region and of an App ID, have their time to answer: the bridge stays ready
/// meanwhile, and says that their polling begins, and not that it has failed since the bridge started. At the start the
/// bridge is not ready before each ring has answered.
#[tokio::test(flavor = "multi_thread")]
async fn a_ring_that_comes_later_has_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let simulator = simulator(50.0).await;
    let (_listener, url) = silent();
    let mut file = File::new(dir.path());
    let first = text(&simulator, dir.path(), "", ANY_PORT);
    file.write(&first);
    let mut bridge = Bridge::start(&file.path, &[], &dir.path().join("log"))
        .await
        .unwrap();
    let ready = async || bridge.ready().await.is_ok_and(|ready| ready.is_ok());
    wait_for("readiness", SOON, ready).await.unwrap();
    let region = format!(", {{ name = \"later\", base_url = \"{url}/r\" }}");
    let app = format!(
        "[[apps]]\nname = \"second\"\napp_id = \"{:032x}\"\n\
         auth = {{ basic = {{ key = \"k\", secret = \"s\" }} }}\n\
         regions = [{{ name = \"later\", base_url = \"{url}/s\" }}]\n",
        7
    );
    let more = text(&simulator, dir.path(), &region, ANY_PORT) + &app;
    take(&mut bridge, &mut file, &more).await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(8) {
        assert_eq!(
            bridge.ready().await.unwrap(),
            Ok(()),
            "{:?}",
            began.elapsed()
        );
        let (_, status) = document(&bridge.admin, "/status.json").await;
        let findings = status["findings"].to_string();
        assert!(!findings.contains("has not succeeded"), "{findings}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let (_, status) = document(&bridge.admin, "/status.json").await;
    let said = status["findings"].to_string();
    assert!(said.contains("Polling begins: 4 of 6 rings"), "{said}");
    // Started with them, it waits for them.
    bridge.process.kill().unwrap();
    let bridge = Bridge::start(&file.path, &[], &dir.path().join("log"))
        .await
        .unwrap();
    let why = bridge.ready().await.unwrap().unwrap_err();
    assert!(
        why.contains("not polled yet") || why.contains("starting"),
        "{why}"
    );
}

/// Holds: a configuration that was refused is told by the status document, by readiness, which stays, and by `top`, with what
/// is wrong; a good one ends that.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_configuration_is_told_until_another_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let simulator = simulator(50.0).await;
    let mut file = File::new(dir.path());
    let good = text(&simulator, dir.path(), "", ANY_PORT);
    file.write(&good);
    let mut bridge = Bridge::start(&file.path, &[], &dir.path().join("log"))
        .await
        .unwrap();
    let ready = async || bridge.ready().await.is_ok_and(|ready| ready.is_ok());
    wait_for("readiness", SOON, ready).await.unwrap();
    file.write(
        &good
            .replace("shutdown", "x")
            .replace("[journal]", "[journl]"),
    );
    bridge.process.signal(Signal::SIGHUP).unwrap();
    let mut finding = String::new();
    wait_for("a finding", SOON, async || {
        let (_, status) = document(&bridge.admin, "/status.json").await;
        finding = status["findings"].to_string();
        finding.contains("The configuration was refused since")
    })
    .await
    .unwrap_or_else(|error| panic!("{error}: {finding}"));
    assert!(finding.contains("journl"), "{finding}");
    let (status, ready) = document(&bridge.admin, "/readyz").await;
    assert_eq!(status, 200, "{ready}");
    assert!(
        ready["config_refused"][0]
            .as_str()
            .unwrap()
            .contains("journl"),
        "{ready}"
    );
    let mut top = Command::new(binary::rtm_bridge().unwrap());
    let top = top
        .args(["top", "--once", "--url", &bridge.admin])
        .output()
        .unwrap();
    let shown = String::from_utf8(top.stdout).unwrap();
    assert!(shown.contains("The configuration was refused"), "{shown}");
    take(&mut bridge, &mut file, &good).await;
    let (_, status) = document(&bridge.admin, "/status.json").await;
    let after = status["findings"].to_string();
    assert!(!after.contains("refused"), "{after}");
    let (_, ready) = document(&bridge.admin, "/readyz").await;
    assert_eq!(ready["config_refused"], Value::Null);
}

/// A certificate of its own for this machine, with its key.
fn certificate(dir: &Path) {
    let names = ["localhost", "127.0.0.1"].map(str::to_owned);
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    std::fs::write(dir.join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
}

/// Holds: with a token and TLS the endpoint answers who has the token and trusts the certificate; `top` takes both from the
/// configuration, or by its flags; both are renewed without a restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_and_tls_are_asked_for_and_renewed() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    certificate(dir.path());
    std::fs::write(path("token"), "first\n").unwrap();
    let simulator = simulator(50.0).await;
    let admin = format!(
        "[admin]\nlisten = \"localhost:0\"\ntoken_file = \"{}\"\n\
         tls = {{ cert_file = \"{}\", key_file = \"{}\" }}\n",
        path("token"),
        path("cert.pem"),
        path("key.pem"),
    );
    let file = path("rtm-bridge.toml");
    std::fs::write(&file, text(&simulator, dir.path(), "", &admin)).unwrap();
    let bridge = Bridge::start(file.as_ref(), &[], &dir.path().join("log"))
        .await
        .unwrap();
    let url = bridge.admin.replace("http://", "https://");
    let ask = async |token: &str, path: &str| {
        let ca = dir.path().join("cert.pem");
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(rtm_source::client_tls(Some(&ca)).unwrap())
            .timeout(SOON)
            .build()
            .unwrap();
        let asked = client.get(format!("{url}{path}")).bearer_auth(token);
        let asked = asked.header("accept-encoding", "gzip").send().await;
        asked.map(|answer| {
            let zipped = answer.headers().get("content-encoding").cloned();
            (
                answer.status().as_u16(),
                zipped.map(|value| value.to_str().unwrap().to_owned()),
            )
        })
    };
    // Until the bridge runs it answers with 503.
    wait_for("the metrics", SOON, async || {
        let zipped = (200, Some("gzip".to_owned()));
        ask("first", "/metrics")
            .await
            .is_ok_and(|got| got == zipped)
    })
    .await
    .unwrap();
    assert_eq!(ask("wrong", "/metrics").await.unwrap().0, 401);
    assert_eq!(ask("wrong", "/healthz").await.unwrap().0, 200);
    let top = |arguments: &[&str]| {
        let mut top = Command::new(binary::rtm_bridge().unwrap());
        let top = top
            .args(["top", "--once"])
            .args(arguments)
            .output()
            .unwrap();
        String::from_utf8([top.stdout, top.stderr].concat()).unwrap()
    };
    let by_flags = |token: &str| {
        let (token, ca) = (path(token), path("cert.pem"));
        top(&["--url", &url, "--token-file", &token, "--ca-file", &ca])
    };
    let shown = by_flags("token");
    assert!(shown.contains("main"), "{shown}");
    let shown = top(&["--url", &url, "--ca-file", &path("cert.pem")]);
    assert!(shown.contains("--token-file"), "{shown}");

    let old = dir.path().join("old");
    std::fs::create_dir(&old).unwrap();
    std::fs::copy(path("token"), old.join("token")).unwrap();
    certificate(dir.path());
    std::fs::write(path("token"), "second\n").unwrap();
    wait_for("the new token and certificate", SOON, async || {
        ask("second", "/readyz")
            .await
            .is_ok_and(|(status, _)| status != 401)
    })
    .await
    .unwrap();
    let refused = by_flags("old/token");
    assert!(refused.contains("refuses the token"), "{refused}");

    // What the configuration says of its own endpoint `top` knows.
    let port = url.rsplit(':').next().unwrap();
    let config = std::fs::read_to_string(&file)
        .unwrap()
        .replace("localhost:0", &format!("localhost:{port}"));
    let other = path("top.toml");
    std::fs::write(&other, config).unwrap();
    let shown = top(&["--config", &other]);
    assert!(shown.contains("main"), "{shown}");
}

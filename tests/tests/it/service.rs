//! The bridge as a service: what systemd is told, and how it ends when it is asked twice.
#![allow(clippy::unwrap_used)]

use std::io::Read;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::signal::Signal;
use rtm_tests::bridge::{Bridge, Simulator};
use rtm_tests::monitoring::{installed, text};
use rtm_tests::wait_for;

const SOON: Duration = Duration::from_secs(30);

/// A configuration with one region at `url`, published to a file.
fn config(dir: &Path, url: &str) -> PathBuf {
    let file = dir.join("rtm-bridge.toml");
    let dir = dir.display();
    let text = format!(
        r#"
[admin]
listen = "127.0.0.1:0"
[journal]
dir = "{dir}/journal"
[[apps]]
name = "main"
app_id = "876922cbca0098dff4323566daa89675"
auth = {{ basic = {{ key = "demo-key", secret = "demo-secret" }} }}
requests_per_second = 11
regions = [{{ name = "eu-west-1", base_url = "{url}" }}]
[sinks.file]
path = "{dir}/out.jsonl"
"#
    );
    std::fs::write(&file, text).unwrap();
    file
}

/// Everything that has been told so far, datagram by datagram.
fn told(socket: &UnixDatagram, so_far: &mut Vec<String>) {
    let mut buffer = [0; 4096];
    while let Ok(length) = socket.recv(&mut buffer) {
        so_far.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
    }
}

async fn tells(socket: &UnixDatagram, name: &str, of: &str) {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let arguments = ["--region", "eu-west-1", "--rate", "50"];
    let simulator = Simulator::start(&arguments, &dir.path().join("sim")).await;
    let simulator = simulator.unwrap();
    let file = config(dir.path(), &format!("{}/eu-west-1", simulator.url));
    socket.set_nonblocking(true).unwrap();
    let mut all = Vec::new();
    let env = [("NOTIFY_SOCKET", name), ("WATCHDOG_USEC", "400000")];
    let mut bridge = Bridge::start(&file, &env, &log).await.unwrap();
    let watchdog = |all: &[String]| {
        all.iter()
            .filter(|text| text.contains("WATCHDOG=1"))
            .count()
    };
    wait_for("READY=1 and signs of life", SOON, async || {
        told(socket, &mut all);
        all.iter().any(|text| text == "READY=1") && watchdog(&all) > 3
    })
    .await
    .unwrap_or_else(|error| panic!("{of}: {error}: {all:?}"));
    let status = all.iter().find_map(|text| text.strip_prefix("STATUS="));
    let status = status.unwrap().lines().next().unwrap();
    assert!(status.starts_with("polling 2 rings; "), "{status}");
    assert!(status.ends_with("; file up"), "{status}");
    bridge.process.signal(Signal::SIGHUP).unwrap();
    let is_ready = |text: &&String| *text == "READY=1";
    wait_for("the end of a reload", SOON, async || {
        told(socket, &mut all);
        all.iter().filter(is_ready).count() == 2
    })
    .await
    .unwrap();
    // Nothing has changed, and no warning is new.
    let log = bridge.process.output().unwrap();
    let (before, after) = log.split_once("SIGHUP").unwrap();
    let warning = "is more than the 10 that Agora allows";
    assert!(
        before.contains(warning) && !after.contains(warning),
        "{log}"
    );
    let taken = r#"the configuration was taken changed="nothing""#;
    assert!(after.contains(taken), "{log}");
    let reloading = |text: &String| text.starts_with("RELOADING=1\nMONOTONIC_USEC=");
    let reloading = all.iter().position(reloading);
    let ready = all.iter().rposition(|text| text == "READY=1");
    assert!(reloading.is_some() && reloading < ready, "{all:?}");
    let ended = bridge.process.terminate(SOON).await.unwrap();
    assert_eq!(ended.code(), Some(0));
    told(socket, &mut all);
    let stopping = all.iter().position(|text| text.starts_with("STOPPING=1"));
    assert!(ready < stopping, "{all:?}");
}

/// Holds: systemd hears that the bridge runs, what it does in one line, that it lives, reloads and stops; through a
/// socket with a path and through an abstract one.
#[tokio::test(flavor = "multi_thread")]
async fn the_service_manager_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    tells(&socket, path.to_str().unwrap(), "a path").await;
    let name = format!("rtm-bridge-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let socket = UnixDatagram::bind_addr(&address).unwrap();
    tells(&socket, &format!("@{name}"), "an abstract name").await;
}

/// Holds: the unit runs and reloads with every systemd. One before 253 ignores a `Type=` that it does not know, and goes on
/// with `Type=simple`, which hears nothing and reloads nothing. What later ones can do more is a drop-in, where systemd
/// itself sends the signal. This machine's `systemd-analyze` ignores nothing in the unit.
#[test]
fn the_unit_is_for_every_systemd() {
    let lines = |name: &str| -> Vec<String> {
        let text = text(name).unwrap();
        text.lines().map(str::to_owned).collect()
    };
    let has = |lines: &[String], line: &str| lines.iter().any(|found| found == line);
    let unit = lines("deploy/rtm-bridge.service");
    assert!(has(&unit, "Type=notify"));
    assert!(has(&unit, "ExecReload=/bin/kill -HUP $MAINPID"));
    let more = lines("deploy/rtm-bridge.service.d/notify-reload.conf");
    assert!(has(&more, "Type=notify-reload"));
    assert!(
        has(&more, "ExecReload="),
        "a reload would be signalled twice"
    );
    let dir = tempfile::tempdir().unwrap();
    let here = dir.path().join("rtm-bridge.service");
    let program = "ExecStart=/usr/local/bin/rtm-bridge ";
    let unit = unit.join("\n").replace(program, "ExecStart=/bin/true ");
    std::fs::write(&here, unit).unwrap();
    let mut verify = installed("systemd-analyze", "systemd").unwrap();
    let verified = verify.arg("verify").arg(&here).output().unwrap();
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(!said.contains("ignoring"), "{said}");
}

/// Takes requests, and never answers one. Says when one has come.
fn silent() -> (String, mpsc::Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (tx, rx) = mpsc::channel();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let (mut connection, tx) = (connection.unwrap(), tx.clone());
            std::thread::spawn(move || {
                // Connections are opened early with another method.
                let mut method = [0; 3];
                if connection.read_exact(&mut method).is_ok() && method == *b"GET" {
                    let _ = tx.send(());
                    let _ = connection.read_to_end(&mut Vec::new());
                }
            });
        }
    });
    (url, rx)
}

/// Holds: the first SIGTERM waits for what is in flight, the second ends the process at once, with the signal's exit code
/// and a word about it; the next start recovers, and counts what was in flight. What the configuration may have
/// wrong is in the log.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let (url, asked) = silent();
    let file = config(dir.path(), &url);
    for second in [Signal::SIGTERM, Signal::SIGINT] {
        let mut bridge = Bridge::start(&file, &[], &log).await.unwrap();
        let output = bridge.process.output().unwrap();
        assert!(
            output.contains("more than the 10 that Agora allows"),
            "{output}"
        );
        while asked.try_recv().is_ok() {}
        asked.recv_timeout(SOON).unwrap();
        let line = |text: &'static str| move |line: &str| line.contains(text).then_some(());
        bridge
            .process
            .wait_for_line(SOON, line("the bridge runs"))
            .await
            .unwrap();
        bridge.process.signal(Signal::SIGTERM).unwrap();
        let said = line("waiting for those in flight");
        bridge.process.wait_for_line(SOON, said).await.unwrap();
        bridge.process.signal(second).unwrap();
        let ended = bridge.process.wait(Duration::from_secs(5)).await.unwrap();
        // The exit code is 128 more, which is told as the signal.
        assert_eq!(ended.signal(), Some(second as i32));
        let output = bridge.process.output().unwrap();
        assert!(output.contains("a second signal"), "{output}");
    }
    let bridge = Bridge::start(&file, &[], &log).await.unwrap();
    wait_for("the count of what was in flight", SOON, async || {
        let metrics = bridge.metrics().await;
        let lost = metrics.and_then(|metrics| {
            metrics.sum(
                "rtm_bridge_events_possibly_lost_total",
                &[("reason", "crash")],
            )
        });
        lost.is_ok_and(|lost| lost >= 4_000.0)
    })
    .await
    .unwrap();
}

/// Holds: a Kafka that is away delays neither the first poll, though its topics are to be created, nor the end: nobody
/// waits out the deadline for a sink that takes nothing, and what it did not take is in the journal.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_broker_delays_neither_start_nor_end() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = ["--region", "eu-west-1", "--rate", "50"];
    let simulator = Simulator::start(&arguments, &dir.path().join("sim")).await;
    let simulator = simulator.unwrap();
    let file = config(dir.path(), &format!("{}/eu-west-1", simulator.url));
    let text = std::fs::read_to_string(&file).unwrap();
    // Nobody listens on a port that was just given back.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
    let port = port.unwrap().port();
    let text = format!(
        "shutdown_deadline = \"600s\"\n{text}[sinks.kafka]\nbrokers = [\"127.0.0.1:{port}\"]\n\
         topic = \"a\"\ndead_letter_topic = \"b\"\ncreate = true\n\
         [sinks.other]\ntype = \"kafka\"\nbrokers = [\"127.0.0.1:{port}\"]\n"
    );
    std::fs::write(&file, text).unwrap();
    let log = dir.path().join("log");
    let mut bridge = Bridge::start(&file, &[], &log).await.unwrap();
    let metric = async |bridge: &Bridge, name: &str, labels: &[(&str, &str)]| {
        let metrics = bridge.metrics().await;
        metrics.and_then(|metrics| metrics.sum(name, labels))
    };
    wait_for("events", SOON, async || {
        let fetched = metric(&bridge, "rtm_bridge_events_fetched_total", &[]).await;
        fetched.is_ok_and(|fetched| fetched > 0.0)
    })
    .await
    .unwrap();
    let said = bridge.process.output().unwrap();
    assert!(!said.contains("cannot create the topics"), "{said}");
    wait_for("the sink to be down", SOON, async || {
        let up = metric(&bridge, "rtm_bridge_sink_up", &[("sink", "kafka")]).await;
        up.is_ok_and(|up| up == 0.0)
    })
    .await
    .unwrap();
    // Why it is down is told where people look: librdkafka says it, and the call itself says nothing.
    let why = "Connection refused";
    wait_for("the reason in /readyz", SOON, async || {
        let ready = bridge.ready().await;
        ready.is_ok_and(|ready| {
            ready.is_err_and(|said| said.contains("other") && said.contains(why))
        })
    })
    .await
    .unwrap();
    // The first sink, whose topics cannot be created, may say the same at the same moment.
    let waits = |said: &str| -> Option<String> {
        let mut lines = said.lines();
        let silence = "a batch waits for its confirmation";
        let found = lines.find(|line| line.contains(silence) && line.contains("sink=\"other\""));
        found.map(str::to_owned)
    };
    wait_for("a line in the log", SOON, async || {
        let said = bridge.process.output();
        said.is_ok_and(|said| waits(&said).is_some())
    })
    .await
    .unwrap();
    assert!(bridge.process.terminate(SOON).await.unwrap().success());
    let said = bridge.process.output().unwrap();
    assert!(
        waits(&said).is_some_and(|line| line.contains(why)),
        "{said}"
    );
    assert!(said.contains("all_published=false"), "{said}");
    assert!(said.contains("the sink takes nothing"), "{said}");
}

//! What a configuration names that is missing for a while: the real binary, and the simulator.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use rtm_tests::bridge::Bridge;
use rtm_tests::process::Process;
use rtm_tests::wait_for;

use super::reload::{File, take};
use super::simulated::{self, load};

const SOON: Duration = Duration::from_secs(60);

async fn lines(file: &Path, more_than: usize) {
    let look = async || {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.lines().count() > more_than
    };
    let what = format!("more than {more_than} lines in {}", file.display());
    wait_for(&what, SOON, look).await.unwrap();
}

fn fifo(path: &Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status();
    assert!(made.unwrap().success());
}

/// Holds: what is no regular file, here a FIFO that nobody writes to, in the place of every file that the bridge reads, stops
/// only what needs that file; and a thread that hangs in one does not hold the end up.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_hangs_stops_nothing_else() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let ids = ["0a".repeat(16), "0b".repeat(16)];
    let simulator = simulated::of(&ids.each_ref().map(String::as_str), &["x"], load(100.0)).await;
    let names = ["secret", "token", "cert", "ca", "option", "password"];
    for name in names {
        fifo(&dir.join(name));
    }
    std::fs::write(dir.join("good"), "demo-secret").unwrap();
    let conf = dir.join("conf.d");
    std::fs::create_dir(&conf).unwrap();
    let app = |name: &str, id: &str, secret: &str, more: &str| {
        format!(
            "[[apps]]\nname = \"{name}\"\napp_id = \"{id}\"\n{more}\
             auth = {{ basic = {{ key = \"demo-key\", secret_file = \"DIR/{secret}\" }} }}\n\
             regions = [{{ name = \"x\", base_url = \"{}\" }}]\n",
            simulator.base_url("x")
        )
    };
    let text = format!(
        "[admin]\nlisten = \"127.0.0.1:0\"\ntoken_file = \"DIR/token\"\n\
         tls = {{ cert_file = \"DIR/cert\", key_file = \"DIR/cert\" }}\n\
         [journal]\ndir = \"DIR/journal\"\nmin_free_bytes = 0\n{}{}\
         [sinks.file]\npath = \"DIR/events\"\n\
         [sinks.kafka]\nbrokers = [\"127.0.0.1:1\"]\n\
         options = {{ \"security.protocol\" = \"SSL\", \"ssl.ca.location\" = \"DIR/ca\" }}\n\
         option_files = {{ \"ssl.key.password\" = \"DIR/option\" }}\n\
         [sinks.nats]\nservers = [\"nats://127.0.0.1:1\"]\nstream = \"RTM\"\n\
         auth = {{ password = {{ user = \"u\", password_file = \"DIR/password\" }} }}\n",
        app("a", &ids[0], "good", ""),
        app("b", &ids[1], "secret", "ca_file = \"DIR/ca\"\n"),
    );
    let text = text.replace("DIR", dir.to_str().unwrap());
    std::fs::write(conf.join("all.toml"), text).unwrap();
    let log = dir.join("log");
    let arguments = ["run".as_ref(), "--config".as_ref(), conf.as_os_str()];
    let binary = rtm_tests::binary::rtm_bridge().unwrap();
    let mut bridge = Process::start(&binary, arguments, &[], &log, None).unwrap();
    let events = dir.join("events");
    lines(&events, 100).await;
    let said = || std::fs::read_to_string(&log).unwrap();
    for key in [
        "apps.1.auth.basic.secret_file",
        "sinks.kafka.option_files.ssl.key.password",
        "sinks.nats.auth.password.password_file",
        "admin.token_file",
    ] {
        let told = said()
            .lines()
            .any(|line| line.contains(key) && line.contains("it is not a regular file"));
        assert!(told, "{key}: {}", said());
    }
    // The threads that look at the configuration, and read it again, hang from here on.
    fifo(&conf.join("more.toml"));
    bridge.signal(Signal::SIGHUP).unwrap();
    let before = std::fs::read_to_string(&events).unwrap().lines().count();
    wait_for("SIGHUP", SOON, async || said().contains("SIGHUP"))
        .await
        .unwrap();
    lines(&events, before + 500).await;
    bridge.signal(Signal::SIGTERM).unwrap();
    let ended = bridge.wait(Duration::from_secs(20)).await;
    assert_eq!(ended.unwrap().code(), Some(0), "{}", said());
}

async fn says(bridge: &Bridge, all: &[&str]) {
    let look = async || match bridge.ready().await {
        Ok(Err(why)) => all.iter().all(|text| why.contains(text)),
        Ok(Ok(())) | Err(_) => false,
    };
    if let Err(error) = wait_for(&format!("/readyz says {all:?}"), SOON, look).await {
        let log = bridge.process.output().unwrap();
        panic!("{error}: {:?}\n{log}", bridge.ready().await);
    }
}

/// Holds: a directory, a secret and a certificate that are missing at the start, or at a reload, leave the sink and the App
/// ID that need them down, with what is missing; every other polls and publishes; and what comes is used without anybody
/// doing anything.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_waited_for() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let ids = ["0a".repeat(16), "0b".repeat(16)];
    let simulator = simulated::of(&ids.each_ref().map(String::as_str), &["x"], load(100.0)).await;
    let text = |sinks: &str| {
        let apps = ["a", "b"].iter().zip(&ids).map(|(name, id)| {
            format!(
                "[[apps]]\nname = \"{name}\"\napp_id = \"{id}\"\n\
                 auth = {{ basic = {{ key = \"demo-key\", secret_file = \"{dir}/{name}/secret\" }} }}\n\
                 regions = [{{ name = \"x\", base_url = \"{url}\" }}]\n",
                dir = dir.display(),
                url = simulator.base_url("x"),
            )
        });
        let apps: String = apps.collect();
        let sink = |name: &str| {
            let path = dir.join(name).join("events");
            format!(
                "[sinks.{name}]\ntype = \"file\"\npath = \"{}\"\n",
                path.display()
            )
        };
        let sinks: String = sinks.split(' ').map(sink).collect();
        format!(
            "[admin]\nlisten = \"127.0.0.1:0\"\n[journal]\ndir = \"{}/journal\"\nmin_free_bytes = 0\n{apps}{sinks}",
            dir.display()
        )
    };
    let mount = |name: &str| {
        std::fs::create_dir(dir.join(name)).unwrap();
        std::fs::write(dir.join(name).join("secret"), "demo-secret").unwrap();
    };
    mount("b");
    mount("there");
    let mut file = File::new(dir);
    file.write(&text("there late"));
    let mut bridge = Bridge::start(&file.path, &[], &dir.join("log"))
        .await
        .unwrap();
    let events = |sink: &str| dir.join(sink).join("events");
    lines(&events("there"), 100).await;
    says(
        &bridge,
        &["it cannot begin", "late/events", "a/secret", "\"late\""],
    )
    .await;
    mount("late");
    lines(&events("late"), 100).await;
    mount("a");
    let look = async || matches!(bridge.ready().await, Ok(Ok(())));
    wait_for("all is well", SOON, look).await.unwrap();
    let of_a = async || {
        let text = std::fs::read_to_string(events("late")).unwrap();
        text.contains(&format!("\"app_id\":\"{}\"", ids[0]))
    };
    wait_for("events of a", SOON, of_a).await.unwrap();

    take(&mut bridge, &mut file, &text("there late later")).await;
    says(&bridge, &["it cannot begin", "later/events"]).await;
    mount("later");
    lines(&events("later"), 100).await;
    wait_for("all is well", SOON, async || {
        matches!(bridge.ready().await, Ok(Ok(())))
    })
    .await
    .unwrap();
}

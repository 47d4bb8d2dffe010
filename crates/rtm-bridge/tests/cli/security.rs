//! What `docs/security.md` says of a running bridge, and of how it is deployed.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::documentation::{named, root, text};

const SECRET: &str = "canary-5ec2e7";

/// base64 of `k:` and the secret, as it is sent.
const SENT: &str = "azpjYW5hcnktNWVjMmU3";

/// A far end that refuses every request, quotes its credentials, and would like to write the log itself.
fn hostile() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut quoted = String::new();
            let mut line = String::new();
            while stream.read_line(&mut line).is_ok_and(|length| length > 2) {
                if line.to_lowercase().starts_with("authorization:") {
                    quoted = line.trim().to_owned();
                }
                line.clear();
            }
            let forged = r"\u001b[2J\u001b[31m\r\n2026-01-01T00:00:00Z ERROR forged\u009b\u202e";
            let body = format!(r#"{{"message":"the end of it, {quoted} {SECRET} {forged}"}}"#);
            let head = format!(
                "HTTP/1.1 401 No\r\nX-Request-ID: q\u{9b}31m\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            let _ = stream.get_mut().write_all((head + &body).as_bytes());
        }
    });
    address
}

/// A running bridge that logs everything it can.
struct Bridge {
    process: Child,
    dir: TempDir,
}

impl Bridge {
    fn start(agora: SocketAddr, format: &str, mode: u32) -> Bridge {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("secret"), SECRET).unwrap();
        fs::set_permissions(path("secret"), fs::Permissions::from_mode(mode)).unwrap();
        let config = format!(
            "[admin]\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"{format}\"\n\
             [journal]\ndir = \"{0}/journal\"\nmin_free_bytes = 0\n\
             [[apps]]\nname = \"main\"\napp_id = \"876922cbca0098dff4323566daa89675\"\n\
             auth = {{ basic = {{ key = \"k\", secret_file = \"{0}/secret\" }} }}\n\
             regions = [{{ name = \"eu\", base_url = \"http://{agora}\" }}]\n[sinks.file]\npath = \"{0}/out\"\n",
            dir.path().display()
        );
        fs::write(path("rtm-bridge.toml"), config).unwrap();
        let process = Command::new(assert_cmd::cargo::cargo_bin("rtm-bridge"))
            .args(["run", "--config"])
            .arg(path("rtm-bridge.toml"))
            .env("RUST_LOG", "trace")
            .stderr(fs::File::create(path("log")).unwrap())
            .spawn()
            .unwrap();
        Bridge { process, dir }
    }

    /// The log's whole lines, once they say `word`.
    fn log(&self, word: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let log = fs::read(self.dir.path().join("log")).unwrap();
            let whole = log.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
            let log = String::from_utf8(log[..whole].to_vec()).unwrap();
            if log.contains(word) {
                return log;
            }
            assert!(Instant::now() < deadline, "no {word:?} in {log}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What the admin endpoint answers, head and body.
    fn ask(&self, method: &str, path: &str) -> String {
        let log = self.log("admin endpoint is listening");
        let address = log.split("admin=").nth(1).unwrap();
        let address = address.split_whitespace().next().unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Holds: at every level and in both formats, what a far end says can neither move a cursor nor forge a line of the log,
/// and credentials that it quotes stay out of the log and of `/metrics`. A secret's file that everyone can read is told.
#[test]
fn the_log_keeps_secrets_and_its_lines() {
    let agora = hostile();
    for (format, mode) in [("text", 0o644), ("json", 0o600)] {
        let bridge = Bridge::start(agora, format, mode);
        let log = bridge.log("the end of it");
        assert!(
            log.contains("[redacted]") && log.contains("ERROR forged"),
            "nothing was quoted: {log}"
        );
        let found = log
            .chars()
            .find(|c| (c.is_control() && *c != '\n') || matches!(c, '\u{202a}'..='\u{202e}'));
        assert_eq!(found, None, "{format}: {log}");
        for secret in [SECRET, SENT] {
            let line = log.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "{format}");
        }
        for line in log.lines() {
            let whole = match format {
                "json" => serde_json::from_str::<serde_json::Value>(line).is_ok(),
                _ => !line.starts_with("2026-01-01T00:00:00Z"),
            };
            assert!(whole, "{format}: {line}");
        }
        let told = log.contains("holds a secret, and can be read by everyone");
        assert_eq!(told, mode & 0o004 != 0, "{format}: {log}");
        if format == "text" {
            let metrics = bridge.ask("GET", "/metrics");
            assert!(metrics.contains("rtm_bridge_credentials_refused_total"));
            assert!(!metrics.contains(SECRET) && !metrics.contains(SENT));
        }
    }
}

/// Holds: nothing can be changed at the admin endpoint's pages: they answer to reading only.
#[test]
fn the_admin_endpoint_only_answers() {
    let bridge = Bridge::start(hostile(), "text", 0o600);
    bridge.log("the end of it");
    for path in ["/", "/status.json", "/metrics", "/healthz", "/readyz"] {
        let answer = bridge.ask("GET", path);
        assert!(!answer.starts_with("HTTP/1.1 405"), "{path}: {answer}");
        for method in ["POST", "PUT", "PATCH", "DELETE"] {
            let answer = bridge.ask(method, path);
            assert!(
                answer.starts_with("HTTP/1.1 405"),
                "{method} {path}: {answer}"
            );
        }
    }
}

/// Holds: the files in `deploy/` give the bridge no more than it needs.
#[test]
fn deployments_give_little() {
    let compose = include_str!("../../../../docker-compose.yml");
    for service in ["simulator", "bridge"] {
        let (_, rest) = compose.split_once(&format!("\n  {service}:\n")).unwrap();
        let text = rest.split("\n\n").next().unwrap();
        for line in [
            "read_only: true",
            "cap_drop: [ALL]",
            "security_opt: [\"no-new-privileges:true\"]",
        ] {
            assert!(
                text.lines().any(|found| found.trim() == line),
                "{service}: {line}"
            );
        }
        // A file that is mounted alone is not seen to be replaced.
        assert!(!text.contains(".toml:"), "{service}: {text}");
    }
    let mut published = 0;
    for ports in compose.split("    ports:\n").skip(1) {
        for port in ports
            .lines()
            .take_while(|line| line.starts_with("      - "))
        {
            published += 1;
            assert!(port.starts_with("      - \"127.0.0.1:"), "{port}");
        }
    }
    assert!(published >= 3, "{published}");

    let image = include_str!("../../../../deploy/Dockerfile");
    let last = image.rsplit("\nFROM ").next().unwrap();
    assert!(last.lines().any(|line| line == "USER 10001:10001"));

    let unit = include_str!("../../../../deploy/rtm-bridge.service");
    for line in [
        "DynamicUser=yes",
        "StateDirectoryMode=0700",
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
        "ProtectSystem=strict",
        "ProtectHome=yes",
        "PrivateTmp=yes",
        "PrivateDevices=yes",
        "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
        "MemoryDenyWriteExecute=yes",
        "SystemCallFilter=@system-service",
        "UMask=0077",
    ] {
        assert!(unit.lines().any(|found| found == line), "{line}");
    }
}

/// Holds: every test that the document names is there, and is a test.
#[test]
fn the_document_names_real_tests() {
    let named = named(&text(&root().join("docs/security.md")));
    for (file, test) in &named {
        let text = fs::read_to_string(root().join(file)).unwrap_or_default();
        let found = text.split_once(&format!("fn {test}("));
        let (before, _) = found.unwrap_or_else(|| panic!("no {test} in {file}"));
        let attribute = before.rfind("#[test]").max(before.rfind("#[tokio::test"));
        let last = before.rfind("\n}\n").max(before.rfind("\n    }\n"));
        assert!(attribute > last, "{test} in {file} is no test");
    }
    assert!(named.len() > 50, "{}", named.len());
}

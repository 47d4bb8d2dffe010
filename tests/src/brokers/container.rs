//! Brokers in containers, where an engine answers.

use std::env;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testcontainers_modules::testcontainers::core::{IntoContainerPort, Mount};
use testcontainers_modules::testcontainers::runners::AsyncRunner;
use testcontainers_modules::testcontainers::{ContainerAsync, GenericImage, ImageExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// A running container, removed when this is dropped and when the tests end.
pub(super) struct Container {
    container: ContainerAsync<GenericImage>,
    image: String,
    /// Holds the pipe whose end removes the container: the one that all tests share is never dropped.
    _guard: Child,
}

/// What to run.
pub(super) struct Wanted {
    /// Without the tag.
    pub(super) image: &'static str,
    pub(super) tag: String,
    /// The broker listens on it inside and is reached on it from outside: one address for both, across restarts.
    pub(super) port: u16,
    pub(super) env: Vec<(String, String)>,
    pub(super) arguments: Vec<String>,
    /// A file of the host and its path inside.
    pub(super) file: Option<(PathBuf, &'static str)>,
}

impl Container {
    pub(super) async fn start(wanted: Wanted) -> Result<Container> {
        let image = format!("{}:{}", wanted.image, wanted.tag);
        let mut request = GenericImage::new(wanted.image, &wanted.tag)
            .with_mapped_port(wanted.port, wanted.port.tcp())
            .with_startup_timeout(PULL_DEADLINE)
            .with_cmd(wanted.arguments)
            // Test brokers have no authentication: they are for this machine only.
            .with_host_config_modifier(|config| {
                for bindings in config
                    .port_bindings
                    .iter_mut()
                    .flat_map(|ports| ports.values_mut())
                {
                    for binding in bindings.iter_mut().flatten() {
                        binding.host_ip = Some("127.0.0.1".to_owned());
                    }
                }
            });
        for (name, value) in wanted.env {
            request = request.with_env_var(name, value);
        }
        if let Some((outside, inside)) = wanted.file {
            request = request.with_mount(Mount::bind_mount(outside.display().to_string(), inside));
        }
        let container = request
            .start()
            .await
            .with_context(|| format!("start {image}"))?;
        let guard = Command::new("sh")
            .args([
                "-c",
                "read -r _; exec docker rm --force --volumes \"$1\"",
                "sh",
                container.id(),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start sh")?;
        Ok(Container {
            container,
            image,
            _guard: guard,
        })
    }

    pub(super) fn image(&self) -> &str {
        &self.image
    }

    pub(super) async fn pause(&self) -> Result<()> {
        self.container.pause().await.context("pause the container")
    }

    pub(super) async fn resume(&self) -> Result<()> {
        self.container
            .unpause()
            .await
            .context("resume the container")
    }

    /// Stops it without a grace period: SIGKILL, for all that the broker can do about it.
    pub(super) async fn kill(&self) -> Result<()> {
        self.container
            .stop_with_timeout(Some(0))
            .await
            .context("kill the container")
    }

    /// `signal` as the client knows it, such as `USR2`.
    pub(super) async fn signal(&self, signal: &str) -> Result<()> {
        let status = tokio::process::Command::new("docker")
            .args(["kill", "--signal", signal, self.container.id()])
            .stdout(Stdio::null())
            .status()
            .await?;
        ensure!(status.success(), "docker kill: {status}");
        Ok(())
    }

    pub(super) async fn start_again(&self) -> Result<()> {
        self.container
            .start()
            .await
            .context("start the container again")
    }

    pub(super) async fn failure(&self) -> Result<Option<String>> {
        if self.container.is_running().await? {
            return Ok(None);
        }
        let stderr = self.container.stderr_to_vec().await.unwrap_or_default();
        let stdout = self.container.stdout_to_vec().await.unwrap_or_default();
        let said = [stdout, stderr]
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .concat();
        Ok(Some(format!(
            "in {} ended:\n{}",
            self.image,
            crate::process::tail(&said)
        )))
    }
}

/// Whether a container engine answers a ping where testcontainers would look for it.
pub(super) async fn engine_answers() -> bool {
    timeout(PING_DEADLINE, async {
        match env::var("DOCKER_HOST") {
            Ok(host) => match (host.strip_prefix("unix://"), host.strip_prefix("tcp://")) {
                (Some(path), _) => ping(UnixStream::connect(path).await).await,
                (_, Some(address)) => ping(TcpStream::connect(address).await).await,
                _ => false,
            },
            Err(_) => {
                for path in sockets() {
                    if ping(UnixStream::connect(path).await).await {
                        return true;
                    }
                }
                false
            }
        }
    })
    .await
    .unwrap_or(false)
}

/// The places where testcontainers looks without `DOCKER_HOST`, in its order.
fn sockets() -> Vec<PathBuf> {
    let below = |name: &str, path: &str| env::var_os(name).map(|dir| PathBuf::from(dir).join(path));
    let rootless = [
        below("XDG_RUNTIME_DIR", ".docker/run/docker.sock"),
        below("HOME", ".docker/run/docker.sock"),
        below("HOME", ".docker/desktop/docker.sock"),
    ];
    [PathBuf::from("/var/run/docker.sock")]
        .into_iter()
        .chain(rootless.into_iter().flatten())
        .collect()
}

async fn ping<S: AsyncRead + AsyncWrite + Unpin>(stream: std::io::Result<S>) -> bool {
    let Ok(mut stream) = stream else { return false };
    let mut answer = [0; 12];
    stream
        .write_all(b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n")
        .await
        .is_ok()
        && stream.read_exact(&mut answer).await.is_ok()
        && answer == *b"HTTP/1.1 200"
}

/// An engine that takes longer to say that it is there is of no use.
const PING_DEADLINE: Duration = Duration::from_secs(3);

/// The first start pulls an image of some hundred megabytes.
const PULL_DEADLINE: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::net::UnixListener;

    use super::*;

    /// A socket file that nobody serves, and one that something else serves, are no engine.
    #[tokio::test]
    async fn only_an_engine_answers() {
        let dir = tempfile::tempdir().unwrap();
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\n\r\nOK", true),
            ("HTTP/1.1 503 No\r\n\r\n", false),
            ("", false),
        ] {
            let path = dir.path().join(format!("{}.sock", answer.len()));
            let listener = UnixListener::bind(&path).unwrap();
            let serve = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 64];
                let _ = stream.read(&mut request).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
            };
            let (answered, ()) = tokio::join!(
                async { ping(UnixStream::connect(&path).await).await },
                serve
            );
            assert_eq!(answered, expected, "{answer:?}");
            drop(listener);
            assert!(
                !ping(UnixStream::connect(&path).await).await,
                "nobody listens"
            );
        }
    }
}

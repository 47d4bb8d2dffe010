//! The real binary as processes: `rtm-bridge run` and `rtm-bridge simulate`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use crate::process::Process;
use crate::{binary, wait_for};

/// A running bridge.
#[derive(Debug)]
pub struct Bridge {
    /// To signal, end and measure it.
    pub process: Process,
    /// `http://host:port` of its admin endpoint.
    pub admin: String,
    /// When the process had been started; its endpoint listens somewhat later.
    pub started: Instant,
    client: reqwest::Client,
}

impl Bridge {
    /// Starts `rtm-bridge run --config <config>` with `env` on top of our environment and its log appended to `log`,
    /// and waits until its admin endpoint listens. Let `admin.listen` be `127.0.0.1:0` and the log level at least info.
    ///
    /// # Errors
    ///
    /// When the binary is missing or older than its sources, with what to run; when the bridge does not start, with
    /// the end of its log.
    pub async fn start(config: &Path, env: &[(&str, &str)], log: &Path) -> Result<Bridge> {
        Bridge::start_under(&[], config, env, log).await
    }

    /// As [`Bridge::start`], under a command that runs the one that follows it in its own place, as `sh -c 'exec "$@"' sh`
    /// does.
    ///
    /// # Errors
    ///
    /// As [`Bridge::start`].
    pub async fn start_under(
        command: &[String],
        config: &Path,
        env: &[(&str, &str)],
        log: &Path,
    ) -> Result<Bridge> {
        let mut all: Vec<OsString> = command.iter().map(OsString::from).collect();
        all.push(binary::rtm_bridge()?.into());
        all.extend(["run".into(), "--config".into(), config.into()]);
        let mut process = Process::start(Path::new(&all[0]), &all[1..], env, log, None)?;
        let started = Instant::now();
        let admin = process
            .wait_for_line(START_DEADLINE, admin_address)
            .await
            .context("rtm-bridge run")?;
        Ok(Bridge {
            process,
            admin: format!("http://{admin}"),
            started,
            client: http_client()?,
        })
    }

    /// Has the configuration read again (SIGHUP) that `replace` puts in the place of the last one, and waits until it is
    /// taken.
    ///
    /// # Errors
    ///
    /// When it cannot be replaced, or is not taken within half a minute.
    pub async fn reload(&mut self, replace: impl FnOnce() -> Result<()>) -> Result<()> {
        let taken = |metrics: &Metrics| {
            metrics.get("rtm_bridge_config_last_reload_success_timestamp_seconds")
        };
        // Before the files change: the bridge looks at them by itself as well.
        let before = taken(&self.metrics().await?);
        replace()?;
        self.process.signal(Signal::SIGHUP)?;
        wait_for("a reload", RELOAD_DEADLINE, async || {
            tokio::time::sleep(RELOAD_LOOK).await;
            (self.metrics().await).is_ok_and(|metrics| taken(&metrics) > before)
        })
        .await
    }

    /// What `/metrics` says now.
    ///
    /// # Errors
    ///
    /// When it does not answer, or not with metrics.
    pub async fn metrics(&self) -> Result<Metrics> {
        Metrics::parse(&self.metrics_text().await?)
    }

    /// `/metrics` as it is, for `promtool`.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub async fn metrics_text(&self) -> Result<String> {
        let response = self
            .client
            .get(format!("{}/metrics", self.admin))
            .send()
            .await?;
        Ok(response.error_for_status()?.text().await?)
    }

    /// Whether `/readyz` says that data flows, and if not the document with its reasons.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub async fn ready(&self) -> Result<Result<(), String>> {
        let response = self
            .client
            .get(format!("{}/readyz", self.admin))
            .send()
            .await?;
        let ready = response.status().is_success();
        let text = response.text().await?;
        Ok(if ready { Ok(()) } else { Err(text) })
    }
}

/// A running simulator of Agora's API.
#[derive(Debug)]
pub struct Simulator {
    /// To signal, end and measure it.
    pub process: Process,
    /// `http://host:port`: a region's base URL is this and `/<region>`, the control API is below `/_sim/`.
    pub url: String,
}

impl Simulator {
    /// Starts `rtm-bridge simulate` on a free port with `arguments`, its output appended to `log`, and waits until it
    /// listens.
    ///
    /// # Errors
    ///
    /// As [`Bridge::start`].
    pub async fn start(arguments: &[&str], log: &Path) -> Result<Simulator> {
        let all = ["simulate", "--listen", "127.0.0.1:0"]
            .iter()
            .chain(arguments);
        let mut process = Process::start(&binary::rtm_bridge()?, all, &[], log, None)?;
        let url = process
            .wait_for_line(START_DEADLINE, simulator_url)
            .await
            .context("rtm-bridge simulate")?;
        Ok(Simulator { process, url })
    }
}

/// The values of all series at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// Reads the text format of Prometheus, as far as the `prometheus` crate writes it: without timestamps.
    ///
    /// # Errors
    ///
    /// With the line that is not a sample.
    pub fn parse(text: &str) -> Result<Metrics> {
        let samples = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let parse = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        };
        let parsed =
            samples.map(|line| parse(line).with_context(|| format!("not a sample: {line}")));
        Ok(Metrics(parsed.collect::<Result<_>>()?))
    }

    /// The value of one series, named as `/metrics` does: `name` or `name{label="value",…}`, labels in its order.
    #[must_use]
    pub fn get(&self, series: &str) -> Option<f64> {
        self.0.get(series).copied()
    }

    /// The sum over all series of `name` that have these labels, whatever others they have.
    ///
    /// # Errors
    ///
    /// When there is none: every series exists from the start, so a name is misspelt.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        let matches = |series: &str| {
            let (own, rest) = series.split_once('{').unwrap_or((series, ""));
            own == name
                && labels.iter().all(|(label, value)| {
                    let pair = format!("{label}=\"{value}\"");
                    rest.starts_with(&pair) || rest.contains(&format!(",{pair}"))
                })
        };
        let mut values = self
            .0
            .iter()
            .filter(|(series, _)| matches(series))
            .map(|(_, value)| *value)
            .peekable();
        ensure!(values.peek().is_some(), "no series {name} with {labels:?}");
        Ok(values.sum())
    }

    /// All series, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0
            .iter()
            .map(|(series, value)| (series.as_str(), *value))
    }
}

/// A client for loopback addresses. Several waits of a test may ask at once; none may wait for a stopped process for
/// ever.
///
/// # Errors
///
/// When TLS cannot be set up, though nobody here uses it.
pub fn http_client() -> Result<reqwest::Client> {
    // reqwest wants a provider even for plain HTTP; a second installation fails, and the first is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok(reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(10))
        .build()?)
}

/// The bound address in the bridge's log, in either of its formats.
fn admin_address(line: &str) -> Option<String> {
    let rest = line
        .contains("admin endpoint is listening")
        .then_some(line)?;
    let after = |mark: &str| rest.split_once(mark).map(|(_, after)| after);
    let value = after("admin=").or_else(|| after("\"admin\":\""))?;
    value
        .split([' ', '"'])
        .next()
        .filter(|address| !address.is_empty())
        .map(str::to_owned)
}

fn simulator_url(line: &str) -> Option<String> {
    line.strip_prefix("simulator is listening on ")
        .map(|url| url.trim().to_owned())
}

/// Opening a large journal is part of a start.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// Sinks may be made anew in a reload.
const RELOAD_DEADLINE: Duration = Duration::from_secs(30);

/// How often it is looked whether a configuration is taken: each look costs a bridge of many App IDs some milliseconds.
const RELOAD_LOOK: Duration = Duration::from_millis(40);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// The address is found in both log formats, and only in its line.
    #[test]
    fn finds_the_admin_address() {
        let text = "2026-11-24T00:00:00Z  INFO rtm_bridge::admin: admin endpoint is listening admin=127.0.0.1:9464";
        let json = r#"{"level":"INFO","message":"admin endpoint is listening","admin":"[::1]:80","target":"x"}"#;
        assert_eq!(admin_address(text).unwrap(), "127.0.0.1:9464");
        assert_eq!(admin_address(json).unwrap(), "[::1]:80");
        assert_eq!(
            admin_address("INFO the admin endpoint has ended admin=127.0.0.1:9464"),
            None
        );
    }

    /// A sum takes the series with the labels asked for, in whatever place they are, and never one whose label's name
    /// only ends alike.
    #[test]
    fn sums_by_label() {
        let text = "# HELP a b\n# TYPE a counter\na{app=\"x\",sink=\"kafka\"} 1\na{app=\"y\",sink=\"kafka\"} 2.5\n\
                    a{app=\"x\",sink=\"nats\"} 10\na{app=\"z\",other_sink=\"kafka\"} 100\nab{sink=\"kafka\"} 1000\nn NaN\n";
        let metrics = Metrics::parse(text).unwrap();
        assert_eq!(metrics.sum("a", &[("sink", "kafka")]).unwrap(), 3.5);
        assert_eq!(
            metrics
                .sum("a", &[("sink", "kafka"), ("app", "x")])
                .unwrap(),
            1.0
        );
        assert_eq!(metrics.sum("a", &[]).unwrap(), 113.5);
        assert!(metrics.sum("a", &[("sink", "kaf")]).is_err());
        assert_eq!(metrics.get("a{app=\"x\",sink=\"nats\"}"), Some(10.0));
        assert!(metrics.get("n").unwrap().is_nan());
        assert!(Metrics::parse("a one").is_err());
    }

    /// The client is made without a TLS provider having been installed, and speaks to a plain server.
    #[tokio::test]
    async fn the_client_needs_no_preparation() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 512]).await.unwrap();
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await
                .unwrap();
        };
        let (response, ()) = tokio::join!(http_client().unwrap().get(url).send(), serve);
        assert_eq!(response.unwrap().text().await.unwrap(), "ok");
    }
}

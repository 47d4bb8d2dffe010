//! What watches a bridge, for real: Debian's Prometheus and promtool, the dashboard, the metrics' text.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::bridge::http_client;
use crate::brokers::{free_port, install};
use crate::process::{Process, tail};
use crate::wait_for;

mod dashboard;
mod drawing;
mod exposition;
mod expression;

pub use dashboard::{Dashboard, Panel, Query, Variable};
pub use drawing::{Drawing, Drawn, Span};
pub use exposition::Families;
pub use expression::metric_names;

/// A file of the repository, by its path from the top.
#[must_use]
pub fn file(path: &str) -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).join(path)
}

/// The text of a file of the repository.
///
/// # Errors
///
/// With its path.
pub fn text(path: &str) -> Result<String> {
    fs::read_to_string(file(path)).with_context(|| format!("read {path}"))
}

/// A Prometheus of one's own, on a loopback port, that scrapes and evaluates every second.
pub struct Prometheus {
    process: Process,
    url: String,
    client: reqwest::Client,
    _dir: TempDir,
}

/// A series and its value, as a query gives them.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Names and values of its labels.
    pub labels: serde_json::Map<String, Value>,
    /// Its value.
    pub value: f64,
}

/// An alerting rule, as Prometheus has understood it.
#[derive(Debug, Clone)]
pub struct Alert {
    /// Its name.
    pub name: String,
    /// Its expression.
    pub expression: String,
    /// `severity`.
    pub severity: String,
    /// Names and values of its annotations.
    pub annotations: serde_json::Map<String, Value>,
    /// `ok` where it could be evaluated.
    pub health: String,
}

impl Prometheus {
    /// Starts one that scrapes `target`, an address, as the job `rtm-bridge`, and evaluates the rules in `rules`.
    ///
    /// # Errors
    ///
    /// When it does not start; with the package's name where it is not installed.
    pub async fn start(target: &str, rules: &Path) -> Result<Prometheus> {
        installed("prometheus", "prometheus")?;
        let dir = tempfile::Builder::new()
            .prefix("rtm-prometheus-")
            .tempdir()?;
        let config = dir.path().join("prometheus.yml");
        let text = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{}]\nscrape_configs:\n\
             - job_name: rtm-bridge\n  static_configs: [{{targets: [\"{target}\"]}}]\n",
            serde_json::to_string(rules)?
        );
        fs::write(&config, text)?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let arguments = [
            format!("--config.file={}", config.display()),
            format!("--storage.tsdb.path={}", dir.path().join("data").display()),
            format!("--web.listen-address={address}"),
        ];
        let log = dir.path().join("prometheus.log");
        let program = Path::new("prometheus");
        let process = Process::start(program, arguments, &[], &log, Some(dir.path()))?;
        let mut prometheus = Prometheus {
            process,
            url: format!("http://{address}"),
            client: http_client()?,
            _dir: dir,
        };
        let ready = format!("{}/-/ready", prometheus.url);
        let answers = async || {
            let answer = prometheus.client.get(&ready).send().await;
            answer.is_ok_and(|answer| answer.status().is_success())
        };
        let started = wait_for("Prometheus to be ready", Duration::from_secs(30), answers).await;
        if let Err(error) = started {
            let ended = prometheus.process.exited()?;
            bail!(
                "{error}; ended: {ended:?}\n{}",
                tail(&prometheus.process.output()?)
            );
        }
        Ok(prometheus)
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What `expression` gives now.
    ///
    /// # Errors
    ///
    /// When Prometheus refuses it, or it gives no vector.
    pub async fn query(&self, expression: &str) -> Result<Vec<Sample>> {
        let data = self.ask("query", &[("query", expression)]).await;
        let data = data.with_context(|| expression.to_owned())?;
        let result = data["result"].as_array().context("no result")?;
        let sample = |sample: &Value| {
            Some(Sample {
                labels: sample["metric"].as_object()?.clone(),
                value: sample["value"][1].as_str()?.parse().ok()?,
            })
        };
        let samples = result
            .iter()
            .map(|one| sample(one).context("not a vector"))
            .collect::<Result<_>>();
        samples.with_context(|| expression.to_owned())
    }

    /// The values of `label` over the series that `selector` selects: what Grafana's `label_values` gives.
    ///
    /// # Errors
    ///
    /// As [`Prometheus::query`].
    pub async fn label_values(&self, selector: &str, label: &str) -> Result<Vec<String>> {
        let data = self
            .ask(&format!("label/{label}/values"), &[("match[]", selector)])
            .await?;
        let values = data.as_array().context("no values")?;
        let strings = values.iter().filter_map(Value::as_str);
        Ok(strings.map(str::to_owned).collect())
    }

    /// Every alerting rule.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub async fn alerts(&self) -> Result<Vec<Alert>> {
        let data = self.ask("rules", &[("type", "alert")]).await?;
        let groups = data["groups"].as_array().context("no groups")?;
        let string = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let rules = groups
            .iter()
            .filter_map(|group| group["rules"].as_array())
            .flatten();
        Ok(rules
            .map(|rule| Alert {
                name: string(&rule["name"]),
                expression: string(&rule["query"]),
                severity: string(&rule["labels"]["severity"]),
                annotations: rule["annotations"].as_object().cloned().unwrap_or_default(),
                health: string(&rule["health"]),
            })
            .collect())
    }

    async fn ask(&self, what: &str, parameters: &[(&str, &str)]) -> Result<Value> {
        let url =
            reqwest::Url::parse_with_params(&format!("{}/api/v1/{what}", self.url), parameters)?;
        let answer = self.client.get(url).send().await?;
        let answer: Value = serde_json::from_slice(&answer.bytes().await?)?;
        ensure!(answer["status"] == "success", "{answer}");
        Ok(answer["data"].clone())
    }
}

/// Runs `promtool` in the directory `dir`, with `input`; gives its output.
///
/// # Errors
///
/// With its output, when it does not end with success; with the package's name where it is not installed.
pub fn promtool(dir: &Path, arguments: &[&str], input: &str) -> Result<String> {
    let mut promtool = installed("promtool", "prometheus")?;
    run(promtool.current_dir(dir).args(arguments), input)
}

/// Decodes a dashboard strictly into the types of Grafana's foundation SDK. Blocks, for some seconds the first time.
///
/// # Errors
///
/// With the fields that are unknown, missing or of a wrong type; when the SDK cannot be installed.
pub fn decode_strictly(dashboard: &Path) -> Result<()> {
    let source = file("tests/grafana");
    let mut hasher = DefaultHasher::new();
    for name in ["main.go", "go.mod", "go.sum"] {
        fs::read(source.join(name))?.hash(&mut hasher);
    }
    let name = format!("grafana-sdk-{:016x}", hasher.finish());
    let dir = install::installed(&name, |dir| {
        let mut build = Command::new("go");
        build
            .current_dir(&source)
            .env("CGO_ENABLED", "0")
            .arg("build")
            .arg("-o")
            .arg(dir.join("decode"))
            .arg(".");
        run(&mut build, "")
            .context("Grafana's foundation SDK needs Go 1.26 or later (https://go.dev/dl)")?;
        Ok(())
    })?;
    run(Command::new(dir.join("decode")).arg(dashboard), "")?;
    Ok(())
}

/// A command that runs `program`, of Debian's `package`.
///
/// # Errors
///
/// With the package's name where it is not installed.
pub fn installed(program: &str, package: &str) -> Result<Command> {
    match Command::new(program).arg("--version").output() {
        Err(error) if error.kind() == ErrorKind::NotFound => bail!(
            "`{program}` is not there: install Debian's package `{package}` (apt-get install {package})"
        ),
        Err(error) => Err(error).with_context(|| format!("run {program}")),
        Ok(_) => Ok(Command::new(program)),
    }
}

fn run(command: &mut Command, input: &str) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("run {name}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    let said =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    ensure!(
        output.status.success(),
        "{name} ended with {}:\n{}",
        output.status,
        said.concat()
    );
    Ok(said.concat())
}

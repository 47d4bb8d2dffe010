//! `rtm-bridge check`.

use std::time::Duration;

use rtm_source::{Connections, ConsoleError, Projects};

use super::configuration::{ConfigArgs, examined};
use super::process::{refuse, runtime};
use super::{outage, preflight, telemetry};
use crate::config::{AppConfig, AuthConfig, Config, Examined};
use crate::wire;

/// Agora's console takes 10 requests a second of an account, whose keys may be several.
const BETWEEN_ACCOUNTS: Duration = Duration::from_millis(150);

/// Validate a configuration; with --connect also reach Agora's hosts and the brokers, without reading events
///
/// Looks at all that can be told without starting: files, credentials, templates, limits. What is wrong with one does not keep
/// it from looking at the others.
///
/// Exit code 2 when the configuration is wrong or the journal does not hold the outage, 1 when --connect does not reach
/// something.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
With --connect the names of Agora's hosts are resolved and TLS is opened to them; brokers, topics and streams are reached \
with their credentials. No event is read: every request to the event API deletes what it reads. A key and its secret are \
tried at Agora's console (GET /dev/v1/projects), which also tells whether the App ID is one of the account's; at a region \
whose base_url is not Agora's, they are tried there. Tokens cannot be tried so: a wrong one shows when the bridge polls.

Examples:
  rtm-bridge check --config rtm-bridge.toml
  rtm-bridge check --connect
  rtm-bridge check --outage 6h --rate 2000    # does the journal hold six hours?
  rtm-bridge check --outage 2d --rate 500")]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Also open TLS to every region's host, try Agora's keys at its console, and reach the brokers, topics and streams;
    /// reads no event
    #[arg(long)]
    connect: bool,
    #[command(flatten)]
    outage: Option<outage::Outage>,
}

pub(super) fn check(args: &CheckArgs) -> anyhow::Result<bool> {
    let Examined {
        config,
        problems,
        is_wrong,
    } = examined(&args.config)?;
    // What is wrong is told at the end, and looked at no further: the same would be said twice.
    let is_told = |key: &str| {
        let mut told = problems
            .iter()
            .filter_map(|(told, _)| told.strip_prefix(key));
        told.any(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let rings: usize = config.apps.iter().map(|app| 2 * app.regions.len()).sum();
    println!(
        "{}: {} App ID(s), {rings} rings, sinks: {}",
        args.config.config.display(),
        config.apps.len(),
        config.sinks.keys().cloned().collect::<Vec<_>>().join(", ")
    );
    for (key, message) in config.warnings(None) {
        println!("  warning: {key}: {message}");
    }
    let runtime = runtime()?;
    if let Some(why) = runtime.block_on(config.admin.listen.unusable()) {
        println!("  warning: admin.listen: {why}; without it there is no admin endpoint");
    }
    let mut report = Report::default();
    let connections = Connections::default();
    if !is_told("log")
        && let Err(error) = telemetry::filter(&config.log, "info")
    {
        report.line::<String>("log", Err(error));
    }
    if !is_told("journal.dir") {
        report.line(
            "journal",
            preflight::can_store(&config).map_err(anyhow::Error::into_boxed_dyn_error),
        );
    }
    for (index, app) in config.apps.iter().enumerate() {
        if is_told(&format!("apps.{index}")) {
            continue;
        }
        report.line(
            &format!("app {}", app.name),
            wire::source(app, &connections)
                .map(|_| "its credentials can be read, and its regions are well-formed; Agora was not asked".to_owned()),
        );
    }
    let mut unusable = Vec::new();
    for (name, sink) in &config.sinks {
        if is_told(&format!("sinks.{name}")) {
            unusable.push(name.as_str());
            continue;
        }
        let accepted = sink.table().accepted().unwrap_or(Ok(()));
        if accepted.is_err() {
            unusable.push(name.as_str());
        }
        report.line(
            &format!("sink {name}"),
            accepted.map(|()| "options are accepted".to_owned()),
        );
    }
    if let Some(outage) = args.outage.as_ref().filter(|_| !is_wrong) {
        report.line("outage", outage.fits(&config));
    }
    if args.connect {
        runtime.block_on(connect(&config, &connections, &unusable, &mut report));
    }
    let failed = format!("{} check(s) failed", report.failures);
    if !problems.is_empty() {
        let problems = problems.iter().map(|(_, problem)| problem.to_string());
        let failed = Some(failed).filter(|_| report.failures > 0);
        return Err(refuse(Vec::from_iter(problems.chain(failed)).join("\n")));
    }
    let verdict = match (report.failures, args.connect) {
        (0, false) => "valid; whether all of it can be reached, --connect tells",
        (0, true) => "valid, and all of it can be reached",
        // What the configuration says is wrong counts as its fault; what is only out of reach now does not.
        (_, false) => return Err(refuse(failed)),
        (_, true) => anyhow::bail!(failed),
    };
    println!("{}: {verdict}", args.config.config.display());
    Ok(true)
}

/// Lines of `what: ok, …` or `what: FAILED, …`.
#[derive(Default)]
struct Report {
    failures: usize,
}

impl Report {
    fn line<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
        &mut self,
        what: &str,
        result: Result<String, E>,
    ) {
        match result {
            Ok(detail) => println!("  {what}: ok, {detail}"),
            Err(error) => {
                self.failures += 1;
                println!("  {what}: FAILED, {}", crate::chain(error.into().as_ref()));
            }
        }
    }
}

impl Report {
    /// What Agora's console says of an App ID's key. That nobody knows is no failure: the console may be out of reach where
    /// the event API is not.
    fn account(&mut self, app: &AppConfig, said: &Result<Projects, ConsoleError>) {
        let what = format!("app {}: credentials", app.name);
        let found = match said {
            Ok(projects) => match projects.find(&app.app_id) {
                Some(project) if project.is_disabled() => Err(
                    "the key is right, and the App ID is disabled in Agora's console".to_owned(),
                ),
                Some(_) => Ok("the key is right, and the App ID is its account's".to_owned()),
                None => Err(format!(
                    "the key is right, but the App ID {} is none of the {} of its account",
                    app.app_id,
                    projects.count()
                )),
            },
            Err(error @ ConsoleError::Refused { .. }) => Err(error.to_string()),
            Err(error) => {
                let error = crate::chain(error);
                return println!(
                    "  {what} not tried: {error}; wrong ones show when the bridge polls"
                );
            }
        };
        self.line(&what, found);
    }
}

/// What is known to be unusable is not tried: the same would be said twice.
async fn connect(
    config: &Config,
    connections: &Connections,
    unusable: &[&str],
    report: &mut Report,
) {
    let mut accounts = Vec::new();
    for app in &config.apps {
        connect_app(app, connections, &mut accounts, report).await;
    }
    let usable = config.sinks.iter();
    for (name, sink) in usable.filter(|(name, _)| !unusable.contains(&name.as_str())) {
        let (places, dead) = (
            sink.places(&config.names()),
            sink.dead_letter_places(&config.names()),
        );
        for (what, found) in sink.table().reach(&places, &dead).await {
            let of = if what.is_empty() { "" } else { ": " };
            report.line(&format!("sink {name}{of}{what}"), found);
        }
    }
}

/// What Agora's console said of credentials, so that those that several App IDs have are tried once.
type Accounts = Vec<(AuthConfig, Result<Projects, ConsoleError>)>;

async fn connect_app(
    app: &AppConfig,
    connections: &Connections,
    accounts: &mut Accounts,
    report: &mut Report,
) {
    let Ok(source) = wire::source(app, connections) else {
        return;
    };
    for region in &app.regions {
        let Ok(region) = region.region() else {
            continue;
        };
        let what = format!(
            "app {}: region {} ({})",
            app.name,
            region.name(),
            region.base_url().host_str().unwrap_or_default()
        );
        let opens = match region.base_url().scheme() {
            "https" => "TLS is opened",
            _ => "a connection is opened",
        };
        report.line(
            &what,
            source
                .connect(&region)
                .await
                .map(|()| format!("its name resolves and {opens}; no event was read")),
        );
    }
    let known = accounts.iter().position(|(auth, _)| *auth == app.auth);
    let at = match known {
        Some(at) => at,
        None => {
            if !accounts.is_empty() {
                tokio::time::sleep(BETWEEN_ACCOUNTS).await;
            }
            accounts.push((app.auth.clone(), source.projects().await));
            accounts.len() - 1
        }
    };
    report.account(app, &accounts[at].1);
}

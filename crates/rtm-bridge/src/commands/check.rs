//! `rtm-bridge check`.

use std::process::ExitCode;

use rtm_sink::Sink;
use rtm_sink_kafka::KafkaSink;
use rtm_sink_nats::NatsSink;
use rtm_source::Connections;

use super::{ConfigArgs, auto_creation, configuration, outage, runtime, telemetry};
use crate::config::{AppConfig, Config, KafkaConfig, NatsConfig, SinkConfig};
use crate::{assemble, client};

/// Validate a configuration; with --connect also reach Agora's hosts and the brokers, without reading events
///
/// Looks at all that can be told without starting: files, credentials, templates, limits.
///
/// Exit code 2 when the configuration is wrong or the journal does not hold the outage, 1 when --connect does not reach
/// something.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Agora's credentials are read and not tried: every request that needs them deletes events, so that a wrong key shows \
only once the bridge polls. With --connect the names of Agora's hosts are resolved and TLS is opened to them; brokers, \
topics and streams are reached with their credentials.

Examples:
  rtm-bridge check --config rtm-bridge.toml
  rtm-bridge check --connect
  rtm-bridge check --outage 6h --rate 2000    # does the journal hold six hours?
  rtm-bridge check --outage 2d --rate 500")]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Also open TLS to every region's host, and reach the brokers, topics and streams; reads no event, and does not try
    /// Agora's credentials
    #[arg(long)]
    connect: bool,
    #[command(flatten)]
    outage: outage::OutageArgs,
}

pub(super) fn check(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let config = match configuration(&args.config) {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    let rings: usize = config.apps.iter().map(|app| 2 * app.regions.len()).sum();
    println!(
        "{}: {} App ID(s), {rings} rings, sinks: {}",
        args.config.config.display(),
        config.apps.len(),
        config.sinks.keys().cloned().collect::<Vec<_>>().join(", ")
    );
    for (key, message) in config.warnings() {
        println!("  warning: {key}: {message}");
    }
    let mut report = Report::default();
    let connections = Connections::default();
    if let Err(error) = telemetry::filter(&config.log, "info") {
        report.line::<String>("log", Err(error));
    }
    for app in &config.apps {
        report.line(
            &format!("app {}", app.name),
            assemble::source(app, &connections)
                .map(|_| "its credentials can be read, and its regions are well-formed; Agora was not asked".to_owned()),
        );
    }
    for (name, sink) in &config.sinks {
        if let SinkConfig::Kafka(kafka) = sink {
            let made =
                client::kafka_options(kafka).and_then(|options| Ok(KafkaSink::new(options)?));
            report.line(
                &format!("sink {name}"),
                made.map(|_| "options are accepted".to_owned()),
            );
        }
    }
    if let Some(outage) = args.outage.asked() {
        report.line("outage", outage.fits(&config));
    }
    if args.connect {
        runtime()?.block_on(connect(&config, &connections, &mut report));
    }
    let verdict = report.verdict(args.connect);
    if report.failures > 0 {
        eprintln!("rtm-bridge: {verdict}");
        // What the configuration says is wrong counts as its fault; what is only out of reach now does not.
        return Ok(if args.connect {
            ExitCode::FAILURE
        } else {
            ExitCode::from(super::USAGE)
        });
    }
    println!("{}: {verdict}", args.config.config.display());
    Ok(ExitCode::SUCCESS)
}

/// Lines of `what: ok, …` or `what: FAILED, …`.
#[derive(Default)]
struct Report {
    failures: usize,
}

impl Report {
    /// The last word.
    fn verdict(&self, connected: bool) -> String {
        match (self.failures, connected) {
            (0, false) => "valid; whether all of it can be reached, --connect tells".to_owned(),
            (0, true) => "valid, and all of it can be reached".to_owned(),
            (failures, _) => format!("{failures} check(s) failed"),
        }
    }

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

async fn connect(config: &Config, connections: &Connections, report: &mut Report) {
    for app in &config.apps {
        connect_app(app, connections, report).await;
    }
    for (name, sink) in &config.sinks {
        match sink {
            SinkConfig::Kafka(kafka) => connect_kafka(name, kafka, config, report).await,
            SinkConfig::Nats(nats) => connect_nats(name, nats, config, report).await,
            SinkConfig::Stdout(_) | SinkConfig::File(_) => {}
        }
    }
}

async fn connect_app(app: &AppConfig, connections: &Connections, report: &mut Report) {
    let Ok(source) = assemble::source(app, connections) else {
        return;
    };
    for region in &app.regions {
        let Ok(region) = assemble::region(region) else {
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
    println!(
        "  app {}: credentials not tried: any request that needs them would delete events; wrong ones show when the bridge \
         polls",
        app.name
    );
}

async fn connect_kafka(name: &str, kafka: &KafkaConfig, config: &Config, report: &mut Report) {
    let what = format!("sink {name}");
    let sink = client::kafka_options(kafka)
        .and_then(|options| KafkaSink::new(options).map_err(Into::into));
    let sink = match sink {
        Ok(sink) => sink,
        Err(error) => {
            return report.line::<Box<dyn std::error::Error + Send + Sync>>(&what, Err(error));
        }
    };
    let topics = client::kafka_topics(kafka, config);
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    match sink.check(&topics).await {
        Err(error) => {
            report.line::<Box<dyn std::error::Error + Send + Sync>>(&what, Err(error.into()));
        }
        Ok(reached) => {
            report.line::<String>(&what, Ok(format!("{} broker(s)", reached.brokers)));
            let missing = reached
                .topics
                .iter()
                .any(|topic| topic.partitions.is_none());
            let is_on = match missing && !kafka.create {
                true => auto_creation::is_on(kafka).await,
                false => None,
            };
            for topic in reached.topics {
                let state = match topic.partitions {
                    Some(partitions) => Ok(format!("{partitions} partition(s)")),
                    None if kafka.create => Ok("missing; `run` creates it".to_owned()),
                    None => auto_creation::of_missing(is_on),
                };
                report.line(&format!("sink {name}: topic {}", topic.name), state);
            }
        }
    }
}

async fn connect_nats(name: &str, nats: &NatsConfig, config: &Config, report: &mut Report) {
    let what = format!("sink {name}");
    let subjects = client::nats_subjects(nats, config);
    let subjects: Vec<&str> = subjects.iter().map(String::as_str).collect();
    // Looking must not create: the stream is made by `run`.
    let options = rtm_sink_nats::NatsOptions {
        create_stream: None,
        ..client::nats_options(nats)
    };
    match NatsSink::connect(options).await {
        Err(error) => {
            report.line::<Box<dyn std::error::Error + Send + Sync>>(&what, Err(error.into()));
        }
        Ok(sink) => {
            let checked = sink.check(&subjects).await;
            let warnings = checked
                .as_ref()
                .map(|found| found.warnings.clone())
                .unwrap_or_default();
            if let (Some(_), Err(rtm_sink_nats::CheckError::Missing(_))) = (&nats.create, &checked)
            {
                let missing = format!("stream {} is missing; `run` creates it", nats.stream);
                report.line::<String>(&what, Ok(missing));
                return sink.close().await;
            }
            report.line(
                &what,
                checked.map(|found| {
                    format!(
                        "{} {}, stream {} stores every subject; records are published {}",
                        found.server, found.version, nats.stream, found.published
                    )
                }),
            );
            for warning in warnings {
                report.line::<String>(&what, Ok(format!("warning: {warning}")));
            }
            sink.close().await;
        }
    }
}

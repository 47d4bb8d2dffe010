//! What people watch a bridge with: metrics and their reference, the dashboard, alerts and their runbook. One bridge
//! under load, with real brokers, is watched by a real Prometheus; the tests look at what that has seen.
#![allow(clippy::unwrap_used)]

mod alerts;
mod dashboard;
mod drawn;
mod metrics;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rtm_sim::{Faults, Load};
use rtm_tests::bridge::Metrics;
use rtm_tests::monitoring::{
    Alert, Dashboard, Families, Panel, Prometheus, Query, file, metric_names, text,
};
use rtm_tests::trial::{Brokers, Rig, Setup};
use rtm_tests::wait_for;
use tokio::sync::OnceCell;

/// What was seen of the bridge.
struct Seen {
    /// `/metrics` before the first event.
    at_start: Families,
    /// `/metrics` under load.
    text: String,
    under_load: Families,
    /// Queries of the dashboard that gave nothing, or something without what their legend names.
    empty: Vec<String>,
    /// Variables of the dashboard and their values.
    variables: Vec<(String, Vec<String>)>,
    /// The alerting rules, as Prometheus has evaluated them.
    alerts: Vec<Alert>,
    /// The alerts that were firing under load.
    firing: BTreeSet<String>,
    /// `/metrics` after Agora has refused the credentials.
    refused: Metrics,
}

/// What was seen, by the first test to ask.
async fn seen() -> &'static Seen {
    static SEEN: OnceCell<Result<Seen, String>> = OnceCell::const_new();
    let watch = async || {
        Box::pin(watch())
            .await
            .map_err(|error| format!("{error:#}"))
    };
    let seen = SEEN.get_or_init(watch).await;
    seen.as_ref().unwrap_or_else(|error| panic!("{error}"))
}

/// How long Prometheus may take until every query gives something; the counts of a few scrapes will do.
const SOON: Duration = Duration::from_secs(40);

async fn watch() -> Result<Seen> {
    let dashboard = dashboard()?;
    let mut brokers = Brokers::start(1).await?;
    let setup = Setup {
        regions: 2,
        ..Setup::default()
    };
    let rig = Box::pin(Rig::start(&mut brokers, &setup)).await?;
    let at_start = Families::parse(&rig.bridge.metrics_text().await?)?;
    let target = rig.bridge.admin.trim_start_matches("http://");
    let prometheus = Prometheus::start(target, &file("deploy/prometheus/rules.yml")).await?;
    rig.load(&Load {
        events_per_second: 500.0,
        copies: 0.1,
        odd: 0.05,
        ..Load::default()
    })
    .await?;
    let empty = all_give_something(&prometheus, &dashboard).await?;
    let mut variables = Vec::new();
    for variable in &dashboard.variables {
        let selector = substituted(&variable.selector, ".*");
        let values = prometheus.label_values(&selector, &variable.label).await?;
        variables.push((variable.name.clone(), values));
    }
    for expression in &dashboard.annotations {
        let marked = prometheus.query(&substituted(expression, ".*")).await?;
        let is_there = !marked.is_empty() || !expression.contains("build_info");
        ensure!(is_there, "a start is not marked: {expression}");
    }
    // Odd events are the load's, so that one alert must come.
    wait_for("the alert of dead letters", SOON, async || {
        let firing = firing(&prometheus).await.unwrap_or_default();
        firing.contains("RtmBridgeDeadLetters")
    })
    .await?;
    let firing = firing(&prometheus).await?;
    let alerts = prometheus.alerts().await?;
    let text = rig.bridge.metrics_text().await?;
    let refused = refused(&rig).await?;
    let report = Box::pin(rig.finish()).await?;
    ensure!(report.kept(), "{:?}\n{report}", report.broken);
    report.discard()?;
    Ok(Seen {
        at_start,
        under_load: Families::parse(&text)?,
        text,
        empty,
        variables,
        alerts,
        firing,
        refused,
    })
}

/// Has the credentials refused, with no events that could be lost by it.
async fn refused(rig: &Rig<'_>) -> Result<Metrics> {
    rig.load(&Load {
        events_per_second: 0.0,
        ..Load::default()
    })
    .await?;
    rig.faults(&Faults {
        status: 1.0,
        statuses: vec![401],
        ..Faults::default()
    })
    .await?;
    wait_for("a refused request", SOON, async || {
        let metrics = rig.bridge.metrics().await;
        let refused = [("outcome", "refused")];
        metrics.is_ok_and(|metrics| {
            metrics
                .sum("rtm_bridge_polls_total", &refused)
                .is_ok_and(|count| count > 0.0)
        })
    })
    .await?;
    rig.bridge.metrics().await
}

fn dashboard() -> Result<Dashboard> {
    Dashboard::parse(&text("deploy/grafana/dashboards/rtm-bridge.json")?)
}

/// Asks every query of the dashboard, those of repeated rows for each sink, until each has given something; says which
/// have not.
async fn all_give_something(prometheus: &Prometheus, dashboard: &Dashboard) -> Result<Vec<String>> {
    let mut open: Vec<(&Panel, &Query, &str)> = Vec::new();
    for panel in &dashboard.panels {
        let sinks: &[&str] = match panel.repeated.as_deref() {
            Some("sink") => &["kafka", "nats"],
            _ => &[".*"],
        };
        for query in &panel.queries {
            open.extend(sinks.iter().map(|sink| (panel, query, *sink)));
        }
    }
    ensure!(open.len() > 40, "only {} queries", open.len());
    let end = Instant::now() + SOON;
    loop {
        let mut still = Vec::new();
        let mut why = Vec::new();
        for (panel, query, sink) in open {
            let expression = substituted(&query.expression, sink);
            let samples = prometheus.query(&expression).await;
            let samples = samples.with_context(|| panel.title.clone())?;
            // A quantile of nothing is not a number.
            let is_there = samples.iter().any(|sample| !sample.value.is_nan());
            let lacks = query.legend_labels().into_iter().find(|label| {
                samples
                    .iter()
                    .any(|sample| !sample.labels.contains_key(*label))
            });
            if !is_there || lacks.is_some() {
                why.push(format!(
                    "{}: {expression}: no {lacks:?} in {samples:?}",
                    panel.title
                ));
                still.push((panel, query, sink));
            }
        }
        if still.is_empty() || Instant::now() > end {
            return Ok(why);
        }
        open = still;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// With values in the place of Grafana's variables.
fn substituted(expression: &str, sink: &str) -> String {
    let mut text = expression
        .replace("$__rate_interval", "5s")
        .replace("$__range_s", "30")
        .replace("$__range", "30s")
        .replace("$sink", sink);
    for variable in ["job", "instance", "app", "region"] {
        text = text.replace(&format!("${variable}"), ".*");
    }
    assert!(!text.contains('$'), "an unknown variable in {text}");
    text
}

async fn firing(prometheus: &Prometheus) -> Result<BTreeSet<String>> {
    let alerts = prometheus.query(r#"ALERTS{alertstate="firing"}"#).await?;
    let name = |labels: &serde_json::Map<String, serde_json::Value>| {
        let name = labels["alertname"].as_str().unwrap_or_default();
        name.to_owned()
    };
    Ok(alerts.iter().map(|alert| name(&alert.labels)).collect())
}

/// The names in `expression` that a scrape of the bridge does not give.
fn unknown(seen: &Seen, expression: &str) -> Vec<String> {
    let names = metric_names(expression).into_iter();
    names
        .filter(|name| name != "up" && !seen.under_load.has(name))
        .collect()
}

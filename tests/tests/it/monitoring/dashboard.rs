//! The Grafana dashboard.

use std::collections::BTreeSet;

use rtm_tests::monitoring::{decode_strictly, file, promtool, text};
use serde_json::Value;

use super::{dashboard, seen, substituted, unknown};

/// Holds: every query of the dashboard, asked of a Prometheus that scrapes a bridge under load, gives data, with the
/// labels that its legend names. None may be empty: every series exists at zero from the start.
#[tokio::test(flavor = "multi_thread")]
async fn every_query_gives_data() {
    let seen = seen().await;
    assert!(seen.empty.is_empty(), "{}", seen.empty.join("\n"));
}

/// Holds: the dashboard's variables find the bridge's jobs, instances, apps, regions and sinks.
#[tokio::test(flavor = "multi_thread")]
async fn variables_have_values() {
    let seen = seen().await;
    let names: Vec<_> = seen.variables.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["job", "instance", "app", "region", "sink"]);
    for (name, values) in &seen.variables {
        match name.as_str() {
            "job" => assert_eq!(values, &["rtm-bridge"]),
            "instance" => assert_eq!(values.len(), 1, "{values:?}"),
            "app" => assert_eq!(values, &["main"]),
            "region" => assert_eq!(values, &["eu-west-1", "us-east-1"]),
            _ => assert_eq!(values, &["kafka", "nats"]),
        }
    }
}

/// Holds: every metric that the dashboard names is in `/metrics`.
#[tokio::test(flavor = "multi_thread")]
async fn every_metric_exists() {
    let seen = seen().await;
    let dashboard = dashboard().unwrap();
    let queries = dashboard.panels.iter().flat_map(|panel| &panel.queries);
    let variables = dashboard.variables.iter();
    let expressions = queries
        .map(|query| &query.expression)
        .chain(variables.map(|variable| &variable.selector));
    for expression in expressions {
        let unknown = unknown(seen, expression);
        assert!(unknown.is_empty(), "{unknown:?} in {expression}");
    }
}

/// Holds: the dashboard decodes strictly into the types of Grafana's foundation SDK; and the check is strict, down to
/// a panel's options, its queries and its thresholds.
#[test]
fn decodes_strictly() {
    let path = file("deploy/grafana/dashboards/rtm-bridge.json");
    decode_strictly(&path).unwrap();
    let document = dashboard().unwrap().document;
    let dir = tempfile::tempdir().unwrap();
    let broken = dir.path().join("broken.json");
    for place in [
        "",
        "/panels/1",
        "/panels/1/options",
        "/panels/1/targets/0",
        "/panels/1/fieldConfig/defaults/thresholds",
        "/panels/9/fieldConfig/defaults/custom",
        "/templating/list/1",
    ] {
        let mut document = document.clone();
        document.pointer_mut(place).unwrap()["unheardOf"] = Value::from(1);
        std::fs::write(&broken, document.to_string()).unwrap();
        let error = decode_strictly(&broken).expect_err(place).to_string();
        assert!(error.contains("unheardOf"), "{place}: {error}");
    }
    let mut wrong = document;
    *wrong.pointer_mut("/panels/1/title").unwrap() = Value::from(1);
    std::fs::write(&broken, wrong.to_string()).unwrap();
    decode_strictly(&broken).expect_err("a number is no title");
}

/// Holds: the first row answers the two first questions; each panel has a description, a unit, thresholds, and takes
/// its data from the variable; rates are over `$__rate_interval`.
#[test]
fn keeps_its_own_rules() {
    let dashboard = dashboard().unwrap();
    assert_eq!(dashboard.document["uid"], "rtm-bridge");
    assert_eq!(
        dashboard.document["panels"][0]["title"],
        "Am I losing data? Is anything behind?"
    );
    assert_eq!(
        dashboard.document["templating"]["list"][0]["type"],
        "datasource"
    );
    let mut ids = BTreeSet::new();
    for panel in dashboard.document["panels"].as_array().unwrap() {
        assert!(
            ids.insert(panel["id"].as_u64().unwrap()),
            "two of an id: {panel}"
        );
    }
    for panel in &dashboard.panels {
        let (title, document) = (&panel.title, &panel.document);
        let defaults = &document["fieldConfig"]["defaults"];
        assert!(
            document["description"]
                .as_str()
                .is_some_and(|text| text.len() > 20),
            "{title}"
        );
        assert!(defaults["unit"].is_string(), "{title}");
        let steps = defaults["thresholds"]["steps"].as_array();
        assert!(steps.is_some_and(|steps| !steps.is_empty()), "{title}");
        for target in document["targets"].as_array().unwrap() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
        }
        for query in &panel.queries {
            let windows = query.expression.split('[').skip(1);
            for window in windows.map(|rest| rest.split(']').next().unwrap()) {
                assert!(
                    matches!(window, "$__rate_interval" | "$__range"),
                    "{title}: {window}"
                );
            }
            for name in ["job", "instance"] {
                let matcher = format!("{name}=~\"${name}\"");
                let selectors = query.expression.matches('{').count();
                assert_eq!(
                    query.expression.matches(&matcher).count(),
                    selectors,
                    "{title}"
                );
            }
        }
    }
}

/// Holds: a ring that a start found full is shown as overwriting, though its count has not increased since it was first
/// seen; a count of long ago is not shown. A ring that was never read has waited since the start, and not since 1970.
#[test]
fn a_start_is_shown_as_it_is() {
    let dashboard = dashboard().unwrap();
    let query = |title: &str, legend: &str| {
        let panel = dashboard.panels.iter().find(|panel| panel.title == title);
        let mut queries = panel.unwrap().queries.iter();
        let query = queries.find(|query| query.legend == legend).unwrap();
        substituted(&query.expression, ".*").replace('\n', " ")
    };
    let series = |name: &str, instance: &str, app: &str, values: &str| {
        format!(
            "      - series: '{name}{{job=\"b\",instance=\"{instance}\",app=\"{app}\",region=\"eu\",stream=\"user\"}}'\n        \
             values: '{values}'\n"
        )
    };
    let test = |expression: &str, samples: &[(&str, f64)]| {
        let mut text =
            format!("      - expr: '{expression}'\n        eval_time: 12m\n        exp_samples:\n");
        for (labels, value) in samples {
            text += &format!("          - labels: '{labels}'\n            value: {value}\n");
        }
        text
    };
    let full = "rtm_bridge_overflow_suspected_total";
    let lost = "rtm_bridge_overflow_events_estimated_total";
    let polled = "rtm_bridge_last_successful_poll_timestamp_seconds";
    // Half a minute is looked at. `new` started 20 s ago, with the counts that it had before; `old` long ago.
    let mut document = "tests:\n  - interval: 15s\n    input_series:\n".to_owned();
    for (instance, start) in [("new", 700), ("old", 0)] {
        document += &format!(
            "      - series: 'process_start_time_seconds{{job=\"b\",instance=\"{instance}\"}}'\n        values: '{start}x48'\n"
        );
    }
    document += &series(full, "new", "a", "3x48");
    document += &series(full, "old", "a", "5x48");
    document += &series(lost, "new", "a", "700x48");
    document += &series(lost, "old", "a", "0x48");
    document += &series(polled, "new", "a", "0x48");
    document += &series(polled, "old", "c", "0+15x47 715");
    document += "    promql_expr_test:\n";
    let overwritten = |legend: &str| query("Overwritten at Agora", legend);
    document += &test(&overwritten("suspected"), &[("{}", 3.0)]);
    document += &test(&overwritten("events, estimated"), &[("{}", 700.0)]);
    document += &test(
        &query("Last successful poll", "{{app}}"),
        &[("{app=\"a\"}", 20.0), ("{app=\"c\"}", 5.0)],
    );
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("test.yml"), document).unwrap();
    promtool(dir.path(), &["test", "rules", "test.yml"], "").unwrap();
}

/// Holds: the runbook's sections that panels name are there.
#[test]
fn names_sections_of_the_runbook() {
    let runbook = text("docs/runbook.md").unwrap();
    for panel in dashboard().unwrap().panels {
        let description = panel.document["description"].as_str().unwrap();
        let words = description.split(|char: char| !char.is_alphanumeric());
        for alert in words.filter(|word| word.starts_with("RtmBridge")) {
            assert!(
                runbook.contains(&format!("\n## {alert}\n")),
                "{}: {alert}",
                panel.title
            );
        }
    }
}

/// Holds: what docker compose mounts of `deploy/` is there, and Grafana is told the path that it has inside.
#[test]
fn docker_compose_mounts_what_exists() {
    let compose = text("docker-compose.yml").unwrap();
    let mounts: Vec<_> = compose
        .lines()
        .filter_map(|line| {
            line.trim()
                .strip_prefix("- ./")?
                .strip_suffix(":ro")?
                .split_once(':')
        })
        .collect();
    assert!(mounts.len() >= 5, "{mounts:?}");
    for (ours, _) in &mounts {
        assert!(file(ours).exists(), "{ours}");
    }
    let inside = "/etc/grafana/dashboards";
    assert!(mounts.contains(&("deploy/grafana/dashboards", inside)));
    assert!(compose.contains(&format!("HOME_DASHBOARD_PATH: {inside}/rtm-bridge.json")));
    let provider = text("deploy/grafana/provisioning/dashboards/rtm-bridge.yml").unwrap();
    assert!(provider.contains(&format!("path: {inside}\n")));
}

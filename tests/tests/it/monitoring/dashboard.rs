//! The Grafana dashboard.

use std::collections::BTreeSet;

use rtm_tests::monitoring::{Panel, decode_strictly, file, promtool, text};
use serde_json::Value;

use super::alerts::RUNBOOK;
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
        .chain(variables.map(|variable| &variable.selector))
        .chain(&dashboard.annotations);
    for expression in expressions {
        let mut unknown = unknown(seen, expression);
        // Prometheus' own, of the alerts that fire.
        unknown.retain(|name| name != "ALERTS");
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
        "/panels/10/fieldConfig/defaults/custom",
        "/panels/13/panels/0/options",
        "/panels/13/panels/0/targets/0",
        "/panels/13/panels/0/fieldConfig/defaults/thresholds",
        "/annotations/list/1",
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
    let all = dashboard.document["panels"].as_array().unwrap().iter();
    let rows: Vec<_> = all.filter(|panel| panel["type"] == "row").collect();
    let documents = dashboard.panels.iter().map(|panel| &panel.document);
    for panel in documents.chain(rows.iter().copied()) {
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

/// Holds: the first row is open, every other closed, so that it is asked only when someone looks; starts, configurations
/// and alerts are marked; links lead to the runbook's sections and to the status page.
#[test]
fn leads_on() {
    let dashboard = dashboard().unwrap();
    let all = dashboard.document["panels"].as_array().unwrap().iter();
    let rows: Vec<_> = all.filter(|panel| panel["type"] == "row").collect();
    assert!(rows.len() > 4 && rows[0]["collapsed"] == false);
    for row in &rows[1..] {
        assert_eq!(row["collapsed"], true, "{}", row["title"]);
    }
    let marked = dashboard.annotations.concat();
    for what in [
        "process_start_time_seconds",
        "config_last_reload_success",
        "ALERTS",
    ] {
        assert!(marked.contains(what), "{what} is not marked");
    }
    for panel in &dashboard.panels {
        let description = panel.document["description"].as_str().unwrap();
        let words = description.split(|char: char| !char.is_alphanumeric());
        let named = words.filter(|word| word.starts_with("RtmBridge"));
        let named: Vec<_> = named
            .map(|alert| format!("{RUNBOOK}{}", alert.to_lowercase()))
            .collect();
        let links = panel.document["links"].as_array().into_iter().flatten();
        let links: Vec<_> = links.filter_map(|link| link["url"].as_str()).collect();
        assert_eq!(links, named, "{}", panel.title);
    }
    let status = "http://${__field.labels.instance}/";
    let leads = |panel: &Panel| {
        panel.document["fieldConfig"]["defaults"]["links"][0]["url"] == status
            && panel.queries[0].legend.contains("{{instance}}")
    };
    assert!(
        dashboard.panels.iter().any(leads),
        "no link to a status page"
    );
}

/// Holds: nothing is red by its place in a palette, in which red is the fifth: what means trouble has its colour by its name. What is stacked has no series of zeros, whose line would lie on top of the others.
#[test]
fn colours_go_by_name() {
    let red = |panel: &Panel, name: &str| {
        let overrides = panel.document["fieldConfig"]["overrides"].as_array();
        let of = |one: &&Value| one["matcher"]["options"] == name;
        let one = overrides.unwrap().iter().find(of);
        let one = one.unwrap_or_else(|| panic!("{}: no colour of {name}", panel.title));
        one["properties"][0]["value"]["fixedColor"]
            .as_str()
            .unwrap()
            .contains("red")
    };
    let dashboard = dashboard().unwrap();
    for panel in &dashboard.panels {
        let (title, defaults) = (&panel.title, &panel.document["fieldConfig"]["defaults"]);
        let mode = defaults["color"]["mode"].as_str().unwrap();
        if mode == "palette-classic" {
            // Its first four are no red. All else has a colour of its own.
            assert!(panel.queries[0].expression.contains("topk(4, "), "{title}");
            for query in &panel.queries[1..] {
                let begin = query.legend.split("{{").next().unwrap();
                let overrides = panel.document["fieldConfig"]["overrides"].as_array();
                let is_own = |one: &Value| {
                    let name = one["matcher"]["options"].as_str().unwrap();
                    let name = name.trim_start_matches("/^").trim_end_matches(".*/");
                    one["properties"][0]["id"] == "color" && begin.starts_with(name)
                };
                assert!(overrides.unwrap().iter().any(is_own), "{title}: {begin}");
            }
        } else {
            assert!(["thresholds", "shades"].contains(&mode), "{title}: {mode}");
        }
        if title == "Requests by outcome" {
            let outcomes = ["page", "empty", "not_sent", "refused", "in_doubt"];
            assert_eq!(
                outcomes.map(|name| red(panel, name)),
                [false, false, false, false, true]
            );
        }
        let custom = &defaults["custom"];
        if custom["stacking"]["mode"] == "normal" {
            let is_bars = custom["drawStyle"] == "bars" && custom["lineWidth"] == 0;
            for query in &panel.queries {
                assert!(
                    is_bars || query.expression.contains("> 0"),
                    "{title}: {}",
                    query.expression
                );
            }
        }
    }
}

/// Holds: with 200 App IDs, no panel has a series for each: what is by App ID is of those with most.
#[test]
fn many_apps_fit() {
    let mut checked = 0;
    for panel in dashboard().unwrap().panels {
        for query in &panel.queries {
            if query.legend_labels().contains(&"app") {
                assert!(
                    query.expression.contains("topk("),
                    "{}: {}",
                    panel.title,
                    query.expression
                );
                checked += 1;
            }
        }
    }
    assert!(checked > 8, "{checked}");
}

/// Holds: the time until the journal is full, as the runbook computes it and as the dashboard shows it, is right from the
/// first minute of an outage and never negative: with a journal that has just shrunk by a segment, with small responses,
/// which count as more than they take, with a disk that is smaller than the journal, and with a journal that is full.
/// Without an outage there is none.
#[test]
fn the_time_until_full_is_right() {
    let dashboard = dashboard().unwrap();
    let panel = |panel: &&Panel| panel.title == "Time until the journal is full";
    let panel = dashboard.panels.iter().find(panel).unwrap();
    let shown = &panel.queries[0].expression;
    let runbook = text("docs/runbook.md").unwrap();
    let section = runbook.split("\n## RtmBridgeSinkDown\n").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let told = section.split("```promql\n").nth(1).unwrap();
    let told = told.split("```").next().unwrap();
    const GIB: f64 = 1_073_741_824.0;
    // An outage begins at 5:00 and is looked at 30 s, 90 s and 10 min later. Of each instance: how many bytes and
    // responses a second wait, what the journal takes on disk at first, its free disk; and when it will be full.
    let cases = [
        // 1 MiB a second, 8/7 of it as a part of 4 GiB; the 100 MiB on disk are of before.
        ("large", 1_048_576.0, 10.0, 0.1 * GIB, 1000.0 * GIB),
        ("small", 1000.0, 10.0, 0.0, 1000.0 * GIB),
        ("disk", 1_048_576.0, 10.0, 0.0, 1.25 * GIB),
        ("full", 1_048_576.0, 10.0, 4.0 * GIB, 1000.0 * GIB),
    ];
    let mut document = "tests:\n".to_owned();
    for (instance, bytes, entries, on_disk, free) in cases {
        let labels = format!("job=\"b\",instance=\"{instance}\"");
        let outlet = format!("{labels},app=\"a\",sink=\"kafka\"");
        let idle = format!("{labels},app=\"a\",sink=\"nats\"");
        let limit = 4.0 * GIB;
        // Every quarter of a minute; the journal shrank at 4:00 by a segment.
        let steps = || (0..=68).map(|step| f64::from(step) * 15.0);
        let waited = |time: f64| (time - 300.0).max(0.0);
        let charged = f64::max(bytes, entries * limit / 1_048_576.0) * 8.0 / 7.0;
        let used = |time: f64| {
            let segment = if time < 240.0 { GIB / 16.0 } else { 0.0 };
            (on_disk + segment).max(charged * waited(time))
        };
        let list = |of: &dyn Fn(f64) -> f64| -> String {
            steps().map(|time| format!("{} ", of(time))).collect()
        };
        let series = [
            ("rtm_bridge_build_info", &labels, list(&|_| 1.0)),
            ("rtm_bridge_journal_limit_bytes", &labels, list(&|_| limit)),
            ("rtm_bridge_journal_used_bytes", &labels, list(&used)),
            (
                "rtm_bridge_journal_free_disk_bytes",
                &labels,
                list(&|_| free),
            ),
            (
                "rtm_bridge_journal_min_free_disk_bytes",
                &labels,
                list(&|_| GIB / 4.0),
            ),
            (
                "rtm_bridge_journal_pending_bytes",
                &outlet,
                list(&|time| bytes * waited(time)),
            ),
            (
                "rtm_bridge_journal_pending_entries",
                &outlet,
                list(&|time| entries * waited(time)),
            ),
            (
                "rtm_bridge_journal_oldest_pending_age_seconds",
                &outlet,
                list(&waited),
            ),
            ("rtm_bridge_journal_pending_bytes", &idle, list(&|_| 0.0)),
            ("rtm_bridge_journal_pending_entries", &idle, list(&|_| 0.0)),
            (
                "rtm_bridge_journal_oldest_pending_age_seconds",
                &idle,
                list(&|_| 0.0),
            ),
        ];
        document += "  - interval: 15s\n    input_series:\n";
        for (name, labels, values) in series {
            document += &format!(
                "      - series: '{name}{{{labels}}}'\n        values: '{}'\n",
                values.trim()
            );
        }
        document += "    promql_expr_test:\n";
        for (expression, labels) in [
            (shown, String::new()),
            (&told.to_owned(), format!("{labels},sink=\"kafka\"")),
        ] {
            let expression = substituted(expression, ".*").replace('\n', " ");
            for time in [280.0, 330.0, 390.0, 900.0] {
                let room = (limit - used(time)).min(free - GIB / 4.0).max(0.0);
                let left = room / charged;
                let is_shown = labels.is_empty();
                // To the second: the fractions are of another order of the same operations.
                document +=
                    &format!("      - expr: 'round({expression})'\n        eval_time: {time}s\n");
                document += "        exp_samples:";
                if time < 300.0 && is_shown {
                    document += "\n          - labels: '{}'\n            value: 8640000\n";
                } else if time < 300.0 {
                    document += " []\n";
                } else {
                    document += &format!(
                        "\n          - labels: '{{{labels}}}'\n            value: {}\n",
                        left.round()
                    );
                }
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("test.yml"), document).unwrap();
    promtool(dir.path(), &["test", "rules", "test.yml"], "").unwrap();
}

/// Holds: what a bridge has lost shows after a restart with another instance, whose series begin with it; old losses do
/// not.
#[test]
fn a_new_instance_shows_what_it_lost() {
    let dashboard = dashboard().unwrap();
    let mut document = "evaluation_interval: 5s\ntests:\n".to_owned();
    for (title, name, labels) in [
        (
            "Possibly lost at Agora",
            "events_possibly_lost_total",
            "app=\"a\",region=\"eu\",stream=\"user\",reason=\"crash\"",
        ),
        (
            "Given up after storing",
            "records_dropped_total",
            "app=\"a\",sink=\"kafka\",reason=\"damaged\"",
        ),
    ] {
        let panel = dashboard.panels.iter().find(|panel| panel.title == title);
        let expression = &panel.unwrap().queries[0].expression;
        let expression = substituted(expression, ".*").replace('\n', " ");
        for (values, shown) in [("_x4 7x8", 0), ("_x4 1007x8", 1000)] {
            document += "  - interval: 5s\n    input_series:\n";
            for (instance, values) in [("old", "7x4 stale"), ("new", values)] {
                document += &format!(
                    "      - series: 'rtm_bridge_{name}{{job=\"b\",instance=\"{instance}\",pod=\"{instance}\",{labels}}}'\n        values: '{values}'\n"
                );
            }
            document += &format!(
                "    promql_expr_test:\n      - expr: '{expression}'\n        eval_time: 35s\n        exp_samples:\n          \
                 - labels: '{{}}'\n            value: {shown}\n"
            );
        }
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("test.yml"), document).unwrap();
    promtool(dir.path(), &["test", "rules", "test.yml"], "").unwrap();
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

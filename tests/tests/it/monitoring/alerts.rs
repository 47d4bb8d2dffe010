//! Alerting rules and the runbook.

use std::collections::{BTreeMap, BTreeSet};

use rtm_tests::monitoring::{file, installed, promtool, text};

use super::{seen, unknown};

pub(super) const RUNBOOK: &str =
    "https://github.com/rtm-bridge/rtm-bridge/blob/main/docs/runbook.md#";

/// Holds: the rules are valid, and so is the configuration of docker compose, which loads them.
#[test]
fn promtool_accepts_rules_and_configuration() {
    let dir = file("deploy/prometheus");
    promtool(&dir, &["check", "rules", "rules.yml"], "").unwrap();
    let said = promtool(&dir, &["check", "config", "prometheus.yml"], "").unwrap();
    assert!(said.contains("1 rule files found"), "{said}");
}

/// Holds: the example for Alertmanager names alerts that there are, keeps quiet about no lost event, and is valid.
#[tokio::test(flavor = "multi_thread")]
async fn alertmanager_groups_what_there_is() {
    let path = "deploy/prometheus/alertmanager.yml";
    let example = text(path).unwrap();
    let words = example.split(|char: char| !char.is_ascii_alphanumeric());
    let named: BTreeSet<&str> = words.filter(|word| word.starts_with("RtmBridge")).collect();
    let seen = seen().await;
    let alerts: BTreeSet<&str> = seen.alerts.iter().map(|alert| &*alert.name).collect();
    assert!(named.len() > 8 && named.is_subset(&alerts), "{named:?}");
    for line in example
        .lines()
        .filter(|line| line.contains("target_matchers"))
    {
        for lost in [
            "PossiblyLost",
            "Overflow",
            "GivenUp",
            "Unbalanced",
            "JournalFailing",
        ] {
            assert!(!line.contains(lost), "{line}");
        }
    }
    assert!(example.contains("group_by: [job]"));
    let mut amtool = installed("amtool", "prometheus-alertmanager").unwrap();
    let checked = amtool.arg("check-config").arg(file(path)).output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
}

/// Holds: each alert fires when it should and is silent when it should be, over resets of counters, restarts and absent
/// series.
#[test]
fn alerts_fire_and_are_silent() {
    promtool(
        &file("deploy/prometheus"),
        &["test", "rules", "rules.test.yml"],
        "",
    )
    .unwrap();
}

/// Holds: the tests of the rules have, for each alert, a case in which it fires and one in which it does not.
#[tokio::test(flavor = "multi_thread")]
async fn each_alert_is_tested_both_ways() {
    let seen = seen().await;
    let text = text("deploy/prometheus/rules.test.yml").unwrap();
    let mut cases: BTreeMap<&str, BTreeSet<bool>> = BTreeMap::new();
    let mut alert = None;
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("alertname: ") {
            alert = Some(name);
        } else if let (Some(rest), Some(name)) = (line.strip_prefix("exp_alerts:"), alert.take()) {
            cases.entry(name).or_default().insert(rest.is_empty());
        }
    }
    assert_eq!(alert, None, "a case without exp_alerts");
    let both = BTreeSet::from([false, true]);
    for alert in &seen.alerts {
        assert_eq!(cases.get(&*alert.name), Some(&both), "{}", alert.name);
    }
}

/// Holds: Prometheus evaluates every rule; under load, with odd events, the alert of dead letters fires and no other.
#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_bridge_is_silent() {
    let seen = seen().await;
    for alert in &seen.alerts {
        assert_eq!(alert.health, "ok", "{}", alert.name);
    }
    assert_eq!(
        seen.firing,
        BTreeSet::from(["RtmBridgeDeadLetters".to_owned()])
    );
}

/// Holds: every metric that a rule or the runbook names is in `/metrics`.
#[tokio::test(flavor = "multi_thread")]
async fn every_metric_exists() {
    let seen = seen().await;
    for alert in &seen.alerts {
        let unknown = unknown(seen, &alert.expression);
        assert!(unknown.is_empty(), "{unknown:?} in {}", alert.name);
    }
    let runbook = text("docs/runbook.md").unwrap();
    let words = runbook.split(|char: char| !char.is_ascii_alphanumeric() && char != '_');
    let names =
        words.filter(|word| word.starts_with("rtm_bridge_") || word.starts_with("process_"));
    for name in names {
        let is_family = seen.under_load.0.contains_key(name);
        assert!(
            is_family || seen.under_load.has(name),
            "{name} in the runbook"
        );
    }
}

/// Holds: every alert has its section in the runbook, with its severity, and every section its alert; each says what it
/// means, what it costs, how to look and what to do.
#[tokio::test(flavor = "multi_thread")]
async fn every_alert_has_its_section() {
    let seen = seen().await;
    let runbook = text("docs/runbook.md").unwrap();
    let sections: BTreeMap<&str, &str> = runbook
        .split("\n## ")
        .skip(1)
        .filter_map(|section| section.split_once('\n'))
        .collect();
    let names: BTreeSet<&str> = seen.alerts.iter().map(|alert| &*alert.name).collect();
    assert!(
        names.len() >= 13 && names.len() == seen.alerts.len(),
        "{names:?}"
    );
    assert_eq!(names, sections.keys().copied().collect());
    for alert in &seen.alerts {
        let (name, section) = (&alert.name, sections[&*alert.name]);
        let rest = name.strip_prefix("RtmBridge").expect(name);
        assert!(rest.starts_with(char::is_uppercase) && rest.chars().all(char::is_alphanumeric));
        let mut severity = alert.severity.clone();
        assert!(
            ["critical", "warning", "info"].contains(&&*severity),
            "{name}"
        );
        severity[..1].make_ascii_uppercase();
        assert!(
            section.trim_start().starts_with(&format!("{severity}.\n")),
            "{name}"
        );
        let mut rest = section;
        for part in [
            "**Meaning.**",
            "**Impact.**",
            "**Diagnosis.**",
            "**Action.**",
        ] {
            rest = rest
                .split_once(part)
                .unwrap_or_else(|| panic!("{name}: no {part}"))
                .1;
        }
        let keys: Vec<_> = alert.annotations.keys().map(String::as_str).collect();
        assert_eq!(keys, ["description", "runbook_url", "summary"], "{name}");
        assert_eq!(
            alert.annotations["runbook_url"],
            format!("{RUNBOOK}{}", name.to_lowercase())
        );
    }
}

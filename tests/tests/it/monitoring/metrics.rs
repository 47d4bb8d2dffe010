//! `/metrics` and its reference.

use std::collections::{BTreeMap, BTreeSet};

use rtm_tests::monitoring::{file, promtool, text};

use super::seen;

/// Holds: `promtool check metrics` finds nothing in `/metrics` to object to: names, units, help texts.
#[tokio::test(flavor = "multi_thread")]
async fn promtool_accepts_the_metrics() {
    let seen = seen().await;
    let said = promtool(&file("."), &["check", "metrics"], &seen.text).unwrap();
    assert_eq!(said, "");
}

/// Holds: every series exists from the start, and none comes under load, with odd events and copies too.
#[tokio::test(flavor = "multi_thread")]
async fn every_series_is_there_from_the_start() {
    let seen = seen().await;
    let (before, after) = (seen.at_start.series(), seen.under_load.series());
    let came: Vec<_> = after.difference(&before).collect();
    let went: Vec<_> = before.difference(&after).collect();
    assert!(
        came.is_empty() && went.is_empty(),
        "came: {came:?}, went: {went:?}"
    );
}

/// Holds: labels are those of the list, with values of the configuration or of fixed sets. No user, no channel.
#[tokio::test(flavor = "multi_thread")]
async fn labels_come_from_the_configuration() {
    let seen = seen().await;
    let configured = BTreeMap::from([
        ("app", &["main"][..]),
        ("region", &["eu-west-1", "us-east-1"]),
        ("stream", &["channel", "user"]),
        ("sink", &["kafka", "nats"]),
    ]);
    let fixed = ["outcome", "reason", "result", "version", "commit", "le"];
    let mut values: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (label, value) in seen.under_load.0.values().flat_map(|family| &family.values) {
        values.entry(label).or_default().insert(value);
    }
    for (label, found) in values {
        match configured.get(label) {
            Some(expected) => assert!(found.iter().eq(*expected), "{label}: {found:?}"),
            None => assert!(fixed.contains(&label), "{label}: {found:?}"),
        }
    }
}

/// Holds: `docs/metrics.md` has every metric, with its type and its labels, and no other.
#[tokio::test(flavor = "multi_thread")]
async fn the_reference_lists_every_metric() {
    let seen = seen().await;
    let text = text("docs/metrics.md").unwrap();
    let documented: BTreeSet<_> = text.lines().filter_map(row).collect();
    let families = seen.under_load.0.iter();
    let real: BTreeSet<_> = families
        .map(|(name, family)| (name.clone(), family.kind.clone(), family.labels.clone()))
        .collect();
    let missing: Vec<_> = real.difference(&documented).collect();
    let too_many: Vec<_> = documented.difference(&real).collect();
    assert!(
        missing.is_empty() && too_many.is_empty(),
        "not documented so: {missing:#?}\ndocumented, and not so: {too_many:#?}"
    );
}

/// Holds: the ages of events in an outage of a minute to half an hour can be told apart: no bucket there ends at more than
/// twice the age of the one below it.
#[tokio::test(flavor = "multi_thread")]
async fn ages_of_an_outage_can_be_told_apart() {
    let seen = seen().await;
    let ages = &seen.under_load.0["rtm_bridge_event_age_seconds"];
    let bounds = ages.values.iter().filter(|(label, _)| label == "le");
    let mut bounds: Vec<f64> = bounds.map(|(_, value)| value.parse().unwrap()).collect();
    bounds.sort_by(f64::total_cmp);
    for pair in bounds
        .windows(2)
        .filter(|pair| (60.0..1800.0).contains(&pair[0]))
    {
        assert!(pair[1] <= 2.0 * pair[0], "{bounds:?}");
    }
    assert!(bounds.contains(&60.0) && bounds.contains(&1800.0) && bounds.contains(&86400.0));
}

/// Holds: refused credentials are counted, apart from 429s; what alerts compare with is what the configuration says.
#[tokio::test(flavor = "multi_thread")]
async fn alerts_are_told_what_they_ask_for() {
    let seen = seen().await;
    let of = |name: &str| {
        let name = format!("rtm_bridge_{name}");
        seen.refused.sum(&name, &[]).unwrap()
    };
    assert!(of("credentials_refused_total") > 0.0);
    assert_eq!(of("rate_limited_total"), 0.0);
    assert_eq!(of("journal_min_free_disk_bytes"), 256.0 * 1024.0 * 1024.0);
    assert_eq!(of("config_last_reload_successful"), 1.0);
    let taken = of("config_last_reload_success_timestamp_seconds");
    let started = seen.refused.sum("process_start_time_seconds", &[]).unwrap();
    assert!((taken - started).abs() < 30.0, "{taken} {started}");
}

/// Holds: every value that `outcome` and `reason` can have stands in the reference.
#[tokio::test(flavor = "multi_thread")]
async fn the_reference_lists_every_outcome_and_reason() {
    let seen = seen().await;
    let text = text("docs/metrics.md").unwrap();
    for (label, value) in seen.under_load.0.values().flat_map(|family| &family.values) {
        if matches!(label.as_str(), "outcome" | "reason") {
            assert!(text.contains(&format!("`{value}`")), "{label} {value}");
        }
    }
}

/// Name, type and labels of a row of the reference's tables: metric, type, labels, unit, meaning.
fn row(line: &str) -> Option<(String, String, BTreeSet<String>)> {
    let cells: Vec<&str> = line.trim_matches('|').split(" |").map(str::trim).collect();
    let [name, kind, labels, unit, meaning] = cells.as_slice() else {
        return None;
    };
    let name = name.strip_prefix('`')?.strip_suffix('`')?;
    assert!(!unit.is_empty() && !meaning.is_empty(), "{line}");
    let labels = labels.split(", ").filter(|label| !label.is_empty());
    let labels = labels.map(|label| label.trim_matches('`').to_owned());
    Some((name.to_owned(), (*kind).to_owned(), labels.collect()))
}

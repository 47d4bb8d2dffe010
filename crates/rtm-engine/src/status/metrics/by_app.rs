//! The rings of an App ID as one: series without `region` and `stream`, for whoever has hundreds of App IDs.

use std::collections::BTreeMap;

use prometheus::proto::{Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily};

/// The labels that tell a ring.
const OF_RING: [&str; 2] = ["region", "stream"];

/// The metric of which the oldest ring's value says how an App ID is; of all others the sum does.
const OLDEST: &str = "rtm_bridge_last_successful_poll_timestamp_seconds";

/// Puts series together that only a ring's labels tell apart.
pub(super) fn merge(family: &mut MetricFamily) {
    let of_ring = |label: &LabelPair| OF_RING.contains(&label.name());
    let is_meant = |metric: &Metric| metric.get_label().iter().any(of_ring);
    if !family.get_metric().iter().any(is_meant) {
        return;
    }
    let add = if family.name() == OLDEST {
        f64::min
    } else {
        |a, b| a + b
    };
    let mut merged: BTreeMap<Vec<(String, String)>, Metric> = BTreeMap::new();
    for mut metric in family.take_metric() {
        let labels = metric.take_label().into_iter();
        let labels: Vec<LabelPair> = labels.filter(|label| !of_ring(label)).collect();
        let pairs = labels.iter();
        let key = pairs.map(|label| (label.name().to_owned(), label.value().to_owned()));
        let key = key.collect();
        metric.set_label(labels);
        match merged.get_mut(&key) {
            Some(sum) => put_together(sum, &metric, add),
            None => _ = merged.insert(key, metric),
        }
    }
    family.set_metric(merged.into_values().collect());
}

/// A metric has values of one kind, and nothing in those of the others.
fn put_together(sum: &mut Metric, more: &Metric, add: fn(f64, f64) -> f64) {
    let mut counter = Counter::default();
    counter.set_value(sum.get_counter().get_value() + more.get_counter().get_value());
    sum.set_counter(counter);
    let mut gauge = Gauge::default();
    gauge.set_value(add(
        sum.get_gauge().get_value(),
        more.get_gauge().get_value(),
    ));
    sum.set_gauge(gauge);
    sum.set_histogram(sum_of(sum.get_histogram(), more.get_histogram()));
}

/// Both have the same bounds.
fn sum_of(a: &Histogram, b: &Histogram) -> Histogram {
    let mut sum = a.clone();
    sum.set_sample_count(a.get_sample_count() + b.get_sample_count());
    sum.set_sample_sum(a.get_sample_sum() + b.get_sample_sum());
    let buckets = a.get_bucket().iter().zip(b.get_bucket()).map(|(a, b)| {
        let mut bucket = a.clone();
        bucket.set_cumulative_count(a.cumulative_count() + b.cumulative_count());
        bucket
    });
    sum.set_bucket(buckets.collect());
    sum
}

#[cfg(test)]
mod tests;

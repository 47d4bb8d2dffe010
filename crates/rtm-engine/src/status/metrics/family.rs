//! A metric and its series.

use std::collections::BTreeMap;
use std::sync::Mutex;

use prometheus::core::Metric;
use prometheus::proto::{LabelPair, MetricFamily, MetricType};
use prometheus::{Counter, Gauge, Histogram, HistogramOpts, IntCounter};

use crate::lock::lock;

/// A metric: its series, by the values of its labels.
///
/// Not one of `prometheus`' vectors: those take two lists of values that read alike one after the other (`a`, `bc` and
/// `ab`, `c`) for one series, and cannot remove the series that share a label.
#[derive(Debug)]
pub(super) struct Family<M> {
    /// Without the prefix of all of ours.
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    /// The values of the last label, where they are a fixed set; empty where they are not.
    last: &'static [&'static str],
    /// Upper bounds of a histogram's buckets.
    buckets: &'static [f64],
    series: Mutex<BTreeMap<Vec<String>, M>>,
}

/// What a series can be. A series has neither a name nor labels: its family has them, once.
pub(super) trait Kind: Metric {
    const TYPE: MetricType;

    fn zero(buckets: &[f64]) -> prometheus::Result<Self>;
}

impl<M: Kind> Family<M> {
    /// A metric without any series.
    pub(super) fn new(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Family<M> {
        Family {
            name,
            help,
            labels,
            last: &[],
            buckets: &[],
            series: Mutex::default(),
        }
    }

    /// With these values of the last label, and no others.
    pub(super) fn with_values(self, last: &'static [&'static str]) -> Family<M> {
        Family { last, ..self }
    }

    /// With these upper bounds of a histogram's buckets.
    pub(super) fn with_buckets(self, buckets: &'static [f64]) -> Family<M> {
        Family { buckets, ..self }
    }

    /// The series with these values of the labels, in the order of the table. It is made at zero where there is none yet.
    pub(super) fn of(&self, values: &[&str]) -> M {
        debug_assert_eq!(values.len(), self.labels.len(), "{}", self.name);
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        let mut series = lock(&self.series);
        let of = series.entry(values).or_insert_with(|| {
            M::zero(self.buckets).expect("the constants that a series is made of are valid")
        });
        of.clone()
    }

    /// Adds the series with these labels and values, if these are all the labels, one with a fixed set of values aside: of
    /// that every value gets its series.
    pub(super) fn add(&self, labels: &[(&str, &str)]) {
        let given = self.labels.len() - usize::from(!self.last.is_empty());
        if !labels
            .iter()
            .map(|(label, _)| label)
            .eq(&self.labels[..given])
        {
            return;
        }
        let mut values: Vec<&str> = labels.iter().map(|(_, value)| *value).collect();
        if self.last.is_empty() {
            self.of(&values);
        }
        for last in self.last {
            values.push(last);
            self.of(&values);
            values.pop();
        }
    }

    /// Removes the series that have all of these labels and values, whatever other labels they have.
    pub(super) fn remove(&self, labels: &[(&str, &str)]) {
        let is_meant = |values: &[String]| {
            labels.iter().all(|given| {
                let mut own = self.labels.iter().zip(values);
                own.any(|(label, value)| (*label, value.as_str()) == *given)
            })
        };
        lock(&self.series).retain(|values, _| !is_meant(values));
    }

    /// What Prometheus is told.
    pub(super) fn collect(&self) -> MetricFamily {
        let series = lock(&self.series);
        let metrics = series.iter().map(|(values, series)| {
            let pairs = self.labels.iter().zip(values).map(|(label, value)| {
                let mut pair = LabelPair::default();
                pair.set_name((*label).to_owned());
                pair.set_value(value.clone());
                pair
            });
            let mut pairs: Vec<LabelPair> = pairs.collect();
            pairs.sort_by(|a, b| a.name().cmp(b.name()));
            let mut metric = series.metric();
            metric.set_label(pairs);
            metric
        });
        let mut family = MetricFamily::default();
        family.set_name(format!("rtm_bridge_{}", self.name));
        family.set_help(self.help.to_owned());
        family.set_field_type(M::TYPE);
        family.set_metric(metrics.collect());
        family
    }
}

impl Kind for IntCounter {
    const TYPE: MetricType = MetricType::COUNTER;

    fn zero(_: &[f64]) -> prometheus::Result<IntCounter> {
        IntCounter::new("series", "series")
    }
}

impl Kind for Counter {
    const TYPE: MetricType = MetricType::COUNTER;

    fn zero(_: &[f64]) -> prometheus::Result<Counter> {
        Counter::new("series", "series")
    }
}

impl Kind for Gauge {
    const TYPE: MetricType = MetricType::GAUGE;

    fn zero(_: &[f64]) -> prometheus::Result<Gauge> {
        Gauge::new("series", "series")
    }
}

impl Kind for Histogram {
    const TYPE: MetricType = MetricType::HISTOGRAM;

    fn zero(buckets: &[f64]) -> prometheus::Result<Histogram> {
        let options = HistogramOpts::new("series", "series");
        Histogram::with_opts(options.buckets(buckets.to_vec()))
    }
}

#[cfg(test)]
mod tests;

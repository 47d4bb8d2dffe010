//! The text of `/metrics`, with what [`crate::bridge::Metrics`] leaves out: types and labels.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};

/// Every family of metrics in a text, by name.
#[derive(Debug, Clone, Default)]
pub struct Families(pub BTreeMap<String, Family>);

/// A family: series of one name.
#[derive(Debug, Clone, Default)]
pub struct Family {
    /// `counter`, `gauge` or `histogram`.
    pub kind: String,
    /// Label names, without a histogram's `le`.
    pub labels: BTreeSet<String>,
    /// Every value of every label.
    pub values: BTreeSet<(String, String)>,
    /// Every series, as the text writes it.
    pub series: BTreeSet<String>,
}

impl Families {
    /// Reads the text.
    ///
    /// # Errors
    ///
    /// With a line that is not understood.
    pub fn parse(text: &str) -> Result<Families> {
        let mut families = Families::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').with_context(|| line.to_owned())?;
                let family = families.0.entry(name.to_owned()).or_default();
                family.kind = kind.to_owned();
            } else if !line.starts_with('#') {
                families
                    .sample(line)
                    .with_context(|| format!("not a sample: {line}"))?;
            }
        }
        Ok(families)
    }

    fn sample(&mut self, line: &str) -> Result<()> {
        let (series, _value) = line.rsplit_once(' ').context("no value")?;
        let (name, labels) = match series.split_once('{') {
            None => (series, ""),
            Some((name, rest)) => (name, rest.strip_suffix('}').context("no end of labels")?),
        };
        let family = self.family_of(name).context("no TYPE before it")?;
        family.series.insert(series.to_owned());
        let mut rest = labels;
        while !rest.is_empty() {
            let (label, after) = rest.split_once("=\"").context("no label")?;
            let (value, after) = after.split_once('"').context("no end of a value")?;
            ensure!(!value.contains('\\'), "an escaped value");
            family.values.insert((label.to_owned(), value.to_owned()));
            if label != "le" {
                family.labels.insert(label.to_owned());
            }
            rest = after.trim_start_matches(',');
        }
        Ok(())
    }

    fn family_of(&mut self, name: &str) -> Option<&mut Family> {
        let base = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix))
            .filter(|base| self.0.get(*base).is_some_and(|it| it.kind == "histogram"));
        self.0.get_mut(base.unwrap_or(name))
    }

    /// Whether a query can name `name`: a family, or a part of a histogram.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.values().any(|family| {
            family
                .series
                .iter()
                .any(|series| series.split('{').next() == Some(name))
        })
    }

    /// Every series of every family.
    #[must_use]
    pub fn series(&self) -> BTreeSet<&str> {
        let all = self.0.values().flat_map(|family| &family.series);
        all.map(String::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Histograms are one family, whose parts can be named; labels lose nothing.
    #[test]
    fn reads_types_and_labels() {
        let text = "# HELP a x\n# TYPE a histogram\na_bucket{app=\"m\",le=\"1\"} 1\na_bucket{app=\"m\",le=\"+Inf\"} 1\n\
                    a_sum{app=\"m\"} 0.5\na_count{app=\"m\"} 1\n# TYPE b_count gauge\nb_count 3\n";
        let families = Families::parse(text).unwrap();
        assert_eq!(families.0["a"].kind, "histogram");
        assert_eq!(families.0["a"].labels, BTreeSet::from(["app".to_owned()]));
        assert_eq!(families.0["b_count"].kind, "gauge");
        assert!(families.has("a_bucket") && families.has("b_count") && !families.has("a"));
        assert_eq!(families.series().len(), 5);
        assert!(Families::parse("c 1").is_err());
    }
}

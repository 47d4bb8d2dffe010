//! `/metrics` at one moment.

use std::time::{Duration, Instant, SystemTime};

use reqwest::Url;

/// How long an answer may take.
const DEADLINE: Duration = Duration::from_secs(3);

/// An answer is a few hundred kilobytes at the most: what is larger is none of ours.
const MAX_BYTES: usize = 16 << 20;

/// What every name of ours begins with.
const PREFIX: &str = "rtm_bridge_";

/// Asks one bridge.
pub(super) struct Scraper {
    client: reqwest::Client,
    metrics: Url,
    shown: String,
}

impl Scraper {
    /// `url` is an admin address, with or without `http://` and `/metrics`.
    pub(super) fn new(url: &str) -> Result<Scraper, String> {
        let whole = if url.contains("://") {
            url.to_owned()
        } else {
            format!("http://{url}")
        };
        let parsed = Url::parse(&whole).ok().filter(|parsed| parsed.has_host());
        let parsed = parsed.filter(|parsed| ["http", "https"].contains(&parsed.scheme()));
        let mut metrics = parsed
            .ok_or_else(|| format!("`{url}` is not an address such as http://127.0.0.1:9464"))?;
        let base = metrics.path().trim_end_matches('/');
        let base = base.strip_suffix("/metrics").unwrap_or(base).to_owned();
        metrics.set_path(&format!("{base}/metrics"));
        let shown = metrics.as_str().trim_end_matches("/metrics").to_owned();
        let client = reqwest::Client::builder()
            .timeout(DEADLINE)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| crate::chain(&error))?;
        Ok(Scraper {
            client,
            metrics,
            shown,
        })
    }

    /// Without `/metrics`.
    pub(super) fn url(&self) -> &str {
        &self.shown
    }

    /// What it says now, or why it says nothing.
    pub(super) async fn sample(&self) -> Result<Sample, String> {
        let asked = self.client.get(self.metrics.clone()).send().await;
        let said = |error: reqwest::Error| cause(&error);
        let mut response = asked
            .and_then(reqwest::Response::error_for_status)
            .map_err(said)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(said)? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_BYTES {
                return Err("the answer does not end".to_owned());
            }
        }
        Sample::parse(
            &String::from_utf8_lossy(&body),
            Instant::now(),
            SystemTime::now(),
        )
        .ok_or_else(|| "these are not a bridge's metrics".to_owned())
    }
}

/// The last cause, which is what went wrong; where we asked, and by what, is known.
fn cause(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    crate::chain(last)
}

/// Every series of ours at one moment.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) at: Instant,
    /// By our clock, in seconds since the Unix epoch.
    pub(super) unix: f64,
    /// When the bridge was started, as far as it tells.
    pub(super) started: f64,
    series: Vec<Series>,
}

/// One series, its name without the prefix.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Series {
    pub(super) name: String,
    labels: Vec<(String, String)>,
    pub(super) value: f64,
}

impl Series {
    pub(super) fn label(&self, name: &str) -> &str {
        let found = self.labels.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }
}

impl Sample {
    /// Reads the text format; none unless there is something of ours.
    pub(super) fn parse(text: &str, at: Instant, clock: SystemTime) -> Option<Sample> {
        let started = text
            .lines()
            .find_map(|line| line.strip_prefix("process_start_time_seconds "));
        let series: Vec<Series> = text.lines().filter_map(parse_line).collect();
        let since = clock
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        (!series.is_empty()).then_some(Sample {
            at,
            unix: since.as_secs_f64(),
            started: started
                .and_then(|value| value.parse().ok())
                .unwrap_or_default(),
            series,
        })
    }

    /// The series of a name that have these labels, whatever others they have.
    pub(super) fn all<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&str, &str)],
    ) -> impl Iterator<Item = &'a Series> {
        self.series.iter().filter(move |series| {
            let has = |(label, value): &(&str, &str)| series.label(label) == *value;
            series.name == name && labels.iter().all(has)
        })
    }

    /// Their sum; none where there is none.
    pub(super) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.all(name, labels)
            .map(|series| series.value)
            .reduce(|sum, value| sum + value)
    }
}

/// `rtm_bridge_name{label="value",…} 1`.
fn parse_line(line: &str) -> Option<Series> {
    let line = line.strip_prefix(PREFIX)?;
    let (head, value) = line.rsplit_once(' ')?;
    let (name, mut rest) = head.split_once('{').unwrap_or((head, ""));
    let mut labels = Vec::new();
    while let Some((label, after)) = rest.split_once("=\"") {
        let mut text = String::new();
        let mut chars = after.char_indices();
        let mut end = after.len();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    end = at + 1;
                    break;
                }
                '\\' => match chars.next()?.1 {
                    'n' => text.push(' '),
                    escaped => text.push(escaped),
                },
                // Labels come from a configuration, but whose?
                c if c.is_control() => text.push('?'),
                c => text.push(c),
            }
        }
        labels.push((label.trim_start_matches(',').to_owned(), text));
        rest = after.get(end..).unwrap_or_default();
    }
    Some(Series {
        name: name.to_owned(),
        labels,
        value: value.parse().ok()?,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn series_are_read_with_their_labels() {
        let text = "# HELP x y\nprocess_start_time_seconds 5\nother{app=\"a\"} 1\nrtm_bridge_a{app=\"a\\\"b,c=\\\"\",sink=\"k\"} 1.5\n\
                    rtm_bridge_a{app=\"d\x1b\",sink=\"k\"} 2\nrtm_bridge_b 3\nrtm_bridge_c NaN\nrtm_bridge_broken{\n";
        let sample = Sample::parse(text, Instant::now(), SystemTime::now()).unwrap();
        assert_eq!(sample.series.len(), 4);
        assert_eq!(sample.started, 5.0);
        assert_eq!(sample.sum("a", &[("sink", "k")]), Some(3.5));
        assert_eq!(sample.sum("a", &[("app", "a\"b,c=\"")]), Some(1.5));
        assert_eq!(sample.sum("a", &[("app", "d?")]), Some(2.0));
        assert_eq!(sample.sum("b", &[]), Some(3.0));
        assert_eq!(sample.sum("b", &[("app", "x")]), None);
        assert!(Sample::parse("<html>", Instant::now(), SystemTime::now()).is_none());
    }

    #[test]
    fn an_address_is_taken_as_people_write_it() {
        for (given, url) in [
            ("127.0.0.1:9464", "http://127.0.0.1:9464"),
            ("http://h:1/", "http://h:1"),
            ("http://h:1/metrics", "http://h:1"),
            ("https://h/bridge/metrics/", "https://h/bridge"),
        ] {
            let _ = rustls::crypto::ring::default_provider().install_default();
            let scraper = Scraper::new(given).unwrap();
            assert_eq!(scraper.url(), url, "{given}");
            assert!(scraper.metrics.as_str().ends_with("/metrics"));
        }
        assert!(Scraper::new("ftp://h").is_err() && Scraper::new("").is_err());
    }
}

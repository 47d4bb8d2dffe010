//! Which entries of a journal are meant: `replay` and `journal dump` ask for them in the same words.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use jiff::Timestamp;

use crate::config::Config;
use rtm_record::entry::Tags;

#[derive(Debug, Default, clap::Args)]
pub(super) struct Range {
    /// From this position on
    #[arg(long, value_name = "POSITION")]
    from: Option<u64>,
    /// To this position, with it
    #[arg(long, value_name = "POSITION")]
    to: Option<u64>,
    /// Fetched at this time or later, such as 2026-11-24T08:00:00Z
    #[arg(long, value_name = "TIME")]
    pub(super) since: Option<Timestamp>,
    /// Fetched before this time
    #[arg(long, value_name = "TIME")]
    until: Option<Timestamp>,
    /// Of this app only: its name, or its App ID
    #[arg(long, value_name = "APP")]
    app: Option<String>,
    /// Of this region only
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    /// Of this stream only
    #[arg(long, value_name = "STREAM", value_parser = ["user", "channel"])]
    stream: Option<String>,
}

impl Range {
    /// What no journal can hold.
    pub(super) fn check(&self) -> Result<(), String> {
        match (self.from, self.to, self.since, self.until) {
            (Some(from), Some(to), ..) if from > to => {
                Err(format!("--from {from} is behind --to {to}"))
            }
            (.., Some(since), Some(until)) if since >= until => {
                Err(format!("--since {since} is not before --until {until}"))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn positions(&self) -> RangeInclusive<u64> {
        self.from.unwrap_or(0)..=self.to.unwrap_or(u64::MAX)
    }

    /// By what is in an entry; its position is looked at elsewhere.
    pub(super) fn wants(&self, tags: &Tags<'_>) -> bool {
        let is =
            |asked: &Option<String>, value: &str| asked.as_ref().is_none_or(|asked| asked == value);
        self.wants_time(tags.fetched_at)
            && (is(&self.app, &tags.app) || is(&self.app, &tags.app_id))
            && is(&self.region, &tags.region)
            && is(&self.stream, &tags.stream)
    }

    /// In milliseconds since the Unix epoch.
    pub(super) fn wants_time(&self, ms: i64) -> bool {
        self.since.is_none_or(|since| ms >= since.as_millisecond())
            && self.until.is_none_or(|until| ms < until.as_millisecond())
    }

    /// What is wrong with what was asked for, by what there is; where there is nothing at all, nothing.
    pub(super) fn unknown(&self, known: &Known) -> Result<(), String> {
        if known.apps.is_empty() {
            return Ok(());
        }
        let one_of = |names: &BTreeSet<String>| Vec::from_iter(names.iter().cloned()).join(", ");
        let is_app = |app| known.apps.contains(app) || known.app_ids.contains(app);
        match (&self.app, &self.region) {
            (Some(app), _) if !is_app(app) => Err(format!(
                "there is no app {app}; --app takes an App ID or one of: {}",
                one_of(&known.apps)
            )),
            (_, Some(region)) if !known.regions.contains(region) => Err(format!(
                "there is no region {region}; --region takes one of: {}",
                one_of(&known.regions)
            )),
            _ => Ok(()),
        }
    }
}

/// The apps and regions that there are.
#[derive(Debug, Default)]
pub(super) struct Known {
    apps: BTreeSet<String>,
    app_ids: BTreeSet<String>,
    regions: BTreeSet<String>,
}

impl Known {
    /// Of an entry: they are those of then.
    pub(super) fn see(&mut self, tags: &Tags<'_>) {
        self.apps.insert(tags.app.to_string());
        self.app_ids.insert(tags.app_id.to_string());
        self.regions.insert(tags.region.to_string());
    }

    /// Those of a configuration, of which there may be no entry yet.
    pub(super) fn see_config(&mut self, config: &Config) {
        for app in &config.apps {
            self.apps.insert(app.name.clone());
            self.app_ids.insert(app.app_id.clone());
            let regions = app.regions.iter().map(|region| region.name.clone());
            self.regions.extend(regions);
        }
    }
}

//! Which entries of a journal are meant: `replay` and `journal dump` ask for them in the same words.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use jiff::Timestamp;

use super::process::duration;
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
    /// Fetched at this time or later: 2026-11-24T08:00:00Z, or 10m or 2h for so long ago
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(super) since: Option<Timestamp>,
    /// Fetched before this time: a time or how long ago, as --since
    #[arg(long, value_name = "TIME", value_parser = moment)]
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

    /// Whether it leaves out a part of what an App ID has.
    pub(super) fn divides_apps(&self) -> bool {
        let Range {
            from,
            to,
            since,
            until,
            app: _,
            region,
            stream,
        } = self;
        from.or(*to).is_some() || since.or(*until).is_some() || region.is_some() || stream.is_some()
    }

    pub(super) fn positions(&self) -> RangeInclusive<u64> {
        self.from.unwrap_or(0)..=self.to.unwrap_or(u64::MAX)
    }

    /// By what is in an entry; its position is looked at elsewhere.
    pub(super) fn wants(&self, tags: &Tags<'_>, known: &Known) -> bool {
        let is =
            |asked: &Option<String>, value: &str| asked.as_ref().is_none_or(|asked| asked == value);
        self.wants_time(tags.fetched_at)
            && self
                .app
                .as_ref()
                .is_none_or(|app| known.means(app, &tags.app_id))
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
        if let Some(app) = &self.app {
            known.app_ids(app)?;
        }
        match &self.region {
            Some(region) if !known.regions.contains(region) => Err(format!(
                "there is no region {region}; --region takes one of: {}",
                Vec::from_iter(known.regions.iter().cloned()).join(", ")
            )),
            _ => Ok(()),
        }
    }
}

/// A time, or how long ago it was.
fn moment(text: &str) -> Result<Timestamp, String> {
    let ago = || Timestamp::now().checked_sub(duration(text).ok()?).ok();
    text.parse().ok().or_else(ago).ok_or_else(|| {
        "expected a time such as 2026-11-24T08:00:00Z, or how long ago, such as 10m or 2h"
            .to_owned()
    })
}

/// The apps and regions that there are.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// App IDs by the names that they have or had.
    apps: BTreeMap<String, BTreeSet<String>>,
    regions: BTreeSet<String>,
}

impl Known {
    /// Of an entry: they are those of then.
    pub(super) fn see(&mut self, tags: &Tags<'_>) {
        self.see_app(&tags.app, &tags.app_id);
        if !self.regions.contains(&*tags.region) {
            self.regions.insert(tags.region.to_string());
        }
    }

    /// Those of a configuration, of which there may be no entry yet.
    pub(super) fn see_config(&mut self, config: &Config) {
        for app in &config.apps {
            self.see_app(&app.name, &app.app_id);
            let regions = app.regions.iter().map(|region| region.name.clone());
            self.regions.extend(regions);
        }
    }

    fn see_app(&mut self, name: &str, app_id: &str) {
        let seen = self.apps.get(name);
        if !seen.is_some_and(|ids| ids.contains(app_id)) {
            let ids = self.apps.entry(name.to_owned()).or_default();
            ids.insert(app_id.to_owned());
        }
    }

    /// Whether a name or an App ID, as it is asked for, means this App ID.
    fn means(&self, asked: &str, app_id: &str) -> bool {
        let named = self.apps.get(asked);
        asked == app_id || named.is_some_and(|ids| ids.contains(app_id))
    }

    /// The name of an App ID: the first by the alphabet of those that it has or had.
    pub(super) fn name(&self, app_id: &str) -> Option<&str> {
        let mut apps = self.apps.iter();
        let named = apps.find(|(_, ids)| ids.contains(app_id));
        named.map(|(name, _)| name.as_str())
    }

    /// The App IDs that a name or an App ID means, or which names there are.
    pub(super) fn app_ids(&self, asked: &str) -> Result<BTreeSet<String>, String> {
        let all = self.apps.values().flatten();
        let meant: BTreeSet<String> = all.filter(|id| self.means(asked, id)).cloned().collect();
        if meant.is_empty() {
            let names = Vec::from_iter(self.apps.keys().cloned()).join(", ");
            return Err(format!(
                "there is no app {asked}; --app takes an App ID or one of: {names}"
            ));
        }
        Ok(meant)
    }
}

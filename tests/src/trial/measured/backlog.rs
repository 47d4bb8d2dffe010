//! A journal with a backlog of millions of events, made in a fraction of the time that polling them takes: the simulator
//! in simulated time, and the bridge's own entries.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::future::try_join_all;
use rtm_journal::{Journal, LaneName, Options};
use rtm_sim::{Clock, InProcess, Ledger, Load, SimApp, SimAuth, SimConfig};
use rtm_source::{Page, Region, Ring, Stream};

use crate::trial::Setup;
use crate::trial::places::{REGIONS, app_id, app_name};

/// Events in a page, unless asked for fewer: it is all but full.
const FULL: u32 = 990;

/// Between two polls of a ring.
const INTERVAL: Duration = Duration::from_millis(200);

/// Pages that are appended together: one sync is enough for all of them.
const GROUP: usize = 64;

/// Writes a journal into `dir` in which the backlog of a trial waits, as the bridge would have stored it had its sinks been
/// away: events of both streams of a region, shared by all App IDs. Gives what was handed out.
///
/// # Errors
///
/// When the journal cannot be written.
pub async fn write(dir: &Path, setup: &Setup) -> Result<Ledger> {
    let (dir, setup) = (dir.to_path_buf(), *setup);
    // A runtime of its own, whose time can be moved.
    tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()?;
        runtime.block_on(write_in(&dir, &setup))
    })
    .await
    .context("writing the backlog has panicked")?
}

async fn write_in(dir: &Path, setup: &Setup) -> Result<Ledger> {
    let region = REGIONS[0];
    let page_events = match setup.backlog_page {
        0 => FULL,
        events => events,
    };
    let rounds = setup
        .backlog
        .div_ceil(2 * setup.apps as u64 * u64::from(page_events));
    let server = server(setup.apps, rounds, page_events, region)?;
    let journal = Journal::open(dir, Options::default())?;
    let place = Arc::new(Region::new(
        region,
        &format!("http://127.0.0.1/{region}"),
        false,
    )?);
    let mut lanes = Vec::new();
    for number in 0..setup.apps {
        let id = app_id(number);
        let lane = journal.lane(&LaneName::try_from(&*id)?)?;
        lanes.push((app_name(number), id, lane));
    }
    let mut group = Vec::new();
    let mut stored = 0;
    while stored < setup.backlog {
        for stream in Stream::ALL {
            tokio::time::advance(INTERVAL / 2).await;
            for (app, app_id, lane) in &lanes {
                let ring = Ring {
                    region: Arc::clone(&place),
                    stream,
                };
                let page = page(&server, app_id, ring).await?;
                stored += page.count as u64;
                let entry = rtm_record::entry::encode(app, app_id, &page, None);
                let room = lane.try_reserve(entry.len());
                let room = room.context("the journal has no room for the backlog")?;
                group.push((room, entry, u32::try_from(page.count)?));
            }
        }
        if group.len() >= GROUP || stored >= setup.backlog {
            let appends = group
                .drain(..)
                .map(|(room, entry, count)| async move { room.append(entry, count).await });
            try_join_all(appends).await?;
        }
    }
    journal.close().await?;
    Ok(server.ledger())
}

/// A server that began so long ago that its last event is of now.
fn server(apps: usize, rounds: u64, page_events: u32, region: &str) -> Result<InProcess> {
    // Both streams together: each ring is polled once in an interval.
    let rate = 2.0 * f64::from(page_events) / INTERVAL.as_secs_f64();
    let lasts = u64::try_from(INTERVAL.as_millis())? * rounds + 10_000;
    let now = jiff::Timestamp::now().as_millisecond();
    let began = u64::try_from(now)?.saturating_sub(lasts);
    let config = SimConfig {
        // Not that of the simulator which the bridge polls afterwards: request ids must differ.
        seed: 0x0062_6163_6b6c_6f67,
        apps: (0..apps)
            .map(|number| SimApp {
                app_id: app_id(number),
                auth: SimAuth::Open,
            })
            .collect(),
        regions: vec![region.to_owned()],
        load: Load {
            events_per_second: rate,
            ..Load::default()
        },
        ..SimConfig::default()
    };
    Ok(InProcess::new(&config, Clock::simulated(began))?)
}

async fn page(server: &InProcess, app_id: &str, ring: Ring) -> Result<Page> {
    let path = format!(
        "/{}/dev/v2/project/{app_id}/rtm/vendor/{}_events",
        ring.region.name(),
        ring.stream.as_str()
    );
    let exchange = server.get(&path, &[]).await;
    ensure!(
        exchange.status() == Some(200),
        "the simulator answers with {:?}",
        exchange.status()
    );
    let body = Bytes::copy_from_slice(exchange.body());
    exchange.received(body.len());
    let decoded = rtm_source::decode(&body);
    let request_id = decoded.request_id.map(std::borrow::Cow::into_owned);
    let count = decoded.events.len();
    ensure!(count > 0, "a page without events: {request_id:?}");
    Ok(Page {
        ring,
        fetched_at: jiff::Timestamp::from_millisecond(i64::try_from(server.clock().unix_ms())?)?,
        status: 200,
        request_id,
        body,
        complete: true,
        count,
        unread: false,
        first_ms: None,
        last_ms: None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Holds: what is in the journal is what the ledger says, page by page, in lanes and entries as the bridge has
    /// them, and none of it is in the future.
    #[tokio::test]
    async fn the_journal_holds_what_was_handed_out() {
        let dir = tempfile::tempdir().unwrap();
        let setup = Setup {
            backlog: 20_000,
            ..Setup::default()
        };
        let ledger = write(dir.path(), &setup).await.unwrap();
        assert!((20_000..22_000).contains(&ledger.handed_out()));
        assert!(ledger.rings.iter().all(|ring| ring.overwritten == 0));
        let now = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap();
        assert!(ledger.pages.iter().all(|page| page.deleted_at_ms <= now));
        let journal = Journal::open(dir.path(), Options::default()).unwrap();
        let lane = SimApp::default().app_id;
        let lane = journal.lane(&LaneName::try_from(&*lane).unwrap()).unwrap();
        let mut reader = lane.reader(&"kafka".parse().unwrap()).unwrap();
        let mut found = 0;
        while let Some(entry) = reader.try_next().unwrap() {
            let (tags, body) = rtm_record::entry::decode(&entry.bytes).unwrap();
            let request_id = tags.request_id.unwrap();
            let page = ledger
                .pages
                .iter()
                .find(|page| *page.request_id == *request_id)
                .unwrap();
            let decoded = rtm_source::decode(&body);
            let events: Vec<&[u8]> = decoded
                .events
                .iter()
                .map(|event| event.as_ref().unwrap().raw.as_bytes())
                .collect();
            let handed: Vec<&[u8]> = page.events.iter().map(|event| event.as_bytes()).collect();
            assert_eq!(events, handed);
            found += events.len() as u64;
            reader.commit(entry.position);
        }
        assert_eq!(found, ledger.handed_out());
    }
}

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

/// Events a second for each ring, in simulated time: a page is all but full.
const PER_RING: f64 = 4_950.0;

/// Between two polls of a ring.
const INTERVAL: Duration = Duration::from_millis(200);

/// Pages that are appended together: one sync is enough for all of them.
const GROUP: usize = 64;

/// Writes a journal into `dir` in which `events` events of both streams of a region wait, as the bridge would have
/// stored them had its sinks been away. Gives what was handed out.
///
/// # Errors
///
/// When the journal cannot be written.
pub async fn write(dir: &Path, app: &str, region: &str, events: u64) -> Result<Ledger> {
    let (dir, app, region) = (dir.to_path_buf(), app.to_owned(), region.to_owned());
    // A runtime of its own, whose time can be moved.
    tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()?;
        runtime.block_on(write_in(&dir, &app, &region, events))
    })
    .await
    .context("writing the backlog has panicked")?
}

async fn write_in(dir: &Path, app: &str, region: &str, events: u64) -> Result<Ledger> {
    let app_id = SimApp::default().app_id;
    let server = server(events, region)?;
    let journal = Journal::open(dir, Options::default())?;
    let lane = journal.lane(&LaneName::try_from(&*app_id)?)?;
    let place = Arc::new(Region::new(
        region,
        &format!("http://127.0.0.1/{region}"),
        false,
    )?);
    let mut group = Vec::new();
    let mut stored = 0;
    while stored < events {
        for stream in Stream::ALL {
            tokio::time::advance(INTERVAL / 2).await;
            let ring = Ring {
                region: Arc::clone(&place),
                stream,
            };
            let page = page(&server, &app_id, ring).await?;
            stored += page.count as u64;
            let entry = rtm_record::entry::encode(app, &app_id, &page, None);
            let room = lane.try_reserve(entry.len());
            let room = room.context("the journal has no room for the backlog")?;
            group.push((room, entry, u32::try_from(page.count)?));
        }
        if group.len() >= GROUP || stored >= events {
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
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a time in seconds"
)]
fn server(events: u64, region: &str) -> Result<InProcess> {
    let rate = PER_RING * 2.0;
    let lasts = Duration::from_secs((events as f64 / rate) as u64 + 10);
    let now = jiff::Timestamp::now().as_millisecond();
    let began = u64::try_from(now)?.saturating_sub(u64::try_from(lasts.as_millis())?);
    let config = SimConfig {
        // Not that of the simulator which the bridge polls afterwards: request ids must differ.
        seed: 0x0062_6163_6b6c_6f67,
        apps: vec![SimApp {
            auth: SimAuth::Open,
            ..SimApp::default()
        }],
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
        let ledger = write(dir.path(), "main", "eu-west-1", 20_000)
            .await
            .unwrap();
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

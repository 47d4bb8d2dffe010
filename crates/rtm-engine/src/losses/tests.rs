use std::sync::Arc;

use rtm_journal::{Journal, LaneName, Options};
use rtm_source::{Region, Stream};

use super::*;

fn shown(lane: &Lane, metrics: &Metrics) -> Losses {
    let losses = Losses::read(lane.clone());
    losses.show("main", metrics);
    losses
}

/// Holds: a crash counts a page for each request that a ring ever had in flight at once, and a stop counts none.
#[tokio::test]
async fn a_crash_counts_every_request_that_may_have_been_in_flight() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), Options::default()).unwrap();
    let lane = journal.lane(&LaneName::try_from("0a1b").unwrap()).unwrap();
    let region = Arc::new(Region::builtin("eu-west-1").unwrap());
    let rings = Stream::ALL.map(|stream| Ring {
        region: Arc::clone(&region),
        stream,
    });
    let metrics = Metrics::new("1", "c");
    let begin = async || {
        let losses = shown(&lane, &metrics);
        let crashed = losses.begin("main", &rings, &metrics).await;
        (losses, crashed.map(|crash| crash.events()))
    };
    let (losses, crashed) = begin().await;
    assert_eq!(crashed, None);
    for requests in [1, 2, 3, 2, 1] {
        losses.in_flight(&rings[0], requests).await;
    }
    let (losses, crashed) = begin().await;
    assert_eq!(
        crashed,
        Some(4 * PAGE),
        "three of one ring, one of the other"
    );
    losses.in_flight(&rings[1], 2).await;
    losses.end().await;
    let (_, crashed) = begin().await;
    assert_eq!(crashed, None);
    // What a look at the journal says beforehand is what the next start counts.
    let told = PossiblyLost::of_mark(&lane.mark().unwrap());
    let expected = PossiblyLost {
        counted: 4 * PAGE,
        uncounted: 2 * PAGE,
    };
    assert_eq!(told, expected);
    let (losses, crashed) = begin().await;
    assert_eq!(crashed, Some(2 * PAGE));
    losses.end().await;
    let told = PossiblyLost::of_mark(&lane.mark().unwrap());
    assert_eq!((told.counted, told.uncounted), (6 * PAGE, 0));
}

/// Holds: of a region that was removed, a start shows what it may have lost, a crash while it was still polled included,
/// and nothing else: nothing that says that it is polled, and nothing of a ring that lost nothing.
#[tokio::test]
async fn a_removed_region_shows_its_losses_only() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), Options::default()).unwrap();
    let lane = journal.lane(&LaneName::try_from("0a1b").unwrap()).unwrap();
    let rings = |region: &str| {
        let region = Arc::new(Region::builtin(region).unwrap());
        Stream::ALL.map(|stream| Ring {
            region: Arc::clone(&region),
            stream,
        })
    };
    let (removed, kept) = (rings("us-east-1"), rings("eu-west-1"));
    let of_removed = |metrics: &Metrics| {
        let text = metrics.render();
        let mut series: Vec<String> = text
            .lines()
            .filter(|line| line.contains("us-east-1"))
            .map(str::to_owned)
            .collect();
        series.sort();
        series
    };
    let before = Metrics::new("1", "c");
    let losses = shown(&lane, &before);
    losses.begin("main", &removed, &before).await;
    losses.count(&removed[0], "cut", 300).await;
    losses.end().await;
    let lost = |reason: &str, stream: &str, events: u64| {
        format!(
            "rtm_bridge_events_possibly_lost_total{{app=\"main\",reason=\"{reason}\",region=\"us-east-1\",stream=\"{stream}\"}} {events}"
        )
    };
    let stopped = Metrics::new("1", "c");
    let losses = shown(&lane, &stopped);
    let counted = [lost("cut", removed[0].stream.as_str(), 300)];
    assert_eq!(of_removed(&stopped), counted);
    assert_eq!(losses.ever(), 300);

    // Polled again, and then removed while the process was dead.
    losses.begin("main", &removed, &stopped).await;
    let crashed = Metrics::new("1", "c");
    let losses = shown(&lane, &crashed);
    let cost = losses.begin("main", &kept, &crashed).await.unwrap();
    assert_eq!(cost.events(), 2 * PAGE);
    assert_eq!(cost.events_of(&removed[0]), PAGE);
    assert_eq!(cost.events_of(&kept[0]), 0);
    let series = of_removed(&crashed);
    for stream in ["user", "channel"] {
        assert!(series.contains(&lost("crash", stream, PAGE)), "{series:#?}");
    }
    assert!(series.contains(&counted[0]), "{series:#?}");
    let is_loss = |line: &&String| {
        line.starts_with("rtm_bridge_events_possibly_lost_total{")
            || line.starts_with("rtm_bridge_pages_in_doubt_total{")
    };
    assert_eq!(series.iter().filter(is_loss).count(), series.len());
    assert_eq!(series.len(), 5, "{series:#?}");
}

#[test]
fn the_largest_mark_fits_the_journal() {
    let ring = |index: u32| RingLosses {
        region: format!("{index:064}"),
        stream: "channel".to_owned(),
        lost: [10_000_000_000_000; LOSS_REASONS.len()],
        polled: 1_000,
    };
    let mark = Mark {
        polling: true,
        rings: (0..MARKED_RINGS as u32).map(ring).collect(),
    };
    let bytes = serde_json::to_vec(&mark).unwrap();
    assert!(
        bytes.len() <= rtm_journal::MAX_MARK_BYTES,
        "{} bytes",
        bytes.len()
    );
}

/// Holds: a ring that leaves and comes back by reloads, again and again, counts once at a crash.
#[tokio::test]
async fn a_ring_that_comes_back_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), Options::default()).unwrap();
    let lane = journal.lane(&LaneName::try_from("0a1b").unwrap()).unwrap();
    let ring = |region: &str| Ring {
        region: Arc::new(Region::builtin(region).unwrap()),
        stream: Stream::User,
    };
    let metrics = Metrics::new("1", "c");
    let losses = shown(&lane, &metrics);
    losses.begin("main", &[ring("eu-west-1")], &metrics).await;
    for _ in 0..3 {
        losses.also(&[ring("us-east-1")]).await;
        losses.also(&[ring("eu-west-1")]).await;
    }
    let losses = shown(&lane, &metrics);
    let crashed = losses.begin("main", &[ring("eu-west-1")], &metrics).await;
    assert_eq!(crashed.unwrap().events(), 2 * PAGE);
}

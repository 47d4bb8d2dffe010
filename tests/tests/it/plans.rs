//! Plans that follow one another, in simulated time: the shipped engine and journal, with Agora, network, disk and sinks
//! simulated.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fastrand::Rng;
use rtm_engine::chain;
use rtm_engine::copies::CopyRule;
use rtm_record::{STATIC, Template};
use rtm_sim::{SimAuth, Stream};
use rtm_tests::simulation::changing::{
    App, ChangingBridge, ChangingPlan, Into, Panics, REGIONS, app, bulky_page, event, plan, sink,
    slow_app,
};
use rtm_tests::simulation::sink::Mood;
use tokio::time::sleep;

/// What takes no longer than that is done soon; backoffs take some seconds.
const SOON: Duration = Duration::from_secs(30);

/// The polling loops have begun, and have requests in flight.
const BEGUN: Duration = Duration::from_secs(3);

/// Seeds of an ordinary run; `RTM_SIMULATION_SEEDS` sets another number.
const SEEDS: u64 = 5;

/// Cursors that a lane may have.
const MOST_CURSORS: usize = 16;

fn away(mood: &mut Mood) {
    mood.away = true;
}

fn down(mood: &mut Mood) {
    mood.down = true;
}

fn works(mood: &mut Mood) {
    *mood = Mood::default();
}

fn named(apps: &[(&str, &str)]) -> Vec<App> {
    apps.iter()
        .map(|(app_id, name)| app(app_id, name))
        .collect()
}

/// The series of a bridge that has never had another plan.
async fn series_of(app_ids: &[&str], plan: ChangingPlan) -> BTreeSet<String> {
    let mut bridge = ChangingBridge::running(app_ids, plan).await;
    sleep(BEGUN).await;
    let series = bridge.series();
    bridge.stop().await;
    series
}

/// How the series that there are differ from those that there should be; empty if they do not.
fn difference(there: &BTreeSet<String>, expected: &BTreeSet<String>) -> Vec<String> {
    let lacking = expected.difference(there).map(|one| format!("lacks {one}"));
    let odd = there.difference(expected).map(|one| format!("has {one}"));
    let all = lacking.chain(odd);
    // Each histogram has some twenty of them.
    all.filter(|one| !one.contains("_bucket{")).collect()
}

/// How an App ID leaves the plan while its events wait for a sink whose client is made anew.
#[derive(Debug, Clone, Copy)]
enum Leaves {
    Before,
    After,
    AtOnce,
    /// The sink leaves as well, and is back before its loop has ended.
    WithTheSink,
}

/// Holds: what an App ID has left when it leaves the plan is published by the sink's new client, once, in order, and at
/// once: whether the App ID leaves before the client is made anew, after that, or with it, and also if the sink itself
/// was gone for a moment.
#[tokio::test(start_paused = true)]
async fn leftovers_reach_a_sink_that_is_made_anew() {
    let both = named(&[("0a", "a"), ("0b", "b")]);
    let one = &both[1..];
    for leaves in [
        Leaves::Before,
        Leaves::After,
        Leaves::AtOnce,
        Leaves::WithTheSink,
    ] {
        let first = plan(&both, &[sink("one", 0)]);
        let mut bridge = ChangingBridge::running(&["0a", "0b"], first).await;
        bridge.client("one", 0).change(away);
        bridge.give("0a", Stream::User, 500);
        let stored = |bridge: &ChangingBridge| bridge.pending("0a", "one") == 500;
        bridge.until("events in the journal", SOON, stored).await;
        match leaves {
            Leaves::Before => {
                bridge.take(plan(one, &[sink("one", 0)])).await;
                sleep(BEGUN).await;
            }
            Leaves::After => bridge.take(plan(&both, &[sink("one", 1)])).await,
            Leaves::AtOnce => {}
            Leaves::WithTheSink => bridge.take(plan(one, &[sink("two", 0)])).await,
        }
        bridge.take(plan(one, &[sink("one", 1)])).await;
        let what = format!("leftovers, {leaves:?}");
        let has_all = |bridge: &ChangingBridge| bridge.has_all("one", "0a");
        bridge.until(&what, SOON, has_all).await;
        assert_eq!(bridge.wrong("one"), Vec::<String>::new(), "{leaves:?}");
        bridge.stop().await;
    }
}

/// Holds: a name that goes from one App ID to another in one plan has its series from then on, whichever of the two loops
/// that have to end for it ends last; and so have two names that are swapped. What is counted under a name is of the App ID
/// that has it.
#[tokio::test(start_paused = true)]
async fn a_name_that_is_taken_over_keeps_its_series() {
    let ids = ["0a", "0b"];
    // A request that takes so long lets a loop end late.
    let make = |app_id: &str, name: &str, is_slow: bool| match is_slow {
        true => slow_app(app_id, name, 3_000, 3_000),
        false => app(app_id, name),
    };
    for slow in ids {
        for after in [
            &[("0b", "a")][..],
            &[("0a", "c"), ("0b", "a")],
            &[("0a", "b"), ("0b", "a")],
        ] {
            let apps = |names: &[(&str, &str)]| -> Vec<App> {
                let apps = names.iter();
                apps.map(|(app_id, name)| make(app_id, name, *app_id == slow))
                    .collect()
            };
            let sinks = [sink("one", 0)];
            let first = plan(&apps(&[("0a", "a"), ("0b", "b")]), &sinks);
            let mut bridge = ChangingBridge::running(&ids, first).await;
            sleep(BEGUN).await;
            bridge.take(plan(&apps(after), &sinks)).await;
            sleep(SOON).await;
            let expected = series_of(&ids, plan(&apps(after), &sinks)).await;
            let differs = difference(&bridge.series(), &expected);
            assert!(
                differs.is_empty(),
                "{slow} is slow, {after:?}: {differs:#?}"
            );
            for (index, (app_id, name)) in (1..).zip(after) {
                let events = 10 * index;
                bridge.give(app_id, Stream::User, events);
                let what = format!("events of {app_id} under the name {name}");
                let counted = |bridge: &ChangingBridge| {
                    let confirmed = "rtm_bridge_records_confirmed_total";
                    bridge.metric(confirmed, &[("app", name)]) == Some(events as f64)
                };
                bridge.until(&what, SOON, counted).await;
            }
            bridge.stop().await;
        }
    }
}

/// A bridge with a small journal, the sink `one` that works, and `others`.
async fn with_small_journal(others: &[Into]) -> ChangingBridge {
    let mut bridge = ChangingBridge::new(&["0a"]);
    bridge.journal_bytes = 24 << 20;
    bridge.start(small(others)).await;
    bridge
}

fn small(others: &[Into]) -> ChangingPlan {
    let mut sinks = vec![sink("one", 0)];
    sinks.extend_from_slice(others);
    plan(&named(&[("0a", "a")]), &sinks)
}

fn skipping(name: &str) -> Into {
    Into {
        skips_when_full: true,
        ..sink(name, 0)
    }
}

fn is_stopped(bridge: &ChangingBridge) -> bool {
    bridge.metric("rtm_bridge_polling_stopped", &[("app", "a")]) == Some(1.0)
}

fn skipped(bridge: &ChangingBridge, sink: &str) -> f64 {
    let labels = [("sink", sink), ("reason", "skipped")];
    bridge
        .metric("rtm_bridge_records_dropped_total", &labels)
        .unwrap()
}

/// Gives so many pages that the journal has no room for them, and waits until that stops polling.
async fn fill(bridge: &ChangingBridge) {
    let mut rng = Rng::with_seed(1);
    for _ in 0..24 {
        bridge.push("0a", REGIONS[0], Stream::User, &bulky_page(&mut rng));
        sleep(Duration::from_secs(1)).await;
        if is_stopped(bridge) {
            return;
        }
    }
    bridge.until("polling has stopped", SOON, is_stopped).await;
}

/// Holds: a plan by which a sink skips when the journal is full frees polling, although the journal is full already and the
/// sink is in the middle of a batch: of a call that does not return, or between calls that fail.
#[tokio::test(start_paused = true)]
async fn a_sink_that_begins_to_skip_does_so_at_once() {
    for trouble in [away, down] {
        let bridge = with_small_journal(&[sink("two", 0)]).await;
        bridge.client("two", 0).change(trouble);
        fill(&bridge).await;
        assert_eq!(skipped(&bridge, "two"), 0.0);
        bridge.take(small(&[skipping("two")])).await;
        let skips = |bridge: &ChangingBridge| skipped(bridge, "two") > 0.0 && !is_stopped(bridge);
        bridge.until("the sink skips", SOON, skips).await;
        let polls = |bridge: &ChangingBridge| bridge.waiting("0a") == 0;
        bridge.until("polling goes on", SOON, polls).await;
    }
}

/// Holds: a plan by which a sink skips no more keeps even the batch that the sink is in the middle of.
#[tokio::test(start_paused = true)]
async fn a_sink_that_ceases_to_skip_does_so_at_once() {
    for trouble in [away, down] {
        let mut bridge = with_small_journal(&[skipping("two")]).await;
        bridge.client("two", 0).change(trouble);
        bridge.give("0a", Stream::Channel, 10);
        let is_stored = |bridge: &ChangingBridge| bridge.pending("0a", "two") == 10;
        bridge.until("a batch that waits", SOON, is_stored).await;
        sleep(BEGUN).await;
        bridge.take(small(&[sink("two", 0)])).await;
        fill(&bridge).await;
        sleep(SOON).await;
        assert_eq!(skipped(&bridge, "two"), 0.0);
        assert!(is_stopped(&bridge));
        bridge.client("two", 0).change(works);
        let polls = |bridge: &ChangingBridge| bridge.waiting("0a") == 0;
        bridge.until("polling goes on", SOON * 2, polls).await;
        assert_eq!(skipped(&bridge, "two"), 0.0);
    }
}

/// Holds: a sink that may skip gives up nothing while the cursor of a sink that left the plan is as far behind, since that
/// would free nothing; once that cursor is gone, it does.
#[tokio::test(start_paused = true)]
async fn nothing_is_skipped_that_a_removed_sink_holds() {
    let mut bridge = with_small_journal(&[skipping("two"), sink("three", 0)]).await;
    bridge.client("three", 0).change(away);
    let waits = async |bridge: &mut ChangingBridge, sink: &'static str| {
        bridge.give("0a", Stream::Channel, 10);
        let is_stored = |bridge: &ChangingBridge| bridge.pending("0a", sink) == 10;
        bridge.until("events in the journal", SOON, is_stored).await;
    };
    waits(&mut bridge, "three").await;
    bridge.take(small(&[skipping("two")])).await;
    // The loop of the removed one ends by the plan's deadline.
    sleep(BEGUN).await;
    bridge.client("two", 0).change(away);
    waits(&mut bridge, "two").await;
    fill(&bridge).await;
    sleep(SOON).await;
    assert_eq!(skipped(&bridge, "two"), 0.0);
    let lane = bridge.state().journal.lane(&"0a".parse().unwrap()).unwrap();
    lane.remove_reader(&"three".parse().unwrap()).await.unwrap();
    let skips = |bridge: &ChangingBridge| skipped(bridge, "two") > 0.0 && !is_stopped(bridge);
    bridge.until("the sink skips", SOON, skips).await;
}

/// Holds: nothing is given up for room that nobody waits for: while an App ID is paused, and while the bridge ends.
#[tokio::test(start_paused = true)]
async fn what_waits_is_kept_when_nobody_polls() {
    for ends in [false, true] {
        let mut bridge = with_small_journal(&[sink("two", 0)]).await;
        bridge.client("two", 0).change(away);
        fill(&bridge).await;
        let mut paused = small(&[skipping("two")]);
        paused.apps[0].paused = true;
        if ends {
            bridge.take(small(&[skipping("two")])).await;
            bridge.stop().await;
            bridge.start(paused).await;
        } else {
            bridge.take(paused).await;
            sleep(SOON).await;
        }
        assert_eq!(skipped(&bridge, "two"), 0.0, "{ends}");
        assert!(!is_stopped(&bridge), "{ends}");
        bridge.take(small(&[skipping("two")])).await;
        let skips = |bridge: &ChangingBridge| skipped(bridge, "two") > 0.0;
        bridge.until("the sink skips", SOON, skips).await;
    }
}

/// Holds: of two sinks that may skip, the one that is behind does, and the other, which is slow but keeps up, does not.
#[tokio::test(start_paused = true)]
async fn a_sink_that_keeps_up_skips_nothing() {
    let bridge = with_small_journal(&[skipping("two"), skipping("three")]).await;
    bridge.client("two", 0).change(away);
    let slow = |mood: &mut Mood| mood.confirms_after = Duration::from_millis(900);
    bridge.client("three", 0).change(slow);
    let mut rng = Rng::with_seed(1);
    for _ in 0..40 {
        bridge.push("0a", REGIONS[0], Stream::User, &bulky_page(&mut rng));
        sleep(Duration::from_secs(1)).await;
    }
    assert!(skipped(&bridge, "two") > 0.0);
    assert_eq!(skipped(&bridge, "three"), 0.0);
}

/// Holds: a sink that takes an App ID no more gets nothing of what comes later, not even once the App ID has left the plan;
/// and what is kept to know copies is let go of at the next start.
#[tokio::test(start_paused = true)]
async fn a_sink_that_takes_an_app_id_no_more_gets_nothing_of_it() {
    let drops = CopyRule {
        window: Duration::from_secs(60),
        drops: true,
    };
    let apps = [app("0a", "a"), app("0b", "b")].map(|app| App {
        copy_rule: Some(drops),
        ..app
    });
    let narrowed = Into {
        apps: Some(vec!["b".to_owned()]),
        ..sink("one", 0)
    };
    let sinks = [narrowed, sink("two", 0)];
    let first = plan(&apps, &[sink("one", 0), sink("two", 0)]);
    let mut bridge = ChangingBridge::running(&["0a", "0b"], first).await;
    bridge.give("0a", Stream::User, 10);
    let all = |count: usize| move |bridge: &ChangingBridge| bridge.stored("two") == count;
    bridge.until("events at both", SOON, all(10)).await;
    bridge.take(plan(&apps, &sinks)).await;
    sleep(BEGUN).await;
    bridge.give("0a", Stream::User, 10);
    bridge.until("events at the other", SOON, all(20)).await;
    bridge.stop().await;
    bridge.start(plan(&apps, &sinks)).await;
    let lanes = bridge.state().journal.stats().lanes;
    let lane = lanes.iter().find(|lane| lane.name.as_str() == "0a");
    let readers = lane.unwrap().readers.iter();
    let readers: Vec<&str> = readers.map(|reader| reader.name.as_str()).collect();
    assert_eq!(readers, ["one", "two", "two.copies"]);
    bridge.take(plan(&apps[1..], &sinks)).await;
    sleep(SOON).await;
    assert_eq!(bridge.stored("one"), 10);
}

/// Holds: copies of published events that wait in the journal when their App ID leaves the plan are dropped, as they would
/// have been before, and what is no copy is published.
#[tokio::test(start_paused = true)]
async fn copies_are_dropped_after_their_app_id_has_left() {
    let mut a = app("0a", "a");
    a.source.regions = REGIONS.to_vec();
    a.copy_rule = Some(CopyRule {
        window: Duration::from_secs(60),
        drops: true,
    });
    let sinks = [sink("one", 0)];
    let first = plan(&[a, app("0b", "b")], &sinks);
    let bridge = ChangingBridge::running(&["0a", "0b"], first).await;
    let events = |numbers: std::ops::Range<u64>| -> Vec<String> {
        numbers.map(|number| event(Stream::User, number)).collect()
    };
    let [eu, us] = REGIONS;
    let pending = async |events: u64| {
        let waits = |bridge: &ChangingBridge| bridge.pending("0a", "one") == events;
        bridge.until("events in the journal", SOON, waits).await;
    };
    bridge.push("0a", eu, Stream::User, &events(0..10));
    let published = |bridge: &ChangingBridge| bridge.stored("one") == 10;
    bridge
        .until("the first of two copies", SOON, published)
        .await;
    bridge.client("one", 0).change(away);
    // A batch of its own, behind which the others wait.
    bridge.push("0a", eu, Stream::User, &events(100..101));
    pending(1).await;
    sleep(BEGUN).await;
    bridge.push("0a", us, Stream::User, &events(0..10));
    bridge.push("0a", us, Stream::User, &events(200..201));
    pending(12).await;
    bridge.take(plan(&named(&[("0b", "b")]), &sinks)).await;
    sleep(Duration::from_secs(1)).await;
    bridge.client("one", 0).change(works);
    pending(0).await;
    assert_eq!(bridge.stored("one"), 12, "10, and two that are no copies");
}

/// Holds: a sink whose client is made anew again and again while it publishes a backlog gets every record once, though it
/// takes most of a second to confirm a batch.
#[tokio::test(start_paused = true)]
async fn a_sink_that_is_made_anew_repeats_nothing() {
    let apps = named(&[("0a", "a")]);
    let first = plan(&apps, &[sink("one", 0)]);
    let mut bridge = ChangingBridge::running(&["0a"], first).await;
    for client in 0..4 {
        let confirms_after = Duration::from_millis(700);
        let slow = |mood: &mut Mood| mood.confirms_after = confirms_after;
        bridge.client("one", client).change(slow);
    }
    bridge.client("one", 0).change(away);
    // Some ten batches of the largest size.
    give_pages(&mut bridge, "0a", 80).await;
    bridge.client("one", 0).change(|mood| mood.away = false);
    for client in 1..4 {
        let before = bridge.stored("one");
        let publishes = |bridge: &ChangingBridge| bridge.stored("one") > before;
        bridge.until("a batch", SOON, publishes).await;
        bridge.take(plan(&apps, &[sink("one", client)])).await;
    }
    let is_done = |bridge: &ChangingBridge| bridge.pending("0a", "one") == 0;
    bridge
        .until("everything is published", SOON * 2, is_done)
        .await;
    assert_eq!(bridge.wrong("one"), Vec::<String>::new());
}

/// Gives a ring so many pages, as fast as they are read.
async fn give_pages(bridge: &mut ChangingBridge, app_id: &str, pages: u64) {
    let has_room = |bridge: &ChangingBridge| bridge.waiting(app_id) <= 1_000;
    for _ in 0..pages {
        bridge.until("room in the ring", SOON, has_room).await;
        bridge.give(app_id, Stream::User, 1_000);
    }
    let is_read = |bridge: &ChangingBridge| bridge.waiting(app_id) == 0;
    bridge.until("the ring is read", SOON, is_read).await;
}

/// Holds: a polling loop that panics while it has requests in flight, where it asks its source for the rings or for the
/// credentials, polls all of them again within seconds, and within the limit.
#[tokio::test(start_paused = true)]
async fn a_polling_loop_that_panics_polls_all_rings_again() {
    for in_rings in [false, true] {
        let panics = Panics::default();
        let polled = |most: u64| {
            let mut app = slow_app("0a", "a", 150, most);
            app.source.regions = REGIONS.to_vec();
            app.source.panics = panics.clone();
            plan(&[app], &[sink("one", 0)])
        };
        let bridge = ChangingBridge::running(&["0a"], polled(300)).await;
        sleep(BEGUN).await;
        if in_rings {
            panics.in_rings();
            // Another source, which the loop takes over.
            bridge.take(polled(301)).await;
        } else {
            panics.in_credentials();
            let auth = SimAuth::Basic {
                key: "another".to_owned(),
                secret: "another".to_owned(),
            };
            bridge.server.set_auth("0a", auth);
        }
        let has_panicked = |_: &ChangingBridge| !panics.is_to_come();
        bridge.until("the panic", SOON, has_panicked).await;
        bridge.server.set_auth("0a", SimAuth::Open);
        for region in REGIONS {
            for stream in Stream::ALL {
                bridge.push("0a", region, stream, &[event(stream, 0)]);
            }
        }
        let what = format!("polls of all rings, the panic in rings(): {in_rings}");
        let are_polled = |bridge: &ChangingBridge| bridge.waiting("0a") == 0;
        bridge.until(&what, SOON / 3, are_polled).await;
        assert_eq!(bridge.too_fast(), Vec::<String>::new());
    }
}

/// Holds: a plan that needs more cursors in a lane than that may have is refused, says how many those are, and what runs
/// goes on; be it for the number of sinks, for those that remember copies, or for those that removed sinks have left. One
/// that needs as many as there may be is taken, and all of its sinks publish.
#[tokio::test(start_paused = true)]
async fn a_plan_of_too_many_cursors_is_refused() {
    let sinks = |name: &str, count: usize| -> Vec<Into> {
        (0..count)
            .map(|number| sink(&format!("{name}{number}"), 0))
            .collect()
    };
    let mut copies = app("0a", "a");
    copies.source.regions = REGIONS.to_vec();
    copies.copy_rule = Some(CopyRule {
        window: Duration::from_secs(60),
        drops: true,
    });
    let plain = app("0a", "a");
    for (first, app, refused) in [
        (1, &plain, sinks("s", MOST_CURSORS + 1)),
        (1, &copies, sinks("s", MOST_CURSORS / 2 + 1)),
        (10, &plain, sinks("other", MOST_CURSORS - 9)),
    ] {
        let runs = plan(std::slice::from_ref(app), &sinks("s", first));
        let mut bridge = ChangingBridge::running(&["0a"], runs).await;
        sleep(BEGUN).await;
        let before = bridge.series();
        let count = refused.len();
        let answer = bridge
            .propose(plan(std::slice::from_ref(app), &refused))
            .await;
        let Err(error) = answer else {
            panic!(
                "{count} sinks beside {first} are taken, with {:?}",
                app.copy_rule
            );
        };
        let said = chain(&error);
        assert!(said.contains(&MOST_CURSORS.to_string()), "{said}");
        assert_eq!(difference(&bridge.series(), &before), Vec::<String>::new());
        bridge.give("0a", Stream::User, 10);
        let has_all = |bridge: &ChangingBridge| bridge.has_all("s0", "0a");
        bridge.until("what runs goes on", SOON, has_all).await;
    }
    let runs = plan(std::slice::from_ref(&plain), &sinks("s", 1));
    let mut bridge = ChangingBridge::running(&["0a"], runs).await;
    let most = sinks("s", MOST_CURSORS);
    bridge.take(plan(&[plain], &most)).await;
    bridge.give("0a", Stream::User, 10);
    let has_all =
        |bridge: &ChangingBridge| most.iter().all(|sink| bridge.has_all(&sink.name, "0a"));
    bridge.until("all sinks publish", SOON, has_all).await;
}

/// Holds: an App ID that comes back while what it left before a restart is still being published loses nothing, doubles
/// nothing and keeps the order of a ring, whose requests overtake each other before and after.
#[tokio::test(start_paused = true)]
async fn an_app_id_that_comes_back_keeps_the_order_of_its_rings() {
    let a = slow_app("0a", "a", 50, 800);
    let b = app("0b", "b");
    let sinks = [sink("one", 0)];
    let all = || plan(&[a.clone(), b.clone()], &sinks);
    let mut bridge = ChangingBridge::running(&["0a", "0b"], all()).await;
    bridge.client("one", 0).change(away);
    give_pages(&mut bridge, "0a", 24).await;
    let is_stored = |bridge: &ChangingBridge| bridge.pending("0a", "one") == 24_000;
    bridge.until("pages in the journal", SOON, is_stored).await;
    bridge.stop().await;
    bridge.client("one", 0).change(|mood| {
        mood.away = false;
        mood.confirms_after = Duration::from_secs(4);
    });
    bridge.start(plan(std::slice::from_ref(&b), &sinks)).await;
    let publishes = |bridge: &ChangingBridge| bridge.stored("one") > 0;
    bridge
        .until("leftovers are published", SOON, publishes)
        .await;
    bridge.take(all()).await;
    assert!(bridge.pending("0a", "one") > 0);
    give_pages(&mut bridge, "0a", 24).await;
    let is_done = |bridge: &ChangingBridge| bridge.pending("0a", "one") == 0;
    bridge
        .until("everything is published", SOON * 4, is_done)
        .await;
    assert_eq!(bridge.wrong("one"), Vec::<String>::new());
    let pages = bridge.server.ledger().pages;
    let finished: Vec<u64> = pages
        .iter()
        .filter_map(|page| page.finished_at_ms)
        .collect();
    for half in finished.chunks(finished.len() / 2) {
        assert!(
            half.windows(2).any(|pair| pair[0] > pair[1]),
            "no page overtakes another"
        );
    }
}

/// What a seed makes of thirty plans.
struct Chance {
    rng: Rng,
    apps: BTreeMap<&'static str, App>,
    sinks: BTreeMap<&'static str, Into>,
    /// The highest number that a client of each sink has had.
    clients: BTreeMap<&'static str, u32>,
}

const APP_IDS: [&str; 6] = ["0a", "0b", "0c", "0d", "0e", "0f"];
const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
/// The first of them stays all the time.
const SINKS: [&str; 3] = ["stays", "one", "two"];

/// One half of them have requests in flight at almost every moment.
fn any_app(app_id: &str, name: &str) -> App {
    match app_id {
        "0a" | "0b" | "0c" => slow_app(app_id, name, 100, 900),
        _ => app(app_id, name),
    }
}

impl Chance {
    fn new(seed: u64) -> Chance {
        let apps = APP_IDS.into_iter().zip(NAMES);
        Chance {
            rng: Rng::with_seed(seed),
            apps: apps
                .map(|(app_id, name)| (app_id, any_app(app_id, name)))
                .collect(),
            sinks: SINKS
                .into_iter()
                .map(|name| (name, sink(name, 0)))
                .collect(),
            clients: BTreeMap::new(),
        }
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.rng.usize(..of.len())]
    }

    fn plan(&self) -> ChangingPlan {
        let apps: Vec<App> = self.apps.values().cloned().collect();
        let sinks: Vec<Into> = self.sinks.values().cloned().collect();
        plan(&apps, &sinks)
    }

    fn app_id_of(&self, name: &str) -> Option<&'static str> {
        let mut apps = self.apps.iter();
        apps.find(|(_, app)| app.name == name)
            .map(|(app_id, _)| *app_id)
    }

    /// Gives an App ID a name; one that had it gets the name that becomes free.
    fn rename(&mut self, app_id: &'static str, name: &'static str) {
        let holder = self.app_id_of(name);
        let free = self
            .apps
            .get_mut(app_id)
            .map(|app| std::mem::replace(&mut app.name, name.into()));
        if let (Some(holder), Some(free)) = (holder.filter(|holder| *holder != app_id), free) {
            self.apps.get_mut(holder).unwrap().name = free;
        }
    }

    fn meddle(&mut self, bridge: &ChangingBridge) {
        let (app_id, name) = (self.pick(&APP_IDS), self.pick(&NAMES));
        let sink_name = self.pick(&SINKS);
        match self.rng.u8(0..8) {
            0 | 1 if self.apps.contains_key(app_id) => drop(self.apps.remove(app_id)),
            0 | 1 => {
                let free = NAMES
                    .into_iter()
                    .find(|name| self.app_id_of(name).is_none());
                self.apps.insert(app_id, any_app(app_id, free.unwrap()));
            }
            2 | 3 => self.rename(app_id, name),
            4 if sink_name == SINKS[0] => {}
            4 => {
                if self.sinks.remove(sink_name).is_none() {
                    let client = *self.clients.entry(sink_name).or_default();
                    self.sinks.insert(sink_name, sink(sink_name, client));
                }
            }
            5 => {
                let client = self.clients.entry(sink_name).or_default();
                *client += 1;
                if let Some(sink) = self.sinks.get_mut(sink_name) {
                    sink.client = *client;
                }
            }
            6 => {
                let client = self.clients.get(sink_name).copied().unwrap_or_default();
                bridge
                    .client(sink_name, client)
                    .change(|mood| mood.down = !mood.down);
            }
            _ => {
                let (rate, paused) = (self.rng.u32(2..=10), self.rng.bool());
                if let Some(app) = self.apps.get_mut(app_id) {
                    (app.requests_per_second, app.paused) = (rate, paused);
                }
            }
        }
    }
}

/// Runs one seed; says what is wrong.
async fn thirty_plans(seed: u64) -> Vec<String> {
    let mut chance = Chance::new(seed);
    let mut bridge = ChangingBridge::running(&APP_IDS, chance.plan()).await;
    for _ in 0..30 {
        for _ in 0..chance.rng.u8(1..4) {
            chance.meddle(&bridge);
        }
        bridge.take(chance.plan()).await;
        for app_id in APP_IDS {
            for stream in Stream::ALL {
                if bridge.waiting(app_id) < 1_500 {
                    bridge.give(app_id, stream, chance.rng.u64(0..60));
                }
            }
        }
        sleep(Duration::from_millis(chance.rng.u64(0..1_500))).await;
    }
    // All that stays is back, and works.
    let mut last = Chance::new(seed);
    for app_id in APP_IDS {
        if chance.rng.f64() < 0.3 {
            last.apps.remove(app_id);
        }
    }
    for sink in SINKS {
        let last = chance.clients.get(sink).copied().unwrap_or_default();
        for client in 0..=last {
            bridge.client(sink, client).change(works);
        }
    }
    bridge.take(last.plan()).await;
    let is_read =
        |bridge: &ChangingBridge| last.apps.keys().all(|app_id| bridge.waiting(app_id) == 0);
    bridge
        .until(&format!("seed {seed}: every ring is read"), SOON, is_read)
        .await;
    sleep(SOON).await;
    let mut wrong = bridge.too_fast();
    for sink in SINKS {
        wrong.extend(bridge.wrong(sink));
    }
    wrong.extend(difference(
        &bridge.series(),
        &series_of(&APP_IDS, last.plan()).await,
    ));
    bridge.stop().await;
    wrong
}

/// Holds: App IDs and sinks that come, go, change their names and their clients again and again, under load and with sinks
/// that are down for a while, cost no event and double none: every sink that was there at the beginning and is at the end
/// holds all that was read, in the order of its rings, be the App ID back at the end or not. No App ID has more requests in a second than Agora allows, and the
/// metrics are those of a bridge that never had another plan.
#[tokio::test(start_paused = true)]
async fn any_plans_lose_nothing() {
    let seeds = std::env::var("RTM_SIMULATION_SEEDS").map_or(SEEDS, |seeds| seeds.parse().unwrap());
    for seed in 1..=seeds {
        let wrong = thirty_plans(seed).await;
        assert!(wrong.is_empty(), "seed {seed}: {wrong:#?}");
    }
}

/// Holds: a bridge whose journal has stopped sends no further request, which would delete what it could not store, and
/// ends at once, with an error that says so; the next one loses nothing that was stored.
#[tokio::test(start_paused = true)]
async fn a_journal_that_stops_ends_the_bridge() {
    let both = || plan(&named(&[("0a", "a")]), &[sink("one", 1)]);
    let mut bridge = ChangingBridge::running(&["0a"], both()).await;
    bridge.give("0a", Stream::User, 500);
    bridge
        .until("everything", SOON, |bridge| bridge.has_all("one", "0a"))
        .await;
    let requests = |bridge: &ChangingBridge| bridge.server.stats().apps[0].requests;
    let before = requests(&bridge);
    let error = bridge.lose_journal().await.unwrap_err();
    assert_eq!(
        chain(&error),
        "the journal has stopped: nothing that is read could be stored"
    );
    sleep(SOON).await;
    assert!(requests(&bridge) <= before + 1);
    bridge.give("0a", Stream::User, 500);
    bridge.start(both()).await;
    bridge
        .until("everything", SOON, |bridge| bridge.has_all("one", "0a"))
        .await;
    bridge.stop().await;
}

/// The sink `one`, with other templates.
fn routed(topic: &str, dead_letters: &str) -> Into {
    let mut sink = sink("one", 0);
    let template = |text| Template::parse(text, STATIC).unwrap();
    sink.routes.topic = template(topic);
    sink.routes.dead_letters = template(dead_letters);
    sink
}

/// The topics of what the sink `one` holds, with how many records each has.
fn by_topic(bridge: &ChangingBridge) -> BTreeMap<String, usize> {
    let mut topics = BTreeMap::new();
    for record in bridge.client("one", 0).stored() {
        *topics.entry(record.topic.to_string()).or_default() += 1;
    }
    topics
}

/// An event whose record has more bytes than this.
fn long_event(bytes: usize) -> String {
    let long = "x".repeat(bytes);
    format!(r#"{{"user_id":"u","type":"Login","ms":1,"long":"{long}"}}"#)
}

/// Holds: a record that is larger than its place allows becomes a dead letter that is cut until it fits in the same place,
/// with its id, position and reason; and what follows is published.
#[tokio::test(start_paused = true)]
async fn a_dead_letter_is_cut_until_it_fits() {
    for largest in [600, 3_000, 40_000] {
        let apps = named(&[("0a", "a")]);
        let mut bridge = ChangingBridge::running(&["0a"], plan(&apps, &[sink("one", 0)])).await;
        let limits = |mood: &mut Mood| mood.largest = Some(largest);
        bridge.client("one", 0).change(limits);
        bridge.push("0a", REGIONS[0], Stream::User, &[long_event(100_000)]);
        bridge.give("0a", Stream::User, 500);
        let is_done = |bridge: &ChangingBridge| bridge.has_all("one", "0a");
        bridge.until("what follows", SOON, is_done).await;
        let stored = bridge.client("one", 0).stored();
        let dead = |record: &&rtm_sink::Record| record.topic.as_str() == "dead_letters";
        let letters: Vec<_> = stored.iter().filter(dead).collect();
        assert_eq!(letters.len(), 1, "{largest}");
        let letter: serde_json::Value = serde_json::from_slice(&letters[0].payload).unwrap();
        assert_eq!(letter["id"], letters[0].id.to_string());
        assert_eq!(letter["position"], letters[0].id.position);
        assert_eq!(
            (&letter["reason"], &letter["truncated"]),
            (&"too_large".into(), &true.into())
        );
        let kept = letter["raw"].as_str().unwrap().len();
        assert_eq!(kept > 4_000, largest > 10_000, "{kept} of {largest}");
        bridge.stop().await;
    }
}

/// Holds: a place that takes nothing, of events or of dead letters, is said to hold its batch, and no event goes to the
/// dead letters for it; once it takes records again everything is there, in order; and a topic beside it is no evidence.
#[tokio::test(start_paused = true)]
async fn a_place_that_takes_nothing_holds() {
    let apps = named(&[("0a", "a")]);
    let mut bridge = ChangingBridge::running(&["0a"], plan(&apps, &[sink("one", 0)])).await;
    let refuses = |mood: &mut Mood| mood.refusing = vec!["user_events"];
    bridge.client("one", 0).change(refuses);
    bridge.give("0a", Stream::User, 400);
    bridge.give("0a", Stream::Channel, 400);
    let is_held = |bridge: &ChangingBridge| {
        let said = bridge.readiness();
        said.contains("held") && said.contains("takes none") && said.contains("user_events")
    };
    bridge.until("it is held", SOON, is_held).await;
    for _ in 0..10 {
        bridge.give("0a", Stream::User, 40);
        bridge.give("0a", Stream::Channel, 40);
        sleep(BEGUN).await;
    }
    assert_eq!(by_topic(&bridge).get("dead_letters"), None);
    bridge.client("one", 0).change(works);
    let is_done = |bridge: &ChangingBridge| bridge.pending("0a", "one") == 0;
    bridge.until("everything is published", SOON, is_done).await;
    assert_eq!(bridge.wrong("one"), Vec::<String>::new());
    assert_eq!(by_topic(&bridge).get("dead_letters"), None);
    let is_ready = |bridge: &ChangingBridge| !bridge.readiness().contains("held");
    bridge.until("it says so", SOON, is_ready).await;
}

/// Holds: a few events that are refused go to the dead letters, though nothing else comes; a place of dead letters that
/// takes nothing holds.
#[tokio::test(start_paused = true)]
async fn a_few_refused_events_are_dead_letters() {
    let apps = named(&[("0a", "a")]);
    let mut bridge = ChangingBridge::running(&["0a"], plan(&apps, &[sink("one", 0)])).await;
    let refuses = |mood: &mut Mood| mood.refusing = vec!["user_events", "dead_letters"];
    bridge.client("one", 0).change(refuses);
    bridge.give("0a", Stream::User, 5);
    let is_held = |bridge: &ChangingBridge| {
        bridge
            .readiness()
            .contains("what waits is for dead_letters")
    };
    bridge.until("it is held", SOON, is_held).await;
    let refuses = |mood: &mut Mood| mood.refusing = vec!["user_events"];
    bridge.client("one", 0).change(refuses);
    let is_done = |bridge: &ChangingBridge| bridge.pending("0a", "one") == 0;
    bridge.until("everything is published", SOON, is_done).await;
    assert_eq!(by_topic(&bridge), [("dead_letters".to_owned(), 5)].into());
    for record in bridge.client("one", 0).stored() {
        let letter: serde_json::Value = serde_json::from_slice(&record.payload).unwrap();
        assert_eq!(letter["truncated"], false, "as it was before it was cut");
    }
}

/// Holds: what is refused for its own sake, its size or its timestamp, is a dead letter and no evidence against its place,
/// however much of it comes in a row, and also where the place took nothing before.
#[tokio::test(start_paused = true)]
async fn what_is_refused_for_its_own_sake_holds_nothing() {
    let apps = named(&[("0a", "a")]);
    let is_done = |bridge: &ChangingBridge| bridge.pending("0a", "one") == 0;
    let letters = |count: usize| ("dead_letters".to_owned(), count);
    let events = |count: usize| ("user_events".to_owned(), count);

    let mut bridge = ChangingBridge::running(&["0a"], plan(&apps, &[sink("one", 0)])).await;
    bridge.client("one", 0).change(|mood| {
        mood.refusing = vec!["user_events"];
        mood.largest = Some(3_000);
    });
    bridge.client("one", 0).change(away);
    bridge.push("0a", REGIONS[0], Stream::User, &[long_event(10_000)]);
    bridge.give("0a", Stream::User, 30);
    let is_stored = |bridge: &ChangingBridge| bridge.pending("0a", "one") == 31;
    bridge.until("events in the journal", SOON, is_stored).await;
    bridge.client("one", 0).change(|mood| mood.away = false);
    let is_held = |bridge: &ChangingBridge| bridge.readiness().contains("takes none");
    bridge.until("it is held", SOON, is_held).await;
    bridge.client("one", 0).change(|mood| mood.refusing.clear());
    bridge.until("it is mended", SOON, is_done).await;
    assert_eq!(by_topic(&bridge), [letters(1), events(30)].into());
    bridge.stop().await;

    let mut bridge = ChangingBridge::running(&["0a"], plan(&apps, &[sink("one", 0)])).await;
    let now = bridge.server.clock().unix_ms() as i64;
    let oldest = |mood: &mut Mood| mood.oldest = Some(now - 3_600_000);
    bridge.client("one", 0).change(oldest);
    let old = |minutes: i64| {
        let ms = now - 7_200_000 + minutes * 1_000;
        format!(r#"{{"user_id":"u","type":"Login","ms":{ms}}}"#)
    };
    let old: Vec<String> = (0..40).map(old).collect();
    bridge.push("0a", REGIONS[0], Stream::User, &old);
    let are_letters = |bridge: &ChangingBridge| by_topic(bridge) == [letters(40)].into();
    bridge
        .until("those that are too old", SOON, are_letters)
        .await;
    let refuses = |mood: &mut Mood| mood.refusing = vec!["user_events"];
    bridge.client("one", 0).change(refuses);
    bridge.give("0a", Stream::User, 1);
    let are_letters = |bridge: &ChangingBridge| by_topic(bridge) == [letters(41)].into();
    bridge.until("the first of a row", SOON, are_letters).await;
    bridge.client("one", 0).change(|mood| mood.refusing.clear());
    bridge.give("0a", Stream::User, 10);
    let expected = [letters(41), events(10)].into();
    let are_there = |bridge: &ChangingBridge| by_topic(bridge) == expected;
    bridge.until("those of now", SOON, are_there).await;
}

/// Holds: a dead letter that is refused for something else than its size keeps all of its bytes, whenever its place is
/// mended, and says why it waits.
#[tokio::test(start_paused = true)]
async fn a_dead_letter_is_cut_for_its_size_only() {
    let apps = named(&[("0a", "a")]);
    for refusal in ["invalid", "policy"] {
        for later in 0..8 {
            let bridge = ChangingBridge::running(&["0a"], plan(&apps, &[sink("one", 0)])).await;
            bridge.client("one", 0).change(|mood| {
                mood.refusing = vec!["user_events", "dead_letters"];
                mood.refusal = refusal;
                mood.confirms_after = Duration::from_secs(2);
            });
            bridge.push("0a", REGIONS[0], Stream::User, &[long_event(100_000)]);
            let is_held = |bridge: &ChangingBridge| {
                bridge
                    .readiness()
                    .contains("what waits is for dead_letters")
            };
            bridge.until("it is held", SOON, is_held).await;
            sleep(later * Duration::from_secs(2)).await;
            bridge.client("one", 0).change(works);
            let is_done = |bridge: &ChangingBridge| bridge.pending("0a", "one") == 0;
            bridge.until("it is published", SOON, is_done).await;
            let stored = bridge.client("one", 0).stored().swap_remove(0);
            let letter: serde_json::Value = serde_json::from_slice(&stored.payload).unwrap();
            let raw = letter["raw"].as_str().unwrap().len();
            assert!(raw > 100_000, "{refusal}, {later}: {raw}");
        }
    }
}

/// Holds: a dead letter that was being cut when its place changed is published whole, and in the new place only, though that
/// refuses it for a while too.
#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_was_cut_takes_the_new_topic() {
    let apps = named(&[("0a", "a")]);
    for later in 0..8 {
        let old = routed("{stream}_events", "old_letters");
        let bridge = ChangingBridge::running(&["0a"], plan(&apps, &[old])).await;
        bridge.client("one", 0).change(|mood| {
            mood.largest = Some(10);
            mood.confirms_after = Duration::from_secs(2);
        });
        bridge.push("0a", REGIONS[0], Stream::User, &[long_event(100_000)]);
        let is_held =
            |text: &'static str| move |bridge: &ChangingBridge| bridge.readiness().contains(text);
        let is_old = is_held("what waits is for old_letters");
        bridge.until("it is held", SOON, is_old).await;
        sleep(later * Duration::from_secs(2)).await;
        let new = routed("{stream}_events", "new_letters");
        bridge.take(plan(&apps, &[new])).await;
        sleep(SOON).await;
        let is_new = is_held("what waits is for new_letters");
        bridge.until("it is held again", SOON, is_new).await;
        bridge.client("one", 0).change(works);
        let is_done = |bridge: &ChangingBridge| bridge.pending("0a", "one") == 0;
        bridge.until("it is published", SOON, is_done).await;
        let topics = by_topic(&bridge);
        assert_eq!(topics, [("new_letters".to_owned(), 1)].into(), "{later}");
        let stored = bridge.client("one", 0).stored().swap_remove(0);
        assert!(stored.payload.len() > 100_000, "{later}");
    }
}

/// Holds: what is given to a sink again counts as published again, and what waits beside it does not.
#[tokio::test(start_paused = true)]
async fn what_is_given_again_is_counted() {
    let apps = named(&[("0a", "a")]);
    let mut bridge = ChangingBridge::running(&["0a"], plan(&apps, &[sink("one", 0)])).await;
    let retried = |bridge: &ChangingBridge| {
        let labels = [("app", "a"), ("sink", "one")];
        let retried = bridge.metric("rtm_bridge_records_retried_total", &labels);
        retried.unwrap() as u64
    };
    bridge.client("one", 0).change(down);
    bridge.give("0a", Stream::User, 7);
    let is_again = |bridge: &ChangingBridge| retried(bridge) >= 14;
    bridge.until("all are given again", SOON, is_again).await;
    bridge.client("one", 0).change(works);
    let is_done = |bridge: &ChangingBridge| bridge.pending("0a", "one") == 0;
    bridge.until("all are published", SOON, is_done).await;
    let before = retried(&bridge);
    assert_eq!(before % 7, 0);
    let refuses = |mood: &mut Mood| mood.refusing = vec!["user_events"];
    bridge.client("one", 0).change(refuses);
    bridge.give("0a", Stream::User, 400);
    let is_held = |bridge: &ChangingBridge| bridge.readiness().contains("takes none");
    bridge.until("it is held", SOON, is_held).await;
    sleep(SOON).await;
    let of_held = retried(&bridge) - before;
    assert!(
        (3..=12).contains(&of_held),
        "one in five seconds: {of_held}"
    );
}

/// Holds: what waits for a topic takes the one of the next configuration, with its key and its headers, and says meanwhile
/// for which topic it waits: be it held, or in a call that does not end; also what waits for the dead letters.
#[tokio::test(start_paused = true)]
async fn what_waits_takes_the_new_topic() {
    let apps = named(&[("0a", "a")]);
    let right = || routed("{stream}_events", "dead_letters");
    for is_away in [false, true] {
        let wrong = routed("{stream}_evnts", "dead_letters");
        let mut bridge = ChangingBridge::running(&["0a"], plan(&apps, &[wrong])).await;
        let topics = vec!["user_events", "channel_events", "dead_letters"];
        bridge.client("one", 0).change(|mood| {
            mood.topics = topics;
            mood.away = is_away;
        });
        bridge.give("0a", Stream::User, 700);
        let waits = |bridge: &ChangingBridge| match is_away {
            false => bridge.readiness().contains("what waits is for user_evnts"),
            true => bridge.pending("0a", "one") == 700,
        };
        bridge.until("it waits", SOON, waits).await;
        // The call has begun.
        sleep(BEGUN).await;
        let mut keyed = right();
        keyed.routes.headers = true;
        bridge.take(plan(&apps, &[keyed])).await;
        // A call that has begun is given some time.
        sleep(SOON).await;
        bridge.client("one", 0).change(|mood| mood.away = false);
        let is_done = |bridge: &ChangingBridge| bridge.pending("0a", "one") == 0;
        bridge.until("everything is published", SOON, is_done).await;
        assert_eq!(bridge.wrong("one"), Vec::<String>::new(), "{is_away}");
        assert_eq!(by_topic(&bridge), [("user_events".to_owned(), 700)].into());
        let stored = bridge.client("one", 0).stored();
        assert!(stored.iter().all(|record| !record.headers.is_empty()));
        bridge.stop().await;
    }
    let wrong = routed("{stream}_events", "dead_ltters");
    let mut bridge = ChangingBridge::running(&["0a"], plan(&apps, &[wrong])).await;
    bridge.client("one", 0).change(|mood| {
        mood.topics = vec!["user_events", "dead_letters"];
        mood.refusing = vec!["user_events"];
    });
    bridge.give("0a", Stream::User, 3);
    let waits =
        |bridge: &ChangingBridge| bridge.readiness().contains("what waits is for dead_ltters");
    bridge.until("it waits", SOON, waits).await;
    bridge.take(plan(&apps, &[right()])).await;
    let is_done = |bridge: &ChangingBridge| bridge.pending("0a", "one") == 0;
    bridge.until("everything is published", SOON, is_done).await;
    assert_eq!(by_topic(&bridge), [("dead_letters".to_owned(), 3)].into());
}

/// Holds: a reason is that of the last attempt: one that is cured is named no more.
#[tokio::test(start_paused = true)]
async fn a_reason_ends_with_its_cause() {
    let apps = named(&[("0a", "a")]);
    let mut bridge = ChangingBridge::running(&["0a"], plan(&apps, &[sink("one", 0)])).await;
    let one = bridge.client("one", 0);
    one.change(|mood| mood.topics = vec!["other"]);
    bridge.give("0a", Stream::User, 3);
    let why = |bridge: &ChangingBridge| bridge.state().snapshot().sinks[0].why.clone();
    let says = |text: &'static str| {
        move |bridge: &ChangingBridge| why(bridge).is_some_and(|why| why.contains(text))
    };
    let missing = says("there is no topic user_events");
    bridge.until("a missing topic", SOON, missing).await;
    assert!(bridge.readiness().contains("there is no topic user_events"));
    one.change(|mood| (mood.topics, mood.down) = (Vec::new(), true));
    let down = says("down in the simulation");
    bridge.until("a broker that is down", SOON, down).await;
    let said = bridge.readiness() + &why(&bridge).unwrap() + &bridge.findings();
    assert!(!said.contains("there is no topic"), "{said}");
    one.change(works);
    let is_well = |bridge: &ChangingBridge| why(bridge).is_none();
    bridge.until("all is well", SOON, is_well).await;
    assert!(bridge.readiness().contains(r#""ready":true"#));
}

/// Holds: a sink that takes an App ID no more is shown for as long as events of it wait, with what to do for that App ID
/// alone; what the sink takes of others is not counted with it; and it is gone once the App ID is back.
#[tokio::test(start_paused = true)]
async fn an_app_id_that_a_sink_takes_no_more_is_shown() {
    let apps = named(&[("0a", "a"), ("0b", "b")]);
    let taking = |names: &[&str]| Into {
        apps: Some(names.iter().map(|name| (*name).to_owned()).collect()),
        ..sink("one", 0)
    };
    let by = |names: &[&str]| plan(&apps, &[taking(names), sink("two", 0)]);
    let mut bridge = ChangingBridge::running(&["0a", "0b"], by(&["a", "b"])).await;
    bridge.client("one", 0).change(away);
    bridge.give("0a", Stream::User, 300);
    bridge.give("0b", Stream::User, 200);
    let are_stored = |bridge: &ChangingBridge| {
        bridge.pending("0a", "one") == 300 && bridge.pending("0b", "one") == 200
    };
    bridge
        .until("events in the journal", SOON, are_stored)
        .await;
    let shown = |bridge: &ChangingBridge| bridge.state().snapshot().removed_sinks;
    assert!(shown(&bridge).is_empty());
    bridge.take(by(&["a"])).await;
    let advice = "journal forget --sink one --app b`";
    let is_shown = |bridge: &ChangingBridge| bridge.findings().contains(advice);
    bridge.until("it is shown", SOON, is_shown).await;
    let removed = shown(&bridge);
    assert_eq!(removed.len(), 1);
    let (name, app) = (removed[0].name.as_str(), removed[0].app.as_deref());
    assert_eq!(
        (name, app, removed[0].pending_events),
        ("one", Some("b"), 200)
    );
    assert!(
        bridge
            .readiness()
            .contains(r#""removed_sinks":["one (b)"]"#)
    );
    assert!(!bridge.findings().contains("0b"));
    let waiting =
        |bridge: &ChangingBridge| bridge.metric("rtm_bridge_removed_sinks_pending_events", &[]);
    assert_eq!(waiting(&bridge), Some(200.0));
    // Once the App ID has left as well, the sink gets nothing of it either.
    bridge
        .take(plan(&apps[..1], &[taking(&["a"]), sink("two", 0)]))
        .await;
    sleep(SOON).await;
    assert!(is_shown(&bridge), "{}", bridge.findings());
    bridge.client("one", 0).change(works);
    bridge.take(by(&["a", "b"])).await;
    let is_done =
        |bridge: &ChangingBridge| bridge.has_all("one", "0a") && bridge.has_all("one", "0b");
    bridge.until("it is back", SOON, is_done).await;
    assert!(shown(&bridge).is_empty());
    assert!(!bridge.findings().contains("one"), "{}", bridge.findings());
    assert_eq!(waiting(&bridge), Some(0.0));
}

/// Holds: a sink that has left the configuration and had everything is not shown, though it remembered copies.
#[tokio::test(start_paused = true)]
async fn a_removed_sink_that_had_everything_is_not_shown() {
    let mut a = app("0a", "a");
    a.copy_rule = Some(CopyRule {
        window: Duration::from_secs(60),
        drops: true,
    });
    let apps = [a];
    let both = plan(&apps, &[sink("one", 0), sink("two", 0)]);
    let mut bridge = ChangingBridge::running(&["0a"], both).await;
    bridge.give("0a", Stream::User, 10);
    let is_done = |bridge: &ChangingBridge| bridge.has_all("two", "0a");
    bridge.until("everything is published", SOON, is_done).await;
    bridge.take(plan(&apps, &[sink("one", 0)])).await;
    sleep(BEGUN).await;
    assert_eq!(bridge.pending("0a", "two"), 0);
    assert!(bridge.pending("0a", "two.copies") > 0);
    assert!(bridge.state().snapshot().removed_sinks.is_empty());
    assert!(!bridge.findings().contains("two"), "{}", bridge.findings());
}

/// Holds: a sink that has left the configuration is shown for as long as events wait for it, with what to do, and is gone
/// once it is back.
#[tokio::test(start_paused = true)]
async fn a_removed_sink_is_shown() {
    let apps = named(&[("0a", "a")]);
    let both = || plan(&apps, &[sink("one", 0), sink("two", 0)]);
    let mut bridge = ChangingBridge::running(&["0a"], both()).await;
    bridge.client("two", 0).change(away);
    bridge.give("0a", Stream::User, 500);
    let is_stored = |bridge: &ChangingBridge| bridge.pending("0a", "two") == 500;
    bridge.until("events in the journal", SOON, is_stored).await;
    bridge.take(plan(&apps, &[sink("one", 0)])).await;
    let is_shown = |bridge: &ChangingBridge| {
        let (said, removed) = (bridge.findings(), bridge.state().snapshot().removed_sinks);
        said.contains("journal forget --sink two")
            && removed.len() == 1
            && (removed[0].name.as_str(), removed[0].pending_events) == ("two", 500)
    };
    bridge.until("it is shown", SOON, is_shown).await;
    let waiting =
        |bridge: &ChangingBridge| bridge.metric("rtm_bridge_removed_sinks_pending_events", &[]);
    assert_eq!(waiting(&bridge), Some(500.0));
    bridge.client("two", 1).change(works);
    bridge
        .take(plan(&apps, &[sink("one", 0), sink("two", 1)]))
        .await;
    let is_done = |bridge: &ChangingBridge| bridge.has_all("two", "0a");
    bridge.until("it is back", SOON, is_done).await;
    assert!(!bridge.findings().contains("two"), "{}", bridge.findings());
    assert_eq!(waiting(&bridge), Some(0.0));
}

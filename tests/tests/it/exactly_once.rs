//! What becomes of records where a journal, a copy of one, or the progress at the broker is not what it was: the real binary
//! and real brokers.
#![allow(clippy::unwrap_used)]

mod bus;
mod world;

use std::time::Duration;

use rtm_tests::bridge::{Bridge, Metrics};
use rtm_tests::wait_for;

use self::bus::{Broker, Bus};
use self::world::{Delivery, SOON, World, confirmed, copy, count, end, killed};
use super::reload::until;

const FENCED: &str = "another process publishes a copy of this journal";

const NOTHING: &str = "0 events and 0 dead letters were published";

const LOST: &str = "has lost the progress of this lane";

/// Makes a test of each row, for Kafka and for NATS.
macro_rules! of_both {
    ($($row:ident,)*) => {
        mod kafka {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $row() {
                let bus = super::Bus::kafka().await;
                super::$row(super::World::new(bus).await).await;
            })*
        }
        mod nats {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $row() {
                let bus = super::Bus::nats().await;
                super::$row(super::World::new(bus).await).await;
            })*
        }
    };
}

of_both! {
    a_restored_journal_loses_and_repeats_nothing,
    what_a_backup_shares_is_not_published_again,
    a_hot_copy_fences_the_original,
    a_new_journal_has_a_progress_of_its_own,
    what_was_set_aside_after_a_crash_is_drained_once,
    removed_progress_is_written_anew,
    a_change_of_delivery_repeats_nothing,
}

/// How often progress was not there that should be.
async fn unknown(bridge: &Bridge) -> f64 {
    count(
        &bridge.metrics().await.unwrap(),
        "exact_progress_unknown_total",
    )
}

/// Holds: a journal that was restored from a backup numbers new events as others that were published, and each of them is
/// published once all the same; that is told, and counted.
async fn a_restored_journal_loses_and_repeats_nothing(mut world: World) {
    let place = world.place("journal", "a");
    let backup = world.dir.path().join("backup");
    let bridge = world.start(&place).await;
    world.publish(&bridge, "a", 3).await;
    end(bridge).await;
    copy(&place.journal, &backup);
    let bridge = world.start(&place).await;
    world.publish(&bridge, "a", 5).await;
    end(bridge).await;

    copy(&backup, &place.journal);
    world.bus.kill().await;
    let bridge = world.start(&place).await;
    world.give(&bridge, "a", 3).await;
    world.bus.restart().await;
    confirmed(&bridge).await;
    world.publish(&bridge, "a", 4).await;
    let metrics = bridge.metrics().await.unwrap();
    assert_eq!(count(&metrics, "exact_progress_unknown_total"), 1.0);
    assert_eq!(
        count(&metrics, "events_stored_total"),
        count(&metrics, "records_confirmed_total")
    );
    let said = end(bridge).await;
    assert!(said.contains("was it restored from a backup?"), "{said}");
    world.assert_once().await;
}

/// Holds: what a backup holds that was published after it was made is known to be published, since both histories share it.
async fn what_a_backup_shares_is_not_published_again(mut world: World) {
    let place = world.place("journal", "a");
    let backup = world.dir.path().join("backup");
    let bridge = world.start(&place).await;
    world.publish(&bridge, "a", 2).await;
    world.bus.kill().await;
    world.give(&bridge, "a", 4).await;
    copy(&place.journal, &backup);
    world.bus.restart().await;
    confirmed(&bridge).await;
    world.publish(&bridge, "a", 1).await;
    end(bridge).await;

    copy(&backup, &place.journal);
    let bridge = world.start(&place).await;
    confirmed(&bridge).await;
    world.publish(&bridge, "a", 2).await;
    end(bridge).await;
    world.assert_once().await;
}

/// Holds: of two bridges on copies of one journal the one that was started last publishes, and the other holds what it reads,
/// says so, and stays so through a reload that makes its client anew; with a number of its own it publishes all of it once.
async fn a_hot_copy_fences_the_original(mut world: World) {
    let mut old = world.place("journal", "a");
    let new = world.place("copy", "b");
    let mut original = world.start(&old).await;
    world.publish(&original, "a", 2).await;
    copy(&old.journal, &new.journal);
    let hot = world.start(&new).await;
    world.publish(&hot, "b", 3).await;
    world.give(&original, "a", 2).await;
    let fenced = |metrics: &Metrics| Ok(count(metrics, "exact_fenced") == 1.0);
    until(&original, "the fence", fenced).await;
    assert!(
        original
            .ready()
            .await
            .unwrap()
            .unwrap_err()
            .contains(FENCED)
    );

    old.turn = 1;
    let told = |bridge: &Bridge| bridge.process.output().unwrap().matches(FENCED).count();
    let before = told(&original);
    let renew = || {
        world.configure(&old);
        Ok(())
    };
    original.reload(renew).await.unwrap();
    let decided = async || {
        let pending = count(&original.metrics().await.unwrap(), "journal_pending_events");
        told(&original) > before || pending == 0.0
    };
    wait_for("the new client", SOON, decided).await.unwrap();
    until(&original, "the fence of the new client", fenced).await;
    let pending = count(&original.metrics().await.unwrap(), "journal_pending_events");
    assert_eq!(pending, 20.0);
    world.publish(&hot, "b", 1).await;

    end(original).await;
    let config = old.config.to_str().unwrap();
    let args = ["journal", "new-id", "--yes", "--config", config];
    assert!(world.command(&args).await.contains("has the number"));
    let original = world.start(&old).await;
    confirmed(&original).await;
    world.publish(&original, "a", 1).await;
    world.publish(&hot, "b", 1).await;
    end(original).await;
    end(hot).await;
    world.assert_once().await;
}

/// Holds: a journal that was wiped has no relation to what was before it; one that was set aside is drained beside the new one.
async fn a_new_journal_has_a_progress_of_its_own(mut world: World) {
    let place = world.place("journal", "a");
    let bridge = world.start(&place).await;
    world.publish(&bridge, "a", 3).await;
    end(bridge).await;
    std::fs::remove_dir_all(&place.journal).unwrap();
    let bridge = world.start(&place).await;
    world.publish(&bridge, "a", 2).await;
    world.bus.kill().await;
    world.give(&bridge, "a", 3).await;
    end(bridge).await;

    let aside = world.dir.path().join("aside");
    std::fs::rename(&place.journal, &aside).unwrap();
    world.bus.restart().await;
    let bridge = world.start(&place).await;
    world.publish(&bridge, "a", 2).await;
    world.drain(&place, &aside).await;
    end(bridge).await;
    world.assert_once().await;
    assert_eq!(world.bus.lanes().await, 3);
}

/// Holds: of a journal that was set aside after a crash, what the broker has is left out, whatever the journal knows of that;
/// and a drain that is killed goes on where it was when it is run again.
async fn what_was_set_aside_after_a_crash_is_drained_once(mut world: World) {
    let place = world.place("journal", "a");
    let bridge = world.start(&place).await;
    world.publish(&bridge, "a", 2).await;
    world.bus.kill().await;
    world.give(&bridge, "a", 3).await;
    killed(bridge);
    // What a crash leaves whose last confirmations are not in the journal.
    let before = world.dir.path().join("before");
    copy(&place.journal, &before);
    world.bus.restart().await;
    let bridge = world.start(&place).await;
    confirmed(&bridge).await;
    killed(bridge);
    let said = world.drain(&place, &before).await;
    assert!(said.contains(NOTHING), "{said}");
    world.assert_once().await;

    let bridge = world.start(&place).await;
    world.publish(&bridge, "a", 1).await;
    world.bus.kill().await;
    world.give(&bridge, "a", 5).await;
    killed(bridge);
    world.bus.restart().await;
    let aside = world.dir.path().join("aside");
    std::fs::rename(&place.journal, &aside).unwrap();
    let stored = world.stored().await;
    let mut drain = world.start_drain(&place, &aside, &["--rate", "4"]);
    let some = wait_for("a part of what waits", SOON, async || {
        world.stored().await > stored
    });
    some.await.unwrap();
    drain.kill().unwrap();
    drain.wait(SOON).await.unwrap();
    assert!(world.stored().await < world.given, "all of it was drained");
    let said = world.drain(&place, &aside).await;
    assert!(said.contains("there already"), "{said}");
    world.assert_once().await;
    let said = world.drain(&place, &aside).await;
    assert!(said.contains(NOTHING), "{said}");
    world.assert_once().await;
}

/// Holds: progress that was removed while the bridge was stopped is written anew; that is told and counted, and what comes is
/// stored once. So it is where that happens while the bridge runs: JetStream refuses the next batch, and Kafka, which stores the
/// progress that the bridge has, has lost nothing by it.
async fn removed_progress_is_written_anew(mut world: World) {
    let place = world.place("journal", "a");
    let bridge = world.start(&place).await;
    world.publish(&bridge, "a", 2).await;
    world.bus.forget().await;
    world.publish(&bridge, "a", 2).await;
    let told = match world.bus.broker {
        Broker::Nats(_) => 1.0,
        Broker::Kafka(_) => 0.0,
    };
    assert_eq!(unknown(&bridge).await, told);
    assert_eq!(world.bus.lanes().await, 1);
    world.bus.kill().await;
    world.give(&bridge, "a", 2).await;
    let said = end(bridge).await;
    assert_eq!(said.contains(LOST), told > 0.0, "{said}");

    // Not before the broker is killed, which may bring back what Kafka has removed within a minute.
    world.bus.restart().await;
    world.bus.forget().await;
    let bridge = world.start(&place).await;
    confirmed(&bridge).await;
    assert_eq!(unknown(&bridge).await, 1.0);
    world.publish(&bridge, "a", 1).await;
    end(bridge).await;
    world.assert_once().await;
}

/// Holds: after a clean stop the delivery may be changed, in either direction and back, and each record is stored once; progress
/// from before is behind the journal by then, and moves nothing back.
async fn a_change_of_delivery_repeats_nothing(mut world: World) {
    let mut place = world.place("journal", "a");
    let turns = [Delivery::AtLeastOnce, Delivery::ExactlyOnce];
    for delivery in turns.into_iter().cycle().take(5) {
        place.delivery = delivery;
        world.configure(&place);
        let bridge = world.start(&place).await;
        world.publish(&bridge, "a", 3).await;
        let metrics = bridge.metrics().await.unwrap();
        let [stored, published] =
            ["events_stored_total", "records_confirmed_total"].map(|name| count(&metrics, name));
        assert_eq!((stored, published), (world.given as f64, stored));
        assert_eq!(count(&metrics, "events_lost_at_broker_total"), 0.0);
        assert_eq!(count(&metrics, "events_republished_total"), 0.0);
        end(bridge).await;
    }
    world.assert_once().await;
}

/// Holds: a progress topic that was deleted is made anew, compacted; that is told and counted, and what comes is stored once. So it
/// is where that happened while the bridge was stopped.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_progress_topic_is_made_anew() {
    let mut world = World::new(Bus::kafka().await).await;
    let place = world.place("journal", "a");
    let mut bridge = world.start(&place).await;
    world.publish(&bridge, "a", 2).await;
    for told in [1.0, 2.0] {
        let topic = world.bus.progress();
        world.bus.as_kafka().delete_topic(&topic).await.unwrap();
        world.publish(&bridge, "a", 2).await;
        assert_eq!(unknown(&bridge).await, told);
        let policy = world.bus.as_kafka().setting(&topic, "cleanup.policy").await;
        assert_eq!(policy.unwrap(), "compact");
    }
    let said = end(bridge).await;
    assert!(said.contains(LOST), "{said}");

    let topic = world.bus.progress();
    world.bus.as_kafka().delete_topic(&topic).await.unwrap();
    world.bus.kill().await;
    bridge = world.start(&place).await;
    world.give(&bridge, "a", 2).await;
    world.bus.restart().await;
    confirmed(&bridge).await;
    assert_eq!(unknown(&bridge).await, 1.0);
    end(bridge).await;
    world.assert_once().await;
}

/// Holds: a progress topic that was deleted holds the sink where the bridge may not make it; and one that something else has made
/// meanwhile, as brokers do for whoever asks, holds it until it is compacted.
#[tokio::test(flavor = "multi_thread")]
async fn a_progress_topic_that_others_make_is_looked_at() {
    let mut world = World::new(Bus::kafka().await).await;
    let progress = world.bus.progress();
    let kafka = world.bus.as_kafka();
    let compact = [("cleanup.policy", "compact")];
    kafka.create_topic(&progress, 12, &compact).await.unwrap();
    kafka.create_topic(&world.bus.name, 3, &[]).await.unwrap();
    world.bus.creates = false;
    let place = world.place("journal", "a");
    let bridge = world.start(&place).await;
    world.publish(&bridge, "a", 2).await;
    let held = async |why: &str| {
        let is_held = async || {
            let ready = bridge.ready().await.unwrap();
            ready.is_err_and(|said| said.contains(why))
        };
        let is_held = wait_for(why, SOON, is_held).await;
        is_held.unwrap_or_else(|error| panic!("{error}\n{}", bridge.process.output().unwrap()));
    };
    world.bus.as_kafka().delete_topic(&progress).await.unwrap();
    world.give(&bridge, "a", 2).await;
    held("cleanup.policy").await;
    let kafka = world.bus.as_kafka();
    if kafka.partitions(&progress).await.unwrap() == 0 {
        kafka.create_topic(&progress, 1, &[]).await.unwrap();
    }
    held("its cleanup.policy is `delete`").await;
    kafka.set_topic(&progress, &compact).await.unwrap();
    confirmed(&bridge).await;
    assert_eq!(unknown(&bridge).await, 1.0);
    end(bridge).await;
    world.assert_once().await;
}

/// Holds: progress that has aged out, with all that was stored, is written anew; that is counted, and what comes is stored once.
#[tokio::test(flavor = "multi_thread")]
async fn progress_that_has_aged_out_is_written_anew() {
    let mut world = World::new(Bus::nats().await).await;
    let place = world.place("journal", "a");
    let bridge = world.start(&place).await;
    world.publish(&bridge, "a", 2).await;
    let jetstream = async |world: &World| {
        let context = world.bus.as_nats().jetstream().await.unwrap();
        let stream = context.get_stream(&world.bus.name).await.unwrap();
        (context, stream)
    };
    let age = async |world: &World, max_age| {
        let (context, stream) = jetstream(world).await;
        let mut config = stream.cached_info().config.clone();
        config.max_age = max_age;
        config.duplicate_window = config.duplicate_window.min(Duration::from_millis(200));
        context.update_stream(config).await.unwrap();
    };
    age(&world, Duration::from_millis(200)).await;
    let is_empty = async || jetstream(&world).await.1.cached_info().state.messages == 0;
    wait_for("everything to age out", SOON, is_empty)
        .await
        .unwrap();
    age(&world, Duration::ZERO).await;
    let aged_out = world.given;
    world.publish(&bridge, "a", 2).await;
    assert_eq!(unknown(&bridge).await, 1.0);
    end(bridge).await;
    world.assert_once_from(aged_out).await;
}

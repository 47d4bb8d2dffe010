//! The whole bridge: the real binary, the simulator in a process of its own, real brokers.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use rtm_tests::trial::{self, Broker, Brokers, Disk, Plan, Report};

/// Fails with everything that is known, unless every promise was kept; then the trial's files go.
fn must_be_kept(report: &Report) {
    assert!(
        report.kept(),
        "{:?}\n{report}\nfiles: {}",
        report.broken,
        report.dir.display()
    );
    report
        .discard()
        .expect("the files of the trial can be removed");
}

/// Prints a line that `cargo test` shows for passing tests too.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "trials: {line}");
}

/// Holds: both streams reach both brokers whole, odd events the dead letters, and no second has more than ten requests.
#[tokio::test(flavor = "multi_thread")]
async fn every_event_reaches_both_brokers_and_odd_ones_the_dead_letters() {
    let mut brokers = Brokers::start(1).await.unwrap();
    let report = Box::pin(trial::steady(
        &mut brokers,
        500.0,
        Duration::from_secs(4),
        0.05,
    ))
    .await
    .unwrap();
    must_be_kept(&report);
    assert!(report.first().handed_out > 1_000, "{report}");
    assert!(report.first().dead_lettered > 0, "{report}");
    assert_eq!(report.overwritten(), 0, "{report}");
}

/// Holds: a paused Kafka stops neither polling nor NATS, and has everything in order once it goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_paused_kafka_delays_nobody_and_loses_nothing() {
    let mut brokers = Brokers::start(1).await.unwrap();
    let report = Box::pin(trial::kafka_paused(
        &mut brokers,
        500.0,
        Duration::from_secs(5),
    ))
    .await
    .unwrap();
    must_be_kept(&report);
}

/// Holds: NATS has each record once and only once, dead letters too, whoever is killed or paused when.
#[tokio::test(flavor = "multi_thread")]
async fn nats_has_each_record_once_and_only_once() {
    let mut brokers = Brokers::start(1).await.unwrap();
    let report = Box::pin(trial::shows::exact(&mut brokers, Broker::Nats, 500.0, 6, 7))
        .await
        .unwrap();
    must_be_kept(&report);
    assert!(report.first().handed_out > 1_000, "{report}");
    assert!(report.first().dead_lettered > 0, "{report}");
}

/// Holds: the same of Kafka, for readers of what is committed.
#[tokio::test(flavor = "multi_thread")]
async fn kafka_has_each_record_once_and_only_once() {
    let mut brokers = Brokers::start(0).await.unwrap();
    let report = Box::pin(trial::shows::exact(
        &mut brokers,
        Broker::Kafka,
        500.0,
        6,
        7,
    ))
    .await
    .unwrap();
    must_be_kept(&report);
    assert!(report.first().handed_out > 1_000, "{report}");
    assert!(report.first().dead_lettered > 0, "{report}");
}

/// Holds: what NATS loses in a power failure is published again, torn batches included: nothing is missing, and where each
/// record is to be there once, none is there twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_power_failure_of_nats_loses_nothing() {
    let mut brokers = Brokers::start(1).await.unwrap();
    for (exactly_once, seed) in [(true, 3), (false, 4)] {
        let ran = trial::shows::power_failure(&mut brokers, 500.0, 4, exactly_once, seed);
        let report = Box::pin(ran).await.unwrap();
        must_be_kept(&report);
        assert!(report.first().handed_out > 1_000, "{report}");
    }
}

/// Holds: random faults, and pairs of them, break no promise; killed at any time, the bridge loses at most the pages
/// that were under way, and counts them. The seeds are fixed: together they kill the bridge, pause Kafka, kill
/// NATS, fill the disk, cut responses and delay the network. One set of brokers for all.
#[tokio::test(flavor = "multi_thread")]
async fn random_faults_break_no_promise() {
    let disks = Disk::possible();
    if !disks {
        say("this process may not mount a tmpfs, so kill -9 takes the place of full disks");
    }
    let began = Instant::now();
    let mut brokers = Brokers::start(1).await.unwrap();
    let (mut events, mut requests) = (0, 0);
    for (seed, pairs) in QUICK {
        let plan = Plan::draw(seed, pairs, disks);
        let report = match Box::pin(plan.run(&mut brokers)).await {
            Ok(report) => report,
            Err(error) => panic!("{plan}: {error:#}\nagain: {}", plan.command()),
        };
        assert!(
            report.kept(),
            "{plan}: {:?}\n{report}\nfiles: {}\nagain: {}",
            report.broken,
            report.dir.display(),
            plan.command()
        );
        if plan
            .faults
            .iter()
            .any(|timed| timed.fault == trial::Fault::Killed)
        {
            assert!(report.possibly_lost > 0.0, "a kill costs nothing: {plan}");
        }
        events += report.first().handed_out;
        requests += report.stats.apps[0].requests;
        report.discard().unwrap();
    }
    say(&format!(
        "{} random ones, {events} events, {requests} requests, {:.0} s",
        QUICK.len(),
        began.elapsed().as_secs_f64()
    ));
}

/// Seeds, and whether they are of pairs.
const QUICK: [(u64, bool); 3] = [(20, true), (36, true), (39, true)];

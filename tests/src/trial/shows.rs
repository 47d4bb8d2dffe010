//! Trials of given faults: an outage with a crash in it, a hostile source, hostile bodies, a second bridge.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rtm_sim::{Faults, Load};

use super::brokers::{Broker, Brokers};
use super::places::{DiskSetup, Setup, Sinks};
use super::report::Report;
use super::rig::{Rig, of_app};
use super::wire::{Evil, Weather};
use crate::idle::Idle;
use crate::wait_for;

/// What is out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Outage {
    /// Kafka is paused, and the bridge killed in the middle.
    KafkaPaused,
    /// NATS is killed, and so is the bridge in the middle.
    NatsKilled,
    /// The journal's disk is full, and the bridge leaves a part of it alone, as it does unless told otherwise.
    DiskFull,
    /// The same with `min_free_bytes = 0`: the bridge finds the disk full only when a write fails.
    DiskFullUnguarded,
}

/// Within which a bridge that was killed is started again.
const RESTART: Duration = Duration::from_millis(300);

/// For how long a sink may be away before readiness says so.
const SINK_DOWN: Duration = Duration::from_secs(10);

/// Descriptors that the bridge may have where they are few.
const DESCRIPTORS: usize = 200;

/// Within which it is seen that NATS has lost something, and that is published again. Three servers that start with damaged
/// files take most of a minute to elect a leader.
const AGAIN: Duration = Duration::from_secs(120);

fn both_streams(rate: f64) -> Load {
    Load {
        events_per_second: rate,
        ..Load::default()
    }
}

/// Something is out for `time` at `rate` events a second. In an outage of a broker, the bridge is killed in the middle
/// and started again within 0.3 s, and no ring runs over; readiness names the sink that is down.
///
/// # Errors
///
/// When the trial cannot be run, the restart takes longer, or readiness is wrong.
pub async fn outage(
    brokers: &mut Brokers,
    what: Outage,
    rate: f64,
    time: Duration,
) -> Result<Report> {
    let disk = |min_free_mib| {
        Some(DiskSetup {
            mib: 256,
            min_free_mib,
        })
    };
    let disk = match what {
        Outage::DiskFull => disk(8),
        Outage::DiskFullUnguarded => disk(0),
        Outage::KafkaPaused | Outage::NatsKilled => None,
    };
    let setup = Setup {
        disk,
        ..Setup::default()
    };
    let mut rig = Box::pin(Rig::start(brokers, &setup)).await?;
    rig.load(&both_streams(rate)).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (broker, sink) = match what {
        Outage::KafkaPaused => (Broker::Kafka, "kafka"),
        Outage::NatsKilled => (Broker::Nats, "nats"),
        Outage::DiskFull | Outage::DiskFullUnguarded => {
            return Box::pin(disk_full(rig, time)).await;
        }
    };
    match what {
        Outage::KafkaPaused => rig.brokers.pause(broker).await?,
        _ => rig.brokers.kill(broker).await?,
    }
    let half = time / 2;
    tokio::time::sleep(half).await;
    if half > SINK_DOWN * 2 {
        names_the_sink(&rig, sink).await?;
    }
    Box::pin(rig.kill_bridge()).await?;
    let restart = *rig.history.restarts.last().context("no restart")?;
    ensure!(restart < RESTART, "started again after {restart:?}");
    tokio::time::sleep(half).await;
    if half > SINK_DOWN * 2 {
        names_the_sink(&rig, sink).await?;
    }
    println!(
        "{what:?} for {time:?}, the bridge started again within {restart:?}; {} wait for {sink}",
        rig.pending(sink).await?
    );
    rig.brokers.heal(broker).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    Box::pin(rig.finish()).await
}

/// `kills` times, at random moments, the bridge is killed, or the broker, or both, or the broker is paused for a while: each
/// record is there once and only once.
///
/// # Errors
///
/// When the trial cannot be run.
pub async fn exact(
    brokers: &mut Brokers,
    broker: Broker,
    rate: f64,
    kills: u32,
    seed: u64,
) -> Result<Report> {
    let setup = Setup {
        seed,
        regions: 2,
        sinks: broker.into(),
        exactly_once: true,
        ..Setup::default()
    };
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut rig = Box::pin(Rig::start(brokers, &setup)).await?;
    let load = Load {
        odd: 0.01,
        ..both_streams(rate)
    };
    rig.load(&load).await?;
    for kill in 0..kills {
        // As in a trial of kills alone: most bridges live long enough to poll.
        let wait = match kill % 5 {
            4 => rng.u64(0..1_200),
            _ => rng.u64(1_800..3_200),
        };
        tokio::time::sleep(Duration::from_millis(wait)).await;
        let away = Duration::from_millis(rng.u64(0..1_500));
        match rng.u8(0..4) {
            0 | 1 => Box::pin(rig.kill_bridge()).await?,
            2 => {
                rig.brokers.kill(broker).await?;
                tokio::time::sleep(away).await;
                if rng.bool() {
                    Box::pin(rig.kill_bridge()).await?;
                }
                rig.brokers.heal(broker).await?;
            }
            _ => {
                rig.brokers.pause(broker).await?;
                tokio::time::sleep(away).await;
                Box::pin(rig.kill_bridge()).await?;
                rig.brokers.heal(broker).await?;
            }
        }
        Box::pin(rig.revive()).await?;
    }
    let mut report = Box::pin(rig.finish()).await?;
    once(&mut report);
    Ok(report)
}

/// For `time` so many of a hundred commits are lost, late or repeated, or their answers are: each record is there once and only
/// once. The brokers are [`Brokers::start_disturbed`].
///
/// # Errors
///
/// When the trial cannot be run.
pub async fn commits(
    brokers: &mut Brokers,
    broker: Broker,
    rate: f64,
    percent: u32,
    time: Duration,
) -> Result<Report> {
    let setup = Setup {
        sinks: broker.into(),
        exactly_once: true,
        ..Setup::default()
    };
    let rig = Box::pin(Rig::start(brokers, &setup)).await?;
    rig.load(&Load {
        odd: 0.01,
        ..both_streams(rate)
    })
    .await?;
    let disturb = |percent| {
        let proxy = rig
            .brokers
            .commits
            .as_ref()
            .context("nothing disturbs commits")?;
        proxy.disturb(percent);
        Ok::<u64, anyhow::Error>(proxy.disturbed())
    };
    disturb(percent)?;
    tokio::time::sleep(time).await;
    let disturbed = disturb(0)?;
    println!("{disturbed} commits were disturbed");
    let mut report = Box::pin(rig.finish()).await?;
    once(&mut report);
    Ok(report)
}

/// Each record may be there once.
fn once(report: &mut Report) {
    let twice = report
        .held
        .iter()
        .filter(|held| held.findings.duplicates > 0);
    let told = twice.map(|held| {
        let duplicates = held.findings.duplicates;
        format!("{}: {duplicates} records are there twice", held.sink)
    });
    report.broken.extend(told);
}

/// `rounds` times NATS loses its power: its files become what they were some seconds before, now and then with the end cut
/// off (of a single server) and the server's own notes gone; now and then the bridge is killed at the same time. Nothing is missing, and where
/// each record is to be there once, none is there twice.
///
/// # Errors
///
/// When the trial cannot be run.
pub async fn power_failure(
    brokers: &mut Brokers,
    rate: f64,
    rounds: u32,
    exactly_once: bool,
    seed: u64,
) -> Result<Report> {
    let setup = Setup {
        seed,
        sinks: Sinks::Nats,
        exactly_once,
        ..Setup::default()
    };
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut rig = Box::pin(Rig::start(brokers, &setup)).await?;
    rig.load(&both_streams(rate)).await?;
    let (mut kills, mut again) = (0, 0.0);
    for round in 0..rounds {
        tokio::time::sleep(Duration::from_millis(rng.u64(1_500..3_000))).await;
        // The files of a cluster are of one instant.
        if !rig.brokers.nats_peers.is_empty() {
            rig.brokers.pause(Broker::Nats).await?;
        }
        let copies = rig.brokers.all_nats().map(|nats| nats.copy_store());
        let copies = copies.collect::<Result<Vec<_>>>()?;
        rig.brokers.heal(Broker::Nats).await?;
        tokio::time::sleep(Duration::from_millis(rng.u64(500..3_000))).await;
        rig.brokers.kill(Broker::Nats).await?;
        // Copies that are cut differently contradict each other's Raft logs, and then nats-server 2.15 elects no leader any more:
        // "Error applying stream entries: last sequence mismatch", for ever.
        let is_cut = rng.bool() && rig.brokers.nats_peers.is_empty();
        let index = rng.bool();
        for (nats, copy) in rig.brokers.all_nats().zip(&copies) {
            let cut = if is_cut { rng.f64() / 4.0 } else { 0.0 };
            nats.put_back(copy, cut, index)?;
        }
        let is_killed = rng.u8(0..3) == 0;
        if is_killed {
            kills += 1;
            Box::pin(rig.kill_bridge()).await?;
        }
        rig.brokers.heal(Broker::Nats).await?;
        Box::pin(rig.revive()).await?;
        let before = again;
        print!("round {round}: cut {is_cut}, index {index}, killed {is_killed}: ");
        std::io::stdout().flush()?;
        wait_for("what NATS lost to be published again", AGAIN, async || {
            let metrics = rig.bridge.metrics().await.ok();
            let told = metrics.and_then(|metrics| {
                metrics
                    .sum("rtm_bridge_events_republished_total", &[("sink", "nats")])
                    .ok()
            });
            let told = told.unwrap_or_default();
            // A new process counts anew.
            let is_more = told > if is_killed { 0.0 } else { before };
            again = told;
            is_more
        })
        .await?;
        println!("{again} published again");
    }
    let mut report = Box::pin(rig.finish()).await?;
    for held in &report.held {
        let duplicates = held.findings.duplicates;
        println!(
            "{}: {} missing, {duplicates} twice, {kills} kills of the bridge",
            held.sink, held.findings.missing_count
        );
    }
    if exactly_once {
        once(&mut report);
    }
    Ok(report)
}

/// Readiness says that `sink` is down, and nothing else.
async fn names_the_sink(rig: &Rig<'_>, sink: &str) -> Result<()> {
    let ready = rig.bridge.ready().await?;
    let reasons = ready.err().context("ready, and a sink is down")?;
    let document: serde_json::Value = serde_json::from_str(&reasons)?;
    let named = document["reasons"].as_array().is_some_and(|reasons| {
        !reasons.is_empty() && reasons.iter().all(|reason| reason["sink"] == sink)
    });
    ensure!(named, "{sink} is down, and readiness says {reasons}");
    let up = rig
        .bridge
        .metrics()
        .await?
        .sum("rtm_bridge_sink_up", &[("sink", sink)])?;
    ensure!(
        up == 0.0,
        "{sink} is down, and its metric says that it is up"
    );
    Ok(())
}

/// The disk fills and is freed, twice. Polling stops meanwhile, which is said, and goes on by itself.
async fn disk_full(mut rig: Rig<'_>, time: Duration) -> Result<Report> {
    rig.history.may_overwrite = true;
    rig.history.disk_filled = true;
    for _ in 0..2 {
        rig.disk.as_ref().context("no disk")?.fill()?;
        wait_for("polling to stop", Duration::from_secs(20), async || {
            let stopped = rig.bridge.metrics().await.ok();
            stopped
                .and_then(|metrics| of_app(&metrics, "rtm_bridge_polling_stopped").ok())
                .is_some_and(|stopped| stopped == 1.0)
        })
        .await?;
        let ready = rig.bridge.ready().await?;
        ensure!(ready.is_err(), "ready, and polling has stopped");
        tokio::time::sleep(time / 4).await;
        rig.disk.as_ref().context("no disk")?.free()?;
        rig.polling().await.context("after the disk was freed")?;
        tokio::time::sleep(time / 4).await;
    }
    let metrics = rig.bridge.metrics().await?;
    let stopped = of_app(&metrics, "rtm_bridge_polling_stopped_seconds_total")?;
    println!("the disk was full twice; polling stopped for {stopped:.1} s in all");
    ensure!(stopped > 0.0, "polling is not said to have stopped");
    Box::pin(rig.finish()).await
}

/// 2 % of the responses are cut, 2 % are 5xx and 1 % are 429, and 1 % of the events are odd.
///
/// # Errors
///
/// When the trial cannot be run.
pub async fn hostile(brokers: &mut Brokers, rate: f64, time: Duration) -> Result<Report> {
    let mut rig = Box::pin(Rig::start(brokers, &Setup::default())).await?;
    rig.history.may_overwrite = true;
    rig.history.unsent = true;
    rig.faults(&Faults {
        cut: 0.02,
        status: 0.03,
        statuses: vec![500, 503, 429],
        ..Faults::default()
    })
    .await?;
    rig.load(&Load {
        odd: 0.01,
        ..both_streams(rate)
    })
    .await?;
    tokio::time::sleep(time).await;
    let report = Box::pin(rig.finish()).await?;
    ensure!(
        report.first().dead_lettered > 0 && report.first().cut_whole_delivered > 0,
        "too short: nothing odd, or nothing cut\n{report}"
    );
    Ok(report)
}

/// With 200 descriptors, and 300 clients of the admin endpoint that ask nothing, for `time` at `rate` events a second; NATS is
/// paused for the half of it. Readiness answers all the while.
///
/// # Errors
///
/// When the trial cannot be run, the endpoint does not answer in time, or descriptors are used up.
pub async fn clients(brokers: &mut Brokers, rate: f64, time: Duration) -> Result<Report> {
    let rig = Box::pin(Rig::start(brokers, &Setup::default())).await?;
    let pid = rig.bridge.process.pid();
    let bounded = std::process::Command::new("prlimit")
        .arg(format!("--pid={pid}"))
        .arg(format!("--nofile={DESCRIPTORS}:{DESCRIPTORS}"))
        .status()
        .context("start prlimit")?;
    ensure!(bounded.success(), "prlimit: {bounded}");
    rig.load(&both_streams(rate)).await?;
    let idle = Idle::start(&rig.bridge.admin, 300);
    let began = Instant::now();
    let (mut answers, mut slowest, mut most) = (0_u32, Duration::ZERO, 0);
    rig.brokers.pause(Broker::Nats).await?;
    let mut is_paused = true;
    while began.elapsed() < time {
        tokio::time::sleep(Duration::from_millis(500)).await;
        if is_paused && began.elapsed() > time / 2 {
            rig.brokers.heal(Broker::Nats).await?;
            is_paused = false;
        }
        let asked = Instant::now();
        let _ = rig
            .bridge
            .ready()
            .await
            .context("readiness does not answer")?;
        slowest = slowest.max(asked.elapsed());
        answers += 1;
        most = most.max(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count());
    }
    println!(
        "300 idle clients: {answers} answers of readiness, the slowest after {slowest:?}; {most} descriptors at most"
    );
    ensure!(
        slowest < Duration::from_secs(5),
        "readiness answers after {slowest:?}"
    );
    ensure!(most < DESCRIPTORS, "{most} descriptors are open");
    drop(idle);
    Box::pin(rig.finish()).await
}

/// A body bomb, a slow drip and 64 MiB, each for a third of `time` and a third of the requests.
///
/// # Errors
///
/// When the trial cannot be run, or no request met one of them.
pub async fn bombs(brokers: &mut Brokers, rate: f64, time: Duration) -> Result<Report> {
    let setup = Setup {
        wire: true,
        request_deadline: Duration::from_secs(5),
        ..Setup::default()
    };
    let mut rig = Box::pin(Rig::start(brokers, &setup)).await?;
    rig.history.may_overwrite = true;
    rig.load(&both_streams(rate)).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    for evil in [Evil::Bomb, Evil::Drip, Evil::Huge] {
        let wire = rig.wire.as_ref().context("no relay")?;
        let before = wire.struck();
        wire.set(Weather {
            evil: Some((evil, 0.33)),
            ..Weather::default()
        });
        tokio::time::sleep(time / 3).await;
        let struck = wire.struck() - before;
        wire.set(Weather::default());
        let peak = rig.bridge.process.peak_rss()?;
        println!(
            "{evil:?} in {struck} responses: {} MiB of memory at most",
            peak >> 20
        );
        ensure!(struck > 0, "{evil:?} met no request");
    }
    Box::pin(rig.finish()).await
}

/// How long the signs of a second poller may take: 429s count in moments a minute apart, three of them.
const SUSPICION: Duration = Duration::from_secs(300);

/// Two bridges on one App ID, each with a journal of its own: both alarm, and between them every event arrives.
///
/// # Errors
///
/// When the trial cannot be run, one does not alarm within five minutes, or one alarms while it is alone.
pub async fn second_poller(brokers: &mut Brokers, rate: f64, time: Duration) -> Result<Report> {
    const SUSPECTED: &str = "rtm_bridge_second_poller_suspected";
    let mut rig = Box::pin(Rig::start(brokers, &Setup::default())).await?;
    rig.load(&both_streams(rate)).await?;
    tokio::time::sleep(time / 4).await;
    let alone = of_app(&rig.bridge.metrics().await?, SUSPECTED)?;
    ensure!(alone == 0.0, "a bridge that is alone suspects a second one");
    let mut second = rig.second_bridge().await?;
    rig.history.second_bridge = true;
    let began = Instant::now();
    for (name, bridge) in [("first", &rig.bridge), ("second", &second)] {
        let alarmed = async || {
            let metrics = bridge.metrics().await.ok();
            metrics.and_then(|metrics| of_app(&metrics, SUSPECTED).ok()) == Some(1.0)
        };
        wait_for(&format!("the {name} bridge to alarm"), SUSPICION, alarmed).await?;
        println!(
            "the {name} bridge alarms within {:.0} s",
            began.elapsed().as_secs_f64()
        );
    }
    let status = second.process.terminate(super::rig::SHUTDOWN).await?;
    ensure!(status.success(), "the second bridge ended with {status}");
    Box::pin(rig.finish()).await
}

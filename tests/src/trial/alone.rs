//! One thing goes wrong, and everything else is as fresh as without it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rtm_bridge::read_back::{Arrived, Held};
use rtm_sim::{Findings, Load};

use super::Brokers;
use super::accounting;
use super::measured::ages::Ages;
use super::measured::{Figure, Run, conclude, factor, of};
use super::places::{APP, REGIONS, Setup, app_id, app_name};
use super::report::{Report, ledger_kept};
use super::rig::Rig;
use super::third::{THIRD, Third};
use crate::bridge::Metrics;
use crate::wait_for;

/// How much older the events of everything else may be than without the fault, at the median.
const OLDER: f64 = 1.2;

/// How long a load runs before the fault, so that both runs are beyond their start.
const WARM: Duration = Duration::from_secs(5);

/// Too large an event's size. It does not compress to what a small topic takes.
const LARGE: usize = 60_000;

/// How often one comes.
const LARGE_INTERVAL: Duration = Duration::from_millis(200);

/// More than what a pipe holds, and a stalled one is felt.
const FELT: u64 = 256 << 10;

/// How long a sink may take to deliver what waited for it.
const DRAINED: Duration = Duration::from_secs(90);

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Nobody reads standard error.
    StalledStderr,
    /// Nobody reads standard output, and a sink writes to it.
    StalledStdout,
    /// One App ID's topics of a Kafka sink refuse every record: they are compacted, and the records have no key.
    RefusingTopic,
    /// Records of one App ID are too large for its topics, and so are their dead letters.
    TooLarge,
    /// One App ID's subject of a NATS sink is full.
    FullSubject,
    /// The directory with a NATS sink's password is missing at the start.
    MissingCredentials,
    /// One App ID's topics of a Kafka sink have no leader.
    WithoutLeader,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 7] = [
        Kind::StalledStderr,
        Kind::StalledStdout,
        Kind::RefusingTopic,
        Kind::TooLarge,
        Kind::FullSubject,
        Kind::MissingCredentials,
        Kind::WithoutLeader,
    ];

    /// Whether the fault is of one App ID, so that the third sink has to go on for the other one.
    fn spares_an_app(self) -> bool {
        match self {
            Kind::RefusingTopic | Kind::TooLarge | Kind::FullSubject | Kind::WithoutLeader => true,
            Kind::StalledStderr | Kind::StalledStdout | Kind::MissingCredentials => false,
        }
    }
}

/// A run, disturbed or not.
struct Ran {
    report: Report,
    /// Kafka, NATS and, if there is one, the third sink.
    ages: Vec<(String, Ages)>,
    /// In the third sink.
    dead_letters: u64,
    /// What a pipe took.
    written: Option<u64>,
}

/// `rate` events a second of two App IDs into three sinks, for `time` without the fault and for `time` with it. The ages
/// of what the fault is not of are compared, and nothing may be lost.
///
/// # Errors
///
/// When the trial cannot be run, or what the fault is of does not come back once it is over.
pub async fn alone(brokers: &mut Brokers, kind: Kind, rate: f64, time: Duration) -> Result<Run> {
    let usual = std::mem::replace(&mut brokers.partitions, 1);
    let without = Box::pin(run(brokers, kind, rate, time, false)).await;
    let with = Box::pin(run(brokers, kind, rate, time, true)).await;
    brokers.partitions = usual;
    let without = without.context("undisturbed")?;
    let with = with.context("disturbed")?;
    if let Some(written) = without.written {
        ensure!(written > FELT, "too short: {written} bytes were written");
    }
    let mut figures = Vec::new();
    for ((place, before), (_, now)) in without.ages.iter().zip(&with.ages) {
        let (then, now) = (before.at(0.5), now.at(0.5));
        let name = |what: &str| of(place, what);
        figures.extend([
            Figure::at_most(name("age p50, times"), factor(now, then), OLDER),
            Figure::told(name("age p50, ms"), now),
            Figure::told(name("age p50 undisturbed, ms"), then),
        ]);
    }
    figures.push(Figure::told(
        of(THIRD, "dead letters"),
        with.dead_letters as f64,
    ));
    let mut ran = conclude(Vec::new(), &without.report)?;
    let disturbed = conclude(figures, &with.report)?;
    ran.figures = disturbed.figures;
    ran.broken.extend(disturbed.broken);
    Ok(ran)
}

async fn run(
    brokers: &mut Brokers,
    kind: Kind,
    rate: f64,
    time: Duration,
    disturbed: bool,
) -> Result<Ran> {
    let dir = tempfile::tempdir()?;
    let third = Third::prepare(kind, dir.path(), brokers, disturbed).await;
    let mut third = third.context("what the third sink needs")?;
    let more = third.more(brokers, disturbed)?;
    let setup = Setup {
        apps: 2,
        ..Setup::default()
    };
    let rig = Box::pin(Rig::start_with(brokers, &setup, &more)).await?;
    rig.load(&Load {
        events_per_second: rate / 2.0,
        ..Load::default()
    })
    .await?;
    tokio::time::sleep(WARM).await;
    if disturbed {
        third.strike(rig.brokers).await.context("strike")?;
    }
    let began = jiff::Timestamp::now().as_millisecond();
    let large = Box::pin(under_load(&rig, time, disturbed && kind == Kind::TooLarge)).await?;
    let ended = jiff::Timestamp::now().as_millisecond();
    if disturbed {
        third.heal(rig.brokers).await.context("heal")?;
    }
    rig.stop_load().await?;
    delivered(&rig).await?;
    let mut report = Box::pin(rig.finish()).await?;
    let audited = third.audit(brokers, &report.ledger).await?;
    let mut held: Vec<&Held> = report.held.iter().collect();
    if let Some((own, letters)) = &audited {
        let broken = judge(kind, &report, own, large, *letters)?;
        report.broken.extend(broken);
        held.push(own);
    }
    let during = |arrived: &&Arrived| (began..ended).contains(&arrived.ms);
    let mut ages = Vec::new();
    for held in held {
        let spared = held.sink != THIRD || kind.spares_an_app();
        for app in [APP.to_owned(), app_name(1)] {
            if !spared || (held.sink == THIRD && app != APP) {
                continue;
            }
            let arrived = held.arrived.get(&app).into_iter().flatten();
            let of_app: Ages = arrived.filter(during).map(|one| one.age()).collect();
            ages.push((format!("{}, {app}", held.sink), of_app));
        }
    }
    let dead_letters = audited
        .as_ref()
        .map(|(own, letters)| own.findings.dead_lettered + letters);
    Ok(Ran {
        dead_letters: dead_letters.unwrap_or_default(),
        report,
        ages,
        written: third.written(),
    })
}

/// Waits, and pushes events that are too large if told to; says how many.
async fn under_load(rig: &Rig<'_>, time: Duration, too_large: bool) -> Result<u64> {
    let began = Instant::now();
    let mut pushed = 0;
    while began.elapsed() < time {
        tokio::time::sleep(LARGE_INTERVAL).await;
        if !too_large {
            continue;
        }
        let noise: String = std::iter::repeat_with(fastrand::alphanumeric)
            .take(LARGE)
            .collect();
        let ms = jiff::Timestamp::now().as_millisecond();
        let body = format!(
            r#"{{"app_id":"{}","region":"{}","stream":"user","events":[{{"user_id":"large","type":"Login","noise":"{noise}","ms":{ms}}}]}}"#,
            app_id(1),
            REGIONS[0],
        );
        rig.tell("POST", "push", body).await?;
        pushed += 1;
    }
    Ok(pushed)
}

/// Waits until nothing waits in the journal for any sink.
async fn delivered(rig: &Rig<'_>) -> Result<()> {
    let mut why = String::new();
    wait_for("what waited to be delivered", DRAINED, async || {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let pending = match rig.bridge.metrics().await {
            Ok(metrics) => super::rig::pending(&metrics, &[]),
            Err(error) => Err(error),
        };
        why = format!("{pending:?}");
        pending.is_ok_and(|pending| pending == 0.0)
    })
    .await
    .with_context(|| why.clone())
}

/// The promises that the third sink broke. Of the records that are too large it holds dead letters only, and of a place that
/// refuses everything some records may have become dead letters before that was known.
fn judge(
    kind: Kind,
    report: &Report,
    held: &Held,
    large: u64,
    letters: u64,
) -> Result<Vec<String>> {
    let mut broken = Vec::new();
    if letters < large {
        broken.push(format!(
            "{THIRD}: {letters} dead letters of {large} records that are too large"
        ));
    }
    let mut findings = held.findings.clone();
    if kind == Kind::RefusingTopic {
        findings.dead_lettered_sound = 0;
    }
    if large > 0 && findings.missing_count == large {
        findings.missing_count = 0;
        findings.pages_missing.clear();
    }
    broken.extend(ledger_kept(
        THIRD,
        &findings,
        &report.ledger,
        &[],
        report.possibly_lost,
    ));
    let metrics = Metrics::parse(&report.metrics_text)?;
    let apps = [APP.to_owned(), app_name(1)];
    let there = Findings {
        seen_distinct: findings.seen_distinct + letters,
        dead_lettered: findings.dead_lettered + letters,
        ..findings
    };
    broken.extend(accounting::equation(&metrics, &apps, THIRD, &there)?);
    Ok(broken)
}

//! A long run of one process under faults that change: what it holds at the end is what it held after some minutes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use rtm_sim::Load;

use super::figures::median;
use super::{Figure, MIB, Run, conclude};
use crate::trial::{Brokers, Fault, Rig, Setup, Target};

/// After which the bridge has come to its usual size.
const WARM: Duration = Duration::from_secs(300);

/// How long a fault lasts, and the calm after it, in seconds.
const FAULT: std::ops::Range<u64> = 5..30;
const CALM: std::ops::Range<u64> = 15..30;

/// How many samples are compared: those of the first minutes after [`WARM`], and the last ones.
const SAMPLES: usize = 6;

/// How long a request may take, so that a stall ends within a calm.
const REQUEST_DEADLINE: Duration = Duration::from_secs(3);

/// A figure of a sample.
type Of<'f> = &'f dyn Fn(&Sample) -> f64;

/// What a process holds in a calm.
#[derive(Debug, Clone, Copy)]
struct Sample {
    resident: u64,
    files: usize,
    threads: u64,
    journal: f64,
}

/// `rate` events a second for `time`, while one fault after the other comes and goes. The process is never restarted.
///
/// # Errors
///
/// When the trial cannot be run, or is too short to tell anything.
pub async fn soak(brokers: &mut Brokers, rate: f64, time: Duration, seed: u64) -> Result<Run> {
    ensure!(
        time >= WARM * 3,
        "a soak takes {} s or more: the bridge needs {} s to come to its usual size",
        WARM.as_secs() * 3,
        WARM.as_secs()
    );
    let setup = Setup {
        seed,
        regions: 2,
        wire: true,
        request_deadline: REQUEST_DEADLINE,
        ..Setup::default()
    };
    let load = Load {
        events_per_second: rate,
        copies: 0.1,
        odd: 0.01,
        ..Load::default()
    };
    let mut rng = Rng::with_seed(seed);
    let mut rig = Box::pin(Rig::start(brokers, &setup)).await?;
    rig.load(&load).await?;
    let began = Instant::now();
    let (mut warm, mut all, mut faults) = (Vec::new(), Vec::new(), 0);
    while began.elapsed() < time {
        let fault = draw(&mut rng);
        Box::pin(fault.begin(&mut rig, &load, false)).await?;
        tokio::time::sleep(Duration::from_secs(rng.u64(FAULT))).await;
        Box::pin(fault.end(&mut rig, &load)).await?;
        tokio::time::sleep(Duration::from_secs(rng.u64(CALM))).await;
        faults += 1;
        let now = sample(&rig).await?;
        eprintln!(
            "soak: {:.0} s, after {fault}: {now:?}",
            began.elapsed().as_secs_f64()
        );
        if began.elapsed() > WARM && warm.len() < SAMPLES {
            warm.push(now);
        }
        all.push(now);
    }
    let last = &all[all.len().saturating_sub(SAMPLES)..];
    let figures = compared(&warm, last, faults);
    let report = Box::pin(rig.finish()).await?;
    conclude(figures, &report)
}

/// A fault that leaves the process as it is.
fn draw(rng: &mut Rng) -> Fault {
    loop {
        let fault = Fault::draw(rng);
        let restarts = fault.target() == Target::Bridge && fault != Fault::Stopped;
        if !restarts && fault.target() != Target::Disk {
            return fault;
        }
    }
}

async fn sample(rig: &Rig<'_>) -> Result<Sample> {
    let usage = rig.usage()?;
    let metrics = rig.bridge.metrics().await?;
    Ok(Sample {
        resident: usage.resident,
        files: rig.bridge.process.open_files()?,
        threads: usage.threads,
        journal: metrics
            .sum("rtm_bridge_journal_bytes", &[])
            .context("the journal's size")?,
    })
}

/// The medians at the end, beside those after [`WARM`].
#[expect(clippy::cast_precision_loss, reason = "figures")]
fn compared(warm: &[Sample], last: &[Sample], faults: u32) -> Vec<Figure> {
    let rows: [(&str, Of<'_>, f64); 4] = [
        ("memory, MiB", &|one| one.resident as f64 / MIB, 6.0),
        ("open files", &|one| one.files as f64, 6.0),
        ("threads", &|one| one.threads as f64, 2.0),
        ("journal, MiB", &|one| one.journal / MIB, 64.0),
    ];
    let mut figures = vec![Figure::told("faults", f64::from(faults))];
    for (name, of, more) in rows {
        let (before, after) = (median(warm.iter().map(of)), median(last.iter().map(of)));
        figures.push(Figure::told(format!("{name}, after 5 min"), before));
        figures.push(Figure::at_most(
            format!("{name}, at the end"),
            after,
            before + more,
        ));
    }
    figures
}

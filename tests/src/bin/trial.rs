//! Trials: the real bridge, real brokers and the simulator, as processes, with faults; then what was handed out is
//! compared with what the brokers hold. Build the bridge first, in the same profile: `cargo build --release`. Exits
//! with 1 when a promise is broken or a bound is missed.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::{Args, Parser, Subcommand, ValueEnum};
use rtm_tests::trial::alone::{self, Kind};
use rtm_tests::trial::measured::{
    Run, Table,
    apps::{self, Apps},
    bare::{self, BareArgs},
    changes,
    cost::{self, Into},
    drain, fresh, memory,
    price::{self, Price},
    soak,
    storms::{self, Storm},
};
use rtm_tests::trial::shows::{self, Outage};
use rtm_tests::trial::{self, Broker, Brokers, Disk, Plan, Report};

/// Runs the bridge and the simulator as processes with real brokers, and compares what was handed out with what the
/// brokers hold.
#[derive(Parser)]
#[command(after_help = "\
Brokers are started once for each command. A trial that fails keeps its directory and prints it, with logs, metrics and
the simulator's ledger, and the command that runs it again. Build the bridge first, in the same profile:
  cargo build --release && cargo run --release -p rtm-tests --bin trial -- all
fresh, storms, flood, cost, drain, apps, changes, memory, alone and soak print figures beside their bounds, and judge the medians of
their runs:
  cargo run --release -p rtm-tests --bin trial -- fresh --runs 5")]
struct Arguments {
    #[command(subcommand)]
    trial: Trial,
}

#[derive(Subcommand)]
enum Trial {
    /// Kafka and NATS at once, with bounds on age, CPU and memory
    Both(Load),
    /// Kafka alone, with bounds on age, CPU and memory
    Kafka(Load),
    /// Kafka is paused for 30 s
    KafkaPaused(Load),
    /// Five kills
    Kill(Load),
    /// The four above, one after the other
    All(Load),
    /// Random faults by seed, alone or in pairs
    Random(Random),
    /// Many `kill -9`s under load
    Kills {
        /// How many
        #[arg(long, default_value_t = 100)]
        count: u32,
        /// Decides when
        #[arg(long, default_value_t = 1)]
        seed: u64,
        #[command(flatten)]
        load: Load,
    },
    /// What once and only once costs, beside at least once: Kafka, NATS, a drain into Kafka, many App IDs, a start
    Price {
        /// Only this one [default: all of them]
        #[arg(long)]
        only: Option<Price>,
        /// Events a second, both streams together
        #[arg(long, default_value_t = 8_000.0)]
        rate: f64,
        /// Events that drain
        #[arg(long, default_value_t = 2_000_000)]
        events: u64,
        #[command(flatten)]
        measured: Measured,
    },
    /// Kills of the bridge and of the broker, which stores each record once and only once
    Exact {
        /// Which broker
        #[arg(long, value_enum, default_value_t = Broker::Nats)]
        into: Broker,
        /// How many
        #[arg(long, default_value_t = 100)]
        kills: u32,
        /// Decides when, and of what
        #[arg(long, default_value_t = 1)]
        seed: u64,
        #[command(flatten)]
        load: Load,
    },
    /// Commits that are lost, late and repeated on their way: each record is stored once and only once
    Commits {
        /// Which broker
        #[arg(long, value_enum, default_value_t = Broker::Kafka)]
        into: Broker,
        /// How many of a hundred
        #[arg(long, default_value_t = 25)]
        percent: u32,
        #[command(flatten)]
        load: Load,
    },
    /// Power failures of NATS, which lose what it had acknowledged: with `--at-least-once` or each record once
    PowerFailure {
        /// How many
        #[arg(long, default_value_t = 20)]
        rounds: u32,
        /// Records may be there twice
        #[arg(long)]
        at_least_once: bool,
        /// Of three servers, with a copy of the stream each, that lose their power at once
        #[arg(long)]
        cluster: bool,
        /// Decides when, and how
        #[arg(long, default_value_t = 1)]
        seed: u64,
        #[command(flatten)]
        load: Load,
    },
    /// Kafka paused, NATS killed, each with the bridge killed in the middle; a disk that fills and is freed
    Outage {
        /// Only this one [default: all of them]
        #[arg(long)]
        only: Option<Outage>,
        #[command(flatten)]
        load: Load,
    },
    /// 2 % cut bodies, 2 % 5xx, 1 % 429, 1 % odd events
    Hostile(Load),
    /// 200 descriptors, 300 idle clients of the admin endpoint, and NATS paused for half of the time
    Clients(Load),
    /// A body bomb, a slow drip and 64 MiB, with a bound on memory
    Bombs(Load),
    /// Two bridges on one App ID
    SecondPoller(Load),
    /// Two even rings into Kafka: age, with bounds near what no schedule beats
    Fresh {
        /// Events a second, both streams together
        #[arg(long, default_value_t = 2_000.0)]
        rate: f64,
        #[command(flatten)]
        measured: Measured,
    },
    /// Eight rings: storms on one of them, and rings at 100:1
    Storms {
        /// Only this one [default: all of them]
        #[arg(long)]
        only: Option<Storm>,
        #[command(flatten)]
        measured: Measured,
    },
    /// Nearly all that the API can give, over two rings: nothing is lost
    Flood {
        /// Events a second, both streams together
        #[arg(long, default_value_t = 9_000.0)]
        rate: f64,
        #[command(flatten)]
        measured: Measured,
    },
    /// Processor time for each event, beside that of a bare producer loop; memory, bytes written
    Cost {
        /// Only this one [default: all of them]
        #[arg(long)]
        only: Option<Into>,
        /// Events a second, both streams together
        #[arg(long, default_value_t = 8_000.0)]
        rate: f64,
        #[command(flatten)]
        measured: Measured,
    },
    /// A backlog in the journal drains into Kafka
    Drain {
        /// How many events
        #[arg(long, default_value_t = 5_000_000)]
        events: u64,
        #[command(flatten)]
        measured: Measured,
    },
    /// Hundreds of App IDs: busy, idle, and one of them far busier than the others
    Apps {
        /// Only this one [default: all of them]
        #[arg(long)]
        only: Option<Apps>,
        /// How many App IDs [default: 200 busy, 500 idle, 20 beside a busier one]
        #[arg(long)]
        apps: Option<usize>,
        #[command(flatten)]
        measured: Measured,
    },
    /// 20 App IDs and a sink come, change and go by reload beside a busy App ID, which is to notice nothing
    Changes {
        /// Events a second of the busy one, both streams together
        #[arg(long, default_value_t = 2_000.0)]
        rate: f64,
        #[command(flatten)]
        measured: Measured,
    },
    /// One process under faults that change: memory, files, threads and journal at the end are as after five minutes
    Soak {
        /// Events a second, both streams together
        #[arg(long, default_value_t = 500.0)]
        rate: f64,
        /// Decides the faults
        #[arg(long, default_value_t = 1)]
        seed: u64,
        #[command(flatten)]
        measured: Measured,
    },
    /// Memory through an outage of Kafka, with NATS beside it
    Memory {
        /// Events a second, both streams together
        #[arg(long, default_value_t = 3_000.0)]
        rate: f64,
        #[command(flatten)]
        measured: Measured,
    },
    /// One thing goes wrong, and the age of everything else is compared with a run without it
    Alone {
        /// Only this one [default: all of them]
        #[arg(long)]
        only: Option<Kind>,
        /// Events a second, both App IDs and both streams together
        #[arg(long, default_value_t = 500.0)]
        rate: f64,
        #[command(flatten)]
        measured: Measured,
    },
    /// The loop that `cost` compares with, in a process of its own
    #[command(hide = true)]
    Bare(BareArgs),
}

/// A trial of figures: the medians of its runs are judged.
#[derive(Args, Clone, Copy)]
struct Measured {
    /// How often
    #[arg(long, default_value_t = 1)]
    runs: u32,
    /// Seconds under load in each run [default: what the trial is known for]
    #[arg(long)]
    seconds: Option<u64>,
    /// Partitions of each Kafka topic: each costs requests of its own
    #[arg(long, default_value_t = 1)]
    partitions: i32,
}

impl Measured {
    fn time(self, usual: u64) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(usual))
    }

    /// Runs `one` again and again, and prints the table; whether every bound and promise was kept.
    async fn table(
        self,
        brokers: &mut Brokers,
        name: &str,
        mut one: impl AsyncFnMut(&mut Brokers) -> Result<Run>,
    ) -> bool {
        brokers.partitions = self.partitions;
        let mut table = Table::default();
        for run in 1..=self.runs {
            let began = Instant::now();
            let ran = Box::pin(one(brokers)).await;
            eprintln!(
                "{name}: run {run} of {} took {:.0} s",
                self.runs,
                began.elapsed().as_secs_f64()
            );
            table.add(ran.unwrap_or_else(|error| Run {
                broken: vec![format!("{error:#}")],
                ..Run::default()
            }));
        }
        let verdict = if table.kept() {
            "every bound kept"
        } else {
            "FAILED"
        };
        println!(
            "\n== {name}, {} run(s)\n{table}{name}: {verdict}",
            self.runs
        );
        table.kept()
    }
}

#[derive(Args, Clone, Copy)]
struct Load {
    /// Events a second, both streams together
    #[arg(long, default_value_t = 2_000.0)]
    rate: f64,
    /// Seconds under load, or of the outage [default: what the trial is known for]
    #[arg(long)]
    seconds: Option<u64>,
    /// Partitions of each Kafka topic in `both` and `kafka`: each costs requests of its own
    #[arg(long, default_value_t = 1)]
    partitions: i32,
}

#[derive(Args)]
struct Random {
    /// The seed of the trial, or of the first of several
    #[arg(long)]
    seed: Option<u64>,
    /// How many trials, with the seeds that follow
    #[arg(long, default_value_t = 1)]
    trials: u64,
    /// Two faults at once
    #[arg(long)]
    pairs: bool,
    /// Says what the trials would do, and runs none
    #[arg(long)]
    plan: bool,
    /// Trials until so many hours have passed, whatever --trials says; goes on after a failure
    #[arg(long, value_name = "HOURS")]
    hours: Option<f64>,
}

/// A bound on a figure: its name, its value, and the most that it may be.
type Bound = (&'static str, f64, f64);

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Trial::Bare(bare) = &arguments.trial {
        return bare::child(bare).map(|()| ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let kept = runtime.block_on(run(arguments.trial))?;
    Ok(if kept {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn run(trial: Trial) -> Result<bool> {
    if let Trial::Random(random) = &trial
        && random.plan
    {
        let first = random.first_seed();
        for seed in first..first + random.trials {
            println!("{}", Plan::draw(seed, random.pairs, Disk::possible()));
        }
        return Ok(true);
    }
    let nats_servers = match &trial {
        Trial::Kafka(_) | Trial::Fresh { .. } | Trial::Storms { .. } | Trial::Flood { .. } => 0,
        Trial::Drain { .. } | Trial::Apps { .. } | Trial::Changes { .. } => 0,
        Trial::Cost {
            only: Some(Into::Kafka),
            ..
        } => 0,
        Trial::PowerFailure { cluster: true, .. } => 3,
        _ => 1,
    };
    let brokers = &mut match &trial {
        Trial::Commits { into, .. } => Brokers::start_disturbed(*into).await?,
        _ => Brokers::start(nats_servers).await?,
    };
    match trial {
        Trial::Both(load) => Box::pin(steady(brokers, "both", load, 16.0)).await,
        Trial::Kafka(load) => Box::pin(steady(brokers, "kafka", load, 8.0)).await,
        Trial::KafkaPaused(load) => Box::pin(paused(brokers, load)).await,
        Trial::Kill(load) => Box::pin(kills(brokers, "kill", load, 5, 1)).await,
        Trial::All(load) => {
            let mut kept = Box::pin(steady(brokers, "both", load, 16.0)).await?;
            let mut kafka_alone = Brokers::start(0).await?;
            kept &= Box::pin(steady(&mut kafka_alone, "kafka", load, 8.0)).await?;
            drop(kafka_alone);
            kept &= Box::pin(paused(brokers, load)).await?;
            Ok(kept & Box::pin(kills(brokers, "kill", load, 5, 1)).await?)
        }
        Trial::Random(random) => Box::pin(randoms(brokers, &random)).await,
        Trial::Exact {
            into,
            kills,
            seed,
            load,
        } => {
            let ran = Box::pin(shows::exact(brokers, into, load.rate, kills, seed)).await;
            Ok(say("exact", load, ran))
        }
        Trial::Commits {
            into,
            percent,
            load,
        } => {
            let ran = shows::commits(brokers, into, load.rate, percent, load.time(150));
            Ok(say("commits", load, Box::pin(ran).await))
        }
        Trial::PowerFailure {
            rounds,
            at_least_once,
            seed,
            load,
            ..
        } => {
            let exactly = !at_least_once;
            let ran = shows::power_failure(brokers, load.rate, rounds, exactly, seed);
            Ok(say("power failure", load, Box::pin(ran).await))
        }
        Trial::Kills { count, seed, load } => {
            Box::pin(kills(brokers, "kills", load, count, seed)).await
        }
        Trial::Outage { only, load } => {
            let mut kept = true;
            for what in only.map_or_else(|| Outage::value_variants().to_vec(), |one| vec![one]) {
                let name = format!("outage, {what:?}");
                let time = load.time(60);
                let ran = Box::pin(shows::outage(brokers, what, load.rate, time)).await;
                kept &= say(&name, load, ran);
            }
            Ok(kept)
        }
        Trial::Hostile(load) => {
            let ran = Box::pin(shows::hostile(brokers, load.rate, load.time(60))).await;
            Ok(say("hostile", load, ran))
        }
        Trial::Clients(load) => {
            let ran = Box::pin(shows::clients(brokers, load.rate, load.time(60))).await;
            Ok(say("clients", load, ran))
        }
        Trial::Bombs(load) => {
            let ran = Box::pin(shows::bombs(brokers, load.rate, load.time(30))).await;
            Ok(say("bombs", load, ran))
        }
        Trial::SecondPoller(load) => {
            let ran = Box::pin(shows::second_poller(brokers, load.rate, load.time(60))).await;
            Ok(say("second-poller", load, ran))
        }
        measured => Box::pin(figures(brokers, measured)).await,
    }
}

/// The trials of figures.
async fn figures(brokers: &mut Brokers, trial: Trial) -> Result<bool> {
    let mut kept = true;
    match trial {
        Trial::Fresh { rate, measured } => {
            let one = async |brokers: &mut Brokers| {
                Box::pin(fresh::fresh(brokers, rate, measured.time(60))).await
            };
            kept &= measured.table(brokers, "fresh", one).await;
        }
        Trial::Flood { rate, measured } => {
            let one = async |brokers: &mut Brokers| {
                Box::pin(fresh::flood(brokers, rate, measured.time(60))).await
            };
            kept &= measured.table(brokers, "flood", one).await;
        }
        Trial::Storms { only, measured } => {
            for storm in only.map_or_else(|| Storm::ALL.to_vec(), |one| vec![one]) {
                let time = measured.time(if storm == Storm::Uneven { 60 } else { 15 });
                let one = async |brokers: &mut Brokers| {
                    Box::pin(storms::storms(brokers, storm, time)).await
                };
                let name = format!("storms, {storm:?}");
                kept &= measured.table(brokers, &name, one).await;
            }
        }
        Trial::Cost {
            only,
            rate,
            measured,
        } => {
            for into in only.map_or_else(|| Into::ALL.to_vec(), |one| vec![one]) {
                let one = async |brokers: &mut Brokers| {
                    Box::pin(cost::cost(brokers, into, rate, measured.time(30))).await
                };
                let name = format!("cost, {into:?}");
                kept &= measured.table(brokers, &name, one).await;
            }
        }
        Trial::Price {
            only,
            rate,
            events,
            measured,
        } => {
            for which in only.map_or_else(|| Price::ALL.to_vec(), |one| vec![one]) {
                let one = async |brokers: &mut Brokers| {
                    let load = (rate, events, measured.time(30));
                    Box::pin(price::price(brokers, which, load)).await
                };
                let name = format!("price, {which:?}");
                kept &= measured.table(brokers, &name, one).await;
            }
        }
        Trial::Drain { events, measured } => {
            let one = async |brokers: &mut Brokers| Box::pin(drain::drain(brokers, events)).await;
            kept &= measured.table(brokers, "drain", one).await;
        }
        Trial::Apps {
            only,
            apps,
            measured,
        } => {
            for which in only.map_or_else(|| Apps::ALL.to_vec(), |one| vec![one]) {
                let one = async |brokers: &mut Brokers| {
                    Box::pin(apps::apps(brokers, which, apps, measured.time(30))).await
                };
                let name = format!("apps, {which:?}");
                kept &= measured.table(brokers, &name, one).await;
            }
        }
        Trial::Changes { rate, measured } => {
            let one = async |brokers: &mut Brokers| {
                Box::pin(changes::changes(brokers, rate, measured.time(60))).await
            };
            kept &= measured.table(brokers, "changes", one).await;
        }
        Trial::Soak {
            rate,
            seed,
            measured,
        } => {
            let one = async |brokers: &mut Brokers| {
                Box::pin(soak::soak(brokers, rate, measured.time(7_200), seed)).await
            };
            kept &= measured.table(brokers, "soak", one).await;
        }
        Trial::Memory { rate, measured } => {
            let one = async |brokers: &mut Brokers| {
                Box::pin(memory::memory(brokers, rate, measured.time(75))).await
            };
            kept &= measured.table(brokers, "memory", one).await;
        }
        Trial::Alone {
            only,
            rate,
            measured,
        } => {
            for kind in only.map_or_else(|| Kind::ALL.to_vec(), |one| vec![one]) {
                let one = async |brokers: &mut Brokers| {
                    Box::pin(alone::alone(brokers, kind, rate, measured.time(60))).await
                };
                let name = format!("alone, {kind:?}");
                kept &= measured.table(brokers, &name, one).await;
            }
        }
        _ => anyhow::bail!("not a trial of figures"),
    }
    Ok(kept)
}

impl Load {
    fn time(self, usual: u64) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(usual))
    }
}

impl Random {
    fn first_seed(&self) -> u64 {
        self.seed.unwrap_or_else(|| fastrand::u64(..1_000_000))
    }
}

async fn steady(brokers: &mut Brokers, name: &str, load: Load, cpu: f64) -> Result<bool> {
    let usual = std::mem::replace(&mut brokers.partitions, load.partitions);
    let ran = Box::pin(trial::steady(brokers, load.rate, load.time(60), 0.0)).await;
    brokers.partitions = usual;
    // The bounds are for 2,000 events/s.
    let mut kept = true;
    if load.rate <= 2_000.0
        && let Ok(report) = &ran
    {
        for (name, value, most) in bounds_of(report, cpu) {
            let verdict = if value <= most { "kept" } else { "MISSED" };
            kept &= value <= most;
            println!("bound {verdict}: {name} {value:.1}, at most {most}");
        }
    }
    println!("{} partition(s) for each topic", load.partitions);
    Ok(say(name, load, ran) & kept)
}

async fn paused(brokers: &mut Brokers, load: Load) -> Result<bool> {
    let ran = Box::pin(trial::kafka_paused(brokers, load.rate, load.time(30))).await;
    Ok(say("kafka-paused", load, ran))
}

async fn kills(
    brokers: &mut Brokers,
    name: &str,
    load: Load,
    count: u32,
    seed: u64,
) -> Result<bool> {
    let began = Instant::now();
    let ran = Box::pin(trial::killed(brokers, load.rate, count, seed)).await;
    let kept = say(name, load, ran);
    println!("{count} kills in {:.0} s", began.elapsed().as_secs_f64());
    Ok(kept)
}

async fn randoms(brokers: &mut Brokers, random: &Random) -> Result<bool> {
    let disks = Disk::possible();
    if !disks {
        println!("no full disks: this process may not mount a tmpfs; kill -9 takes their place");
    }
    let began = Instant::now();
    let first = random.first_seed();
    let end = random
        .hours
        .map(|hours| began + Duration::from_secs_f64(hours * 3_600.0));
    let (mut ran, mut events) = (0, 0);
    let mut failed = Vec::new();
    let more = |ran| end.map_or(ran < random.trials, |end| Instant::now() < end);
    while more(ran) {
        let plan = Plan::draw(first + ran, random.pairs, disks);
        ran += 1;
        let at = Instant::now();
        let report = Box::pin(plan.run(brokers)).await;
        let seconds = at.elapsed().as_secs_f64();
        match &report {
            Ok(report) if report.kept() => {
                events += report.first().handed_out;
                println!("{plan}: kept in {seconds:.1} s: {}", report.line());
                for note in &report.notes {
                    println!("  note: {note}");
                }
                report.discard()?;
                continue;
            }
            Ok(report) => {
                events += report.first().handed_out;
                println!("{plan}: BROKEN in {seconds:.1} s: {}", report.line());
                print_broken(report);
            }
            Err(error) => println!("{plan}: FAILED in {seconds:.1} s: {error:#}"),
        }
        println!("  again: {}", plan.command());
        failed.push(plan.seed);
    }
    println!(
        "{ran} random trials, {events} events, {:.0} s: {} failed{}",
        began.elapsed().as_secs_f64(),
        failed.len(),
        if failed.is_empty() {
            String::new()
        } else {
            format!(", of the seeds {failed:?}")
        }
    );
    Ok(failed.is_empty())
}

fn print_broken(report: &Report) {
    for broken in &report.broken {
        println!("  BROKEN: {broken}");
    }
    for note in &report.notes {
        println!("  note: {note}");
    }
    println!("  files: {}", report.dir.display());
}

/// Prints a trial's outcome; whether every promise was kept.
fn say(name: &str, load: Load, ran: Result<Report>) -> bool {
    println!("\n== {name}, {} events/s", load.rate);
    match ran {
        Ok(report) => {
            println!("{report}");
            let kept = report.kept();
            if kept {
                let _ = report.discard();
                println!("{name}: every promise kept");
            } else {
                print_broken(&report);
                println!("{name}: FAILED");
            }
            kept
        }
        Err(error) => {
            println!("{name}: FAILED: {error:#}");
            false
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn bounds_of(report: &Report, cpu: f64) -> Vec<Bound> {
    vec![
        ("p50 of age at Kafka, ms", report.age(0.5) as f64, 150.0),
        ("CPU s per million events", report.cpu_per_million(), cpu),
        ("peak memory, MiB", (report.peak_rss >> 20) as f64, 80.0),
    ]
}

//! What is thrown at a bridge: each fault has a start and an end.

use std::fmt;

use anyhow::{Context, Result};
use fastrand::Rng;
use nix::sys::signal::Signal;
use rtm_sim::{Faults, Load};

use super::brokers::Broker;
use super::rig::Rig;
use super::wire::{Evil, MAX_DELAY_MS, Weather};

/// A fault.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// `kill -9` at the start and again at the end; started again at once.
    Killed,
    /// So many SIGTERMs; started again at once.
    Terminated(u32),
    /// SIGSTOP, and SIGCONT at the end.
    Stopped,
    /// A broker stopped in its tracks: it keeps its connections and answers nothing.
    Paused(Broker),
    /// A broker killed, and started again at the end.
    BrokerKilled(Broker),
    /// What the simulator does to a share of the requests, deleting some.
    Source(Faults),
    /// What the relay does.
    Wire(Weather),
    /// The share of odd events.
    Odd(f64),
    /// The journal's disk is full.
    DiskFull,
    /// The secret's file holds a wrong secret.
    WrongSecret,
}

/// What a fault concerns. Two faults at once concern different things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The bridge's process.
    Bridge,
    /// Kafka.
    Kafka,
    /// NATS.
    Nats,
    /// The simulator.
    Source,
    /// The relay.
    Wire,
    /// The load.
    Load,
    /// The journal's disk.
    Disk,
    /// The secret.
    Secret,
}

impl Fault {
    /// One drawn at random.
    #[must_use]
    pub fn draw(rng: &mut Rng) -> Fault {
        let broker = |rng: &mut Rng| [Broker::Kafka, Broker::Nats][rng.usize(..2)];
        match rng.u8(..20) {
            0..3 => Fault::Killed,
            3 => Fault::Terminated(1),
            4 => Fault::Terminated(2),
            5 => Fault::Stopped,
            6 | 7 => Fault::Paused(broker(rng)),
            8 | 9 => Fault::BrokerKilled(broker(rng)),
            10..13 => Fault::Source(source_faults(rng)),
            13..17 => Fault::Wire(weather(rng)),
            17 => Fault::Odd(0.02 + rng.f64() * 0.3),
            18 => Fault::DiskFull,
            _ => Fault::WrongSecret,
        }
    }

    /// What it concerns.
    #[must_use]
    pub fn target(&self) -> Target {
        match self {
            Fault::Killed | Fault::Terminated(_) | Fault::Stopped => Target::Bridge,
            Fault::Paused(Broker::Kafka) | Fault::BrokerKilled(Broker::Kafka) => Target::Kafka,
            Fault::Paused(Broker::Nats) | Fault::BrokerKilled(Broker::Nats) => Target::Nats,
            Fault::Source(_) => Target::Source,
            Fault::Wire(_) => Target::Wire,
            Fault::Odd(_) => Target::Load,
            Fault::DiskFull => Target::Disk,
            Fault::WrongSecret => Target::Secret,
        }
    }

    /// Starts it. `alone` says that nothing else goes wrong in this trial.
    ///
    /// # Errors
    ///
    /// When it cannot be done, or the bridge does not end as it should.
    pub async fn begin(&self, rig: &mut Rig<'_>, load: &Load, alone: bool) -> Result<()> {
        let done = match self {
            Fault::Killed => rig.kill_bridge().await,
            Fault::Terminated(signals) => {
                // Sinks that are away hold the end up for as long as they may, and nobody polls meanwhile.
                rig.history.may_overwrite |= !alone;
                rig.terminate_bridge(*signals).await
            }
            Fault::Stopped => {
                rig.history.may_overwrite = true;
                rig.bridge.process.pause()
            }
            Fault::Paused(broker) => rig.brokers.pause(*broker).await,
            Fault::BrokerKilled(broker) => rig.brokers.kill(*broker).await,
            Fault::Source(faults) => {
                rig.history.may_overwrite = true;
                rig.history.unsent = true;
                rig.faults(faults).await
            }
            Fault::Wire(weather) => {
                rig.history.may_overwrite |= weather.evil.is_some();
                let wire = rig.wire.as_ref().context("this trial has no relay")?;
                wire.set(*weather);
                Ok(())
            }
            Fault::Odd(odd) => {
                let odd = Load {
                    odd: *odd,
                    ..load.clone()
                };
                rig.load(&odd).await
            }
            Fault::DiskFull => {
                rig.history.may_overwrite = true;
                rig.history.disk_filled = true;
                rig.history.disk_is_full = true;
                rig.disk.as_ref().context("no disk of its own")?.fill()
            }
            Fault::WrongSecret => {
                rig.history.may_overwrite = true;
                rig.places.write_secret(false)
            }
        };
        done.with_context(|| format!("{self} begins"))
    }

    /// Ends it.
    ///
    /// # Errors
    ///
    /// When what it stopped does not go on.
    pub async fn end(&self, rig: &mut Rig<'_>, load: &Load) -> Result<()> {
        let done = match self {
            Fault::Killed => rig.kill_bridge().await,
            Fault::Terminated(_) => Ok(()),
            Fault::Stopped => rig.bridge.process.signal(Signal::SIGCONT),
            Fault::Paused(broker) | Fault::BrokerKilled(broker) => {
                Box::pin(rig.brokers.heal(*broker)).await
            }
            Fault::Source(_) => rig.faults(&Faults::default()).await,
            Fault::Wire(_) => {
                if let Some(wire) = &rig.wire {
                    wire.set(Weather::default());
                }
                Ok(())
            }
            Fault::Odd(_) => rig.load(load).await,
            Fault::DiskFull => {
                rig.history.disk_is_full = false;
                match rig.disk.as_ref().map_or(Ok(()), |disk| disk.free()) {
                    Ok(()) => rig.await_end().await,
                    failed => failed,
                }
            }
            Fault::WrongSecret => rig.places.write_secret(true),
        };
        done.with_context(|| format!("{self} ends"))
    }
}

/// One or two kinds of trouble with requests, of up to half of them.
fn source_faults(rng: &mut Rng) -> Faults {
    const STATUSES: [&[u16]; 6] = [
        &[408],
        &[429],
        &[500, 502, 503, 504],
        &[401],
        &[403, 404, 413],
        &[408, 429, 500, 503],
    ];
    let mut faults = Faults::default();
    for _ in 0..rng.u8(1..=2) {
        let share = 0.02 + rng.f64() * 0.23;
        match rng.u8(..7) {
            0..2 => faults.cut = share,
            2 => faults.failed_result = share,
            3 => faults.closed = share,
            4 => faults.html = share,
            _ => {
                faults.status = share;
                faults.statuses = STATUSES[rng.usize(..STATUSES.len())].to_vec();
            }
        }
    }
    if rng.u8(..3) == 0 {
        faults.delay_ms = [0, 400];
    }
    faults
}

/// Evil, delays, or both.
fn weather(rng: &mut Rng) -> Weather {
    let kind = rng.u8(..3);
    let share = 0.02 + rng.f64() * 0.3;
    Weather {
        evil: (kind > 0).then(|| (Evil::ALL[rng.usize(..Evil::ALL.len())], share)),
        delay_ms: if kind < 2 {
            [0, rng.u64(5..=MAX_DELAY_MS)]
        } else {
            [0, 0]
        },
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Killed => f.write_str("kill -9"),
            Fault::Terminated(1) => f.write_str("SIGTERM"),
            Fault::Terminated(signals) => write!(f, "SIGTERM {signals} times"),
            Fault::Stopped => f.write_str("SIGSTOP"),
            Fault::Paused(broker) => write!(f, "{broker:?} paused"),
            Fault::BrokerKilled(broker) => write!(f, "{broker:?} killed"),
            Fault::Source(faults) => {
                let shares = [
                    ("cut", faults.cut),
                    ("failed", faults.failed_result),
                    ("closed", faults.closed),
                    ("HTML", faults.html),
                    ("status", faults.status),
                ];
                let mut parts: Vec<String> = shares
                    .iter()
                    .filter(|(_, share)| *share > 0.0)
                    .map(|(what, share)| format!("{:.0} % {what}", share * 100.0))
                    .collect();
                if faults.status > 0.0 {
                    parts.push(format!("{:?}", faults.statuses));
                }
                if faults.delay_ms[1] > 0 {
                    parts.push(format!("answers {:?} ms late", faults.delay_ms));
                }
                f.write_str(&parts.join(" "))
            }
            Fault::Wire(weather) => {
                let mut parts = Vec::new();
                if let Some((evil, share)) = weather.evil {
                    parts.push(format!("{:.0} % {evil:?}", share * 100.0));
                }
                if weather.delay_ms[1] > 0 {
                    parts.push(format!("network {:?} ms late", weather.delay_ms));
                }
                f.write_str(&parts.join(" "))
            }
            Fault::Odd(share) => write!(f, "{:.0} % odd", share * 100.0),
            Fault::DiskFull => f.write_str("disk full"),
            Fault::WrongSecret => f.write_str("wrong secret"),
        }
    }
}

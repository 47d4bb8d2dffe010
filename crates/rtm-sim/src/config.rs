//! What is simulated: the App IDs, the regions, the load and the faults.

use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

/// Most users, and most channels, that a load may have: their names are made at the start and kept in memory.
pub const MAX_NAMES: u32 = 1_000_000;

/// Most events a second for one App ID, well above what ten pages of 1,000 a second can carry away.
pub const MAX_EVENTS_PER_SECOND: f64 = 200_000.0;

/// Longest delay of an answer: more than any client's deadline.
pub const MAX_DELAY_MS: u64 = 120_000;

/// Everything that a simulator is started with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimConfig {
    /// Where to listen, as [`listen_address`] reads it; port 0 takes a free one. Default `127.0.0.1:0`.
    #[serde(deserialize_with = "listen")]
    pub listen: SocketAddr,
    /// Lets `listen` be another address than loopback, as inside a container's network. Default false: whoever
    /// reaches the simulator can change its load and its faults.
    pub allow_any_address: bool,
    /// Decides events, faults and names. The time of arrival is real time, so two runs with one seed see the same
    /// events and, request by request, the same faults, but not the same pages. Default 1.
    pub seed: u64,
    /// The App IDs. Default one, [`SimApp::default`].
    pub apps: Vec<SimApp>,
    /// The regions, each a first segment of the path: letters, digits, `-`, `_`, `.`. Default `eu-west-1`.
    pub regions: Vec<String>,
    /// What arrives.
    pub load: Load,
    /// What goes wrong.
    pub faults: Faults,
}

/// The address that `text` means: `HOST:PORT`, or `:PORT` for every address. Of a name's addresses one of IPv4 is taken, if
/// there is one.
///
/// # Errors
///
/// When it is none, or the name has none.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let whole = match text.strip_prefix(':') {
        Some(port) => format!("{}:{port}", Ipv4Addr::UNSPECIFIED),
        None => text.to_owned(),
    };
    let failed = |error| {
        format!(
            "`{text}` is no address to listen on, such as 127.0.0.1:8080, localhost:8080 or :8080: {error}"
        )
    };
    let found = whole.to_socket_addrs().map_err(failed)?;
    let found = found.min_by_key(SocketAddr::is_ipv6);
    found.ok_or_else(|| format!("`{text}` has no address"))
}

fn listen<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    listen_address(&text).map_err(D::Error::custom)
}

impl Default for SimConfig {
    fn default() -> SimConfig {
        SimConfig {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            allow_any_address: false,
            seed: 1,
            apps: vec![SimApp::default()],
            regions: vec!["eu-west-1".into()],
            load: Load::default(),
            faults: Faults::default(),
        }
    }
}

/// One App ID and what it takes to read it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimApp {
    /// The App ID, as in the path: letters, digits, `-`, `_`. Default the one of Agora's examples.
    pub app_id: String,
    /// The credentials that are accepted.
    pub auth: SimAuth,
}

impl Default for SimApp {
    fn default() -> SimApp {
        SimApp {
            app_id: "876922cbca0098dff4323566daa89675".into(),
            auth: SimAuth::Basic {
                key: "demo-key".into(),
                secret: "demo-secret".into(),
            },
        }
    }
}

/// The credentials that an App ID accepts. They protect nothing: they are there to be got wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SimAuth {
    /// `Authorization: Basic base64(key:secret)`.
    Basic {
        /// The API key.
        key: String,
        /// The API secret.
        secret: String,
    },
    /// A version 006 token: `x-agora-token` and `x-agora-uid`.
    Token {
        /// The token.
        token: String,
        /// The user that the token was made for.
        uid: String,
    },
    /// A version 007 token: `Authorization: agora token=<token>`. In the headers of version 006 it is refused.
    Agora {
        /// The token.
        token: String,
    },
    /// No credentials are asked for.
    Open,
}

/// What arrives at the rings, in real time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Load {
    /// How the rate changes with time. Default steady.
    pub pattern: Pattern,
    /// Events a second for each App ID, over all its rings; copies come on top. Default 200.
    pub events_per_second: f64,
    /// How many users there are. Default 10,000.
    pub users: u32,
    /// How many channels there are; low ones are the busiest. Default 200.
    pub channels: u32,
    /// The share of events, 0 to 1, that also arrive at a second region's ring, with the same bytes. Default 0.
    pub copies: f64,
    /// The share of events, 0 to 1, that are odd: aliases, numeric ids, hostile ids, events that are no objects and
    /// the like. Default 0.
    pub odd: f64,
}

impl Default for Load {
    fn default() -> Load {
        Load {
            pattern: Pattern::Steady,
            events_per_second: 200.0,
            users: 10_000,
            channels: 200,
            copies: 0.0,
            odd: 0.0,
        }
    }
}

impl Load {
    /// Whether the values make sense.
    ///
    /// # Errors
    ///
    /// [`InvalidSetting`] names the first that does not, and what it must be.
    pub fn check(&self) -> Result<(), InvalidSetting> {
        within(
            "load.events_per_second",
            self.events_per_second,
            MAX_EVENTS_PER_SECOND,
        )?;
        share("load.copies", self.copies)?;
        share("load.odd", self.odd)?;
        for (name, value) in [("load.users", self.users), ("load.channels", self.channels)] {
            if !(1..=MAX_NAMES).contains(&value) {
                return Err(InvalidSetting(format!(
                    "{name} must be from 1 to {MAX_NAMES}"
                )));
            }
        }
        match self.pattern {
            Pattern::Storm {
                every_ms,
                lasting_ms,
                ..
            } if lasting_ms > every_ms || every_ms == 0 => Err(InvalidSetting(
                "load.pattern: a storm lasts no longer than it takes to the next".into(),
            )),
            Pattern::Storm { times, .. } => within(
                "load.events_per_second in a storm",
                self.events_per_second * times,
                MAX_EVENTS_PER_SECOND,
            ),
            Pattern::OnOff { on_ms: 0, .. } => Err(InvalidSetting(
                "load.pattern: on_ms must be at least 1".into(),
            )),
            _ => Ok(()),
        }
    }
}

/// How the rate of arrival changes with time, from when the load was set.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Pattern {
    /// It does not.
    Steady,
    /// Every so often a storm: a multiple of the rate for a while. The calm comes first.
    Storm {
        /// From the end of one storm to the end of the next, in milliseconds.
        every_ms: u64,
        /// How long a storm lasts, in milliseconds.
        lasting_ms: u64,
        /// What the rate is multiplied by meanwhile.
        times: f64,
    },
    /// The full rate, then nothing, and so on.
    OnOff {
        /// How long events arrive, in milliseconds.
        on_ms: u64,
        /// How long none do, in milliseconds.
        off_ms: u64,
    },
}

impl Pattern {
    /// What the rate is multiplied by, `at` after the load was set.
    pub(crate) fn times(self, at: Duration) -> f64 {
        let at = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
        match self {
            Pattern::Steady => 1.0,
            Pattern::Storm {
                every_ms,
                lasting_ms,
                times,
            } => {
                let calm = every_ms.saturating_sub(lasting_ms);
                if at % every_ms.max(1) < calm {
                    1.0
                } else {
                    times
                }
            }
            Pattern::OnOff { on_ms, off_ms } => {
                if at % on_ms.saturating_add(off_ms).max(1) < on_ms {
                    1.0
                } else {
                    0.0
                }
            }
        }
    }
}

/// What goes wrong with requests that are otherwise in order. Shares are of those requests, 0 to 1, and exclude each
/// other, so that together they are at most 1. Default: nothing.
///
/// Nothing says whether a request that fails has read, and so deleted. Both are simulated: [`Faults::deletes`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// The share answered with one of `statuses`.
    pub status: f64,
    /// The statuses drawn from. Default 403, 408, 429, 500, 502, 503, 504.
    pub statuses: Vec<u16>,
    /// The share whose body is cut, anywhere from before its first byte to before its last. The events are deleted.
    pub cut: f64,
    /// The share answered 200 with `"result":"failed"`: with the events, without having read, or having deleted in vain.
    pub failed_result: f64,
    /// The share whose connection is closed without an answer.
    pub closed: f64,
    /// The share answered 200 with an HTML page.
    pub html: f64,
    /// The share whose connection is reset in the middle of the body; what was sent may not arrive. The events are
    /// deleted.
    pub reset: f64,
    /// The share whose body stops anywhere in the middle, with the connection left open. The events are deleted.
    pub stall: f64,
    /// The share whose body comes in drips, evenly for `drip_ms`.
    pub drip: f64,
    /// How long a drip takes, in milliseconds. Default 60,000, longer than a client should wait.
    pub drip_ms: u64,
    /// The share whose body is as long as `huge_bytes`, of white space before the events or after them.
    pub huge: f64,
    /// The length of huge bodies, and of what a bomb unpacks to. Default 64 MiB.
    pub huge_bytes: usize,
    /// The share that is encoded with gzip, unasked.
    pub gzip: f64,
    /// The share that is encoded with gzip, unasked, and unpacks to `huge_bytes`: the events, and then white space.
    pub bomb: f64,
    /// The share answered with more headers than any client takes, or with one that is longer.
    pub headers: f64,
    /// Of the answers that carry no events and leave it open whether they were deleted (408, 5xx, `failed`, no answer,
    /// HTML, `headers`), the share that deleted. Other statuses never do. Default 0.5.
    pub deletes: f64,
    /// The least and the most that an answer is delayed, in milliseconds, half of them before the read and half after
    /// it. Applies to every request. Default none.
    pub delay_ms: [u64; 2],
}

impl Default for Faults {
    fn default() -> Faults {
        Faults {
            status: 0.0,
            statuses: vec![403, 408, 429, 500, 502, 503, 504],
            cut: 0.0,
            failed_result: 0.0,
            closed: 0.0,
            html: 0.0,
            reset: 0.0,
            stall: 0.0,
            drip: 0.0,
            drip_ms: 60_000,
            huge: 0.0,
            huge_bytes: 64 << 20,
            gzip: 0.0,
            bomb: 0.0,
            headers: 0.0,
            deletes: 0.5,
            delay_ms: [0, 0],
        }
    }
}

impl Faults {
    /// Whether the values make sense.
    ///
    /// # Errors
    ///
    /// [`InvalidSetting`] names the first that does not, and what it must be.
    pub fn check(&self) -> Result<(), InvalidSetting> {
        let shares = [
            ("faults.status", self.status),
            ("faults.cut", self.cut),
            ("faults.failed_result", self.failed_result),
            ("faults.closed", self.closed),
            ("faults.html", self.html),
            ("faults.reset", self.reset),
            ("faults.stall", self.stall),
            ("faults.drip", self.drip),
            ("faults.huge", self.huge),
            ("faults.gzip", self.gzip),
            ("faults.bomb", self.bomb),
            ("faults.headers", self.headers),
        ];
        for (name, value) in shares {
            share(name, value)?;
        }
        share("faults.deletes", self.deletes)?;
        let sum = shares.iter().map(|(_, value)| value).sum();
        share("the sum of all faults", sum)?;
        if self.status > 0.0 && self.statuses.is_empty() {
            return Err(InvalidSetting("faults.statuses must name a status".into()));
        }
        if self
            .statuses
            .iter()
            .any(|status| !(400..=599).contains(status))
        {
            return Err(InvalidSetting(
                "faults.statuses must be from 400 to 599".into(),
            ));
        }
        if self.drip_ms > MAX_DELAY_MS {
            return Err(InvalidSetting(format!(
                "faults.drip_ms must be from 0 to {MAX_DELAY_MS}"
            )));
        }
        if self.delay_ms[0] > self.delay_ms[1] || self.delay_ms[1] > MAX_DELAY_MS {
            return Err(InvalidSetting(format!(
                "faults.delay_ms must be the least and the most, up to {MAX_DELAY_MS}"
            )));
        }
        Ok(())
    }
}

/// A setting out of its range; the text names it and says what it must be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidSetting(pub(crate) String);

impl SimConfig {
    /// Whether the values make sense, the addresses aside.
    ///
    /// # Errors
    ///
    /// [`InvalidSetting`] names the first that does not, and what it must be.
    pub fn check(&self) -> Result<(), InvalidSetting> {
        let apps: Vec<&str> = self.apps.iter().map(|app| app.app_id.as_str()).collect();
        names("apps", &apps, "-_")?;
        let regions: Vec<&str> = self.regions.iter().map(String::as_str).collect();
        names("regions", &regions, "-_.")?;
        self.load.check()?;
        self.faults.check()
    }
}

/// Names that stand in a path, at least one, no two alike.
fn names(setting: &str, names: &[&str], punctuation: &str) -> Result<(), InvalidSetting> {
    if names.is_empty() {
        return Err(InvalidSetting(format!(
            "{setting} must have at least one entry"
        )));
    }
    for (index, name) in names.iter().enumerate() {
        let plain = |c: char| c.is_ascii_alphanumeric() || punctuation.contains(c);
        // Neither `_sim`, which is the simulator's own, nor `..`, which clients resolve.
        if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.chars().all(plain) {
            return Err(InvalidSetting(format!(
                "{setting}: {name:?} must be of letters, digits and {punctuation}, and begin with one of the first two"
            )));
        }
        if names[..index].contains(name) {
            return Err(InvalidSetting(format!(
                "{setting}: {name:?} is there twice"
            )));
        }
    }
    Ok(())
}

fn share(name: &str, value: f64) -> Result<(), InvalidSetting> {
    within(name, value, 1.0)
}

fn within(name: &str, value: f64, most: f64) -> Result<(), InvalidSetting> {
    // The comparison is false for NaN too.
    if value >= 0.0 && value <= most {
        Ok(())
    } else {
        Err(InvalidSetting(format!("{name} must be from 0 to {most}")))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn patterns_change_the_rate_when_they_say() {
        let ms = Duration::from_millis;
        let storm = Pattern::Storm {
            every_ms: 100,
            lasting_ms: 20,
            times: 5.0,
        };
        assert_eq!(
            [0, 79, 80, 99, 100, 180].map(|at| storm.times(ms(at))),
            [1.0, 1.0, 5.0, 5.0, 1.0, 5.0]
        );
        let on_off = Pattern::OnOff {
            on_ms: 10,
            off_ms: 30,
        };
        assert_eq!(
            [0, 9, 10, 39, 40].map(|at| on_off.times(ms(at))),
            [1.0, 1.0, 0.0, 0.0, 1.0]
        );
    }

    #[test]
    fn values_out_of_range_are_named() {
        let text = |config: &SimConfig| config.check().unwrap_err().to_string();
        assert_eq!(SimConfig::default().check(), Ok(()));

        let mut config = SimConfig::default();
        config.load.copies = f64::NAN;
        assert!(text(&config).starts_with("load.copies"));

        let mut config = SimConfig::default();
        config.faults.status = 0.7;
        config.faults.cut = 0.7;
        assert!(text(&config).starts_with("the sum of all faults"));

        let regions = |names: &[&str]| SimConfig {
            regions: names.iter().map(|name| (*name).to_owned()).collect(),
            ..SimConfig::default()
        };
        assert!(text(&regions(&["a", "b/c"])).contains("b/c"));
        assert!(text(&regions(&["a", "a"])).contains("twice"));
        for name in ["_sim", "..", ""] {
            assert!(text(&regions(&[name])).contains("begin with"));
        }
        assert!(text(&regions(&[])).contains("at least one"));
    }

    #[test]
    fn reads_what_it_writes_and_refuses_unknown_keys() {
        let config = SimConfig {
            load: Load {
                pattern: Pattern::OnOff {
                    on_ms: 1,
                    off_ms: 2,
                },
                ..Load::default()
            },
            ..SimConfig::default()
        };
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<SimConfig>(&json).unwrap(), config);
        assert!(serde_json::from_str::<Faults>(r#"{"cuts":0.5}"#).is_err());
    }
}

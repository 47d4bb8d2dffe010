//! Makes events: who, where, what, and into which ring.

use std::fmt::Write;

use fastrand::Rng;

use crate::config::Load;
use crate::ledger::Stream;
use crate::odd;
use crate::ring::Ring;

/// The characters of user and channel ids. Source: Agora's limits for user and channel
/// ids. None of them needs an escape.
const ALPHABET: &[u8] =
    b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 !#$%&()+-:;<=.>?@[]^_{}|~,'";

/// The most characters in an id. Source: as above.
const MAX_ID: usize = 64;

/// Makes one App ID's events.
///
/// The n-th event depends on the seed and the load only, and not on when it is made (its `ms` does).
#[derive(Debug)]
pub(crate) struct Generator {
    seed: u64,
    rng: Rng,
    users: Vec<Box<str>>,
    channels: Vec<Box<str>>,
    /// Events that are due but not made, less than one after each call.
    due: f64,
}

impl Generator {
    pub(crate) fn new(seed: u64, load: &Load) -> Generator {
        let mut generator = Generator {
            seed,
            rng: Rng::with_seed(seed),
            users: Vec::new(),
            channels: Vec::new(),
            due: 0.0,
        };
        generator.adapt(load);
        generator
    }

    /// Makes the names that `load` needs. Names that stay in use stay the same.
    pub(crate) fn adapt(&mut self, load: &Load) {
        let (users, channels) = (load.users.max(1) as usize, load.channels.max(1) as usize);
        if self.users.len() != users {
            self.users = names(self.seed, "u", users);
        }
        if self.channels.len() != channels {
            self.channels = names(!self.seed, "c", channels);
        }
    }

    /// Puts the events that fell due in another `due` into `rings`, which are those of each region in turn, two each.
    pub(crate) fn arrive(&mut self, due: f64, ms: u64, load: &Load, rings: &mut [Ring]) {
        self.due += due;
        // Formatted once: all that arrives at one moment has the same time.
        let ms = ms.to_string();
        let regions = rings.len() / Stream::ALL.len();
        while self.due >= 1.0 {
            self.due -= 1.0;
            let stream = Stream::ALL[usize::from(self.rng.bool())];
            let event = self.event(stream, &ms, load.odd);
            let region = self.rng.usize(..regions);
            if self.rng.f64() < load.copies && regions > 1 {
                let other = (region + self.rng.usize(1..regions)) % regions;
                rings[other * Stream::ALL.len() + stream as usize].push(event.clone());
            }
            rings[region * Stream::ALL.len() + stream as usize].push(event);
        }
    }

    fn event(&mut self, stream: Stream, ms: &str, odd: f64) -> Box<str> {
        let user = &self.users[self.rng.usize(..self.users.len())];
        // The square makes a tenth of the channels carry a third of the events: busy channels are what matters.
        let skewed = self.rng.f64().powi(2) * self.channels.len() as f64;
        let channel = &self.channels[(skewed as usize).min(self.channels.len() - 1)];
        let first = self.rng.bool();
        if self.rng.f64() < odd {
            return odd::event(&mut self.rng, stream, user, channel, ms).into();
        }
        let (group, kinds) = match stream {
            Stream::User => (["", "", ""], ["Logout", "Login"]),
            Stream::Channel => ([r#""group_id":""#, channel, r#"","#], ["Leave", "Join"]),
        };
        let ([before, group, after], kind) = (group, kinds[usize::from(first)]);
        format!(r#"{{{before}{group}{after}"user_id":"{user}","type":"{kind}","ms":{ms}}}"#).into()
    }
}

/// `count` names of 4 to 64 characters; no two are alike, and all are alike for one seed.
fn names(seed: u64, prefix: &str, count: usize) -> Vec<Box<str>> {
    let mut rng = Rng::with_seed(seed);
    (0..count)
        .map(|number| {
            let mut name = format!("{prefix}{number}_");
            // Mostly short, as real ones are; one in 16 is as long as the API allows.
            let length = if rng.u8(..16) == 0 {
                MAX_ID
            } else {
                rng.usize(4..=32)
            };
            while name.len() < length {
                name.push(char::from(ALPHABET[rng.usize(..ALPHABET.len())]));
            }
            name.into()
        })
        .collect()
}

/// An id of a request, never the same twice for one seed: opaque text, in the two forms that have been seen.
pub(crate) fn request_id(seed: u64, number: u64) -> String {
    // A bijection of 64-bit numbers (the finalizer of splitmix64), so that no number comes twice.
    let mut mixed = number ^ seed;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    let mut id = String::with_capacity(28);
    if mixed.is_multiple_of(4) {
        let _ = write!(id, "{}_", 100_000 + mixed % 900_000);
    }
    let _ = write!(id, "{mixed}");
    id
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashSet;

    use serde_json::Value;

    use super::*;

    fn rings(regions: usize) -> Vec<Ring> {
        (0..regions * 2).map(|_| Ring::default()).collect()
    }

    #[test]
    fn events_are_as_documented() {
        let load = Load::default();
        let mut rings = rings(1);
        Generator::new(7, &load).arrive(500.0, 1_578_027_418_981, &load, &mut rings);
        for (stream, ring) in Stream::ALL.iter().zip(&mut rings) {
            let events = ring.take();
            assert!(events.len() > 150);
            for event in events {
                let event: Value = serde_json::from_str(&event).unwrap();
                assert_eq!(event["ms"], 1_578_027_418_981_u64);
                let kind = event["type"].as_str().unwrap();
                let user = event["user_id"].as_str().unwrap();
                assert!(user.len() <= MAX_ID && user.bytes().all(|byte| ALPHABET.contains(&byte)));
                match stream {
                    Stream::User => assert!(
                        ["Login", "Logout"].contains(&kind) && event.get("group_id").is_none()
                    ),
                    Stream::Channel => {
                        assert!(["Join", "Leave"].contains(&kind) && event["group_id"].is_string());
                    }
                }
            }
        }
    }

    #[test]
    fn the_seed_decides_and_the_moment_does_not() {
        let load = Load {
            copies: 0.3,
            odd: 0.2,
            ..Load::default()
        };
        let made = |seed, steps: &[f64]| {
            let mut rings = rings(3);
            let mut generator = Generator::new(seed, &load);
            for due in steps {
                generator.arrive(*due, 5, &load, &mut rings);
            }
            rings.iter_mut().map(Ring::take).collect::<Vec<_>>()
        };
        assert_eq!(made(1, &[600.0]), made(1, &[0.5, 99.5, 0.25, 499.75]));
        assert_ne!(made(1, &[600.0]), made(2, &[600.0]));
    }

    #[test]
    fn copies_have_the_same_bytes_in_another_region() {
        let load = Load {
            copies: 1.0,
            ..Load::default()
        };
        let mut rings = rings(2);
        Generator::new(3, &load).arrive(400.0, 5, &load, &mut rings);
        for stream in 0..2 {
            let (mut west, mut east) = (rings[stream].take(), rings[2 + stream].take());
            assert!(west.len() > 100);
            west.sort();
            east.sort();
            assert_eq!(west, east);
        }
    }

    #[test]
    fn request_ids_are_unique_and_in_both_forms() {
        let ids: HashSet<String> = (0..10_000).map(|number| request_id(9, number)).collect();
        assert_eq!(ids.len(), 10_000);
        let joined = ids.iter().filter(|id| id.contains('_')).count();
        assert!((2_000..3_000).contains(&joined));
    }
}

//! Any text as `Retry-After`, at any time: never a panic, never more than an hour.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (i64, &str)| {
    let (now, text) = input;
    let Ok(now) = jiff::Timestamp::from_second(now % 253_402_207_200) else {
        return;
    };
    let after = rtm_source::fuzz::retry_after(text, now).unwrap_or_default();
    assert!(after <= Duration::from_secs(3_600), "{after:?}");
});

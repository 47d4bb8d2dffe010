//! Whatever bytes its segments have, a journal opens, gives what can be read, takes entries and opens again; or it is of
//! another version, and not a byte of it is changed.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rtm_journal::sim::open_anything;

fuzz_target!(|input: &[u8]| open_anything(input));

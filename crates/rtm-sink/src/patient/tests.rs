//! Descriptors that do not block, and readers that are slow.
#![allow(clippy::unwrap_used)]

use std::io::{Read, pipe};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_setfl};

use super::*;

/// Holds: what is written to a descriptor that does not block arrives whole, once and in order, however slow its reader is;
/// while it waits, it says since when.
#[test]
fn a_slow_reader_gets_every_byte_once() {
    let (mut reader, writer) = pipe().unwrap();
    fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
    let waiting = Waiting::default();
    let mut patient = Patient::new(File::from(OwnedFd::from(writer)), waiting.clone());
    let sent: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let (written, told) = (sent.clone(), waiting.clone());
    let writer = thread::spawn(move || {
        let done = told.during(|| patient.write_all(&written));
        done.unwrap();
    });
    // A pipe holds 64 KiB: the rest waits, and that is seen.
    let deadline = Instant::now() + Duration::from_secs(10);
    let waits = || {
        waiting
            .since()
            .is_some_and(|since| since.elapsed() > Duration::from_millis(50))
    };
    while !waits() {
        assert!(Instant::now() < deadline, "nothing waits");
        thread::sleep(Duration::from_millis(5));
    }
    let mut got = Vec::new();
    let mut part = [0; 4096];
    loop {
        match reader.read(&mut part).unwrap() {
            0 => break,
            n => got.extend_from_slice(&part[..n]),
        }
    }
    writer.join().unwrap();
    assert_eq!(waiting.since(), None);
    assert!(
        got == sent,
        "{} of {} bytes, or others",
        got.len(),
        sent.len()
    );
}

/// Holds: a reader that has gone is an error, and no reason to wait.
#[test]
fn a_reader_that_has_gone_is_an_error() {
    let (reader, writer) = pipe().unwrap();
    fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
    let mut patient = Patient::new(File::from(OwnedFd::from(writer)), Waiting::default());
    let writer = thread::spawn(move || patient.write_all(&[0; 1 << 20]));
    thread::sleep(Duration::from_millis(20));
    drop(reader);
    let error = writer.join().unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

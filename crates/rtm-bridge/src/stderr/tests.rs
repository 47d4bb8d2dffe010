//! A reader that stops, goes on, and goes.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, pipe};
use std::sync::mpsc;

use super::*;

fn queue() -> &'static Queue {
    Box::leak(Box::new(Queue::new()))
}

fn line(text: &str) -> Vec<u8> {
    format!("{text}\n").into_bytes()
}

/// Holds: adding never waits for a reader that has stopped; what does not fit is counted, and told once, after what did fit,
/// when the reader goes on. A flush ends by its deadline.
#[test]
fn what_does_not_fit_is_dropped_and_counted() {
    let (reader, writer) = pipe().unwrap();
    let queue = queue();
    let (tx, told) = mpsc::channel();
    let tell = move || {
        let mut state = lock(&queue.state);
        let lines = state.dropped - state.told;
        state.told = state.dropped;
        tx.send(lines).unwrap();
    };
    thread::spawn(move || queue.write_to(writer, tell));
    let text = "x".repeat(1000);
    let added = 4000;
    for _ in 0..added {
        queue.add(line(&text));
    }
    let began = Instant::now();
    queue.flush(Duration::from_millis(100));
    assert!(began.elapsed() < Duration::from_secs(5));
    let dropped = lock(&queue.state).dropped;
    assert!(dropped > 0 && dropped < added, "{dropped}");
    let mut lines = BufReader::new(reader).lines();
    for _ in 0..added - dropped {
        assert_eq!(lines.next().unwrap().unwrap(), text);
    }
    let told_of = told.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!(told_of, dropped);
    queue.add(line("more"));
    assert_eq!(lines.next().unwrap().unwrap(), "more");
    queue.flush(Duration::from_secs(10));
    assert!(told.try_recv().is_err(), "it was told already");
}

/// Holds: many short lines are bounded too, by their number.
#[test]
fn short_lines_are_bounded_by_their_number() {
    let queue = queue();
    for _ in 0..LINES + 5 {
        queue.add(line(""));
    }
    let state = lock(&queue.state);
    assert_eq!((state.lines.len(), state.dropped), (LINES, 5));
}

/// Holds: lines that cannot be written are counted, and nothing is told where nothing can be.
#[test]
fn what_cannot_be_written_is_counted() {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let queue = queue();
    thread::spawn(move || queue.write_to(writer, || panic!("told into the void")));
    for _ in 0..3 {
        queue.add(line("x"));
        queue.flush(Duration::from_secs(10));
    }
    assert_eq!(lock(&queue.state).dropped, 3);
}

#![allow(clippy::unwrap_used)]

use std::fs::{self, OpenOptions};
use std::net::TcpListener;
use std::process::Command;
use std::time::Instant;

use tokio::time::{sleep, timeout};

use super::*;
use crate::KafkaOptions;
use crate::cause::unreachable;

/// How long anything may take that takes milliseconds.
const SOON: Duration = Duration::from_secs(5);

/// Holds: what is wrong at a broker's address is found also while the file of an option hangs, as on a network mount: the
/// file is not read for it.
#[tokio::test]
async fn no_file_is_read_to_look_at_a_broker() {
    let path = std::env::temp_dir().join(format!("rtm-hung-{}", std::process::id()));
    fs::write(&path, "secret").unwrap();
    let mut options = KafkaOptions::new(vec!["127.0.0.1:1".to_owned()]);
    let name = "sasl.password".to_owned();
    options.option_files.insert(name, path.clone());
    let producers = Producers::start(options).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(
        Command::new("mkfifo")
            .arg(&path)
            .status()
            .unwrap()
            .success()
    );

    let found = timeout(SOON, unreachable(&producers)).await;
    // Whoever reads it is let go, or else the runtime would not end.
    let _ = OpenOptions::new().read(true).write(true).open(&path);
    fs::remove_file(&path).unwrap();
    let found = found.unwrap().unwrap();
    assert!(found.contains("no connection"), "{found}");
}

/// Holds: questions that nobody waits for any more keep their places, so that no more threads than these are ever held.
#[tokio::test]
async fn questions_that_hang_do_not_gather() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = silent.local_addr().unwrap().to_string();
    let producers = Producers::start(KafkaOptions::new(vec![at.clone()])).unwrap();
    for _ in 0..40 {
        let asked = timeout(Duration::ZERO, trouble(&at, &producers, false));
        assert!(asked.await.is_err());
    }
    assert_eq!(producers.asides.available_permits(), 0);
    let start = Instant::now();
    drop(silent);
    while producers.asides.available_permits() == 0 {
        assert!(
            start.elapsed() < 4 * STEP,
            "a place comes back with its answer"
        );
        sleep(Duration::from_millis(10)).await;
    }
}

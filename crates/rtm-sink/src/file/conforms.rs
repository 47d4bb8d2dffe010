//! The conformance suite on a file.
#![allow(clippy::unwrap_used)]

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::Topic;
use crate::conformance::{self, Carries, Rig, Stored};

struct FileRig {
    dir: TempDir,
}

impl FileRig {
    fn path(&self) -> PathBuf {
        self.dir.path().join("events.jsonl")
    }
}

impl Rig for FileRig {
    type Sink = FileSink;

    async fn sink(&self) -> FileSink {
        FileSink::create(self.path()).unwrap()
    }

    async fn topic(&self, case: &str) -> Topic {
        Topic::from(case)
    }

    /// The file holds all topics: the suite's documents name theirs.
    async fn stored(&self, topic: &Topic) -> Vec<Stored> {
        let of_topic = |line: &&str| {
            let document: serde_json::Value = serde_json::from_str(line).unwrap();
            document["topic"] == topic.as_str()
        };
        let stored = |line: &str| Stored {
            payload: Bytes::copy_from_slice(line.as_bytes()),
            ..Stored::default()
        };
        let text = fs::read_to_string(self.path()).unwrap();
        text.lines().filter(of_topic).map(stored).collect()
    }

    fn carries(&self) -> Carries {
        Carries {
            order_after_failure: true,
            ..Carries::default()
        }
    }
}

/// Holds: the contract, save what a file cannot do (it refuses no record and does not go away unasked).
#[tokio::test]
async fn conforms() {
    let rig = FileRig {
        dir: tempfile::tempdir().unwrap(),
    };
    let left_out = conformance::run(&rig).await;
    assert_eq!(
        left_out,
        [
            "a record is refused",
            "a refused record is made smaller",
            "the broker is away"
        ]
    );
}

/// Holds: a line that a crash cut short stays alone on its line.
#[tokio::test]
async fn a_torn_last_line_is_followed_by_a_fresh_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.jsonl");
    fs::write(&path, "{\"whole\":1}\n{\"tor").unwrap();
    let record = conformance::record(&Topic::from("t"), 0);
    for _ in 0..2 {
        let sink = FileSink::create(&path).unwrap();
        sink.publish(std::slice::from_ref(&record)).await.unwrap();
    }
    let line = std::str::from_utf8(&record.payload).unwrap();
    let expected = format!("{{\"whole\":1}}\n{{\"tor\n{line}\n{line}\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), expected);
}

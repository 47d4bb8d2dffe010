//! Lines in a file, and on standard output.

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use rtm_record::{KeyBy, STATIC};
use rtm_sink::{AnySink, FileSink};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use super::kind::{Bench, Each, Kind, Purpose, Stored, Templates, changed};
use crate::fields::problem::Problems;

/// A sink of type `file`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileConfig {
    /// The file to append to.
    pub(crate) path: PathBuf,
}

/// A sink of type `stdout`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StdoutConfig {}

#[async_trait]
impl Kind for FileConfig {
    fn problems(&self, _: &[String], problems: &mut Problems<'_>) {
        let path = &self.path;
        let parent = path.parent();
        let parent = parent.filter(|parent| !parent.as_os_str().is_empty() && !parent.is_dir());
        if path.is_dir() {
            let path = path.display();
            problems.add(
                "path",
                format!("{path} is a directory; expected a file to append to"),
            );
        } else if path.file_name().is_none() {
            problems.add("path", "expected a file to append to");
        } else if let Some(parent) = parent {
            let parent = parent.display();
            problems.absent("path", format!("there is no directory {parent} to hold it"));
        }
    }

    fn templates(&self) -> Templates<'_> {
        LINES
    }

    fn file(&self) -> Option<&Path> {
        Some(&self.path)
    }

    fn shown(&self) -> Vec<(&'static str, String)> {
        vec![("path", self.path.display().to_string())]
    }

    fn needs_new_client(&self, new: &dyn Kind) -> Vec<&'static str> {
        changed!(self to new of FileConfig, renewed: , fixed: path)
    }

    async fn open(&self, _: &str, _: &[String], _: Purpose) -> anyhow::Result<AnySink> {
        let path = self.path.clone();
        let sink = spawn_blocking(move || FileSink::create(path)).await??;
        Ok(AnySink::new(Arc::new(sink)))
    }

    fn bench(&self, bench: &Bench<'_>) -> Result<Value, String> {
        let path = bench.dir.join(format!("{}.ndjson", bench.sink));
        Ok(json!({ "path": path.to_string_lossy() }))
    }

    fn is_of_bench(&self, bench: &Bench<'_>) -> bool {
        self.path.starts_with(bench.dir)
    }

    async fn read_back(&self, each: Each<'_>) -> anyhow::Result<()> {
        read_back(&self.path, each)
    }
}

#[async_trait]
impl Kind for StdoutConfig {
    fn problems(&self, _: &[String], _: &mut Problems<'_>) {}

    fn templates(&self) -> Templates<'_> {
        LINES
    }

    async fn open(&self, _: &str, _: &[String], _: Purpose) -> anyhow::Result<AnySink> {
        Ok(AnySink::new(Arc::new(FileSink::stdout()?)))
    }

    fn bench(&self, bench: &Bench<'_>) -> Result<Value, String> {
        Err(format!(
            "sinks.{}: what goes to standard output cannot be read back; leave it out",
            bench.sink
        ))
    }
}

/// A file has no topics, and no key says where its lines go: they say themselves where they come from.
const LINES: Templates<'static> = Templates {
    records: ("", "{stream}_events"),
    dead_letters: ("", "dead_letters"),
    allowed: STATIC,
    key: KeyBy::Auto,
    headers: false,
};

/// Every line of a file sink.
///
/// # Errors
///
/// When the file cannot be read.
pub fn read_back(path: &Path, mut each: impl FnMut(&Stored<'_>)) -> anyhow::Result<()> {
    /// What tells a dead letter's document from an event's.
    #[derive(Deserialize)]
    struct Lettered {
        #[serde(rename = "reason")]
        _reason: String,
    }

    let mut lines = std::io::BufReader::new(std::fs::File::open(path)?);
    let mut line = Vec::new();
    let mut order = 0;
    while lines.read_until(b'\n', &mut line)? > 0 {
        let payload = line.trim_ascii_end();
        let dead_letter = serde_json::from_slice::<Lettered>(payload).is_ok();
        each(&Stored {
            partition: 0,
            order,
            key: None,
            payload,
            timestamp: None,
            dead_letter,
            is_line: true,
        });
        order += 1;
        line.clear();
    }
    Ok(())
}

//! Lines in a file, and on standard output.

use std::any::Any;
use std::future::ready;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt, LocalBoxFuture};
use rtm_record::{KeyBy, Routes, STATIC, Template};
use rtm_sink::{AnySink, CreateError, FileSink};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::kind::{Bench, Each, Kind, Opening, Stored, changed};
use crate::fields::problem::Add;

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

impl Kind for FileConfig {
    fn problems(&self, _: &[String], add: Add<'_>) {
        let path = &self.path;
        let parent = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        if path.is_dir() {
            add(
                "path",
                format!(
                    "{} is a directory; expected a file to append to",
                    path.display()
                ),
            );
        } else if path.file_name().is_none() {
            add("path", "expected a file to append to".to_owned());
        } else if let Some(parent) = parent.filter(|parent| !parent.is_dir()) {
            add(
                "path",
                format!("there is no directory {} to hold it", parent.display()),
            );
        }
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

    fn routes(&self) -> Result<Routes, String> {
        lines()
    }

    fn open(&self, _: Opening) -> BoxFuture<'_, anyhow::Result<AnySink>> {
        opened(FileSink::create(&self.path))
    }

    fn bench(&self, bench: &Bench<'_>) -> Result<Value, String> {
        let path = bench.dir.join(format!("{}.ndjson", bench.sink));
        Ok(json!({ "path": path.to_string_lossy() }))
    }

    fn is_of_bench(&self, bench: &Bench<'_>) -> bool {
        self.path.starts_with(bench.dir)
    }

    fn read_back<'a>(&'a self, each: Each<'a>) -> LocalBoxFuture<'a, anyhow::Result<()>> {
        ready(read_back(&self.path, each)).boxed_local()
    }
}

impl Kind for StdoutConfig {
    fn problems(&self, _: &[String], _: Add<'_>) {}

    fn shown(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    fn needs_new_client(&self, new: &dyn Kind) -> Vec<&'static str> {
        match (new as &dyn Any).is::<StdoutConfig>() {
            true => Vec::new(),
            false => vec!["type"],
        }
    }

    fn routes(&self) -> Result<Routes, String> {
        lines()
    }

    fn open(&self, _: Opening) -> BoxFuture<'_, anyhow::Result<AnySink>> {
        opened(FileSink::stdout())
    }

    fn bench(&self, bench: &Bench<'_>) -> Result<Value, String> {
        Err(format!(
            "sinks.{}: what goes to standard output cannot be read back; leave it out",
            bench.sink
        ))
    }
}

fn opened(made: Result<FileSink, CreateError>) -> BoxFuture<'static, anyhow::Result<AnySink>> {
    let sink = made.map(|sink| AnySink::new(Arc::new(sink)));
    ready(sink.map_err(Into::into)).boxed()
}

/// A file has no topics; its lines say where they come from.
///
/// # Errors
///
/// None: its templates are constants.
pub fn lines() -> Result<Routes, String> {
    Ok(Routes {
        topic: Template::parse("{stream}_events", STATIC)?,
        dead_letters: Template::parse("dead_letters", STATIC)?,
        key: KeyBy::Auto,
        headers: false,
    })
}

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

//! What the program asks of a kind of sink.

use std::any::Any;
use std::fmt::Debug;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use rtm_record::{KeyBy, Routes, STATIC, Template, Variable};
use rtm_sink::{AnySink, ExactLimits};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::fields::problem::Problems;

/// `delivery` of a sink: how often a record may be stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Delivery {
    /// A record may be stored twice.
    #[default]
    AtLeastOnce,
    /// No record is.
    ExactlyOnce,
}

/// What a client is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The bridge publishes.
    Bridge,
    /// What is stored is to be stored again, though the broker may know its ids.
    Replay,
    /// What waits in a journal that was set aside, beside a bridge.
    Drain,
}

/// A table of one kind: the keys that no other kind has, and all that the program does with them. Each kind writes this in
/// a file of its own.
///
/// `places` are the topics or subjects that the sink can publish to, each once, with `x` for a part of an event.
#[async_trait]
pub(crate) trait Kind: Any + Debug + Send + Sync {
    // The table.

    /// What is wrong with it that types cannot say.
    fn problems(&self, places: &[String], problems: &mut Problems<'_>);

    /// Warns of secrets that others may read: see [`crate::fields::secret`].
    fn secrets(&self, _warnings: &mut Problems<'_>) {}

    /// The broker's name among people; none where there is no broker.
    fn title(&self) -> Option<&'static str> {
        None
    }

    /// The templates that places are made of.
    fn templates(&self) -> Templates<'_>;

    /// The file that the sink writes to, which then nobody else may write to.
    fn file(&self) -> Option<&Path> {
        None
    }

    /// What may be shown of it: no secret, and not where a secret is read from.
    fn shown(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// The keys in which `new`, a table of the same kind, needs another client: see [`changed`].
    fn needs_new_client(&self, _new: &dyn Kind) -> Vec<&'static str> {
        Vec::new()
    }

    // Publishing.

    /// What its client will say that one exact call may hold: see [`rtm_sink::Sink::exact`].
    fn exact(&self) -> Option<ExactLimits> {
        None
    }

    /// For how long what it has confirmed is held, because its broker may lose it again; zero where it is not.
    fn hold(&self) -> Duration {
        Duration::ZERO
    }

    /// Makes the sink of this name, which need not be connected yet. Where something is missing that may come, the error has
    /// the system's among its causes. Files are opened by threads that may block.
    async fn open(
        &self,
        name: &str,
        places: &[String],
        purpose: Purpose,
    ) -> anyhow::Result<AnySink>;

    // Looking.

    /// `check`: whether a client takes the options, as far as that is known without a broker; none where there is nothing
    /// to ask.
    fn accepted(&self) -> Option<anyhow::Result<()>> {
        None
    }

    /// `check --connect`: what is found of the sink, and of each place, without making anything. `dead` are the places of
    /// dead letters.
    async fn reach(&self, _places: &[String], _dead: &[String]) -> Vec<Found> {
        Vec::new()
    }

    /// The demo and the bench: whether the sink can do its work, told soon. Nothing is made.
    async fn ready(&self, _places: &[String]) -> anyhow::Result<()> {
        Ok(())
    }

    // The bench, which publishes to places of its own.

    /// Keys in place of those that say where records go.
    ///
    /// # Errors
    ///
    /// Why the sink cannot be measured.
    fn bench(&self, bench: &Bench<'_>) -> Result<Value, String>;

    /// Whether all that the sink writes to is the bench's own.
    fn is_of_bench(&self, _bench: &Bench<'_>) -> bool {
        false
    }

    /// What is made at the broker, for people.
    fn made(&self) -> Vec<String> {
        Vec::new()
    }

    /// Makes what the bridge does not make by itself.
    async fn make(&self) -> anyhow::Result<()> {
        Ok(())
    }

    /// Removes what was made; what is missing already is no error.
    async fn remove(&self) -> anyhow::Result<()> {
        Ok(())
    }

    /// Gives every record that the sink holds, in order. Only places of the demo's or the bench's, which name no app.
    async fn read_back(&self, _each: Each<'_>) -> anyhow::Result<()> {
        Ok(())
    }
}

/// Where records go, and how, as it is written.
pub(crate) struct Templates<'a> {
    /// The key of the template of records, and the template.
    pub(crate) records: (&'static str, &'a str),
    /// The same of dead letters, which may name what configuration alone decides.
    pub(crate) dead_letters: (&'static str, &'a str),
    /// What `records` may name.
    pub(crate) allowed: &'static [Variable],
    pub(crate) key: KeyBy,
    pub(crate) headers: bool,
}

impl Templates<'_> {
    /// Where records go.
    pub(crate) fn routes(&self) -> Result<Routes, String> {
        Ok(Routes {
            topic: Template::parse(self.records.1, self.allowed)?,
            dead_letters: Template::parse(self.dead_letters.1, STATIC)?,
            key: self.key,
            headers: self.headers,
        })
    }

    /// What is wrong with each, where it has to lead to `a_place`.
    pub(crate) fn problems(
        &self,
        is_place: impl Fn(&str) -> bool,
        a_place: &str,
        problems: &mut Problems<'_>,
    ) {
        for ((key, text), allowed) in [(self.records, self.allowed), (self.dead_letters, STATIC)] {
            match Template::parse(text, allowed) {
                Err(error) => problems.add(key, error),
                Ok(template) if is_place(&template.with_all("x")) => {}
                Ok(_) => problems.add(key, format!("`{}` is not {a_place}", text.escape_debug())),
            }
        }
    }
}

/// What was found: of the sink where the text is empty, otherwise of what the text names.
pub(crate) type Found = (String, anyhow::Result<String>);

/// A run of the bench.
pub(crate) struct Bench<'a> {
    /// The sink's name.
    pub(crate) sink: &'a str,
    /// Unlike that of any other run.
    pub(crate) tag: &'a str,
    /// Where files may be written.
    pub(crate) dir: &'a Path,
}

/// Takes each record that is read back.
pub(crate) type Each<'a> = &'a mut (dyn FnMut(&Stored<'_>) + Send);

/// A record as a sink holds it.
#[derive(Debug)]
pub struct Stored<'a> {
    /// Kafka's partition; 0 elsewhere.
    pub partition: i32,
    /// Grows in the order in which the partition holds its records.
    pub order: u64,
    /// Its key; none where the sink has no keys.
    pub key: Option<&'a [u8]>,
    /// The document.
    pub payload: &'a [u8],
    /// The record's timestamp, in milliseconds since the Unix epoch; with Kafka's `LogAppendTime`, when it was stored.
    pub timestamp: Option<i64>,
    /// Whether it is in the topic of dead letters.
    pub dead_letter: bool,
    /// Whether it is a line, in which line feeds have become spaces: to be compared with
    /// [`as_lines`](crate::read_back::as_lines).
    pub is_line: bool,
}

/// The keys in which `$new` needs another client than `$old`. A key either can be renewed while the client goes on, or is
/// fixed for the client's life: the pattern names every field, so that the compiler asks which of them a new key is.
macro_rules! changed {
    ($old:ident to $new:ident of $table:ident, renewed: $($renewed:ident)*, fixed: $($fixed:ident)+) => {{
        let $table { $($renewed: _,)* $($fixed,)+ } = $old;
        let new = ($new as &dyn std::any::Any).downcast_ref::<$table>();
        let keys = [$((stringify!($fixed), new.is_some_and(|new| *$fixed != new.$fixed))),+];
        keys.iter().filter(|(_, differs)| *differs).map(|(key, _)| *key).collect::<Vec<_>>()
    }};
}

pub(crate) use changed;

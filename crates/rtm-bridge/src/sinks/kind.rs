//! What the program asks of a kind of sink.

use std::any::Any;
use std::fmt::Debug;
use std::future::ready;
use std::path::Path;

use futures::future::{BoxFuture, FutureExt, LocalBoxFuture};
use rtm_record::Routes;
use rtm_sink::AnySink;
use serde_json::Value;

use crate::fields::problem::Add;

/// A table of one kind: the keys that no other kind has, and all that the program does with them. Each kind writes this in
/// a file of its own.
///
/// `places` are the topics or subjects that the sink can publish to, each once, with `x` for a part of an event.
pub(crate) trait Kind: Any + Debug + Send + Sync {
    // The table.

    /// What is wrong with it that types cannot say.
    fn problems(&self, places: &[String], add: Add<'_>);

    /// The broker's name among people; none where there is no broker.
    fn title(&self) -> Option<&'static str> {
        None
    }

    /// The templates that places are made of; none where nothing has a name.
    fn templates(&self) -> Option<Templates<'_>> {
        None
    }

    /// The file that the sink writes to, which then nobody else may write to.
    fn file(&self) -> Option<&Path> {
        None
    }

    /// What may be shown of it: no secret, and not where a secret is read from.
    fn shown(&self) -> Vec<(&'static str, String)>;

    /// The keys in which `new`, a table of the same kind, needs another client: see [`changed`].
    fn needs_new_client(&self, new: &dyn Kind) -> Vec<&'static str>;

    // Publishing.

    /// Where records go.
    ///
    /// # Errors
    ///
    /// With what is wrong with a template.
    fn routes(&self) -> Result<Routes, String>;

    /// Makes the sink, which need not be connected yet.
    fn open(&self, opening: Opening) -> BoxFuture<'_, anyhow::Result<AnySink>>;

    // Looking.

    /// `check`: whether a client takes the options, as far as that is known without a broker; none where there is nothing
    /// to ask.
    fn accepted(&self) -> Option<anyhow::Result<()>> {
        None
    }

    /// `check --connect`: what is found of the sink, and of each place, without making anything.
    fn reach<'a>(&'a self, places: &'a [String]) -> BoxFuture<'a, Vec<Found>> {
        let _ = places;
        ready(Vec::new()).boxed()
    }

    /// The demo and the bench: whether the sink can do its work, told soon. Nothing is made.
    fn ready<'a>(&'a self, places: &'a [String]) -> BoxFuture<'a, anyhow::Result<()>> {
        let _ = places;
        ready(Ok(())).boxed()
    }

    // The bench, which publishes to places of its own.

    /// Keys in place of those that say where records go.
    ///
    /// # Errors
    ///
    /// Why the sink cannot be measured.
    fn bench(&self, bench: &Bench<'_>) -> Result<Value, String>;

    /// Whether all that the sink writes to is the bench's own.
    fn is_of_bench(&self, bench: &Bench<'_>) -> bool {
        let _ = bench;
        false
    }

    /// What is made at the broker, for people.
    fn made(&self) -> Vec<String> {
        Vec::new()
    }

    /// Makes what the bridge does not make by itself.
    fn make(&self) -> BoxFuture<'_, anyhow::Result<()>> {
        ready(Ok(())).boxed()
    }

    /// Removes what was made; what is missing already is no error.
    fn remove(&self) -> BoxFuture<'_, anyhow::Result<()>> {
        ready(Ok(())).boxed()
    }

    /// Gives every record that the sink holds, in order. Only places of the demo's or the bench's, which name no app.
    fn read_back<'a>(&'a self, each: Each<'a>) -> LocalBoxFuture<'a, anyhow::Result<()>> {
        let _ = each;
        ready(Ok(())).boxed_local()
    }
}

/// A template of records and one of dead letters, each with its key.
pub(crate) struct Templates<'a> {
    pub(crate) records: (&'static str, &'a str),
    pub(crate) dead_letters: (&'static str, &'a str),
}

/// What a sink is made for.
pub(crate) struct Opening {
    /// The sink's name.
    pub(crate) sink: String,
    /// See [`Kind`].
    pub(crate) places: Vec<String>,
    /// Records are to be stored though the broker may know their ids.
    pub(crate) is_replay: bool,
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
pub(crate) type Each<'a> = &'a mut dyn FnMut(&Stored<'_>);

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
        match ($new as &dyn std::any::Any).downcast_ref::<$table>() {
            None => vec!["type"],
            Some(new) => {
                let keys = [$((stringify!($fixed), *$fixed != new.$fixed)),+];
                keys.iter().filter(|(_, differs)| *differs).map(|(key, _)| *key).collect()
            }
        }
    }};
}

pub(crate) use changed;

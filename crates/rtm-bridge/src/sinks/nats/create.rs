//! `create` of a NATS sink.

use std::time::Duration;

use rtm_sink_nats::{LARGE_RECORD, StreamSpec, covers};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::fields::problem::Problems;
use crate::fields::units;

/// `create` of a NATS sink: the stream to create when it is missing.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateStream {
    /// Its subjects. Default: those that the subject templates cover.
    #[serde(default)]
    pub(crate) subjects: Vec<String>,
    /// Bound on its size, 64 KiB at least. Default: none.
    #[serde(default, deserialize_with = "units::size::deserialize")]
    #[schemars(schema_with = "units::size::schema")]
    pub(crate) max_bytes: Option<u64>,
    /// Bound on a message's age. Default: none.
    #[serde(default, deserialize_with = "units::duration::deserialize")]
    #[schemars(schema_with = "units::duration::schema")]
    pub(crate) max_age: Option<Duration>,
    /// Replicas. Default 1.
    #[serde(
        default = "units::constant::<1, usize>",
        deserialize_with = "units::number"
    )]
    pub(crate) replicas: usize,
    /// How long the server remembers record ids. Default `2m`, the server's own.
    #[serde(default = "units::seconds::<120>", with = "units::duration")]
    #[schemars(schema_with = "units::duration::schema")]
    pub(crate) duplicate_window: Duration,
}

impl CreateStream {
    pub(super) fn problems(&self, places: &[String], problems: &mut Problems<'_>) {
        for (index, filter) in self.subjects.iter().enumerate() {
            let all = filter.strip_suffix(".>").unwrap_or(filter);
            let legal = |token: &str| token == "*" || is_token(token);
            if filter != ">" && !all.split('.').all(legal) {
                let filter = filter.escape_debug();
                problems.add(
                    format_args!("subjects.{index}"),
                    format!(
                        "`{filter}` is no subject filter: tokens separated by `.`, of which `*` stands for one and a last \
                         `>` for all"
                    ),
                );
            }
        }
        let stored = |subject: &&String| self.subjects.iter().any(|filter| covers(filter, subject));
        let lost: Vec<&String> = places.iter().filter(|subject| !stored(subject)).collect();
        if let [first, rest @ ..] = &lost[..]
            && !self.subjects.is_empty()
        {
            let more = match rest.len() {
                0 => String::new(),
                more => format!(", and of {more} more"),
            };
            problems.add(
                "subjects",
                format!(
                    "`{}` would not store what is published to `{first}`{more}; expected filters that cover `subject` and \
                     `dead_letter_subject`",
                    self.subjects.join("`, `"),
                ),
            );
        }
        match self.max_bytes {
            Some(0) => problems.add("max_bytes", "is nothing; leave it out for no bound"),
            Some(bytes) if bytes < LARGE_RECORD as u64 => problems.add(
                "max_bytes",
                format!("cannot hold every record; expected {LARGE_RECORD} bytes at least, or nothing for no bound"),
            ),
            _ => {}
        }
        if !(1..=5).contains(&self.replicas) {
            problems.add("replicas", "expected 1 to 5");
        }
        let window = self.duplicate_window;
        if window.is_zero() {
            problems.add(
                "duplicate_window",
                "is nothing; expected a time such as \"2m\"",
            );
        }
        if self.max_age == Some(Duration::ZERO) {
            problems.add("max_age", "is nothing; leave it out for no bound");
        } else if self.max_age.is_some_and(|age| age < window) {
            problems.add(
                "max_age",
                "is shorter than `duplicate_window` (2m by default), which a server refuses",
            );
        }
    }

    /// Its options, where `covering` are the subjects of the templates.
    pub(super) fn options(&self, covering: Vec<String>) -> StreamSpec {
        StreamSpec {
            subjects: match self.subjects.is_empty() {
                true => covering,
                false => self.subjects.clone(),
            },
            max_bytes: self.max_bytes,
            max_age: self.max_age,
            replicas: self.replicas,
            duplicate_window: self.duplicate_window,
        }
    }
}

/// Whether it is one token of a subject, and no wildcard.
pub(super) fn is_token(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_graphic() && b != b'*' && b != b'>';
    !text.is_empty() && text.bytes().all(legal)
}

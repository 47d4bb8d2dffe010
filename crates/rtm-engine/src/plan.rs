//! What a bridge is to do, and how one plan follows another.
//!
//! The program makes a [`Plan`] of its configuration, and [`Parts`] that turn what a plan names into sources and sinks. A
//! new plan takes the place of the old one as a whole or not at all: see [`crate::supervisor`].

use std::time::Duration;

use rtm_record::Routes;
use rtm_sink::AnySink;
use rtm_source::{Fetch, Stream};
use tokio::sync::{mpsc, oneshot};

use crate::copies::CopyRule;
use crate::lanes::{Lagging, LaneError};

/// Any error, as the source of ours.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What to poll, and where to publish.
#[derive(Debug)]
pub struct Plan<P: Parts> {
    /// The App IDs to poll. Names and App IDs are unique.
    pub apps: Vec<AppPlan<P::SourceSpec>>,
    /// The sinks to publish to. Names are unique.
    pub sinks: Vec<SinkPlan<P::ClientSpec>>,
    /// How long a sink may go on publishing once it is to end: at the shutdown, and when it leaves the plan.
    pub drain_deadline: Duration,
}

impl<P: Parts> Plan<P> {
    pub(crate) fn empty() -> Plan<P> {
        Plan {
            apps: Vec::new(),
            sinks: Vec::new(),
            drain_deadline: Duration::ZERO,
        }
    }

    pub(crate) fn app(&self, app_id: &str) -> Option<&AppPlan<P::SourceSpec>> {
        self.apps.iter().find(|app| app.app_id == app_id)
    }

    pub(crate) fn polls(&self, app_id: &str) -> bool {
        self.app(app_id).is_some()
    }
}

/// One App ID.
#[derive(Debug, Clone, PartialEq)]
pub struct AppPlan<S> {
    /// The label in metrics, tags and subjects.
    pub name: String,
    /// The App ID at Agora. The journal's lane goes by it.
    pub app_id: String,
    /// Whether its rings are left alone for now.
    pub paused: bool,
    /// Requests a second.
    pub requests_per_second: u32,
    /// How copies are found; none where a single region gives no copies.
    pub copy_rule: Option<CopyRule>,
    /// What its source is made of.
    pub source: S,
}

impl<S> AppPlan<S> {
    /// Whether copies of its events are dropped.
    pub(crate) fn drops_copies(&self) -> bool {
        self.copy_rule.is_some_and(|rule| rule.drops)
    }
}

/// One sink.
#[derive(Debug, Clone)]
pub struct SinkPlan<K> {
    /// The label in metrics. The journal's cursors go by it.
    pub name: String,
    /// What the configuration says that it is, such as `kafka`.
    pub kind: &'static str,
    /// What people call it, in the middle of a sentence: `Kafka`, or `the sink events (NATS)`.
    pub title: String,
    /// Where its records go, and what they look like.
    pub routes: Routes,
    /// For how long what it has confirmed is held, because its broker may lose it again; zero where it is not.
    pub hold: Duration,
    /// Whether its oldest events are given up where the journal is full because of it. Otherwise polling stops.
    pub skips_when_full: bool,
    /// The names of the apps that it takes; none for all.
    pub apps: Option<Vec<String>>,
    /// The streams that it takes.
    pub streams: Vec<Stream>,
    /// What its client is made of.
    pub client: K,
}

impl<K> SinkPlan<K> {
    /// Whether it takes the app of this name.
    pub(crate) fn takes(&self, app: &String) -> bool {
        self.apps.as_ref().is_none_or(|apps| apps.contains(app))
    }

    /// Whether it has such a cursor in the lane of an App ID whose copies are dropped or not.
    pub(crate) fn has(&self, lagging: Lagging, drops_copies: bool) -> bool {
        match lagging {
            Lagging::Copies => drops_copies,
            Lagging::Hold => !self.hold.is_zero(),
        }
    }
}

/// Makes what a plan names.
pub trait Parts: Send + Sync + 'static {
    /// Reads one App ID's rings.
    type Source: Fetch;
    /// What a source is made of. Another one is another source.
    type SourceSpec: std::fmt::Debug + Clone + PartialEq + Send + Sync + 'static;
    /// What a sink's client is made of.
    type ClientSpec: std::fmt::Debug + Clone + Send + Sync + 'static;

    /// A source; it need not be connected.
    ///
    /// # Errors
    ///
    /// When it can never work as it is described. The plan is refused then.
    fn source(
        &self,
        spec: &Self::SourceSpec,
    ) -> impl Future<Output = Result<Self::Source, BoxError>> + Send;

    /// The client of the sink of this name; it need not be connected.
    ///
    /// # Errors
    ///
    /// When it can never work as it is described. The plan is refused then.
    fn client(
        &self,
        name: &str,
        spec: &Self::ClientSpec,
    ) -> impl Future<Output = Result<AnySink, BoxError>> + Send;

    /// Whether a client that was made of `old` serves `new` as well. Otherwise the sink is drained and made anew.
    fn is_same_client(&self, old: &Self::ClientSpec, new: &Self::ClientSpec) -> bool;
}

/// Why a bridge could not be made, take a plan, or be closed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A lane of the journal.
    #[error(transparent)]
    Lane(#[from] LaneError),
    /// A source.
    #[error("cannot make the source of app {app}")]
    Source {
        /// The app.
        app: String,
        /// What is wrong.
        source: BoxError,
    },
    /// A sink.
    #[error("cannot make the sink {sink}")]
    Sink {
        /// Its name.
        sink: String,
        /// What is wrong.
        source: BoxError,
    },
    /// The journal has stopped by itself, and nothing could be stored any more.
    #[error("the journal has stopped: nothing that is read could be stored")]
    Stopped,
    /// The journal could not be closed; the next start recovers it.
    #[error("cannot close the journal cleanly")]
    Close(#[source] rtm_journal::CloseError),
}

/// What leads from one plan to the next: App IDs, and names of sinks.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Diff {
    pub(crate) apps: Changes,
    pub(crate) sinks: Changes,
}

/// What is to be done to reach a plan. What is both drained and started is made anew.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// New.
    pub(crate) start: Vec<String>,
    /// Another one of the same kind, which takes over while everything goes on.
    pub(crate) renew: Vec<String>,
    /// Gone: it ends what it has begun.
    pub(crate) drain: Vec<String>,
}

impl Diff {
    /// From `old` to `new`.
    pub(crate) fn between<P: Parts>(parts: &P, old: &Plan<P>, new: &Plan<P>) -> Diff {
        Diff {
            apps: changes(
                &old.apps,
                &new.apps,
                |app| &app.app_id,
                |old, new| match () {
                    // The name is in labels and in the tags of what is stored.
                    () if old.name != new.name => Change::Anew,
                    () if old == new => Change::None,
                    () => Change::Renew,
                },
            ),
            sinks: changes(
                &old.sinks,
                &new.sinks,
                |sink| &sink.name,
                |old, new| {
                    if parts.is_same_client(&old.client, &new.client) {
                        Change::None
                    } else {
                        Change::Anew
                    }
                },
            ),
        }
    }
}

enum Change {
    None,
    Renew,
    Anew,
}

fn changes<T>(
    old: &[T],
    new: &[T],
    key: impl Fn(&T) -> &String,
    change: impl Fn(&T, &T) -> Change,
) -> Changes {
    let mut changes = Changes::default();
    for new in new {
        match old.iter().find(|old| key(old) == key(new)) {
            None => changes.start.push(key(new).clone()),
            Some(old) => match change(old, new) {
                Change::None => {}
                Change::Renew => changes.renew.push(key(new).clone()),
                Change::Anew => {
                    changes.drain.push(key(new).clone());
                    changes.start.push(key(new).clone());
                }
            },
        }
    }
    let gone = old
        .iter()
        .filter(|old| !new.iter().any(|new| key(new) == key(old)));
    changes.drain.extend(gone.map(|old| key(old).clone()));
    changes
}

/// Where a bridge takes new plans from.
pub struct Plans<P: Parts>(mpsc::Receiver<Proposal<P>>);

/// Hands a running bridge new plans.
pub struct Planner<P: Parts>(mpsc::Sender<Proposal<P>>);

pub(crate) struct Proposal<P: Parts> {
    pub(crate) plan: Plan<P>,
    pub(crate) answer: oneshot::Sender<Result<(), RunError>>,
}

impl<P: Parts> Plans<P> {
    /// Both ends.
    pub fn channel() -> (Planner<P>, Plans<P>) {
        let (tx, rx) = mpsc::channel(1);
        (Planner(tx), Plans(rx))
    }

    /// For a bridge whose plan never changes.
    pub fn none() -> Plans<P> {
        Plans::channel().1
    }

    /// The next plan; none if there will be none.
    pub(crate) async fn next(&mut self) -> Option<Proposal<P>> {
        self.0.recv().await
    }
}

impl<P: Parts> Planner<P> {
    /// Has the bridge take a plan, as a whole, and says whether it does.
    ///
    /// # Errors
    ///
    /// [`RunError`] with what cannot be made; everything goes on by the plan before. A bridge that is ending takes no plan,
    /// and that is no error.
    pub async fn propose(&self, plan: Plan<P>) -> Result<(), RunError> {
        let (answer, answered) = oneshot::channel();
        if self.0.send(Proposal { plan, answer }).await.is_err() {
            return Ok(());
        }
        answered.await.unwrap_or(Ok(()))
    }
}

#[cfg(test)]
mod tests;

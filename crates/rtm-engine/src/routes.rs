//! What is published to what, by a plan.

use std::collections::BTreeMap;

use rtm_journal::ReaderName;

use crate::copies::CopyRule;
use crate::lanes::{self, Lagging};
use crate::orphan::Orphan;
use crate::outlet::{Ending, OutletPlan, Skip};
use crate::plan::{Parts, Plan, SinkPlan};

/// One lane's way into one sink.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Route {
    pub(crate) app_id: String,
    pub(crate) sink: String,
}

impl Route {
    pub(crate) fn new(app_id: &str, sink: &str) -> Route {
        Route {
            app_id: app_id.to_owned(),
            sink: sink.to_owned(),
        }
    }
}

/// Each App ID into each sink that takes it.
pub(crate) fn of_plan<P: Parts>(plan: &Plan<P>) -> BTreeMap<Route, OutletPlan> {
    let mut routes = BTreeMap::new();
    for app in &plan.apps {
        let takers = || plan.sinks.iter().filter(|sink| sink.takes(&app.name));
        let skipping = takers().filter(|sink| sink.skips_when_full);
        let skipping: Vec<ReaderName> = skipping
            .flat_map(|sink| lanes::reader_names(&sink.name, |of| of == Lagging::Copies))
            .collect();
        for sink in takers() {
            let outlet = OutletPlan {
                copy_rule: app.copy_rule,
                skip: if sink.skips_when_full {
                    Skip::With(skipping.clone())
                } else {
                    Skip::Never
                },
                ..outlet(&app.name, &app.name, sink, Ending::Never)
            };
            routes.insert(Route::new(&app.app_id, &sink.name), outlet);
        }
    }
    routes
}

/// What is left of an App ID that is not in the plan, into a sink.
pub(crate) fn of_orphan<K>(
    orphan: &Orphan,
    copy_rule: Option<CopyRule>,
    sink: &SinkPlan<K>,
    ending: Ending,
) -> OutletPlan {
    OutletPlan {
        copy_rule,
        ..outlet(&orphan.name, &orphan.owner, sink, ending)
    }
}

fn outlet<K>(app: &str, owner: &str, sink: &SinkPlan<K>, ending: Ending) -> OutletPlan {
    OutletPlan {
        app: app.to_owned(),
        owner: owner.to_owned(),
        routes: sink.routes.clone(),
        streams: sink.streams.clone(),
        copy_rule: None,
        hold: sink.hold,
        skip: Skip::Never,
        ending,
    }
}

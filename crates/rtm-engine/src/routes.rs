//! What is published to what, by a plan.

use std::collections::BTreeMap;

use rtm_journal::ReaderName;

use crate::lanes::Orphan;
use crate::outlet::{Ending, OutletPlan, Skip};
use crate::plan::{Parts, Plan, SinkPlan};

/// One lane's way into one sink.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Route {
    pub(crate) app_id: String,
    pub(crate) sink: String,
}

impl Route {
    fn new(app_id: &str, sink: &str) -> Route {
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
        let takes = |sink: &&SinkPlan<P::ClientSpec>| {
            let apps = sink.apps.as_ref();
            apps.is_none_or(|apps| apps.contains(&app.name))
        };
        let sinks: Vec<_> = plan.sinks.iter().filter(takes).collect();
        let never_skip = sinks.iter().filter(|sink| !sink.skips_when_full);
        let never_skip: Vec<ReaderName> = never_skip
            .filter_map(|sink| ReaderName::try_from(sink.name.as_str()).ok())
            .collect();
        for sink in sinks {
            let outlet = OutletPlan {
                copy_rule: app.copy_rule,
                skip: if sink.skips_when_full {
                    Skip::Unless(never_skip.clone())
                } else {
                    Skip::Never
                },
                ..outlet(&app.name, sink, Ending::Never)
            };
            routes.insert(Route::new(&app.app_id, &sink.name), outlet);
        }
    }
    routes
}

/// Whether a sink gets what is left of an App ID that is not in the plan: one that took it, or takes all. Another would not
/// read on if the App ID came back, and its cursor would hold the journal's entries for ever.
pub(crate) fn gets_what_is_left<K>(sink: &SinkPlan<K>, takers: &[String]) -> bool {
    sink.apps.is_none() || takers.contains(&sink.name)
}

/// What is left of App IDs that are not in the plan, into the sinks that get it, until nothing is left.
pub(crate) fn of_orphans<P: Parts>(
    plan: &Plan<P>,
    orphans: &BTreeMap<String, Orphan>,
    routes: &mut BTreeMap<Route, OutletPlan>,
) {
    for (app_id, orphan) in orphans {
        let sinks = plan.sinks.iter();
        for sink in sinks.filter(|sink| gets_what_is_left(sink, &orphan.takers)) {
            let outlet = outlet(&orphan.name, sink, Ending::WhenEmpty);
            routes.insert(Route::new(app_id, &sink.name), outlet);
        }
    }
}

fn outlet<K>(app: &str, sink: &SinkPlan<K>, ending: Ending) -> OutletPlan {
    OutletPlan {
        app: app.to_owned(),
        routes: sink.routes.clone(),
        streams: sink.streams.clone(),
        copy_rule: None,
        skip: Skip::Never,
        ending,
    }
}

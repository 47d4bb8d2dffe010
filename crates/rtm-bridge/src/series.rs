//! Which series a configuration leads to.

use rtm_source::Stream;

use crate::config::Config;
use crate::metrics::Metrics;

/// Adds every series that `config` can lead to, at zero, and says that it was taken. The sinks' own come from their
/// clients: see [`Metrics::set_sink`].
pub fn add(metrics: &Metrics, config: &Config) {
    if rtm_planted::bug("bridge-series-come-late") {
        return;
    }
    for app in &config.apps {
        metrics.add_app(&app.name, app.requests_per_second, app.paused);
        for region in &app.regions {
            for stream in Stream::ALL {
                let _ = metrics.ring(&app.name, &region.name, stream.as_str());
            }
        }
        for sink in config.sinks.keys() {
            metrics.add_pair(&app.name, sink);
        }
    }
    let regions = config.apps.iter().flat_map(|app| &app.regions);
    let insecure = regions.filter(|region| region.allow_insecure_http);
    metrics.set_insecure_http(insecure.count());
    metrics.set_min_free_disk(config.journal.min_free_bytes);
    metrics.config_taken();
}

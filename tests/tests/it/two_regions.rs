//! A simulator of two regions, and the configuration of a bridge that reads it into Kafka and NATS.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use rtm_tests::bridge::Simulator;
use rtm_tests::brokers::{Kafka, Nats, unique};

/// See the module. Topics, subjects and the JetStream stream begin with `name`.
pub(super) struct TwoRegions {
    pub(super) name: String,
    pub(super) simulator: Simulator,
    pub(super) config: PathBuf,
}

/// With `load`, options of the simulator, and with headers on the records if there are to be any.
pub(super) async fn two_regions(
    purpose: &str,
    load: &[&str],
    headers: bool,
    dir: &Path,
    kafka: &Kafka,
    nats: &Nats,
) -> TwoRegions {
    let name = unique(purpose);
    for end in ["user_events", "channel_events", "dead_letters"] {
        let topic = format!("{name}.{end}");
        kafka.create_topic(&topic, 1, &[]).await.unwrap();
    }
    let options = [load, &["--region", "a", "--region", "b"]].concat();
    let simulator = Simulator::start(&options, &dir.join("simulator.log"))
        .await
        .unwrap();
    let config = dir.join("rtm-bridge.toml");
    let text = format!(
        "[admin]\nlisten = \"127.0.0.1:0\"\n[journal]\ndir = \"{dir}/journal\"\n\
         [[apps]]\nname = \"main\"\napp_id = \"876922cbca0098dff4323566daa89675\"\n\
         auth = {{ basic = {{ key = \"demo-key\", secret = \"demo-secret\" }} }}\n\
         regions = [{{ name = \"a\", base_url = \"{url}/a\" }}, {{ name = \"b\", base_url = \"{url}/b\" }}]\n\
         [sinks.kafka]\nbrokers = [\"{broker}\"]\ntopic = \"{name}.{{stream}}_events\"\n\
         dead_letter_topic = \"{name}.dead_letters\"\nheaders = {headers}\n\
         [sinks.nats]\nservers = [\"{server}\"]\nstream = \"{name}\"\nsubject = \"{name}.{{region}}.{{stream}}\"\n\
         dead_letter_subject = \"{name}.dead_letters\"\nheaders = {headers}\ncreate = {{}}\n",
        dir = dir.display(),
        url = simulator.url,
        broker = kafka.address(),
        server = nats.url(),
    );
    std::fs::write(&config, text).unwrap();
    TwoRegions {
        name,
        simulator,
        config,
    }
}

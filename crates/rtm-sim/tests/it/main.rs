//! The simulator over real HTTP, and the audit against ledgers with planted mistakes.
#![allow(clippy::unwrap_used)]

mod api;
mod audit;
mod control;
mod faults;

use std::sync::OnceLock;
use std::time::Duration;

use reqwest::header::HeaderMap;
use rtm_sim::{Load, SimApp, SimAuth, SimConfig, Simulator};

/// The App ID of most tests. It asks for no credentials.
const APP: &str = "app-1";
const REGION: &str = "eu-west-1";

/// A simulator's configuration with one open App ID in two regions, where nothing arrives by itself.
fn quiet() -> SimConfig {
    SimConfig {
        apps: vec![open(APP)],
        regions: vec![REGION.into(), "us-east-1".into()],
        load: Load {
            events_per_second: 0.0,
            ..Load::default()
        },
        ..SimConfig::default()
    }
}

fn open(app_id: &str) -> SimApp {
    SimApp {
        app_id: app_id.into(),
        auth: SimAuth::Open,
    }
}

async fn start(config: SimConfig) -> Simulator {
    Simulator::start(config).await.unwrap()
}

/// One client for all tests would tie its connections to the runtime of the first.
fn client() -> reqwest::Client {
    static PROVIDER: OnceLock<()> = OnceLock::new();
    PROVIDER.get_or_init(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    reqwest::Client::builder()
        .retry(reqwest::retry::never())
        .no_proxy()
        .timeout(Duration::from_secs(10))
        .build()
        .unwrap()
}

/// The URL of an endpoint: `stream` is `user` or `channel`.
fn url(sim: &Simulator, region: &str, app_id: &str, stream: &str) -> String {
    let base = sim.base_url(region);
    format!("{base}/dev/v2/project/{app_id}/rtm/vendor/{stream}_events")
}

/// A response as far as it came.
#[derive(Debug)]
struct Got {
    /// 0 if there was none.
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
    /// Whether HTTP says that the body is all there.
    complete: bool,
}

impl Got {
    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn events(&self) -> usize {
        self.json()["events"].as_array().map_or(0, Vec::len)
    }
}

async fn get(client: &reqwest::Client, url: &str) -> Got {
    fetch(client.get(url)).await
}

async fn fetch(request: reqwest::RequestBuilder) -> Got {
    let mut got = Got {
        status: 0,
        headers: HeaderMap::new(),
        body: Vec::new(),
        complete: false,
    };
    let Ok(mut response) = request.send().await else {
        return got;
    };
    got.status = response.status().as_u16();
    got.headers = response.headers().clone();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => got.body.extend_from_slice(&chunk),
            Ok(None) => {
                got.complete = true;
                return got;
            }
            Err(_) => return got,
        }
    }
}

/// Waits until `done`, or fails after ten seconds.
async fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "{what} took too long"
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

//! The admin endpoint: `/metrics`, `/healthz`, `/readyz`, and the status page with its document. Read-only, on loopback by
//! default.

use std::sync::{Arc, OnceLock};

use axum::extract::{Query, State as Extract};
use axum::http::{HeaderName, StatusCode, header};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use jiff::Timestamp;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::config::AdminConfig;
use crate::{COMMIT, lock, stderr};
use background::background;
use guard::Guard;
use recent::Recent;
use rtm_engine::status::State;
use rtm_engine::status::report::{self, Readiness, Report};
use rtm_engine::status::words;
use settings::{Settings, Shown};

pub(crate) use server::Listening;

mod background;
mod credentials;
mod guard;
mod page;
pub(crate) mod recent;
mod seats;
mod server;
pub(crate) mod settings;
mod zip;

/// The bridge's state, once it runs.
pub(crate) type Slot = Arc<OnceLock<Arc<State>>>;

/// Serves the endpoint until `stop`, from as soon as it can be opened: see [`server`]. Returns after the first try.
pub(crate) async fn serve(
    config: &AdminConfig,
    state: Slot,
    settings: Shown,
    stop: CancellationToken,
) -> Listening {
    let guarded = config.clone();
    let router = move |credentials| {
        Router::new()
            .route("/metrics", get(metrics))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .route("/", get(page::page))
            .route("/status", get(page::page))
            .with_state(Arc::clone(&state))
            .route("/status.json", get(status).with_state((state, settings)))
            .layer(from_fn(zip::zip))
            .layer(from_fn_with_state(
                Guard::new(&guarded, credentials),
                guard::check,
            ))
    };
    server::serve(config.clone(), router, stop).await
}

async fn metrics(Extract(state): Extract<Slot>) -> Response {
    let Some(state) = state.get().cloned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "starting\n").into_response();
    };
    let text = background(move || {
        state.metrics.log_lines_dropped(stderr::dropped());
        state.render_metrics()
    });
    let format = "text/plain; version=0.0.4; charset=utf-8";
    match text.await {
        Some(text) => ([(header::CONTENT_TYPE, format)], text).into_response(),
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// What the status page asks for.
#[derive(serde::Deserialize)]
struct Asked {
    /// The app whose requests the chart shows; all of them unless given.
    app: Option<String>,
}

/// `/status.json`: what the state reports, and what only the program knows.
#[derive(serde::Serialize)]
struct Document {
    #[serde(flatten)]
    report: Report,
    version: &'static str,
    commit: &'static str,
    recent: Vec<Recent>,
    settings: Settings,
}

async fn status(
    Extract((state, settings)): Extract<(Slot, Shown)>,
    Query(asked): Query<Asked>,
) -> Response {
    let headers = [
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("x-content-type-options"), "nosniff"),
    ];
    let recent = recent::all();
    if let Some(state) = state.get().cloned() {
        let settings = lock(&settings).clone();
        let document = background(move || {
            let document = Document {
                report: state.report(asked.app.as_deref()),
                version: env!("CARGO_PKG_VERSION"),
                commit: COMMIT,
                recent,
                settings,
            };
            Json(document).into_response()
        });
        return match document.await {
            Some(document) => (headers, document).into_response(),
            None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        };
    }
    let document = Json(json!({
        "v": report::VERSION,
        "at": Timestamp::now(),
        "findings": [words::starting()],
        "recent": recent,
    }));
    (StatusCode::SERVICE_UNAVAILABLE, headers, document).into_response()
}

async fn readyz(Extract(state): Extract<Slot>) -> Response {
    let readiness = state.get().map(|state| state.readiness());
    let readiness = readiness.unwrap_or_else(Readiness::starting);
    let status = match readiness.ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(readiness)).into_response()
}

#[cfg(test)]
mod tests;

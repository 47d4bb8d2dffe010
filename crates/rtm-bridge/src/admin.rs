//! The admin endpoint: `/metrics`, `/healthz`, `/readyz`, and the status page with its document. Read-only, on loopback by
//! default.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use axum::extract::{Query, State as Extract};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use jiff::Timestamp;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{COMMIT, lock};
use recent::Recent;
use rtm_engine::status::State;
use rtm_engine::status::report::{self, Readiness, Report};
use rtm_engine::status::words;
use settings::{Settings, Shown};

mod page;
pub(crate) mod recent;
pub(crate) mod settings;

/// The bridge's state, once it runs.
pub(crate) type Slot = Arc<OnceLock<Arc<State>>>;

/// An admin endpoint that could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} (admin.listen)")]
pub(crate) struct ListenError {
    address: SocketAddr,
    source: std::io::Error,
}

/// Opens the endpoint and serves it until `stop`; gives the address, whose port may have been chosen by the system.
pub(crate) async fn serve(
    address: SocketAddr,
    state: Slot,
    settings: Shown,
    stop: CancellationToken,
) -> Result<SocketAddr, ListenError> {
    let error = |source| ListenError { address, source };
    let listener = TcpListener::bind(address).await.map_err(error)?;
    let bound = listener.local_addr().map_err(error)?;
    if !bound.ip().is_loopback() {
        warn!(admin = %bound, "the admin endpoint is not on loopback; it has no authentication, so shield it");
    }
    info!(admin = %bound, "admin endpoint is listening");
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/", get(page::page))
        .route("/status", get(page::page))
        .with_state(Arc::clone(&state))
        .route("/status.json", get(status).with_state((state, settings)));
    tokio::spawn(async move {
        let served = axum::serve(listener, router)
            .with_graceful_shutdown(stop.cancelled_owned())
            .await;
        if let Err(error) = served {
            warn!(error = crate::chain(&error), "the admin endpoint has ended");
        }
    });
    Ok(bound)
}

async fn metrics(Extract(state): Extract<Slot>) -> Response {
    let Some(state) = state.get() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "starting\n").into_response();
    };
    let format = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, format)], state.render_metrics()).into_response()
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
    if let Some(state) = state.get() {
        let document = Document {
            report: state.report(asked.app.as_deref()),
            version: env!("CARGO_PKG_VERSION"),
            commit: COMMIT,
            recent,
            settings: lock(&settings).clone(),
        };
        return (headers, Json(document)).into_response();
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

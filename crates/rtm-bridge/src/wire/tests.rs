#![allow(clippy::unwrap_used)]

use std::sync::mpsc;

use serde_json::json;

use super::*;

/// Holds: the files of a source are read where that may block. One that does not answer keeps nobody waiting for longer than
/// [`PATIENCE`], and is used once it answers.
#[test]
fn a_file_that_hangs_keeps_no_plan_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "demo-secret").unwrap();
    let app = json!({
        "name": "main",
        "app_id": "0a".repeat(16),
        "auth": { "basic": { "key": "demo-key", "secret_file": secret } },
        "regions": ["eu-west-1"],
    });
    let app: AppConfig = serde_json::from_value(app).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .unwrap();
    runtime.block_on(async {
        let (answer, hangs) = mpsc::channel::<()>();
        let hanging = tokio::task::spawn_blocking(move || hangs.recv());
        let source = LateSource::open(&app, &Arc::default()).await.unwrap();
        assert!(source.made.get().is_none(), "it was read by the runtime");
        assert_eq!(source.rings().len(), 2);
        answer.send(()).unwrap();
        hanging.await.unwrap().unwrap();
        assert_eq!(source.source().await.unwrap().rings(), source.rings());
    });
}

use super::*;

/// Holds: a document with less than this version knows is read, and one of another version is not.
#[test]
fn a_document_is_read() {
    let text = |version: u32| {
        format!(
            r#"{{"v":{version},"version":"0.1.0","uptime_seconds":3,"settings":[],"new":[{{}}],
                "findings":[{{"level":"good","text":"All is well."}}],
                "rings":[{{"app":"main","health":"late"}}]}}"#
        )
    };
    let status = Status::parse(text(VERSION).as_bytes()).unwrap();
    assert_eq!(status.version, "0.1.0");
    assert_eq!(status.report.now.uptime_seconds, 3.0);
    assert_eq!(status.report.findings[0].text, "All is well.");
    assert_eq!(status.report.now.rings[0].app, "main");
    assert!(Status::parse(text(VERSION + 1).as_bytes()).is_none());
    assert!(Status::parse(b"<html>").is_none() && Status::parse(b"{}").is_none());
}

#[test]
fn an_address_is_taken_as_people_write_it() {
    for (given, url) in [
        ("127.0.0.1:9464", "http://127.0.0.1:9464"),
        ("http://h:1/", "http://h:1"),
        ("http://h:1/metrics", "http://h:1"),
        ("http://h:1/status.json", "http://h:1"),
        ("https://h/bridge/status/", "https://h/bridge"),
    ] {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let asker = Asker::new(given, Access::default()).unwrap();
        assert_eq!(asker.url(), url, "{given}");
        assert!(asker.document.as_str().ends_with("/status.json"));
    }
    assert!(
        ["ftp://h", ""]
            .iter()
            .all(|given| Asker::new(given, Access::default()).is_err())
    );
}

//! Tokens as they stand in files.
#![allow(clippy::unwrap_used)]

use super::*;

fn of(content: &[u8]) -> Result<Credentials, CredentialsError> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, content).unwrap();
    Credentials::read(&AdminConfig {
        token_file: Some(file),
        ..AdminConfig::default()
    })
}

/// Holds: a token is what its file holds, without what editors put around it, and nothing else is let in.
#[test]
fn a_token_is_what_its_file_holds() {
    for content in ["t0ken", "t0ken\n", "t0ken\r\n", "\u{feff}t0ken\n"] {
        let credentials = of(content.as_bytes()).unwrap();
        assert!(
            credentials.asks() && credentials.admit(Some(b"t0ken")),
            "{content:?}"
        );
        for wrong in [
            None,
            Some(&b""[..]),
            Some(b"t0ke"),
            Some(b"t0ken\n"),
            Some(b"T0KEN"),
        ] {
            assert!(!credentials.admit(wrong), "{wrong:?}");
        }
    }
    let nobody = Credentials::read(&AdminConfig::default()).unwrap();
    assert!(!nobody.asks() && nobody.admit(None));
}

/// Holds: a file without a token is an error that names it: the endpoint is never open to all because of it.
#[test]
fn a_file_without_a_token_is_an_error() {
    for content in ["", "\n", "two words", "t\u{f6}ken"] {
        let error = of(content.as_bytes()).unwrap_err().to_string();
        assert!(
            error.starts_with("admin.token_file: ") && error.contains("holds no token"),
            "{error}"
        );
    }
    let missing = AdminConfig {
        token_file: Some("/nowhere/token".into()),
        ..AdminConfig::default()
    };
    let error = Credentials::read(&missing).unwrap_err();
    assert_eq!(
        error.to_string(),
        "admin.token_file: cannot read /nowhere/token"
    );
}

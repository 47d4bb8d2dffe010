//! `check`, where several things are wrong at once.

use super::{SOUND, check};

/// Holds: everything that is wrong is told in one run, each thing once, whatever kind it is: files that are missing, of which
/// every one is named, what cannot be, and a disk without room.
#[test]
fn all_that_is_wrong_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let two = "[[apps]]\nname = \"two\"\napp_id = \"876922cbca0098dff4323566daa89676\"\nregions = [\"eu-west-1\"]\nauth = { \
               basic = { key = \"k\", secret_file = \"DIR/absent\" } }\nca_file = \"DIR/no-ca\"\n";
    let toml = format!("[log]\nlevel = \"inof\"\n{SOUND}")
        .replace("[journal]", "[journal]\nmin_free_bytes = \"900PiB\"")
        .replace(
            "[sinks.kafka]",
            &format!("{two}[sinks.kafka]\npartitions = 0"),
        )
        + "options = { \"ssl.ca.location\" = \"DIR/ca\", \"ssl.certificate.location\" = \"DIR/cert\" }\n\
           [sinks.file]\npath = \"DIR/absent/file\"\n[sinks.nats]\nservers = [\"nats://127.0.0.1:9\"]\nstream = \"RTM\"\n";
    let (code, text) = check(dir.path(), &toml);
    assert_eq!(code, Some(2), "{text}");
    for says in [
        "the journal has no room",
        "app main: ok",
        "sink nats: ok",
        "apps.1.auth.basic.secret_file: cannot read",
        "apps.1.ca_file: cannot read",
        "sinks.file.path: there is no directory",
        "log.level: `inof` is neither",
        "sinks.kafka.partitions: expected at least 1",
        "sinks.kafka.options.ssl.ca.location: cannot read",
        "sinks.kafka.options.ssl.certificate.location: cannot read",
        "1 check(s) failed",
    ] {
        assert_eq!(text.matches(says).count(), 1, "{says}: {text}");
    }
    assert!(
        !text.contains("app two:") && !text.contains("sink file:"),
        "{text}"
    );
}

/// Holds: where the admin endpoint is to listen and cannot is warned of: a name that nobody has, and an address of another
/// machine. What can be is not, also while somebody listens there.
#[test]
fn an_admin_endpoint_that_cannot_listen_is_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (listen, says) in [
        (
            "no-such-host.invalid:9464",
            Some("the host `no-such-host.invalid` is not found"),
        ),
        (
            "192.0.2.1:9464",
            Some("`192.0.2.1` is no address of this machine"),
        ),
        (&taken, None),
        ("localhost:9464", None),
        (":9464", None),
    ] {
        let (code, text) = check(
            dir.path(),
            &format!("[admin]\nlisten = \"{listen}\"\n{SOUND}"),
        );
        assert_eq!(code, Some(0), "{text}");
        let warning = "without it there is no admin endpoint";
        assert_eq!(text.contains(warning), says.is_some(), "{text}");
        assert!(says.is_none_or(|says| text.contains(says)), "{text}");
    }
}

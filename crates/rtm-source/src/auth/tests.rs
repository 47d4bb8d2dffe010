#![allow(clippy::unwrap_used)]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use tracing::Dispatch;
use tracing::subscriber::NoSubscriber;

use super::*;

const CANARY: &str = "canary-7Zq/x";

fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    fs::write(&path, text).unwrap();
    (dir, path)
}

fn inline(text: &str) -> Secret {
    Secret::Inline(text.into())
}

fn sent(credentials: &Credentials, name: &str) -> String {
    headers(credentials)[name].to_str().unwrap().to_owned()
}

/// The headers after a look that was waited for.
fn headers(credentials: &Credentials) -> HeaderMap {
    if let Secret::File(path) = credentials.shared.secret() {
        credentials.shared.renew(path);
    }
    credentials.shared.current().headers.clone()
}

/// Whether a look that was waited for finds another file.
fn have_changed(credentials: &Credentials) -> bool {
    if let Secret::File(path) = credentials.shared.secret() {
        credentials.shared.compare(path);
    }
    let changed = &credentials.shared.has_changed;
    changed.swap(false, Ordering::AcqRel)
}

#[test]
fn the_headers_of_each_kind() {
    let basic = Auth::Basic {
        key: "Aladdin".into(),
        secret: inline("open sesame"),
    };
    // The example of RFC 7617, section 2.
    let basic = Credentials::new(basic).unwrap();
    assert_eq!(
        sent(&basic, "authorization"),
        "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
    );

    let token = Auth::Token {
        token: inline(CANARY),
        uid: "u 1".into(),
    };
    let token = Credentials::new(token).unwrap();
    assert_eq!(sent(&token, "x-agora-token"), CANARY);
    assert_eq!(sent(&token, "x-agora-uid"), "u 1");
    assert!(!headers(&token).contains_key("authorization"));

    let agora = Credentials::new(Auth::AgoraToken {
        token: inline(CANARY),
    })
    .unwrap();
    assert_eq!(
        sent(&agora, "authorization"),
        format!("agora token={CANARY}")
    );
    assert_eq!(headers(&agora).len(), 1);
}

#[test]
fn a_changed_file_is_read_again() {
    let (dir, path) = file("first\r\n");
    let token = Secret::File(path.clone());
    let credentials = Credentials::new(Auth::AgoraToken { token }).unwrap();
    let now = || sent(&credentials, "authorization");
    assert_eq!(now(), "agora token=first");
    fs::write(&path, "\u{feff}marked\r\n").unwrap();
    assert_eq!(now(), "agora token=marked");
    // Longer, in place.
    fs::write(&path, "second").unwrap();
    assert_eq!(now(), "agora token=second");
    // Replaced by one that looks the same but for its inode.
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    let next = dir.path().join("next");
    fs::write(&next, "thirds").unwrap();
    File::options()
        .write(true)
        .open(&next)
        .unwrap()
        .set_modified(modified)
        .unwrap();
    fs::rename(&next, &path).unwrap();
    assert_eq!(now(), "agora token=thirds");
    // Rewritten in place, so that nothing shows: not seen, until the old one is refused.
    fs::write(&path, "fourth").unwrap();
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(modified)
        .unwrap();
    assert_eq!(now(), "agora token=thirds");
    credentials.refused();
    assert_eq!(now(), "agora token=fourth");
}

/// Holds: a look at the file is waited for, and one that does not end is not; meanwhile the known secret is sent. A change
/// is told by the call after the one that looked.
#[tokio::test]
async fn a_look_that_hangs_holds_no_request_up() {
    let (_dir, path) = file("first");
    let token = Secret::File(path.clone());
    let credentials = Credentials::new(Auth::AgoraToken { token }).unwrap();
    let sent = async || credentials.headers().await[AUTHORIZATION].clone();
    fs::write(&path, "the second").unwrap();
    assert_eq!(sent().await, "agora token=the second");
    fs::write(&path, "the very third").unwrap();
    while !credentials.have_changed() {
        tokio::task::yield_now().await;
    }
    let hanging = &credentials.shared.is_looked_at;
    while hanging.swap(true, Ordering::AcqRel) {
        tokio::task::yield_now().await;
    }
    assert_eq!(sent().await, "agora token=the second");
    assert!(!credentials.have_changed());
    hanging.store(false, Ordering::Release);
    assert_eq!(sent().await, "agora token=the very third");
}

/// Holds: what is no regular file is refused, and not waited for: nobody writes to this FIFO.
#[test]
fn a_fifo_is_no_secret() {
    let (_dir, path) = file("first");
    fs::remove_file(&path).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    let token = Secret::File(path.clone());
    let error = Credentials::new(Auth::AgoraToken { token }).err().unwrap();
    let BuildError::Secret(SecretError::Read { source, .. }) = error else {
        panic!("{error:?}");
    };
    assert_eq!(source.to_string(), "it is not a regular file");
    assert!(crate::client_tls(Some(&path)).is_err());
}

/// Holds: a change is told once, whether what is in the file is of use or not, and a file that is gone is none.
#[test]
fn a_change_of_the_file_is_told_once() {
    let (_dir, path) = file("first");
    let token = Secret::File(path.clone());
    let credentials = Credentials::new(Auth::AgoraToken { token }).unwrap();
    assert!(!have_changed(&credentials));
    for text in ["", "second one"] {
        fs::write(&path, text).unwrap();
        assert!(have_changed(&credentials), "{text:?}");
        assert!(!have_changed(&credentials), "{text:?}");
        let _ = headers(&credentials);
        assert!(!have_changed(&credentials), "{text:?}");
    }
    fs::remove_file(&path).unwrap();
    assert!(!have_changed(&credentials));
    let inline = Credentials::new(Auth::AgoraToken { token: inline("t") }).unwrap();
    assert!(!have_changed(&inline));
}

#[test]
fn an_unreadable_change_leaves_the_old_secret_in_use() {
    let (_dir, path) = file("good");
    let token = Secret::File(path.clone());
    let credentials = Credentials::new(Auth::AgoraToken { token }).unwrap();
    for bad in ["", "\n", "two\nlines", &"x".repeat(MAX_SECRET + 1)] {
        fs::write(&path, bad).unwrap();
        credentials.refused();
        assert_eq!(sent(&credentials, "authorization"), "agora token=good");
    }
    fs::remove_file(&path).unwrap();
    assert_eq!(sent(&credentials, "authorization"), "agora token=good");
    fs::write(&path, "better").unwrap();
    assert_eq!(sent(&credentials, "authorization"), "agora token=better");
}

/// Holds: a file that everyone may read once it was rewritten, or given another mode, is told, once for each change,
/// though every refusal makes it be read again.
#[test]
fn a_file_that_is_opened_to_all_is_told() {
    // While there is only one, another test's thread may answer for all that nobody wants to know.
    let _another = Dispatch::new(NoSubscriber::default());
    let (dir, path) = file("first");
    let mode = |mode| fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    mode(0o600);
    let token = Secret::File(path.clone());
    let credentials = Credentials::new(Auth::AgoraToken { token }).unwrap();
    let log = dir.path().join("log");
    let subscriber = tracing_subscriber::fmt()
        .with_writer(Mutex::new(File::create(&log).unwrap()))
        .finish();
    let told = || {
        for _ in 0..3 {
            headers(&credentials);
            credentials.refused();
        }
        let log = fs::read_to_string(&log).unwrap();
        log.matches("the secret file can be read by everyone")
            .count()
    };
    tracing::subscriber::with_default(subscriber, || {
        assert_eq!(told(), 0);
        mode(0o644);
        assert_eq!(told(), 1);
        fs::write(&path, "second").unwrap();
        assert_eq!(told(), 2);
        mode(0o640);
        assert_eq!(told(), 2);
    });
    assert_eq!(sent(&credentials, "authorization"), "agora token=second");
}

#[test]
fn what_cannot_be_sent_is_refused_at_the_start() {
    let (_dir, path) = file("\n");
    let token = |token| Credentials::new(Auth::AgoraToken { token }).err().unwrap();
    let source = |error: &BuildError| {
        let BuildError::Secret(error) = error else {
            panic!("{error:?}");
        };
        error.to_string()
    };
    assert!(source(&token(Secret::File(path.clone()))).contains("is empty"));
    assert!(source(&token(Secret::File(path.join("none")))).contains("cannot read"));
    assert!(source(&token(inline(""))).contains("is empty"));
    let error = token(inline("canary\nx"));
    assert_eq!(
        source(&error),
        "the secret has a line feed at byte 6, which cannot be sent"
    );
    assert!(!format!("{error:?}").contains("canary"));
    let refused = |auth| matches!(Credentials::new(auth), Err(BuildError::Credential { .. }));
    for name in ["", "a\r\nb", "é"] {
        assert!(refused(Auth::Token {
            token: inline("t"),
            uid: name.into()
        }));
    }
    assert!(refused(Auth::Basic {
        key: "a:b".into(),
        secret: inline("s")
    }));
}

/// Holds: what is in the way is named with its place, in a password too, where it would be sent and refused for ever;
/// and nothing of the secret is told.
#[test]
fn a_control_character_is_told_by_its_place() {
    for (text, says) in [
        ("\ncanary\n", "a line feed at byte 0"),
        ("canäry\r\nx", "a carriage return at byte 7"),
        ("canary\t", "a tab at byte 6"),
        ("\u{7}canary", "a control character at byte 0"),
    ] {
        let (_dir, path) = file(text);
        let secret = Secret::File(path.clone());
        let basic = Auth::Basic {
            key: "key".into(),
            secret: secret.clone(),
        };
        for auth in [basic, Auth::AgoraToken { token: secret }] {
            let error = Credentials::new(auth).err().unwrap();
            let BuildError::Secret(error) = error else {
                panic!("{error:?}");
            };
            let expected = format!(
                "the secret file {} has {says}, which cannot be sent",
                path.display()
            );
            assert_eq!(error.to_string(), expected);
            assert!(!format!("{error:?}").contains("can"), "{error:?}");
        }
    }
}

#[test]
fn nothing_prints_a_secret() {
    let kinds = [
        Auth::Basic {
            key: "key".into(),
            secret: inline(CANARY),
        },
        Auth::Token {
            token: inline(CANARY),
            uid: "uid".into(),
        },
        Auth::AgoraToken {
            token: inline(CANARY),
        },
    ];
    for auth in kinds {
        assert!(!format!("{auth:?}").contains(CANARY));
        let credentials = Credentials::new(auth).unwrap();
        let headers = headers(&credentials);
        assert!(!format!("{headers:?}").contains("canary"));
        // What a far end may quote: the secret, or the whole header.
        for value in headers.values().filter(|value| *value != "uid") {
            let quoted = format!("bad credentials: {}!", value.to_str().unwrap());
            let redacted = credentials.redact(&quoted);
            assert!(
                redacted.contains("[redacted]") && redacted.ends_with('!'),
                "{redacted}"
            );
            assert!(
                !redacted.contains(CANARY) && !redacted.contains(&BASE64.encode(CANARY)),
                "{redacted}"
            );
        }
        for quoted in ["canary-7Zq\\/x", "canary-7Zq%2Fx"] {
            assert_eq!(credentials.redact(&format!("<{quoted}>")), "<[redacted]>");
        }
    }
}

/// Holds: after a rotation the old secret is still kept out of messages: an answer to it may be under way.
#[test]
fn a_secret_that_was_is_not_printed_either() {
    let (_dir, path) = file(CANARY);
    let token = Secret::File(path.clone());
    let credentials = Credentials::new(Auth::AgoraToken { token }).unwrap();
    for round in 0..20 {
        fs::write(&path, format!("next-{round}-{}", "x".repeat(round))).unwrap();
        headers(&credentials);
        if round < 10 {
            assert_eq!(credentials.redact(&format!("no {CANARY}")), "no [redacted]");
        }
        assert!(credentials.redact(&format!("no next-{round}-")) != "[redacted]");
    }
    assert!(credentials.shared.current().hidden.len() <= MAX_HIDDEN);
}

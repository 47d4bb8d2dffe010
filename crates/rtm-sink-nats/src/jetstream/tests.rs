use super::*;

/// Holds: each setting that loses or repeats records in silence is named, and the usual ones are not.
#[test]
fn silent_losses_are_named() {
    let usual = || Config {
        duplicate_window: SHORT_DUPLICATE_WINDOW,
        ..Config::default()
    };
    let options = NatsOptions::new(Vec::new(), "RTM");
    let warned = |config: &Config| warnings(config, &options).join("\n");
    assert_eq!(warned(&usual()), "");
    let full = |discard| Config {
        max_bytes: 1 << 20,
        max_messages: 5,
        max_messages_per_subject: 1,
        discard,
        ..usual()
    };
    assert!(
        warned(&full(DiscardPolicy::Old))
            .contains("(max_bytes: some 1497 records, max_msgs: 5 records, max_msgs_per_subject)")
    );
    assert!(warned(&full(DiscardPolicy::New)).contains("drops the oldest messages of a subject"));
    let one_full_subject = Config {
        discard_new_per_subject: true,
        ..full(DiscardPolicy::New)
    };
    assert!(warned(&one_full_subject).contains("holds up all events of its App ID"));
    let refusing = Config {
        max_messages_per_subject: -1,
        ..full(DiscardPolicy::New)
    };
    assert_eq!(warned(&refusing), "");
    let small = |max_message_size| Config {
        max_message_size,
        ..usual()
    };
    assert!(warned(&small(700)).contains("max_msg_size is 700 bytes"));
    assert_eq!(warned(&small(1 << 20)), "");
    let aged = |max_age| Config { max_age, ..usual() };
    assert!(warned(&aged(Duration::from_secs(5))).contains("older than 5s is dropped"));
    assert_eq!(warned(&aged(SHORT_MAX_AGE)), "");
    let interest = Config {
        retention: RetentionPolicy::Interest,
        ..usual()
    };
    assert!(warned(&interest).contains("retention: interest"));
    let memory = Config {
        storage: StorageType::Memory,
        ..usual()
    };
    assert!(warned(&memory).contains("storage: memory"));
    let short = Config {
        duplicate_window: Duration::from_millis(100),
        ..usual()
    };
    assert!(warned(&short).contains("more than 100 ms later"));
    for message_ids in [false, true] {
        let exact = NatsOptions {
            progress_subject: Some("progress".to_owned()),
            message_ids,
            ..options.clone()
        };
        assert_eq!(warnings(&short, &exact), Vec::<String>::new());
    }
}

/// Holds: a limit that no record fits into, or that cannot hold a large one, is an error, and no limit is none.
#[test]
fn what_no_record_fits_into_is_too_small() {
    let said = |max_message_size, max_bytes| {
        let config = Config {
            max_message_size,
            max_bytes,
            ..Config::default()
        };
        TooSmall::of(&config).map(|error| error.to_string())
    };
    for (size, bytes, expected) in [
        (100, -1, "its max_msg_size is 100 bytes, and 512 bytes"),
        (-1, 300, "its max_bytes is 300 bytes, and 65536 bytes"),
        (-1, (64 << 10) - 1, "its max_bytes is 65535 bytes"),
    ] {
        let found = said(size, bytes).unwrap();
        assert!(found.starts_with(expected), "{found}");
    }
    for (size, bytes) in [(-1, -1), (0, 0), (512, 64 << 10)] {
        assert_eq!(said(size, bytes), None, "{size} {bytes}");
    }
}

/// Holds: a stream that is as it was is no news, whatever the order of its metadata; any change is.
#[test]
fn a_stream_is_news_once() {
    let with = |window_seconds| {
        let metadata = ["a", "b", "c", "d", "e", "f"].map(|key| (key.into(), "x".into()));
        Found::Here(Box::new(Config {
            metadata: metadata.into(),
            duplicate_window: Duration::from_secs(window_seconds),
            ..Config::default()
        }))
    };
    for _ in 0..20 {
        assert!(with(1).is_like(&with(1)));
    }
    assert!(!with(1).is_like(&with(2)) && !with(1).is_like(&Found::Missing));
    assert!(Found::Off.is_like(&Found::Off) && !Found::Off.is_like(&Found::Missing));
}

/// Holds: a server is warned of that is too old for mirrors, or takes too little.
#[test]
fn servers_are_judged() {
    let warned = |version: &str, max_payload, expect_stream| {
        let info = ServerInfo {
            version: version.to_owned(),
            max_payload,
            ..ServerInfo::default()
        };
        let options = NatsOptions {
            expect_stream,
            ..NatsOptions::new(Vec::new(), "RTM")
        };
        warnings_of_server(&info, &options).join("\n")
    };
    for old in ["2.10.29", "2.11.4", "2.11.4-RC.1", "v2.9.0"] {
        assert!(warned(old, 1 << 20, true).contains("mirrors"), "{old}");
        assert_eq!(warned(old, 1 << 20, false), "");
    }
    for new in ["2.11.5", "2.12.0", "3.0.0", "2.11.10", "unknown"] {
        assert_eq!(warned(new, 1 << 20, true), "", "{new}");
    }
    assert!(warned("2.12.0", 700, true).contains("max_payload is 700 bytes"));
}

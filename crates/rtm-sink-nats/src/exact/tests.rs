use async_nats::jetstream::stream::SubjectTransform;

use super::*;

/// Holds: the subjects of the progress, and the filter that stores them.
#[test]
fn subjects_of_progress() {
    let key = ProgressKey {
        journal: 0xab,
        sink: "nats".into(),
        lane: "0a1b".into(),
    };
    let template = "rtm.progress.{journal}.{sink}.{app_id}";
    let subject = subject_of(template, &key);
    assert_eq!(
        subject,
        "rtm.progress.000000000000000000000000000000ab.nats.0a1b"
    );
    assert_eq!(filter_of_progress(template), "rtm.progress.*.*.*");
    assert!(subject::covers(&filter_of_progress(template), &subject));
}

/// Holds: whatever cannot carry it is told in words.
#[test]
fn unfit_streams_are_told() {
    let fit = || Config {
        allow_atomic_publish: true,
        subjects: vec!["rtm.>".to_owned()],
        ..Config::default()
    };
    let told =
        |config: &Config, version| unfit(config, version, "rtm.progress.*.*").unwrap_or_default();
    assert_eq!(told(&fit(), "2.12.1"), "");
    assert!(told(&fit(), "2.12.0").contains("2.12.1 or later"));
    for (change, word) in [
        ((|config| config.no_ack = true) as fn(&mut Config), "no_ack"),
        (|config| config.allow_atomic_publish = false, "allow_atomic"),
        (
            |config| config.retention = RetentionPolicy::WorkQueue,
            "retention",
        ),
        (
            |config| config.retention = RetentionPolicy::Interest,
            "retention",
        ),
        (
            |config| {
                config.subject_transform = Some(SubjectTransform {
                    source: ">".to_owned(),
                    destination: "other.>".to_owned(),
                });
            },
            "subject_transform",
        ),
        (
            |config| config.discard_new_per_subject = true,
            "discard_new_per_subject",
        ),
        (
            |config| config.subjects = vec!["rtm.events".to_owned()],
            "rtm.progress.*.*",
        ),
    ] {
        let mut config = fit();
        change(&mut config);
        assert!(told(&config, "2.12.1").contains(word), "{word}");
    }
}

/// Holds: what the server would refuse without saying which is refused before it is sent, each by its name.
#[test]
fn refused_records_are_told_apart() {
    let place = Place {
        max_message: 1000,
        rolls_up: true,
    };
    let record = |topic: &str, bytes: usize, header: &'static str| Record {
        id: RecordId {
            epoch: 0,
            position: 0,
            offset: 0,
        },
        topic: Topic::from(topic),
        key: None,
        timestamp: Timestamp(0),
        headers: vec![(header.into(), Bytes::new())],
        payload: vec![b' '; bytes].into(),
    };
    let good = || record("a", 100, "x");
    assert!(refuse(&[good(), good()], place).is_ok());
    let records = [
        good(),
        record("a b", 1, "x"),
        record("a b", 1, "x"),
        good(),
        record("a", 1001, "x"),
        record("a", 1, "Nats-TTL"),
    ];
    let error = refuse(&records, place).unwrap_err();
    let codes: Vec<&str> = error
        .outcomes
        .iter()
        .map(|outcome| match outcome {
            Outcome::Rejected(reason) => reason.code,
            _ => "",
        })
        .collect();
    assert_eq!(
        codes,
        [
            "",
            "bad_subject",
            "bad_subject",
            "",
            "too_large",
            "bad_header"
        ]
    );
}

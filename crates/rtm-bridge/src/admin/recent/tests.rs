use tracing_subscriber::layer::SubscriberExt;

use super::*;

fn said(marker: &str) -> Vec<Recent> {
    let mut all = all();
    all.retain(|recent| recent.of.contains(marker));
    all
}

/// Holds: warnings and errors are kept with whose they are, equal ones as one with a count, and nothing that a
/// terminal or a page could mistake for something else.
#[test]
fn keeps_warnings_and_errors() {
    let subscriber = tracing_subscriber::registry().with(Keep);
    tracing::subscriber::with_default(subscriber, || {
        let span = tracing::info_span!("publish", app = "recent-a", sink = "kafka");
        let _entered = span.enter();
        for attempt in 0..3 {
            tracing::warn!(
                attempt,
                error = "a\u{1b}[31m\nb\u{202e}\u{2060}",
                "it failed"
            );
        }
        tracing::info!("not this");
        tracing::error!(long = "x".repeat(10_000), "and this");
    });
    let [error, warning] = &said("recent-a")[..] else {
        panic!("{:?}", said("recent-a"));
    };
    assert_eq!((warning.level, warning.count), ("warn", 3));
    assert_eq!(warning.of, "app=recent-a sink=kafka");
    assert_eq!(warning.message, "it failed");
    assert_eq!(
        warning.details,
        r"attempt=2 error=a\u{1b}[31m\u{a}b\u{202e}\u{2060}"
    );
    assert_eq!((error.level, error.count), ("error", 1));
    assert!(error.details.len() < 2 * LINE);
    assert!(warning.first <= warning.at);
}

/// Holds: it is bounded, and the newest stay.
#[test]
fn forgets_the_oldest() {
    let mut recent = VecDeque::new();
    for number in 0..100 {
        let text = Text {
            message: format!("{number}"),
            ..Text::default()
        };
        keep(&mut recent, "warn", &text, String::new(), Timestamp::now());
    }
    let kept: Vec<_> = recent
        .iter()
        .map(|recent| recent.message.as_str())
        .collect();
    assert_eq!(kept.len(), KEPT);
    assert_eq!((kept[0], kept[KEPT - 1]), ("99", "80"));
}

//! Subjects: what may be published to, and which filter stores what.

use std::borrow::Cow;

/// The longest subject that is published to, in bytes.
///
/// A server closes the connection of whoever sends a protocol line above its `max_control_line` (4,096 bytes unless
/// configured), so that one long subject would take every other record down with it.
pub(crate) const MAX_SUBJECT_BYTES: usize = 2048;

/// Why a subject cannot be published to, or `None` if it can.
///
/// The client library refuses white space only; a wildcard, an empty token or too long a line would reach the server.
pub(crate) fn fault(subject: &str) -> Option<&'static str> {
    if subject.is_empty() {
        return Some("the subject is empty");
    }
    if subject.len() > MAX_SUBJECT_BYTES {
        return Some("the subject is too long");
    }
    if subject.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return Some("the subject holds white space or a control character");
    }
    subject.split('.').find_map(|token| match token {
        "" => Some("the subject holds an empty token"),
        "*" | ">" => Some("the subject holds a wildcard"),
        _ => None,
    })
}

/// Whether every subject that `subject` stands for is also one that `filter` stands for. Both may hold wildcards.
#[must_use]
pub fn covers(filter: &str, subject: &str) -> bool {
    let mut subject = subject.split('.');
    for token in filter.split('.') {
        match (token, subject.next()) {
            (_, None) => return false,
            (">", Some(_)) => return true,
            (_, Some(">")) => return false,
            ("*", Some(_)) => (),
            (token, Some(other)) if token == other => (),
            _ => return false,
        }
    }
    subject.next().is_none()
}

/// The subject filter that stores whatever a template can make: a token in which a `*` stands for a variable beside
/// other text becomes a plain `*`, because NATS takes `*_events` literally.
#[must_use]
pub fn widen(subject: &str) -> Cow<'_, str> {
    let partly = |token: &str| token.len() > 1 && token.contains('*');
    if !subject.split('.').any(partly) {
        return Cow::Borrowed(subject);
    }
    let widened: Vec<&str> = subject
        .split('.')
        .map(|token| if partly(token) { "*" } else { token })
        .collect();
    Cow::Owned(widened.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Holds: what would be refused by the server, or worse, is told before it is sent.
    #[test]
    fn faults_of_subjects() {
        for subject in [
            "",
            ".a",
            "a.",
            "a..b",
            "a.*",
            "*",
            "a.>",
            "a b",
            "a\tb",
            "a\r\nPUB x",
            "a\0",
        ] {
            assert!(fault(subject).is_some(), "{subject:?}");
        }
        assert!(fault(&"a".repeat(MAX_SUBJECT_BYTES + 1)).is_some());
        for subject in ["a", "rtm.main.eu-west-1.user_events", "a.=2A", "é.b"] {
            assert_eq!(fault(subject), None, "{subject:?}");
        }
    }

    /// Holds: the wildcards' meaning, on both sides (docs.nats.io, "Subject-Based Messaging").
    #[test]
    fn filters_cover_subjects() {
        for (filter, subject, expected) in [
            ("a.b", "a.b", true),
            ("a.b", "a.c", false),
            ("a.*", "a.b", true),
            ("a.*", "a", false),
            ("a.*", "a.b.c", false),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            (">", "a", true),
            ("a.*", "a.*", true),
            ("a.b", "a.*", false),
            ("a.*", "a.>", false),
            ("a.>", "a.>", true),
            ("a.>", "a.*.c", true),
            ("*.c", "a.*", false),
        ] {
            assert_eq!(covers(filter, subject), expected, "{filter} {subject}");
        }
    }

    /// Holds: `*_events` is widened, since as a filter it would match nothing.
    #[test]
    fn partial_wildcards_are_widened() {
        assert_eq!(widen("rtm.*.x-*.*_events"), "rtm.*.*.*");
        assert_eq!(widen("rtm.*.>"), "rtm.*.>");
    }
}

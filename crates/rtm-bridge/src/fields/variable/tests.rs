use super::*;

/// Holds: what an editor or a file of variables leaves around a value is dropped, and nothing else is.
#[test]
fn marks_and_ends_of_lines_are_dropped() {
    for (text, expected) in [
        ("value", "value"),
        ("value\r", "value"),
        ("value\r\n", "value"),
        ("\u{feff}value\n", "value"),
        (" a b ", " a b "),
        ("a\rb", "a\rb"),
        ("\r\n", ""),
    ] {
        assert_eq!(tidied(text), expected, "{text:?}");
    }
}

use serde_json::json;

use super::*;

#[test]
fn what_a_terminal_obeys_is_escaped_and_means_the_same() {
    let hostile = "a\u{1b}[2J\u{7f}\u{9b}31m\u{202e}b\u{2066}\u{feff}\r\n\u{0}é\u{1f600}";
    let json = json!({ "body": hostile }).to_string();
    let safe = terminal_safe(&json);
    assert!(safe.chars().all(|c| !c.is_control()), "{safe:?}");
    assert!(!safe.contains('\u{202e}') && safe.contains("é\u{1f600}"));
    let back: Value = serde_json::from_str(&safe).unwrap();
    assert_eq!(back["body"], hostile);
}

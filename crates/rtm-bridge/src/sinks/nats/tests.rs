use super::*;

#[test]
fn a_wildcard_covers_one_token() {
    assert!(covers("rtm.*.*", "rtm.*.dead_letters"));
    assert!(!covers("rtm.*.*.*", "rtm.*.dead_letters"));
    assert!(!covers("rtm.*.dead_letters", "rtm.*.*"));
}

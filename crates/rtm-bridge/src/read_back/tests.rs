use super::*;

/// Holds: an event with line feeds between its tokens is found in a file sink, as an event and as a dead letter.
#[test]
fn a_line_is_compared_with_a_line() {
    let page = r#"{"app_id":"0a1b","region":"eu","stream":"user","request_id":"r","serial":0,"deleted_at_ms":1,"at_ms":1,"status":200,"events":["{\n\"user_id\":1}"],"first_event_at":0,"fate":{"kind":"whole"},"finished_at_ms":1}"#;
    let Ok(ledger) = Ledger::from_ndjson(page.as_bytes(), Vec::new()) else {
        panic!("the ledger's form has changed");
    };
    let lines = as_lines(&ledger);
    assert_eq!(&*lines.pages[0].events[0], "{ \"user_id\":1}");
    assert_eq!(&*ledger.pages[0].events[0], "{\n\"user_id\":1}");
}

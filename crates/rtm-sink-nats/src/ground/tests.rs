use super::*;

fn stored(headers: &str, data: &str) -> Stored {
    Stored {
        hdrs: STANDARD.encode(format!("NATS/1.0\r\n{headers}\r\n")),
        data: STANDARD.encode(data),
    }
}

fn of_batch(id: &str, data: &str) -> Stored {
    stored(
        &format!("Nats-Batch-Id: {id}\r\nNats-Batch-Sequence: 1\r\n"),
        data,
    )
}

fn last_of_batch(id: &str) -> Stored {
    let headers = format!("Nats-Batch-Id: {id}\r\nNats-Batch-Commit: 1\r\nRtm-Progress: 1\r\n");
    stored(&headers, "{}")
}

/// Holds: what nothing commits is torn, whoever publishes behind it; progress is no record, and what is in no batch cannot
/// be torn.
#[test]
fn a_batch_without_its_end_is_torn() {
    let torn = |messages: Vec<Stored>| {
        let torn = without_end(messages.into_iter());
        let text = |payload: &Bytes| String::from_utf8(payload.to_vec()).unwrap();
        torn.iter().map(text).collect::<Vec<_>>()
    };
    assert_eq!(torn(Vec::new()), [""; 0]);
    // The first is cut by where the reading begins.
    let whole = || {
        vec![
            of_batch("a", "1"),
            last_of_batch("a"),
            of_batch("b", "2"),
            last_of_batch("b"),
        ]
    };
    assert_eq!(torn(whole()), [""; 0]);
    let mut cut = whole();
    cut.extend([of_batch("c", "3"), of_batch("c", "4")]);
    cut.push(stored("Nats-Batch-Id: c\r\nrtm-progress: 1\r\n", "{}"));
    assert_eq!(torn(cut), ["4", "3"]);
    let mut behind = vec![of_batch("c", "3"), stored("", "single"), of_batch("d", "5")];
    behind.push(last_of_batch("d"));
    assert_eq!(torn(behind), ["3"]);
}

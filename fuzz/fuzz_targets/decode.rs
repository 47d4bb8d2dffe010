//! Any bytes as a response body: nothing panics, what comes out is what went in, and no more is counted than comes out.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let decoded = rtm_source::decode(body);
    assert_eq!(decoded.events.len(), rtm_source::count(body));
    let mut end = 0;
    for event in &decoded.events {
        let (offset, raw) = match event {
            Ok(event) => (event.offset as usize, event.raw.as_bytes()),
            Err(reject) => (reject.offset as usize, reject.raw),
        };
        assert!(offset >= end, "two events overlap");
        end = offset + raw.len();
        assert_eq!(&body[offset..end], raw);
    }
    // What a cut body yields, the whole one begins with, but for the rest at the cut.
    let mut cut = rtm_source::decode(&body[..body.len() / 2]).events;
    cut.pop_if(|last| matches!(last, Err(reject) if reject.reason == "unreadable"));
    assert!(decoded.events.starts_with(&cut));
});

//! What clients say that they take.
#![allow(clippy::unwrap_used)]

use std::io::Read;

use super::*;

#[test]
fn gzip_is_taken_where_it_is_named_and_not_refused() {
    for (said, taken) in [
        ("gzip", true),
        ("deflate, GZIP;q=0.5", true),
        ("gzip;q=1.0, identity", true),
        ("gzip;q=0", false),
        ("gzip; q=0.0", false),
        ("br", false),
        ("", false),
    ] {
        let value = said.parse().unwrap();
        let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, value)]);
        assert_eq!(takes_gzip(&headers), taken, "{said}");
    }
    assert!(!takes_gzip(&HeaderMap::new()));
}

#[test]
fn what_is_compressed_is_the_document() {
    let plain = Bytes::from("rtm_bridge_polls_total 1\n".repeat(1000));
    let zipped = compress(&plain).unwrap();
    assert!(zipped.len() < plain.len() / 10);
    let mut back = Vec::new();
    flate2::read::GzDecoder::new(&*zipped)
        .read_to_end(&mut back)
        .unwrap();
    assert_eq!(back, plain);
}

use std::io::Read;

use super::*;

/// Holds: what is packed unpacks to what it was, with a right checksum, and a bomb to that and white space.
#[test]
fn what_is_packed_unpacks() {
    for unpacks_to in [0, 3 << 20] {
        let mut reply = Reply::json(200, "a page".repeat(100));
        pack(&mut reply, unpacks_to);
        let wire = reply.pieces(usize::MAX).collect::<Vec<_>>().concat();
        let mut unpacked = Vec::new();
        let read = flate2::read::GzDecoder::new(&*wire).read_to_end(&mut unpacked);
        assert!(
            unpacked.starts_with("a page".repeat(100).as_bytes()),
            "{read:?}"
        );
        assert_eq!(unpacked.trim_ascii_end().len(), 600);
        assert_eq!(
            (read.is_ok(), unpacked.len()),
            (unpacks_to == 0, 600 + unpacks_to)
        );
    }
}

#![allow(clippy::unwrap_used)]

use super::*;

/// Holds: only a byte order mark and the ends of lines are dropped, and what is no small regular file of text is refused.
#[test]
fn a_secret_is_read_as_it_was_meant() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    for (content, held) in [
        ("\u{feff} pass word \r\n\n", " pass word "),
        ("token", "token"),
        ("\n", ""),
    ] {
        fs::write(&path, content).unwrap();
        assert_eq!(read_text(&path).unwrap(), held);
    }
    fs::write(&path, [0xff]).unwrap();
    assert_eq!(read_text(&path).unwrap_err().kind(), ErrorKind::InvalidData);
    fs::write(&path, vec![b'a'; (MAX_BYTES + 1) as usize]).unwrap();
    assert_eq!(read_text(&path).unwrap_err().kind(), ErrorKind::InvalidData);
    let told = read_text(dir.path()).unwrap_err().to_string();
    assert_eq!(told, "it is not a regular file");
    assert_eq!(
        read_text(Path::new("/dev/zero")).unwrap_err().to_string(),
        told
    );
}

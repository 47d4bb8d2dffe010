//! Lines, whatever they are written to, and files that lose their names.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};

use super::*;

/// An output that takes `room` more bytes and then fails, until it is given more.
#[derive(Clone, Default)]
struct Disk(Arc<Mutex<(Vec<u8>, usize, usize)>>);

impl Disk {
    fn give(&self, room: usize) {
        self.0.lock().unwrap().1 = room;
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().0.clone()).unwrap()
    }

    fn confirms(&self) -> usize {
        self.0.lock().unwrap().2
    }
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut disk = self.0.lock().unwrap();
        let taken = bytes.len().min(disk.1);
        if taken == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        disk.0.extend_from_slice(&bytes[..taken]);
        disk.1 -= taken;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Out for Disk {
    fn confirm(&mut self) -> Result<(), WriteError> {
        self.0.lock().unwrap().2 += 1;
        Ok(())
    }
}

fn payloads(texts: &[&str]) -> Vec<Bytes> {
    texts
        .iter()
        .map(|text| Bytes::copy_from_slice(text.as_bytes()))
        .collect()
}

fn sink_on(disk: &Disk) -> Lines<Disk> {
    Lines {
        out: disk.clone(),
        torn: false,
    }
}

#[test]
fn a_failed_write_is_followed_by_a_fresh_line() {
    let disk = Disk::default();
    let mut lines = sink_on(&disk);
    disk.give(7);
    let error = lines
        .write(&payloads(&["{\"a\":1}", "{\"a\":2}"]))
        .unwrap_err();
    assert!(
        matches!(&error, WriteError::Write(error) if error.kind() == io::ErrorKind::StorageFull),
        "{error:?}"
    );
    assert_eq!(disk.confirms(), 0, "nothing was confirmed");
    disk.give(1000);
    lines.write(&payloads(&["{\"a\":1}", "{\"a\":2}"])).unwrap();
    lines.write(&payloads(&["{\"a\":3}"])).unwrap();
    assert_eq!(disk.text(), "{\"a\":1}\n{\"a\":1}\n{\"a\":2}\n{\"a\":3}\n");
    assert_eq!(disk.confirms(), 2);
}

#[test]
fn a_line_feed_inside_a_document_becomes_a_space() {
    let disk = Disk::default();
    disk.give(1000);
    sink_on(&disk).write(&payloads(&["{\n\"a\":\n1}"])).unwrap();
    assert_eq!(disk.text(), "{ \"a\": 1}\n");
}

#[test]
fn a_batch_larger_than_the_buffer_is_written_whole() {
    let disk = Disk::default();
    disk.give(usize::MAX);
    let line = format!("\"{}\"", "x".repeat(WRITE_BYTES / 3));
    sink_on(&disk)
        .write(&payloads(&[line.as_str(); 10]))
        .unwrap();
    assert_eq!(disk.text(), format!("{line}\n").repeat(10));
}

#[test]
fn a_missing_directory_is_named() {
    let error = FileSink::create("/nowhere/at/all.jsonl").unwrap_err();
    assert_eq!(error.to_string(), "open /nowhere/at/all.jsonl");
}

fn name(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("events.jsonl")
}

fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

fn open_lines(path: &Path) -> Lines<Named> {
    let (out, torn) = Named::open(path, &Waiting::default()).unwrap();
    Lines { out, torn }
}

/// Holds: a file that was renamed, as logrotate does, gets no more lines, and nothing stands twice; after one that was
/// removed a new one is begun. What is confirmed stands in the file of that name.
#[test]
fn a_file_that_lost_its_name_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let path = name(&dir);
    let rotated = dir.path().join("events.jsonl.1");
    let mut lines = open_lines(&path);
    lines.write(&payloads(&["1"])).unwrap();
    fs::rename(&path, &rotated).unwrap();
    lines.write(&payloads(&["2"])).unwrap();
    lines.write(&payloads(&["3"])).unwrap();
    assert_eq!(text(&rotated), "1\n");
    assert_eq!(text(&path), "2\n3\n");

    fs::remove_file(&path).unwrap();
    lines.write(&payloads(&["4"])).unwrap();
    assert_eq!(text(&path), "4\n");

    // Whoever rotates may make the new file too, and leave part of a line in it.
    fs::rename(&path, &rotated).unwrap();
    fs::write(&path, "{\"tor").unwrap();
    lines.write(&payloads(&["5"])).unwrap();
    assert_eq!(text(&path), "{\"tor\n5\n");
}

/// Takes the name from its file once it has been written to.
struct Raced(Named, Option<Box<dyn FnOnce() + Send>>);

impl Write for Raced {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.0.write(bytes)?;
        if let Some(race) = self.1.take() {
            race();
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Out for Raced {
    fn begin(&mut self) -> Result<Option<bool>, WriteError> {
        self.0.begin()
    }

    fn confirm(&mut self) -> Result<(), WriteError> {
        self.0.confirm()
    }
}

/// Holds: what went into a file that lost its name before the batch was confirmed is not confirmed, and published again
/// it stands in the new file.
#[test]
fn nothing_is_confirmed_in_a_file_that_lost_its_name_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let path = name(&dir);
    let removed = path.clone();
    let replaced = path.clone();
    let races: [Box<dyn FnOnce() + Send>; 2] = [
        Box::new(move || fs::remove_file(removed).unwrap()),
        Box::new(move || {
            fs::remove_file(&replaced).unwrap();
            fs::write(&replaced, "new\n").unwrap();
        }),
    ];
    for (race, before) in races.into_iter().zip(["", "new\n"]) {
        let (out, torn) = Named::open(&path, &Waiting::default()).unwrap();
        let mut lines = Lines {
            out: Raced(out, Some(race)),
            torn,
        };
        let error = lines.write(&payloads(&["1", "2"])).unwrap_err();
        assert!(matches!(error, WriteError::Moved { .. }), "{error:?}");
        assert!(error.to_string().contains("events.jsonl was renamed"));
        lines.write(&payloads(&["1", "2"])).unwrap();
        assert_eq!(text(&path), format!("{before}1\n2\n"));
    }
}

/// Holds: without its directory the sink is unavailable and says why; it goes on when the directory is there again.
#[tokio::test]
async fn a_directory_that_has_gone_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gone").join("events.jsonl");
    let parent = path.parent().unwrap();
    fs::create_dir(parent).unwrap();
    let sink = FileSink::create(&path).unwrap();
    let record = Record {
        payload: Bytes::from_static(b"1"),
        ..crate::conformance::record(&crate::Topic::from("t"), 0)
    };
    fs::remove_dir_all(parent).unwrap();
    let error = sink.publish(std::slice::from_ref(&record)).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind, PublishErrorKind::Unavailable);
    assert_eq!(error.outcomes, [crate::Outcome::Unknown]);
    let mut told = String::new();
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(error) = cause {
        told.push_str(&format!("{error}: "));
        cause = error.source();
    }
    let expected = format!(
        "the file was renamed or removed: open {}: No such",
        path.display()
    );
    assert!(told.contains(&expected), "{told}");
    fs::create_dir(parent).unwrap();
    sink.publish(std::slice::from_ref(&record)).await.unwrap();
    assert_eq!(text(&path), "1\n");
}

/// Holds: with a slow reader, and with one that has stopped for a while, each record stands once and whole, though the
/// descriptor does not block; meanwhile the sink says what it waits for. A reader that has gone is told as that.
#[tokio::test]
async fn standard_output_that_does_not_block_is_waited_for() {
    use std::io::BufRead;

    let (reader, writer) = io::pipe().unwrap();
    rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::NONBLOCK).unwrap();
    let file = File::from(std::os::fd::OwnedFd::from(writer));
    let waiting = Waiting::default();
    let out = Stdout(Patient::new(file, waiting.clone()));
    let sink = FileSink::start("it".to_owned(), waiting, Lines { out, torn: false }).unwrap();
    let sink = Arc::new(sink);
    let line = |index: u32| format!("{{\"i\":{index},\"x\":\"{}\"}}", "x".repeat(1000));
    let records: Vec<Record> = (0..1000)
        .map(|index| Record {
            payload: Bytes::from(line(index)),
            ..crate::conformance::record(&crate::Topic::from("t"), index.into())
        })
        .collect();
    let (publishing, again) = (Arc::clone(&sink), records.clone());
    let published = tokio::spawn(async move { publishing.publish(&records).await });
    let said = async {
        loop {
            if let Some(said) = sink.health().said {
                return said;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let said = tokio::time::timeout(Duration::from_secs(20), said).await;
    assert!(said.unwrap().starts_with("it has taken nothing for 2 s"));
    let mut lines = io::BufReader::new(reader).lines();
    let read = thread::spawn(move || {
        for index in 0..1000 {
            assert_eq!(lines.next().unwrap().unwrap(), line(index));
        }
    });
    published.await.unwrap().unwrap();
    read.join().unwrap();
    assert_eq!(sink.health(), Health::default());
    let error = sink.publish(&again).await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.starts_with("nobody reads it any more"), "{source}");
}

/// Holds: a file has one writer, until that lets go of it; a file that took its name has another.
#[tokio::test]
async fn a_file_has_one_writer() {
    let dir = tempfile::tempdir().unwrap();
    let path = name(&dir);
    let sink = FileSink::create(&path).unwrap();
    let error = FileSink::create(&path).unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(source, IN_USE);
    fs::rename(&path, path.with_extension("1")).unwrap();
    let other = FileSink::create(&path).unwrap();
    drop((sink, other));
    FileSink::create(&path).unwrap();
}

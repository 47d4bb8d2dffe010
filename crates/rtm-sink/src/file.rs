use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::thread;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::{PublishError, PublishErrorKind, Record, Sink};

/// Lines are gathered up to this many bytes before they are written: enough that system calls do not count, little
/// enough that a large batch is not held twice.
const WRITE_BYTES: usize = 256 * 1024;

/// Writes the payload of each record, one JSON document a line, to a file or to standard output.
///
/// Only payloads are written: the id is in them, and topics, keys and headers are for brokers. A line feed in a payload
/// is written as a space: between the tokens of a JSON document it means the same, and inside them it cannot be.
///
/// - **Order.** Lines are in the order published.
/// - **Durability.** A regular file is synced (`fdatasync`) before its records are confirmed. For standard output, pipes
///   and devices "confirmed" means that the operating system took the bytes.
/// - **Duplicates.** Nothing removes them; the id in the document tells. A write that failed half-way leaves part of a
///   line, as does a crash: the next one starts on a fresh line, so that a reader meets at most one broken line for each.
/// - **Cancellation.** A call that is dropped before the writer took its records writes nothing; otherwise its records
///   are written whole, before those of any later call.
///
/// Errors are all [`PublishErrorKind::Unavailable`] with every outcome unknown: a full disk gets room again. A reader
/// that closed its end of a pipe does not come back, and is told by [`io::ErrorKind::BrokenPipe`] in the source.
#[derive(Debug)]
pub struct FileSink {
    tx: mpsc::Sender<Batch>,
}

/// Why a file cannot be a sink.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The file, or the directory that it is to be in, cannot be opened.
    #[error("open {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The thread that writes cannot be started.
    #[error("start the writer's thread")]
    Thread(#[source] io::Error),
}

impl FileSink {
    /// Appends to the file, which is created if it is missing. What it already holds stays.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened for reading and appending, or its directory cannot be synced.
    pub fn create(path: impl AsRef<Path>) -> Result<FileSink, CreateError> {
        let path = path.as_ref();
        let lines = open(path).map_err(|source| CreateError::Open {
            path: path.to_owned(),
            source,
        })?;
        FileSink::start(lines)
    }

    /// Writes to standard output.
    ///
    /// # Errors
    ///
    /// When the writer's thread cannot be started.
    pub fn stdout() -> Result<FileSink, CreateError> {
        FileSink::start(Lines {
            out: io::stdout(),
            torn: false,
        })
    }

    /// The writer is a thread of its own, not one of the runtime's: a pipe that nobody reads blocks it for ever, and
    /// the runtime's shutdown would wait for it. It ends when the sink is dropped, or with the process.
    fn start<W: Out>(mut lines: Lines<W>) -> Result<FileSink, CreateError> {
        // One: a stuck writer must not gather the batches of calls that were given up.
        let (tx, mut rx) = mpsc::channel::<Batch>(1);
        let write = move || {
            while let Some(batch) = rx.blocking_recv() {
                // A caller that has gone loses its answer, as the contract says.
                let _ = batch.answer.send(lines.write(&batch.payloads));
            }
        };
        thread::Builder::new()
            .name("file-sink".into())
            .spawn(write)
            .map_err(CreateError::Thread)?;
        Ok(FileSink { tx })
    }
}

impl Sink for FileSink {
    async fn publish(&self, records: &[Record]) -> Result<(), PublishError> {
        if records.is_empty() {
            return Ok(());
        }
        let unavailable =
            |source| PublishError::unknown(PublishErrorKind::Unavailable, records.len(), source);
        let (answer, confirmed) = oneshot::channel();
        let payloads = records
            .iter()
            .map(|record| record.payload.clone())
            .collect();
        if self.tx.send(Batch { payloads, answer }).await.is_err() {
            return Err(unavailable(io::Error::other(
                "the writer's thread has ended",
            )));
        }
        match confirmed.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(unavailable(error)),
            Err(_) => Err(unavailable(io::Error::other(
                "the writer's thread has ended",
            ))),
        }
    }
}

/// The payloads of one call, and where its answer goes.
#[derive(Debug)]
struct Batch {
    payloads: Vec<Bytes>,
    answer: oneshot::Sender<io::Result<()>>,
}

/// Where lines go. `confirm` returns once they are as safe as this place makes them.
trait Out: Write + Send + 'static {
    fn confirm(&mut self) -> io::Result<()>;
}

impl Out for io::Stdout {
    fn confirm(&mut self) -> io::Result<()> {
        self.flush()
    }
}

impl Out for File {
    fn confirm(&mut self) -> io::Result<()> {
        // Pipes and devices cannot be synced, and say so with an error.
        if self.metadata()?.is_file() {
            self.sync_data()
        } else {
            Ok(())
        }
    }
}

/// Whole lines onto `out`.
struct Lines<W> {
    out: W,
    /// What was written last may be part of a line.
    torn: bool,
}

impl<W: Out> Lines<W> {
    fn write(&mut self, payloads: &[Bytes]) -> io::Result<()> {
        let mut buffer = Vec::with_capacity(WRITE_BYTES);
        if self.torn {
            buffer.push(b'\n');
        }
        // Until all is confirmed: an error on the way leaves anything.
        self.torn = true;
        for payload in payloads {
            buffer.extend(
                payload
                    .iter()
                    .map(|&byte| if byte == b'\n' { b' ' } else { byte }),
            );
            buffer.push(b'\n');
            if buffer.len() >= WRITE_BYTES {
                self.out.write_all(&buffer)?;
                buffer.clear();
            }
        }
        self.out.write_all(&buffer)?;
        self.out.confirm()?;
        self.torn = false;
        Ok(())
    }
}

/// Opens for appending, with the new name durable, and finds out how the file ends.
fn open(path: &Path) -> io::Result<Lines<File>> {
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(path)?;
    let mut torn = false;
    if file.metadata()?.is_file() {
        let parent = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
        if file.seek(SeekFrom::End(0))? > 0 {
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            torn = last != *b"\n";
        }
    }
    Ok(Lines { out: file, torn })
}

#[cfg(test)]
mod tests {
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
        fn confirm(&mut self) -> io::Result<()> {
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
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
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
}

#[cfg(test)]
mod conforms {
    use std::fs;

    use tempfile::TempDir;

    use super::*;
    use crate::Topic;
    use crate::conformance::{self, Carries, Rig, Stored};

    struct FileRig {
        dir: TempDir,
    }

    impl FileRig {
        fn path(&self) -> PathBuf {
            self.dir.path().join("events.jsonl")
        }
    }

    impl Rig for FileRig {
        type Sink = FileSink;

        async fn sink(&self) -> FileSink {
            FileSink::create(self.path()).unwrap()
        }

        async fn topic(&self, case: &str) -> Topic {
            Topic::from(case)
        }

        /// The file holds all topics: the suite's documents name theirs.
        async fn stored(&self, topic: &Topic) -> Vec<Stored> {
            let of_topic = |line: &&str| {
                let document: serde_json::Value = serde_json::from_str(line).unwrap();
                document["topic"] == topic.as_str()
            };
            let stored = |line: &str| Stored {
                payload: Bytes::copy_from_slice(line.as_bytes()),
                ..Stored::default()
            };
            let text = fs::read_to_string(self.path()).unwrap();
            text.lines().filter(of_topic).map(stored).collect()
        }

        fn carries(&self) -> Carries {
            Carries {
                order_after_failure: true,
                ..Carries::default()
            }
        }
    }

    /// Holds: the contract, save what a file cannot do (it refuses no record and does not go away).
    #[tokio::test]
    async fn conforms() {
        let rig = FileRig {
            dir: tempfile::tempdir().unwrap(),
        };
        let left_out = conformance::run(&rig).await;
        assert_eq!(left_out, ["a record is refused", "the broker is away"]);
    }

    /// Holds: a line that a crash cut short stays alone on its line.
    #[tokio::test]
    async fn a_torn_last_line_is_followed_by_a_fresh_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        fs::write(&path, "{\"whole\":1}\n{\"tor").unwrap();
        let record = conformance::record(&Topic::from("t"), 0);
        for _ in 0..2 {
            let sink = FileSink::create(&path).unwrap();
            sink.publish(std::slice::from_ref(&record)).await.unwrap();
        }
        let line = std::str::from_utf8(&record.payload).unwrap();
        let expected = format!("{{\"whole\":1}}\n{{\"tor\n{line}\n{line}\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    }
}

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::patient::{Patient, Waiting};
use crate::{Health, PublishError, PublishErrorKind, Record, Sink};

/// Lines are gathered up to this many bytes before they are written: enough that system calls do not count, little
/// enough that a large batch is not held twice.
const WRITE_BYTES: usize = 256 * 1024;

/// How long to wait for the lock of a file: the thread of a sink that was dropped, or another process, may be about to end.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// Between two looks at it.
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// What is said of a file that another sink has open.
const IN_USE: &str = "another process writes to it, or another sink: a file has one writer";

/// What has taken nothing for this long is told of; a busy disk takes less.
const SLOW: Duration = Duration::from_secs(2);

/// Writes the payload of each record, one JSON document a line, to a file or to standard output.
///
/// Only payloads are written: the id is in them, and topics, keys and headers are for brokers. A line feed in a payload
/// is written as a space: between the tokens of a JSON document it means the same, and inside them it cannot be.
///
/// - **Order.** Lines are in the order published.
/// - **Durability.** A regular file is synced (`fdatasync`) before its records are confirmed. For standard output, pipes
///   and devices "confirmed" means that the operating system took the bytes.
/// - **Waiting.** A descriptor that does not block is waited for, and the write goes on where it stopped: nothing is torn or
///   written again because a reader is slow. [`health`](Sink::health) tells how long nothing was taken.
/// - **Rotation.** What is confirmed was in the file of that name when it was: before a call writes, and again before it
///   confirms, the file that is open is compared with the one that has its name. One that was renamed or removed is left
///   and the name is opened anew, created if need be. What a call wrote to a file that has lost its name meanwhile is of
///   unknown outcome, and where it was renamed, a second copy stands in the new one.
/// - **One writer.** A regular file is locked while it is open (`flock`): two writers would tear each other's lines, and the
///   second is refused.
/// - **Duplicates.** Nothing removes them; the id in the document tells. A write that failed half-way leaves part of a
///   line, as does a crash: the next one starts on a fresh line, so that a reader meets at most one broken line for each.
/// - **Cancellation.** A call that is dropped before the writer took its records writes nothing; otherwise its records
///   are written whole, before those of any later call.
///
/// Errors are all [`PublishErrorKind::Unavailable`] with every outcome unknown: a full disk gets room again, and a
/// directory that has gone may come back.
#[derive(Debug)]
pub struct FileSink {
    tx: mpsc::Sender<Batch>,
    /// What it writes to, for people.
    name: String,
    waiting: Waiting,
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

/// Why a batch is not confirmed.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    /// It cannot be written or synced.
    #[error("write")]
    Write(#[source] io::Error),
    /// It is a pipe or a socket that has lost its reader.
    #[error("nobody reads it any more, and a reader comes back with a restart only")]
    Closed(#[source] io::Error),
    /// What has the file's name cannot be looked at.
    #[error("look at {}", path.display())]
    Look { path: PathBuf, source: io::Error },
    /// The file has lost its name, and the name cannot be opened anew.
    #[error("the file was renamed or removed")]
    Reopen(#[source] CreateError),
    /// The file lost its name while it was written.
    #[error("{} was renamed or removed while it was written", path.display())]
    Moved { path: PathBuf },
    /// Nobody writes any more.
    #[error("the writer's thread has ended")]
    Ended,
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> WriteError {
        match error.kind() {
            io::ErrorKind::BrokenPipe => WriteError::Closed(error),
            _ => WriteError::Write(error),
        }
    }
}

impl FileSink {
    /// Appends to the file, which is created if it is missing. What it already holds stays.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened for reading and appending, or has a writer, or its directory cannot be synced.
    pub fn create(path: impl AsRef<Path>) -> Result<FileSink, CreateError> {
        let path = path.as_ref();
        let waiting = Waiting::default();
        let (out, torn) = Named::open(path, &waiting)?;
        FileSink::start(path.display().to_string(), waiting, Lines { out, torn })
    }

    /// Writes to standard output.
    ///
    /// # Errors
    ///
    /// When its descriptor cannot be taken, or the writer's thread cannot be started.
    pub fn stdout() -> Result<FileSink, CreateError> {
        let name = "standard output";
        let stdout = io::stdout().as_fd().try_clone_to_owned();
        let stdout = stdout.map_err(|source| CreateError::Open {
            path: name.into(),
            source,
        })?;
        let waiting = Waiting::default();
        // Not `io::Stdout`, which keeps what it could not write, and writes it again after the next batch.
        let out = Stdout(Patient::new(File::from(stdout), waiting.clone()));
        FileSink::start(name.to_owned(), waiting, Lines { out, torn: false })
    }

    /// The writer is a thread of its own, not one of the runtime's: a pipe that nobody reads blocks it for ever, and
    /// the runtime's shutdown would wait for it. It ends when the sink is dropped, or with the process.
    fn start<W: Out>(
        name: String,
        waiting: Waiting,
        mut lines: Lines<W>,
    ) -> Result<FileSink, CreateError> {
        // One: a stuck writer must not gather the batches of calls that were given up.
        let (tx, mut rx) = mpsc::channel::<Batch>(1);
        let watched = waiting.clone();
        let write = move || {
            while let Some(batch) = rx.blocking_recv() {
                let written = watched.during(|| lines.write(&batch.payloads));
                // A caller that has gone loses its answer, as the contract says.
                let _ = batch.answer.send(written);
            }
        };
        thread::Builder::new()
            .name("file-sink".into())
            .spawn(write)
            .map_err(CreateError::Thread)?;
        Ok(FileSink { tx, name, waiting })
    }
}

impl Sink for FileSink {
    async fn publish(&self, records: &[Record]) -> Result<(), PublishError> {
        if records.is_empty() {
            return Ok(());
        }
        let unavailable = |error: WriteError| {
            PublishError::unknown(PublishErrorKind::Unavailable, records.len(), error)
        };
        let (answer, confirmed) = oneshot::channel();
        let payloads = records
            .iter()
            .map(|record| record.payload.clone())
            .collect();
        if self.tx.send(Batch { payloads, answer }).await.is_err() {
            return Err(unavailable(WriteError::Ended));
        }
        match confirmed.await {
            Ok(written) => written.map_err(unavailable),
            Err(_) => Err(unavailable(WriteError::Ended)),
        }
    }

    fn health(&self) -> Health {
        let since = self.waiting.since().map(|since| since.elapsed());
        let said = since.filter(|since| *since >= SLOW).map(|since| {
            let (name, seconds) = (&self.name, since.as_secs());
            format!("{name} has taken nothing for {seconds} s; its reader or its disk is slow, or has stopped")
        });
        Health {
            said,
            ..Health::default()
        }
    }
}

/// The payloads of one call, and where its answer goes.
#[derive(Debug)]
struct Batch {
    payloads: Vec<Bytes>,
    answer: oneshot::Sender<Result<(), WriteError>>,
}

/// Where lines go.
trait Out: Write + Send + 'static {
    /// Before a batch is written. If it goes to another file than the last one: whether that one ends in part of a line.
    fn begin(&mut self) -> Result<Option<bool>, WriteError> {
        Ok(None)
    }

    /// Returns once the lines are as safe as this place makes them.
    fn confirm(&mut self) -> Result<(), WriteError>;
}

/// Standard output, with nothing kept back.
struct Stdout(Patient);

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Out for Stdout {
    fn confirm(&mut self) -> Result<(), WriteError> {
        Ok(())
    }
}

/// A file that is open, and the name that it is to have.
#[derive(Debug)]
struct Named {
    file: Patient,
    path: PathBuf,
    /// Device and inode of the open file.
    id: (u64, u64),
    /// Pipes and devices cannot be synced, and say so with an error.
    is_regular: bool,
}

impl Named {
    /// Opens for appending, with the new name durable, and finds out whether the file ends in part of a line.
    fn open(path: &Path, waiting: &Waiting) -> Result<(Named, bool), CreateError> {
        open(path, waiting).map_err(|source| CreateError::Open {
            path: path.to_owned(),
            source,
        })
    }

    /// Whether the name is still that of the open file. An inode that is open is given to no other file, so a new one
    /// cannot pass for it.
    fn has_its_name(&self) -> Result<bool, WriteError> {
        match fs::metadata(&self.path) {
            Ok(named) => Ok((named.dev(), named.ino()) == self.id),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(WriteError::Look {
                path: self.path.clone(),
                source,
            }),
        }
    }
}

impl Write for Named {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Out for Named {
    fn begin(&mut self) -> Result<Option<bool>, WriteError> {
        if self.has_its_name()? {
            return Ok(None);
        }
        let removed = self.file.file().metadata()?.nlink() == 0;
        let (named, torn) =
            Named::open(&self.path, self.file.waiting()).map_err(WriteError::Reopen)?;
        *self = named;
        let path = self.path.display();
        if removed {
            tracing::warn!(%path, "the sink's file was removed, with what it held; a new one was begun");
        } else {
            tracing::info!(%path, "the sink's file was renamed; a new one was begun");
        }
        Ok(Some(torn))
    }

    fn confirm(&mut self) -> Result<(), WriteError> {
        if self.is_regular {
            self.file.file().sync_data()?;
        }
        // Last, since a file that loses its name before this line may have taken the batch along.
        if self.has_its_name()? {
            return Ok(());
        }
        Err(WriteError::Moved {
            path: self.path.clone(),
        })
    }
}

/// Whole lines onto `out`.
struct Lines<W> {
    out: W,
    /// What was written last may be part of a line.
    torn: bool,
}

impl<W: Out> Lines<W> {
    fn write(&mut self, payloads: &[Bytes]) -> Result<(), WriteError> {
        if let Some(torn) = self.out.begin()? {
            self.torn = torn;
        }
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

/// Takes the lock of a file, which is held while that is open, and let go of by the system when the process dies. A file
/// system without locks tells of nobody.
fn own(file: &File) -> io::Result<()> {
    let patience = Instant::now() + LOCK_PATIENCE;
    while matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
        if Instant::now() >= patience {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, IN_USE));
        }
        thread::sleep(LOCK_PAUSE);
    }
    Ok(())
}

/// As [`Named::open`].
fn open(path: &Path, waiting: &Waiting) -> io::Result<(Named, bool)> {
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(path)?;
    let metadata = file.metadata()?;
    let mut torn = false;
    if metadata.is_file() {
        own(&file)?;
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
    let named = Named {
        file: Patient::new(file, waiting.clone()),
        path: path.to_owned(),
        id: (metadata.dev(), metadata.ino()),
        is_regular: metadata.is_file(),
    };
    Ok((named, torn))
}

#[cfg(test)]
mod conforms;
#[cfg(test)]
mod tests;

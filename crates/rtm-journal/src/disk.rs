//! A directory of the real file system as [`Storage`], and its lock.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{
    DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, lchown,
};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock, fstatvfs};
use rustix::process::geteuid;

use crate::{OpenError, Storage};

const LOCK_FILE: &str = "lock";
const SUFFIX: &str = ".segment";
/// Open files for reading. A reader stays in one segment for long, so few are enough.
const MAX_OPEN: usize = 16;
/// How long to wait for the lock: a predecessor may be just about to exit, and `inspect` holds it for an instant.
const LOCK_PATIENCE: Duration = Duration::from_millis(250);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Segments are the files `<number, ten digits>.segment`; other files are left alone.
#[derive(Debug)]
pub(crate) struct Disk {
    path: PathBuf,
    dir: File,
    /// The segment being written has a file of its own: an error that the kernel reports for it is not to be missed
    /// because the file was closed and opened again in between.
    writing: Mutex<Option<(u32, File)>>,
    reading: Mutex<Vec<(u32, Arc<File>)>>,
}

impl Disk {
    /// The directory as it is, for reading.
    pub(crate) fn read_only(path: &Path) -> io::Result<Disk> {
        let dir = File::open(path)?;
        Ok(Disk {
            path: path.to_owned(),
            dir,
            writing: Mutex::new(None),
            reading: Mutex::new(Vec::new()),
        })
    }

    /// The directory, made if need be, restricted to its owner, and locked.
    pub(crate) fn open(path: &Path) -> Result<(Disk, Lock), OpenError> {
        let failed = |source| OpenError::Directory {
            path: path.to_owned(),
            source,
        };
        let named = |error| failed(name_owner(path, error));
        make_dir(path).map_err(named)?;
        let lock = Lock::take(path)?;
        let disk = Disk::read_only(path).map_err(named)?;
        disk.restrict_files().map_err(failed)?;
        Ok((disk, lock))
    }

    fn file(&self, segment: u32) -> PathBuf {
        self.path.join(format!("{segment:010}{SUFFIX}"))
    }

    fn restrict_files(&self) -> io::Result<()> {
        for (segment, _) in self.list()? {
            let path = self.file(segment);
            restrict(&path, 0o600)
                .and_then(|()| give_to_owner(&path, &self.dir))
                .and_then(|()| File::open(&path).map(drop))
                .map_err(|error| name_owner(&path, error))?;
        }
        Ok(())
    }

    fn reader(&self, segment: u32) -> io::Result<Arc<File>> {
        let mut reading = unpoisoned(&self.reading);
        if let Some(at) = reading.iter().position(|(open, _)| *open == segment) {
            // The least recently used is first, and the first to go.
            let found = reading.remove(at);
            let file = Arc::clone(&found.1);
            reading.push(found);
            return Ok(file);
        }
        let file = Arc::new(File::open(self.file(segment))?);
        if reading.len() >= MAX_OPEN {
            reading.remove(0);
        }
        reading.push((segment, Arc::clone(&file)));
        Ok(file)
    }

    fn with_written<T>(
        &self,
        segment: u32,
        act: impl FnOnce(&mut File) -> io::Result<T>,
    ) -> io::Result<T> {
        match unpoisoned(&self.writing).as_mut() {
            Some((open, file)) if *open == segment => act(file),
            _ => act(&mut OpenOptions::new().append(true).open(self.file(segment))?),
        }
    }
}

impl Storage for Disk {
    fn create(&self, segment: u32) -> io::Result<()> {
        let mut writing = unpoisoned(&self.writing);
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(self.file(segment))?;
        give_to_owner(&self.file(segment), &self.dir)?;
        *writing = Some((segment, file));
        Ok(())
    }

    fn append(&self, segment: u32, bytes: &[u8]) -> io::Result<()> {
        self.with_written(segment, |file| file.write_all(bytes))
    }

    fn sync(&self, segment: u32) -> io::Result<()> {
        self.with_written(segment, |file| file.sync_data())
    }

    fn read(&self, segment: u32, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let file = self.reader(segment)?;
        let mut read = 0;
        while read < into.len() {
            match file.read_at(&mut into[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(bytes) => read += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // A handle may be stale for ever where the file is not: the next try opens it anew.
                    unpoisoned(&self.reading).retain(|(open, _)| *open != segment);
                    return Err(error);
                }
            }
        }
        Ok(read)
    }

    fn list(&self) -> io::Result<Vec<(u32, u64)>> {
        let mut segments = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let Some(segment) = entry.file_name().to_str().and_then(segment_number) else {
                continue;
            };
            match entry.metadata() {
                Ok(metadata) if metadata.is_file() => segments.push((segment, metadata.len())),
                Ok(_) => {}
                // Removed meanwhile, by the process that `inspect` looks at.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(segments)
    }

    fn unlink(&self, segment: u32) -> io::Result<()> {
        unpoisoned(&self.reading).retain(|(open, _)| *open != segment);
        fs::remove_file(self.file(segment))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.dir.sync_all()
    }

    fn truncate(&self, segment: u32, bytes: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.file(segment))?;
        file.set_len(bytes)?;
        file.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let stat = fstatvfs(&self.dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// Held while a journal is open. The system lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "the lock is the open file")] File);

impl Lock {
    fn take(dir: &Path) -> Result<Lock, OpenError> {
        let path = dir.join(LOCK_FILE);
        let failed = |source| OpenError::Directory {
            path: dir.to_owned(),
            source,
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .and_then(|file| give_to_owner(&path, &File::open(dir)?).map(|()| file))
            .map_err(|error| {
                let of = if path.exists() { &path } else { dir };
                failed(name_owner(of, error))
            })?;
        let patience = Instant::now() + LOCK_PATIENCE;
        while let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if error != rustix::io::Errno::WOULDBLOCK {
                return Err(failed(error.into()));
            }
            if Instant::now() >= patience {
                return Err(OpenError::Locked {
                    path: dir.to_owned(),
                    pid: holder(&mut file),
                });
            }
            std::thread::sleep(LOCK_PAUSE);
        }
        restrict(&path, 0o600).map_err(failed)?;
        // Only a hint for the error above, so a full disk is no reason to fail here.
        let noted = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        if let Err(error) = noted {
            tracing::debug!(%error, "the journal's lock file does not name its holder");
        }
        Ok(Lock(file))
    }

    /// Who holds the lock of `dir`: `None` nobody, `Some(None)` somebody unknown.
    pub(crate) fn held(dir: &Path) -> Option<Option<u32>> {
        let mut file = File::open(dir.join(LOCK_FILE)).ok()?;
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => None,
            Err(_) => Some(holder(&mut file)),
        }
    }
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Makes the directory, and those above it that are missing; whichever is made is its owner's who has the one above.
fn make_dir(path: &Path) -> io::Result<()> {
    if !path.is_dir() {
        let above = path.parent();
        let above = above.map(|above| match above.as_os_str().is_empty() {
            true => Path::new("."),
            false => above,
        });
        if let Some(above) = above.filter(|above| !above.exists()) {
            make_dir(above)?;
        }
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !path.is_dir() => {
                return Err(error);
            }
            _ => {}
        }
        // The name of the directory itself has to survive a power loss too.
        if let Some(above) = above {
            let above = File::open(above)?;
            give_to_owner(path, &above)?;
            above.sync_all()?;
        }
        return Ok(());
    }
    let is_open = fs::metadata(path)?.permissions().mode() & 0o077 != 0;
    if is_open && let Some(foreign) = foreign_file(path)? {
        let why = format!(
            "it is open to others, and holds what is not the journal's, such as {foreign:?}: set journal.dir below it"
        );
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    restrict(path, 0o700)
}

/// A file that no journal has made. The first thing in the root of a file system is made with it.
fn foreign_file(dir: &Path) -> io::Result<Option<String>> {
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != LOCK_FILE && name != "lost+found" && segment_number(&name).is_none() {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// What root makes for a service has to be the service's, who owns the directory. Nobody else can give a file away, or has
/// made it for another one.
fn give_to_owner(path: &Path, dir: &File) -> io::Result<()> {
    let (owner, found) = (dir.metadata()?, fs::symlink_metadata(path)?);
    let is_owners = (found.uid(), found.gid()) == (owner.uid(), owner.gid());
    if !geteuid().is_root() || is_owners {
        return Ok(());
    }
    match lchown(path, Some(owner.uid()), Some(owner.gid())) {
        // In a container root may be forbidden even that; then it is the only one there is.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        given => given,
    }
}

/// Says whose it is, where that may be why it was denied.
fn name_owner(path: &Path, error: io::Error) -> io::Error {
    let (user, denied) = (geteuid().as_raw(), error.kind());
    let owner = fs::metadata(path).map(|found| found.uid());
    match owner {
        Ok(owner) if denied == io::ErrorKind::PermissionDenied && owner != user && user != 0 => {
            let path = path.display();
            let why = format!(
                "{path} belongs to uid {owner}, this is uid {user}: chown it, or set journal.dir below it"
            );
            io::Error::new(denied, why)
        }
        _ => error,
    }
}

/// Takes away what `mode` does not allow.
fn restrict(path: &Path, mode: u32) -> io::Result<()> {
    let found = fs::metadata(path)?.permissions().mode() & 0o777;
    if found & !mode != 0 {
        fs::set_permissions(path, Permissions::from_mode(found & mode))?;
        tracing::warn!(
            path = %path.display(),
            found = format_args!("{found:03o}"),
            now = format_args!("{:03o}", found & mode),
            "the journal was open to others: permissions tightened"
        );
    }
    Ok(())
}

fn segment_number(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(SUFFIX)?;
    // Exactly as we write it: "+1.segment" and "1.segment" are not ours.
    if digits.len() != 10 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

fn unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tracing::Dispatch;
    use tracing::subscriber::NoSubscriber;

    use super::*;

    /// Holds: that permissions were tightened is said when it is done, and not when it failed.
    #[test]
    fn what_failed_is_not_told_as_done() {
        // While there is only one, another test's thread may answer for all that nobody wants to know.
        let _another = Dispatch::new(NoSubscriber::default());
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("0000000001.segment");
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        let told = dir.path().join("log");
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(Mutex::new(File::create(&told).unwrap()))
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            // Its mode is 0444, and not even root may change it.
            let error = restrict(Path::new("/proc/self/status"), 0o600).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
            assert_eq!(fs::read_to_string(&told).unwrap(), "");
            restrict(&file, 0o600).unwrap();
        });
        let told = fs::read_to_string(&told).unwrap();
        assert!(told.contains("found=644 now=600"), "{told}");
    }
}

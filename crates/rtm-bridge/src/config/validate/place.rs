//! Where the journal is to be: whether it can be made there, and how much the disk has.

use std::io::ErrorKind;
use std::path::Path;

use bytesize::ByteSize;
use rustix::fs::{Access, StatVfs, StatVfsMountFlags, access, statvfs};

use crate::config::JournalConfig;
use crate::fields::problem::Problems;

/// What another user, or an hour later, may be right.
pub(super) fn warnings(journal: &JournalConfig, warnings: &mut Problems<'_>) {
    let dir = &journal.dir;
    let Some(there) = existing(dir) else {
        return;
    };
    if access(there, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK).is_err() {
        warnings.add(
            "dir",
            format!(
                "this user may not write in {}; the user that runs the bridge must be able to",
                there.display()
            ),
        );
    }
    let Some(free) = free_bytes(dir) else { return };
    let room = free.saturating_add(stored(dir));
    if room < journal.max_bytes.saturating_add(journal.min_free_bytes) {
        warnings.add(
            "max_bytes",
            format!(
                "{} and min_free_bytes = {} are more than the disk of {} has left for the journal, {}: polling would \
                 stop before max_bytes is reached",
                ByteSize(journal.max_bytes),
                ByteSize(journal.min_free_bytes),
                dir.display(),
                ByteSize(room)
            ),
        );
    }
}

/// Whether a journal can be in `dir`. Nothing is made here: an absent directory is one that can be made, as far as its parents
/// tell.
pub(super) fn can_hold_a_journal(dir: &Path) -> Result<(), String> {
    if dir.as_os_str().is_empty() {
        return Err("is empty; expected a directory".to_owned());
    }
    for path in ancestors(dir) {
        match path.metadata() {
            Ok(found) if found.is_dir() && path == dir => return Ok(()),
            Ok(found) if found.is_dir() => return can_be_made_in(path),
            Ok(_) => {
                return Err(format!(
                    "{} is not a directory; expected a directory, which is made if it is missing",
                    path.display()
                ));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) if error.kind() == ErrorKind::NotADirectory => {}
            Err(error) => return Err(format!("cannot look at {}: {error}", path.display())),
        }
    }
    Ok(())
}

/// Not where nobody can make one, root included: `/proc` and its like, and what is mounted read-only.
fn can_be_made_in(parent: &Path) -> Result<(), String> {
    let why = match statvfs(parent) {
        Ok(found) if found.f_blocks == 0 => "stores no files",
        Ok(found) if found.f_flag.contains(StatVfsMountFlags::RDONLY) => "is read-only",
        Ok(_) | Err(_) => return Ok(()),
    };
    Err(format!(
        "cannot be made: the file system of {} {why}",
        parent.display()
    ))
}

/// A relative path ends in an empty one, which stands for where we are.
fn ancestors(dir: &Path) -> impl Iterator<Item = &Path> {
    dir.ancestors().filter(|path| !path.as_os_str().is_empty())
}

/// The directory, or the parent that it would be made in.
fn existing(dir: &Path) -> Option<&Path> {
    let here = Path::new(".");
    let mut places = ancestors(dir).chain(dir.is_relative().then_some(here));
    places.find(|path| path.is_dir())
}

/// What the disk that the directory is on, or will be made on, has free for who is not root.
pub(crate) fn free_bytes(dir: &Path) -> Option<u64> {
    let found: StatVfs = statvfs(existing(dir)?).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

/// What the journal takes already.
fn stored(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    files
        .filter_map(|file| file.metadata().ok())
        .map(|found| found.len())
        .sum()
}

//! The operations on files that a journal is built on: the seam where tests own the disk.

use std::io;
use std::sync::Arc;

/// Numbered segment files in one directory. Everything may fail, and nothing that failed is asked again on the same
/// segment, save for reading, removing and listing.
///
/// # Contract
///
/// - What was appended to a segment is durable once [`Storage::sync`] has returned for it, and the segment itself once
///   [`Storage::sync_dir`] has. Until then any part of it may be lost, in any order.
/// - After a failed append any part of the bytes may be in the file. After a failed sync any part of what was not
///   synced may be lost, although it reads back.
/// - One thread appends, syncs, creates, unlinks and truncates; any number read at the same time.
pub trait Storage: Send + Sync + 'static {
    /// Makes an empty segment. An error if there is one of this number.
    ///
    /// # Errors
    ///
    /// What the system says; [`io::ErrorKind::StorageFull`] and [`io::ErrorKind::QuotaExceeded`] mean a full disk.
    fn create(&self, segment: u32) -> io::Result<()>;

    /// Writes `bytes` at the end of a segment that this process created.
    ///
    /// # Errors
    ///
    /// What the system says. Some of the bytes may have been written.
    fn append(&self, segment: u32, bytes: &[u8]) -> io::Result<()>;

    /// Makes the contents of a segment durable.
    ///
    /// # Errors
    ///
    /// What the system says. What was not durable before may be lost.
    fn sync(&self, segment: u32) -> io::Result<()>;

    /// Reads from `offset` into `into`, and says how many bytes there were: fewer only at the end of the file.
    ///
    /// # Errors
    ///
    /// What the system says; [`io::ErrorKind::NotFound`] if there is no such segment.
    fn read(&self, segment: u32, offset: u64, into: &mut [u8]) -> io::Result<usize>;

    /// All segments with their sizes in bytes, in any order.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn list(&self) -> io::Result<Vec<(u32, u64)>>;

    /// Removes a segment.
    ///
    /// # Errors
    ///
    /// What the system says; [`io::ErrorKind::NotFound`] if there is no such segment.
    fn unlink(&self, segment: u32) -> io::Result<()>;

    /// Makes created and removed segments durable.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn sync_dir(&self) -> io::Result<()>;

    /// Shortens a segment to `bytes`. Asked only at opening, of a torn tail.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn truncate(&self, segment: u32, bytes: u64) -> io::Result<()>;

    /// How many bytes are free for this user; `u64::MAX` where there is no telling.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn free_bytes(&self) -> io::Result<u64>;
}

impl<S: Storage + ?Sized> Storage for Arc<S> {
    fn create(&self, segment: u32) -> io::Result<()> {
        (**self).create(segment)
    }

    fn append(&self, segment: u32, bytes: &[u8]) -> io::Result<()> {
        (**self).append(segment, bytes)
    }

    fn sync(&self, segment: u32) -> io::Result<()> {
        (**self).sync(segment)
    }

    fn read(&self, segment: u32, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        (**self).read(segment, offset, into)
    }

    fn list(&self) -> io::Result<Vec<(u32, u64)>> {
        (**self).list()
    }

    fn unlink(&self, segment: u32) -> io::Result<()> {
        (**self).unlink(segment)
    }

    fn sync_dir(&self) -> io::Result<()> {
        (**self).sync_dir()
    }

    fn truncate(&self, segment: u32, bytes: u64) -> io::Result<()> {
        (**self).truncate(segment, bytes)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        (**self).free_bytes()
    }
}

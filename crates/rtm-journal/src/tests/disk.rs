//! A disk in memory that forgets what was not synced, and fails when it is told to.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::Storage;

/// What a journal asks of its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Create,
    Append,
    Sync,
    SyncDir,
    Unlink,
    Read,
}

type Fault = Box<dyn FnMut(Op, u32) -> Option<io::Error> + Send>;

#[derive(Default)]
pub(super) struct TestDisk(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    files: BTreeMap<u32, File>,
    fault: Option<Fault>,
    syncs: u64,
    reads: u64,
    unlinks: u64,
    free: Option<u64>,
}

#[derive(Default, Clone)]
struct File {
    bytes: Vec<u8>,
    /// So much of it survives a crash.
    synced: usize,
    /// So does its name.
    named: bool,
    /// It has been unlinked, but not durably.
    unlinked: bool,
    /// A sync of it failed: what it says from then on is not to be believed.
    broken: bool,
}

impl TestDisk {
    pub(super) fn new() -> Arc<TestDisk> {
        Arc::default()
    }

    /// A disk with these files, all durable.
    pub(super) fn of(files: BTreeMap<u32, Vec<u8>>) -> Arc<TestDisk> {
        let disk = TestDisk::default();
        for (segment, bytes) in files {
            let synced = bytes.len();
            disk.inner().files.insert(
                segment,
                File {
                    bytes,
                    synced,
                    named: true,
                    ..File::default()
                },
            );
        }
        Arc::new(disk)
    }

    /// What there would be after a power loss: nothing that was not synced.
    pub(super) fn after_power_loss(&self) -> Arc<TestDisk> {
        let survivors = self
            .inner()
            .files
            .clone()
            .into_iter()
            .filter(|(_, file)| file.named);
        TestDisk::of(
            survivors
                .map(|(segment, file)| (segment, file.bytes[..file.synced].to_vec()))
                .collect(),
        )
    }

    /// What there would be after a kill: everything that was written.
    pub(super) fn after_kill(&self) -> Arc<TestDisk> {
        TestDisk::of(self.files())
    }

    pub(super) fn files(&self) -> BTreeMap<u32, Vec<u8>> {
        let files = self
            .inner()
            .files
            .clone()
            .into_iter()
            .filter(|(_, file)| !file.unlinked);
        files.map(|(segment, file)| (segment, file.bytes)).collect()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.files().values().map(|file| file.len() as u64).sum()
    }

    /// From now on each operation is put to `fault`, which may fail it.
    pub(super) fn fail<E: Into<io::Error>>(
        &self,
        mut fault: impl FnMut(Op, u32) -> Option<E> + Send + 'static,
    ) {
        let fault = move |op, segment| fault(op, segment).map(Into::into);
        self.inner().fault = Some(Box::new(fault));
    }

    pub(super) fn heal(&self) {
        self.inner().fault = None;
    }

    pub(super) fn set_free(&self, bytes: u64) {
        self.inner().free = Some(bytes);
    }

    pub(super) fn syncs(&self) -> u64 {
        self.inner().syncs
    }

    pub(super) fn reads(&self) -> u64 {
        self.inner().reads
    }

    pub(super) fn unlinks(&self) -> u64 {
        self.inner().unlinks
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    fn ask(&self, op: Op, segment: u32) -> (MutexGuard<'_, Inner>, io::Result<()>) {
        let mut inner = self.inner();
        let failed = inner.fault.as_mut().and_then(|fault| fault(op, segment));
        (inner, failed.map_or(Ok(()), Err))
    }
}

impl Inner {
    fn file(&mut self, segment: u32) -> io::Result<&mut File> {
        self.files
            .get_mut(&segment)
            .filter(|file| !file.unlinked)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Storage for TestDisk {
    fn create(&self, segment: u32) -> io::Result<()> {
        let (mut inner, failed) = self.ask(Op::Create, segment);
        failed?;
        assert!(
            !inner.files.contains_key(&segment),
            "the journal uses the number {segment} again"
        );
        inner.files.insert(segment, File::default());
        Ok(())
    }

    fn append(&self, segment: u32, bytes: &[u8]) -> io::Result<()> {
        let (mut inner, failed) = self.ask(Op::Append, segment);
        let file = inner.file(segment)?;
        assert!(!file.broken, "the journal writes to a segment that failed");
        // A failing write has written some of it.
        let written = if failed.is_ok() {
            bytes.len()
        } else {
            bytes.len() / 2
        };
        file.bytes.extend_from_slice(&bytes[..written]);
        file.broken = failed.is_err();
        failed
    }

    fn sync(&self, segment: u32) -> io::Result<()> {
        let (mut inner, failed) = self.ask(Op::Sync, segment);
        inner.syncs += 1;
        let file = inner.file(segment)?;
        assert!(
            !file.broken,
            "the journal asks again for a sync that failed"
        );
        match failed {
            Ok(()) => file.synced = file.bytes.len(),
            // It reads back, and is lost all the same.
            Err(_) => file.broken = true,
        }
        failed
    }

    fn read(&self, segment: u32, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let (mut inner, failed) = self.ask(Op::Read, segment);
        inner.reads += 1;
        failed?;
        let bytes = inner
            .file(segment)?
            .bytes
            .get(offset as usize..)
            .unwrap_or_default();
        let read = bytes.len().min(into.len());
        into[..read].copy_from_slice(&bytes[..read]);
        Ok(read)
    }

    fn list(&self) -> io::Result<Vec<(u32, u64)>> {
        Ok(self
            .files()
            .into_iter()
            .map(|(segment, bytes)| (segment, bytes.len() as u64))
            .collect())
    }

    fn unlink(&self, segment: u32) -> io::Result<()> {
        let (mut inner, failed) = self.ask(Op::Unlink, segment);
        failed?;
        inner.file(segment)?.unlinked = true;
        inner.unlinks += 1;
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let (mut inner, failed) = self.ask(Op::SyncDir, 0);
        failed?;
        inner.files.retain(|_, file| !file.unlinked);
        inner.files.values_mut().for_each(|file| file.named = true);
        Ok(())
    }

    fn truncate(&self, segment: u32, bytes: u64) -> io::Result<()> {
        let mut inner = self.inner();
        let file = inner.file(segment)?;
        file.bytes.truncate(bytes as usize);
        file.synced = file.synced.min(file.bytes.len());
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(self.inner().free.unwrap_or(u64::MAX))
    }
}
